"""What a forward pass changes is put back: buffers, attributes, random streams."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from gradiometer.recording.restore import same_streams


@contextlib.contextmanager
def restored(model: nn.Module) -> Iterator[None]:
    """Put back what a forward pass inside the block changes, in evaluation mode too.

    That is: values of buffers, and of vectors among the parameters that are not trained (of which
    some modules make buffers); the attributes of every module (counters, hidden states); and the
    random streams of PyTorch, NumPy, Python, and of generators that modules hold.
    """
    modules = list(model.modules())
    attributes = [dict(vars(module)) for module in modules]
    tables = [dict(module._buffers) for module in modules]
    kept = [(tensor, tensor.detach().clone()) for tensor in _written(model)]
    generators = [(one, one.get_state()) for one in _generators(attributes)]
    devices = {p.device.index for p in model.parameters() if p.is_cuda}
    try:
        with torch.random.fork_rng(sorted(devices)), same_streams():
            yield
    finally:
        for generator, state in generators:
            generator.set_state(state)
        for module, before, buffers in zip(modules, attributes, tables, strict=True):
            _put_back(vars(module), before)
            _put_back(module._buffers, buffers)
        for tensor, values in kept:
            # by way of `data`: for autograd nothing has happened
            tensor.data.copy_(values)


def _written(model: nn.Module) -> list[torch.Tensor]:
    # not matrices: a copy of all that is frozen may be large, and nobody writes there
    frozen = [p for p in model.parameters() if not p.requires_grad and p.ndim < 2]
    return [
        tensor
        for tensor in (*model.buffers(), *frozen)
        if not isinstance(tensor, nn.parameter.UninitializedTensorMixin)
    ]


def _generators(attributes: list[dict[str, Any]]) -> list[torch.Generator]:
    values = [value for table in attributes for value in table.values()]
    return [value for value in values if isinstance(value, torch.Generator)]


def _put_back(table: dict[str, Any], before: dict[str, Any]) -> None:
    for name in [name for name in table if name not in before]:
        del table[name]
    for name, value in before.items():
        if table.get(name) is not value:
            table[name] = value
