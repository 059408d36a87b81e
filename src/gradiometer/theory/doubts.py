"""Where a prediction may be off by more than it promises, and why."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from gradiometer.theory.finite_width import Draws, median_uncertainty

if TYPE_CHECKING:
    from gradiometer.experiment import Experiment

RIGHT = 0.09  # decades within which a median is promised to lie, averaged over layers
MEASURED = 300  # nets whose median it is
_MOVED = 0.09  # decades by which medians may be moved from a narrower width to the true one


def of_draws(
    draws: Draws, log_gain_variance: float, experiment: Experiment, largest_length: float
) -> tuple[str, ...]:
    """Reasons to take a prediction as a guide only, a sentence each; usually none.

    Parameters
    ----------
    draws : Draws
    log_gain_variance : float
        β, of the hidden layers.
    experiment : Experiment
    largest_length : float
        The largest variance of pre-activations among the layers.
    """
    found = (
        _chance(draws, log_gain_variance),
        _narrower(draws, experiment.width),
        _fewer_rows(draws, experiment.batch_size),
        _precision(draws, experiment.dtype, largest_length),
    )
    return tuple(sentence for sentence in found if sentence)


def _chance(draws: Draws, beta: float) -> str:
    """Nets that differ so much that a median of some hundred is uncertain itself."""
    gradient, delta = (
        median_uncertainty(values, MEASURED) for values in (draws.gradient, draws.delta)
    )
    uncertain = max(gradient.mean(), delta.mean(), gradient[-1], delta[-1])
    if uncertain <= RIGHT:
        return ""
    known = f"± {uncertain:.2g} decades" if math.isfinite(uncertain) else "no better than zero"
    cause = (
        "With logits this large, the output's error depends on chance, and so does every gradient"
        if delta[-1] > RIGHT
        else f"Such narrow, saturated or deep nets depend much on chance (β = {beta:.1f})"
    )
    return (
        f"{cause}: nets differ so much that even the median of {MEASURED} is known only to "
        f"{known}; take the prediction as a guide."
    )


def _narrower(draws: Draws, width: int) -> str:
    """Nets too wide to be simulated, and not yet close to infinite width."""
    if draws.extrapolated <= _MOVED:
        return ""
    return (
        f"Nets of width {width} take too long to simulate: those of width {draws.width} were "
        f"simulated instead, and medians moved by {draws.extrapolated:.2f} decades towards "
        "infinite width; take the prediction as a guide."
    )


def _fewer_rows(draws: Draws, size: int) -> str:
    if not draws.rows:
        return ""
    return (
        f"Batches of {size} were simulated with {draws.rows} different rows; take the prediction "
        "as a guide."
    )


def _precision(draws: Draws, dtype: str, largest_length: float) -> str:
    """Numbers that the run's own precision does not hold."""
    limits = np.finfo(dtype)
    tiny = math.log10(limits.tiny)
    # zeros are zeros in any precision
    least = min(
        (
            float(v[np.isfinite(v)].min())
            for v in (draws.gradient, draws.delta)
            if np.isfinite(v).any()
        ),
        default=0.0,
    )
    if least < tiny:
        return (
            f"The run's {dtype} rounds to zero what is below {limits.smallest_subnormal:.0e}; "
            "there it will record less than is predicted."
        )
    if 0.5 * math.log10(max(largest_length, 1.0)) + 1 > math.log10(limits.max):
        return (
            f"Pre-activations come to {math.sqrt(largest_length):.0e}, close to the largest number "
            f"of the run's {dtype} or beyond: it may record values that are not finite."
        )
    return ""
