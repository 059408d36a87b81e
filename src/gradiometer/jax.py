"""Recording of JAX programs: `tap`, `tap_step`, `record` (`gradiometer.recording.adapters.jax`)."""

from gradiometer.recording.adapters.jax import record, tap, tap_step

__all__ = ["record", "tap", "tap_step"]
