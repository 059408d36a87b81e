"""Which models can be compiled, and the capture of their loss."""

from __future__ import annotations

from typing import Any

import numpy as np

from dp.activations import Activation
from dp.errors import CaptureError, ShapeError
from dp.mode import MODE, mode
from dp.model import Model
from dp.net import Net
from dp.parameters import members_of, registered
from dp.program.capture import Captured, captured
from dp.program.reads import apart
from dp.typing import Array
from dp.untrained import check_stack, of_other_models
from dp.updates import Updates


def check_model(model: Any) -> None:
    """Refuse what has methods of its own that a program would not call."""
    if not isinstance(model, Model):
        raise CaptureError(f"only a dp.Model can be compiled, got {type(model).__name__}")
    for method in ("get_grad", "get_param", "set_param"):
        own = getattr(type(model), method) is not getattr(Model, method)
        if own or method in vars(model):
            raise CaptureError(
                f"{type(model).__name__} has its own {method}, which a program would not call; "
                "train it without compile=True"
            )


def pure(model: Model) -> bool:
    """Whether a model is a net of the library's own, which depends on its parameters alone."""
    own = {"loss", "forward", "logits"} & vars(model).keys()
    return type(model) is Net and isinstance(model.activation, Activation) and not own


def captured_loss(model: Any, x: Array, y: Array) -> Captured:
    """Capture a model's loss on a batch, and refuse what a program would freeze."""
    found = captured(model.loss, (x, y), trusted=pure(model))
    if found.output.shape[-2:] != (1, 1):
        raise ShapeError(
            f"{type(model).__name__}.loss must give one number, got shape {found.output.shape}"
        )
    if not found.gradients:
        raise ValueError(f"the loss of {type(model).__name__} depends on none of its parameters")
    kept = registered(model)
    own = {} if kept is None else kept.parameters
    if kept is not None and len(found.output.shape) > 2:
        check_stack(type(model).__name__, kept, found.output.shape)
    others = of_other_models(found.nodes, own)
    if others:
        raise CaptureError(
            f"the loss depends on parameters of another model ({', '.join(others)}), which a "
            "program would freeze; train it without compile=True, or make the layers in this model"
        )
    strangers = sorted(name for name, node in found.nodes.items() if own.get(name) is not node)
    if strangers:
        raise CaptureError(
            f"the loss uses named Nodes that are no parameters of the model: "
            f"{', '.join(strangers)}; a program would freeze them. Make a parameter in __init__: "
            f'self.w = self.Parameter(value, "{strangers[0]}")'
        )
    return found


def check_labels(optimizer: Updates, loss: Captured) -> None:
    """Let a loss of the library's own look at every label, as eager steps would in time."""
    model, x, y = optimizer.model, optimizer.x_train, optimizer.y_train
    if not loss.checks_labels:
        return
    if isinstance(model, Net) and model.loss_name != "cross_entropy":
        return
    _, first = np.unique(y.reshape(len(y), -1), axis=0, return_index=True)
    size = optimizer.batch_size
    rows = np.resize(first, -(-len(first) // size) * size).reshape(-1, size)
    members = members_of(model)

    def look() -> None:
        np.seterr(all="ignore")
        MODE.set(mode()._replace(recording=False))
        for batch in rows:
            picked = batch if members is None else np.stack([batch] * members)
            model.loss(optimizer._batch(x, picked), optimizer._batch(y, picked))

    apart(look)
