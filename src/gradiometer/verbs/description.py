"""The experiment that is meant: an `Experiment`, a TOML file, settings, or several of these."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gradiometer.experiment import Experiment


def describe(
    experiment: Experiment | str | os.PathLike[str] | None = None, **settings: Any
) -> Experiment:
    """Combine an experiment, or a TOML file, with settings that take precedence over it."""
    from gradiometer.experiment import Experiment

    if experiment is None:
        return Experiment.of(**settings)
    if isinstance(experiment, (bool, int, float)):
        raise TypeError(
            f"an experiment is an Experiment or the path of a TOML file, got {experiment!r}; "
            "settings go by name, such as layers=5"
        )
    if isinstance(experiment, Experiment):
        return Experiment.of(**{**experiment.given(), **settings})
    return Experiment.load(experiment, **settings)
