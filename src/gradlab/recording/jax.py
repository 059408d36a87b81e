"""The adapter for JAX: identities that send numbers out of pure functions.

`tap` is the identity with a derivative of its own: when it is differentiated, its forward rule
measures the pre-activations, its backward rule the deltas, on the device, and a few numbers per
layer are sent to the host. `tap_step` does the same with the weights and ends the step. JAX is free
to compile, to loop and to batch: what is sent keeps its order, and under `vmap` it is sent once,
with an axis for what was mapped. A pass that is not differentiated sends nothing.

Whether anything is recorded is decided while JAX traces, and is part of the key under which JAX
keeps what it compiled: a function that ran inside of `record` is compiled anew outside of it,
without taps, and the other way round.
"""

from __future__ import annotations

import contextlib
import functools
import re
import threading
import time
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from dp import activations
from dp.activations import SOFTMAX, Activation
from dp.primitives import LECUN_SCALE, LECUN_STRETCH
from gradlab.recording import quantities as q
from gradlab.recording import recorder as r
from gradlab.recording.dp import UNKNOWN
from gradlab.recording.errors import RecordingError
from gradlab.recording.recorder import HISTOGRAM, LayerInfo, Recorder

try:
    import jax
    import jax.numpy as jnp
    from jax import lax, make_user_context
    from jax.custom_batching import custom_vmap
    from jax.experimental import io_callback
except ImportError as error:
    raise ImportError(
        f"gradlab.jax needs JAX ({error}); install it: pip install 'gradlab[jax]'"
    ) from None

if TYPE_CHECKING:
    from gradlab.trace import Trace

Array = Any  # of JAX, traced or not; on the host, of NumPy
Tree = Any  # a pytree of arrays
# what stands in a vector of numbers: ((layer, what), how many); the layer "" is the whole net
Columns = tuple[tuple[tuple[str, str], int], ...]

LOSS, ACCURACY = r.PER_STEP
ZERO_UNITS = "zero units"
OF_TAPS = (
    "delta_rms",
    "activation_mean",
    "activation_std",
    "saturated_fraction",
    "dead_fraction",
)
OF_WEIGHTS = tuple(
    name for name in r.PER_LAYER if name not in OF_TAPS and name != "nonfinite_count"
)
NONFINITE = {kind: f"not finite in {kind}" for kind in r.KINDS}


# --- the user's side ------------------------------------------------------------------------------


@contextlib.contextmanager
def record(
    *,
    every: int = 1,
    histograms: bool = False,
    quantities: Collection[str] | None = None,
) -> Iterator[Recorder]:
    """Record what `tap` and `tap_step` see in this thread inside the block.

    Parameters
    ----------
    every : int
        Record every k-th step. If `tap` and `tap_step` are told the step's number (`step=`), the
        steps between are neither measured nor sent; otherwise they are, and then dropped.
    histograms : bool
        Record log10 histograms of the gradients too.
    quantities : collection of str, optional
        Measure only these, such as ["grad_mean_abs", "loss"].

    Yields
    ------
    Recorder
        Its `trace` may be taken at any time; it waits for the device to finish. Layers are in the
        order of the forward pass.

    Raises
    ------
    RecordingError
        When the trace is taken: if taps were met but no step was ended; if the taps of one name
        differ in their units; if a later step has a layer that the first one had not; if the
        members of an ensemble are at different steps. When a tap is met: inside `shard_map` or
        `pmap`, where every device sees a part of the batch alone.
    ValueError
        If there is no such quantity.

    Notes
    -----
    The compiled code is kept by JAX for the next recording with the same settings. Functions
    compiled ahead of time (`jit(f).lower(…).compile()`) stay as they are: compiled outside of a
    block, they have no taps.

    Inside a block, JAX refuses some of what it does outside: forward-mode differentiation (`jvp`,
    `jacfwd`) of a tap, and `vmap` of a `cond` or of a `while_loop` with a tap in it (`scan`, and
    `fori_loop` between constant bounds, are no such loops).

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> import gradlab.jax
    >>> def loss(w, x):
    ...     h = gradlab.jax.tap(x @ w["h1"], "h1", activation=jnp.tanh)
    ...     return jnp.sum(jnp.tanh(h) ** 2)
    >>> @jax.jit
    ... def step(w, x):
    ...     value, grads = jax.value_and_grad(loss)(w, x)
    ...     updated = jax.tree.map(lambda p, g: p - 0.1 * g, w, grads)
    ...     gradlab.jax.tap_step(w, grads, updated, loss=value)
    ...     return updated
    >>> w, x = {"h1": jnp.ones((4, 3))}, jnp.ones((5, 4))
    >>> with gradlab.jax.record() as recorder:
    ...     for _ in range(2):
    ...         w = step(w, x)
    >>> recorder.trace["delta_rms"].shape
    (2, 1)
    """
    recorder = _Recorder(every, histograms, quantities)
    with _placed(recorder.collected) as slot:
        settings = _Settings(slot, recorder.every, recorder.quantities)
        with _context(settings):
            try:
                yield recorder
            finally:
                jax.effects_barrier()


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
    settings = _context.value
    if settings is None or not {*OF_TAPS, "nonfinite_count"}.intersection(settings.wanted):
        return x
    if not isinstance(name, str):
        raise TypeError(f"a tap's name must be a string, such as 'h1', got {name!r}")
    _whole_batch(f"tap {name!r}")
    x = jnp.asarray(x)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(
            f"tap {name!r}: expected an array of real floating-point numbers, got {x.dtype} of "
            f"shape {x.shape}"
        )
    if x.ndim and not -x.ndim <= axis < x.ndim:
        raise ValueError(f"tap {name!r}: there is no axis {axis} in an array of {x.shape}")
    probe = _Tap(settings, name, _function(activation, name), x.shape, axis)
    return _tapped(probe, x, _number(step, f"tap {name!r}"))


def tap_step(
    params: Tree,
    grads: Tree,
    updated: Tree = None,
    *,
    loss: Array | None = None,
    accuracy: Array | None = None,
    clipped: Tree = None,
    layers: Callable[[Tree], Mapping[str, Array]] | None = None,
    step: Array | int | None = None,
) -> None:
    """End a training step; inside of `record`, measure its weights, gradients and update.

    Parameters
    ----------
    params, grads, updated : pytree
        The weights before the update, dL/dW, and the weights after it, each as it is at hand:
        lists, dicts, modules of Flax or Equinox. Every array of real numbers with two axes or more
        is the weight matrix of a layer (of more axes, such as the kernel of a convolution, all
        entries count alike); others are passed over. `grads` and `updated` may be None, or lack a
        weight.
    loss, accuracy : number, optional
        Of this step.
    clipped : pytree, optional
        The gradients that the optimiser was given, if they were clipped.
    layers : function, optional
        Takes each of the trees and gives a dict from name to matrix, if other names or fewer
        layers are wanted than by default.
    step : integer, optional
        As for `tap`.

    Raises
    ------
    ValueError
        If a tree has none of the weights of `params`, or in another shape; if the loss or the
        accuracy is not one number.

    Notes
    -----
    A layer's name is the path of what holds its weight: "layers/0" of `model.layers[0].weight`,
    "Dense_0" of `variables["params"]["Dense_0"]["kernel"]`, "0" of the first of `[(W, b), …]`.
    Where something holds several matrices, or where nothing does, it is the path of the matrix
    itself, such as "cell/hh" or "w1". Weights without a tap, and taps without weights, are layers
    too, with NaN for what cannot be had.

    Under `vmap`, the axes that this call is mapped over are the members of an ensemble (several are
    flattened into one, the outermost first), and axes that only the taps are mapped over are
    samples.

    Examples
    --------
    A net that is a list of (W, b), with taps named "layer 1" and so on:

    >>> def named(net):
    ...     return {f"layer {i}": W for i, (W, b) in enumerate(net, 1)}
    >>> # tap_step(params, grads, updated, loss=loss, layers=named)
    """
    settings = _context.value
    if settings is None:
        return
    _whole_batch("tap_step")
    weights = _matrices(params, layers)
    names = _names(weights)
    others: dict[str, dict[str, Array]] = {}
    for what, tree in {"grads": grads, "updated": updated, "clipped": clipped}.items():
        found = {} if tree is None else _matrices(tree, layers)
        if tree is not None:
            _matched(what, found, weights)
        others[what] = {name: found[path] for path, name in names.items() if path in found}
    numbers = {LOSS: _scalar(LOSS, loss), ACCURACY: _scalar(ACCURACY, accuracy)}
    number = _number(step, "tap_step")
    measured = _when_recorded(
        settings,
        number,
        functools.partial(_measure_weights, settings.wanted),
        {names[path]: matrix for path, matrix in weights.items()},
        others,
    )
    vector, columns = _packed({**measured, "": numbers})
    # Equinox, as PyTorch, has fan_out first, and calls it weight
    sizes = tuple((names[path], x.shape, path[-1] == "weight") for path, x in weights.items())
    # mapped over whatever the taps can be mapped over
    state = [jnp.ravel(x)[:1] for x in (*weights.values(), *others["grads"].values())]
    _sender(_StepMessage(settings, columns, sizes))(vector, number, lax.stop_gradient(state))


# --- inside the traced program --------------------------------------------------------------------


@dataclass(frozen=True)
class _Settings:
    """What of a recording the compiled code depends on."""

    slot: int
    every: int
    wanted: tuple[str, ...]


_context = make_user_context()  # the _Settings of this thread, or None


@dataclass(frozen=True)
class _Function:
    """φ; equal ones share what JAX compiled."""

    key: Hashable
    name: str
    apply: Callable[[Array], Array] = field(compare=False)
    saturated: Callable[[Array], Array] | None = field(compare=False)


@dataclass(frozen=True)
class _Tap:
    """One call of `tap`, as far as it is known while tracing."""

    settings: _Settings
    name: str
    function: _Function | None
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
    return x, (_when_recorded(probe.settings, step, measure, x), step)


def _tapped_backward(probe: _Tap, kept: Any, delta: Array) -> tuple[Array, None]:
    # Sent from here alone: a forward pass may be run again for the backward pass (`checkpoint`).
    found, step = kept
    measure = functools.partial(_measure_delta, probe)
    found = {**found, **_when_recorded(probe.settings, step, measure, delta)}
    vector, columns = _packed({probe.name: found})
    function = None if probe.function is None else probe.function.name
    entries = int(np.prod(probe.shape))
    message = _TapMessage(probe.settings, columns, probe.name, function, probe.units, entries)
    _sender(message)(vector, step, [])
    return delta, None


_tapped = jax.custom_vjp(_tapped_primal, nondiff_argnums=(0,))
_tapped.defvjp(_tapped_forward, _tapped_backward)


def _when_recorded(
    settings: _Settings, step: Array | None, measure: Callable[..., Any], *arrays: Any
) -> Any:
    """What `measure` finds; zeros, if the step is known not to be recorded."""
    arrays = lax.stop_gradient(arrays)
    if step is None or settings.every == 1:
        return measure(*arrays)
    shapes = jax.eval_shape(measure, *arrays)

    def nothing(*_: Any) -> Any:
        return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)

    return lax.cond(step % settings.every == 0, measure, nothing, *arrays)


def _activation_quantities(probe: _Tap, h: Array) -> dict[str, Array]:
    function, wanted = probe.function, probe.settings.wanted
    if "activation_std" in wanted:
        wanted = (*wanted, "activation_mean")  # needed to pool it
    saturated = None
    if function is not None and function.saturated is not None:
        saturated = probe.rows(function.saturated(h))
    x = probe.rows(h if function is None else function.apply(h))
    counts: dict[str, Array] = {}
    found = r.of_activation(x, saturated, wanted, counts)
    if "dead_fraction" in wanted:
        found[ZERO_UNITS] = q.zero_units(x)
    return _with(found, counts, wanted)


def _delta_quantities(probe: _Tap, delta: Array) -> dict[str, Array]:
    counts: dict[str, Array] = {}
    wanted = probe.settings.wanted
    found = r.of_delta(probe.rows(delta), wanted, counts)
    return _with(found, counts, wanted)


def _weight_quantities(
    wanted: tuple[str, ...], weights: dict[str, Array], others: dict[str, dict[str, Array]]
) -> dict[str, dict[str, Array]]:
    """Layer -> what -> numbers."""
    layers = {}
    for name, weight in weights.items():
        axes = range(-weight.ndim, 0)
        gradient, updated, clipped = (
            others[what].get(name) for what in ("grads", "updated", "clipped")
        )
        counts: dict[str, Array] = {}
        found: dict[str, Array] = {}
        if gradient is not None:
            found |= r.of_gradient(gradient, wanted, counts, axes)
            if clipped is not None and "clip_factor" in wanted:
                found["clip_factor"] = q.clip_factor(
                    q.rms(q.entries(gradient, axes)), q.rms(q.entries(clipped, axes))
                )
        found |= r.of_weights(weight, updated, wanted, counts, axes)
        layers[name] = _with(found, counts, wanted)
    return layers


# compiled, so that steps that are not compiled do not pay for each operation
_measure_activation = jax.jit(_activation_quantities, static_argnums=0)
_measure_delta = jax.jit(_delta_quantities, static_argnums=0)
_measure_weights = jax.jit(_weight_quantities, static_argnums=0)


def _with(
    found: dict[str, Array], counts: dict[str, Array], wanted: tuple[str, ...]
) -> dict[str, Array]:
    """What was found, and the counts if they are wanted: what nobody reads is not computed."""
    if "nonfinite_count" not in wanted:
        counts = {kind: counts[kind] for kind in counts if ZERO_UNITS in found}
    return {**found, **{NONFINITE[kind]: count for kind, count in counts.items()}}


def _packed(layers: Mapping[str, Mapping[str, Array]]) -> tuple[Array, Columns]:
    """One vector of all numbers, and what stands where: one transfer costs less than many."""
    parts = {
        (layer, what): jnp.ravel(numbers).astype(jnp.result_type(float))
        for layer, found in layers.items()
        for what, numbers in found.items()
    }
    columns = tuple((key, part.size) for key, part in parts.items())
    return jnp.concatenate([jnp.zeros(0), *parts.values()]), columns


@functools.lru_cache(maxsize=4096)
def _sender(message: _Message) -> Any:
    """Send a vector to the host, in the order of the program; under vmap once, as a matrix."""

    def send(vector: Array, step: Array | None, state: list[Array]) -> tuple[()]:  # noqa: ARG001
        def now() -> None:
            # a step's number along with it, where it is known
            io_callback(message, None, vector, *([] if step is None else [step]), ordered=True)

        if step is None or message.settings.every == 1:
            now()
        else:
            lax.cond(jnp.any(step % message.settings.every == 0), now, lambda: None)
        return ()

    def mapped(
        size: int, batched: Any, vector: Array, step: Array | None, state: list[Array]
    ) -> tuple[tuple[()], tuple[()]]:
        in_vector, _, in_state = batched
        if not in_vector:
            vector = jnp.broadcast_to(vector, (size, *vector.shape))
        stateless = bool(state) and not any(in_state)
        _sender(replace(message, stateless=message.stateless or stateless))(vector, step, state)
        return (), ()

    sender = custom_vmap(send)
    sender.def_vmap(mapped)
    return sender


# --- what the user gave ---------------------------------------------------------------------------


def _scaled_tanh(h: Array) -> Array:
    return LECUN_SCALE * jnp.tanh(LECUN_STRETCH * h)


# φ of dp's table as JAX has it, given the settings of the Activation
_APPLY: dict[str, Callable[..., Array]] = {
    "identity": lambda h: h,
    "sigmoid": jax.nn.sigmoid,
    "tanh": jnp.tanh,
    "lecun_tanh": _scaled_tanh,
    "relu": jax.nn.relu,
    "clipped_relu": lambda h, ceiling: jnp.clip(h, 0.0, ceiling),
    "leaky_relu": lambda h, slope: jax.nn.leaky_relu(h, slope),
    "elu": lambda h, alpha, scale: scale * jax.nn.elu(h, alpha),
    "selu": lambda h, alpha, scale: scale * jax.nn.elu(h, alpha),
    "gelu": lambda h: jax.nn.gelu(h, approximate=False),
    "silu": jax.nn.silu,
    "softplus": jax.nn.softplus,
    "softmax": lambda h, axis: jax.nn.softmax(h, axis=-1),  # noqa: ARG005
}
# functions of JAX that are those of the table, by identity
_SAME = {
    id(function): name
    for name, function in [
        ("identity", jax.nn.identity),
        ("sigmoid", jax.nn.sigmoid),
        ("sigmoid", lax.logistic),
        ("tanh", jnp.tanh),
        ("tanh", lax.tanh),
        ("relu", jax.nn.relu),
        ("clipped_relu", jax.nn.relu6),
        ("leaky_relu", jax.nn.leaky_relu),
        ("elu", jax.nn.elu),
        ("selu", jax.nn.selu),
        ("silu", jax.nn.silu),
        ("softplus", jax.nn.softplus),
        ("softmax", jax.nn.softmax),
    ]
}


def _function(activation: Any, tap: str) -> _Function | None:
    """What was given as a tap's activation function."""
    if activation is None:
        return None
    activation = _SAME.get(id(activation), activation)
    if isinstance(activation, str | Activation):
        known = SOFTMAX if activation == SOFTMAX.name else activations.get(activation)
        key = (known.name, *sorted(known.settings.items()))
        apply = functools.partial(_APPLY[known.name], **known.settings)
        # the units of a softmax do not saturate one by one
        return _Function(key, known.name, apply, None if known is SOFTMAX else known.saturated)
    if not isinstance(activation, Hashable) or not callable(activation):
        raise TypeError(
            f"tap {tap!r}: activation must be a name ({', '.join(activations.ACTIVATIONS)}, "
            f"{SOFTMAX.name}), a dp.activations.Activation, or a function such as jax.nn.relu, "
            f"got {activation!r}"
        )
    return _Function(activation, UNKNOWN, activation, None)


def _number(step: Any, where: str) -> Array | None:
    """The number of a step as an array, if it was given."""
    if step is None:
        return None
    number = jnp.asarray(step)
    if number.ndim or not jnp.issubdtype(number.dtype, jnp.integer):
        raise TypeError(
            f"{where}: step must be one integer, the number of updates done before, got "
            f"{number.dtype} of shape {number.shape}"
        )
    return lax.stop_gradient(number)


def _scalar(what: str, value: Any) -> Array:
    number = jnp.asarray(jnp.nan if value is None else value)
    if number.size != 1:
        raise ValueError(f"tap_step: {what} must be one number, got an array of {number.shape}")
    return lax.stop_gradient(number)


def _whole_batch(what: str) -> None:
    manual = jax.sharding.get_abstract_mesh().manual_axes
    if manual:
        raise RecordingError(
            f"{what} stands inside shard_map or pmap, where each device sees a part of the batch "
            "alone; record with arrays that are sharded under jit instead"
        )


Path = tuple[str, ...]


def _matrices(
    tree: Tree, layers: Callable[[Tree], Mapping[str, Array]] | None
) -> dict[Path, Array]:
    """The weight matrices in a tree, or what belongs to them."""
    if layers is not None:
        named = layers(tree).items()
        return {(name,): jnp.asarray(matrix) for name, matrix in named if matrix is not None}
    # a bias may have more than one axis: that of a convolution in Equinox has
    return {path: x for path, x in _leaves(tree) if x.ndim >= 2 and path[-1] != "bias"}


def _names(paths: Collection[Path]) -> dict[Path, str]:
    """The layer's name of each matrix: the path of what holds it, if that holds no other.

    >>> _names([("h1", "kernel"), ("cell", "hh"), ("cell", "ih"), ("w",)])
    {('h1', 'kernel'): 'h1', ('cell', 'hh'): 'cell/hh', ('cell', 'ih'): 'cell/ih', ('w',): 'w'}
    """
    holders = [path[:-1] for path in paths]
    return {
        path: "/".join(path[:-1] if path[:-1] and holders.count(path[:-1]) == 1 else path)
        for path in paths
    }


def _matched(what: str, matrices: dict[Path, Array], weights: dict[Path, Array]) -> None:
    """Raise ValueError unless these matrices of another tree belong to the weights."""
    if weights and not matrices.keys() & weights.keys():
        raise ValueError(
            f"tap_step: {what} has none of the weights of params ("
            f"{', '.join(map('/'.join, weights))}); expected a tree of the same structure"
        )
    for path in matrices.keys() & weights.keys():
        if matrices[path].shape != weights[path].shape:
            raise ValueError(
                f"tap_step: {what} of {'/'.join(path)!r} has the shape {matrices[path].shape}, its "
                f"weight {weights[path].shape}"
            )


def _leaves(tree: Tree) -> list[tuple[Path, Array]]:
    """Arrays of real numbers and their paths, "Dense_2" before "Dense_10"."""
    found = []
    ranks: dict[Any, int] = {}
    for keys, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        if not jnp.issubdtype(getattr(leaf, "dtype", None), jnp.floating):
            continue
        texts = [jax.tree_util.keystr((key,), simple=True) for key in keys]
        # JAX sorts dicts as text; whatever else has a place has an order
        place = [
            _natural(text)
            if isinstance(key, jax.tree_util.DictKey)
            else ranks.setdefault(keys[: i + 1], len(ranks))
            for i, (key, text) in enumerate(zip(keys, texts, strict=True))
        ]
        if keys and keys[-1] == jax.tree_util.GetAttrKey("value"):
            texts.pop()  # Flax's Variables hold their arrays as `value`
        if len(texts) > 1 and texts[0] == "params":
            texts.pop(0)  # Flax's variables hold all weights as "params"
        found.append((place, tuple(texts) or ("w",), leaf))
    found.sort(key=lambda leaf: leaf[0])
    return [(path, jnp.asarray(leaf)) for _, path, leaf in found]


def _natural(text: str) -> list[Any]:
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", text)]


# --- on the host ----------------------------------------------------------------------------------


_slots: dict[int, _Collected] = {}
_slots_lock = threading.Lock()


@contextlib.contextmanager
def _placed(collected: _Collected) -> Iterator[int]:
    """A number by which compiled code finds the recording; the same one again for the next."""
    with _slots_lock:
        slot = next(i for i in range(len(_slots) + 1) if i not in _slots)
        _slots[slot] = collected
    try:
        yield slot
    finally:
        del _slots[slot]


@dataclass(frozen=True)
class _Message:
    """What compiled code calls with its numbers; equal messages share what JAX compiled."""

    settings: _Settings
    columns: Columns
    # mapped over an axis that neither weights nor gradients have
    stateless: bool = field(default=False, kw_only=True)

    def __call__(self, vector: Any, step: Any = None) -> None:
        """Take the numbers to the recording, unless it is over."""
        collected = _slots.get(self.settings.slot)
        if collected is not None:
            started = time.perf_counter()
            values = np.asarray(vector).astype(np.float64)
            collected.take(self, values, None if step is None else np.asarray(step))
            collected.recorder.spent(time.perf_counter() - started)

    def unpacked(self, values: Any) -> dict[tuple[str, str], Any]:
        """(Layer, what) -> array (…, how many)."""
        found, start = {}, 0
        for key, size in self.columns:
            found[key] = values[..., start : start + size]
            start += size
        return found


@dataclass(frozen=True)
class _TapMessage(_Message):
    name: str
    function: str | None
    units: int
    entries: int


@dataclass(frozen=True)
class _StepMessage(_Message):
    # name, shape, and whether fan_out comes first
    weights: tuple[tuple[str, tuple[int, ...], bool], ...]


@dataclass(frozen=True)
class _Call:
    """One call of a tap, with the numbers of every mapped axis."""

    message: _TapMessage
    values: Any
    step: Any


class _Collected:
    """What JAX sends of a recording, put together step by step."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder
        self._calls: list[_Call] = []
        self._ended = 0
        self._number = 0  # of the latest step that was recorded
        self._members: tuple[int, ...] | None = None
        self._problem: RecordingError | None = None

    def take(self, message: _Message, values: Any, step: Any) -> None:
        """Keep what a tap sent; put a step together, if it ends."""
        if self._problem is not None:
            return
        if isinstance(message, _TapMessage):
            self._calls.append(_Call(message, values, step))
        elif isinstance(message, _StepMessage):
            calls, self._calls = self._calls, []
            try:
                self._end(message, values, step, calls)
            except RecordingError as error:
                self._problem = error  # raised where it is seen: not in a thread of JAX

    def arrived(self) -> None:
        """Wait for the device; raise what was wrong with what it sent."""
        jax.effects_barrier()
        if self._problem is not None:
            raise RecordingError(str(self._problem))

    @property
    def open(self) -> list[str]:
        """Names of the taps that were met since a step ended."""
        return list(dict.fromkeys(call.message.name for call in reversed(self._calls)))

    def _end(self, message: _StepMessage, values: Any, step: Any, calls: list[_Call]) -> None:
        self._ended += 1
        number = self._ended if step is None else _one(step, "tap_step") + 1
        if not self.recorder.wants(number):
            return
        for call in calls:
            self._check(call, step)
            if message.stateless and call.values.ndim > 1:
                raise RecordingError(
                    f"step {number}: tap_step is mapped over an axis that neither weights nor "
                    f"gradients have, tap {call.message.name!r} over others, so that members and "
                    "samples cannot be told apart; give every member weights of its own"
                )
        if number <= self._number:
            raise RecordingError(
                f"step {number} was ended after step {self._number}; step= must count the updates "
                "of the whole recording, from 0"
            )
        members = values.shape[:-1]
        if self._members not in (None, members):
            raise RecordingError(
                f"step {number} has members of shape {members}, the steps before it "
                f"{self._members}; record them in blocks of their own"
            )
        self._number, self._members = number, members
        by_name: dict[str, list[_Call]] = {}
        for call in reversed(calls):
            by_name.setdefault(call.message.name, []).append(call)
        if not self.recorder.layers:
            self._begin(by_name, message)
        self._add(number, by_name, message.unpacked(values), members)

    def _check(self, call: _Call, step: Any) -> None:
        name = call.message.name
        if call.step is None and (step is None or self.recorder.every == 1):
            return
        given = None if call.step is None else _one(call.step, f"tap {name!r}")
        wanted = None if step is None else _one(step, "tap_step")
        if given != wanted:
            raise RecordingError(
                f"tap {name!r} was given step={given}, tap_step step={wanted}; expected the same "
                "number for both"
            )

    def _begin(self, taps: dict[str, list[_Call]], message: _StepMessage) -> None:
        """Announce the layers of the first step that is recorded."""
        weights = {name: (shape, transposed) for name, shape, transposed in message.weights}
        infos = []
        for name in _in_order(list(taps), list(weights)):
            tap = taps[name][0].message if name in taps else None
            fan_in, fan_out = _fans(weights.get(name), tap)
            function = UNKNOWN if tap is None or tap.function is None else tap.function
            infos.append(LayerInfo(name, fan_in, fan_out, function))
            if tap is None:
                self._miss(name, OF_TAPS, f"no tap has this name; taps: {_listed(taps)}")
            elif tap.function is None:
                self._miss(name, ("saturated_fraction",), "the tap was given no activation")
            elif (name, "saturated_fraction") not in dict(tap.columns):
                why = "it is not known where this activation function saturates"
                self._miss(name, ("saturated_fraction",), why)
            if name not in weights:
                why = f"no weight has this name; weights: {_listed(weights)}"
                self._miss(name, OF_WEIGHTS, why)
            elif (name, "clip_factor") not in dict(message.columns):
                self._miss(name, ("clip_factor",), "tap_step was given no clipped gradients")
        self.recorder.begin(infos)

    def _miss(self, layer: str, quantities: Collection[str], why: str) -> None:
        """Note why something is missing."""
        for name in quantities:
            if self.recorder.needs(name):
                self.recorder.missing.setdefault(layer, {})[name] = why

    def _add(
        self,
        number: int,
        taps: dict[str, list[_Call]],
        sent: dict[tuple[str, str], Any],
        members: tuple[int, ...],
    ) -> None:
        """Hand one step over to the recorder."""
        recorder = self.recorder
        names = [info.name for info in recorder.layers]
        here = {*taps, *(layer for layer, _ in sent if layer)}
        for name in sorted(here.difference(names)):
            raise RecordingError(
                f"step {number} has a layer {name!r}, which the first step had not; it had "
                f"{_listed(names)}"
            )
        # arrays of one step; an ensemble's axes as one
        flat = (int(np.prod(members)),)
        shape = (1, len(names), *flat)
        found: dict[str, Any] = {}
        counts = {kind: np.zeros(shape) for kind in r.KINDS}

        def put(layer: str, what: str, numbers: Any) -> None:
            at = names.index(layer)
            for kind, mark in NONFINITE.items():
                if what == mark:
                    counts[kind][0, at] = numbers
                    return
            where = found.setdefault(what, np.full((*shape, *numbers.shape[1:]), np.nan))
            where[0, at] = numbers

        for (layer, what), numbers in sent.items():
            if layer:
                numbers = numbers.reshape(*flat, -1)
                put(layer, what, numbers if what == HISTOGRAM else numbers[:, 0])
        for layer, calls in taps.items():
            for what, numbers in _pooled(calls, members).items():
                put(layer, what, numbers)
        loss, accuracy = (sent["", what].reshape(1, *flat) for what in r.PER_STEP)
        if HISTOGRAM in found:
            found[HISTOGRAM] = np.nan_to_num(found[HISTOGRAM])  # nothing is counted of no gradient
        if not members:  # no ensemble
            found, counts = ({k: x[:, :, 0] for k, x in group.items()} for group in (found, counts))
            loss, accuracy = loss[:, 0], accuracy[:, 0]
        recorder.add_measured([number], found, counts, loss, accuracy)
        recorder.accuracy = float(accuracy.mean())


def _pooled(calls: list[_Call], members: tuple[int, ...]) -> dict[str, Any]:
    """What -> number of each member, of all calls of a layer's tap in one step."""
    first = calls[0].message
    columns: dict[str, list[Any]] = {}
    sizes: list[int] = []
    for call in calls:
        message, values = call.message, call.values
        if (message.units, message.function) != (first.units, first.function):
            raise RecordingError(
                f"tap {first.name!r} was called with {first.units} units ({first.function}) and "
                f"with {message.units} ({message.function}) in one step; give them two names"
            )
        if values.ndim == 1:  # the same for every member
            values = np.broadcast_to(values, (*members, values.size))
        if values.shape[: len(members)] != members:
            raise RecordingError(
                f"tap {first.name!r} was mapped over axes of {values.shape[:-1]}, tap_step over "
                f"{members}; expected the tap to be mapped over all of these first"
            )
        parts = int(np.prod(values.shape[len(members) : -1]))
        values = values.reshape(int(np.prod(members)), parts, values.shape[-1])
        sizes += [message.entries] * parts
        for (_, what), numbers in message.unpacked(values).items():
            columns.setdefault(what, []).append(numbers)
    # (members, parts, …)
    arrays = {what: np.concatenate(numbers, axis=1) for what, numbers in columns.items()}
    found = {w: arrays[w][..., 0].sum(axis=1) for w in NONFINITE.values() if w in arrays}
    if ZERO_UNITS in arrays:
        asleep = arrays[ZERO_UNITS].all(axis=1)
        found["dead_fraction"] = q.share(asleep, found[NONFINITE["activation"]])
    means = {w: x[..., 0] for w, x in arrays.items() if w not in {*found, ZERO_UNITS}}
    if len(sizes) == 1:
        return {**found, **{what: numbers[:, 0] for what, numbers in means.items()}}
    pooled = [
        q.pooled([{w: x[m, i] for w, x in means.items()} for i in range(len(sizes))], sizes)
        for m in range(int(np.prod(members)))
    ]
    return {**found, **{what: np.array([each[what] for each in pooled]) for what in means}}


def _one(step: Any, where: str) -> int:
    """The number of a step, the same for every member."""
    if (step != step.flat[0]).any():
        raise RecordingError(
            f"{where}: the members of an ensemble are at different steps, {step.tolist()!r:.80}"
        )
    return int(step.flat[0])


def _in_order(taps: list[str], weights: list[str]) -> list[str]:
    """All layers; taps are in the order of the forward pass, and a weight follows the one before.

    >>> _in_order(["h1", "h2"], ["embedding", "h1", "h2", "out"])
    ['embedding', 'h1', 'h2', 'out']
    """
    names, place = list(taps), 0
    for name in weights:
        if name not in names:
            names.insert(place, name)
        place = names.index(name) + 1
    return names


def _fans(weight: tuple[tuple[int, ...], bool] | None, tap: _TapMessage | None) -> tuple[int, int]:
    """(fan_in, fan_out); 0 where it cannot be had."""
    if weight is None:
        return 0, 0 if tap is None else tap.units
    shape, transposed = weight
    if tap is not None and (shape[0] == tap.units) != (shape[-1] == tap.units):
        transposed = shape[0] == tap.units
    fan_out = shape[0] if transposed else shape[-1]
    return int(np.prod(shape)) // max(fan_out, 1), fan_out


def _listed(names: Collection[str]) -> str:
    return ", ".join(names) or "none"


class _Recorder(Recorder):
    """A Recorder that knows what JAX has sent."""

    def __init__(self, every: int, histograms: bool, quantities: Collection[str] | None) -> None:
        super().__init__(every, histograms, quantities)
        self.collected = _Collected(self)
        self.begin((), self.collected.arrived)

    def to_trace(
        self, attributes: Mapping[str, Any] | None = None, members: Sequence[int] | None = None
    ) -> Trace:
        """As `Recorder.to_trace`; says so if no step was ended."""
        if not self.n_steps and self.collected.open:
            raise RecordingError(
                f"taps were met ({_listed(self.collected.open)}), but no step was ended: call "
                "gradlab.jax.tap_step(params, grads, updated) in the training step"
            )
        return super().to_trace(attributes, members)
