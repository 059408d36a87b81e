"""A claim: a textbook's statement, the experiment that puts it to the test, and what came out."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gradiometer.claims.laboratory import Laboratory
from gradiometer.claims.planned import Planned
from gradiometer.claims.statistics import Finding
from gradiometer.claims.verdicts import Verdict, deciding, is_of_rewording, verdict

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False)
class Evidence:
    """What a claim's experiment found.

    Attributes
    ----------
    said, reworded : sequences of Finding
        What must be shown for the statement as usually said, and as reworded.
    measured : str
        A sentence with the numbers; it says nothing of the verdict.
    figure : callable
        Draws what was measured.
    """

    said: Sequence[Finding]
    measured: str
    figure: Callable[[], Figure]
    reworded: Sequence[Finding] = ()


@dataclass(frozen=True)
class Claim:
    """A statement and how it is tested.

    Attributes
    ----------
    name : str
        A slug, such as "sigmoid-vanishes".
    said : str
        The statement as it is usually made.
    experiment : str
        In words, what is done.
    gather : callable
        Does it, in a laboratory.
    reworded : str
        The statement put right; empty where there is nothing to put right.
    why : str
        Why the statement holds, if it does, as said or as reworded.
    why_not : str
        Why it fails, if it does.
    said_tests, reworded_tests : tuples of Planned
        Which tests it makes of the two wordings, in their order, so that what so many seeds can
        show is known beforehand; a test of the project compares them with those made.
    shared_tests : int
        How many of the first ones are the same in both wordings.
    """

    name: str
    said: str
    experiment: str
    gather: Callable[[Laboratory], Evidence] = field(repr=False)
    reworded: str = ""
    why: str = ""
    why_not: str = ""
    said_tests: tuple[Planned, ...] = ()
    reworded_tests: tuple[Planned, ...] = ()
    shared_tests: int = 0

    def reason(self, found: Verdict, decided: Sequence[Finding]) -> str:
        """The words that go with a verdict, and with the findings that it rests on."""
        if found in (Verdict.HOLDS, Verdict.REWORDED):
            return self.why
        if found is Verdict.FAILS:
            return self.why_not or "The experiment came out otherwise."
        nets = min(finding.n for finding in decided)
        return f"With {nets} nets its tests decide neither way; with more seeds they may."


@dataclass(frozen=True)
class Proof:
    """What became of a claim in one run.

    Attributes
    ----------
    name, said, reworded, experiment : str
        Of the claim.
    experiments : tuple of dict
        Of the nets that were trained: hash, and the settings that differ from the defaults.
    said_findings, reworded_findings : tuples of Finding
        p-values corrected over the whole run.
    verdict : Verdict
    measured, reason : str
        The numbers, and why it is so: together the explanation.
    figure : callable or None
        Draws the figure; None for a proof that was read from a file.
    """

    name: str
    said: str
    reworded: str
    experiment: str
    experiments: tuple[dict[str, Any], ...]
    said_findings: tuple[Finding, ...]
    reworded_findings: tuple[Finding, ...]
    verdict: Verdict
    measured: str
    reason: str
    figure: Callable[[], Figure] | None = field(repr=False, compare=False, default=None)

    @property
    def explanation(self) -> str:
        """One or two sentences: what was measured, and why."""
        return f"{self.measured} {self.reason}".strip()

    @property
    def statement(self) -> str:
        """The wording that the verdict is about."""
        about_rewording = is_of_rewording(self.verdict, self.said_findings)
        return self.reworded if about_rewording else self.said

    @property
    def deciding(self) -> tuple[Finding, ...]:
        """The findings that the verdict rests on."""
        return tuple(deciding(self.verdict, self.said_findings, self.reworded_findings))

    @property
    def effect(self) -> Finding:
        """The finding to show where there is room for one: the first that the verdict rests on."""
        return self.deciding[0]

    @property
    def p(self) -> float | None:
        """The largest corrected p-value that the verdict rests on; None if it rests on checks."""
        found = [f.corrected for f in self.deciding if f.corrected is not None]
        return max(found) if found else None


def _titled(draw: Callable[[], Figure], claim: Claim) -> Figure:
    from gradiometer.plots.titles import wrapped_title

    figure = draw()
    wrapped_title(figure, claim.experiment)
    return figure


def judge(
    claim: Claim,
    evidence: Evidence,
    said: Sequence[Finding],
    reworded: Sequence[Finding],
    experiments: Sequence[dict[str, Any]],
    too_few: str = "",
) -> Proof:
    """Put a proof together from evidence whose p-values, in `said` and `reworded`, are corrected.

    `too_few` says why there were too few seeds to show it, if there were.

    Raises
    ------
    ValueError
        If there is evidence for a rewording that the claim does not have, or none for one it has.
    """
    if bool(claim.reworded) != bool(reworded):
        raise ValueError(f"{claim.name}: rewording and findings for it must go together")
    found = verdict(said, reworded)
    reason = claim.reason(found, deciding(found, said, reworded))
    if found is Verdict.UNDECIDED and too_few:
        reason = f"{too_few}."
    return Proof(
        claim.name,
        claim.said,
        claim.reworded,
        claim.experiment,
        tuple(experiments),
        tuple(said),
        tuple(reworded),
        found,
        evidence.measured,
        reason,
        functools.partial(_titled, evidence.figure, claim),
    )
