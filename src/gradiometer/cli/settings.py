"""The settings of an experiment as flags, for each verb that takes them."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer

Settings = dict[str, Any]

# flag -> type and help; what there may be several of is named in the singular
FLAGS: dict[str, Any] = {
    "data": Annotated[
        str | None, typer.Option(help="iris2, iris, digits, moons or circles. [iris2]")
    ],
    "scaling": Annotated[
        str | None, typer.Option(help="standardise, raw, or a factor. [standardise]")
    ],
    "layers": Annotated[int | None, typer.Option(help="Number of hidden layers. [10]")],
    "width": Annotated[int | None, typer.Option(help="Units per hidden layer. [10]")],
    "activation": Annotated[
        str | None, typer.Option(help="Activation of the hidden layers. [sigmoid]")
    ],
    "clip": Annotated[float | None, typer.Option(help="Ceiling of a clipped relu.")],
    "init": Annotated[str | None, typer.Option(help="Initialiser. [dp]")],
    "init_scale": Annotated[float | None, typer.Option(help="Factor on the initial weights. [1]")],
    "normalisation": Annotated[str | None, typer.Option(help="none, layer or batch. [none]")],
    "residual": Annotated[
        bool | None, typer.Option("--residual/--no-residual", help="Skip connections. [no]")
    ],
    "loss": Annotated[
        str | None, typer.Option(help="cross_entropy or squared_error. [cross_entropy]")
    ],
    "reduction": Annotated[str | None, typer.Option(help="sum or mean over the batch. [sum]")],
    "optimizer": Annotated[str | None, typer.Option(help="sgd, momentum, rmsprop or adam. [sgd]")],
    "learning_rate": Annotated[float | None, typer.Option(help="Learning rate. [0.001]")],
    "hyperparameter": Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=NUMBER", help="Of the optimiser, such as beta=0.5; repeat for more."
        ),
    ],
    "steps": Annotated[int | None, typer.Option(help="Number of updates. [100]")],
    "batch_size": Annotated[int | None, typer.Option(help="Rows per step. [128]")],
    "seed": Annotated[int | None, typer.Option(help="Seed of weights and batches. [0]")],
    "members": Annotated[
        int | None, typer.Option(help="Nets side by side: seeds seed, seed+1, … [1]")
    ],
    "dtype": Annotated[str | None, typer.Option(help="float32 or float64. [float64]")],
    "every": Annotated[int | None, typer.Option(help="Record every k-th step. [1]")],
    "quantity": Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Record only this quantity; repeat for more."),
    ],
    "histograms": Annotated[
        bool | None, typer.Option("--histograms/--no-histograms", help="Gradient histograms. [no]")
    ],
    "decision": Annotated[
        bool | None, typer.Option("--decision/--no-decision", help="Record its decision. [yes]")
    ],
}
_SEVERAL = {"hyperparameter": "hyperparameters", "quantity": "quantities"}


def flag_for_each_setting(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command these flags; it gets what was said as `settings`, to be read by `chosen`."""
    own = inspect.signature(command, eval_str=True).parameters.values()
    own_names = [parameter.name for parameter in own if parameter.name != "settings"]

    @functools.wraps(command)
    def called(**given: Any) -> None:
        settings = {name: value for name, value in given.items() if name in FLAGS}
        command(**{name: given[name] for name in own_names}, settings=settings)

    kind = inspect.Parameter.KEYWORD_ONLY
    flags = [
        inspect.Parameter(name, kind, default=None, annotation=annotation)
        for name, annotation in FLAGS.items()
    ]
    kept = [parameter.replace(kind=kind) for parameter in own if parameter.name != "settings"]
    called.__signature__ = inspect.Signature([*kept, *flags])  # type: ignore[attr-defined]
    called.__annotations__ = {p.name: p.annotation for p in [*kept, *flags]}
    return called


def chosen(settings: Settings) -> Settings:
    """The settings that were given, by their names in an `Experiment`.

    Raises
    ------
    ValueError
        For a hyperparameter that is not NAME=NUMBER.
    """
    given = {_SEVERAL.get(flag, flag): value for flag, value in settings.items()}
    given["scaling"] = _number_or_word(given["scaling"])
    given["hyperparameters"] = _hyperparameters(given["hyperparameters"])
    given["quantities"] = given["quantities"] or None
    return {name: value for name, value in given.items() if value is not None}


def _hyperparameters(pairs: list[str] | None) -> dict[str, float] | None:
    """From "beta=0.5" and the like."""
    if not pairs:
        return None
    found = {}
    for pair in pairs:
        name, _, value = pair.partition("=")
        try:
            found[name.strip()] = float(value)
        except ValueError:
            raise ValueError(
                f"a hyperparameter is given as NAME=NUMBER, such as beta=0.5, got {pair!r}"
            ) from None
    return found


def _number_or_word(text: str | None) -> Any:
    try:
        return None if text is None else float(text)
    except ValueError:
        return text
