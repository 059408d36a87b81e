"""From findings to a verdict. It knows nothing of what should come out."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from gradiometer.claims.statistics import Finding


class Verdict(StrEnum):
    """What became of a statement.

    `UNDECIDED` is no evidence either way: what the seeds at hand neither show nor contradict, and
    more of them may.
    """

    HOLDS = "holds"
    REWORDED = "holds as reworded"
    FAILS = "fails"
    UNDECIDED = "undecided"


def verdict(said: Sequence[Finding], reworded: Sequence[Finding] = ()) -> Verdict:
    """Judge a statement.

    Parameters
    ----------
    said, reworded : sequences of Finding
        What must be shown for the statement as usually said, and as reworded; p-values corrected.
        `reworded` is empty where there is no other wording.

    Returns
    -------
    Verdict
        Holds, if all of `said` is shown; else holds as reworded, if all of `reworded` is; else
        fails, if what came out contradicts each wording there is; else undecided.
    """
    if not said:
        raise ValueError("a statement without findings has no verdict")
    wordings = [said, *([reworded] if reworded else [])]
    for found, wording in zip((Verdict.HOLDS, Verdict.REWORDED), wordings, strict=False):
        if all(finding.shown for finding in wording):
            return found
    if all(any(finding.contrary for finding in wording) for wording in wordings):
        return Verdict.FAILS
    return Verdict.UNDECIDED


def is_of_rewording(found: Verdict, said: Sequence[Finding]) -> bool:
    """Whether a verdict is about the statement put right.

    So it is where that holds, and where it alone is left undecided: what came out contradicts the
    statement as said.
    """
    contradicted = any(finding.contrary for finding in said)
    return found is Verdict.REWORDED or (found is Verdict.UNDECIDED and contradicted)


def deciding(
    found: Verdict, said: Sequence[Finding], reworded: Sequence[Finding] = ()
) -> Sequence[Finding]:
    """The findings that a verdict rests on.

    Those of the wording that holds; those that contradict the statement as said; or, if nothing is
    decided, those that are not shown of the wording that the verdict is about.
    """
    if found is Verdict.FAILS:
        return [finding for finding in said if finding.contrary]
    wording = reworded if is_of_rewording(found, said) else said
    if found is Verdict.UNDECIDED:
        return [finding for finding in wording if not finding.shown]
    return wording
