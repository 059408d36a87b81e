"""Whether a peer's result agrees with the reference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

TOLERANCE = {"float64": 1e-9, "float32": 2e-2}


def check(found: Array, expected: Array, dtype: str, what: str, share: float = 1.0) -> None:
    """Raise ValueError unless two recordings agree.

    Parameters
    ----------
    found, expected : array
        Positive numbers; `expected` in float64.
    dtype : str
        That of the computation, which decides the tolerance (relative).
    what : str
        Stands in front of the error.
    share : float
        Of the numbers, that must agree: below 1 where a single rounding may set a relu to zero,
        after which that net goes its own way.
    """
    found = np.asarray(found, dtype=np.float64)
    if found.shape != expected.shape:
        raise ValueError(f"{what}: the result has shape {found.shape}, not {expected.shape}")
    if not np.isfinite(found).all():
        raise ValueError(f"{what}: the result is not finite")
    # where nothing is expected, relative to the smallest normal number
    scale = np.maximum(np.abs(expected), np.finfo(np.float32).tiny)
    error = float(np.quantile(np.abs(found - expected) / scale, share, method="higher"))
    if error > TOLERANCE[dtype]:
        raise ValueError(f"{what}: differs by {error:.1e}, allowed is {TOLERANCE[dtype]:.0e}")


def check_change(
    found: Sequence[Array], first: Sequence[Array], expected: Sequence[Array], dtype: str, what: str
) -> None:
    """Raise ValueError unless parameters have changed as expected, by norm."""
    for number, (new, old, right) in enumerate(zip(found, first, expected, strict=True)):
        if np.shape(new) != right.shape:
            raise ValueError(
                f"{what}: parameter {number} has shape {np.shape(new)}, not {right.shape}"
            )
        should = right.astype(np.float64) - old
        error = np.linalg.norm(np.asarray(new, dtype=np.float64) - right) / np.linalg.norm(should)
        if not error <= TOLERANCE[dtype]:
            raise ValueError(
                f"{what}: parameter {number} differs by {error:.1e} of its change, "
                f"allowed is {TOLERANCE[dtype]:.0e}"
            )
