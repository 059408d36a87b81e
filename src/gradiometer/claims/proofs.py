"""What came out of the claims that were put to the test: verdicts, tables, files."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, replace
from typing import Any

from gradiometer.claims.claim import Proof
from gradiometer.claims.reproductions import BASES, Reproduction, by_basis, in_words
from gradiometer.claims.statistics import Finding, tests_among
from gradiometer.claims.verdicts import Verdict

FORMAT = 1
KINDS = ("gradiometer proofs", "gradlab proofs")  # the second: as the project was called first


class ProofsError(ValueError):
    """A file that holds no proofs."""


@dataclass(frozen=True)
class Proofs:
    """What became of the claims of one run.

    Attributes
    ----------
    seeds : int
        Nets of each experiment that was trained.
    first_seed : int
        The first of their seeds.
    proofs : tuple of Proof
    reproductions : tuple of Reproduction
        Numbers from papers, reproduced.
    versions : dict of str to str
    interrupted : bool
        Whether it was stopped before the last claim.
    too_few : dict of str to str
        Of claims that so few seeds cannot show, whatever comes out: why.
    """

    seeds: int
    proofs: tuple[Proof, ...]
    reproductions: tuple[Reproduction, ...] = ()
    versions: dict[str, str] | None = None
    interrupted: bool = False
    first_seed: int = 0
    too_few: dict[str, str] | None = None

    def __getitem__(self, name: str) -> Proof:
        """A proof by the name of its claim."""
        for proof in self.proofs:
            if proof.name == name:
                return proof
        known = ", ".join(proof.name for proof in self.proofs)
        raise KeyError(f"no claim {name!r} among these proofs; there are {known}")

    @property
    def tests(self) -> int:
        """Number of tests, over all of which p-values are corrected."""
        every = [f for p in self.proofs for f in (*p.said_findings, *p.reworded_findings)]
        return len(tests_among(every))

    def table(self) -> list[dict[str, Any]]:
        """One row per claim.

        Returns
        -------
        list of dicts
            `claim`, `said`, `statement` (the wording that the verdict is about), `verdict`; of the
            finding shown first `what`, `test`, `effect`, `low`, `high` (NaN for an exact check, and
            where `no_interval` says why), `unit`, `n`; and `p`, the largest corrected p-value that
            the verdict rests on (None if it rests on exact checks).
        """
        return [
            {
                "claim": proof.name,
                "said": proof.said,
                "statement": proof.statement,
                "verdict": str(proof.verdict),
                **{
                    name: getattr(proof.effect, name)
                    for name in (
                        "what",
                        "test",
                        "effect",
                        "low",
                        "high",
                        "unit",
                        "n",
                        "no_interval",
                    )
                },
                "p": proof.p,
            }
            for proof in self.proofs
        ]

    def kinds(self) -> list[tuple[str, str, list[Reproduction]]]:
        """The papers' figures by kind: title, heading of the expected value, and rows of each."""
        return [(*BASES[basis], rows) for basis, rows in by_basis(self.reproductions).items()]

    def sentence(self) -> str:
        """Say in one or two sentences how many claims hold, and how many figures were found."""
        parts = []
        if self.proofs:
            counts = {v: sum(p.verdict is v for p in self.proofs) for v in Verdict}
            one = {v: str(v) for v in Verdict} | {
                Verdict.UNDECIDED: f"is undecided with {self.seeds} seeds"
            }
            words = []
            for v, n in counts.items():
                # hold as reworded, fail, are undecided
                several = one[v].replace("holds", "hold").replace("fails", "fail")
                several = several.replace("is ", "are ", 1) if v is Verdict.UNDECIDED else several
                if n:
                    words.append(f"{n} {one[v] if n == 1 else several}")
            if len(self.proofs) == 1:
                (proof,) = self.proofs
                parts.append(f"The claim {proof.name} {one[proof.verdict]}.")
            else:
                listed = ", ".join(words[:-1]) + (" and " if words[:-1] else "") + words[-1]
                parts.append(f"Of {len(self.proofs)} claims, {listed}.")
        if self.reproductions:
            parts.append(in_words(self.reproductions))
        if self.interrupted:
            parts.append("Interrupted: this is what was done until then.")
        return " ".join(parts)

    def to_json(self) -> str:
        """Everything but the figures; read by `from_json`. What is not finite is null."""
        fields = {"format": FORMAT, "kind": KINDS[0], **asdict(_without_figures(self))}
        return json.dumps(_plain(fields), indent=1, ensure_ascii=False, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Proofs:
        """Read what `to_json` gave.

        Raises
        ------
        ProofsError
            If it is something else.
        """
        try:
            fields = json.loads(text)
            if fields.pop("kind") not in KINDS or fields.pop("format") != FORMAT:
                raise KeyError
            return cls(
                **{
                    **fields,
                    "proofs": tuple(_proof(each) for each in fields["proofs"]),
                    "reproductions": tuple(_row(each) for each in fields["reproductions"]),
                }
            )
        except (ValueError, KeyError, TypeError, AttributeError):
            raise ProofsError(
                "these are no proofs; expected what gradiometer prove wrote as proofs.json"
            ) from None


def _without_figures(proofs: Proofs) -> Proofs:
    # what draws them cannot be copied
    return replace(proofs, proofs=tuple(replace(p, figure=None) for p in proofs.proofs))


_INFINITE = {"Infinity": math.inf, "-Infinity": -math.inf}


def _plain(value: Any) -> Any:
    """For JSON, which has no word for NaN and infinity."""
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        if math.isnan(value):
            return None
        return "Infinity" if value > 0 else "-Infinity"
    return value


def _number(value: Any) -> float:
    return math.nan if value is None else float(_INFINITE.get(value, value))


def _proof(fields: dict[str, Any]) -> Proof:
    findings = {
        name: tuple(
            Finding(**{**each, **{k: _number(each[k]) for k in ("effect", "low", "high")}})
            for each in fields[name]
        )
        for name in ("said_findings", "reworded_findings")
    }
    experiments = tuple(fields["experiments"])
    return Proof(
        **{**fields, **findings, "experiments": experiments, "verdict": Verdict(fields["verdict"])}
    )


def _row(fields: dict[str, Any]) -> Reproduction:
    if "published" in fields:  # of a file written before the kinds were told apart
        fields = {**fields, "expected": fields["published"]}
        del fields["published"]
    return Reproduction(**{**fields, "ours": _number(fields["ours"])})
