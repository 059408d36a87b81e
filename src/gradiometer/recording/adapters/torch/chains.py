"""Which layers of a PyTorch model lead to which, as autograd's graph of the first step shows it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from gradiometer.recording.adapters.torch.backward import BACKWARD, Pass
from gradiometer.recording.adapters.torch.layers import Layer
from gradiometer.recording.chains import layers_before

MOST_UNREACHED = 8  # nodes of a layer, for a critic that is called several times before its pass


class Chains:
    """Notes the outputs of layers in the first step; says then what the chains are.

    No tensor is kept, but nodes of autograd's graph are, until `found` or `forget`: of each layer
    the latest few that no backward pass has come to, so that mere evaluations use no memory.
    """

    def __init__(self) -> None:
        self._layers: dict[Any, list[Layer]] = {}  # by the node that computed their output
        self._passes: dict[Layer, dict[Pass, None]] = {}  # that came to them
        self._hooks: dict[Any, Any] = {}  # by node
        self._unreached: dict[Layer, list[Any]] = {}
        self._known = False  # nothing more is wanted
        self._hidden = False  # whether parts of the graph were never seen as a whole

    def note(self, layer: Layer, h: torch.Tensor) -> None:
        """Note an output of a layer."""
        node = h.grad_fn
        if self._known or node is None:
            return
        if BACKWARD.passing(h) is not None:  # computed again for a backward pass that is running
            self._hidden |= not any(layer in there for there in self._layers.values())
            return
        if node not in self._layers:
            self._hooks[node] = node.register_prehook(self._arrival(node))
        self._layers.setdefault(node, []).append(layer)
        waiting = self._unreached.setdefault(layer, [])
        waiting.append(node)
        if len(waiting) > MOST_UNREACHED:
            oldest = waiting.pop(0)
            if oldest in self._hooks:
                self._hooks.pop(oldest).remove()
            for other in self._layers.pop(oldest, ()):
                if oldest in self._unreached.get(other, ()):
                    self._unreached[other].remove(oldest)

    def _arrival(self, node: Any) -> Any:
        def arrived(gradients: tuple[torch.Tensor | None, ...]) -> None:
            given = next((gradient for gradient in gradients if gradient is not None), None)
            passing = None if given is None else BACKWARD.passing(given)
            if passing is not None:
                for layer in self._layers.get(node, ()):
                    self._passes.setdefault(layer, {})[passing] = None
                    if node in self._unreached[layer]:
                        self._unreached[layer].remove(node)

        return arrived

    def weight_reached(self, layer: Layer, passing: Pass) -> None:
        """Note that a pass came to a layer's weight, perhaps not by way of its output."""
        if not self._known and layer in self._passes:
            self._passes[layer][passing] = None

    def found(
        self, places: Mapping[Layer, int]
    ) -> tuple[dict[int, int], dict[int, tuple[Pass, ...]]] | None:
        """Which layers lead to which, and by which passes they were reached; ends the noting.

        As `chains_of` takes it, by the layers' positions; None if it cannot be seen.
        """
        marked = {
            node: [places[layer] for layer in layers if layer in places]
            for node, layers in self._layers.items()
        }
        groups = {
            places[layer]: tuple(passes)
            for layer, passes in self._passes.items()
            if layer in places
        }
        hidden = self._hidden or not groups
        before = {} if hidden else layers_before(marked, _operands_first(list(marked)), _operands)
        self.forget()
        self._known = True
        return None if hidden else (before, groups)

    def forget(self) -> None:
        """Forget what was noted."""
        for hook in self._hooks.values():
            hook.remove()
        self._hooks, self._layers, self._passes, self._unreached = {}, {}, {}, {}
        self._hidden = False


def _operands(node: Any) -> list[Any]:
    return [operand for operand, _ in node.next_functions if operand is not None]


def _operands_first(nodes: list[Any]) -> list[Any]:
    """Every node that these were computed from, and these; operands before their users."""
    order: list[Any] = []
    seen: set[Any] = set()
    stack = [(node, False) for node in nodes]
    while stack:
        node, done = stack.pop()
        if done:
            order.append(node)
        elif node not in seen:
            seen.add(node)
            stack.append((node, True))
            stack.extend((operand, False) for operand in _operands(node))
    return order
