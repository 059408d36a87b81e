"""What a study found: all its traces, labelled, and what became of each net."""

from __future__ import annotations

import functools
import io
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gradiometer.files import check_path
from gradiometer.quantities import GRADIENTS
from gradiometer.seal import FileWarning
from gradiometer.studies.description import StudyError
from gradiometer.studies.folder import DESCRIPTION, StudyFolder
from gradiometer.studies.judgement import in_words, judge
from gradiometer.studies.outcomes import outcomes, summarise
from gradiometer.studies.study import Study
from gradiometer.trace import Trace, TraceError

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr
    from matplotlib.figure import Figure

    from gradiometer.experiment import Experiment

MOST_NAMED = 5  # damaged files, in a sentence
LARGEST = 4 * 2**30  # bytes of a dataset that is made without being asked for less


def load(folder: str | os.PathLike[str]) -> StudyResults:
    """Open the folder of a study, and verify the checksum of each result.

    Raises
    ------
    StudyError
        If it is no folder of a study.

    Warns
    -----
    FileWarning
        If results are damaged, naming their files; see `StudyResults.damaged`. If there are results
        of none of the study's experiments; see `StudyResults.strays`.
    """
    check_path(folder, "a study is named by its folder")
    if not os.fspath(folder):
        raise StudyError("a study is named by its folder, got an empty name")
    path = Path(folder)
    if not (path / DESCRIPTION).is_file():
        raise StudyError(f"{path}: not the folder of a study: it has no {DESCRIPTION}")
    results = StudyResults(Study.load(path / DESCRIPTION), StudyFolder(path))
    if results.damaged:
        warnings.warn(f"{path}: {results.damage()}", FileWarning, stacklevel=2)
    if results.strays:
        count = len(results.strays)
        are = "1 file is" if count == 1 else f"{count} files are"
        names = ", ".join(results.strays[:MOST_NAMED])
        more = f" and {count - MOST_NAMED} more" if count > MOST_NAMED else ""
        warnings.warn(
            f"{results.folder.results}: {are} of no experiment of this study, by name, and left "
            f"out ({names}{more})",
            FileWarning,
            stacklevel=2,
        )
    return results


class StudyResults:
    """The results of a study that are finished.

    Attributes
    ----------
    study : Study
    folder : StudyFolder
    plot
        Every figure of a study, as a method: `results.plot.outcome()` gives a matplotlib Figure.
    """

    def __init__(self, study: Study, folder: StudyFolder) -> None:
        self.study, self.folder = study, folder
        self._summaries: dict[float, pd.DataFrame] = {}  # resampling takes a while

    def __repr__(self) -> str:
        done = f"{len(self.finished)} experiments finished"
        damaged = f", {len(self.damaged)} damaged" if self.damaged else ""
        return f"<StudyResults of {self.study!r}: {done}{damaged}>"

    @functools.cached_property
    def _names_there(self) -> set[str]:
        return self.folder.files()

    @functools.cached_property
    def _faults(self) -> dict[Experiment, str | None]:
        """Of each experiment that has a file, what is wrong with it."""
        there = self._names_there
        return {e: self.folder.fault(e) for e in self.study.experiments if e.hash in there}

    @functools.cached_property
    def finished(self) -> tuple[Experiment, ...]:
        """Those experiments whose file is there and whole, in the study's order."""
        return tuple(e for e, fault in self._faults.items() if fault is None)

    @functools.cached_property
    def damaged(self) -> dict[Experiment, str]:
        """Those whose file is no whole result of theirs, and why; they count as not finished."""
        return {
            e: f"{self.folder.path_of(e)}: {fault}"
            for e, fault in self._faults.items()
            if fault not in (None, "missing")
        }

    @functools.cached_property
    def strays(self) -> tuple[str, ...]:
        """Files among the results that have the name of none of the experiments; left out."""
        known = {experiment.hash for experiment in self.study.experiments}
        return tuple(f"{name}.nc" for name in sorted(self._names_there - known))

    def damage(self) -> str:
        """Say which results are damaged, and what to do; "" if none is."""
        if not self.damaged:
            return ""
        files = [*self.damaged.values()]
        count = "1 result is" if len(files) == 1 else f"{len(files)} results are"
        more = f"; and {len(files) - MOST_NAMED} more" if len(files) > MOST_NAMED else ""
        return (
            f"{count} damaged and left out ({'; '.join(files[:MOST_NAMED])}{more}); run the study "
            "again with --resume to compute them again"
        )

    def traces(self) -> Iterator[tuple[Experiment, Trace]]:
        """Each finished experiment and its trace, one after the other."""
        for experiment in self.finished:
            yield experiment, self.trace(experiment)

    def trace(self, experiment: Experiment) -> Trace:
        """The trace of one experiment.

        Raises
        ------
        TraceError
            If it is not finished, or its file is damaged.
        """
        return Trace.from_bytes(self.folder.read(experiment), str(self.folder.path_of(experiment)))

    # --- numbers ----------------------------------------------------------------------------------

    @functools.cached_property
    def outcomes(self) -> pd.DataFrame:
        """What became of each net: a row per experiment and member.

        Columns: `experiment` (the hash), the settings that differ, `seed`, and those of
        `gradiometer.studies.outcomes.OUTCOMES` that were recorded.
        """
        import pandas as pd

        parts = []
        for experiment in self.finished:
            found = self._outcomes_of(experiment)
            shared = {"experiment": experiment.hash, **self.study.varied(experiment)}
            columns = {
                name: pd.Series([value] * experiment.members) for name, value in shared.items()
            }
            columns["seed"] = pd.Series(experiment.seeds)
            parts.append(pd.DataFrame({**columns, **found}))
        if not parts:
            return pd.DataFrame(columns=["experiment", *self.study.axes, "seed"])
        return pd.concat(parts, ignore_index=True)

    @functools.cached_property
    def _gradient(self) -> str | None:
        """What stands for the gradient: of all experiments the same, if they have one in common."""
        recorded = [set(e.quantities or GRADIENTS) for e in self.study.experiments]
        return next((name for name in GRADIENTS if all(name in r for r in recorded)), None)

    def _outcomes_of(self, experiment: Experiment) -> dict[str, Any]:
        import h5py

        path = self.folder.path_of(experiment)
        try:
            # not with xarray, which reads everything: of large studies two steps are enough
            with h5py.File(io.BytesIO(self.folder.read(experiment)), "r") as file:
                members = _Members(file, experiment.members)
                return outcomes(members, experiment.layers, self._gradient)
        except (OSError, KeyError) as error:
            raise TraceError(f"{path}: cannot be read ({error})") from None

    def summary(self, confidence: float = 0.95) -> pd.DataFrame:
        """Medians over seeds with bootstrap intervals, by `studies.outcomes.summarise`."""
        if confidence not in self._summaries:
            found = summarise(self.outcomes, list(self.study.axes), confidence)
            self._summaries[confidence] = found
        return self._summaries[confidence].copy()

    def sentence(self) -> str:
        """Say in a sentence how many experiments learn, and in how many the gradient vanishes.

        An experiment counts by its median over seeds: it learns with an accuracy of 0.9 or more;
        the gradient vanishes if the delta (or, not recorded, dL/dW) falls by three decades or more
        from the output layer to layer 1, and explodes if it grows by as much. Results that are
        damaged are told of.
        """
        damage = self.damage()
        found = in_words(judge(self.summary()))
        return f"{found} {damage}." if damage else found

    @functools.cached_property
    def dataset(self) -> xr.Dataset:
        """Everything that was recorded, as one labelled dataset; see `select`."""
        return self.select()

    def select(
        self, quantities: Sequence[str] | None = None, steps: Sequence[int] | None = None
    ) -> xr.Dataset:
        """Combine the traces into one labelled dataset.

        Parameters
        ----------
        quantities : sequence of str, optional
            Which of them, such as "grad_mean_abs"; all that are numbers per step by default.
        steps : sequence of int, optional
            Which recorded steps, in ascending order; all by default.

        Returns
        -------
        xarray.Dataset
            Dims: an axis for each setting that differs (for a list that is no grid, one axis
            `experiment` with the settings as coordinates), then `step`, `layer` (numbered from 1 at
            the input) and `member` (the seed; or 0, 1, … if experiments differ in their seed).
            Beside a quantity with missing values stands a boolean variable, `<quantity>_missing`:
            true where an experiment has no such quantity, layer or step, or is not finished.
            `finished` and `hash` tell which is which. Of settings that are None the label is NaN.
            A quantity that has the name of such a setting is called `recorded_…`.

        Raises
        ------
        StudyError
            If no experiment is finished; if a quantity or step was not recorded; or if the dataset
            would take more than 4 GiB and neither quantities nor steps were given.
        """
        from gradiometer.studies.combining import combine

        if not self.finished:
            raise StudyError(f"{self.folder.path}: no experiment is finished")
        return combine(self.study, self.traces(), quantities, steps, LARGEST)

    def to_dataframe(self) -> pd.DataFrame:
        """Give a tidy table: the settings that differ, then the columns of `Trace.to_dataframe`.

        A row per experiment, step, layer, quantity and member; layers go by name and `depth`. A
        fact about a layer that has the name of such a setting is called `layer_…`.
        """
        import pandas as pd

        parts = []
        for experiment, trace in self.traces():
            frame = trace.to_dataframe()
            if "member" not in frame:
                frame.insert(3, "member", experiment.seed)
            varied = self.study.varied(experiment)
            # the setting has the plain name
            frame = frame.rename(columns={n: f"layer_{n}" for n in varied if n in frame})
            for at, (name, value) in enumerate(varied.items()):
                frame.insert(at, name, pd.Series([value] * len(frame)))
            frame.attrs = {}
            parts.append(frame)
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()

    # --- figures ----------------------------------------------------------------------------------

    @property
    def plot(self) -> StudyPlots:
        """Every figure of this study, as a method."""
        return StudyPlots(self)


class _Members:
    """The variables of a trace's file, a single net as an ensemble of one."""

    def __init__(self, file: Any, members: int) -> None:
        self._file, self._alone = file, members == 1

    def __contains__(self, name: object) -> bool:
        return name in self._file

    def __getitem__(self, name: str) -> Any:
        variable = self._file[name]
        return variable[:][..., np.newaxis] if self._alone else variable


class StudyPlots:
    """The figures of a study; see `gradiometer.plots`."""

    def __init__(self, results: StudyResults) -> None:
        self._results = results

    def __getattr__(self, name: str) -> Callable[..., Figure]:
        from gradiometer.plots import STUDY_FIGURES

        if name not in STUDY_FIGURES:
            raise AttributeError(f"no figure {name!r}; there are {', '.join(STUDY_FIGURES)}")
        return functools.partial(STUDY_FIGURES[name], self._results)

    def __dir__(self) -> list[str]:
        from gradiometer.plots import STUDY_FIGURES

        return [*STUDY_FIGURES]
