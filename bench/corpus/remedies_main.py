"""Command line of the remedies' table, from the root of the repository.

python -m bench.corpus.remedies_main experiments
python -m bench.corpus.remedies_main torch --most 60
python -m bench.corpus.remedies_main table
"""

from __future__ import annotations

import argparse
import os

for name in ("OMP", "OPENBLAS", "MKL"):
    os.environ.setdefault(f"{name}_NUM_THREADS", "1")  # before NumPy comes


def main() -> None:
    """Do what is asked for."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.corpus.remedies_main",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("what", choices=["experiments", "torch", "table"])
    parser.add_argument("--most", type=int, help="look at no more nets than these")
    parser.add_argument("--minutes", type=float, default=30.0, help="begin no net after these")
    given = parser.parse_args()
    from bench.corpus import remedies, remedies_table

    if given.what == "table":
        rows = [remedies.Row(**line) for line in remedies.lines() if "source" in line]
        remedies.write_table(rows)
        print(remedies_table.in_markdown(rows))
        return
    how = remedies.by_experiment if given.what == "experiments" else remedies.by_torch
    remedies.measure(remedies.failing(given.what)[: given.most], how, given.minutes)


if __name__ == "__main__":
    main()
