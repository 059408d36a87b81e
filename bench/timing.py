"""Timing in turns: every peer in a process of its own, A B C A B C …, on the same cores.

A process of its own keeps thread pools and settings apart; turns keep a machine that is slow for a
while from being unfair to one of them. A peer's result is compared with the reference before
anything of it is timed, and a peer whose result is another is not timed.
"""

from __future__ import annotations

import multiprocessing
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from bench.peers import Peer, Skipped
from bench.workloads import WORKLOADS, Workload

# seconds per unit of each run; or of each short training, and of each long one
Turn = list[float] | tuple[list[float], list[float]]

TURN = 0.25  # seconds of a peer's turn, about
MOST = 40  # runs in a turn
LONGER = 5  # times as many steps, in the longer of two trainings whose difference is taken
PATIENCE = 300.0  # seconds that a peer may take to answer


@dataclass
class Row:
    """What was measured of one peer.

    Attributes
    ----------
    import_s, first_s : float
        Importing the peer; preparing, compiling and the first run.
    rounds : list of lists of float
        Seconds per unit, turn by turn.
    shorts, longs : lists of float
        Where a time is the difference of two trainings: what both took, in the same unit.
    skipped : str
        Why there is nothing, if so.
    note : str
    ratio, minimum_ratio : float
        To the limit: round by round, and of the minima of all rounds.
    """

    peer: Peer
    import_s: float = 0.0
    first_s: float = 0.0
    rounds: list[list[float]] = field(default_factory=list)
    shorts: list[float] = field(default_factory=list)
    longs: list[float] = field(default_factory=list)
    skipped: str = ""
    note: str = ""
    ratio: float = float("nan")
    minimum_ratio: float = float("nan")

    def add(self, turn: Turn) -> None:
        """Add what was measured in a turn."""
        if isinstance(turn, tuple):
            shorts, longs = turn
            self.shorts += shorts
            self.longs += longs
            # of the best of each: the least difference would be whatever a disturbance made of one
            turn = [min(longs) - min(shorts)]
        self.rounds.append(turn)

    @property
    def median(self) -> float:
        """Of all runs, in seconds."""
        return statistics.median([t for turn in self.rounds for t in turn])

    @property
    def minimum(self) -> float:
        """Of all runs, in seconds."""
        if self.longs:
            return min(self.longs) - min(self.shorts)
        return min(t for turn in self.rounds for t in turn)


def say(text: str) -> None:
    """Progress, to stderr."""
    print(text, file=sys.stderr, flush=True)


# --- the peer's process ---------------------------------------------------------------------------


class _Runner:
    """A workload made ready by a peer: run it, look at its result, time it."""

    def __init__(self, peer: Peer, workload: Workload, dtype: str) -> None:
        began = time.perf_counter()
        prepare = peer.function(workload.kind)
        self.import_s = time.perf_counter() - began
        work = workload.make(dtype)
        began = time.perf_counter()
        prepared = prepare(*work) if isinstance(work, tuple) else prepare(work)
        self._units = workload.units
        self._pair: tuple[Callable[[], Any], Callable[[], Any]] | None = None
        if workload.kind == "steps":
            run = prepared.run
            run(work.steps)
            result = prepared.parameters and [np.array(p) for p in prepared.parameters()]
            self._pair = (lambda: run(1), lambda: run(1 + self._units))
        else:
            self._run = prepared
            result = prepared()
        self.first_s = time.perf_counter() - began
        self.results = [result]
        if workload.kind in ("lesson", "chain"):
            self.results.append(prepared())  # the second run is to be as right as the first
        if workload.kind == "lesson" and peer.captures:
            self._pair = (prepared, prepare(replace(work, steps=LONGER * work.steps)))
            self._units *= LONGER - 1

    def turn(self) -> Turn:
        """Seconds per unit, of a few runs after one that is not counted."""
        if self._pair:
            return self._both(*self._pair)
        took = self._time(self._run)
        if took > 4 * TURN:
            return [took / self._units]
        runs = min(MOST, max(2, int(TURN / took)))
        return [self._time(self._run) / self._units for _ in range(runs)]

    def _both(self, short: Callable[[], Any], long: Callable[[], Any]) -> Turn:
        """Of two trainings, whose difference has nothing of what a call does at its beginning."""
        runs = min(MOST, max(3, int(TURN / (self._time(short) + self._time(long)))))
        pairs = [(self._time(short), self._time(long)) for _ in range(runs)]
        shorts, longs = ([t / self._units for t in times] for times in zip(*pairs, strict=True))
        return shorts, longs

    @staticmethod
    def _time(run: Callable[[], Any]) -> float:
        began = time.perf_counter()
        run()
        return time.perf_counter() - began


def _serve(connection: Any, peer: Peer, name: str, dtype: str) -> None:
    try:
        runner = _Runner(peer, WORKLOADS[name], dtype)
        connection.send(("ready", (runner.import_s, runner.first_s, runner.results)))
        while connection.recv() == "turn":
            connection.send(("times", runner.turn()))
    except Skipped as reason:
        connection.send(("skipped", str(reason)))
    except EOFError:
        pass
    except Exception as error:
        traceback.print_exc()
        connection.send(("skipped", f"{type(error).__name__}: {str(error)[:200]}"))


class Process:
    """A peer in a process of its own."""

    def __init__(self, peer: Peer, name: str, dtype: str) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(other, peer, name, dtype))
        self._process.start()
        other.close()

    def answer(self) -> Any:
        """Wait for what the process has to say.

        Raises
        ------
        Skipped
            If it cannot run, died, or lets us wait too long.
        """
        if not self._connection.poll(PATIENCE):
            raise Skipped(f"no answer within {PATIENCE:.0f} s")
        try:
            kind, content = self._connection.recv()
        except EOFError:
            raise Skipped("its process ended") from None
        if kind == "skipped":
            raise Skipped(content)
        return content

    def turn(self) -> Turn:
        """Let it run for a while; seconds per unit."""
        self._connection.send("turn")
        times: Turn = self.answer()
        return times

    def close(self) -> None:
        """End the process."""
        self._connection.close()
        self._process.join(2)
        if self._process.is_alive():
            self._process.terminate()
            self._process.join(5)
        if self._process.is_alive():
            self._process.kill()


# --- ours -----------------------------------------------------------------------------------------


def measure(
    name: str, dtype: str, peers: Sequence[Peer], rounds: int, threads: int = 1
) -> list[Row]:
    """Measure a workload, in turns.

    Returns
    -------
    list of Row
        Fastest first, skipped ones last; `ratio` is the median over the rounds of the best run
        in a peer's turn by the best run of the limit's in the same round, `minimum_ratio` that of
        the best runs of all rounds.
    """
    workload = WORKLOADS[name]
    rows = [Row(peer, skipped=peer.missing()) for peer in peers]
    check = workload.checker(dtype)
    running: list[tuple[Row, Process]] = []
    try:
        for row in rows:
            if row.skipped:
                say(f"{name} {dtype}: {row.peer.name} skipped: {row.skipped}")
                continue
            process = Process(row.peer, name, dtype)
            try:
                row.import_s, row.first_s, results = process.answer()
                for result in results:
                    check(result, row.peer.name)
            except (Skipped, ValueError) as reason:
                row.skipped = str(reason)
                say(f"{name} {dtype}: {row.peer.name} skipped: {row.skipped}")
                process.close()
                continue
            say(f"{name} {dtype}: {row.peer.name} ready, its result is right ({row.first_s:.2f} s)")
            running.append((row, process))
        for number in range(rounds):
            for row, process in running if number % 2 == 0 else running[::-1]:
                if row.skipped:
                    continue
                if threads > 1:
                    time.sleep(0.2)  # until the others' threads have gone to sleep
                try:
                    row.add(process.turn())
                except Skipped as reason:
                    row.skipped = str(reason)
            say(f"{name} {dtype}: round {number + 1} of {rounds}")
    finally:
        for _, process in running:
            process.close()
    return ranked(rows, workload.kind)


def _by_rounds(row: Row, limits: Sequence[Row]) -> float:
    return statistics.median(
        min(turn) / min(min(limit.rounds[i]) for limit in limits)
        for i, turn in enumerate(row.rounds)
    )


def _of_first_runs(row: Row, limits: Sequence[Row]) -> float:
    return row.first_s / min(limit.first_s for limit in limits)


def ranked(
    rows: Sequence[Row], kind: str, ratio: Callable[[Row, Sequence[Row]], float] = _by_rounds
) -> list[Row]:
    """Fill in the ratios to the limit; fastest first, skipped ones last."""
    done = [row for row in rows if not row.skipped]
    limits = [row for row in done if kind in row.peer.limit]
    for row in done if limits else ():
        row.ratio = ratio(row, limits)
        row.minimum_ratio = row.minimum / min(limit.minimum for limit in limits)
    return sorted(rows, key=lambda row: (bool(row.skipped), row.ratio))


def fresh(dtype: str, peers: Sequence[Peer], rounds: int) -> list[Row]:
    """The sweep, each in a fresh process: the first run with everything, and one more."""
    workload = WORKLOADS["sweep"]
    check = workload.checker(dtype)
    rows = [Row(peer, skipped=peer.missing()) for peer in peers]
    firsts: dict[str, list[float]] = {row.peer.name: [] for row in rows}
    for number in range(rounds):
        for row in rows:
            if row.skipped:
                continue
            process = Process(row.peer, "sweep", dtype)
            try:
                row.import_s, first, results = process.answer()
                row.note, scale = check(results[0], row.peer.name)
                firsts[row.peer.name].append(first * scale)
                row.add([t * scale for t in process.turn()])
            except (Skipped, ValueError) as reason:
                row.skipped = str(reason)
            finally:
                process.close()
            told = row.skipped and f"skipped: {row.skipped}"
            say(f"sweep {dtype}: round {number + 1}, {row.peer.name}: {told or f'{first:.1f} s'}")
    for row in rows:
        if not row.skipped:
            row.first_s = statistics.median(firsts[row.peer.name])
    return ranked(rows, "sweep", _of_first_runs)
