"""How a study's experiments are laid out in its figures: axes, labels, panels, places along x."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

from gradiometer.plots.canvas import LARGEST, SMALLEST, Array
from gradiometer.plots.titles import settings_parts, wrapped_title
from gradiometer.plots.words import plain

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from gradiometer.experiment import Experiment
    from gradiometer.studies import StudyResults

# of no effect on what a figure of a study shows
UNSEEN = ("quantities", "histograms", "decision")
# an axis by its name; others go by the setting's own
TITLES = {
    "layers": "number of hidden layers",
    "width": "units per hidden layer",
    "activation": "activation function",
    "clip": "ceiling of a clipped relu",
    "init": "initialiser",
    "init_scale": "factor on the initial weights",
    "scaling": "scaling of the features",
    "batch_size": "rows per batch",
}
# how a value is told where no axis tells the setting
WORDS = {
    "activation": "{}",
    "data": "{}",
    "dtype": "{}",
    "init": "{} init",
    "loss": "{} loss",
    "normalisation": "{} norm",
    "optimizer": "{}",
}
LETTER = 5.2  # points, of a digit below an axis
# Log axes where values are spread more evenly on them; but what happens with each layer is to be
# seen as a straight line, and seeds are names.
LINEAR = ("layers", "seed")
LOG = ("init_scale", "learning_rate")  # factors


class NotForThisStudyError(ValueError):
    """A study lacks what a figure shows; the message says what is needed."""


@dataclass(frozen=True)
class Axis:
    """A setting that a study varies, with those of its values that are shown.

    Attributes
    ----------
    name : str
    values : tuple
        Numbers ascend, None comes last; words are in the study's order.
    total : int
        How many values the study has.
    """

    name: str
    values: tuple[Any, ...]
    total: int

    @property
    def numeric(self) -> bool:
        """Whether its values are numbers, or numbers and None."""
        return _numeric(self.values)

    @property
    def title(self) -> str:
        """What stands beside the axis."""
        return TITLES.get(self.name, self.word)

    @property
    def word(self) -> str:
        """The setting's name as a word."""
        return self.name.replace("_", " ")

    def label(self, value: Any) -> str:
        """A value in few letters."""
        if value is None:
            return "none" if self.name == "clip" else "default"
        if isinstance(value, bool):
            return "yes" if value else "no"
        if isinstance(value, (int, float)):
            return f"{value:g}"
        if isinstance(value, Mapping):
            return ", ".join(f"{k} {v:g}" for k, v in value.items()) or "default"
        return plain(", ".join(value) if isinstance(value, tuple) else str(value))

    def in_words(self, value: Any) -> str:
        """A value and what it is of."""
        if value is None or value is False or value == "none":
            return f"no {self.word}"
        if value is True:
            return self.word
        if self.name == "layers":
            return f"{value} {'layer' if value == 1 else 'layers'}"
        words = WORDS.get(self.name, f"{self.word} {{}}").format(self.label(value))
        return words.replace("_", " ") if self.name == "loss" else words

    def thinned(self, count: int) -> Axis:
        """Of its values `count` or fewer, evenly spaced."""
        return replace(self, values=tuple(evenly(self.values, count)))


def _numeric(values: Iterable[Any]) -> bool:
    known = [value for value in values if value is not None]
    return bool(known) and all(
        isinstance(value, (int, float)) and not isinstance(value, bool) for value in known
    )


def evenly(values: Sequence[Any], count: int) -> list[Any]:
    """Of values `count` or fewer, evenly spaced, with both ends."""
    if count >= len(values):
        return list(values)
    return [values[i] for i in np.linspace(0, len(values) - 1, count).round().astype(int)]


@dataclass(frozen=True)
class Facets:
    """Settings of each panel; the axes they are of, if thinned; and what else is left out."""

    panels: list[dict[str, Any]]
    axes: list[Axis]
    note: str


class Layout:
    """A study's experiments by their settings.

    Attributes
    ----------
    results : StudyResults
    axes : dict of str to Axis
        The settings that differ, by name; if none does, the first that the study names, or else its
        layers.

    Raises
    ------
    NotForThisStudyError
        If no experiment is finished.
    """

    def __init__(self, results: StudyResults) -> None:
        self.results = results
        study = results.study
        if not results.finished:
            raise NotForThisStudyError("no experiment of this study is finished")
        self._finished = {e.hash for e in results.finished}
        varied = {name: values for name, values in study.axes.items() if len(values) > 1}
        if not varied:
            name = next(iter(study.axes), "layers")
            varied = {name: (getattr(study.experiments[0], name),)}
        self.axes = {
            name: Axis(name, _in_order(values), len(values)) for name, values in varied.items()
        }
        self._at = {self._key(vars(e)): e for e in study.experiments}

    def _key(self, settings: Mapping[str, Any]) -> tuple[Any, ...]:
        return tuple(settings[name] for name in self.axes)

    def at(self, settings: Mapping[str, Any]) -> Experiment | None:
        """The experiment with these settings, one for each axis, if the study has it."""
        return self._at.get(self._key(settings))

    def is_finished(self, experiment: Experiment) -> bool:
        """Whether its results are there."""
        return experiment.hash in self._finished

    # --- which axis goes where --------------------------------------------------------------------

    def along_x(self) -> Axis:
        """The axis to go along x: a numeric one if there is any, depth before all others."""
        numeric = [axis for axis in self.axes.values() if axis.numeric]
        return next(
            (axis for name in X_FIRST for axis in numeric if axis.name == name),
            (numeric or [*self.axes.values()])[0],
        )

    def pick(self, used: Iterable[Axis | None], *first: str) -> Axis | None:
        """Of the axes that are not used, the first by these names or, failing that, by order."""
        left = self.others(*used)
        return next((axis for name in first for axis in left if axis.name == name), None) or (
            left[0] if left else None
        )

    def others(self, *used: Axis | None) -> list[Axis]:
        """The axes that are not used."""
        names = {axis.name for axis in used if axis}
        return [axis for axis in self.axes.values() if axis.name not in names]

    def panels(self, axes: Sequence[Axis], *kept: Axis | None) -> list[dict[str, Any]]:
        """Combinations of values for which there are experiments with values of all axes `kept`."""
        names = [axis.name for axis in axes]
        there = {
            tuple(getattr(e, name) for name in names)
            for e in self._at.values()
            if all(getattr(e, axis.name) in axis.values for axis in kept if axis)
        }
        products = itertools.product(*(axis.values for axis in axes))
        return [dict(zip(names, values, strict=True)) for values in products if values in there]

    def few_panels(self, axes: Sequence[Axis], most: int, *kept: Axis | None) -> Facets:
        """At most so many of `panels`, evenly spaced."""
        if self.results.study.is_grid:
            axes = fitted(axes, most)
            return Facets(self.panels(axes, *kept), list(axes), "")
        # of a list, the values along one axis may have nothing to do with those along another
        panels = self.panels(axes, *kept)
        note = f"{most} of {len(panels)} panels shown" if most < len(panels) else ""
        return Facets(evenly(panels, most), [], note)

    def in_words(self, settings: Mapping[str, Any], between: str = ", ") -> str:
        """Settings of a panel."""
        return between.join(self.axes[name].in_words(value) for name, value in settings.items())

    # --- title ------------------------------------------------------------------------------------

    def title(
        self, figure: Figure, text: str, shown: Sequence[Axis], nets: str, note: str = ""
    ) -> None:
        """`text`, and below it how much of the study is there and shown, and what is fixed.

        Parameters
        ----------
        figure : Figure
        text : str
        shown : sequence of Axis
            Those that were perhaps thinned.
        nets : str
            What of several nets is shown; {} stands for their number per experiment.
        note : str
            What else is not shown.
        """
        study = self.results.study
        every, done = len(study.experiments), len(self._finished)
        parts = []
        if done < every:
            parts.append(f"{done} of {every} experiments finished")
        for axis in shown:
            if len(axis.values) < axis.total:
                what = "values" if axis.numeric else "choices"
                parts.append(f"{len(axis.values)} of {axis.total} {what} of {axis.word} shown")
        if note:
            parts.append(note)
        number = done * study.members
        seeds = nets.format(study.members) if study.members > 1 else ""
        told = f"{number} {'net' if number == 1 else 'nets'}" + (f": {seeds}" if seeds else "")
        untold = [name for name, axis in self.axes.items() if axis.total > 1]
        wrapped_title(
            figure,
            text,
            [
                *parts,
                *settings_parts(
                    study.experiments[0].model_dump(mode="json"),
                    told,
                    untold=[*untold, *UNSEEN],
                ),
            ],
        )


X_FIRST = ("layers", "width", "init_scale", "clip", "scaling", "learning_rate")


def _in_order(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if not _numeric(values):
        return values
    return tuple(sorted(values, key=lambda value: math.inf if value is None else value))


def fitted(axes: Sequence[Axis], most: int) -> list[Axis]:
    """The axes, the longest thinned until there are at most so many combinations of values."""
    found = list(axes)
    while math.prod(len(axis.values) for axis in found) > most:
        # of two that are as long, numbers rather than words: between numbers one can guess
        longest = max(range(len(found)), key=lambda i: (len(found[i].values), found[i].numeric))
        found[longest] = axes[longest].thinned(len(found[longest].values) - 1)
    return found


def by_experiment(table: pd.DataFrame) -> dict[str, dict[str, Array]]:
    """The columns of each experiment's rows that are numbers, by its hash."""
    numbers = table.select_dtypes(["number", "bool"])
    columns = {str(name): column.to_numpy(np.float64) for name, column in numbers.items()}
    rows = table.groupby("experiment", sort=False).indices
    return {
        str(name): {column: values[at] for column, values in columns.items()}
        for name, at in rows.items()
    }


# --- places along x -------------------------------------------------------------------------------


def panel_size(axes: Axes) -> tuple[float, float]:
    """About the width and height that a panel will have, in inches."""
    figure = axes.get_figure(root=True)
    spec = axes.get_subplotspec()
    if figure is None or spec is None:
        raise ValueError("not a panel of a figure")
    rows, columns, *_ = spec.get_geometry()
    width, height = figure.get_size_inches()
    return float(0.8 * width / columns - 0.3), float((height - 1.5) / rows - 0.4)


class Places:
    """Where the values of an axis lie along x.

    Numbers are at themselves, None beyond the largest of them; words are at 0, 1, ….
    """

    def __init__(self, axis: Axis) -> None:
        self.axis = axis
        self.numeric = axis.numeric
        known = [value for value in axis.values if value is not None]
        numbers = np.array(known if self.numeric else range(len(axis.values)), float)
        self.log = self.numeric and _is_log(axis.name, numbers)
        scaled = np.log10(numbers) if self.log else numbers
        width = np.ptp(scaled) or (math.log10(4) if self.log else 1.0)
        if self.numeric and len(known) < len(axis.values):
            beyond = scaled[-1] + max(width / max(len(known) - 1, 1), width / 8)
            scaled = np.append(scaled, beyond)
        self._scaled = scaled
        self.at: Array = 10.0**scaled if self.log else scaled

    @property
    def closest(self) -> float:
        """The least distance between two places, as a share of all of x."""
        gaps = np.diff(self._scaled)
        return float(gaps.min() / (gaps.sum() + 0.1)) if len(gaps) else 1.0

    @property
    def joined(self) -> Array:
        """Which of the places a line joins, (n,)."""
        whole = [self.numeric and value is not None for value in self.axis.values]
        return np.array(whole)

    def draw(self, axes: Axes, *, labels: bool = True) -> None:
        """Ticks at the values, as many as have room, and limits."""
        width = np.ptp(self._scaled)
        pad = 0.06 * width if width and self.numeric else 0.5
        if self.log and not width:
            pad = math.log10(2)
        low, high = self._scaled[0] - pad, self._scaled[-1] + pad
        if self.log:
            axes.set_autoscalex_on(False)
            axes.set_xscale("log")
            ends = math.log10(SMALLEST), math.log10(LARGEST)
            low, high = 10.0 ** max(low, ends[0]), 10.0 ** min(high, ends[1])
        axes.set_xlim(low, high)
        axes.xaxis.set_minor_locator(NullLocator())
        texts = [self.axis.label(value) for value in self.axis.values]
        axes.xaxis.set_major_locator(FixedLocator(self.at.tolist()))
        if labels:
            axes.set_xlabel(self.axis.title, fontsize=9)
        self._label(axes, texts)

    def _label(self, axes: Axes, texts: list[str]) -> None:
        points = 72 * panel_size(axes)[0]
        share = (self._scaled - self._scaled[0]) / (np.ptp(self._scaled) or 1.0) * 0.9
        centres = share * points
        halves = np.array([len(text) * LETTER / 2 + 2 for text in texts])
        if not self.numeric:
            room = points / len(texts)
            upright = (2 * halves > room).any()
            axes.xaxis.set_major_formatter(FixedFormatter(texts))
            axes.tick_params(axis="x", labelrotation=90 if upright else 0, labelsize=8)
            return
        kept = [len(texts) - 1]  # the end, then from the start whatever has room
        for i in range(len(texts) - 1):
            if all(abs(centres[i] - centres[k]) >= halves[i] + halves[k] for k in kept):
                kept.append(i)
        axes.xaxis.set_major_formatter(
            FixedFormatter([text if i in kept else "" for i, text in enumerate(texts)])
        )
        axes.tick_params(axis="x", labelsize=8)


def _is_log(name: str, numbers: Array) -> bool:
    """Whether numbers are better shown on a log axis."""
    if name in LINEAR or numbers[0] <= 0:
        return False
    if name in LOG:
        return True
    if len(numbers) < 3:
        return bool(numbers[-1] / numbers[0] > 8)
    gaps = [np.diff(scale) for scale in (numbers, np.log10(numbers))]
    linear, log = (gap.std() / gap.mean() for gap in gaps)
    return bool(log < linear)
