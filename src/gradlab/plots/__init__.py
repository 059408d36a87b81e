"""Every figure, from a Trace and nothing else; and the gallery of activation functions.

Figures are matplotlib Figures made without pyplot, so nothing is shown, kept open, or shared.
"""

from collections.abc import Callable

from matplotlib.figure import Figure

from gradlab.plots.flow import gradients, heatmap, panels, profile
from gradlab.plots.gallery import activations
from gradlab.plots.outcome import decision, learning

FIGURES: dict[str, Callable[..., Figure]] = {
    "gradients": gradients,
    "panels": panels,
    "heatmap": heatmap,
    "profile": profile,
    "learning": learning,
    "decision": decision,
}

__all__ = [
    "FIGURES",
    "activations",
    "decision",
    "gradients",
    "heatmap",
    "learning",
    "panels",
    "profile",
]
