"""How often the remedy that is recommended mends a failing net of the corpus, on fresh seeds.

A remedy is chosen on some seeds and judged on ten others: so what was chosen by chance does not
count. Beside it stand the unchanged net, and three of the remedies that were tried, drawn at
random. A line per net goes to `build/corpus/remedies.jsonl`, and a stopped run goes on there.
"""

from __future__ import annotations

import csv
import json
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.corpus.cases import MARGIN, Case
from bench.corpus.collect import FOLDER, all_cases
from gradiometer.data import DATASETS
from gradiometer.diagnosis import diagnose
from gradiometer.experiment import Experiment
from gradiometer.remedies import CANDIDATES, Remedies, try_remedies
from gradiometer.remedies.applying import Deadline
from gradiometer.remedies.experiments import ExperimentTrials
from gradiometer.remedies.rate import fitting_factor
from gradiometer.remedies.trials import Trials
from gradiometer.settings import SETTINGS
from gradiometer.trace import Trace

if TYPE_CHECKING:
    from numpy.typing import NDArray

JOURNAL = FOLDER / "remedies.jsonl"
TABLE = Path(__file__).with_suffix(".csv")  # the lines of which docs/remedies.md tells
FRESH = 1000  # added to seeds; no net of the corpus is so chosen
JUDGED = {"experiments": 10, "torch": 5}  # seeds
DRAWN = 3  # remedies at random


@dataclass(frozen=True)
class Row:
    """What came of a net.

    Attributes
    ----------
    name, source, kind, cause
        The case; "experiments" or "torch"; its label.
    said : str
        The diagnosis' first verdict: kind and cause.
    recommended : str
        "" if nothing is.
    tried : int
        How many candidates were.
    unchanged, mended, random : float
        Mean outcome on fresh seeds, without a change, with the recommended remedy, and with those
        drawn at random. NaN without a recommendation.
    better : float
        Share of fresh seeds on which the recommended remedy is better than no change.
    seconds : float
    """

    name: str
    source: str
    kind: str
    cause: str
    said: str
    recommended: str
    tried: int
    unchanged: float
    mended: float
    random: float
    better: float
    seconds: float


# --- the failing nets -----------------------------------------------------------------------------


def experiment_of(case: Case) -> Experiment | None:
    """The experiment that a perceptron of the corpus is; None if it is none.

    A factor on the weights of hidden layers becomes one on all weights.
    """
    settings = {"reduction": "mean", **case.make.keywords}
    if case.make.func.__module__ != "bench.corpus.mlp_training":
        return None
    if "factor" in settings and "at" not in settings:
        settings["init_scale"] = settings.pop("factor")
    if settings["data"] not in DATASETS or set(settings) - set(SETTINGS):
        return None
    return Experiment.of(**settings)


def by_experiment(case: Case) -> Row | None:
    """Try remedies for an experiment; None if it does not fail."""
    experiment = experiment_of(case)
    assert experiment is not None
    trace = experiment.run()
    if float(trace["accuracy"].values[-1]) >= case.accept - MARGIN:
        return None
    began = time.perf_counter()
    found = try_remedies(trace, candidates=CANDIDATES)
    seconds = time.perf_counter() - began
    fresh = Experiment.of(**{**experiment.given(), "seed": experiment.seed + FRESH})
    trials = ExperimentTrials(fresh, JUDGED["experiments"], fitting_factor(trace))
    return _row(case, "experiments", trace, found, trials, seconds)


def by_torch(case: Case) -> Row | None:
    """Try remedies for a net of PyTorch, as a user would."""
    from bench.corpus.remedies_torch import Training
    from gradiometer.remedies.torch.trials import ModelTrials

    training = Training(case)
    trace, outcome = case.make()
    if outcome >= case.accept - MARGIN:
        return None
    began = time.perf_counter()
    found = try_remedies(
        trace, make_model=training.make_model, train=training.train, candidates=CANDIDATES
    )
    seconds = time.perf_counter() - began
    causes = [verdict.cause for verdict in diagnose(trace) if verdict.cause is not None]
    trials = ModelTrials(
        lambda seed: training.make_model(seed + FRESH),
        training.train,
        JUDGED["torch"],
        fitting_factor(trace),
        causes,
    )
    return _row(case, "torch", trace, found, trials, seconds)


def _row(
    case: Case, source: str, trace: Trace, found: Remedies, trials: Trials, seconds: float
) -> Row:
    """Judge what is recommended on fresh seeds."""
    verdict = diagnose(trace).verdict
    said = f"{verdict.kind}: {verdict.cause}"
    best = found.recommended
    unchanged, mended, random, better = (float("nan"),) * 4
    if best is not None:
        before, after = (_run(trials, name) for name in (None, best.name))
        stream = np.random.default_rng(zlib.crc32(case.name.encode()))
        names = [row.name for row in found.tried]
        drawn = stream.choice(names, min(DRAWN, len(names)), replace=False)
        unchanged, mended = float(before.mean()), float(after.mean())
        random = float(np.mean([_run(trials, str(name)) for name in drawn]))
        better = float(np.mean(after > before))
    return Row(
        case.name, source, case.kind, case.cause or "", said,
        "" if best is None else best.name, len(found.tried),
        unchanged, mended, random, better, round(seconds, 2),
    )  # fmt: skip


def _run(trials: Trials, name: str | None) -> NDArray[np.float64]:
    return trials.run(None if name is None else CANDIDATES[name], Deadline())


# --- all of them ----------------------------------------------------------------------------------

# no candidate is for these: they are in the loop, the data, or the budget
BEYOND = (
    "constant inputs", "non-finite data", "targets", "graph cut", "gradients cleared",
    "too few steps",
)  # fmt: skip


def failing(source: str) -> list[Case]:
    """Failing nets of a source, in an order drawn at random that is always the same.

    Those of PyTorch without those whose cause is `BEYOND` the candidates.
    """
    found = [case for case in all_cases().values() if case.kind != "healthy"]
    if source == "experiments":
        found = [case for case in found if experiment_of(case) is not None]
    else:
        found = [
            case
            for case in found
            if case.make.func.__module__.startswith("bench.corpus.torch_nets")
            and case.cause not in BEYOND
        ]
    return sorted(found, key=lambda case: zlib.crc32(case.name.encode()))


def measure(cases: Iterable[Case], how: Callable[[Case], Row | None], minutes: float) -> None:
    """Try remedies for those nets that have no line yet, and write one for each."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    end, known = time.monotonic() + 60 * minutes, {row["name"] for row in lines()}
    with JOURNAL.open("a", encoding="utf-8") as file:
        for case in cases:
            if time.monotonic() > end:
                return
            if case.name in known:
                continue
            row = how(case)
            found: Mapping[str, Any] = {"name": case.name} if row is None else asdict(row)
            file.write(json.dumps(found) + "\n")
            file.flush()


def lines() -> Iterator[dict[str, Any]]:
    """The lines of the journal."""
    if JOURNAL.exists():
        yield from map(json.loads, JOURNAL.read_text(encoding="utf-8").splitlines())


def write_table(rows: Iterable[Row]) -> None:
    """Write a line per net, in the order of their names."""
    with TABLE.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Row)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(row) for row in sorted(rows, key=lambda row: row.name))
