"""What a study says: in how many experiments nets learn, and the gradient reaches layer 1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gradiometer.summary import Kind, Nets, kind_of_fall
from gradiometer.thresholds import LEARNT

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class StudyJudgement:
    """Numbers of experiments, each of which counts by its median over seeds.

    Attributes
    ----------
    experiments : int
    learn : int or None
        Those with an accuracy of `LEARNT` or more; None if no accuracy was recorded.
    vanishing, exploding : int or None
        Those in which the delta (or, not recorded, dL/dW) does so on its way to layer 1; None if
        neither was recorded.
    vanishing_and_learn : int or None
        Those that learn all the same.
    diverged : Nets or None
        Of all nets; None if none did.
    """

    experiments: int
    learn: int | None = None
    vanishing: int | None = None
    exploding: int | None = None
    vanishing_and_learn: int | None = None
    diverged: Nets | None = None


def judge(summary: pd.DataFrame) -> StudyJudgement:
    """Judge a study by the table of `summarise`."""
    learns = summary["accuracy"] >= LEARNT if "accuracy" in summary else None
    learn = None if learns is None else int(learns.sum())
    diverged = None
    if "diverged" in summary and summary["diverged"].any():
        count = int((summary["diverged"] * summary["nets"]).sum().round())
        diverged = Nets(count, int(summary["nets"].sum()))
    decay = next((d for d in ("delta_decades", "gradient_decades") if d in summary), None)
    if decay is None:
        return StudyJudgement(len(summary), learn, diverged=diverged)
    kinds = summary[decay].map(kind_of_fall)
    vanishing = kinds == Kind.VANISHING
    return StudyJudgement(
        len(summary),
        learn,
        int(vanishing.sum()),
        int((kinds == Kind.EXPLODING).sum()),
        None if learns is None else int((vanishing & learns).sum()),
        diverged,
    )


def in_words(found: StudyJudgement) -> str:
    """Say it in a sentence."""
    parts = []
    if found.learn is not None:
        parts.append(
            f"{found.learn} of {found.experiments} experiments learn (median accuracy {LEARNT} or "
            "more)"
        )
    if found.vanishing is not None:
        what = f"the gradient does not reach the first layer in {found.vanishing}"
        if found.exploding:
            what += f" and explodes in {found.exploding}"
        both = found.vanishing_and_learn
        if both is not None and found.vanishing:
            what += f"; of those where it does not reach it, {both or 'none'} learn"
            what += "s" if both == 1 else ""
        parts.append(what)
    if found.diverged is not None:
        parts.append(f"{found.diverged.count} of {found.diverged.total} nets diverged")
    text = "; ".join(parts)
    return f"{text[:1].upper()}{text[1:]}."
