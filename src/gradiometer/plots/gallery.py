"""The gallery of activation functions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

import dp
from dp.activations import Activation
from gradiometer.plots.canvas import BLUE, ORANGE, new_figure
from gradiometer.plots.titles import wrapped_title


def activations(names: str | Activation | Sequence[str | Activation] | None = None) -> Figure:
    """Activation functions and their derivatives; the saturated region is shaded.

    Parameters
    ----------
    names : str or Activation, or a sequence of them, optional
        Names in `dp.activations.ACTIVATIONS`; all of them by default.

    Raises
    ------
    ValueError
        For an unknown name, naming those there are.
    """
    if isinstance(names, str | Activation):
        names = [names]
    chosen = [dp.activations.get(name) for name in names or dp.activations.ACTIVATIONS]
    columns = min(3, len(chosen))
    rows = math.ceil(len(chosen) / columns)
    figure = new_figure(3.6 * columns, 2.7 * rows + 0.7)
    cells = figure.subplots(rows, columns, squeeze=False).ravel()
    handles: dict[str, Any] = {}
    for i, (axes, activation) in enumerate(zip(cells, chosen, strict=False)):
        reach = _reach(activation)
        h = np.linspace(-reach, reach, 1201)
        axes.plot(h, activation(h), color=BLUE, lw=1.8, label="φ(h)")
        axes.plot(h, activation.derivative(h), color=ORANGE, lw=1.6, ls="--", label="φ'(h)")
        where = activation.saturated(h)
        axes.fill_between(
            h, 0, 1, where=where, color="#BBBBBB", alpha=0.35, lw=0,
            transform=axes.get_xaxis_transform(), label="saturated",
        )  # fmt: skip
        axes.set_title(
            f"{activation.name}\nrange {_range(activation)}, "
            f"largest slope {activation.max_slope:.3g}",
            fontsize=8.5,
        )
        if i + columns >= len(chosen):  # nothing below it
            axes.set_xlabel("h")
        axes.grid(alpha=0.25)
        axes.axhline(0, color="black", lw=0.6)
        axes.axvline(0, color="black", lw=0.6)
        handles |= dict(zip(*axes.get_legend_handles_labels()[::-1], strict=True))
    for unused in cells[len(chosen) :]:
        unused.set_visible(False)
    figure.legend(handles=[*handles.values()], loc="outside lower center", ncols=3, fontsize=9)
    wrapped_title(figure, "Activation functions φ(h) and their derivatives")
    return figure


def _reach(activation: Activation) -> float:
    """How far from 0 to go to see all of it."""
    return max(6.0, float(activation.settings.get("ceiling", 0.0)) + 2)


def _range(activation: Activation) -> str:
    """The range in brackets, square ones where the end is a value of the function."""
    reach = _reach(activation)
    values = activation(np.linspace(-reach, reach, 12001))
    low, high = activation.range
    # 6 is near enough to 0 that no asymptote is mistaken for its limit, and the grid is so fine
    # that the minimum of gelu is met to seven digits
    left, right = (
        bool(np.isclose(values, end, rtol=1e-6, atol=0).any() and math.isfinite(end))
        for end in (low, high)
    )
    ends = ", ".join(f"{end:.3g}".replace("-", "−").replace("inf", "∞") for end in (low, high))
    return f"{'[' if left else '('}{ends}{']' if right else ')'}"
