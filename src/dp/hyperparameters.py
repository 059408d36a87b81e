"""Which hyperparameters an optimiser reads, and a warning about those that it ignores."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping
from types import CodeType
from typing import Any

from dp.validation import unknown

_ALL = ("items", "keys", "values", "update", "copy")


class NotedDict(dict[str, Any]):
    """A dictionary that notes which of its keys were read."""

    def __init__(self, given: Mapping[str, Any]) -> None:
        super().__init__(given)
        self._given, self._read = list(given), set[str]()

    def unread(self) -> list[str]:
        """The keys that were not read."""
        return [name for name in self._given if name not in self._read]

    def _note(self, name: Any) -> None:
        self._read.add(name)

    def _note_all(self) -> None:
        self._read.update(self._given)

    def __getitem__(self, name: str) -> Any:
        self._note(name)
        return super().__getitem__(name)

    def __contains__(self, name: object) -> bool:
        self._note(name)
        return super().__contains__(name)

    def get(self, name: str, default: Any = None) -> Any:
        """As of a dict."""
        self._note(name)
        return super().get(name, default)

    def pop(self, name: str, *default: Any) -> Any:
        """As of a dict."""
        self._note(name)
        return super().pop(name, *default)

    def setdefault(self, name: str, default: Any = None) -> Any:
        """As of a dict."""
        self._note(name)
        return super().setdefault(name, default)

    def __iter__(self) -> Iterator[str]:
        self._note_all()
        return super().__iter__()

    def keys(self) -> Any:
        """As of a dict."""
        self._note_all()
        return super().keys()

    def values(self) -> Any:
        """As of a dict."""
        self._note_all()
        return super().values()

    def items(self) -> Any:
        """As of a dict."""
        self._note_all()
        return super().items()

    def copy(self) -> dict[str, Any]:
        """As of a dict."""
        self._note_all()
        return dict(self)


def warn_unread(optimizer: Any, names: Iterable[str], stacklevel: int) -> None:
    """Warn of hyperparameters that an optimiser ignores, suggesting the names that are meant.

    One that a method of a subclass's own names, such as its `_update`, is not ignored.
    """
    kind = type(optimizer)
    codes = [code for function in _own_functions(kind) for code in _codes(function)]
    if any(_reads_all(code) for code in codes):
        return
    mentioned = {part for code in codes for part in code.co_consts if isinstance(part, str)}
    for name in names:
        if name not in mentioned:
            warnings.warn(
                f"{kind.__name__}: {unknown('hyperparameter', name, optimizer.defaults)} (ignored)",
                stacklevel=stacklevel,
            )


def _own_functions(kind: type) -> Iterator[Any]:
    """The functions of a class and its bases, without those of the library."""
    for part in kind.__mro__:
        if part is object or part.__module__.split(".")[0] == "dp":
            continue
        for value in vars(part).values():
            value = getattr(value, "fget", None) or getattr(value, "__func__", value)
            if hasattr(value, "__code__"):
                yield value


def _codes(function: Any) -> list[CodeType]:
    found, waiting = [], [function.__code__]
    while waiting:
        code = waiting.pop()
        found.append(code)
        waiting += [part for part in code.co_consts if isinstance(part, CodeType)]
    return found


def _reads_all(code: CodeType) -> bool:
    names = {*code.co_names, *code.co_varnames}
    return "hyperparam" in names and not names.isdisjoint(_ALL)
