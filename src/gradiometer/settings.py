"""The settings of an experiment, each declared once.

From these declarations are made: the fields of `Experiment` with their checks, the flags of the
command line and their help, the keys of TOML files, titles, axis labels and the labels of studies.
A new setting is declared here. If the net, the optimiser or the recorder takes an argument of its
name, `passed_to` says so; otherwise it is used where its value makes a difference.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from gradiometer.declaration import Acts, Part, Setting, declared_in, setting

MOST = 10**9  # of layers, units, rows, steps: beyond it no array can be made, and words are better


def _activations() -> Iterable[str]:
    from dp.activations import ACTIVATIONS

    return ACTIVATIONS


def _initializers() -> Iterable[str]:
    from dp.initializers import INITIALIZERS

    return INITIALIZERS


def _optimizers() -> Iterable[str]:
    from dp.optimizers import OPTIMIZERS

    return OPTIMIZERS


def _hyperparameters() -> list[str]:
    """Names of hyperparameters, each once."""
    from dp.optimizers import OPTIMIZERS

    names = (name for optimizer in OPTIMIZERS.values() for name in optimizer.defaults)
    return [name for name in dict.fromkeys(names) if name != "alpha"]


def _data_sets() -> Iterable[str]:
    from gradiometer.data import DATASETS

    return DATASETS


def _quantities() -> Iterable[str]:
    from gradiometer.quantities import OF_LAYERS

    return OF_LAYERS


def _check_scaling(scaling: Any) -> str | float:
    from gradiometer.data import check_scaling

    return check_scaling(scaling)


def _check_quantities(quantities: Any) -> tuple[str, ...] | None:
    """In one order, so that equal choices have equal hashes."""
    from gradiometer.quantities import GRADIENTS, OF_LAYERS

    if quantities is None:
        return None
    if isinstance(quantities, str) or not isinstance(quantities, Iterable):
        raise ValueError(f"expected a list of names, got {quantities!r}")
    named = [SETTINGS["quantities"].known(name) for name in quantities]
    if not set(GRADIENTS).intersection(named):
        raise ValueError(
            f"{' or '.join(GRADIENTS)} must be among them, for a run is about its gradient, "
            f"got {named!r}"
        )
    return tuple(name for name in OF_LAYERS if name in named)


def _number_or_word(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _numbers_by_name(pairs: Iterable[str]) -> dict[str, float]:
    """From "beta=0.5" and the like."""
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


class Settings:
    """What an experiment says; `Experiment` has these attributes, with their values."""

    data: str = setting(
        default="iris2",
        help="Data set to learn from",
        part="data",
        acts="start",
        table=_data_sets,
        kind="data set",
        words="{}",
        always=True,
    )
    scaling: str | float = setting(
        default="standardise",
        help="Scaling of the features",
        part="data",
        acts="start",
        check=_check_scaling,
        table=lambda: ("standardise", "raw"),
        further="or a factor on the raw ones",
        metavar="NAME|NUMBER",
        read=_number_or_word,
        axis="scaling of the features",
        words=lambda value: f"features {_scaling(value)}",
        brief=lambda value: _scaling(value),
        beside=("data",),
    )
    layers: int = setting(
        default=10,
        help="Number of hidden layers",
        part="net",
        acts="start",
        at_least=1,
        at_most=MOST,
        unit="layers",
        axis="number of hidden layers",
        brief="{}",
        beside=("width",),
        always=True,
        scale="linear",  # what happens with each layer is a straight line then
    )
    width: int = setting(
        default=10,
        help="Units per hidden layer",
        part="net",
        acts="start",
        at_least=1,
        at_most=MOST,
        unit="units",
        axis="units per hidden layer",
        words="width {}",
        brief="× {}",
        beside=("layers",),
        always=True,
    )
    activation: str = setting(
        default="sigmoid",
        help="Activation function of the hidden layers",
        part="net",
        acts="start",
        table=_activations,
        axis="activation function",
        words="{}",
        beside=("layers", "width"),
        always=True,
    )
    clip: float | None = setting(
        default=None,
        help="Ceiling of a clipped relu",
        part="net",
        acts="start",
        above=0,
        axis="ceiling of a clipped relu",
        brief="(ceiling {})",
        beside=("activation",),
    )
    init: str = setting(
        default="dp",
        help="Initialiser of the weights",
        part="net",
        acts="start",
        passed_to="net",
        table=_initializers,
        kind="initialiser",
        axis="initialiser",
        words="{} init",
        always=True,
    )
    init_scale: float = setting(
        default=1.0,
        help="Factor on the initial weights",
        part="net",
        acts="start",
        passed_to="net",
        above=0,
        axis="factor on the initial weights",
        words="weights × {}",
        brief="× {}",
        beside=("init",),
        scale="log",
    )
    normalisation: Literal["none", "layer", "batch"] = setting(
        default="none",
        help="Normalisation of the pre-activations",
        part="net",
        acts="start",
        passed_to="net",
        words="{} norm",
    )
    residual: bool = setting(
        default=False,
        help="Add each hidden layer's input to its output",
        part="net",
        acts="start",
        passed_to="net",
    )
    loss: Literal["cross_entropy", "squared_error"] = setting(
        default="cross_entropy",
        help="Loss function",
        part="training",
        acts="start",
        passed_to="net",
        words=lambda value: f"{value.replace('_', ' ')} loss",
    )
    reduction: Literal["sum", "mean"] = setting(
        default="sum",
        help="Reduction of the loss over the batch",
        part="training",
        acts="start",
        passed_to="net",
        words="{} over the batch",
    )
    optimizer: str = setting(
        default="sgd",
        help="Optimiser",
        part="training",
        acts="training",
        table=_optimizers,
        kind="optimiser",
        axis="optimiser",
        words="{}",
        always=True,
    )
    learning_rate: float = setting(
        default=0.001,
        help="Learning rate",
        part="training",
        acts="training",
        above=0,
        brief="{}",
        beside=("optimizer",),
        always=True,
        scale="log",
    )
    hyperparameters: dict[str, float] = setting(
        default={},
        help="Further hyperparameters of the optimiser, such as beta=0.5",
        part="training",
        acts="training",
        table=_hyperparameters,
        flag="hyperparameter",
        metavar="NAME=NUMBER",
        read=_numbers_by_name,
        none="default",
        brief="({})",
        beside=("optimizer", "learning_rate"),
    )
    steps: int = setting(
        default=100,
        help="Number of updates",
        part="training",
        acts="training",
        at_least=1,
        at_most=MOST,
        unit="steps",
    )
    batch_size: int = setting(
        default=128,
        help="Rows per step, drawn with replacement",
        part="training",
        acts="start",
        passed_to="optimizer",
        at_least=1,
        at_most=MOST,
        unit="rows",
        axis="rows per batch",
        words="batch {}",
    )
    seed: int = setting(
        default=0,
        help="Seed of the weights and batches",
        part="seeds",
        acts="draw",
        at_least=0,
        below=2**62,
        scale="linear",  # it is a name
    )
    members: int = setting(
        default=1,
        help="Nets trained side by side, with the seeds that follow",
        part="seeds",
        acts="draw",
        at_least=1,
        at_most=MOST,
        unit="nets",
    )
    dtype: Literal["float32", "float64"] = setting(
        default="float64",
        help="Floating-point type",
        part="training",
        acts="start",
        passed_to="net",
        words="{}",
    )
    every: int = setting(
        default=1,
        help="Record every k-th step",
        part="record",
        acts="record",
        passed_to="recorder",
        at_least=1,
        at_most=MOST,
        unit="steps",
        words="one step in {}",
    )
    quantities: tuple[str, ...] | None = setting(
        default=None,
        help="Quantities to record of every layer instead of the usual ones",
        part="record",
        acts="record",
        changes_numbers=False,
        check=_check_quantities,
        table=_quantities,
        kind="quantity",
        flag="quantity",
        metavar="NAME",
        read=tuple,
        none="usual",
        brief=lambda value: f"{len(value)} {'quantity' if len(value) == 1 else 'quantities'}",
    )
    histograms: bool = setting(
        default=False,
        help="Record log10 histograms of the gradients",
        part="record",
        acts="record",
        passed_to="recorder",
        changes_numbers=False,
    )
    decision: bool = setting(
        default=True,
        help="Record the net's decision in the plane of the data",
        part="record",
        acts="record",
        changes_numbers=False,
    )


def _scaling(value: str | float) -> str:
    return value if isinstance(value, str) else f"× {value:g}"


SETTINGS: Mapping[str, Setting] = declared_in(Settings)
DEFAULTS: Mapping[str, Any] = {name: each.default for name, each in SETTINGS.items()}
# the order of settings in titles and help
PARTS: tuple[Part, ...] = ("net", "training", "data", "record", "seeds")


def describe() -> list[dict[str, Any]]:
    """All settings as JSON, for a page that offers them, in the order of `PARTS`."""
    in_order = sorted(SETTINGS.values(), key=lambda each: PARTS.index(each.part))
    return [each.describe() for each in in_order]


def check_together(settings: Settings) -> None:
    """Raise ValueError where settings that are valid alone cannot be combined."""
    import dp
    from dp.validation import unknown

    dp.activations.get(settings.activation, settings.clip)
    optimizer = dp.optimizers.OPTIMIZERS[settings.optimizer]
    for name, value in settings.hyperparameters.items():
        if name == "alpha":
            raise ValueError("alpha is the learning rate; set learning_rate")
        if name not in optimizer.defaults:
            raise ValueError(
                unknown(f"hyperparameter of {settings.optimizer}", name, optimizer.defaults)
            )
        optimizer.check_hyperparameter(name, value)


# --- which verb uses which ------------------------------------------------------------------------

# When the settings act that a verb uses.
VERBS: Mapping[str, tuple[Acts, ...]] = {
    "run": ("start", "draw", "training", "record"),
    "predict": ("start",),
}
_WITHOUT: Mapping[Acts, str] = {
    "draw": "it predicts for all seeds",
    "training": "nothing is trained",
    "record": "nothing is recorded",
}


class UnusedSettingError(ValueError):
    """A setting was passed that the verb does not use."""


def used_by(verb: str) -> list[Setting]:
    """The settings that a verb uses."""
    return [each for each in SETTINGS.values() if each.acts in VERBS[verb]]


def refuse_unused(verb: str, given: Iterable[str]) -> None:
    """Refuse settings that a verb does not use; unknown names are checked elsewhere.

    Raises
    ------
    UnusedSettingError
        Naming the setting, and the verbs that use it.
    """
    for name in given:
        declared = SETTINGS.get(name)
        if declared is None or declared.acts in VERBS[verb]:
            continue
        others = [other for other, acts in VERBS.items() if declared.acts in acts]
        raise UnusedSettingError(
            f"{name}: {verb} does not use it, because {_WITHOUT[declared.acts]}; "
            f"{' and '.join(others)} {'do' if len(others) > 1 else 'does'}"
        )
