"""Titles that say what was run: whatever differs between two pictures, their titles differ."""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from gradiometer.plots.words import escaped, printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from gradiometer.labelled import LabelledRun

SIZE = 11.0  # points
WIDTH = 0.6  # of a letter, on average and rather too wide, as a share of the size

# An experiment's settings where none was chosen, so that a title tells the others only.
DEFAULTS: dict[str, Any] = {
    "data": "iris2",
    "scaling": "standardise",
    "layers": 10,
    "width": 10,
    "activation": "sigmoid",
    "clip": None,
    "init": "dp",
    "init_scale": 1.0,
    "normalisation": "none",
    "residual": False,
    "loss": "cross_entropy",
    "reduction": "sum",
    "optimizer": "sgd",
    "learning_rate": 0.001,
    "hyperparameters": {},
    "steps": 100,
    "batch_size": 128,
    "seed": 0,
    "members": 1,
    "dtype": "float64",
    "every": 1,
    "quantities": None,
    "histograms": False,
    "decision": True,
}


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
    e = {**DEFAULTS, **settings, **{name: DEFAULTS[name] for name in untold}}
    further = ", ".join(f"{name} {value:g}" for name, value in e["hyperparameters"].items())
    several = e["members"] > 1
    seeds = f"seeds {e['seed']}–{e['seed'] + e['members'] - 1}" if several else f"seed {e['seed']}"
    if "seed" in untold:
        seeds = ""
    parts = [
        _net(e, untold),
        _weights(e, untold),
        *_others(
            e,
            normalisation=f"{e['normalisation']} norm",
            residual="residual",
            loss=e["loss"].replace("_", " "),
            reduction=f"{e['reduction']} over the batch",
        ),
        _training(e, untold) + (f" ({further})" if further else ""),
        *_others(
            e,
            steps="1 step" if e["steps"] == 1 else f"{e['steps']} steps",
            batch_size=f"batch {e['batch_size']}",
        ),
        interrupted,
        _samples(e, untold),
        *_others(
            e,
            dtype=e["dtype"],
            every=f"one step in {e['every']}",
            quantities=f"{len(e['quantities'] or ())} quantities",
            histograms="histograms",
            decision="no decision",
        ),
        shown or seeds,
        seeds if shown and e["seed"] and not shown.startswith("seed") else "",
    ]
    return [part for part in parts if part]


def _net(e: dict[str, Any], untold: Collection[str]) -> str:
    if "layers" in untold or "width" in untold:
        size = {
            "layers": "1 layer" if e["layers"] == 1 else f"{e['layers']} layers",
            "width": f"width {e['width']}",
        }
    else:
        size = {"": f"{e['layers']} × {e['width']}"}
    words = {
        **size,
        "activation": e["activation"],
        "clip": f"(ceiling {e['clip']:g})" if e["clip"] else "",
    }
    return " ".join(word for name, word in words.items() if name not in untold and word)


def _weights(e: dict[str, Any], untold: Collection[str]) -> str:
    scale = f" × {e['init_scale']:g}" if e["init_scale"] != 1 else ""
    if "init" not in untold:
        return f"{e['init']} init{scale}"
    return f"weights{scale}" if scale else ""


def _training(e: dict[str, Any], untold: Collection[str]) -> str:
    words = {"optimizer": e["optimizer"], "learning_rate": f"{e['learning_rate']:g}"}
    if "optimizer" in untold:
        words["learning_rate"] = f"learning rate {e['learning_rate']:g}"
    return " ".join(word for name, word in words.items() if name not in untold)


def _samples(e: dict[str, Any], untold: Collection[str]) -> str:
    name, scaling = "" if "data" in untold else e["data"], e["scaling"]
    if scaling == DEFAULTS["scaling"]:
        return str(name)
    scaled = scaling if isinstance(scaling, str) else f"× {scaling:g}"
    return f"{name or 'features'} {scaled}"


def _others(e: dict[str, Any], **words: str) -> list[str]:
    """The words for those settings that are not the default."""
    return [word for name, word in words.items() if e[name] != DEFAULTS[name]]
