"""Command line of the measurements: `python -m bench lesson`, from the root of the repository."""

from __future__ import annotations

import argparse
import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.peers import Peer

ROUNDS = {
    "lesson": 10, "wide": 5, "deep": 8, "sweep": 1, "cold": 7, "graphs": 7, "startup": 11,
    "recording": 25, "study": 5,
}  # fmt: skip
LIMIT = {"wide": "matrix products alone", "deep": "matrix products alone", "graphs": "dp"}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("what", choices=[*ROUNDS, "predictions"])
    parser.add_argument("--rounds", type=int, help="turns of each peer")
    parser.add_argument("--peers", help="names, with commas in between; all that are installed")
    parser.add_argument("--dtype", choices=["float32", "float64"])
    parser.add_argument("--threads", type=int, default=1, help="threads and cores of each peer")
    parser.add_argument("--draw", type=int, default=2, help="of configurations (predictions)")
    parser.add_argument("--nets", type=int, default=500, help="per configuration (predictions)")
    parser.add_argument("--out", type=Path, help="folder for tables and figures")
    given = parser.parse_args()
    if given.rounds is not None and given.rounds < 1:
        parser.error("--rounds must be at least 1")
    if given.draw < 0:
        parser.error("--draw must not be negative")
    if given.nets < 20:
        parser.error("--nets must be at least 20")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    if not 1 <= given.threads <= (cores or 1):
        parser.error(f"--threads must lie between 1 and {cores}, the number of cores")
    return given


def pin(threads: int) -> None:
    """Restrict this process and its children to so many threads and cores, before NumPy comes."""
    for name in ("OMP", "OPENBLAS", "MKL", "NUMEXPR", "VECLIB_MAXIMUM"):
        os.environ[f"{name}_NUM_THREADS"] = str(threads)
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"
    if threads == 1:
        os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, cores[-threads:])


def main() -> None:
    """Measure, print, and write if asked to."""
    given = arguments()
    pin(given.threads)
    if given.what == "predictions":
        from bench import predictions

        predictions.main(given.draw, given.nets)
    elif given.what == "startup":
        from bench import startup

        startup.main(given.rounds or ROUNDS["startup"])
    elif given.what == "recording":
        from bench import recording

        try:
            recording.main(given.rounds or ROUNDS["recording"], given.threads)
        except ImportError as error:
            raise SystemExit(f"PyTorch is not installed: {error}") from None
    else:
        compare(given)


def compare(given: argparse.Namespace) -> None:
    """Measure a workload, peer by peer; tables, and figures if there is a folder for them."""
    from bench import graphs, study
    from bench.peers import chosen, versions
    from bench.workloads import WORKLOADS

    rounds = given.rounds or ROUNDS[given.what]
    if given.what == "graphs":
        graphs.main(rounds)
        print()
    workload = WORKLOADS[{"cold": "lesson", "study": "sweep"}.get(given.what, given.what)]
    try:
        peers = chosen(workload.kind, given.peers.split(",") if given.peers else None)
    except ValueError as error:
        raise SystemExit(str(error)) from None
    machine = (
        f"Python {platform.python_version()}, {platform.machine()}, {given.threads} thread(s), "
        f"{rounds} round(s); {versions()}."
    )
    for dtype in [given.dtype] if given.dtype else workload.dtypes:
        if given.what == "study":
            print(f"{study.main(dtype, rounds, peers)}\n\n{machine}\n")
        else:
            table(given, dtype, peers, rounds, machine)


def table(
    given: argparse.Namespace, dtype: str, peers: list[Peer], rounds: int, machine: str
) -> None:
    """Measure in one dtype; print the table, and write it with its figure if asked to."""
    from bench import cold, report, timing
    from bench.workloads import WORKLOADS

    first = "first run, s"
    if given.what == "cold":
        rows = cold.measure(dtype, peers, rounds)
        unit, first = "s per process", "first process, s"
    elif given.what == "sweep":
        rows, unit = timing.fresh(dtype, peers, rounds), "s run again"
    else:
        rows = timing.measure(given.what, dtype, peers, rounds, given.threads)
        unit = WORKLOADS[given.what].unit
    title, limit = f"{given.what}, {dtype}", LIMIT.get(given.what, "the loop by hand")
    text = f"## {title}\n\n{report.table(rows, unit, limit, first)}\n\n{machine}\n"
    print(text)
    if given.out:
        given.out.mkdir(parents=True, exist_ok=True)
        stem = f"{given.what}-{dtype}" + f"-{given.threads}-threads" * (given.threads > 1)
        (given.out / f"{stem}.md").write_text(text, encoding="utf-8")
        report.figure(rows, title, limit, given.out / f"{stem}.png")


if __name__ == "__main__":
    main()
