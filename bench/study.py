"""The study "lesson", 600 nets, as whole processes: on one process and on two, next to peers.

A study writes a file for each experiment and can be killed at any moment; a peer computes the same
nets, records their gradients alone, and writes nothing.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from bench import timing
from bench.peers import Peer
from bench.report import digits
from bench.timing import say

DRIVER = """
import sys
from gradiometer.studies.ready import ready
from gradiometer.studies import Study
if __name__ == "__main__":
    out, workers, dtype = sys.argv[1:]
    lesson = ready("lesson")
    study = Study({**lesson.base, "dtype": dtype}, lesson.over)
    for event in study.events(out, workers=int(workers)):
        pass
"""
COMMAND = "if __name__ == '__main__': from gradiometer.cli import main; main()"


def measure(dtype: str, rounds: int) -> dict[str, list[float]]:
    """Seconds of whole processes, in turns."""
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        driver, command = Path(folder, "driver.py"), Path(folder, "command.py")
        driver.write_text(DRIVER)
        command.write_text(COMMAND)
        for number in range(rounds):
            out = Path(folder, str(number))
            rows = {
                "gradiometer study, one process": [driver, f"{out}-1", "1", dtype],
                "gradiometer study, two processes": [driver, f"{out}-2", "2", dtype],
            }
            if dtype == "float64":  # as it comes
                rows["… with tables and figures"] = [
                    command, "study", "lesson", "--workers", "2", "--out", f"{out}-3"
                ]  # fmt: skip
            for label, arguments in rows.items():
                began = time.perf_counter()
                subprocess.run(
                    [sys.executable, *map(str, arguments)], check=True, capture_output=True
                )
                found.setdefault(label, []).append(time.perf_counter() - began)
                say(f"study {dtype}: round {number + 1}, {label}: {found[label][-1]:.2f} s")
    return found


def main(dtype: str, rounds: int, peers: Sequence[Peer]) -> str:
    """Give a Markdown table, fastest first."""
    if hasattr(os, "sched_setaffinity"):  # two processes need two cores
        os.sched_setaffinity(0, range(os.cpu_count() or 1))
    ours = measure(dtype, rounds)
    lines = {label: statistics.median(times) for label, times in ours.items()}
    skipped = []
    for row in timing.fresh(dtype, peers, 1):
        if row.skipped:
            skipped.append(f"- {row.peer.label}: {row.skipped}")
        else:
            note = f" ({row.note})" if row.note else ""
            lines[row.peer.label + note] = row.import_s + row.first_s
    one, two = lines["gradiometer study, one process"], lines["gradiometer study, two processes"]
    table = [f"| 600 nets, {dtype} | s | × gradiometer, two processes |", "|---|---|---|"]
    for label, seconds in sorted(lines.items(), key=lambda line: line[1]):
        table.append(f"| {label} | {digits(seconds)} | {seconds / two:.2f} |")
    pairs = zip(
        *(ours[f"gradiometer study, {n}"] for n in ("two processes", "one process")), strict=True
    )
    ratio = statistics.median(b / a for b, a in pairs)
    table += ["", f"Two processes take {ratio:.2f} of the time of one ({one:.1f} s)."]
    if skipped:
        table += ["", "Not measured:", *skipped]
    return "\n".join(table)
