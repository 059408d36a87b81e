"""Marks at the edge of an axes for values that it cannot show, and their legend.

Values are those of `recorded_values`: infinite where they are not finite, NaN where they are
missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.transforms import ScaledTranslation

from dp.typing import Array
from gradiometer.plots.canvas import LARGEST, SMALLEST

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NONFINITE_COLOUR = "#B2182B"


@dataclass(frozen=True)
class Mark:
    """A kind of value that no line can show; each kind has a row of its own at the edge."""

    gid: str
    glyph: str
    text: str
    marker: str
    row: int
    colour: str = "black"
    hollow: bool = False
    of_one: bool = False  # a place has it if a single net of an ensemble is of the kind

    def where(self, values: Array) -> Array:
        """Which values are of this kind; same shape."""
        with np.errstate(invalid="ignore"):
            known = np.isfinite(values)
            kinds = {
                "zero": values == 0,
                "nonfinite": np.isinf(values),
                "missing": np.isnan(values),
                "below": (values > 0) & (values < SMALLEST),
                "above": known & (values > LARGEST),
            }
        return np.asarray(kinds[self.gid])

    def style(self, colour: Any = None) -> dict[str, Any]:
        """How it looks, as keywords of a line."""
        colour = self.colour if colour is None else colour
        face = "white" if self.hollow else colour
        return {"ls": "none", "marker": self.marker, "ms": 5, "color": colour, "mfc": face}

    def cover(self) -> dict[str, Any]:
        """How it covers a cell of a heatmap, as keywords of a patch."""
        return COVERS[self.gid]

    def cover_handle(self, **style: Any) -> Patch:
        """Legend entry for such cells."""
        return Patch(label=self.text, **self.cover() | style)


ZERO = Mark("zero", "▼", "exactly zero", "v", 0)
NONFINITE = Mark("nonfinite", "×", "not finite", "x", 1, NONFINITE_COLOUR, of_one=True)
BELOW = Mark("below", "▽", f"below {SMALLEST:g}", "v", 2, hollow=True)
ABOVE = Mark("above", "△", f"above {LARGEST:g}", "^", -1, hollow=True)
# a gap in a line says it already, so there it has no mark
MISSING = Mark("missing", "", "missing", "none", 0)
MARKS = (ZERO, NONFINITE, BELOW, ABOVE)
# of a study's nets: at the upper edge a fall to nothing, below what has no number at all
ENDLESS = Mark("endless", "▲", "falls to exactly zero in layer 1", "^", -1, of_one=True)
NOTHING = Mark("nothing", "▼", "exactly zero, in layer 1 and the output layer", "v", 0, of_one=True)
BROKEN = Mark("broken", "▼", "exactly zero in a hidden layer", "v", 0, of_one=True)
UNFINISHED = Mark("unfinished", "○", "not finished", "o", 0, "#777777", hollow=True)
STUDY_MARKS = (ENDLESS, NOTHING, BROKEN, NONFINITE, UNFINISHED)
COVERS: dict[str, dict[str, Any]] = {
    "zero": {"fc": "white", "ec": "#BBBBBB", "hatch": ".."},
    "nonfinite": {"fc": NONFINITE_COLOUR, "ec": "white", "hatch": "xx"},
    "missing": {"fc": "#EEEEEE", "ec": "#BBBBBB", "hatch": "///"},
    "endless": {"fc": "white", "ec": "#555555", "hatch": "++"},
    "nothing": {"fc": "white", "ec": "#BBBBBB", "hatch": ".."},
    "unfinished": {"fc": "#EEEEEE", "ec": "#999999", "hatch": "\\\\"},
}


def draw_marks(
    axes: Axes,
    x: Array,
    values: Array,
    kinds: tuple[Mark, ...] = MARKS,
    colour: Any = None,
    shift: float = 0.0,
) -> str:
    """Mark what no line shows.

    Parameters
    ----------
    axes : Axes
    x : array (n,)
    values : array (n,) or (n, k)
        A place is marked if any of its k values is of the kind.
    kinds : tuple of Mark
    colour : optional
        The mark's own by default.
    shift : float
        To the right, in points.

    Returns
    -------
    str
        The signs of the kinds that occur.
    """
    found = ""
    for kind in kinds:
        at = x[kind.where(values).reshape(len(x), -1).any(axis=1)]
        if len(at):
            found += kind.glyph
            draw_mark(axes, kind, at, colour, shift)
    return found


def draw_mark(axes: Axes, kind: Mark, at: Array, colour: Any = None, shift: float = 0.0) -> None:
    """Mark places at the edge; `at` (n,) is along x, the rest as for `draw_marks`."""
    # rows are in points: their distance is the same in a small panel and in a large one
    edge, up = (0.0, 5 + 7 * kind.row) if kind.row >= 0 else (1.0, -5)
    across = axes.get_xaxis_transform()
    (line,) = axes.plot(
        at, np.full(len(at), edge), transform=across, clip_on=False, gid=kind.gid,
        zorder=3, **kind.style(colour),
    )  # fmt: skip
    # afterwards: the axes would take the offset for a part of the data, and scale to it
    shift_by(axes, line, shift, up)


def shift_by(axes: Axes, artist: Artist, right: float, up: float = 0.0) -> None:
    """Move what is drawn by so many points."""
    offset = ScaledTranslation(right / 72, up / 72, axes.figure.dpi_scale_trans)
    artist.set_transform(artist.get_transform() + offset)


def mark_handles(
    figure: Figure,
    *,
    ensemble: bool = False,
    neutral: bool = False,
    kinds: tuple[Mark, ...] = MARKS,
) -> list[Artist]:
    """Legend entries for the marks that occur in a figure; `neutral` ones are black."""
    drawn = {line.get_gid() for axes in figure.axes for line in axes.lines}
    handles: list[Artist] = []
    for kind in kinds:
        if kind.gid in drawn:
            text = kind.text
            if kind.of_one and ensemble:
                text += " (one net or more)"
            style = kind.style("black" if neutral else None)
            handles.append(Line2D([], [], label=text, **style))
    return handles


def lower_legend(figure: Figure, handles: Sequence[Artist], columns: int = 4) -> None:
    """A legend below the axes, if there is anything to explain."""
    if handles:
        figure.legend(
            handles=[*handles],
            loc="outside lower center",
            ncols=min(columns, len(handles)),
            fontsize=8,
        )
