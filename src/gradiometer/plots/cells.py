"""Cells coloured by their value: heatmaps of depth × step, and maps over two settings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dp.typing import Array
from gradiometer.plots.canvas import DEPTH_MAP, positive
from gradiometer.plots.marks import MISSING, NONFINITE, ZERO

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.collections import QuadMesh


def cell_ends(centres: Array) -> Array:
    """Where cells begin and end; their centres need not lie at equal distances.

    Parameters
    ----------
    centres : array (n,)
        In ascending order.

    Returns
    -------
    array (n + 1,)
    """
    between = (centres[1:] + centres[:-1]) / 2
    first, last = (
        (0.5, 0.5) if len(centres) == 1 else (between[0] - centres[0], centres[-1] - between[-1])
    )
    return np.concatenate([[centres[0] - first], between, [centres[-1] + last]])


def log_limits(values: Sequence[Array]) -> tuple[float, float] | None:
    """The ends of a common scale of colours for log10 of values, None where none is positive."""
    logs = [np.log10(positive(each)) for each in values]
    known = np.concatenate([log[np.isfinite(log)] for log in logs])
    if not known.size:
        return None
    low, high = float(known.min()), float(known.max())
    pad = max((1 - (high - low)) / 2, 0.0)  # colours that span less than a decade exaggerate
    return low - pad, high + pad


def draw_flow(
    axes: Axes, ends: Array, values: Array, limits: tuple[float, float] | None
) -> tuple[QuadMesh, dict[str, Artist]]:
    """A depth × step heatmap of log10 of values, the input at the bottom.

    Parameters
    ----------
    axes : Axes
    ends : array (steps + 1,)
        See `cell_ends`.
    values : array (layers, steps)
        As `recorded_values` has them.
    limits : (float, float) or None
        See `log_limits`.

    Returns
    -------
    image : QuadMesh
    handles : dict of str to Patch
        Legend entries of the kinds of value that have no colour, as far as they occur.
    """
    low, high = limits or (0.0, 1.0)
    layers = np.arange(len(values) + 1) + 0.5
    image = axes.pcolormesh(
        ends, layers, np.log10(positive(values)),
        cmap=DEPTH_MAP, vmin=low, vmax=high, rasterized=True,
    )  # fmt: skip
    handles: dict[str, Artist] = {}
    for kind in (ZERO, NONFINITE, MISSING):
        where = kind.where(values)
        if where.any():
            cover(axes, where, ends, layers, gid=kind.gid, **kind.cover())
            handles[kind.gid] = kind.cover_handle()
    axes.set_xlim(ends[0], ends[-1])
    return image, handles


def cover(axes: Axes, where: Array, x_ends: Array, y_ends: Array, **style: Any) -> None:
    """Cover cells, a rectangle per run along x; `where` is (cells along y, cells along x)."""
    for row, flags in enumerate(where):
        turns = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(int), [0]])))
        runs = [(x_ends[a], x_ends[b] - x_ends[a]) for a, b in turns.reshape(-1, 2)]
        if runs:
            axes.broken_barh(runs, (y_ends[row], y_ends[row + 1] - y_ends[row]), lw=0, **style)
