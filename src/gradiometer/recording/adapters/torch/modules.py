"""The modules of a model: which hold its layers, and whether they are still in their places."""

from __future__ import annotations

import torch
from torch import nn

from gradiometer.recording.adapters.torch.layers import Layer
from gradiometer.recording.adapters.torch.parametrized import parametrization
from gradiometer.recording.adapters.torch.plan import Plan


class Modules:
    """A model's modules as they were found.

    Parameters
    ----------
    plan : Plan

    Attributes
    ----------
    layers : dict of int to list of Layer
        By the identity of the module whose output shows what is known of them; other modules have
        an empty list.
    left_out : dict of int to list of Layer
        The same of layers that are not recorded; other modules are not in it.
    wholes : set of int
        Identities of modules that hold every layer: the model, what it wraps, or its one network.
    is_wrapped : bool
        Whether a part of it was compiled.
    """

    def __init__(self, plan: Plan) -> None:
        model, layers = plan.model, plan.layers
        outputs = {id(layer.output) for layer in (*layers, *plan.left_out)}
        self.wholes = {
            id(module)
            for module in model.modules()
            if outputs <= {id(inside) for inside in module.modules()}
        }
        self.layers: dict[int, list[Layer]] = {id(module): [] for module in model.modules()}
        for layer in layers:
            self.layers[id(layer.output)].append(layer)
        self.left_out: dict[int, list[Layer]] = {}
        for layer in plan.left_out:
            self.left_out.setdefault(id(layer.output), []).append(layer)
        behind = [(parametrization(layer.owner, layer.parameter), layer) for layer in layers]
        self._computing = {id(made): layer for made, layer in behind if made is not None}
        # a module that is replaced lives on, so that no other one gets its identity
        self._tree = [
            (parent._modules, name, child)
            for parent in model.modules()
            for name, child in parent.named_children()
        ]
        self.is_wrapped = any(hasattr(module, "_orig_mod") for module in model.modules())

    def computed(self, module: nn.Module, output: torch.Tensor) -> None:
        """Note the shape of a weight, if this module has computed one."""
        layer = self._computing.get(id(module))
        if layer is not None:
            layer.seen[:] = [output.shape]

    @property
    def are_intact(self) -> bool:
        """Whether all modules are where they were found."""
        return all(place.get(name) is module for place, name, module in self._tree)
