"""The experiment that a verb was given: an `Experiment`, a TOML file, settings, or several."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from gradiometer.settings import used_by

if TYPE_CHECKING:
    from gradiometer.experiment import Experiment

Verb = TypeVar("Verb", bound=Callable[..., Any])


def lists_settings(verb: Verb) -> Verb:
    """Add the settings that a verb uses, with choices and defaults, to its docstring."""
    if verb.__doc__:  # there is none under `python -OO`
        before, heading, after = inspect.cleandoc(verb.__doc__).partition("\n\nReturns\n")
        listed = "\n".join(f"    - `{s.name}`: {s.full_help()}" for s in used_by(verb.__name__))
        verb.__doc__ = f"{before}\n\n{listed}{heading}{after}"
    return verb


def describe(
    experiment: Experiment | str | os.PathLike[str] | None = None, **settings: Any
) -> Experiment:
    """Combine an experiment, or a TOML file, with settings that take precedence over it."""
    from gradiometer.experiment import Experiment

    if experiment is None:
        return Experiment.of(**settings)
    if not isinstance(experiment, (Experiment, str, os.PathLike)):
        raise TypeError(
            f"an experiment is an Experiment or the path of a TOML file, got {experiment!r}; "
            "settings go by name, such as layers=5"
        )
    if isinstance(experiment, Experiment):
        return Experiment.of(**{**experiment.given(), **settings})
    return Experiment.load(experiment, **settings)
