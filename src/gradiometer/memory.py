"""How much memory an experiment needs, and how much there is: checked before anything is allocated.

The estimate counts the arrays that are held at the same time, in bytes, with factors that were
measured (see the tests, which compare it with what runs take). It is right within a factor of two
where it matters, that is from some fifty megabytes on.
"""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass
from pathlib import Path

from dp.optimizers import OPTIMIZERS
from gradiometer.data import DATASETS
from gradiometer.quantities import PER_LAYER
from gradiometer.settings import DEFAULTS, Settings

GRID_POINTS = 80 * 80  # of the plane in which the decision is kept
BINS = 52  # of a histogram
SPARE = 0.9  # of what is available: it is an estimate

# how many arrays of the size in question are held at the same time
_WEIGHTS = 6.0  # values, gradients, a copy before the update, what measuring takes
_ACTIVATIONS = 7.5  # pre-activation, activation, delta, and the steps between them
_NORMALISED = 22.0  # the same with normalisation, whose derivative has many steps
_REFERENCE = 3.1
_DECISION, _DECISION_NORMALISED = 4.2, 5.0  # of one layer: those before it are let go
_RECORDED = 2.1  # while training; and in the end, as a file
_WRITTEN = 4.1
_LAYER, _LAYER_NORMALISED = 60e3, 250e3  # bytes of the program that a layer becomes
_STEP = 200.0  # bytes of a recorded step, besides its numbers


class TooLargeError(ValueError):
    """An experiment needs more memory than there is."""


@dataclass(frozen=True)
class Need:
    """Bytes that an experiment needs at the same time, by what for.

    Attributes
    ----------
    weights : float
        Weights, gradients and the optimiser's state.
    activations : float
        Activations and deltas of the batch, and of the reference batch.
    record : float
        What is recorded, and the file made of it.
    decision : float
        What the net decides in the plane of the data.
    layers : float
        The program that the layers become.
    """

    weights: float
    activations: float
    record: float
    decision: float
    layers: float

    @property
    def total(self) -> float:
        """The most that is held at the same time: while training, deciding or writing."""
        training = self.weights + self.activations + self.record * _RECORDED / _WRITTEN
        return self.layers + max(training, self.weights / 2 + self.decision, self.record)


def estimate(settings: Settings, members: int | None = None) -> Need:
    """What memory a run needs, beyond what Python and its libraries take; nothing is made.

    Parameters
    ----------
    settings : Settings
        Those of an experiment.
    members : int, optional
        So many of its members are trained at a time; all by default.
    """
    e = settings
    data = DATASETS[e.data]
    features, outputs = data.features, data.outputs
    units = float(e.layers) * e.width + outputs
    members = e.members if members is None else members
    size = (4 if e.dtype == "float32" else 8) * float(members)
    normalised = e.normalisation != "none"
    parameters = (
        float(features) * e.width
        + (e.layers - 1.0) * e.width * e.width
        + float(e.width) * outputs
        + units * (3 if normalised else 1)
    )
    stores = OPTIMIZERS[e.optimizer].num_grad_stores
    per_entry = _NORMALISED if normalised else _ACTIVATIONS
    recorded = math.ceil(e.steps / e.every)
    numbers = len(e.quantities) if e.quantities is not None else len(PER_LAYER)
    numbers += BINS if e.histograms else 0
    return Need(
        weights=parameters * size * (_WEIGHTS + stores),
        activations=units * size * (e.batch_size * per_entry + data.rows * _REFERENCE)
        + float(e.batch_size) * features * size * 2,
        record=recorded * ((e.layers + 1.0) * numbers + 2) * 8.0 * members * _WRITTEN
        + recorded * _STEP,
        decision=float(max(e.width, outputs))
        * size
        * GRID_POINTS
        * (_DECISION_NORMALISED if normalised else _DECISION)
        if e.decision
        else 0.0,
        layers=(e.layers + 1.0) * (_LAYER_NORMALISED if normalised else _LAYER),
    )


def available() -> float:
    """Bytes that this process may still have: of the machine, its container and its limit.

    Infinite where the system does not tell.
    """
    return min(_of_the_machine(), _of_the_container(), _of_the_limit())


def check_memory(settings: Settings, at_once: int | None = None) -> None:
    """Refuse an experiment that needs more memory than there is.

    Parameters
    ----------
    settings : Settings
        Those of an experiment.
    at_once : int, optional
        So many of its members are trained at a time.

    Raises
    ------
    TooLargeError
        Saying what it would need, what there is, and which settings to lower.
    """
    group = min(at_once or settings.members, settings.members)
    need = estimate(settings, group)
    there = SPARE * available()
    if need.total <= there:
        return
    raise TooLargeError(
        f"the run would need about {in_words(need.total)} of memory ({_parts(need)}), but only "
        f"{in_words(there)} are free; lower {_lower(settings, need)}"
    )


def in_words(size: float) -> str:
    """A number of bytes: 512 MB, 3.2 GB."""
    for unit in ("kB", "MB", "GB", "TB", "PB"):
        size /= 1000
        if size < 999.5 or unit == "PB":
            return f"{size:.3g} {unit}"
    raise AssertionError


def _parts(need: Need) -> str:
    """The largest parts, as text."""
    words = {
        "weights": "weights and optimiser",
        "activations": "activations of the batches",
        "record": "the record",
        "decision": "the decision",
        "layers": "the layers' program",
    }
    sizes = sorted(((getattr(need, name), word) for name, word in words.items()), reverse=True)
    return ", ".join(f"{word} {in_words(size)}" for size, word in sizes if size > 0.1 * need.total)


def _lower(settings: Settings, need: Need) -> str:
    """Which settings to lower: those that the largest part grows with, the largest ones first."""
    grows_with = {
        "weights": ("width", "members", "layers"),
        "activations": ("batch_size", "members", "width", "layers"),
        "record": ("steps", "members", "layers"),
        "decision": ("members", "width", "layers"),
        "layers": ("layers",),
    }
    largest = max(grows_with, key=lambda name: getattr(need, name))
    values = {name: getattr(settings, name) for name in grows_with[largest]}
    ratio = {name: value / DEFAULTS[name] for name, value in values.items()}
    above = sorted((name for name in ratio if ratio[name] > 1), key=lambda name: -ratio[name])
    words = " or ".join(f"{name} ({values[name]})" for name in above[:2] or ["width"])
    if largest == "record":
        return f"{words}, or record less, with every or quantities"
    return f"{words}, or leave the decision out" if largest == "decision" else words


def _of_the_machine() -> float:
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return float(line.split()[1]) * 1024
    with contextlib.suppress(ImportError, AttributeError, OSError, ValueError):
        import os

        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return math.inf


def _of_the_container() -> float:
    """What the control group that we are in has left."""
    for most, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        with contextlib.suppress(OSError, ValueError):
            folder = Path("/sys/fs/cgroup")
            limit = float((folder / most).read_text())  # "max" is not a number
            return max(0.0, limit - float((folder / used).read_text()))
    return math.inf


def _of_the_limit() -> float:
    """What RLIMIT_AS, and the limit on data, leave of the address space."""
    with contextlib.suppress(ImportError, OSError, ValueError, IndexError):
        import resource

        soft, _ = resource.getrlimit(resource.RLIMIT_AS)
        if soft == resource.RLIM_INFINITY:
            return math.inf
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        return max(0.0, float(soft) - pages * resource.getpagesize())
    return math.inf
