"""`predict`: what will happen, before anything is trained."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from gradiometer.events import Compared, Listener, NotCompared
from gradiometer.settings import refuse_unused
from gradiometer.verbs.description import describe, lists_settings
from gradiometer.verbs.output import save_figure

if TYPE_CHECKING:
    from gradiometer.experiment import Experiment
    from gradiometer.theory import Prediction
    from gradiometer.trace import Trace

COMPARED = 20  # hidden layers: the time for a prediction grows with their square
DEEPEST = 2000  # hidden layers: it takes a minute, and a gigabyte


def check_covered(experiment: Experiment) -> None:
    """Raise ValueError for an experiment that theory does not cover, or too deep a net."""
    from gradiometer.theory import prediction

    prediction.check(experiment)
    if experiment.layers > DEEPEST:
        raise ValueError(
            f"layers: predictions are made for at most {DEEPEST} hidden layers, as their time and "
            f"memory grow with the depth, got {experiment.layers}"
        )


@lists_settings
def predict(
    experiment: Experiment | str | os.PathLike[str] | None = None,
    *,
    out: str | os.PathLike[str] | None = None,
    **settings: Any,
) -> Prediction:
    """Predict each layer's activation, delta and gradient at the first step.

    The prediction uses architecture, initialisation and data alone: medians and bands are those of
    nets simulated at their initial weights, without training. The sentence says where they are
    uncertain.

    Parameters
    ----------
    experiment : Experiment or path of a TOML file, optional
        By default the net of ten sigmoid layers that does not learn.
    out : path, optional
        File for a figure; its ending chooses the format.
    **settings
        Of the experiment, those that matter before training; they take precedence:

    Returns
    -------
    Prediction

    Raises
    ------
    ExperimentError
        If the description is not valid.
    UnusedSettingError
        If a setting was passed that has no effect before training, such as `steps`.
    ValueError
        If it has more than 2000 hidden layers.
    TheoryError
        If the theory does not cover it.
    OutputError
        If the figure cannot be written.

    Examples
    --------
    >>> import gradiometer
    >>> prediction = gradiometer.predict(layers=3, activation="tanh")
    >>> prediction.gradient.shape  # an entry per layer, the output layer last
    (4,)
    """
    from gradiometer import theory

    refuse_unused("predict", settings)
    described = describe(experiment, **settings)
    check_covered(described)
    prediction = theory.predict(described)
    if out is not None:
        from gradiometer.plots import prediction as drawn

        save_figure(drawn(prediction), out)
    return prediction


def predicted(trace: Trace) -> Prediction:
    """The prediction for the experiment of a trace.

    Raises
    ------
    ValueError
        If the trace has no experiment, or the theory does not cover it.
    """
    from gradiometer import theory
    from gradiometer.experiment import Experiment

    if not trace.experiment:
        raise ValueError(
            "theory needs to know the initialisation; this trace was recorded without an experiment"
        )
    return theory.predict(Experiment.of(**trace.experiment))


def compare_with_theory(
    experiment: Experiment, trace: Trace, insist: bool, tell: Listener
) -> Prediction | None:
    """Predict the first step of an experiment, and report how its run compares.

    None if the theory does not cover it, or if the prediction would take longer than the run,
    unless `insist` is true.
    """
    from gradiometer import theory

    if not insist and experiment.layers > COMPARED:
        tell(NotCompared(f"the prediction is slow for more than {COMPARED} layers"))
        return None
    try:
        prediction = theory.predict(experiment)
        comparison = theory.compare(prediction, trace)
    except theory.TheoryError:
        if insist:
            raise
        return None
    tell(Compared(comparison))
    return prediction
