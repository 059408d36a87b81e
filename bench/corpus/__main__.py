"""Command line of the corpus: `python -m bench.corpus`, from the root of the repository.

collect    train every net, and check its label
read       read the signs off every trace
calibrate  learn the thresholds of the rules on the calibration part
table      write the table of accuracy on the test part
all        these four, one after the other
"""

from __future__ import annotations

import argparse
import fnmatch
import os
from collections import Counter
from typing import Any

for name in ("OMP", "OPENBLAS", "MKL"):
    os.environ.setdefault(f"{name}_NUM_THREADS", "1")  # before NumPy comes

PARTS = ("collect", "read", "calibrate", "table")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.corpus",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("what", choices=[*PARTS, "all"], nargs="?", default="all")
    parser.add_argument("--only", default="*", help="names of nets, with * and ?")
    parser.add_argument("--minutes", type=float, default=30.0, help="begin no training after these")
    parser.add_argument("--processes", type=int, default=1, help="trainings at the same time")
    given = parser.parse_args()
    if given.processes < 1:
        parser.error("--processes must be at least 1")
    return given


def main() -> None:
    """Do what is asked for, in its order."""
    given = arguments()
    wanted = PARTS if given.what == "all" else (given.what,)
    if "collect" in wanted:
        collect(given)
    if "read" in wanted:
        from bench.corpus import judging

        judging.read_traces(given.processes)
    if "calibrate" in wanted:
        from bench.corpus import judging

        judging.calibrate_rules()
    if "table" in wanted:
        from bench.corpus import judging

        judging.write_tables()


def collect(given: argparse.Namespace) -> None:
    """Train what has no trace yet; check the labels; write the tables if all is trained."""
    from bench.corpus import collect

    cases = collect.all_cases()
    chosen = [case for name, case in cases.items() if fnmatch.fnmatch(name, given.only)]
    complete = collect.collect(chosen, minutes=given.minutes, processes=given.processes)
    known = collect.journal()
    shown = {case.name: case for case in chosen}
    kept, dropped = collect.verified(shown, known)
    tell(kept, dropped)
    if not complete:
        print("Stopped by --minutes; the same command goes on.")
    elif len(chosen) == len(cases):
        collect.write_table(kept, collect.NETS)
        collect.write_table(dropped, collect.DROPPED)


def tell(kept: list[dict[str, Any]], dropped: list[dict[str, Any]]) -> None:
    """Print how many nets there are of each kind and cause, and which were dropped."""
    counts = Counter((row["kind"], row["cause"], row["part"]) for row in kept)
    for (kind, cause, part), count in sorted(counts.items()):
        print(f"{kind:<12}{cause:<36}{part:<13}{count:>5}")
    for row in dropped:
        print(f"dropped {row['name']} ({row['kind']}, {row['cause']}): {row['reason']}")
    print(f"{len(kept)} nets, {len(dropped)} dropped")


if __name__ == "__main__":
    main()
