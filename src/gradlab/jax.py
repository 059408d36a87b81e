"""Recording of JAX programs: `tap`, `tap_step` and `record`; see `gradlab.recording.jax`."""

from gradlab.recording.jax import record, tap, tap_step

__all__ = ["record", "tap", "tap_step"]
