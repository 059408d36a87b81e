"""The nets of the corpus judged: signs read, thresholds learned, the table of accuracy written."""

from __future__ import annotations

from pathlib import Path

import gradiometer.diagnosis
from bench.corpus import accuracy, calibrate, labelled
from bench.corpus.collect import FOLDER, read_table
from bench.corpus.labelled import Label, Net
from gradiometer.diagnosis.rules import rules

READ = FOLDER / "nets.jsonl"
RULES = Path(gradiometer.diagnosis.__file__).with_name("rules.toml")
TABLE = Path(__file__).with_name("accuracy.md")


def read_traces(processes: int = 1) -> None:
    """Read the signs off every trace whose label holds."""
    labels = [Label.of(row) for row in read_table()]
    nets = labelled.read_nets(labels, FOLDER, processes)
    labelled.write(nets, READ)
    print(f"{len(nets)} traces read, of {len(labels)} nets")


def part(name: str) -> list[Net]:
    """The nets of the calibration, or of the test."""
    return [net for net in labelled.read(READ) if net.label.part == name]


def calibrate_rules() -> None:
    """Learn the thresholds on the calibration part, and write them into `rules.toml`."""
    nets = part("calibration")
    table = calibrate.calibrate(rules(), nets)
    calibrate.write(RULES, table)
    rules.cache_clear()
    print(accuracy.in_markdown(nets, table))


def write_tables() -> None:
    """Write the table of accuracy on the test part, and which nets are misjudged."""
    nets = part("test")
    text = [
        "# Accuracy of the diagnosis",
        "",
        "On nets of kinds that had no part in the calibration. "
        "`python -m bench.corpus` trains them and writes this page.",
        "",
        accuracy.in_markdown(nets, rules()),
        "",
        "## By kind and cause",
        "",
        accuracy.by_cause(nets, rules()),
        "",
    ]
    TABLE.write_text("\n".join(text), encoding="utf-8")
    print("\n".join(text))
