"""Every figure, from a labelled run, a study's results, or a prediction; and nothing else.

flow.py         gradients over steps, over layers, over both
waterfall.py    what makes the delta smaller, from layer to layer
training.py     loss and accuracy
decisions.py    the decision in the plane of the data
predictions.py  what theory predicts
gallery.py      activation functions
study/          the figures of a study

values.py       what a trace holds of a quantity
marks.py        marks and colours for zero, not finite and missing
cells.py        heatmaps
scales.py       axes that fit the values
titles.py       titles that name the experiment
words.py        names, fit to be drawn
canvas.py       the canvas, colours, lines and bands

Figures are matplotlib Figures made without pyplot, so nothing is shown, kept open, or shared.
"""

from collections.abc import Callable
from typing import Concatenate

from matplotlib.figure import Figure

from gradiometer.labelled import LabelledRun, LabelledStudy
from gradiometer.plots.decisions import decision
from gradiometer.plots.flow import gradients, heatmap, panels, profile
from gradiometer.plots.gallery import activations
from gradiometer.plots.predictions import prediction
from gradiometer.plots.study.heatmaps import heatmaps
from gradiometer.plots.study.layout import NotForThisStudyError
from gradiometer.plots.study.outcomes import outcome, slopes
from gradiometer.plots.study.trainability import trainability
from gradiometer.plots.training import learning
from gradiometer.plots.waterfall import waterfall

FIGURES: dict[str, Callable[Concatenate[LabelledRun, ...], Figure]] = {
    "gradients": gradients,
    "panels": panels,
    "heatmap": heatmap,
    "profile": profile,
    "waterfall": waterfall,
    "learning": learning,
    "decision": decision,
}

# each takes the results of a study, and raises NotForThisStudyError where it lacks what is shown
STUDY_FIGURES: dict[str, Callable[Concatenate[LabelledStudy, ...], Figure]] = {
    "outcome": outcome,
    "slopes": slopes,
    "heatmaps": heatmaps,
    "trainability": trainability,
}

__all__ = [
    "FIGURES",
    "STUDY_FIGURES",
    "NotForThisStudyError",
    "activations",
    "decision",
    "gradients",
    "heatmap",
    "heatmaps",
    "learning",
    "outcome",
    "panels",
    "prediction",
    "profile",
    "slopes",
    "trainability",
    "waterfall",
]
