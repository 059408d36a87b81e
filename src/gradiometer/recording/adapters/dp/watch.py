"""What dp tells of a model's training, picked out for one recorder."""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any, NamedTuple, Protocol

import dp
from dp.layers import activation_after
from dp.order import consumers_of
from dp.typing import Array
from dp.watching import Sweep, Watcher, unregister
from gradiometer.recording.clock import Clock


@dataclass(eq=False)
class Call:
    """One call of a layer that led to the loss; its deltas are None if none came back.

    `affine_delta` is that of x W + b, and `arriving` that of what the activation function gives;
    they are None too where they are not asked for.
    """

    layer: dp.Layer
    pre_activation: dp.Node
    delta: Array | None
    input: Array
    affine_delta: Array | None = None
    arriving: Array | None = None


@dataclass(eq=False)
class Pass:
    """One computation of the gradient of a loss.

    Attributes
    ----------
    loss : Node or None
        None if what was differentiated is not one number.
    order : list of Nodes
        Its graph.
    batch : (x, y) or None
        None if it was not `get_grad` that was called.
    gradients : dict
        Parameter name -> gradient; copies, since callers may change theirs.
    calls : list of Call
        In the order in which they were made.
    unused : list of Layer
        Those that were called, and did not lead to the loss.
    """

    loss: dp.Node | None
    order: list[dp.Node]
    batch: tuple[Any, Any] | None
    gradients: dict[str, Array]
    calls: list[Call]
    unused: list[dp.Layer]


class Follower(Protocol):
    """Who follows the training of one model."""

    model: dp.Model

    def looks(self) -> bool:
        """Whether a sweep that begins now is of interest."""

    def passed(self, seen: Pass) -> None:
        """The gradient of a loss was computed."""

    def told_of_update(self) -> None:
        """`set_param` was called."""

    def loop_begins(self, optimizer: dp.Optimizer) -> None:
        """The library's training loop begins."""

    def loop_ends(self, optimizer: dp.Optimizer) -> None:
        """It has ended."""


class _Noted(NamedTuple):
    """A pre-activation, and how it was made; `number` counts the calls of layers.

    `affine` is x W + b, if a normalisation makes the pre-activation of it.
    """

    node: weakref.ref[dp.Node]
    layer: dp.Layer
    given: dp.Node
    affine: dp.Node | None
    number: int


class Watch(Watcher):
    """Tells a follower of its model's passes, as long as it lives; a clock counts what it takes.

    Parameters
    ----------
    follower : Follower
    clock : Clock
    arrays : collection of str
        The arrays that are wanted; see `gradiometer.quantities`.
    """

    def __init__(self, follower: Follower, clock: Clock, arrays: Collection[str]) -> None:
        self._clock = clock
        self._affine, self._arriving = "affine_delta" in arrays, "arriving" in arrays
        self._follower = weakref.ref(follower, lambda _: unregister(self))
        # pre-activations that are alive, by identity: graphs of mere evaluations are not kept
        self._noted: dict[int, _Noted] = {}
        self._called: dict[int, dp.Layer] = {}  # since the latest pass, in order
        self._count = itertools.count()
        self.paused = False

    def called(
        self, layer: dp.Layer, given: dp.Node, affine: dp.Node, pre_activation: dp.Node
    ) -> None:
        """Note which Node is a layer's pre-activation, and of what."""
        if self.paused:
            return
        began = perf_counter()
        key, noted = id(pre_activation), self._noted
        reference = weakref.ref(pre_activation, lambda _: noted.pop(key, None))
        # never a reference to the Node itself, which would keep its graph
        before = None if affine is pre_activation else affine
        noted[key] = _Noted(reference, layer, given, before, next(self._count))
        self._called.setdefault(id(layer), layer)
        self._clock.since(began)

    def wanted(self, order: Sequence[dp.Node]) -> Sequence[dp.Node]:
        """The pre-activations of a graph, and what else is to be measured the delta of."""
        follower = self._follower()
        if follower is None or not follower.looks():
            return ()
        with self._clock:
            noted = self._noted
            found = [node for node in order if id(node) in noted]
            affine: list[dp.Node] = []
            if self._affine:
                every = (noted[id(node)].affine for node in found)
                affine = [node for node in every if node is not None]
            applied = self._applied(found, order).values() if self._arriving else []
            return [*found, *affine, *applied]

    @staticmethod
    def _applied(
        pre_activations: Sequence[dp.Node], order: Sequence[dp.Node]
    ) -> dict[dp.Node, dp.Node]:
        """What known activation functions make of pre-activations."""
        consumers = consumers_of(order)
        after = {h: activation_after(h, consumers, order[0]) for h in pre_activations}
        return {h: x for h, (function, x) in after.items() if function is not None}

    def swept(self, sweep: Sweep) -> None:
        """Make a pass of a sweep, if it reached parameters of the model."""
        follower = self._follower()
        if follower is None or not follower.looks():
            return
        with self._clock:
            self._look(follower, sweep)

    def _look(self, follower: Follower, sweep: Sweep) -> None:
        param = follower.model.get_param()
        if not _concerns(sweep, follower.model, param):
            return
        calls = self._calls(sweep, param)
        used = {id(call.layer) for call in calls}
        unused = [
            layer
            for key, layer in self._called.items()
            if key not in used and param.get(layer.weight.name or "") is layer.weight.value
        ]
        self._called = {}
        is_number = sweep.output.shape[-2:] == (1, 1) and not sweep.weighted
        gradients = {
            leaf.name: gradient.copy()
            for leaf, gradient in sweep.leaves.items()
            if leaf.name is not None and leaf.name in param
        }
        loss = sweep.output if is_number else None
        follower.passed(Pass(loss, sweep.order, sweep.batch, gradients, calls, unused))

    def _calls(self, sweep: Sweep, param: Mapping[str, Array]) -> list[Call]:
        """The calls of the model's layers that led to the loss, in the order they were made."""
        noted, deltas = self._noted, sweep.deltas
        mine = [
            (node, found)
            for node in sweep.order
            if (found := noted.get(id(node))) is not None and found.layer.weight.name in param
        ]
        mine.sort(key=lambda pair: pair[1].number)
        applied: dict[dp.Node, dp.Node] = {}
        if self._arriving:
            applied = self._applied([node for node, _ in mine], sweep.order)
        calls = []
        for node, found in mine:
            affine = node if found.affine is None else found.affine
            of_affine = deltas.get(affine) if self._affine else None
            arriving = deltas.get(applied[node]) if node in applied else None
            given = found.given.value
            calls.append(Call(found.layer, node, deltas.get(node), given, of_affine, arriving))
        return calls

    def updated(self, model: dp.Model) -> None:
        """Pass it on."""
        follower = self._follower()
        if follower is not None and model is follower.model:
            follower.told_of_update()

    def loop_begins(self, optimizer: dp.Optimizer) -> None:
        """Pass it on, if it trains the model."""
        follower = self._follower()
        if follower is not None and trains(optimizer, follower.model):
            follower.loop_begins(optimizer)

    def loop_ends(self, optimizer: dp.Optimizer) -> None:
        """Pass it on, if it trained the model."""
        follower = self._follower()
        if follower is not None and trains(optimizer, follower.model):
            follower.loop_ends(optimizer)


def trains(optimizer: Any, model: dp.Model) -> bool:
    """Whether an optimizer's model is this one, or has parameters of it."""
    other = getattr(optimizer, "model", None)
    return other is model or (isinstance(other, dp.Model) and shares(other, model))


def shares(one: dp.Model, other: dp.Model) -> bool:
    """Whether two models have a live array in common."""
    mine = {id(value) for value in one.get_param().values()}
    return any(id(value) in mine for value in other.get_param().values())


def _concerns(sweep: Sweep, model: dp.Model, param: dict[str, Array]) -> bool:
    """Whether a sweep is a pass of this model's training.

    Another model's `get_grad` is not, though its loss may depend on this one, as a discriminator's
    does on the generator.
    """
    if sweep.model is not None:
        return sweep.model is model or shares(sweep.model, model)
    return any(param.get(leaf.name or "") is leaf.value for leaf in sweep.leaves)
