"""Whole processes, from start to a finished lesson run: what a user waits for, peer by peer.

Data, initial weights and the rate come from a file, so that nobody pays for another's libraries; dp
makes its net and draws its batches as always.
"""

from __future__ import annotations

import pickle
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bench.peers import Peer
from bench.timing import PATIENCE, Row, ranked, say
from bench.workloads import WORKLOADS

CHILD = """
import pickle, sys
import numpy
from bench.peers import PEERS
name, source, target = sys.argv[1:]
with open(source, "rb") as file:
    work = pickle.load(file)
numpy.save(target, PEERS[name].function("lesson")(work)())
"""


def measure(dtype: str, peers: Sequence[Peer], rounds: int) -> list[Row]:
    """Seconds of whole processes, in turns; the first round is not counted, but checked."""
    workload = WORKLOADS["lesson"]
    check = workload.checker(dtype)
    rows = [Row(peer, skipped=peer.missing()) for peer in peers]
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "work.pickle"), Path(folder, "found.npy")
        source.write_bytes(pickle.dumps(workload.make(dtype)))
        for number in range(rounds + 1):
            for row in rows:
                if row.skipped:
                    continue
                began = time.perf_counter()
                try:
                    subprocess.run(
                        [sys.executable, "-c", CHILD, row.peer.name, str(source), str(target)],
                        check=True,
                        stderr=subprocess.PIPE,
                        text=True,
                        timeout=PATIENCE,
                    )
                    took = time.perf_counter() - began
                    check(np.load(target), row.peer.name)
                except subprocess.CalledProcessError as error:
                    row.skipped = (error.stderr.strip().splitlines() or ["it failed"])[-1]
                except (subprocess.TimeoutExpired, ValueError) as error:
                    row.skipped = str(error)
                else:
                    if number == 0:
                        row.first_s = took
                    else:
                        row.rounds.append([took])
            say(f"cold {dtype}: round {number} of {rounds}")
    return ranked(rows, workload.kind)
