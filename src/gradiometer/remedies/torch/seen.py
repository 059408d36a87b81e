"""Which modules a model of PyTorch calls in its first forward pass, and on which shapes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
ACTIVATIONS = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish,
    nn.Sigmoid, nn.Tanh, nn.Softsign, nn.Softplus, nn.LogSigmoid, nn.Hardsigmoid, nn.Hardtanh,
    nn.Hardswish,
)  # fmt: skip
ENDINGS = (*ACTIVATIONS, nn.Softmax, nn.LogSoftmax)


@dataclass(frozen=True)
class Call:
    """A call of a module that has no modules of its own.

    Attributes
    ----------
    name : str
        Of the module within the model.
    module : Module
    before, after : tuple of int
        Shapes of its first input and its output; () if these are no tensors.
    """

    name: str
    module: nn.Module
    before: tuple[int, ...]
    after: tuple[int, ...]


@dataclass
class Seen:
    """The first forward pass of a model.

    Attributes
    ----------
    calls : list of Call
        In order.
    inputs : Tensor or None
        A copy of the model's first argument; None if that is no tensor.
    """

    calls: list[Call] = field(default_factory=list)
    inputs: torch.Tensor | None = None

    def hidden_layers(self) -> list[Call]:
        """Calls of linear and convolutional layers, each layer once, without the last one."""
        found = {call.name: call for call in self.calls if isinstance(call.module, LAYERS)}
        return list(found.values())[:-1]

    def _last_layer(self) -> int:
        places = [i for i, call in enumerate(self.calls) if isinstance(call.module, LAYERS)]
        return places[-1] if places else -1

    def hidden_activations(self) -> list[Call]:
        """Calls of activation functions before the last layer's."""
        before = self.calls[: max(self._last_layer(), 0)]
        return [call for call in before if isinstance(call.module, ACTIVATIONS)]

    def ending(self) -> list[Call]:
        """Calls of activation functions after the last layer's."""
        after = self.calls[self._last_layer() + 1 :] if self._last_layer() >= 0 else []
        hidden = {call.name for call in self.hidden_activations()}
        return [
            call for call in after if isinstance(call.module, ENDINGS) and call.name not in hidden
        ]

    def blocks(self) -> list[tuple[Call, Call]]:
        """Hidden layers with the activation function that follows, where both keep the shape."""
        found, layer = [], None
        for call in self.calls[: max(self._last_layer(), 0)]:
            if isinstance(call.module, LAYERS):
                layer = call
            elif isinstance(call.module, ACTIVATIONS) and layer is not None:
                if layer.before and layer.before == call.after:
                    found.append((layer, call))
                layer = None
        return found


@contextmanager
def first_pass(model: nn.Module) -> Iterator[Seen]:
    """Watch the first forward pass of a model inside the block; nothing is changed."""
    seen = Seen()
    handles: list[Any] = []

    def stop(*_: Any) -> None:
        for handle in handles:
            handle.remove()

    def begin(_: nn.Module, given: tuple[Any, ...]) -> None:
        if given and isinstance(given[0], torch.Tensor):
            seen.inputs = given[0].detach().clone()

    def watch(name: str) -> Any:
        def note(module: nn.Module, given: tuple[Any, ...], out: Any) -> None:
            seen.calls.append(Call(name, module, _shape(given[0] if given else None), _shape(out)))

        return note

    handles.append(model.register_forward_pre_hook(begin))
    for name, module in model.named_modules():
        if not any(module.children()):
            handles.append(module.register_forward_hook(watch(name)))
    handles.append(model.register_forward_hook(stop))
    try:
        yield seen
    finally:
        stop()


def _shape(value: Any) -> tuple[int, ...]:
    return tuple(value.shape) if isinstance(value, torch.Tensor) else ()
