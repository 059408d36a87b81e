"""`predict`: what will happen, before anything is trained."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from gradlab.verbs.experiments import describe
from gradlab.verbs.output import save_figure

if TYPE_CHECKING:
    from gradlab.experiment import Experiment
    from gradlab.theory import Prediction


def predict(
    experiment: Experiment | str | os.PathLike[str] | None = None,
    *,
    out: str | os.PathLike[str] | None = None,
    **settings: Any,
) -> Prediction:
    """Predict each layer's activation, delta and gradient at the first step.

    From architecture, initialisation and data alone: medians and bands are those of nets simulated
    at their first weights, and nothing is trained. The sentence says where they are doubtful.

    Parameters
    ----------
    experiment : Experiment or path of a TOML file, optional
        By default the net of ten sigmoid layers that does not learn.
    out : path, optional
        File for a figure; its ending chooses the format.
    **settings
        Fields of `Experiment`; they take precedence.

    Returns
    -------
    Prediction

    Raises
    ------
    ExperimentError
        If the description is not valid.
    TheoryError
        If the theory does not cover it.
    OutputError
        If the figure cannot be written.

    Examples
    --------
    >>> import gradlab
    >>> prediction = gradlab.predict(layers=3, activation="tanh")
    >>> prediction.gradient.shape  # an entry per layer, the output layer last
    (4,)
    """
    from gradlab.theory import predict as of_experiment

    prediction = of_experiment(describe(experiment, **settings))
    if out is not None:
        from gradlab.plots import prediction as drawn

        save_figure(drawn(prediction), out)
    return prediction
