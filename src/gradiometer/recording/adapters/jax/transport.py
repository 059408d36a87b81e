"""From a traced program to the host: few numbers, as one vector a call, in the program's order."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax, make_user_context
from jax.custom_batching import custom_vmap
from jax.experimental import io_callback

from gradiometer.recording.errors import RecordingError

# what stands in a vector of numbers: ((layer, what), how many); the layer "" is the whole net
Columns = tuple[tuple[tuple[str, str], int], ...]


@dataclass(frozen=True)
class Settings:
    """What of a recording the compiled code depends on."""

    slot: int
    every: int
    wanted: tuple[str, ...]


context = make_user_context()  # the Settings of this thread, or None


# --- messages -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Message:
    """What compiled code calls with its numbers; equal messages share what JAX compiled."""

    settings: Settings
    columns: Columns
    # mapped over an axis that neither weights nor gradients have
    stateless: bool = field(default=False, kw_only=True)

    def __call__(self, vector: Any, step: Any = None) -> None:
        """Take the numbers to the recording, unless it is over."""
        receive = _receivers.get(self.settings.slot)
        if receive is not None:
            values = np.asarray(vector).astype(np.float64)
            receive(self, values, None if step is None else np.asarray(step))

    def unpacked(self, values: Any) -> dict[tuple[str, str], Any]:
        """(Layer, what) -> array (…, how many)."""
        found, start = {}, 0
        for key, size in self.columns:
            found[key] = values[..., start : start + size]
            start += size
        return found


@dataclass(frozen=True)
class TapMessage(Message):
    """From the backward pass of a tap."""

    name: str
    function: str | None
    units: int
    entries: int


@dataclass(frozen=True)
class StepMessage(Message):
    """From the end of a step."""

    # name, shape, and whether fan_out comes first
    weights: tuple[tuple[str, tuple[int, ...], bool], ...]


Receiver = Callable[[Message, Any, Any], None]

_receivers: dict[int, Receiver] = {}
_lock = threading.Lock()


@contextlib.contextmanager
def received(receive: Receiver) -> Iterator[int]:
    """A number by which compiled code finds the recording; the same one again for the next."""
    with _lock:
        slot = next(i for i in range(len(_receivers) + 1) if i not in _receivers)
        _receivers[slot] = receive
    try:
        yield slot
    finally:
        del _receivers[slot]


# --- inside the traced program --------------------------------------------------------------------


def when_recorded(
    settings: Settings, step: Array | None, measure: Callable[..., Any], *arrays: Any
) -> Any:
    """What `measure` finds; zeros, if the step is known not to be recorded."""
    arrays = lax.stop_gradient(arrays)
    if step is None or settings.every == 1:
        return measure(*arrays)
    shapes = jax.eval_shape(measure, *arrays)

    def nothing(*_: Any) -> Any:
        return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)

    return lax.cond(step % settings.every == 0, measure, nothing, *arrays)


def packed(layers: Mapping[str, Mapping[str, Array]]) -> tuple[Array, Columns]:
    """One vector of all numbers, and what stands where: one transfer costs less than many."""
    parts = {
        (layer, what): jnp.ravel(numbers).astype(jnp.result_type(float))
        for layer, found in layers.items()
        for what, numbers in found.items()
    }
    columns = tuple((key, part.size) for key, part in parts.items())
    return jnp.concatenate([jnp.zeros(0), *parts.values()]), columns


@functools.lru_cache(maxsize=4096)  # JAX tells what it has compiled by the function's identity
def sender(message: Message) -> Any:
    """Give a function of (vector, step's number, state) that sends a message in program order.

    Under `vmap` it sends once, with the vectors as the rows of a matrix. The state is whatever of
    weights and gradients tells whether they are mapped too.
    """

    def send(vector: Array, step: Array | None, state: list[Array]) -> tuple[()]:  # noqa: ARG001
        def now() -> None:
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
        sender(replace(message, stateless=message.stateless or stateless))(vector, step, state)
        return (), ()

    found = custom_vmap(send)
    found.def_vmap(mapped)
    return found


# --- what both taps and steps are given -----------------------------------------------------------


def step_number(step: Any, where: str) -> Array | None:
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


def check_whole_batch(where: str) -> None:
    """Raise RecordingError where a device sees a part of the batch alone."""
    if jax.sharding.get_abstract_mesh().manual_axes:
        raise RecordingError(
            f"{where} stands inside shard_map or pmap, where each device sees a part of the batch "
            "alone; record with arrays that are sharded under jit instead"
        )
