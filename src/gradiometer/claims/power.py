"""What so many seeds can show: found before anything is trained, from the tests themselves.

A test of n nets has a smallest p-value, that of nets which all speak for the statement: of a
signed-rank or sign test 2^-n. If not even these, corrected over all tests of the run, reach 5 %,
the statement cannot be shown, whatever the nets do.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from gradiometer.claims import statistics
from gradiometer.claims.claim import Claim
from gradiometer.claims.laboratory import LEAST_SEEDS, Laboratory
from gradiometer.claims.planned import Planned
from gradiometer.claims.statistics import Finding

MOST_LOOKED_AT = 200  # seeds, in search of how many are enough


@functools.cache
def best(kind: str, nets: int) -> Finding:
    """What a test gives if all nets speak for it as clearly as can be."""
    rising = np.arange(1.0, nets + 1)
    if kind == "check":
        return statistics.check("", True, 1.0, n=nets)
    if kind == "rank":
        return statistics.signed_rank("", rising, np.zeros(nets), "")
    if kind == "equivalence":
        return statistics.equivalence("", 1e-6 * rising / nets, "")
    if kind == "shift":
        return statistics.mann_whitney("", rising + nets, rising, "")
    return statistics.most("", np.ones(nets, bool))


def not_shown(claims: Sequence[Claim], laboratory: Laboratory) -> list[Claim]:
    """Those claims that cannot be shown in any wording, with the laboratory's seeds.

    Claims that do not say which tests they make are left out.
    """
    wordings: list[tuple[Claim, list[Finding]]] = []
    numbers = itertools.count()
    for claim in claims:
        said = [_numbered(test, laboratory, numbers) for test in claim.said_tests]
        shared = said[: claim.shared_tests]
        own = claim.reworded_tests[claim.shared_tests :]
        reworded = [*shared, *(_numbered(test, laboratory, numbers) for test in own)]
        wordings += [(claim, said), (claim, reworded)]
    corrected = iter(statistics.correct([f for _, wording in wordings for f in wording]))
    shown: dict[str, bool] = {}
    for claim, wording in wordings:
        found = [next(corrected) for _ in wording]
        if found:
            shown[claim.name] = shown.get(claim.name, False) or all(f.shown for f in found)
    return [claim for claim in claims if not shown.get(claim.name, True)]


def _numbered(test: Planned, laboratory: Laboratory, numbers: Iterable[int]) -> Finding:
    """The best that a test can give, as a finding of its own."""
    return replace(best(test.kind, test.nets(laboratory)), what=str(next(iter(numbers))))


def too_few(claims: Sequence[Claim], seeds: int) -> dict[str, str]:
    """Why claims cannot be shown with so many seeds, and how many are enough; by their names."""
    missing = not_shown(claims, Laboratory(seeds))
    if not missing:
        return {}
    enough: dict[str, int] = {}
    for more in range(max(seeds, LEAST_SEEDS) + 1, MOST_LOOKED_AT + 1):
        still = {claim.name for claim in not_shown(claims, Laboratory(more))}
        for claim in missing:
            if claim.name not in still:
                enough.setdefault(claim.name, more)
        if len(enough) == len(missing):
            break
    return {
        claim.name: f"{seeds} seeds cannot show it: even if all nets spoke for it, p, corrected "
        f"over the tests of this run, would be above {statistics.ALPHA:g}"
        + (f"; {enough[claim.name]} can" if claim.name in enough else "")
        for claim in missing
    }
