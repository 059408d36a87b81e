"""Numbers from papers, paper by paper: what is expected, where it stands, and how it is found.

By the theory, and by measuring where they measured.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator

import numpy as np

from dp.activations import ACTIVATIONS
from gradiometer.claims.reproductions import How, Target
from gradiometer.claims.simulations import (
    glorot_factors,
    log_gain_slope,
    measured_born_dead,
    measured_glorot_factors,
    measured_singular_value,
    relu_ratio,
    selu_constants,
    spectrum,
)
from gradiometer.theory import edge_of_chaos, finite_width, maps, phase
from gradiometer.theory.variances import of_layer

TANH, SELU = ACTIVATIONS["tanh"], ACTIVATIONS["selu"]


def targets() -> list[Target]:
    """All of them, in the order of the papers."""
    return [*itertools.chain(*(rows() for rows in _PAPERS))]


def _lecun() -> Iterator[Target]:
    source, phi = "LeCun et al. 1998", ACTIVATIONS["lecun_tanh"]
    yield Target(
        source, "f(±1) of 1.7159 tanh(2x/3)", 1.0, 1e-4, "absolute", "theory",
        lambda: abs(phi(np.array([-1.0]))[0]),
        "stated", "section 4.4, property (a)", "text", "±1",
        "1.7159 is rounded, so that f(1) is not 1 to all digits.",
    )  # fmt: skip
    yield Target(
        source, "f'(0)", 1.1439, 1e-4, "absolute", "theory",
        lambda: float(phi.derivative(np.zeros(1))[0]),
        "formula", "section 4.4, the recommended sigmoid", "text",
    )  # fmt: skip


def _glorot() -> Iterator[Target]:
    source = "Glorot & Bengio 2010"
    for init, words, value, printed in (
        ("pytorch", "standard", 0.5, "0.5"),
        ("glorot_uniform", "normalised", 0.8, "around 0.8"),
    ):
        what = f"average singular value of a layer's Jacobian, {words} weights"
        variance = of_layer(init, 1000, 1000).weight
        ways: tuple[tuple[How, Callable[[], float]], ...] = (
            ("theory", functools.partial(maps.mean_singular_value, variance)),
            ("simulation", functools.partial(measured_singular_value, init)),
        )
        for how, measure in ways:
            yield Target(
                source, what, value, 0.05, "absolute", how, measure,
                "stated", "section 4.2.2, below eq. 17", "text", printed,
                "Ours is of the weights of a wide layer alone, without the slopes of tanh, which "
                "are below 1. Whether that is all of the difference we do not know.",
            )  # fmt: skip
    factors: tuple[tuple[How, float, Callable[[], tuple[float, float]]], ...] = (
        ("theory", 0.01, glorot_factors),
        ("simulation", 0.05, measured_glorot_factors),
    )
    for how, tolerance, found in factors:
        for i, (what, value, place) in enumerate(
            (
                ("standard weights, tanh: factor on Var delta per layer", 1 / 3, "eq. 13 and 15"),
                ("the same: factor on Var dL/dW per layer", 1.0, "eq. 14 (figure 8 shows it)"),
            )
        ):
            yield Target(
                source, what, value, tolerance, "relative", how,
                functools.partial(lambda factors, i: factors()[i], found, i),
                "formula", place, "text",
            )  # fmt: skip


def _he() -> Iterator[Target]:
    for init, words, value in (("lecun_normal", "Xavier", 2.0**-15), ("he_normal", "He", 1.0)):
        yield Target(
            "He et al. 2015", f"30 ReLU layers of 500: last over first activation, {words}",
            value, 0.25, "relative", "simulation", functools.partial(relu_ratio, init),
            "formula", "section 2.2, comparison with Xavier: 1/√2 per layer", "second hand",
        )  # fmt: skip


def _poole() -> Iterator[Target]:
    for sigma, length, chi in ((1.3, 0.6071, 0.9398), (2.5, 4.0791, 1.5852), (4.0, 12.604, 2.3673)):
        for name, value, place in (
            ("length", length, "section 2.1, length map"),
            ("chi", chi, "section 2.2, slope of the correlation map"),
        ):
            symbol = {"length": "q*", "chi": "χ₁"}[name]
            yield Target(
                "Poole et al. 2016", f"{symbol} of tanh, σ_b = 0.3, σ_w = {sigma:g}", value, 1e-3,
                "absolute", "theory",
                functools.partial(_of_phase, name, sigma**2, 0.3**2),
                "formula", place,
            )  # fmt: skip


def _schoenholz() -> Iterator[Target]:
    source = "Schoenholz et al. 2017"
    for name, what, value in (
        ("weight_variance", "σ_w² of the edge of chaos, tanh, σ_b² = 0.05", 1.7610),
        ("length", "q* there", 0.5700),
    ):
        yield Target(
            source, what, value, 1e-3, "absolute", "theory",
            functools.partial(lambda name: float(getattr(edge_of_chaos(TANH, 0.05), name)), name),
            "formula", "section 2, χ₁ = 1",
        )  # fmt: skip
    for variance, depth in (
        (1, 3.63), (1.3, 7.83), (1.5, 15.8), (2, 25.2), (2.5, 11.8), (3, 9.05), (4, 6.98),
    ):  # fmt: skip
        yield Target(
            source, f"ξ_c of tanh, σ_b² = 0.05, σ_w² = {variance:g}", depth, 0.01, "relative",
            "theory", functools.partial(_of_phase, "correlation_depth", variance, 0.05),
            "formula", "section 3, depth scale of correlations",
        )  # fmt: skip


def _of_phase(name: str, weight_variance: float, bias_variance: float) -> float:
    return float(getattr(phase(TANH, weight_variance, bias_variance), name))


def _pennington() -> Iterator[Target]:
    for activation, init, words, value in (
        ("identity", "normal", "linear, Gaussian", 10.0),
        ("identity", "orthogonal", "linear, orthogonal", 0.0),
        ("relu", "normal", "ReLU, Gaussian", 20.0),
        ("relu", "orthogonal", "ReLU, orthogonal", 10.0),
    ):
        exact = value == 0
        yield Target(
            "Pennington et al. 2017", f"relative variance of JJᵀ's spectrum, 10 layers: {words}",
            value, 1e-10 if exact else 0.10, "absolute" if exact else "relative", "simulation",
            functools.partial(spectrum, activation, init),
            "formula", "section 2, spectrum of JJᵀ by free probability",
        )  # fmt: skip


def _klambauer() -> Iterator[Target]:
    source, place = "Klambauer et al. 2017", "section 2, fixed point of mean 0 and variance 1"
    for i, what, value, printed in (
        (0, "α of SELU", 1.6733, "1.6733"),
        (1, "λ of SELU", 1.0507, "1.0507"),
    ):
        yield Target(
            source, what, value, 5e-5, "absolute", "theory",
            functools.partial(lambda i: selu_constants()[i], i),
            "stated", place, "second hand", printed,
        )  # fmt: skip
    for i, what, value in (
        (0, "α of SELU, more digits", 1.67326324),
        (1, "λ of SELU, more digits", 1.05070099),
    ):
        yield Target(
            source, what, value, 1e-8, "absolute", "theory",
            functools.partial(lambda i: selu_constants()[i], i),
            "formula", place, "second hand",
        )  # fmt: skip
    yield Target(
        source, "χ₁ of SELU, σ_w² = 1", 1.0716, 1e-4, "absolute", "theory",
        lambda: phase(SELU, 1.0).chi,
        "formula", "section 2, SELU; χ₁ as in Schoenholz et al. 2017",
    )  # fmt: skip


def _lu() -> Iterator[Target]:
    for width, value in ((2, 0.925), (3, 0.699), (4, 0.441), (5, 0.249), (10, 0.0088)):
        source, what = "Lu et al. 2019", f"born dead, 9 ReLU layers of {width}, one input"
        place = "theorem on nets born dead: 1 - Π (1 - 2^-N)"
        yield Target(
            source, what, value, 6e-4, "absolute", "theory",
            functools.partial(finite_width.born_dead, [width] * 9),
            "formula", place,
        )  # fmt: skip
        yield Target(
            source, what, value, 3.0, "standard errors", "simulation",
            functools.partial(measured_born_dead, width),
            "formula", place,
        )  # fmt: skip


def _hanin() -> Iterator[Target]:
    yield Target(
        "Hanin 2018", "growth of Var ln ‖Ju‖² with Σ 1/n, ReLU, He's weights", 5.0, 0.2, "relative",
        "simulation", log_gain_slope,
        "formula", "theorem on the fluctuation of gradients; the constant as in Hanin & Nica 2020",
    )  # fmt: skip


_PAPERS = (_lecun, _glorot, _he, _poole, _schoenholz, _pennington, _klambauer, _lu, _hanin)
