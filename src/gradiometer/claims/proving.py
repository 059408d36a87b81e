"""Put claims to the test, one after the other."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import Any

from gradiometer.claims.catalogue import chosen
from gradiometer.claims.claim import Claim, Evidence, Proof, judge
from gradiometer.claims.laboratory import Laboratory
from gradiometer.claims.papers import targets
from gradiometer.claims.power import too_few
from gradiometer.claims.proofs import Proofs
from gradiometer.claims.reproductions import Reproduction, reproduce
from gradiometer.claims.statistics import correct
from gradiometer.events import Begun, ClaimBegun, ClaimJudged, Guarded, Listener, TooFewSeeds
from gradiometer.interrupts import Interrupts
from gradiometer.versions import versions

SEEDS = 50

# a claim, what was found, and the experiments that it rests on
Tested = tuple[Claim, Evidence, list[dict[str, Any]]]


def prove(
    claims: Sequence[str] | None = None,
    *,
    seeds: int = SEEDS,
    first_seed: int = 0,
    papers: bool = False,
    on_event: Listener | None = None,
) -> Proofs:
    """Put claims to the test.

    An interrupt (Ctrl-C) ends it; the proofs until then are given, p-values corrected for their
    tests alone. An interrupt before the first is raised again.

    Parameters
    ----------
    claims : sequence of str, optional
        Names in `CLAIMS`; by default all, or with `papers` none.
    seeds : int
        Nets of each experiment that is trained. Experiments of a single step have four times as
        many, and at least 200.
    first_seed : int
        The first of their seeds. A verdict that hangs on the seeds is another with others.
    papers : bool
        Find the papers' figures again.
    on_event : callable, optional
        Called with `Begun`, `TooFewSeeds` where it applies, `ClaimBegun` before each claim and each
        number from a paper, and `ClaimJudged` for each claim at the end.

    Returns
    -------
    Proofs

    Raises
    ------
    ValueError
        If there is no claim of such a name, `seeds` is too few or too many, or
        `first_seed` is negative.
    SystemExit
        If `on_event` raised it; the proofs until then are in its attribute `proofs`.
    """
    wanted = chosen([] if papers and claims is None else claims)
    laboratory = Laboratory(seeds, first_seed)
    few = too_few(wanted, seeds)
    rows = targets() if papers else []
    if not wanted and not rows:
        raise ValueError("no claim was named; give names, or None for all of them")
    tell = Guarded(on_event)
    names = (*(claim.name for claim in wanted), *(target.source for target in rows))
    tell(Begun("prove", names, len(names)))
    for name, why in few.items():
        tell(TooFewSeeds(name, why))
    found: list[Tested] = []
    reproductions: list[Reproduction] = []
    ended_by: BaseException | None = None
    try:
        with _stoppable():
            for done, claim in enumerate(wanted):
                tell(ClaimBegun(claim.name, done, len(names)))
                found.append(_tested(claim, laboratory))
            for done, target in enumerate(rows, len(wanted)):
                tell(ClaimBegun(target.source, done, len(names)))
                reproductions.append(reproduce(target))
    except (KeyboardInterrupt, SystemExit) as error:
        if not found and not reproductions:
            raise
        ended_by = error
    judged = _judged(found, few)
    proofs = Proofs(
        seeds,
        judged,
        tuple(reproductions),
        versions("scipy"),
        ended_by is not None,
        first_seed,
        few,
    )
    if isinstance(ended_by, SystemExit):
        ended_by.proofs = proofs  # type: ignore[attr-defined]
        raise ended_by
    for proof in judged:
        tell(ClaimJudged(proof.name, str(proof.verdict)))
    return proofs


def _tested(claim: Claim, laboratory: Laboratory) -> Tested:
    laboratory.used.clear()
    evidence = claim.gather(laboratory)
    return claim, evidence, [{"hash": e.hash, **e.chosen()} for e in laboratory.used]


@contextlib.contextmanager
def _stoppable() -> Iterator[None]:
    """Being asked to end raises KeyboardInterrupt, as Ctrl-C does, also between two trainings.

    Each training has `Interrupts` of its own. One around all of them would not do: it would heed no
    signal after the first training, which tells it to finish.
    """

    def came(number: int, frame: FrameType | None) -> None:
        Interrupts.latest = number
        signal.default_int_handler(number, frame)

    before = {}
    if threading.current_thread() is threading.main_thread():
        for name in ("SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) is signal.SIG_DFL:
                before[number] = signal.signal(number, came)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _judged(found: Sequence[Tested], few: dict[str, str]) -> tuple[Proof, ...]:
    """Verdicts, from p-values corrected over all tests."""
    corrected = iter(
        correct([f for _, evidence, _ in found for f in (*evidence.said, *evidence.reworded)])
    )
    return tuple(
        judge(
            claim,
            evidence,
            [next(corrected) for _ in evidence.said],
            [next(corrected) for _ in evidence.reworded],
            experiments,
            few.get(claim.name, ""),
        )
        for claim, evidence, experiments in found
    )
