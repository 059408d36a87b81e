"""Titles that say what was run: whatever differs between two pictures, their titles differ."""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from gradiometer.plots.words import escaped, printable
from gradiometer.settings import DEFAULTS, PARTS, SETTINGS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from gradiometer.declaration import Setting
    from gradiometer.labelled import LabelledRun

SIZE = 11.0  # points
WIDTH = 0.6  # of a letter, on average and rather too wide, as a share of the size


def set_title(
    figure: Figure, trace: LabelledRun, text: str, nets: str = "median of {} nets"
) -> None:
    """`text`, and below it what was run.

    Parameters
    ----------
    figure : Figure
    trace : Trace
    text : str
    nets : str
        Which nets of an ensemble are shown; {} stands for their number.
    """
    shown = nets.format(trace.dataset.sizes["member"]) if trace.ensemble else ""
    wrapped_title(figure, text, _parts(trace, shown))


def wrapped_title(figure: Figure, text: str, parts: list[str] | None = None) -> None:
    """A title in as many lines as it takes; `parts` are joined by commas and stay whole."""
    letters = int(figure.get_figwidth() * 72 / (WIDTH * SIZE))
    lines = textwrap.wrap(printable(text), letters)
    line = ""
    for part in map(printable, parts or []):
        if line and len(line) + len(part) + 3 > letters:
            lines.append(line + ",")
            line = part
        else:
            line += f", {part}" if line else part
    if line:
        lines.append(line)
    figure.suptitle(escaped("\n".join(lines)), fontsize=SIZE)


def _parts(trace: LabelledRun, shown: str) -> list[str]:
    """What was run, or only which nets are shown where that is not known."""
    if not trace.experiment:
        return [shown] if shown else []
    ended = int(trace.dataset["step"].values[-1])
    interrupted = f"interrupted after step {ended}" if trace.attrs.get("interrupted") else ""
    return settings_parts(trace.experiment, shown, interrupted=interrupted)


def settings_parts(
    settings: Mapping[str, Any],
    shown: str,
    *,
    untold: Collection[str] = (),
    interrupted: str = "",
) -> list[str]:
    """What was run, in the order of the course: net, training, data, which nets are shown.

    Settings that have their default are told only if every title names them.

    Parameters
    ----------
    settings : mapping
        Of an experiment; the defaults where it has none.
    shown : str
        Which nets of an ensemble are shown.
    untold : collection of str
        Settings to leave out, since a study varies them.
    interrupted : str
        That, and where, the training was.
    """
    values = {**DEFAULTS, **settings}
    told = [
        each
        for each in SETTINGS.values()
        if each.name not in untold and (each.always or values[each.name] != each.default)
    ]
    parts = []
    for part in PARTS:
        if part != "seeds":
            parts += _phrases([each for each in told if each.part == part], values)
        if part == "training":
            parts.append(interrupted)
    seeds = "" if "seed" in untold else _seeds(values["seed"], values["members"])
    parts.append(shown or seeds)
    if shown and values["seed"] and not shown.startswith("seed"):
        parts.append(seeds)
    return [part for part in parts if part]


def _phrases(told: list[Setting], values: Mapping[str, Any]) -> list[str]:
    """Settings of one part in words, those that stand beside each other in one phrase."""
    names = {each.name for each in told}
    phrases: list[dict[str, str]] = []
    for each in told:
        brief = not each.beside or not names.isdisjoint(each.beside)
        words = each.in_words(values[each.name], brief=brief)
        if phrases and not phrases[-1].keys().isdisjoint(each.beside):
            phrases[-1][each.name] = words
        else:
            phrases.append({each.name: words})
    return [" ".join(phrase.values()) for phrase in phrases]


def _seeds(first: int, members: int) -> str:
    return f"seeds {first}–{first + members - 1}" if members > 1 else f"seed {first}"
