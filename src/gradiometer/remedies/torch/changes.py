"""How a remedy changes a model of PyTorch, its optimizer, or how it is trained.

Each function changes exactly one thing about a `Trial`, or raises `NotApplicable`. Modules are
exchanged, and hooks put on them, before the training begins; what is computed by functions that
`forward` calls itself cannot be exchanged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import nn

from gradiometer.remedies.applying import NotApplicable
from gradiometer.remedies.torch.seen import LAYERS, Call
from gradiometer.remedies.torch.trial import Trial

OWNERS = (*LAYERS, nn.RNNBase, nn.RNNCellBase, nn.MultiheadAttention)
NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm)
DROPOUTS = (nn.modules.dropout._DropoutNd,)
MOST_NORM = 1.0  # of a clipped gradient


# --- modules --------------------------------------------------------------------------------------


def replace_activations(trial: Trial, name: str) -> None:
    """Exchange the activation functions of hidden layers."""
    new = getattr(nn, name)
    calls = trial.seen.hidden_activations()
    if not calls:
        raise NotApplicable("it calls no module of an activation function before its last layer")
    if all(type(call.module) is new for call in calls):
        raise NotApplicable(f"{name} is its activation function")
    _exchange(trial.model, calls, new)


def replace_relus(trial: Trial, name: str) -> None:
    """Exchange the ReLUs of hidden layers."""
    calls = [call for call in trial.seen.hidden_activations() if type(call.module) is nn.ReLU]
    if not calls:
        raise NotApplicable("it calls no module of a ReLU before its last layer")
    _exchange(trial.model, calls, getattr(nn, name))


def linear_output(trial: Trial) -> None:
    """Take the activation function after the last layer away."""
    calls = trial.seen.ending()
    if not calls:
        raise NotApplicable("it calls no module of an activation function after its last layer")
    _exchange(trial.model, calls, nn.Identity)


def _exchange(model: nn.Module, calls: Iterable[Call], new: Callable[[], nn.Module]) -> None:
    """Put a new module in each place of those that were called."""
    old = {model.get_submodule(call.name) for call in calls}
    for parent in list(model.modules()):
        for key, child in list(parent._modules.items()):
            if child in old:
                parent._modules[key] = new().train(child.training)


def normalise(trial: Trial, kind: str) -> None:
    """Normalise what hidden layers give, before their activation functions."""
    if any(isinstance(module, NORMS) for module in trial.model.modules()):
        raise NotApplicable("it is normalised already")
    made = []
    for call in trial.seen.hidden_layers():
        layer = trial.model.get_submodule(call.name)
        norm = _norm(layer, call, kind)
        if norm is not None:
            norm.to(layer.weight.device, layer.weight.dtype).train(layer.training)
            layer.add_module("normalisation", norm)
            layer.register_forward_hook(lambda _, __, out, norm=norm: norm(out))
            made.append(norm)
    if not made:
        raise NotApplicable("it has no hidden layer that can be normalised so")
    _own(trial, [parameter for norm in made for parameter in norm.parameters()])


def _norm(layer: nn.Module, call: Call, kind: str) -> nn.Module | None:
    if isinstance(layer, nn.Linear):
        if kind == "layer":
            return nn.LayerNorm(layer.out_features)
        return nn.BatchNorm1d(layer.out_features) if len(call.after) == 2 else None
    if kind == "layer":
        return nn.GroupNorm(1, layer.out_channels)
    batch_norms = {nn.Conv1d: nn.BatchNorm1d, nn.Conv2d: nn.BatchNorm2d, nn.Conv3d: nn.BatchNorm3d}
    return next(
        new(layer.out_channels) for old, new in batch_norms.items() if isinstance(layer, old)
    )


def add_residuals(trial: Trial) -> None:
    """Add a hidden layer's input to what its activation function gives."""
    blocks = trial.seen.blocks()
    if not blocks:
        raise NotApplicable(
            "no hidden layer keeps the shape and is followed by a module of an activation function"
        )
    waiting: list[torch.Tensor] = []  # the input of the latest layer, until it is added

    def note(_: nn.Module, given: tuple[Any, ...]) -> None:
        waiting[:] = [given[0]]

    def add(_: nn.Module, __: Any, out: torch.Tensor) -> torch.Tensor:
        x = waiting.pop() if waiting else None
        return out if x is None or x.shape != out.shape else out + x

    for name in {layer.name for layer, _ in blocks}:
        trial.model.get_submodule(name).register_forward_pre_hook(note)
    for name in {activation.name for _, activation in blocks}:
        trial.model.get_submodule(name).register_forward_hook(add)


def no_dropout(trial: Trial) -> None:
    """Drop no units."""
    found = [module for module in trial.model.modules()
             if isinstance(module, (*DROPOUTS, nn.RNNBase, nn.MultiheadAttention))]  # fmt: skip
    rates = {module: "p" if isinstance(module, DROPOUTS) else "dropout" for module in found}
    if not any(getattr(module, rate) > 0 for module, rate in rates.items()):
        raise NotApplicable("it drops no units")
    for module, rate in rates.items():
        setattr(module, rate, 0.0)


# --- initial weights ------------------------------------------------------------------------------


def initialise(trial: Trial, function: str) -> None:
    """Draw the weights of all layers anew; biases stay."""
    weights = [value for name, value in _own_parameters(trial.model) if value.dim() > 1]
    if not weights:
        raise NotApplicable("it has no linear, convolutional or recurrent layer")
    more = {"nonlinearity": "relu"} if function.startswith("kaiming") else {}
    for weight in weights:
        getattr(nn.init, function)(weight, **more)


def zero_biases(trial: Trial) -> None:
    """Let the biases of all layers begin at zero."""
    biases = [value for name, value in _own_parameters(trial.model) if "bias" in name]
    if not any(bool(bias.count_nonzero()) for bias in biases):
        raise NotApplicable("its biases begin at zero" if biases else "it has no biases")
    for bias in biases:
        nn.init.zeros_(bias)


def _own_parameters(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Weights and biases of layers, not those of embeddings and normalisation."""
    for module in model.modules():
        if isinstance(module, OWNERS):
            if hasattr(module, "parametrizations"):
                raise NotApplicable("its weights are parametrised")
            yield from module.named_parameters(recurse=False)


# --- inputs ---------------------------------------------------------------------------------------


def standardise_inputs(trial: Trial) -> None:
    """Standardise the model's first argument by the first batch: each feature, or all together."""
    x = trial.seen.inputs
    if x is None or not x.is_floating_point():
        raise NotApplicable("its first argument is no tensor of floating-point numbers")
    if not bool(x.isfinite().all()):
        raise NotApplicable("its first inputs are not finite")
    axes = 0 if x.dim() == 2 else tuple(range(x.dim()))
    # squares of large inputs overflow in float32
    mean, std = (found(x.double(), dim=axes, keepdim=True) for found in (torch.mean, torch.std))
    if not bool((std > 0).any()):
        raise NotApplicable("its inputs are constant")
    if bool((mean.abs() < 0.25).all()) and bool(((std > 0.5) & (std < 2)).all()):
        raise NotApplicable("its inputs are standardised")
    std = torch.where(std > 0, std, torch.ones_like(std))

    def scale(_: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
        first = given[0]
        scaled = (first.double() - mean.to(first.device)) / std.to(first.device)
        return (scaled.to(first.dtype), *given[1:])

    trial.model.register_forward_pre_hook(scale)


# --- optimizer ------------------------------------------------------------------------------------


def scale_rate(trial: Trial, by: float) -> None:
    """Multiply the learning rates."""
    for group in _optimizer(trial).param_groups:
        for name in {"lr", "initial_lr"} & set(group):
            group[name] = group[name] * by


def fit_rate(trial: Trial) -> None:
    """Multiply the learning rates so that the largest update is a hundredth of the weights."""
    if trial.factor is None:
        raise NotApplicable("the run does not tell that its updates are too large or too small")
    scale_rate(trial, trial.factor)


def clip_gradient(trial: Trial) -> None:
    """Limit the norm of the gradient before each step."""

    def clip(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        owned = [value for group in optimizer.param_groups for value in group["params"]]
        nn.utils.clip_grad_norm_(owned, MOST_NORM)

    _optimizer(trial).register_step_pre_hook(clip)


def clear_gradients(trial: Trial) -> None:
    """Clear the gradients after each step."""
    if not trial.accumulates:
        raise NotApplicable("the diagnosis does not say that gradients are accumulated")
    _optimizer(trial).register_step_post_hook(lambda optimizer, *_: optimizer.zero_grad())


def use_adam(trial: Trial) -> None:
    """Adam with its usual rate, for the same parameters."""
    old = _optimizer(trial)
    if isinstance(old, (torch.optim.Adam, torch.optim.AdamW)):
        raise NotApplicable("Adam is its optimizer")
    owned = [value for group in old.param_groups for value in group["params"]]
    decay = old.param_groups[0].get("weight_decay", 0.0)
    trial.optimizer = torch.optim.Adam(owned, lr=0.001, weight_decay=decay)


def own_all(trial: Trial) -> None:
    """Let the optimizer own all parameters, and let all be trained."""
    groups = _optimizer(trial).param_groups
    owned = {id(value) for group in groups for value in group["params"]}
    missing = [value for value in trial.model.parameters() if id(value) not in owned]
    frozen = [value for value in trial.model.parameters() if not value.requires_grad]
    if not missing and not frozen:
        raise NotApplicable("the optimizer owns all parameters")
    for value in frozen:
        value.requires_grad_(True)
    _own(trial, missing)


def no_weight_decay(trial: Trial) -> None:
    """No weight decay."""
    groups = _optimizer(trial).param_groups
    if not any(group.get("weight_decay", 0.0) for group in groups):
        raise NotApplicable("it has no weight decay")
    for group in groups:
        group["weight_decay"] = 0.0


def _optimizer(trial: Trial) -> torch.optim.Optimizer:
    if not isinstance(trial.optimizer, torch.optim.Optimizer):
        raise NotApplicable("make_model gives no optimizer of PyTorch")
    return trial.optimizer


def _own(trial: Trial, parameters: list[nn.Parameter]) -> None:
    """Give the optimizer more parameters, with the options of its first group."""
    optimizer = _optimizer(trial)
    options = {key: value for key, value in optimizer.param_groups[0].items() if key != "params"}
    if parameters:
        optimizer.add_param_group({**options, "params": parameters})


# --- loss -----------------------------------------------------------------------------------------


def use_loss(trial: Trial, name: str) -> None:
    """Another loss function."""
    if not trial.takes_loss:
        raise NotApplicable("train has no parameter `loss`")
    if trial.by_recorded_loss:
        raise NotApplicable("train does not return what was reached, and losses differ")
    trial.loss = getattr(nn.functional, name)
