"""Train every net of the corpus, keep its trace, and check its label.

A collection that was stopped goes on where it was: `journal.jsonl` has a line per trained net.
"""

from __future__ import annotations

import csv
import importlib
import json
import math
import pkgutil
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

import bench.corpus
from bench.corpus.cases import Case, Measured, check, doubt
from gradiometer.states import State
from gradiometer.trace import Trace

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "build" / "corpus"  # traces, not in git
NETS = Path(__file__).with_name("nets.csv")
DROPPED = Path(__file__).with_name("dropped.csv")
SOURCES = ("mlp", "torch_nets")  # modules whose name begins so have a function `cases`


@dataclass(frozen=True)
class Entry:
    """A line of the journal: what became of one net.

    Attributes
    ----------
    name, digest : str
        Of the case.
    measured : Measured
    seconds : float
        For training, recording and writing.
    error : str
        What its training raised; "" if nothing.
    """

    name: str
    digest: str
    measured: Measured
    seconds: float
    error: str = ""

    def line(self) -> str:
        """Itself as JSON."""
        return json.dumps({**vars(self), "measured": self.measured._asdict()})

    @classmethod
    def of(cls, line: str) -> Entry:
        """Itself, from its line.

        Raises
        ------
        ValueError, TypeError, KeyError
            If the line is no entry.
        """
        told = json.loads(line)
        return cls(**{**told, "measured": Measured(**told["measured"])})


def all_cases() -> dict[str, Case]:
    """The cases of every source, by name, checked together."""
    found: list[Case] = []
    for module in pkgutil.iter_modules(bench.corpus.__path__):
        if module.name.startswith(SOURCES):
            source = importlib.import_module(f"bench.corpus.{module.name}")
            found += getattr(source, "cases", list)()
    return check(found)


def path_of(name: str, folder: Path = FOLDER) -> Path:
    """Where the trace of a case lies."""
    return folder / f"{name}.nc"


# --- training -------------------------------------------------------------------------------------


def collect(
    cases: Iterable[Case],
    folder: Path = FOLDER,
    *,
    minutes: float = math.inf,
    processes: int = 1,
    say: Callable[[str], Any] = print,
) -> bool:
    """Train those cases that have no trace yet, or another one's.

    Parameters
    ----------
    cases : iterable of Case
    folder : Path
        For traces and the journal.
    minutes : float
        After which no further training is begun.
    processes : int
        That train at the same time.
    say : callable
        Told how far it is.

    Returns
    -------
    bool
        Whether every case has its trace.
    """
    folder.mkdir(parents=True, exist_ok=True)
    known = journal(folder)
    waiting = [case for case in _mixed(cases) if not is_done(case, known, folder)]
    end = time.monotonic() + 60 * minutes
    done = 0
    with (folder / "journal.jsonl").open("a", encoding="utf-8") as file:
        for entry in _trained(waiting, folder, end, processes):
            # the line break in front ends a line that was cut short
            file.write(f"\n{entry.line()}\n")
            file.flush()
            done += 1
            if done % 50 == 0 or done == len(waiting):
                say(f"{done} of {len(waiting)} nets")
    return done == len(waiting)


def _mixed(cases: Iterable[Case]) -> list[Case]:
    """In an order that has some of everything early on; a failing net and its twin together."""
    return sorted(
        cases, key=lambda case: (zlib.crc32((case.twin or case.name).encode()), case.name)
    )


def journal(folder: Path = FOLDER) -> dict[str, Entry]:
    """The latest entry of each net; a line that was not finished is left out."""
    path = folder / "journal.jsonl"
    found: dict[str, Entry] = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            entry = Entry.of(line)
        except (ValueError, TypeError, KeyError):
            continue
        found[entry.name] = entry
    return found


def is_done(case: Case, known: Mapping[str, Entry], folder: Path) -> bool:
    """Whether a case was trained as it is described now, and its trace is there."""
    entry = known.get(case.name)
    if entry is None or entry.digest != case.digest:
        return False
    return bool(entry.error) or path_of(case.name, folder).exists()


def _trained(cases: list[Case], folder: Path, end: float, processes: int) -> Iterator[Entry]:
    """Entries as trainings end; none is begun after `end`."""
    if processes == 1:
        for case in cases:
            if time.monotonic() > end:
                return
            yield train_one(case, folder)
        return
    left = iter(cases)
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        running: set[Future[Entry]] = set()
        while True:
            # no more than it has processes for, so that it stops in time
            while len(running) < processes and time.monotonic() <= end:
                case = next(left, None)
                if case is None:
                    break
                running.add(pool.submit(train_one, case, folder))
            if not running:
                return
            ended, running = wait(running, return_when=FIRST_COMPLETED)
            for future in ended:
                yield future.result()


def train_one(case: Case, folder: Path = FOLDER) -> Entry:
    """Train a case and write its trace, which does not tell its label."""
    began = time.perf_counter()

    def entry(measured: Measured, error: str = "") -> Entry:
        seconds = round(time.perf_counter() - began, 3)
        return Entry(case.name, case.digest, measured, seconds, error)

    try:
        with threadpool_limits(1):
            trace, outcome = case.make()
    except Exception as error:
        return entry(Measured(math.nan, False), f"{type(error).__name__}: {error}")
    trace.save(path_of(case.name, folder))
    return entry(measured(trace, outcome))


def measured(trace: Trace, outcome: float) -> Measured:
    """What a label is checked against."""
    counts = np.nan_to_num(trace["nonfinite_count"].values)
    lost = trace.status("loss").values == State.NOT_FINITE
    return Measured(
        float(outcome),
        not counts.any() and not lost.any(),
        _greatest(trace, "dead_fraction"),
        _greatest(trace, "saturated_fraction"),
    )


def _greatest(trace: Trace, name: str) -> float:
    """The greatest number of a quantity that is finite; NaN if there is none."""
    values = trace[name].values if name in trace.quantities else np.empty(0)
    values = values[np.isfinite(values)]
    return float(values.max()) if values.size else math.nan


# --- tables ---------------------------------------------------------------------------------------


def verified(
    cases: Mapping[str, Case], known: Mapping[str, Entry]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows of the nets whose labels hold, and of those that are dropped, with the reason."""
    found = {
        name: entry.measured
        for name, entry in known.items()
        if name in cases and entry.digest == cases[name].digest and not entry.error
    }
    kept, dropped = [], []
    for name, case in sorted(cases.items()):
        row = _row(case, found.get(name))
        if name in found:
            reason = doubt(case, found)
        else:
            reason = known[name].error if name in known else "not trained"
        if reason is None:
            kept.append(row)
        else:
            dropped.append({**row, "reason": reason})
    return kept, dropped


def _row(case: Case, found: Measured | None) -> dict[str, Any]:
    return {
        "name": case.name,
        "group": case.group,
        "part": case.part,
        "kind": case.kind,
        "cause": case.cause or "",
        "layers": " ".join(case.layers),
        "twin": case.twin or "",
        "outcome": "" if found is None else f"{found.outcome:.4g}",
        "accept": f"{case.accept:g}",
        "trap": case.trap,
    }


def write_table(rows: list[dict[str, Any]], path: Path) -> None:
    """Write rows as CSV."""
    with path.open("w", encoding="utf-8", newline="") as file:
        if rows:
            writer = csv.DictWriter(file, rows[0], lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)


def read_table(path: Path = NETS) -> list[dict[str, str]]:
    """The rows of a table, as text."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
