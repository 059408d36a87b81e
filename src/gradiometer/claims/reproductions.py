"""A number from a paper beside ours.

Three things are kept apart. A *stated* figure is printed in the paper, and is quoted at the
precision printed. A figure by a *formula* is computed here from a formula or theorem that the paper
gives: the paper does not print it. A *figure* read off a plot is as coarse as reading is; there is
none at present. Each row has its place in the paper, and says whether it was checked against the
text.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

Kind = Literal["absolute", "relative", "standard errors"]
How = Literal["theory", "simulation"]
Basis = Literal["stated", "formula", "figure"]
Checked = Literal["text", "second hand", "no"]


# of a row's basis, what its expected value is: as headings of tables
BASES: dict[Basis, tuple[str, str]] = {
    "stated": ("Stated: printed in the paper, at this precision", "published"),
    "formula": ("By formula: computed here from what the paper derives", "by formula"),
    "figure": ("Read off a plot of the paper", "read off"),
}
CHECKED: dict[Checked, str] = {
    "text": "against the text",
    "second hand": "at second hand",
    "no": "not against the text",
}

LU_NETS = 20_000  # of which Lu et al. (2019) measured a share


@dataclass(frozen=True)
class Target:
    """A figure of a paper, and how it is found.

    Attributes
    ----------
    source, what : str
        The paper; the quantity.
    expected : float
        What is printed in the paper, or follows from its formula, or is read off its plot.
    tolerance : float
        By how much ours may differ.
    kind : "absolute", "relative" or "standard errors"
        What the tolerance is: a difference, a share of `expected`, or a number of standard errors
        of a share among `LU_NETS` nets.
    how : "theory" or "simulation"
    measure : callable
        Gives our value.
    basis : "stated", "formula" or "figure"
        What the expected value is.
    place : str
        Where it, or the formula, stands in the paper.
    checked : "text", "second hand" or "no"
        Whether we read it in the paper's text, or saw it quoted by others, or neither.
    printed : str
        As the paper prints it, if it is stated.
    note : str
        What a reader should know who compares the two.

    Raises
    ------
    ValueError
        If a figure counts as stated without what is printed, or unchecked; or another as printed.
    """

    source: str
    what: str
    expected: float
    tolerance: float
    kind: Kind
    how: How
    measure: Callable[[], float]
    basis: Basis = "formula"
    place: str = ""
    checked: Checked = "no"
    printed: str = ""
    note: str = ""

    def __post_init__(self) -> None:
        if self.basis == "stated" and (not self.printed or self.checked == "no"):
            raise ValueError(
                f"{self.source}, {self.what}: a stated figure needs what is printed, and a check; "
                f"got printed={self.printed!r}, checked={self.checked!r}. What nobody checked is "
                "'formula' at best"
            )
        if self.basis != "stated" and self.printed:
            raise ValueError(
                f"{self.source}, {self.what}: only a stated figure is printed, got "
                f"printed={self.printed!r} with basis={self.basis!r}"
            )


@dataclass(frozen=True)
class Reproduction:
    """A figure of a paper beside ours.

    Attributes
    ----------
    source, what : str
    how : str
        "theory" or "simulation".
    expected, ours : float
    tolerance : str
        In words, such as "± 0.02", "± 25 %" or "± 3 SE".
    passed : bool
        Whether ours is within it.
    basis, place, checked, printed, note : str
        As of its `Target`.
    """

    source: str
    what: str
    how: str
    expected: float
    ours: float
    tolerance: str
    passed: bool
    basis: Basis = "formula"
    place: str = ""
    checked: Checked = "no"
    printed: str = ""
    note: str = ""

    @property
    def digits(self) -> int:
        """Digits in which both can be compared."""
        return 9 if self.tolerance == "± 1e-08" else 5

    @property
    def shown(self) -> str:
        """The expected value: as it is printed, or in digits that can be compared."""
        return self.printed or f"{self.expected:.{self.digits}g}"

    @property
    def checked_in_words(self) -> str:
        """Whether what the paper says was checked."""
        return CHECKED[self.checked]


def by_basis(rows: Sequence[Reproduction]) -> dict[Basis, list[Reproduction]]:
    """Rows by what their expected value is, since they are never to be shown as one."""
    found = {basis: [row for row in rows if row.basis == basis] for basis in BASES}
    return {basis: those for basis, those in found.items() if those}


def in_words(rows: Sequence[Reproduction]) -> str:
    """How many of each kind were reproduced, and how many were checked against the text."""
    if not rows:
        return ""
    kinds = {
        "stated": "{} are printed in the paper",
        "formula": "{} are computed from a formula in it",
        "figure": "{} are read off a plot",
    }
    parts = [kinds[basis].format(len(those)) for basis, those in by_basis(rows).items()]
    unchecked = sum(row.checked != "text" for row in rows)
    text = (
        f"{sum(row.passed for row in rows)} of {len(rows)} numbers from papers are reproduced "
        f"within tolerance. Of the {len(rows)}, {' and '.join(parts)}"
    )
    return f"{text}; {unchecked} were not checked against the text." if unchecked else f"{text}."


def reproduce(target: Target) -> Reproduction:
    """Find a figure, and compare."""
    ours = float(target.measure())
    allowed, words = _tolerance(target)
    return Reproduction(
        target.source,
        target.what,
        target.how,
        target.expected,
        ours,
        words,
        bool(abs(ours - target.expected) <= allowed),
        target.basis,
        target.place,
        target.checked,
        target.printed,
        target.note,
    )


def _tolerance(target: Target) -> tuple[float, str]:
    """As a difference, and in words."""
    p, size = target.expected, target.tolerance
    if target.kind == "relative":
        return size * abs(p), f"± {size * 100:g} %"
    if target.kind == "standard errors":
        return size * math.sqrt(p * (1 - p) / LU_NETS), f"± {size:g} SE"
    return size, f"± {size:g}"
