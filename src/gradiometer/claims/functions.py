"""Claims about the functions themselves: shown on grids, and of derivatives against other means."""

from __future__ import annotations

from typing import Any

import numpy as np

import dp
from dp.activations import ACTIVATIONS
from dp.typing import Array
from gradiometer.claims import figures
from gradiometer.claims.claim import Claim, Evidence
from gradiometer.claims.laboratory import Laboratory
from gradiometer.claims.statistics import check

GRID = np.linspace(-30.0, 30.0, 120_001)  # 0 among its points
_NEAR = GRID[np.abs(GRID) <= 6.0]
_RIGHT = GRID[(GRID >= 0.0) & (GRID <= 20.0)]
TINY = 1e-30  # of the complex step: no difference is taken, so it can be as small as this
RELATIVE = 1e-6


def complex_step(function: Any, h: Array) -> Array:
    """f'(h) = Im f(h + iε)/ε, to full precision (Squire & Trapp 1998)."""
    return np.asarray(np.imag(function(h + 1j * TINY)) / TINY)


def _sigmoid(h: Array) -> Array:
    return np.asarray(1.0 / (1.0 + np.exp(-h)))


def gather_sigmoid(_: Laboratory) -> Evidence:
    """Evidence for `sigmoid-slope`."""
    slope = ACTIVATIONS["sigmoid"].derivative(GRID)
    error = np.abs(slope - complex_step(_sigmoid, GRID)).max()
    most, at = slope.max(), GRID[slope.argmax()]
    n = len(GRID)
    return Evidence(
        (
            check("σ' is at most ¼, and ¼ at 0", most == 0.25 and at == 0.0, most, "largest σ'", n),
            check("σ' is above 0 on [-30, 30]", slope.min() > 0, slope.min(), "smallest σ'", n),
            check("σ' is what a complex step gives", error < 1e-15, error, "largest error", n),
        ),
        f"On {n} points of [-30, 30] σ' runs from {slope.min():.2g} to {most:g}, which it is at "
        f"{at:g}.",
        lambda: figures.curves(
            _NEAR,
            {
                "σ, the sigmoid": ACTIVATIONS["sigmoid"](_NEAR),
                "σ'": ACTIVATIONS["sigmoid"].derivative(_NEAR),
            },
            ("h", "σ(h), σ'(h)"),
            [(0.25, "¼")],
        ),
    )


def gather_tanh(_: Laboratory) -> Evidence:
    """Evidence for `tanh-range`."""
    tanh = ACTIVATIONS["tanh"]
    slope, n = tanh.derivative(GRID), len(GRID)
    reached = float(np.abs(tanh(GRID)).max())
    from_64 = _first_one(np.float64)
    from_32 = _first_one(np.float32)
    # 1 - tanh(h) = 2/(exp(2h) + 1): without the difference that rounds to 0
    gap = 2.0 / (np.exp(2.0 * np.linspace(0.0, 300.0, n)) + 1.0)
    error = np.abs(slope - complex_step(np.tanh, GRID)).max()
    in_slope = slope.max() == 1.0 and GRID[slope.argmax()] == 0.0
    right = (
        check("tanh' is at most 1, and 1 at 0", in_slope, slope.max(), "largest tanh'", n),
        check("tanh' is what a complex step gives", error < 1e-15, error, "largest error", n),
    )
    return Evidence(
        (
            check("tanh stays off ±1 on [-30, 30], in float64", reached < 1, reached, "|tanh|", n),
            *right,
        ),
        f"In float64 tanh(h) is exactly 1, and tanh' exactly 0, from h = {from_64:.2f} on, in "
        f"float32 from {from_32:.2f}.",
        lambda: figures.curves(
            _RIGHT,
            {
                "1 - tanh(h), as floats have it": _gap(np.float64),
                "the same in float32": _gap(np.float32),
                "2/(exp(2h) + 1), which it is": 2 / (np.exp(2 * _RIGHT) + 1),
            },
            ("h", "distance of tanh(h) from 1"),
            log=True,
        ),
        (
            check(
                "in float64 tanh(h) gets to 1", np.isfinite(from_64), from_64, "is the least such h"
            ),
            check("1 - tanh(h) is above 0 on [0, 300]", gap.min() > 0, gap.min(), "1 - tanh(h)", n),
            *right,
        ),
    )


def _first_one(dtype: Any) -> float:
    """From which h on tanh(h) is 1, in floats; NaN if it never is."""
    grid = np.linspace(0.0, 30.0, 60_001).astype(dtype)
    below = np.flatnonzero(ACTIVATIONS["tanh"](grid) != 1)
    return float(grid[below[-1] + 1]) if below[-1] + 1 < len(grid) else float("nan")


def _gap(dtype: Any) -> Array:
    h = _RIGHT.astype(dtype)
    gap = 1 - ACTIVATIONS["tanh"](h)
    return np.where(gap > 0, gap, np.nan)


def gather_relu(_: Laboratory) -> Evidence:
    """Evidence for `relu-slope`."""
    relu, tanh = ACTIVATIONS["relu"], ACTIVATIONS["tanh"]
    slope, n = relu.derivative(GRID), len(GRID)
    steps = 10.0 ** -np.arange(1, 13)
    right, left = ((relu(s * steps) - relu(np.zeros(12))) / (s * steps) for s in (1.0, -1.0))
    apart = float(np.abs(right - left).min())
    ones = int((tanh.derivative(GRID) == 1).sum())
    convention = float(relu.derivative(np.zeros(1))[0])
    binary = np.isin(slope, (0.0, 1.0)).all()
    return Evidence(
        (
            check("difference quotients on both sides of 0 meet", apart == 0, apart, "apart", 12),
            check("ReLU' is 0 or 1", binary, float(np.isin(slope, (0.0, 1.0)).mean()), "share", n),
        ),
        f"At 0 the quotients from the right and the left differ by {apart:g}; gradiometer takes "
        f"{convention:g} there. ReLU' is 1 on {int((slope == 1).sum())} of {n} points, tanh' on "
        f"{ones}.",
        lambda: figures.curves(
            _NEAR,
            {
                "ReLU'": np.where(_NEAR == 0, np.nan, relu.derivative(_NEAR)),
                "tanh'": tanh.derivative(_NEAR),
                "σ'": ACTIVATIONS["sigmoid"].derivative(_NEAR),
            },
            ("h", "φ'(h)"),
        ),
        (
            check(
                "difference quotients at 0 are 1 and 0",
                (right == 1).all() and (left == 0).all(),
                apart,
                "apart",
                12,
            ),
            check("ReLU' is 0 or 1 off 0", binary, float((slope == 1).mean()), "share of ones", n),
            check("ReLU' is 1 wherever h > 0", (slope[GRID > 0] == 1).all(), 1.0, "share", n // 2),
            check("tanh' is 1 at 0 alone", ones == 1, ones, "points", n),
        ),
    )


def gather_chain(laboratory: Laboratory) -> Evidence:
    """Evidence for `chain-rule`."""
    whole: dict[str, Array] = {}
    short: dict[str, Array] = {}
    x, y = np.array([[0.7]]), np.array([[1.0]])
    for name in ("sigmoid", "tanh", "relu"):
        net = dp.Net(
            1, 1, 3, name, init="lecun_normal", loss="squared_error",
            seed=laboratory.experiment(members=laboratory.flow_seeds).seeds,
        )  # fmt: skip
        by_differences = _difference(net, x, y)
        # a relu that is off has a gradient of 0 by either means
        scale = np.maximum(np.abs(by_differences), 1e-4)
        for found, product in zip((whole, short), _products(net, x, y), strict=True):
            found[name] = np.abs(product - by_differences) / scale
    largest = max(float(each.max()) for each in whole.values())
    least = min(float(np.median(short[name])) for name in ("sigmoid", "tanh"))
    nets = 3 * laboratory.flow_seeds
    what = "equals the difference quotient to 1e-6"
    return Evidence(
        (check(f"the shorthand {what}", least < RELATIVE, least, "relative error, median", nets),),
        f"With weights and input the product differs from central differences by {largest:.1g} at "
        f"most, relatively; without them by {least:.2g} in the median net, or more.",
        lambda: figures.strips(
            {
                f"{n}\n{kind}": each[n]
                for n in ("sigmoid", "tanh", "relu")
                for kind, each in (("whole", whole), ("shorthand", short))
            },
            "relative error of dL/dw₁ (where it is not 0)",
            log=True,
            lines=[(RELATIVE, "1e-6")],
        ),
        (
            check(
                f"the whole product {what}", largest < RELATIVE, largest, "relative error, largest",
                nets,
            ),
        ),
    )  # fmt: skip


def _products(net: dp.Net, x: Array, y: Array) -> tuple[Array, Array]:
    """dL/dw₁ of nets of three one-neuron layers: as the chain rule has it, and the shorthand.

    dL/dw₁ = dL/dp σ'(h₄) w₄ φ'(h₃) w₃ φ'(h₂) w₂ φ'(h₁) x, of which the shorthand leaves out x and
    the hidden weights; (nets,) each.
    """
    parameters = {k: v[:, 0, 0] for k, v in net.get_param().items()}
    signal = np.full(len(parameters["h1_weight"]), x[0, 0])
    slopes = []
    for name in ("h1", "h2", "h3"):
        h = signal * parameters[f"{name}_weight"] + parameters[f"{name}_bias"]
        slopes.append(ACTIVATIONS[net.activation.name].derivative(h))
        signal = ACTIVATIONS[net.activation.name](h)
    p = _sigmoid(signal * parameters["out_weight"] + parameters["out_bias"])
    shorthand = (p - y[0, 0]) * p * (1 - p) * parameters["out_weight"] * np.prod(slopes, axis=0)
    return shorthand * parameters["h3_weight"] * parameters["h2_weight"] * x[0, 0], shorthand


def _difference(net: dp.Net, x: Array, y: Array, step: float = 1e-5) -> Array:
    """Central differences of the loss in the first weight; (nets,)."""
    weight = net.get_param()["h1_weight"]
    losses = []
    for change in (step, -step):
        weight += change
        losses.append(net.loss(x, y).value[:, 0, 0].copy())
        weight -= change
    return np.asarray((losses[0] - losses[1]) / (2 * step))


CLAIMS = [
    Claim(
        "sigmoid-slope",
        "The derivative of the sigmoid lies between 0 and ¼, and is largest at 0.",
        "σ' on a grid, and against the derivative by a complex step.",
        gather_sigmoid,
        why="σ' = σ(1 - σ) is the product of two positive numbers whose sum is 1.",
    ),
    Claim(
        "tanh-range",
        "tanh never reaches ±1, and its derivative lies in ]0, 1].",
        "tanh and tanh' on a grid, in float64 and float32, and against a complex step.",
        gather_tanh,
        "Of real numbers tanh never reaches ±1 and tanh' lies in ]0, 1]; floats reach the ends, "
        "where tanh' is exactly 0.",
        why="A float64 has no number between 1 - 1.1e-16 and 1: so close to 1, tanh rounds to it.",
    ),
    Claim(
        "relu-slope",
        "The derivative of ReLU is 0 or 1 everywhere.",
        "ReLU' on a grid, and difference quotients on either side of 0.",
        gather_relu,
        "The derivative of ReLU is 0 or 1 everywhere but at 0, where it has none and programs take "
        "0; it is 1 on a half-line, and not at one point like that of tanh.",
        why="A kink has two one-sided derivatives; which of them a program takes is a convention.",
    ),
    Claim(
        "chain-rule",
        "Through three layers of one neuron, dL/dw₁ is dL/dx₃ times the derivatives "
        "φ'(h₁) φ'(h₂) φ'(h₃).",
        "Nets of three one-neuron layers of sigmoid, tanh and ReLU: both products against central "
        "differences of the loss.",
        gather_chain,
        "dL/dw₁ is dL/dx₃ times φ'(h₁) φ'(h₂) φ'(h₃), times the weights w₂ w₃ between the "
        "layers and the input x.",
        why="The weights have a part in it: that is why initial weights can make the gradient "
        "vanish, or keep it.",
    ),
]
