"""How a study's experiments are laid out in its figures: along x, as lines, in panels."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from dp.typing import Array
from gradiometer.plots.study.axis import Axis, evenly, in_order
from gradiometer.plots.titles import settings_parts, wrapped_title
from gradiometer.settings import SETTINGS

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from gradiometer.labelled import DescribedExperiment, LabelledStudy

# the setting that goes along x, if the study varies it
X_FIRST = ("layers", "width", "init_scale", "clip", "scaling", "learning_rate")
MEDIANS = "medians over {} seeds"


class NotForThisStudyError(ValueError):
    """A study lacks what a figure shows; the message says what is needed."""


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

    def __init__(self, results: LabelledStudy) -> None:
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
            name: Axis(name, in_order(values), len(values)) for name, values in varied.items()
        }
        self._at = {self._key(vars(e)): e for e in study.experiments}

    def _key(self, settings: Mapping[str, Any]) -> tuple[Any, ...]:
        return tuple(settings[name] for name in self.axes)

    def at(self, settings: Mapping[str, Any]) -> DescribedExperiment | None:
        """The experiment with these settings, one for each axis, if the study has it."""
        return self._at.get(self._key(settings))

    def is_finished(self, experiment: DescribedExperiment) -> bool:
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
        unseen = [each.name for each in SETTINGS.values() if not each.changes_numbers]
        wrapped_title(
            figure,
            text,
            [
                *parts,
                *settings_parts(
                    study.experiments[0].model_dump(mode="json"),
                    told,
                    untold=[*untold, *unseen],
                ),
            ],
        )


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
