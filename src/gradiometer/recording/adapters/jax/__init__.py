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

# taps.py       tap: pre-activations and deltas of a layer
# steps.py      tap_step: weights, gradients and the end of a step
# functions.py  activation functions, as JAX has them
# layers.py     the weight matrices in a tree of parameters, and their names
# transport.py  from the traced program to the host
# assembly.py   on the host: one step, from what was sent of it
# recorder.py   record, and the steps put together

try:
    from jax import make_user_context as _newest  # noqa: F401 (the youngest of what is needed)
except ImportError as error:
    raise ImportError(
        f"gradiometer.jax needs JAX ({error}); install it: pip install 'gradiometer[jax]'"
    ) from None

from gradiometer.recording.adapters.jax.recorder import record
from gradiometer.recording.adapters.jax.steps import tap_step
from gradiometer.recording.adapters.jax.taps import tap

__all__ = ["record", "tap", "tap_step"]
