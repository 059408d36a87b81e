"""Capturing: run a function once on Nodes, and keep the graph of its value and of its gradients."""

from __future__ import annotations

import copy
import inspect
import keyword
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from dp import primitives as p
from dp.activations import Activation
from dp.errors import CaptureError
from dp.layers import LayerCall, activation_after
from dp.node import Node
from dp.order import consumers_of, topological_order
from dp.program.graph import Builder, Value, in_order
from dp.program.guards import Guard
from dp.program.runs import trusting_run, watched_runs
from dp.sweep import sweep
from dp.typing import Array
from dp.validation import as_matrix

# What the pages themselves call something.
RESERVED = frozenset(
    ("np", "param", "stores", "gradients", "step", "name", "w", "g", "i", "scatter", "math")
) | frozenset(("normal_cdf", "normal_pdf", "functools", "annotations", "Any", "NDArray", "Array"))


@dataclass(frozen=True)
class Origin:
    """Where a value of the source comes from, for its comments.

    Attributes
    ----------
    layer : str
        Name of the layer; "" before the first and after the last.
    backward : bool
    rule : str
        In the backward pass, the operation whose derivative it belongs to.
    """

    layer: str
    backward: bool
    rule: str = ""


@dataclass(frozen=True)
class CapturedLayer:
    """One layer's values: what goes in, before and after φ, and the deltas.

    `function` is φ, or None if it is none that we know; `activation` is then the pre-activation.
    The deltas are dL/d(pre-activation), dL/d(x W + b), which is the same Value unless there is a
    normalisation, and dL/d(activation); None if the loss does not depend on it.
    """

    name: str
    function: Activation | None
    input: Value
    pre_activation: Value
    activation: Value
    delta: Value | None
    affine_delta: Value | None
    arriving: Value | None


@dataclass(frozen=True, eq=False)
class Captured:
    """A function as values.

    Attributes
    ----------
    function : str
        Its name.
    inputs : list of Values
        The function's arguments.
    parameters : dict
        Name -> its Value.
    nodes : dict
        Name -> the Node that holds the parameter's live array.
    output : Value
    gradients : dict
        Name -> gradient of the output (of its sum, if it is no number).
    layers : list of CapturedLayer
    origins : dict
        Value -> Origin.
    taken : frozenset of str
        Names that stand for something.
    guard : Guard
        What else the function depends on, as it was.
    checks_labels : bool
        Whether a loss of the library's own looks at the labels, and refuses wrong ones.
    """

    function: str
    inputs: list[Value]
    parameters: dict[str, Value]
    nodes: dict[str, Node]
    output: Value
    gradients: dict[str, Value] = field(default_factory=dict)
    layers: list[CapturedLayer] = field(default_factory=list)
    origins: dict[Value, Origin] = field(default_factory=dict)
    taken: frozenset[str] = frozenset()
    guard: Guard = field(default_factory=Guard)
    checks_labels: bool = False

    def values(self) -> list[Value]:
        """Every value that is computed, in an order in which it can be."""
        # gradients of the last layers come first, as they do when they are computed
        return in_order([self.output, *reversed(self.gradients.values())])


def captured(
    function: Callable[..., Node],
    arguments: Sequence[Any],
    gradient: bool = True,
    trusted: bool = False,
) -> Captured:
    """Run `function` and keep what it computes.

    It is run again on other data and with other parameters, without looking at the results: what
    differs between the graphs would wrongly be frozen. Unless it is trusted: the library's own nets
    are functions of their arguments and parameters.

    Raises
    ------
    CaptureError
        If the function gives no Node, decides by values, or computes anything outside the graph
        that differs from call to call, such as random numbers.
    """
    names = _argument_names(function, len(arguments))
    leaves = [Node(np.array(_array(argument))) for argument in arguments]
    seen = trusting_run(function, leaves) if trusted else watched_runs(function, leaves)
    title = getattr(function, "__name__", "function")
    graph = _Capture(title, names, leaves, seen.output, seen.calls).build(gradient)
    for value in graph.values():
        if value.primitive is not None:
            seen.guard.follow_kernel(value.primitive)
    return replace(graph, guard=seen.guard, checks_labels=seen.checks_labels)


def captured_rule(optimizer: Any, stores: int) -> Captured | None:
    """How an optimiser updates one parameter `w`, as values; None where Nodes cannot tell."""
    shape = (2, 2)
    w, g, number = Node(np.full(shape, 0.5)), Node(np.full(shape, 0.25)), Node(3.0)
    kept = [Node(np.full(shape, 0.125)) for _ in range(stores)]
    twin = copy.copy(optimizer)
    twin.grad_stores = [{"w": node} for node in kept]
    param: dict[str, Any] = {"w": w}
    try:
        twin._update(param, {"w": g}, "w", number)
    except Exception:  # whatever a user's rule does with what it takes for arrays
        return None
    # named only now: a rule may write `param[g] -= …`, which a named Node refuses
    names = ("w", "g", "i", *(f"s{k + 1}" for k in range(stores)))
    for node, name in zip((w, g, number, *kept), names, strict=True):
        node.name = name
    ends = [param["w"], *(store["w"] for store in twin.grad_stores)]
    if not all(isinstance(node, Node) for node in ends):
        return None
    capture = _Capture("rule", [], [], ends[0], [], taken=())
    values = []
    for node, leaf in zip(ends, [w, *kept], strict=True):
        for reached in reversed(topological_order(node)):
            if reached.name is not None and reached not in capture.of:
                capture.of[reached] = capture.builder.leaf(reached.name, reached.value)
        value = capture.value(node)
        value.name = leaf.name or ""
        values.append(value)
    return Captured("rule", [], {}, {}, values[0], dict(zip(_names(kept), values[1:], strict=True)))


def _names(nodes: list[Node]) -> list[str]:
    return [node.name or "" for node in nodes]


def _array(argument: Any) -> Array:
    return argument.value if isinstance(argument, Node) else as_matrix(argument)


def _argument_names(function: Callable[..., Any], count: int) -> list[str]:
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        parameters = []
    named = [q.name for q in parameters if q.kind in (q.POSITIONAL_ONLY, q.POSITIONAL_OR_KEYWORD)]
    return [*named[:count], *(f"x{i}" for i in range(len(named), count))]


def identifier(name: str) -> str:
    """A Python name like `name`, in ASCII."""
    clean = "".join(c if c.isascii() and (c.isalnum() or c == "_") else "_" for c in name) or "t"
    return f"_{clean}" if clean[0].isdigit() or keyword.iskeyword(clean) else clean


def free_name(name: str, taken: set[str]) -> str:
    """A Python name like `name` that is not taken; from now on it is."""
    clean = identifier(name)
    free, number = clean, 2
    while free in taken:
        free, number = f"{clean}_{number}", number + 1
    taken.add(free)
    return free


class _Capture:
    """From the Nodes of one run to the values of a program."""

    def __init__(
        self,
        function: str,
        names: list[str],
        leaves: list[Node],
        output: Node,
        calls: list[LayerCall],
        taken: Collection[str] = RESERVED,
    ) -> None:
        self.function, self.leaves, self.output, self.calls = function, leaves, output, calls
        self.builder = Builder()
        self.of: dict[Node, Value] = {}
        self.taken = set(taken)
        self.forward = list(reversed(topological_order(output)))
        self.nodes: dict[str, Node] = {}
        self.last: Node | None = None  # what the last layer gives; beyond it is the loss
        for name, leaf in zip(names, leaves, strict=True):
            self.of[leaf] = self.builder.leaf(self._free(name), leaf.value)
        for node in self.forward:
            if node.name is not None and node not in self.of:
                if node.primitive is not None:
                    raise CaptureError(f"{node.name!r} is no leaf: only leaves can be parameters")
                if node.name in self.nodes:
                    raise CaptureError(
                        f"two different Nodes are both named {node.name!r}; each parameter needs "
                        "its own name"
                    )
                self.nodes[node.name] = node
                self.of[node] = self.builder.leaf(self._free(node.name), node.value)

    def build(self, gradient: bool) -> Captured:
        """The whole graph."""
        consumers = consumers_of(self.forward)
        after = [activation_after(c.pre_activation, consumers, self.output) for c in self.calls]
        self.last = after[-1][1] if after else None
        found: dict[Node, Node] = {}
        shares: list[tuple[Node, Node]] = []
        if gradient:
            found = sweep(
                self.output,
                topological_order(self.output),
                set(self.nodes.values()),
                Node(1.0),
                create_graph=True,
                also=set(self.forward),
                shares=shares,
            )
        parameters = {name: self.of[node] for name, node in self.nodes.items()}
        output = self.value(self.output)
        layers = [
            self._layer(call, function, activation, found)
            for call, (function, activation) in zip(self.calls, after, strict=True)
        ]
        self._name(output, self.function if self.function.isidentifier() else "output")
        # from the last layer to the first, as they are computed
        of_last_first = {
            name: self.value(found[node])
            for name, node in reversed(self.nodes.items())
            if node in found
        }
        for node in [*self.nodes.values(), *self.forward]:
            value = self.of[node]
            if value.name and node in found:
                self._name(self.value(found[node]), f"d_{value.name}")
        return Captured(
            self.function,
            [self.of[leaf] for leaf in self.leaves],
            parameters,
            self.nodes,
            output,
            dict(reversed(of_last_first.items())),
            layers,
            self._origins(shares),
            frozenset(self.taken),
        )

    def _layer(
        self,
        call: LayerCall,
        function: Activation | None,
        activation: Node,
        found: Mapping[Node, Node],
    ) -> CapturedLayer:
        h, x = self.value(call.pre_activation), self.value(activation)
        self._name(h, f"{call.name}_pre")
        self._name(x, call.name)
        deltas = [
            None if (delta := found.get(node)) is None else self.value(delta)
            for node in (call.pre_activation, call.affine, activation)
        ]
        return CapturedLayer(call.name, function, self.value(call.input), h, x, *deltas)

    def value(self, node: Node) -> Value:
        """The value of a Node, and of all that it was computed from."""
        stack = [node]
        while stack:
            top = stack[-1]
            if top in self.of:
                stack.pop()
                continue
            if top.primitive is None:
                self.of[top] = self.builder.constant(top.value)
                continue
            missing = [q for q in top.parents if q not in self.of]
            if missing:
                stack.extend(reversed(missing))
                continue
            self.of[top] = self.builder.apply(
                top.primitive,
                [self.of[q] for q in top.parents],
                top.settings,
                top.shape,
                top.dtype,
                top.value,
            )
        return self.of[node]

    def _free(self, name: str) -> str:
        """A Python name like `name` that nothing else has."""
        return free_name(name, self.taken)

    def _name(self, value: Value, name: str) -> None:
        if not value.name and not value.constant:
            value.name = self._free(name)

    def _origins(self, shares: list[tuple[Node, Node]]) -> dict[Value, Origin]:
        """The layer of each value: forward by position, backward by the rule that made it."""
        origins: dict[Value, Origin] = {}
        number = {id(call.layer.weight): i for i, call in enumerate(self.calls)}
        names = [*(call.name for call in self.calls), ""]
        reached: dict[Node, int] = {}  # the last layer that a node has gone through
        for node in self.forward:
            at = max((reached[q] for q in node.parents), default=-1)
            if any(q is self.last for q in node.parents):
                at = len(self.calls)
            elif node.primitive in (p.dot, p.affine):
                at = max(at, number.get(id(node.parents[1]), -1))
            reached[node] = at
            if node.primitive is not None:
                origins.setdefault(self.of[node], Origin(names[at], backward=False))
        for share, node in shares:
            assert node.primitive is not None
            stack = [share]
            while stack:
                made = stack.pop()
                value = self.of.get(made)
                if value is None or value in origins or made in reached:
                    continue
                origins[value] = Origin(names[reached[node]], True, node.primitive.name)
                stack.extend(made.parents)
        return origins
