"""What describes a study: settings, values along axes, and the same in TOML; checked."""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from typing import Any

from dp.validation import unknown
from gradiometer.declaration import plain
from gradiometer.experiment import Experiment, ExperimentError
from gradiometer.settings import SETTINGS

MOST = 10**6  # experiments: beyond it a product of axes is a slip of the pen
FIELDS = ("name", "members", "timeout", "base", "over", "experiments")
NONE = "none"  # how TOML, which has no word for it, says that a setting has no value
_MAY_BE_NONE = {name for name, each in SETTINGS.items() if type(None) in each.types}


class StudyError(ValueError):
    """A description that cannot be run, with what would be accepted."""


def settings_of(
    base: Experiment | Mapping[str, Any] | str | os.PathLike[str] | None,
) -> dict[str, Any]:
    """The settings that were chosen; what the nets decide is kept only if asked for."""
    if isinstance(base, (str, os.PathLike)):
        try:
            base = Experiment.load(base)
        except ExperimentError as error:
            raise StudyError(f"base: {error}") from None
    if isinstance(base, Experiment):
        base = base.given()
    if base is not None and not isinstance(base, Mapping):
        raise TypeError(f"base is an Experiment, settings of one, or a TOML file, got {base!r}")
    settings: dict[str, Any] = plain({"decision": False, **(base or {})})
    try:
        Experiment.of(**settings)
    except ExperimentError as error:
        raise StudyError(f"base: {error}") from None
    return settings


def values_along(setting: str, values: Any) -> list[Any]:
    """The values along an axis, without repetitions."""
    if isinstance(values, (str, bytes, Mapping, Set)) or not isinstance(values, Iterable):
        raise StudyError(f"over: {setting} takes a list of values, got {values!r}")
    given = [plain(value) for value in itertools.islice(values, MOST + 1)]
    if not given:
        raise StudyError(f"over: {setting} has no values")
    if len(given) > MOST:
        raise StudyError(f"over: {setting} has too many values; at most {MOST} experiments")
    twice = [value for value, times in Counter(map(repr, given)).items() if times > 1]
    if twice:
        raise StudyError(f"over: {setting} has the value {twice[0]} more than once")
    return given


def _or_none(setting: str, value: Any) -> Any:
    """A value read from TOML."""
    return None if value == NONE and setting in _MAY_BE_NONE else value


def checked(check: Callable[..., object], *arguments: object) -> None:
    """Call a check; its ValueError becomes a StudyError."""
    try:
        check(*arguments)
    except ValueError as error:
        raise StudyError(str(error)) from None


def in_words(varied: dict[str, Any]) -> str:
    """Settings that differ, such as layers = 3."""
    return ", ".join(f"{setting} = {value!r}" for setting, value in varied.items()) or "base"


def as_toml(value: Any) -> Any:
    """A value as TOML has it."""
    if value is None:
        return NONE
    if isinstance(value, Mapping):
        return {k: as_toml(v) for k, v in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [as_toml(v) for v in value]
    return value


def arguments_of(fields: dict[str, Any], name: str) -> dict[str, Any]:
    """The arguments of `Study` that a TOML file's fields stand for.

    Raises
    ------
    StudyError
        For a key that no study has, or a value that is no table.
    """
    for field in fields:
        if field not in FIELDS:
            raise StudyError(unknown("key of a study", field, FIELDS))
    for field, kind, words in [
        ("base", dict, "a table [base]"),
        ("over", dict, "a table [over]"),
        ("experiments", list, "tables [[experiments]]"),
    ]:
        if field in fields and not isinstance(fields[field], kind):
            raise StudyError(f"{field}: expected {words}, got {fields[field]!r}")
    base = {k: _or_none(k, v) for k, v in fields.get("base", {}).items()}
    over = {
        setting: [_or_none(setting, v) for v in values] if isinstance(values, list) else values
        for setting, values in fields.get("over", {}).items()
    }
    listed = fields.get("experiments")
    for each in listed or ():
        if not isinstance(each, dict):
            raise StudyError(f"experiments: expected tables of settings, got {each!r}")
    if listed is not None:
        listed = [{k: _or_none(k, v) for k, v in each.items()} for each in listed]
    return {
        "base": base,
        "over": over,
        "experiments": listed,
        "members": fields.get("members"),
        "name": fields.get("name", name),
        "timeout": fields.get("timeout"),
    }
