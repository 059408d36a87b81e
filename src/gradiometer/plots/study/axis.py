"""A setting that a study varies, as figures show it: its title, its values, their labels."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gradiometer.plots.words import plain

# an axis by its name; others go by the setting's own
TITLES = {
    "layers": "number of hidden layers",
    "width": "units per hidden layer",
    "activation": "activation function",
    "clip": "ceiling of a clipped relu",
    "init": "initialiser",
    "init_scale": "factor on the initial weights",
    "scaling": "scaling of the features",
    "batch_size": "rows per batch",
}
# how a value is told where no axis tells the setting
WORDS = {
    "activation": "{}",
    "data": "{}",
    "dtype": "{}",
    "init": "{} init",
    "loss": "{} loss",
    "normalisation": "{} norm",
    "optimizer": "{}",
}


@dataclass(frozen=True)
class Axis:
    """A setting that a study varies, with those of its values that are shown.

    Attributes
    ----------
    name : str
    values : tuple
        Numbers ascend, None comes last; words are in the study's order.
    total : int
        How many values the study has.
    """

    name: str
    values: tuple[Any, ...]
    total: int

    @property
    def numeric(self) -> bool:
        """Whether its values are numbers, or numbers and None."""
        return _numeric(self.values)

    @property
    def title(self) -> str:
        """What stands beside the axis."""
        return TITLES.get(self.name, self.word)

    @property
    def word(self) -> str:
        """The setting's name as a word."""
        return self.name.replace("_", " ")

    def label(self, value: Any) -> str:
        """A value in few letters."""
        if value is None:
            return "none" if self.name == "clip" else "default"
        if isinstance(value, bool):
            return "yes" if value else "no"
        if isinstance(value, (int, float)):
            return f"{value:g}"
        if isinstance(value, Mapping):
            return ", ".join(f"{k} {v:g}" for k, v in value.items()) or "default"
        return plain(", ".join(value) if isinstance(value, tuple) else str(value))

    def in_words(self, value: Any) -> str:
        """A value and what it is of."""
        if value is None or value is False or value == "none":
            return f"no {self.word}"
        if value is True:
            return self.word
        if self.name == "layers":
            return f"{value} {'layer' if value == 1 else 'layers'}"
        words = WORDS.get(self.name, f"{self.word} {{}}").format(self.label(value))
        return words.replace("_", " ") if self.name == "loss" else words

    def thinned(self, count: int) -> Axis:
        """Of its values `count` or fewer, evenly spaced."""
        return replace(self, values=tuple(evenly(self.values, count)))


def _numeric(values: Iterable[Any]) -> bool:
    known = [value for value in values if value is not None]
    return bool(known) and all(
        isinstance(value, (int, float)) and not isinstance(value, bool) for value in known
    )


def evenly(values: Sequence[Any], count: int) -> list[Any]:
    """Of values `count` or fewer, evenly spaced, with both ends."""
    if count >= len(values):
        return list(values)
    return [values[i] for i in np.linspace(0, len(values) - 1, count).round().astype(int)]


def in_order(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """Numbers in ascending order and None last; words as they are."""
    if not _numeric(values):
        return values
    return tuple(sorted(values, key=lambda value: math.inf if value is None else value))
