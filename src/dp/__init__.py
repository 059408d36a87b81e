"""Differentiable programming on NumPy: values that remember how they were computed."""

from typing import TYPE_CHECKING, Any

from dp import activations, initializers, losses, primitives
from dp import optimizers as optimizer
from dp.callbacks import Callback, ProgramCallback, Step
from dp.check import check_gradient, numerical_gradients
from dp.differentiate import gradients
from dp.errors import AnomalyError, CaptureError, GradientError, ShapeError
from dp.functions import concatenate, equal, where
from dp.layers import Layer, LayerCall, LayerWatch, watch_layers
from dp.losses import binary_cross_entropy, categorical_cross_entropy, squared_error
from dp.mode import detect_anomaly, no_grad
from dp.model import Model
from dp.net import Net
from dp.node import Node
from dp.optimizers import SGD, Adam, Optimizer, RMS_Prop, SGD_Momentum
from dp.primitives import declare

if TYPE_CHECKING:
    from dp.program.program import Program, capture

__all__ = [
    "SGD",
    "Adam",
    "AnomalyError",
    "Callback",
    "CaptureError",
    "GradientError",
    "Layer",
    "LayerCall",
    "LayerWatch",
    "Model",
    "Net",
    "Node",
    "Optimizer",
    "Program",
    "ProgramCallback",
    "RMS_Prop",
    "SGD_Momentum",
    "ShapeError",
    "Step",
    "activations",
    "binary_cross_entropy",
    "capture",
    "categorical_cross_entropy",
    "check_gradient",
    "concatenate",
    "declare",
    "detect_anomaly",
    "equal",
    "gradients",
    "initializers",
    "losses",
    "no_grad",
    "numerical_gradients",
    "optimizer",
    "primitives",
    "squared_error",
    "watch_layers",
    "where",
]


def __getattr__(name: str) -> Any:
    if name in ("Program", "capture"):  # loaded when first used: `import dp` is light
        from dp.program import program

        return getattr(program, name)
    raise AttributeError(f"module 'dp' has no attribute {name!r}")
