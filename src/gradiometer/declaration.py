"""How a setting is declared, and what is generated from it: checks, help, words for figures."""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from numbers import Integral, Real
from typing import Any, Literal, ParamSpec

P = ParamSpec("P")
Part = Literal["net", "training", "data", "record", "seeds"]
Acts = Literal["start", "draw", "training", "record"]
Taker = Literal["", "net", "optimizer", "recorder"]

# the types of JSON that a value may have, and how they are called in a message
_JSON = {
    bool: ("boolean", "true or false"),
    int: ("integer", "a whole number"),
    float: ("number", "a number"),
    str: ("string", "a word"),
    tuple: ("array", "a list"),
    dict: ("object", "numbers by name"),
    type(None): ("null", "nothing"),
}


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One setting of an experiment, as declared in `gradiometer.settings`.

    Attributes
    ----------
    name : str
        As a keyword, a key in a TOML file and, with dashes, a flag.
    type : type
        As annotated.
    default : Any
    help : str
        A description in a few words; the choices and the default are added.
    part : str
        What it describes: "net", "training", "data", "record" (what is recorded) or "seeds".
    acts : str
        When it first matters: at the "start", before any training; in the "draw" of initial
        weights and batches; in the "training"; or when the "record" is made.
    passed_to : str
        What takes it as an argument of its name: the "net" (`dp.Net`), the "optimizer" or the
        "recorder" (`gradiometer.record`); "" if `Experiment` uses it in another way.
    changes_numbers : bool
        False if it only says what else is kept.
    at_least, at_most, above, below : number, optional
        Bounds; the first two are accepted.
    check : callable, optional
        Gives an accepted value back and raises ValueError for another, before its type is checked.
    table : callable, optional
        Gives the table whose names are the choices. It is called when they are needed, since
        loading it takes time.
    kind : str
        What one of the choices is called.
    further : str
        What is accepted besides the choices.
    unit : str
        What the value counts, in the plural.
    flag : str
        If the flag is named otherwise: one of several, in the singular.
    metavar : str
        The placeholder for the flag's value in the help.
    read : callable, optional
        Reads the values of the flag.
    axis : str
        What is written beside an axis; its name by default.
    none : str
        The label of None.
    words : str or callable
        A value in words; {} is replaced by its label. The label and the unit by default.
    brief : str or callable
        The same in a title, if the title names a setting in `beside`, or `beside` is empty.
    beside : tuple of str
        The settings next to which it is named in a title.
    always : bool
        Whether a title names it although it has its default.
    scale : str
        Of an axis: "linear", "log", or "" for the one that spaces the values more evenly.
    """

    name: str = ""
    type: Any = None
    default: Any
    help: str
    part: Part
    acts: Acts
    passed_to: Taker = ""
    changes_numbers: bool = True
    at_least: float | None = None
    at_most: float | None = None
    above: float | None = None
    below: float | None = None
    check: Callable[[Any], Any] | None = field(default=None, repr=False)
    table: Callable[[], Iterable[str]] | None = field(default=None, repr=False)
    kind: str = ""
    further: str = ""
    unit: str = ""
    flag: str = ""
    metavar: str = ""
    read: Callable[[Any], Any] | None = field(default=None, repr=False)
    axis: str = ""
    none: str = "none"
    words: str | Callable[[Any], str] = ""
    brief: str | Callable[[Any], str] = ""
    beside: tuple[str, ...] = ()
    always: bool = False
    scale: Literal["", "linear", "log"] = ""

    # --- type and choices -------------------------------------------------------------------------

    @property
    def types(self) -> tuple[type, ...]:
        """The types that a value may have, those of Literal words being str."""
        union = typing.get_origin(self.type) in (typing.Union, types.UnionType)
        parts = typing.get_args(self.type) if union else (self.type,)
        plain = (typing.get_origin(part) or part for part in parts)
        return tuple(str if part is Literal else part for part in plain)

    @property
    def choices(self) -> tuple[str, ...]:
        """The accepted words; none if values are not words, or any word is accepted."""
        if typing.get_origin(self.type) is Literal:
            return typing.get_args(self.type)
        return () if self.table is None else tuple(self.table())

    def known(self, name: Any) -> Any:
        """Give a name back if it is in the table; raise ValueError otherwise."""
        from dp.validation import unknown

        choices = self.choices
        if name not in choices:
            raise ValueError(unknown(self.kind or self.word, name, choices))
        return name

    def accepts_type(self, value: Any) -> bool:
        """Whether a value that was read from JSON has the right type."""
        if isinstance(value, dict):
            return dict in self.types and all(type(v) in (int, float) for v in value.values())
        if isinstance(value, list):
            return tuple in self.types
        # JSON writes 1.0 as 1 or as 1.0
        return type(value) in self.types or (type(value) is int and float in self.types)

    @property
    def type_in_words(self) -> str:
        """The types that are accepted, such as "a number or nothing"."""
        return " or ".join(_JSON[each][1] for each in self.types)

    # --- words ------------------------------------------------------------------------------------

    @property
    def word(self) -> str:
        """The name as words."""
        return self.name.replace("_", " ")

    @property
    def axis_title(self) -> str:
        """What is written beside an axis."""
        return self.axis or self.word

    def label(self, value: Any) -> str:
        """A value in few letters."""
        if value is None:
            return self.none
        if isinstance(value, bool):
            return "yes" if value else "no"
        if isinstance(value, Real):  # of NumPy, too
            return str(value) if isinstance(value, Integral) else f"{value:g}"
        if isinstance(value, Mapping):
            return ", ".join(f"{k} {v:g}" for k, v in value.items()) or self.none
        return str(value) if isinstance(value, str) else ", ".join(map(str, value))

    def in_words(self, value: Any, *, brief: bool = False) -> str:
        """A value and its setting, such as "10 layers", "width 10" or "no normalisation".

        Parameters
        ----------
        value : Any
        brief : bool
            In the form for a title that names a setting of `beside`.
        """
        form = self.brief if brief and self.brief else self.words
        if callable(form):
            return form(value)
        if value is None:
            return f"{'no' if self.none == 'none' else self.none} {self.word}"
        if value is False or value == "none":
            return f"no {self.word}"
        if value is True:
            return self.word
        if form:
            return form.format(self.label(value))
        if self.unit:
            return f"{self.label(value)} {self.unit.removesuffix('s') if value == 1 else self.unit}"
        return f"{self.word} {self.label(value)}"

    # --- help -------------------------------------------------------------------------------------

    @property
    def default_in_words(self) -> str:
        """The default as help shows it; "" if there is none."""
        return "" if self.default in (None, {}) else self.label(self.default)

    def full_help(self) -> str:
        """The description, the choices and the default, as a sentence."""
        choices = list(self.choices) + [self.further] * bool(self.further)
        listed = f": {', '.join(choices)}" if choices else ""
        default = f" [{self.default_in_words}]" if self.default_in_words else ""
        return f"{self.help}{listed}.{default}"

    def describe(self) -> dict[str, Any]:
        """Everything that a page needs to offer this setting, as JSON has it."""
        return {
            "name": self.name,
            "types": [_JSON[each][0] for each in self.types],
            "default": self.default,
            "choices": list(self.choices),
            "at_least": self.at_least,
            "at_most": self.at_most,
            "above": self.above,
            "below": self.below,
            "help": self.help,
            "unit": self.unit,
            "part": self.part,
            "acts": self.acts,
            "changes_numbers": self.changes_numbers,
            "title": self.axis_title,
            "scale": self.scale,
        }


def plain(value: Any) -> Any:
    """A number of NumPy, or several in a list or dict, as Python's own: it prints and hashes alike.

    Examples
    --------
    >>> import numpy as np
    >>> plain({"beta": np.float32(0.5)}), plain([np.int64(3), "relu"])
    ({'beta': 0.5}, [3, 'relu'])
    """
    if isinstance(value, dict):
        return {name: plain(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        found = [plain(each) for each in value]
        return found if isinstance(value, list) else tuple(found)
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):
        value = value.item()
        return float(value) if isinstance(value, Real) and hasattr(value, "item") else value
    return value


def _as_value(declare: Callable[P, Setting]) -> Callable[P, Any]:
    return declare


setting = _as_value(Setting)  # the value of an annotated name of any type


def declared_in(owner: type) -> dict[str, Setting]:
    """The settings declared in a class, by name, in order."""
    annotations = typing.get_type_hints(owner)
    return {
        name: replace(value, name=name, type=annotations[name])
        for name, value in vars(owner).items()
        if isinstance(value, Setting)
    }
