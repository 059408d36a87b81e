"""What is recorded as a layer of a model of dp, and which function follows it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import dp
from dp.activations import SOFTMAX, Activation
from dp.layers import activation_after
from dp.order import consumers_of
from dp.typing import Array
from gradiometer.recording.errors import RecordingError
from gradiometer.recording.functions import UNKNOWN, why_not_saturated
from gradiometer.recording.measure import OF_ACTIVATION, OF_DELTA
from gradiometer.recording.requires import needing
from gradiometer.recording.session import LayerInfo, Session

# what is measured of a layer's calls
OF_CALLS = (
    *needing("input", "pre_activation", "activation", "reference_activation"),
    *OF_DELTA,
)

NO_LAYER = "it is a parameter by itself, not of a layer"
NO_FUNCTION = "the function applied to its output is not a known activation function"
SEVERAL_FUNCTIONS = "several functions are applied to its outputs"
NO_DELTA = "no gradient came back to its output"
NO_ARRIVING = (
    "what a known activation function makes of its output is no part of what the loss is computed "
    "from"
)
NOT_USED = "in one step the loss did not depend on it"


@dataclass(frozen=True)
class Row:
    """A layer, or a parameter that is no layer's, which is recorded as one.

    Attributes
    ----------
    name : str
    parameter : str
        Its weight, among the model's parameters.
    layer : bool
    """

    name: str
    parameter: str
    layer: bool

    @property
    def parameters(self) -> set[str]:
        """Names of all parameters that the layer may have."""
        if not self.layer:
            return {self.parameter}
        return {self.parameter, *(f"{self.name}_{part}" for part in ("bias", "gain", "shift"))}


@dataclass(frozen=True)
class Called:
    """A layer that was called: its name, its weight's, and what else belongs to it."""

    name: str
    weight: str
    normalises: bool = False

    @classmethod
    def of(cls, layer: dp.Layer) -> Called:
        """Of a layer of dp."""
        return cls(layer.name, layer.weight.name or "", layer.normalise is not None)

    @property
    def parameters(self) -> set[str]:
        """Names of its parameters."""
        more = ("gain", "shift") if self.normalises else ()
        return {self.weight, *(f"{self.name}_{part}" for part in ("bias", *more))}


def rows_of(param: Mapping[str, Array], called: Iterable[Called]) -> list[Row]:
    """Everything of a model that is recorded: layers called, in order; others; parameters.

    Raises
    ------
    RecordingError
        If there is nothing.
    """
    rows: dict[str, Row] = {}
    belongs: set[str] = set()
    for layer in called:
        rows.setdefault(layer.weight, Row(layer.name, layer.weight, True))
        belongs |= layer.parameters
    for name in param:  # layers that were made and not called
        stem = name.removesuffix("_weight")
        if name != stem and name not in belongs and f"{stem}_bias" in param:
            rows[name] = Row(stem, name, True)
            belongs |= {name, f"{stem}_bias"}
    taken = {row.name for row in rows.values()}
    for name in param:
        if name not in belongs:
            own = name if name not in taken else f"{name} (parameter)"
            rows[name] = Row(own, name, False)
    if not rows:
        raise RecordingError(
            "the model's loss used no layer made by Linear_Layer or ReLu_Layer, and the model has "
            "no other parameters, so there is nothing to record"
        )
    return list(rows.values())


class Announcer:
    """Tells a session which layers there are, once they are known: with the first step.

    Parameters
    ----------
    session : Session
    model : dp.Model
    waiting : callable
        See `Session.begin`.

    Attributes
    ----------
    rows : list of Row
        Of the layers that are recorded; empty until then.
    all : list of Row
        Of all layers.
    """

    def __init__(self, session: Session, model: dp.Model, waiting: Callable[[], None]) -> None:
        self._session, self._model, self._waiting = session, model, waiting
        self.rows: list[Row] = []
        self.all: list[Row] = []
        if session.only is not None:
            session.check_names(_possible_names(model.get_param()))

    def announce(
        self,
        called: Sequence[Called],
        functions: Mapping[str, Activation | None],
        unused: Collection[str] = (),
    ) -> list[Row]:
        """Say which layers were called in the first step, unless it is known; gives the rows.

        `functions` are by the weights' names; `unused` are the weights of those called layers on
        which the loss does not depend.
        """
        if self.rows:
            return self.rows
        param = self._model.get_param()
        self.all = rows_of(param, called)
        self._session.check_names([row.name for row in self.all])
        rows = [row for row in self.all if self._session.picks(row.name)]
        used = {layer.weight for layer in called} - set(unused)
        roles = {
            row.parameter: "unreached" if row.parameter in unused else "outside"
            for row in rows
            if row.parameter not in used
        }
        self._session.begin([_info(row, param, functions, roles) for row in rows], self._waiting)
        for row in rows:
            if not row.layer:
                self._session.miss(row.name, OF_CALLS, NO_LAYER)
        self.rows = rows
        return rows

    @property
    def kept(self) -> list[int] | None:
        """Which of all layers are recorded, by their positions; None for all."""
        if self._session.only is None:
            return None
        return [i for i, row in enumerate(self.all) if row in self.rows]


def _possible_names(param: Mapping[str, Array]) -> list[str]:
    """Names that layers may have, before any was called: those of `rows_of`, and others."""
    sure = [row.name for row in rows_of(param, ())] if param else []
    stems = [name.removesuffix("_weight") for name in param if name.endswith("_weight")]
    return [*sure, *(stem for stem in stems if stem not in sure)]


def _info(
    row: Row,
    param: Mapping[str, Array],
    functions: Mapping[str, Activation | None],
    roles: Mapping[str, str],
) -> LayerInfo:
    known = functions.get(row.parameter)
    return LayerInfo(
        row.name,
        param[row.parameter].shape[-2],
        param[row.parameter].shape[-1],
        UNKNOWN if known is None else known.name,
        roles.get(row.parameter, "trained") if row.layer else "outside",
    )


def after_each(
    calls: Iterable[tuple[str, dp.Node]], order: Sequence[dp.Node], output: dp.Node
) -> list[tuple[Activation | None, dp.Node]]:
    """The function that a graph applies to each pre-activation, and the Node it gives."""
    consumers = consumers_of(order)
    return [activation_after(pre_activation, consumers, output) for _, pre_activation in calls]


def functions_by_weight(
    calls: Sequence[tuple[str, dp.Node]], found: Sequence[tuple[Activation | None, dp.Node]]
) -> dict[str, list[Activation | None]]:
    """The functions that follow each layer's calls, each once, by the weight's name."""
    by_weight: dict[str, list[Activation | None]] = {}
    for (weight, _), (function, _) in zip(calls, found, strict=True):
        known = by_weight.setdefault(weight, [])
        if function not in known:
            known.append(function)
    return by_weight


def only(functions: Iterable[Activation | None]) -> Activation | None:
    """The function that follows all calls of a layer; None if there are several, or none known."""
    first: Activation | None = None
    for i, function in enumerate(functions):
        if not i:
            first = function
        elif not same(function, first):
            return None
    return first


def same(one: Activation | None, other: Activation | None) -> bool:
    """Whether two functions are one; mostly they are one object, which is faster to see."""
    return one is other or one == other


def miss_activation(
    session: Session, row: Row, functions: Iterable[Activation | None]
) -> Activation | None:
    """The function that follows a layer; notes why what depends on it is missing, if it is."""
    known = list(functions)
    found = only(known)
    if found is None:
        several = any(not same(other, known[0]) for other in known)
        session.miss(row.name, OF_ACTIVATION, SEVERAL_FUNCTIONS if several else NO_FUNCTION)
    elif found is SOFTMAX:
        session.miss(row.name, ("saturated_fraction",), why_not_saturated(found.name))
    return found
