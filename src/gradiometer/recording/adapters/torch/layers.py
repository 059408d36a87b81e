"""Which modules of a PyTorch model own weights, and what is known of their outputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import nn

from gradiometer.recording.adapters.torch.fans import fans_of
from gradiometer.recording.adapters.torch.parametrized import (
    computed_weights,
    parametrization,
    shape_of,
)
from gradiometer.recording.adapters.torch.unregistered import unregistered_layers
from gradiometer.recording.errors import RecordingError
from gradiometer.recording.session import LayerInfo

Unit = Callable[[nn.Module, torch.Tensor], int]


def _last(_: nn.Module, h: torch.Tensor) -> int:
    return h.ndim - 1


def _second(_: nn.Module, h: torch.Tensor) -> int:
    return 1 if h.ndim > 1 else 0


def _spatial(dims: int) -> Unit:
    """Channels stand before the spatial axes; a batch axis may be missing."""
    return lambda _, h: h.ndim - 1 - dims


# Modules whose output is the pre-activation itself: the axis of its units. Others may apply an
# activation function inside, where their delta cannot be seen.
AFFINE: dict[type[nn.Module], Unit] = {
    nn.Linear: _last,
    nn.Bilinear: _last,
    nn.Embedding: _last,
    nn.EmbeddingBag: _last,
    nn.Conv1d: _spatial(1),
    nn.Conv2d: _spatial(2),
    nn.Conv3d: _spatial(3),
    nn.ConvTranspose1d: _spatial(1),
    nn.ConvTranspose2d: _spatial(2),
    nn.ConvTranspose3d: _spatial(3),
    nn.modules.batchnorm._BatchNorm: _second,
    nn.InstanceNorm1d: _spatial(1),
    nn.InstanceNorm2d: _spatial(2),
    nn.InstanceNorm3d: _spatial(3),
    nn.GroupNorm: _second,
    nn.LayerNorm: _last,
    **({nn.RMSNorm: _last} if hasattr(nn, "RMSNorm") else {}),
}

NORMALISATIONS = tuple(kind for kind in AFFINE if "Norm" in kind.__name__)

COMPUTED = "its weight is parametrized: computed from other parameters"
COMPLEX = "its entries are complex numbers"
REPLACED = "its forward was replaced on the instance, and what is computed there cannot be seen"

# torch.compile, nn.DataParallel and the like: what they hold is named as if they were not there
WRAPPED_AS = ("_orig_mod", "module")


@dataclass(frozen=True, eq=False)
class Layer:
    """A weight, and the module whose output is (or is not) its pre-activation.

    Attributes
    ----------
    name : str
        The module's qualified name, followed by the parameter's if the module owns several weights.
    owner : nn.Module
        The module that owns the parameter.
    parameter : str
        Its name there.
    output : nn.Module
        The module whose output shows what is known of the layer's units.
    unit : callable or None
        The axis of the units in that output; None if the output is no pre-activation.
    why_not : str
        Why the output is no pre-activation.
    weight_why_not : str
        Why the parameter is not the weight that is used.
    holds_others : bool
        Whether other layers are inside of the module that uses it, so that its place among them is
        not known by the module's call.
    """

    name: str
    owner: nn.Module
    parameter: str
    output: nn.Module
    unit: Unit | None
    why_not: str = ""
    weight_why_not: str = ""
    holds_others: bool = False
    # shape of a computed weight, once a forward pass has shown it
    seen: list[torch.Size] = field(default_factory=list)

    @property
    def weight(self) -> torch.Tensor | None:
        """The parameter as it is now; None if it is not to be measured, or is none any more."""
        return None if self.weight_why_not else self.owner._parameters.get(self.parameter)

    @property
    def is_linear(self) -> bool:
        """Whether its output is the product of its input and the weight, plus a bias."""
        return self.unit is not None and isinstance(self.owner, nn.Linear)

    @property
    def trained(self) -> list[torch.Tensor]:
        """The parameters that training it updates: the weight, or those it is computed from."""
        weight = self.weight
        if weight is not None:
            return [weight]
        made = parametrization(self.owner, self.parameter)
        if made is not None:
            return list(made.parameters())
        own = self.owner._parameters.items()
        return [
            parameter
            for name, parameter in own
            if parameter is not None and f"{name}_".startswith(f"{self.parameter}_")
        ]

    @property
    def shape(self) -> torch.Size:
        """The weight's shape, without computing a parametrized weight once more."""
        if self.seen:
            return self.seen[-1]
        return shape_of(self.owner, self.parameter)

    @property
    def info(self) -> LayerInfo:
        """What the recorder is told; the activation function is not known yet."""
        fan_in, fan_out = fans_of(self.owner, torch.empty(self.shape, device="meta"))
        kind = "normalisation" if isinstance(self.owner, NORMALISATIONS) else "affine"
        return LayerInfo(self.name, fan_in, fan_out, "unknown", kind=kind)


def unwrapped(model: nn.Module) -> nn.Module:
    """The module inside `torch.compile`, `nn.DataParallel` and other wrappers."""
    while not list(model.parameters(recurse=False)):
        children = dict(model.named_children())
        inner = next((children[name] for name in WRAPPED_AS if name in children), None)
        if inner is None or len(children) > 1:
            break
        model = inner
    return model


def find_layers(model: nn.Module) -> list[Layer]:
    """Every weight of a model, in the order of registration.

    Raises
    ------
    RecordingError
        If there is none, or if the weights are not where they can be seen.
    """
    layers: list[Layer] = []
    hidden = _inside_parametrizations(model)
    seen_at = _seen_at(model)
    for name, module in model.named_modules():
        _check_visible(name, module)
        if id(module) not in hidden:
            layers += _weights_of(name, module, seen_at.get(id(module), module))
    if not layers:
        unregistered = unregistered_layers(model)
        raise RecordingError(
            f"{type(model).__name__} owns no weights, so there is nothing to record; "
            + (unregistered[0].why if unregistered else f"expected {EXPECTED}")
        )
    return _marked(_each_once(layers))


EXPECTED = "a torch.nn.Module with Linear, Conv, Embedding or other layers"
# they hold parameters for the module whose attribute they are, and are never called
_HOLDERS = (nn.ParameterList, nn.ParameterDict)


def _seen_at(model: nn.Module) -> dict[int, nn.Module]:
    """Modules that are not called themselves: the module whose output shows what is known."""
    found: dict[int, nn.Module] = {}
    for module in model.modules():
        if isinstance(module, nn.MultiheadAttention):
            # attention uses this projection without calling it: its output is the other's
            found[id(module.out_proj)] = module
        for child in module.children():
            if isinstance(child, _HOLDERS):
                found[id(child)] = found.get(id(module), module)
    return found


def _each_once(layers: list[Layer]) -> list[Layer]:
    """Without those that only hold another layer's weight too.

    Layers that share a weight all stay.
    """
    sharing: dict[int, list[Layer]] = {}
    for layer in layers:
        parameter = layer.owner._parameters.get(layer.parameter)
        # one that is computed is like no other
        sharing.setdefault(id(layer if parameter is None else parameter), []).append(layer)
    kept: set[Layer] = set()
    for several in sharing.values():
        users = [layer for layer in several if not isinstance(layer.owner, _HOLDERS)]
        # of holders alone, the outermost
        users = users or [min(several, key=lambda layer: layer.name.count("."))]
        kept |= {
            layer for layer in users if not any(_holds(layer.owner, other.owner) for other in users)
        }
    return [layer for layer in layers if layer in kept]


def _holds(module: nn.Module, other: nn.Module) -> bool:
    return other is not module and any(other is inside for inside in module.modules())


def _marked(layers: list[Layer]) -> list[Layer]:
    """With `holds_others` where it is so."""
    found = []
    for layer in layers:
        if layer.unit is None and not isinstance(layer.output, nn.MultiheadAttention):
            inside = {id(module) for module in layer.output.modules()} - {id(layer.output)}
            if any(id(other.output) in inside for other in layers):
                layer = replace(layer, holds_others=True)
        found.append(layer)
    return found


def _weights_of(name: str, module: nn.Module, output: nn.Module) -> list[Layer]:
    parameters = dict(module.named_parameters(recurse=False))
    computed = computed_weights(module)
    names = [
        key
        for key, p in parameters.items()
        if _is_weight(key, p) and not any(key.startswith(f"{made}_") for made in computed)
    ]
    names += [key for key in computed if not key.startswith("bias")]
    why = dict.fromkeys(computed, COMPUTED)
    why |= {key: COMPLEX for key in names if key in parameters and parameters[key].is_complex()}
    unit = _unit(module)
    hidden = "" if unit else f"what {type(output).__name__} computes inside cannot be seen"
    if not unit and "forward" in vars(module):
        hidden = REPLACED
    if unit and COMPLEX in why.values():
        unit, hidden = None, "its outputs are complex numbers"
    return [
        Layer(
            _name_of(name, key if len(names) > 1 or not name or "/" in key else ""),
            module, key, output, unit, hidden, why.get(key, ""),
        )
        for key in names
    ]  # fmt: skip


def _name_of(path: str, key: str) -> str:
    """A layer's name; without the attribute in which Keras keeps the variables of a layer."""
    return ".".join(part for part in (*path.split("."), key) if part not in ("", "_torch_params"))


def _unit(module: nn.Module) -> Unit | None:
    for kind, axis in AFFINE.items():
        # a subclass with its own forward may do anything there, and so may an instance
        own = type(module).forward is not kind.forward or "forward" in vars(module)
        if isinstance(module, kind) and not own:
            return axis
    return None


def _is_weight(name: str, parameter: nn.Parameter) -> bool:
    if name.rpartition("/")[2].startswith("bias"):  # Keras names them by paths
        return False
    uninitialized = isinstance(parameter, nn.parameter.UninitializedTensorMixin)
    if not uninitialized and not parameter.numel():
        return False
    return name == "weight" or uninitialized or parameter.ndim > 1


def _inside_parametrizations(model: nn.Module) -> set[int]:
    lists = (m for m in model.modules() if isinstance(m, nn.utils.parametrize.ParametrizationList))
    return {id(inside) for entry in lists for inside in entry.modules()}


def _check_visible(name: str, module: nn.Module) -> None:
    """Raise RecordingError for what would be recorded wrongly."""
    where = f"module {name!r}" if name else "the model"
    if isinstance(module, torch.jit.ScriptModule):
        raise RecordingError(
            f"{where} is a {type(module).__name__}, whose inside cannot be seen; record the module "
            "it was made of"
        )
    kinds = {kind.__name__ for kind in type(module).__mro__}
    if not kinds.isdisjoint({"FullyShardedDataParallel", "FSDPModule"}):
        raise RecordingError(
            f"{where} is sharded (FSDP): no process holds its weights as a whole; record the model "
            "before it is sharded"
        )
    for key, parameter in module.named_parameters(recurse=False):
        if isinstance(parameter, nn.parameter.UninitializedTensorMixin):
            raise RecordingError(
                f"parameter {key!r} of {where} has no shape yet; call the model on one batch first"
            )
