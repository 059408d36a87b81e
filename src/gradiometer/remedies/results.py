"""What came of trying remedies, as values."""

from __future__ import annotations

import html
import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from gradiometer.remedies.effects import Effect

if TYPE_CHECKING:
    from rich.table import Table

# "" if all was tried that can be
Ended = Literal["", "time", "interrupted"]


@dataclass(frozen=True)
class Tried:
    """A remedy that was tried.

    Attributes
    ----------
    name : str
        In `CANDIDATES`.
    words : str
        What was changed.
    values : tuple of float
        The outcome of each seed.
    against_nothing : Effect
        Improvement over changing nothing, on the same seeds.
    against_random : Effect
        Improvement over a remedy drawn at random from those tried.
    works : bool
        Whether it beats both, by intervals that exclude zero, and by an amount that matters.
    code : str
        How to make the change.
    """

    name: str
    words: str
    values: tuple[float, ...]
    against_nothing: Effect
    against_random: Effect
    works: bool
    code: str

    @property
    def mean(self) -> float:
        """Mean outcome over the seeds."""
        return sum(self.values) / len(self.values)


@dataclass(frozen=True)
class NotTried:
    """A remedy that was not tried.

    Attributes
    ----------
    name, words : str
        As of `Tried`.
    why : str
    code : str
        How to try it.
    """

    name: str
    words: str
    why: str
    code: str


@dataclass(frozen=True)
class Remedies:
    """What was tried to mend a net, and what came out.

    Attributes
    ----------
    tried : tuple of Tried
        The best first.
    not_tried : tuple of NotTried
        With the reasons.
    outcome : str
        What is compared: "accuracy", "R²", or "loss", which is the original one whatever the remedy
        changes. "" if nothing was trained.
    seeds : tuple of int
    unchanged : tuple of float
        The outcome of each seed if nothing is changed.
    random : tuple of (float, float)
        Mean and standard deviation of the outcome of a remedy drawn at random: over seeds and the
        candidates that were tried. NaN if none was.
    healthy : bool
        Whether there was nothing to mend.
    ended : str
        "time" if the budget of time ended it early, "interrupted" if a signal did, otherwise "".
    advice : str
        What the diagnosis advises.
    sentence : str
        What came out, and what to do.
    """

    tried: tuple[Tried, ...] = ()
    not_tried: tuple[NotTried, ...] = ()
    outcome: str = ""
    seeds: tuple[int, ...] = ()
    unchanged: tuple[float, ...] = ()
    random: tuple[float, float] = (math.nan, math.nan)
    healthy: bool = False
    ended: Ended = ""
    advice: str = ""
    sentence: str = ""

    @property
    def recommended(self) -> Tried | None:
        """The best remedy that beats both, changing nothing and a random remedy; None if none."""
        return next((tried for tried in self.tried if tried.works), None)

    def __str__(self) -> str:
        return self.sentence

    def to_dict(self) -> dict[str, Any]:
        """All of it, as JSON has it: numbers of six digits, None where one is not finite."""
        best = self.recommended
        found = {
            "format": 1,
            "sentence": self.sentence,
            "recommended": None if best is None else best.name,
            "outcome": self.outcome,
            "seeds": list(self.seeds),
            "unchanged": list(self.unchanged),
            "random": {"mean": self.random[0], "std": self.random[1]},
            "tried": [{**asdict(tried), "mean": tried.mean} for tried in self.tried],
            "not_tried": [asdict(row) for row in self.not_tried],
            "healthy": self.healthy,
            "ended": self.ended,
        }
        plain: dict[str, Any] = _plain(found)
        return plain

    # --- display ----------------------------------------------------------------------------------

    def rows(self) -> list[tuple[str, str, str, str]]:
        """Remedy, outcome, and both effects with their intervals, in words: for tables."""
        return [
            (
                tried.words,
                number(tried.mean, self.outcome),
                _shown(tried.against_nothing, self.outcome),
                _shown(tried.against_random, self.outcome),
            )
            for tried in self.tried
        ]

    def headings(self) -> tuple[str, str, str, str]:
        """The headings of `rows`."""
        return ("remedy", self.outcome, "better than unchanged by", "than a random one by")

    def table(self) -> Table:
        """The remedies that were tried, the best first, for rich."""
        from rich.box import SIMPLE_HEAD
        from rich.table import Table
        from rich.text import Text

        table = Table(
            title=f"Tried on {len(self.seeds)} seeds, the same for each",
            title_justify="left",
            box=SIMPLE_HEAD,
            pad_edge=False,
        )
        for position, heading in enumerate(self.headings()):
            table.add_column(heading, justify="right" if position else "left")
        if self.unchanged:
            mean = sum(self.unchanged) / len(self.unchanged)
            table.add_row("(unchanged)", number(mean, self.outcome), "", "")
        for row, tried in zip(self.rows(), self.tried, strict=True):
            table.add_row(*map(Text, row), style="bold" if tried.works else "")
        return table

    def __rich__(self) -> Any:
        from rich.console import Group
        from rich.text import Text

        sentence = Text(self.sentence, style="bold")
        return Group(self.table(), sentence) if self.tried else sentence

    def _repr_html_(self) -> str:
        parts = [f"<p><strong>{html.escape(self.sentence)}</strong></p>"]
        if self.tried:
            parts.append(_html_table(self.headings(), self.rows()))
        if self.not_tried:
            told = [f"{html.escape(row.words)}: {html.escape(row.why)}" for row in self.not_tried]
            listed = "".join(f"<li>{row}</li>" for row in told)
            parts.append(f"<details><summary>Not tried</summary><ul>{listed}</ul></details>")
        return "\n".join(parts)


def number(value: float, outcome: str) -> str:
    """An outcome: two decimals, or three digits of a loss."""
    if math.isnan(value):
        return "not finite"
    return f"{value:.3g}" if outcome == "loss" else f"{value:.2f}"


def _html_table(headings: tuple[str, ...], rows: list[tuple[str, str, str, str]]) -> str:
    def line(cells: tuple[str, ...], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    body = "".join(line(row, "td") for row in rows)
    return f"<table><thead>{line(headings, 'th')}</thead><tbody>{body}</tbody></table>"


def _shown(effect: Effect, outcome: str) -> str:
    shown = number(effect.mean, outcome)
    if math.isnan(effect.low):
        return shown
    return f"{shown} [{number(effect.low, outcome)}, {number(effect.high, outcome)}]"


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value
