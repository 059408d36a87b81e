"""The nets of the corpus as the rules see them: label, signs, and what other tools say of them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from bench.corpus.baselines import BASELINES
from gradiometer.diagnosis.reading import readings
from gradiometer.diagnosis.rules import Signs
from gradiometer.diagnosis.signs import read_signs
from gradiometer.trace import Trace


@dataclass(frozen=True)
class Label:
    """What is true of a net: a row of `nets.csv`."""

    name: str
    group: str
    part: str
    kind: str
    cause: str | None
    layers: tuple[str, ...]
    trap: str

    @classmethod
    def of(cls, row: Mapping[str, str]) -> Label:
        """Read a row."""
        return cls(
            row["name"], row["group"], row["part"], row["kind"], row["cause"] or None,
            tuple(row["layers"].split()), row["trap"],
        )  # fmt: skip

    @property
    def healthy(self) -> bool:
        """Whether the net learns."""
        return self.kind == "healthy"


@dataclass(frozen=True)
class Net:
    """A net with what was read off its trace.

    Attributes
    ----------
    label : Label
    signs : Signs
    layers : list of str
    baselines : dict of str to str or None
        What each baseline says: a kind, or None if it raises no alarm.
    """

    label: Label
    signs: Signs
    layers: list[str]
    baselines: dict[str, str | None] = field(default_factory=dict)


def read_nets(labels: Iterable[Label], folder: Path, processes: int = 1) -> list[Net]:
    """Read the traces of these nets; those that have none are left out."""
    known = [label for label in labels if (folder / f"{label.name}.nc").is_file()]
    if processes == 1:
        return [_read(label, folder) for label in known]
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        return list(pool.map(_read, known, [folder] * len(known), chunksize=20))


def _read(label: Label, folder: Path) -> Net:
    trace = Trace.load(folder / f"{label.name}.nc")
    (reading,) = readings(trace)
    said = {name: rule(trace) for name, rule in BASELINES.items()}
    return Net(label, read_signs(reading), trace.layers, said)


# --- kept, so that calibration need not read every trace again ------------------------------------


def write(nets: Iterable[Net], path: Path) -> None:
    """Keep them, a line of JSON each."""
    lines = []
    for net in nets:
        signs = {name: np.asarray(value).tolist() for name, value in net.signs.items()}
        row: dict[str, Any] = {**net.__dict__, "label": net.label.__dict__, "signs": signs}
        lines.append(json.dumps(row))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def read(path: Path) -> list[Net]:
    """What `write` kept."""
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        label = row["label"] | {"layers": tuple(row["label"]["layers"])}
        signs = {
            name: np.array(value, float) if isinstance(value, list) else float(value)
            for name, value in row["signs"].items()
        }
        found.append(Net(Label(**label), signs, row["layers"], row["baselines"]))
    return found
