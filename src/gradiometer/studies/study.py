"""Study: many experiments, as a grid or a list, described; running it gives a folder of traces."""

from __future__ import annotations

import itertools
import math
import multiprocessing
import os
import re
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dp.validation import positive_integer, unknown
from gradiometer.declaration import plain
from gradiometer.experiment import Experiment, ExperimentError
from gradiometer.files import read_toml, write_atomically
from gradiometer.interrupts import check_time_limit
from gradiometer.settings import SETTINGS
from gradiometer.studies.description import (
    MOST,
    StudyError,
    arguments_of,
    as_toml,
    checked,
    in_words,
    settings_of,
    values_along,
)
from gradiometer.studies.events import ExperimentEvent, ExperimentFailed, ExperimentFinished
from gradiometer.studies.execution import ExperimentsFailedError, execute
from gradiometer.studies.executors import workers_for
from gradiometer.studies.folder import StudyFolder
from gradiometer.studies.options import RunOptions
from gradiometer.studies.processes import BELOW_GUARD, NoWorkersError
from gradiometer.trace import Trace

if TYPE_CHECKING:
    from gradiometer.studies.execution import Compute

FIT_FOR_A_FOLDER = re.compile(r"\w([\w .-]*\w)?")


class Study:
    """Many experiments, described; each has several nets, which differ in their seeds.

    Parameters
    ----------
    base : Experiment, mapping of settings, or path of an experiment's TOML file, optional
        What all experiments share; the defaults of `Experiment` where it does not say. What the
        nets decide in the plane of the data is not kept unless it says so.
    over : mapping of setting to values, optional
        The axes of the grid: an experiment for each combination of their values.
    experiments : iterable of mappings of settings, optional
        A list of experiments instead of a grid; with `over`, each is crossed with the grid.
    members : int, optional
        Nets per experiment, trained side by side; by default as `base` says, or else one.
    name : str
        Names the study and, unless told otherwise, its folder.
    timeout : float, optional
        Seconds that an experiment may take; one that takes longer fails, and the others go on. It
        is no part of what is described: with another limit it is the same study.

    Attributes
    ----------
    experiments : tuple of Experiment
        In the order of the grid, its last axis running fastest.
    axes : dict of str to tuple
        The settings that differ, with their values in the order given; a list of experiments has
        those of its settings that are not all the same.

    Raises
    ------
    StudyError
        Naming the setting, its value and what would be accepted.

    Examples
    --------
    >>> from gradiometer import Study
    >>> study = Study({"steps": 5}, over={"layers": [1, 2], "activation": ["tanh", "relu"]})
    >>> len(study.experiments)
    4
    >>> [float(trace["accuracy"][-1].median()) >= 0 for trace in study.run()]
    [True, True, True, True]
    """

    def __init__(
        self,
        base: Experiment | Mapping[str, Any] | str | os.PathLike[str] | None = None,
        over: Mapping[str, Iterable[Any]] | None = None,
        *,
        experiments: Iterable[Mapping[str, Any]] | None = None,
        members: int | None = None,
        name: str = "study",
        timeout: float | None = None,
    ) -> None:
        if not isinstance(name, str) or not FIT_FOR_A_FOLDER.fullmatch(name):
            raise StudyError(
                "name must be fit for a folder: letters, digits, and - _ . or spaces between them, "
                f"got {name!r}"
            )
        self.name = name
        self.base = settings_of(base)
        if over is not None and not isinstance(over, Mapping):
            raise TypeError(f"over takes lists of values by setting, got {over!r}")
        self.over = {
            setting: values_along(setting, values) for setting, values in (over or {}).items()
        }
        checked(check_time_limit, timeout)
        self.timeout = plain(timeout)
        if isinstance(experiments, Mapping) or not isinstance(experiments or (), Iterable):
            raise TypeError(f"experiments takes a list of settings, got {experiments!r}")
        self.listed = [
            {name: plain(value) for name, value in each.items()}
            for each in itertools.islice([{}] if experiments is None else experiments, MOST + 1)
        ]
        if members is not None:
            checked(positive_integer, "members", members)
            self.base["members"] = plain(members)
        self._refuse_what_clashes()
        self.members: int = self.base.get("members", 1)
        self.experiments = tuple(self._combine())
        self.axes = self._find_axes(experiments is not None)

    def _refuse_what_clashes(self) -> None:
        size = math.prod([len(self.listed), *map(len, self.over.values())])
        if size == 0:
            raise StudyError("a study needs at least one experiment; its list is empty")
        if size > MOST:
            lengths = " × ".join(f"{len(v)} {k}" for k, v in self.over.items())
            raise StudyError(f"{size} experiments ({lengths}) are too many; at most {MOST}")
        for where, settings in [("over", self.over), *(("experiments", e) for e in self.listed)]:
            for setting in settings:
                if setting == "members":
                    raise StudyError(
                        f"{where}: members are the same in all experiments; give "
                        "Study(…, members=20), in TOML members = 20 at the top"
                    )
                if setting not in SETTINGS:
                    raise StudyError(f"{where}: {unknown('setting', setting, SETTINGS)}")
        for setting in self.over:
            if any(setting in each for each in self.listed):
                raise StudyError(f"{setting}: given both in over and in the list of experiments")

    def _combine(self) -> Iterator[Experiment]:
        seen: dict[str, dict[str, Any]] = {}
        for listed in self.listed:
            for values in itertools.product(*self.over.values()):
                varied = {**listed, **dict(zip(self.over, values, strict=True))}
                try:
                    experiment = Experiment.of(**{**self.base, **varied})
                except ExperimentError as error:
                    raise StudyError(f"{in_words(varied)}: {error}") from None
                if experiment.hash in seen:
                    same = in_words(seen[experiment.hash])
                    raise StudyError(f"{in_words(varied)}: the same experiment as {same}")
                seen[experiment.hash] = varied
                yield experiment

    def _find_axes(self, by_list: bool) -> dict[str, tuple[Any, ...]]:
        varied = [*dict.fromkeys(itertools.chain(*self.listed))] if by_list else []
        axes = {}
        for setting in [*varied, *self.over]:
            values = tuple(dict.fromkeys(getattr(e, setting) for e in self.experiments))
            if len(values) > 1 or setting in self.over:
                axes[setting] = values
        return axes

    @property
    def is_grid(self) -> bool:
        """Whether there is an experiment for each combination of the axes' values."""
        return len(self.experiments) == math.prod(map(len, self.axes.values()))

    def varied(self, experiment: Experiment) -> dict[str, Any]:
        """The settings of one experiment that differ between experiments."""
        return {setting: getattr(experiment, setting) for setting in self.axes}

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Study):
            return NotImplemented
        return [e.hash for e in self.experiments] == [e.hash for e in other.experiments]

    def __hash__(self) -> int:
        return hash(tuple(e.hash for e in self.experiments))

    def __repr__(self) -> str:
        axes = " × ".join(f"{len(values)} {setting}" for setting, values in self.axes.items())
        return (
            f"<Study {self.name!r}: {len(self.experiments)} experiments"
            + (f" ({axes})" if axes else "")
            + f" of {self.members} nets each>"
        )

    # --- files ------------------------------------------------------------------------------------

    def to_toml(self) -> str:
        """The description, as `load` reads it."""
        import tomli_w

        fields: dict[str, Any] = {"name": self.name, "members": self.members}
        if self.timeout is not None:
            fields["timeout"] = self.timeout
        fields["base"] = as_toml({k: v for k, v in self.base.items() if k != "members"})
        if self.over:
            fields["over"] = {setting: as_toml(values) for setting, values in self.over.items()}
        if self.listed != [{}]:
            fields["experiments"] = as_toml(self.listed)
        return tomli_w.dumps(fields)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the description as TOML, atomically."""
        write_atomically(Path(path), self.to_toml().encode())

    @classmethod
    def load(cls, path: str | os.PathLike[str], members: int | None = None) -> Study:
        """Read a TOML file; `members` takes precedence over it.

        Its tables are `[base]` and `[over]`, and `[[experiments]]` for a list; at its top may stand
        a name (the file's by default), ``members`` and ``timeout``. What may be none is so if it is
        "none".

        Raises
        ------
        StudyError
            If the file is missing, is not TOML, or describes no valid study.
        """
        file = Path(path)
        fields = read_toml(file, StudyError, "tables such as [base] and [over]")
        if members is not None:
            fields["members"] = members
        try:
            return cls(**arguments_of(fields, file.stem))
        except StudyError as error:
            raise StudyError(f"{file}: {error}") from None

    # --- running ----------------------------------------------------------------------------------

    def run(self, out: str | os.PathLike[str] | None = None, **options: Any) -> Iterator[Trace]:
        """Run what is missing; give the trace of each experiment as soon as it is there.

        Traces that a folder had before come first. To stop early, leave the loop: what is under way
        is dropped, what is finished is kept. An interrupt (Ctrl-C) lets what is under way finish,
        a second one does not; KeyboardInterrupt is raised then.

        Parameters
        ----------
        out : path, optional
            Folder for a trace of each experiment, `results/<hash>.nc`; nothing is written without.
        **options
            `resume`, `workers`, `cluster`, `executor`, `at_once`, `attempts`, `timeout`: see
            `gradiometer.studies.RunOptions`.

        Raises
        ------
        StudyError
            If the folder holds another study; if options contradict each other.
        OSError
            If the folder cannot be written to, or the disk is full.
        ExperimentsFailedError
            After all others are done, if experiments failed; their tracebacks are in the folder.
        """
        failures = []
        with closing(self.events(out, **options)) as events:
            for event in events:
                if isinstance(event, ExperimentFinished):
                    yield event.trace
                elif isinstance(event, ExperimentFailed):
                    failures.append(event)
        if failures:
            raise ExperimentsFailedError(failures)

    def events(
        self,
        out: str | os.PathLike[str] | None = None,
        *,
        compute: Compute | None = None,
        **options: Any,
    ) -> Generator[ExperimentEvent, None, None]:
        """Run what is missing, and say what happens as it does; parameters as for `run`.

        Parameters
        ----------
        compute : callable, optional
            What a worker does instead of `gradiometer.studies.compute.compute`, with its
            parameters.

        Yields
        ------
        ExperimentEvent
            See `gradiometer.studies.events`.
        """
        how = RunOptions.of(options)
        timeout = self.timeout if how.timeout is None else how.timeout
        if getattr(multiprocessing.current_process(), "_inheriting", False):
            # a worker reads the script again, and would begin the study anew
            raise NoWorkersError(f"in a script, {BELOW_GUARD}")
        folder = None if out is None else StudyFolder(out)
        if folder is not None:
            folder.check(self, how.resume)
        with workers_for(how.workers, how.cluster, how.executor, timeout) as pool:
            if folder is not None:
                folder.open(self, how.resume)
            yield from execute(
                self.experiments,
                pool,
                folder,
                at_once=how.at_once,
                attempts=how.attempts,
                compute=compute,
                timeout=timeout,
            )
