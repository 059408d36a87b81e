"""What theory predicts of a run's first step: alone, or behind what was measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure

from dp.typing import Array
from gradiometer.plots.canvas import draw_line, loggable, new_figure
from gradiometer.plots.marks import draw_marks, lower_legend, mark_handles
from gradiometer.plots.scales import log_axis
from gradiometer.plots.titles import settings_parts, wrapped_title
from gradiometer.plots.words import plain
from gradiometer.quantities import QUANTITIES
from gradiometer.settings import SETTINGS, used_by

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from gradiometer.labelled import LabelledPrediction

GREY = "#888888"
# which of a prediction's arrays belong to a quantity of a trace
ARRAYS = {"grad_mean_abs": "gradient", "delta_rms": "delta"}


def prediction(prediction: LabelledPrediction) -> Figure:
    """Predicted mean |dL/dW| and rms of the delta over the layers, on a log axis.

    The line is the median over nets simulated at initialisation, the band holds 90 % of them;
    dashed is the median of nets of infinite width, by theory. Layers whose median is exactly zero
    are marked at the lower edge.

    Parameters
    ----------
    prediction : Prediction
    """
    figure = new_figure(10, 4.8)
    both = figure.subplots(1, 2)
    depth = np.arange(1, len(prediction.layers) + 1)
    for axes, quantity in zip(both, ARRAYS, strict=True):
        shown = draw_behind(axes, depth, prediction, quantity, colour="#0072B2", marker="o")
        name = ARRAYS[quantity]
        wide = getattr(prediction, f"{name}_wide")
        draw_line(
            axes,
            depth,
            loggable(wide),
            color="black",
            ls="--",
            lw=1,
            label="theory: infinite width",
        )
        draw_marks(axes, depth, getattr(prediction, name))
        log_axis(axes, *shown, wide)
        depth_axis(axes, depth, list(prediction.layers))
        axes.set_xlim(0.5, len(depth) + 0.5)
        axes.set(title=QUANTITIES[quantity].label, xlabel="layer, from the input to the output")
        axes.grid(alpha=0.25)
    handles = [*both[0].get_legend_handles_labels()[0], *mark_handles(figure, neutral=True)]
    lower_legend(figure, handles)
    experiment = prediction.experiment.model_dump(mode="json")
    # training makes no difference to the first step
    used = used_by("predict")
    untold = [each.name for each in SETTINGS.values() if each not in used]
    parts = settings_parts(experiment, "", untold=untold)
    parts.append(prediction.basis.rstrip(".").lower())
    wrapped_title(figure, "The gradient's profile at the first step, predicted", parts)
    return figure


def draw_behind(
    axes: Axes,
    depth: Array,
    theory: LabelledPrediction,
    quantity: str,
    colour: str = GREY,
    marker: str = "",
) -> list[Array]:
    """Draw the predicted median and its band; gives what was drawn, for the axis to hold it.

    Of a quantity that is not predicted nothing is drawn.
    """
    if quantity not in ARRAYS:
        return []
    middle, low, high = predicted(theory, quantity)
    style: dict[str, Any] = {"marker": marker, "ms": 4} if marker else {"ls": ":", "lw": 2}
    tiny = np.finfo(np.float64).tiny
    axes.fill_between(
        depth, np.fmax(low, tiny), np.where(high > 0, high, np.nan),
        fc=(colour, 0.2), ec=(colour, 0.8), lw=0.8, ls="--", gid="theory",
        label="predicted: 90 % of nets", zorder=0,
    )  # fmt: skip
    draw_line(axes, depth, loggable(middle), color=colour, label="predicted: median", **style)
    return [middle, low, high]


def predicted(theory: LabelledPrediction, quantity: str) -> tuple[Array, Array, Array]:
    """Median, low and high of a quantity of a trace; (layers,) each."""
    name = ARRAYS[quantity]
    found: tuple[Array, Array, Array] = tuple(
        getattr(theory, f"{name}{end}") for end in ("", "_low", "_high")
    )
    return found


def depth_axis(axes: Axes, depth: Array, names: list[str]) -> None:
    """Layers' names below a profile: side by side, or upright where they are long."""
    names = [plain(name) for name in names]
    long = sum(len(name) + 1 for name in names) > 15 * 6
    many = 1 + len(names) // (40 if long else 15)
    size = 7 if many > 1 or long else 9
    axes.set_xticks(depth[::many], names[::many], fontsize=size, rotation=90 if long else 0)
