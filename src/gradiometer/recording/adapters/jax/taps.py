"""tap: what is measured of a layer's pre-activations and deltas, where they pass."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dp.activations import Activation
from gradiometer.recording import quantities as q
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
from gradiometer.recording.measure import OF_ACTIVATION, OF_DELTA, of_activation, of_delta
from gradiometer.recording.quantities import Array

OF_TAPS = (*OF_DELTA, *OF_ACTIVATION)
ZERO_UNITS = "zero units"  # which of them are: sent instead of a dead fraction, and pooled


def tap(
    x: Array,
    name: str,
    *,
    activation: str | Activation | Callable[[Array], Array] | None = None,
    axis: int = -1,
    step: Array | int | None = None,
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
    return _tapped(probe, x, step_number(step, f"tap {name!r}"))


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

    def rows(self, x: Array) -> Array:
        """The array as samples × units."""
        return jnp.reshape(jnp.moveaxis(x, self.axis, -1) if self.shape else x, (-1, self.units))


def _tapped_primal(probe: _Tap, x: Array, step: Array | None) -> Array:  # noqa: ARG001
    return x


def _tapped_forward(probe: _Tap, x: Array, step: Array | None) -> tuple[Array, Any]:
    measure = functools.partial(_measure_activation, probe)
    return x, (when_recorded(probe.settings, step, measure, x), step)


def _tapped_backward(probe: _Tap, kept: Any, delta: Array) -> tuple[Array, None]:
    # Sent from here alone: a forward pass may be run again for the backward pass (`checkpoint`).
    found, step = kept
    measure = functools.partial(_measure_delta, probe)
    found = {**found, **when_recorded(probe.settings, step, measure, delta)}
    vector, columns = packed({probe.name: found})
    function = None if probe.function is None else probe.function.name
    entries = int(np.prod(probe.shape))
    message = TapMessage(probe.settings, columns, probe.name, function, probe.units, entries)
    sender(message)(vector, step, [])
    return delta, None


_tapped = jax.custom_vjp(_tapped_primal, nondiff_argnums=(0,))
_tapped.defvjp(_tapped_forward, _tapped_backward)


# compiled, so that steps that are not compiled do not pay for each operation
@functools.partial(jax.jit, static_argnums=0)
def _measure_activation(probe: _Tap, h: Array) -> dict[str, Array]:
    function, wanted = probe.function, probe.settings.wanted
    if "activation_std" in wanted:
        wanted = (*wanted, "activation_mean")  # needed to pool it
    saturated = None
    if function is not None and function.saturated is not None:
        saturated = probe.rows(function.saturated(h))
    x = probe.rows(h if function is None else function.apply(h))
    counts: dict[str, Array] = {}
    found = of_activation(x, saturated, wanted, counts)
    if "dead_fraction" in wanted:
        found[ZERO_UNITS] = q.zero_units(x == 0)
    return {**found, **counts}


@functools.partial(jax.jit, static_argnums=0)
def _measure_delta(probe: _Tap, delta: Array) -> dict[str, Array]:
    counts: dict[str, Array] = {}
    found = of_delta(probe.rows(delta), probe.settings.wanted, counts)
    return {**found, **counts}
