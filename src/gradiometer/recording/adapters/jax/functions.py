"""Activation functions: those of dp's table as JAX computes them, and which of JAX's they are."""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from dp import activations
from dp.activations import LECUN_SCALE, LECUN_STRETCH, SOFTMAX, Activation
from gradiometer.recording.functions import UNKNOWN


@dataclass(frozen=True)
class Function:
    """φ of a tap; equal ones share what JAX compiled."""

    key: Hashable
    name: str
    apply: Callable[[Array], Array] = field(compare=False)
    saturated: Callable[[Array], Array] | None = field(compare=False)


def _scaled_tanh(h: Array) -> Array:
    return LECUN_SCALE * jnp.tanh(LECUN_STRETCH * h)


# φ of dp's table as JAX has it, given the settings of the Activation
_APPLY: dict[str, Callable[..., Array]] = {
    "identity": lambda h: h,
    "sigmoid": jax.nn.sigmoid,
    "tanh": jnp.tanh,
    "lecun_tanh": _scaled_tanh,
    "relu": jax.nn.relu,
    "clipped_relu": lambda h, ceiling: jnp.clip(h, 0.0, ceiling),
    "leaky_relu": lambda h, slope: jax.nn.leaky_relu(h, slope),
    "elu": lambda h, alpha, scale: scale * jax.nn.elu(h, alpha),
    "selu": lambda h, alpha, scale: scale * jax.nn.elu(h, alpha),
    "gelu": lambda h: jax.nn.gelu(h, approximate=False),
    "silu": jax.nn.silu,
    "softplus": jax.nn.softplus,
    "softmax": lambda h, axis: jax.nn.softmax(h, axis=-1),  # noqa: ARG005
}
# functions of JAX that are those of the table, by identity
_SAME = {
    id(function): name
    for name, function in [
        ("identity", jax.nn.identity),
        ("sigmoid", jax.nn.sigmoid),
        ("sigmoid", lax.logistic),
        ("tanh", jnp.tanh),
        ("tanh", lax.tanh),
        ("relu", jax.nn.relu),
        ("clipped_relu", jax.nn.relu6),
        ("leaky_relu", jax.nn.leaky_relu),
        ("elu", jax.nn.elu),
        ("selu", jax.nn.selu),
        ("silu", jax.nn.silu),
        ("softplus", jax.nn.softplus),
        ("softmax", jax.nn.softmax),
    ]
}


def function_of(activation: Any, tap: str) -> Function | None:
    """What was given as a tap's activation function."""
    if activation is None:
        return None
    activation = _SAME.get(id(activation), activation)
    if isinstance(activation, str | Activation):
        known = SOFTMAX if activation == SOFTMAX.name else activations.get(activation)
        if known.name not in _APPLY:
            raise ValueError(
                f"tap {tap!r}: {known.name} cannot be given by its name; pass the function of JAX "
                f"that you use. Names accepted: {', '.join(_APPLY)}"
            )
        key = (known.name, *sorted(known.settings.items()))
        apply = functools.partial(_APPLY[known.name], **known.settings)
        # the units of a softmax do not saturate one by one
        return Function(key, known.name, apply, None if known is SOFTMAX else known.saturated)
    if not isinstance(activation, Hashable) or not callable(activation):
        raise TypeError(
            f"tap {tap!r}: activation must be a name ({', '.join(activations.ACTIVATIONS)}, "
            f"{SOFTMAX.name}), a dp.activations.Activation, or a function such as jax.nn.relu, "
            f"got {activation!r}"
        )
    return Function(activation, UNKNOWN, activation, None)
