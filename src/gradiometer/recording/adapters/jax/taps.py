"""tap: what is measured of a layer's pre-activations and deltas, where they pass."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from dp.activations import Activation
from gradiometer.quantities import zero_units
from gradiometer.recording.adapters.jax.functions import Function, function_of
from gradiometer.recording.adapters.jax.transport import (
    Settings,
    TapMessage,
    check_whole_batch,
    context,
    packed,
    sender,
    step_number,
    when_recorded,
)
from gradiometer.recording.measure import (
    OF_BACKWARD,
    OF_DELTA,
    live_units,
    of_activation,
    of_backward,
    of_delta,
    of_entries,
)
from gradiometer.recording.requires import arrays_for, needing

OF_TAPS = (*needing("input", "pre_activation", "activation", "reference_activation"), *OF_DELTA)
ZERO_UNITS = "zero units"  # which of them are: sent instead of a dead fraction, and pooled


def tap(
    x: Array,
    name: str,
    *,
    activation: str | Activation | Callable[[Array], Array] | None = None,
    axis: int = -1,
    step: Array | int | None = None,
    inputs: Array | None = None,
    weight: Array | None = None,
) -> Array:
    """Give x back; inside of `record`, and when differentiated, measure it and its derivative.

    Parameters
    ----------
    x : array
        The pre-activations h of a layer: one axis are its units, all others samples, and so are
        the axes of a `vmap` over examples.
    name : str
        The layer's name. Weights of the same name (see `tap_step`) belong to the same layer.
    activation : str, Activation or callable, optional
        The function φ that the net applies to h, as a name in `dp.activations`, as in
        `dp.activations.leaky_relu(0.2)`, or itself, such as `jax.nn.relu`. It does nothing to
        what is given back; the statistics of activations are those of φ(h). Without it, they are
        those of x itself.
    axis : int
        The axis of the units (channels, of a convolution).
    step : integer, optional
        Number of updates done before this one, 0 at first: with `record(every=…)`, steps between
        are not measured at all.
    inputs : array (…, fan_in), optional
        What the layer multiplies by its weights, for `input_rms`, `rows` and `backward_live_rms`.
    weight : array (fan_in, units), optional
        Its weights, for `backward_rms`, `backward_live_rms` and `affine_delta_rms`; x is `inputs @
        weight`, and perhaps a bias.

    Returns
    -------
    array
        x, bit by bit, and so is its derivative.

    Raises
    ------
    TypeError
        If x is no array of real floating-point numbers, or if the activation can be none.
    ValueError
        If there is no activation function of that name, or no such axis.

    Notes
    -----
    The delta is the derivative of what is differentiated. Under `vmap(grad(loss))` that is each
    example's loss, not their mean.

    Several taps of one name in one step (a recurrent layer, parts of a batch) are pooled, as one
    batch of all their samples: a unit is dead if it is zero in all of them. Every derivative counts
    that is taken before `tap_step` ends the step. What the loss does not depend on is not recorded.

    The share of saturated activations is known for the functions of `dp.activations`, and is NaN
    for others. The default `jax.nn.gelu` is one of the others: it approximates.
    """
    settings = context.value
    if settings is None or not {*OF_TAPS, "nonfinite_count"}.intersection(settings.wanted):
        return x
    if not isinstance(name, str):
        raise TypeError(f"a tap's name must be a string, such as 'h1', got {name!r}")
    check_whole_batch(f"tap {name!r}")
    x = jnp.asarray(x)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(
            f"tap {name!r}: expected an array of real floating-point numbers, got {x.dtype} of "
            f"shape {x.shape}"
        )
    if x.ndim and not -x.ndim <= axis < x.ndim:
        raise ValueError(f"tap {name!r}: there is no axis {axis} in an array of {x.shape}")
    probe = _Tap(settings, name, function_of(activation, name), x.shape, axis)
    arrays = arrays_for(settings.wanted)
    # no more than is needed is kept for the backward pass
    beside = (inputs if "input" in arrays else None, weight if probe.wants_backward else None)
    return _tapped(probe, x, lax.stop_gradient(beside), step_number(step, f"tap {name!r}"))


Beside: TypeAlias = "tuple[Array | None, Array | None]"  # inputs and weight


def _samples(inputs: Array) -> Array:
    """Inputs as samples × features."""
    return jnp.reshape(inputs, (-1, inputs.shape[-1] if inputs.ndim else 1))


@dataclass(frozen=True)
class _Tap:
    """One call of `tap`, as far as it is known while tracing."""

    settings: Settings
    name: str
    function: Function | None
    shape: tuple[int, ...]
    axis: int

    @property
    def units(self) -> int:
        """How many units it has; a number is one."""
        return self.shape[self.axis] if self.shape else 1

    @property
    def wants_backward(self) -> bool:
        """Whether the delta is to be followed to the layer's input."""
        of_weight = {*OF_BACKWARD, *needing("affine_delta")}
        return not of_weight.isdisjoint(self.settings.wanted)

    def rows(self, x: Array) -> Array:
        """The array as samples × units."""
        return jnp.reshape(jnp.moveaxis(x, self.axis, -1) if self.shape else x, (-1, self.units))


def _tapped_primal(probe: _Tap, x: Array, beside: Beside, step: Array | None) -> Array:  # noqa: ARG001
    return x


def _tapped_forward(probe: _Tap, x: Array, beside: Beside, step: Array | None) -> tuple[Array, Any]:
    measure = functools.partial(_measure_forward, probe)
    live = None
    if probe.wants_backward and beside[0] is not None:
        live = live_units(_samples(beside[0]))
    found = when_recorded(probe.settings, step, measure, x, beside[0])
    return x, (found, live, beside, step)


def _tapped_backward(probe: _Tap, kept: Any, delta: Array) -> tuple[Array, Any, None]:
    # Sent from here alone: a forward pass may be run again for the backward pass (`checkpoint`).
    found, live, beside, step = kept
    measure = functools.partial(_measure_delta, probe)
    found = {**found, **when_recorded(probe.settings, step, measure, delta, beside[1], live)}
    vector, columns = packed({probe.name: found})
    function = None if probe.function is None else probe.function.name
    entries = int(np.prod(probe.shape))
    message = TapMessage(probe.settings, columns, probe.name, function, probe.units, entries)
    sender(message)(vector, step, [])
    return delta, jax.tree.map(jnp.zeros_like, beside), None


_tapped = jax.custom_vjp(_tapped_primal, nondiff_argnums=(0,))
_tapped.defvjp(_tapped_forward, _tapped_backward)


# compiled, so that steps that are not compiled do not pay for each operation
@functools.partial(jax.jit, static_argnums=0)
def _measure_forward(probe: _Tap, h: Array, inputs: Array | None) -> dict[str, Array]:
    function, wanted = probe.function, probe.settings.wanted
    if "activation_std" in wanted:
        wanted = (*wanted, "activation_mean")  # needed to pool it
    saturated = None
    if function is not None and function.saturated is not None:
        saturated = probe.rows(function.saturated(h))
    x = probe.rows(h if function is None else function.apply(h))
    counts: dict[str, Array] = {}
    found = of_activation(x, saturated, wanted, counts)
    found |= of_entries("pre_activation", probe.rows(h), wanted)
    if inputs is not None:
        samples = _samples(inputs)
        found |= of_entries("input", samples, wanted)
        if "rows" in wanted:
            found["rows"] = jnp.asarray(float(samples.shape[0]))
    if "dead_fraction" in wanted:
        found[ZERO_UNITS] = zero_units(x == 0)
    return {**found, **counts}


@functools.partial(jax.jit, static_argnums=0)
def _measure_delta(
    probe: _Tap, delta: Array, weight: Array | None, live: Array | None
) -> dict[str, Array]:
    counts: dict[str, Array] = {}
    rows, wanted = probe.rows(delta), probe.settings.wanted
    found = of_delta(rows, wanted, counts) | of_entries("phi_delta", rows, wanted)
    if weight is not None:
        found |= of_entries("affine_delta", rows, wanted)
        found |= of_backward(rows, weight, live, wanted)
    return {**found, **counts}
