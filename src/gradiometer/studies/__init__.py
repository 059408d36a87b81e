"""Studies: a grid of experiments over many seeds. A killed study keeps what was finished.

study.py        what is to be run: a base, and the axes of a grid
description.py  how that is written: settings, values along axes, TOML
ready/          studies that come with gradiometer, by name
options.py      in which processes a study is run, how often, for how long
events.py       what happens to the experiments
execution.py    the driver's loop: what to start next, retries, interrupts
executors.py    who computes: processes, a Dask cluster, any Executor
processes.py    worker processes of this machine, watched
compute.py      what a worker does with one experiment
grouping.py     members trained in groups, joined into one trace
folder.py       where results are kept, and who works on which experiment
results.py      all results of a folder, labelled
combining.py    traces of unequal shapes in one dataset
outcomes.py     what became of each net, and medians over seeds with their intervals
judgement.py    in how many experiments nets learn, and the gradient vanishes
progress.py     how many are done, running, failed; how fast
"""

from gradiometer.studies.description import StudyError
from gradiometer.studies.events import (
    ExperimentBegun,
    ExperimentEvent,
    ExperimentFailed,
    ExperimentFinished,
    ExperimentTakenBack,
    ResultSetAside,
    StudyStopping,
    StudyWaiting,
    WorkerDied,
    WorkerSilent,
)
from gradiometer.studies.execution import ExperimentsFailedError
from gradiometer.studies.folder import FolderError
from gradiometer.studies.options import RunOptions
from gradiometer.studies.processes import LocalProcesses, NoWorkersError, WorkerDiedError
from gradiometer.studies.results import StudyResults, load
from gradiometer.studies.study import Study

__all__ = [
    "ExperimentBegun",
    "ExperimentEvent",
    "ExperimentFailed",
    "ExperimentFinished",
    "ExperimentTakenBack",
    "ExperimentsFailedError",
    "FolderError",
    "LocalProcesses",
    "NoWorkersError",
    "ResultSetAside",
    "RunOptions",
    "Study",
    "StudyError",
    "StudyResults",
    "StudyStopping",
    "StudyWaiting",
    "WorkerDied",
    "WorkerDiedError",
    "WorkerSilent",
    "load",
]
