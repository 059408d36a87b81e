"""Differentiable programming on NumPy: values that remember how they were computed."""

from dp import activations, initializers, losses, primitives
from dp import optimizers as optimizer
from dp.backward import gradients
from dp.check import GradientError, check_gradient, numerical_gradients
from dp.losses import binary_cross_entropy, categorical_cross_entropy, squared_error
from dp.model import Layer, LayerCall, LayerWatch, Model, Net, watch_layers
from dp.node import AnomalyError, Node, ShapeError, detect_anomaly, no_grad
from dp.optimizers import SGD, Adam, Callback, Optimizer, RMS_Prop, SGD_Momentum, Step

__all__ = [
    "SGD",
    "Adam",
    "AnomalyError",
    "Callback",
    "GradientError",
    "Layer",
    "LayerCall",
    "LayerWatch",
    "Model",
    "Net",
    "Node",
    "Optimizer",
    "RMS_Prop",
    "SGD_Momentum",
    "ShapeError",
    "Step",
    "activations",
    "binary_cross_entropy",
    "categorical_cross_entropy",
    "check_gradient",
    "detect_anomaly",
    "gradients",
    "initializers",
    "losses",
    "no_grad",
    "numerical_gradients",
    "optimizer",
    "primitives",
    "squared_error",
    "watch_layers",
]
