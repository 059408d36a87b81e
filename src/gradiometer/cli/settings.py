"""The settings of an experiment as flags, for each verb that takes them."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from gradiometer.declaration import Setting
from gradiometer.settings import SETTINGS, used_by

Given = dict[str, Any]  # by the names of flags; None where a flag was not given
METAVARS: dict[type, str] = {int: "INTEGER", float: "NUMBER", str: "NAME"}


def flag_for_each_setting(command: Callable[..., None]) -> Callable[..., None]:
    """Add a flag for each setting to a command; `chosen` reads their values from `settings`.

    Flags that the verb does not use are hidden: the verb says why it refuses them.
    """
    own = inspect.signature(command, eval_str=True).parameters.values()
    own_names = [parameter.name for parameter in own if parameter.name != "settings"]
    used = used_by(command.__name__)
    flags = {_flag(each): _annotation(each, hidden=each not in used) for each in SETTINGS.values()}

    @functools.wraps(command)
    def called(**given: Any) -> None:
        settings = {name: value for name, value in given.items() if name in flags}
        command(**{name: given[name] for name in own_names}, settings=settings)

    kind = inspect.Parameter.KEYWORD_ONLY
    kept = [parameter.replace(kind=kind) for parameter in own if parameter.name != "settings"]
    added = [
        inspect.Parameter(name, kind, default=None, annotation=annotation)
        for name, annotation in flags.items()
    ]
    called.__signature__ = inspect.Signature([*kept, *added])  # type: ignore[attr-defined]
    called.__annotations__ = {p.name: p.annotation for p in [*kept, *added]}
    return called


def _flag(setting: Setting) -> str:
    return setting.flag or setting.name


def _annotation(setting: Setting, hidden: bool) -> Any:
    """The type of a flag, and typer's option for it."""
    if bool in setting.types:
        name = setting.name.replace("_", "-")
        return Annotated[bool | None, typer.Option(f"--{name}/--no-{name}", hidden=hidden)]
    # a setting that takes words and numbers is read as a word first
    kind = next((each for each in (str, int, float) if each in setting.types), str)
    option = typer.Option(metavar=setting.metavar or METAVARS[kind], hidden=hidden)
    return Annotated[list[str] | None if setting.flag else kind | None, option]


class CommandWithSettings(TyperCommand):
    """A command that looks up the choices of settings when it prints its help.

    In a help text, the name of a setting in braces is replaced by its choices.
    """

    def format_help(self, *arguments: Any) -> None:
        """Write the help."""
        declared = {_flag(each): each for each in SETTINGS.values()}
        for flag in self.params:
            if not hasattr(flag, "help"):
                continue
            if flag.help:
                flag.help = re.sub(r"\{(\w+)\}", _choices, flag.help)
            elif flag.name in declared:
                setting = declared[flag.name]
                flag.help = setting.full_help() + " Repeat for more." * bool(setting.flag)
        super().format_help(*arguments)


def _choices(found: re.Match[str]) -> str:
    name = found[1]
    return ", ".join(SETTINGS[name].choices) if name in SETTINGS else found[0]


def chosen(settings: Given) -> dict[str, Any]:
    """The settings that were given, by their names in an `Experiment`.

    Raises
    ------
    ValueError
        For a hyperparameter that is not NAME=NUMBER.
    """
    found = {}
    for setting in SETTINGS.values():
        given = settings[_flag(setting)]
        if given is not None and given != []:
            found[setting.name] = given if setting.read is None else setting.read(given)
    return found
