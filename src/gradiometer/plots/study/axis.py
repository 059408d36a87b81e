"""A setting that a study varies, as figures show it: its title, its values, their labels."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np

from gradiometer.declaration import Setting
from gradiometer.plots.words import plain
from gradiometer.settings import SETTINGS

Value = TypeVar("Value")


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
    def declared(self) -> Setting:
        """The setting that it is."""
        return SETTINGS[self.name]

    @property
    def title(self) -> str:
        """What stands beside the axis."""
        return self.declared.axis_title

    @property
    def word(self) -> str:
        """The setting's name as a word."""
        return self.declared.word

    def label(self, value: Any) -> str:
        """A value in few letters."""
        return plain(self.declared.label(value))

    def in_words(self, value: Any) -> str:
        """A value and what it is of."""
        return plain(self.declared.in_words(value))

    def thinned(self, count: int) -> Axis:
        """Of its values `count` or fewer, evenly spaced."""
        return replace(self, values=tuple(evenly(self.values, count)))


def _numeric(values: Iterable[Any]) -> bool:
    known = [value for value in values if value is not None]
    return bool(known) and all(
        isinstance(value, (int, float)) and not isinstance(value, bool) for value in known
    )


def evenly(values: Sequence[Value], count: int) -> list[Value]:
    """Of values `count` or fewer, evenly spaced, with both ends."""
    if count >= len(values):
        return list(values)
    return [values[i] for i in np.linspace(0, len(values) - 1, count).round().astype(int)]


def in_order(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """Numbers in ascending order and None last; words as they are."""
    if not _numeric(values):
        return values
    return tuple(sorted(values, key=lambda value: math.inf if value is None else value))
