"""Numbers from papers, reproduced: by the theory, and by measuring where they measured.

Three things are kept apart. A *stated* figure is printed in the paper, and is quoted at the
precision printed. A figure by a *formula* is computed here from a formula or theorem that the paper
gives: the paper does not print it. A *figure* read off a plot is as coarse as reading is; there is
none at present. Each row has its place in the paper, and says whether it was checked against the
text. Simulations are seeded and take a second or so each.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

from dp.activations import ACTIVATIONS
from dp.initializers import INITIALIZERS
from gradiometer.theory import edge_of_chaos, finite_width, kernels, maps, moments, phase
from gradiometer.theory.variances import of_layer

Array = NDArray[Any]
Kind = Literal["absolute", "relative", "standard errors"]
How = Literal["theory", "simulation"]
Basis = Literal["stated", "formula", "figure"]
Checked = Literal["text", "second hand", "no"]

# of a row's basis, what its expected value is: as headings of tables
BASES: dict[Basis, tuple[str, str]] = {
    "stated": ("Stated: printed in the paper, at this precision", "published"),
    "formula": ("By formula: computed here from what the paper derives", "by formula"),
    "figure": ("Read off a plot of the paper", "read off"),
}
CHECKED: dict[Checked, str] = {
    "text": "against the text",
    "second hand": "at second hand",
    "no": "not against the text",
}

TANH, RELU, SELU = (ACTIVATIONS[name] for name in ("tanh", "relu", "selu"))
LU_NETS = 20_000


@dataclasses.dataclass(frozen=True)
class Target:
    """A figure of a paper, and how it is found.

    Attributes
    ----------
    source, what : str
        The paper; the quantity.
    expected : float
        What is printed in the paper, or follows from its formula, or is read off its plot.
    tolerance : float
        By how much ours may differ.
    kind : "absolute", "relative" or "standard errors"
        What the tolerance is: a difference, a share of `expected`, or a number of standard errors
        of a share among `LU_NETS` nets.
    how : "theory" or "simulation"
    measure : callable
        Gives our value.
    basis : "stated", "formula" or "figure"
        What the expected value is.
    place : str
        Where it, or the formula, stands in the paper.
    checked : "text", "second hand" or "no"
        Whether we read it in the paper's text, or saw it quoted by others, or neither.
    printed : str
        As the paper prints it, if it is stated.
    note : str
        What a reader should know who compares the two.

    Raises
    ------
    ValueError
        If a figure counts as stated without what is printed, or unchecked; or another as printed.
    """

    source: str
    what: str
    expected: float
    tolerance: float
    kind: Kind
    how: How
    measure: Callable[[], float]
    basis: Basis = "formula"
    place: str = ""
    checked: Checked = "no"
    printed: str = ""
    note: str = ""

    def __post_init__(self) -> None:
        if self.basis == "stated" and (not self.printed or self.checked == "no"):
            raise ValueError(
                f"{self.source}, {self.what}: a stated figure needs what is printed, and a check; "
                f"got printed={self.printed!r}, checked={self.checked!r}. What nobody checked is "
                "'formula' at best"
            )
        if self.basis != "stated" and self.printed:
            raise ValueError(
                f"{self.source}, {self.what}: only a stated figure is printed, got "
                f"printed={self.printed!r} with basis={self.basis!r}"
            )


@dataclasses.dataclass(frozen=True)
class Reproduction:
    """A figure of a paper beside ours.

    Attributes
    ----------
    source, what : str
    how : str
        "theory" or "simulation".
    expected, ours : float
    tolerance : str
        In words, such as "± 0.02", "± 25 %" or "± 3 SE".
    passed : bool
        Whether ours is within it.
    basis, place, checked, printed, note : str
        As of its `Target`.
    """

    source: str
    what: str
    how: str
    expected: float
    ours: float
    tolerance: str
    passed: bool
    basis: Basis = "formula"
    place: str = ""
    checked: Checked = "no"
    printed: str = ""
    note: str = ""

    @property
    def digits(self) -> int:
        """Digits in which both can be compared."""
        return 9 if self.tolerance == "± 1e-08" else 5

    @property
    def shown(self) -> str:
        """The expected value: as it is printed, or in digits that can be compared."""
        return self.printed or f"{self.expected:.{self.digits}g}"

    @property
    def checked_in_words(self) -> str:
        """Whether what the paper says was checked."""
        return CHECKED[self.checked]


def by_basis(rows: Sequence[Reproduction]) -> dict[Basis, list[Reproduction]]:
    """Rows by what their expected value is, since they are never to be shown as one."""
    found = {basis: [row for row in rows if row.basis == basis] for basis in BASES}
    return {basis: those for basis, those in found.items() if those}


def in_words(rows: Sequence[Reproduction]) -> str:
    """How many of each kind were reproduced, and how many were checked against the text."""
    if not rows:
        return ""
    kinds = {
        "stated": "{} are printed in the paper",
        "formula": "{} are computed from a formula in it",
        "figure": "{} are read off a plot",
    }
    parts = [kinds[basis].format(len(those)) for basis, those in by_basis(rows).items()]
    unchecked = sum(row.checked != "text" for row in rows)
    text = (
        f"{sum(row.passed for row in rows)} of {len(rows)} numbers from papers are reproduced "
        f"within tolerance. Of the {len(rows)}, {' and '.join(parts)}"
    )
    return f"{text}; {unchecked} were not checked against the text." if unchecked else f"{text}."


def reproduce(target: Target) -> Reproduction:
    """Find a figure, and compare."""
    ours = float(target.measure())
    allowed, words = _tolerance(target)
    return Reproduction(
        target.source,
        target.what,
        target.how,
        target.expected,
        ours,
        words,
        bool(abs(ours - target.expected) <= allowed),
        target.basis,
        target.place,
        target.checked,
        target.printed,
        target.note,
    )


def _tolerance(target: Target) -> tuple[float, str]:
    """As a difference, and in words."""
    p, size = target.expected, target.tolerance
    if target.kind == "relative":
        return size * abs(p), f"± {size * 100:g} %"
    if target.kind == "standard errors":
        return size * math.sqrt(p * (1 - p) / LU_NETS), f"± {size:g} SE"
    return size, f"± {size:g}"


# --- what is measured -----------------------------------------------------------------------------


def drawn(init: str, fan_in: int, fan_out: int, seed: int = 0) -> Array:
    """Weights of an initialiser."""
    return INITIALIZERS[init].weight(np.random.default_rng(seed), fan_in, fan_out)


def measured_singular_value(init: str, width: int = 400) -> float:
    """Mean singular value of a layer's weights (Glorot & Bengio 2010, section 4.2.2)."""
    return float(np.linalg.svd(drawn(init, width, width), compute_uv=False).mean())


@functools.cache
def glorot_factors(layers: int = 9, width: int = 100) -> tuple[float, float]:
    """Factors per layer of Var delta and of Var dL/dW, backwards, of tanh nets at standard weights.

    In the linear part of tanh, as in eq. 13-15 and figure 8 of Glorot & Bengio (2010).
    """
    rng = np.random.default_rng(0)
    x = rng.normal(size=(50, width)) * 0.1  # tanh in its linear part
    layer = dataclasses.replace(of_layer("pytorch", width, width), bias=0.0)
    net = kernels.of_batch(x, [layer] * layers, TANH)
    error = rng.choice([-0.5, 0.5], (50, 1))
    gradient = np.log(kernels.gradient_mean_square(net, error)[1:-1])
    delta = np.log(kernels.delta_mean_square(net, error, np.ones(50))[1:-1])
    # the layer that is furthest off counts
    return tuple(  # type: ignore[return-value]
        float(np.exp(-steps[np.abs(steps - np.median(steps)).argmax()]))
        for steps in (np.diff(delta), np.diff(gradient))
    )


@functools.cache
def measured_glorot_factors(
    layers: int = 9, width: int = 100, nets: int = 40, samples: int = 50
) -> tuple[float, float]:
    """The same of drawn nets: geometric mean over the layers."""
    found = []
    for net in range(nets):
        rng = np.random.default_rng(net)
        inputs, weights = [rng.normal(size=(samples, width)) * 0.1], []
        for _ in range(layers):
            weights.append(INITIALIZERS["pytorch"].weight(rng, width, width))
            inputs.append(np.tanh(inputs[-1] @ weights[-1]))
        arriving = rng.choice([-0.5, 0.5], (samples, 1)) * rng.normal(size=width)  # at the top
        variances = []
        for x, weight, y in zip(inputs[-2::-1], weights[::-1], inputs[:0:-1], strict=True):
            delta = arriving * (1 - y**2)
            variances.append([delta.var(), (x.T @ delta).var()])
            arriving = delta @ weight.T
        found.append(np.log(variances[-1]) - np.log(variances[0]))
    delta_factor, gradient_factor = np.exp(np.mean(found, axis=0) / (layers - 1))
    return float(delta_factor), float(gradient_factor)


@functools.cache
def relu_ratio(init: str, layers: int = 30, width: int = 500, nets: int = 16) -> float:
    """Rms activation of the last ReLU layer over that of the input (He et al. 2015)."""
    ratios = []
    for net in range(nets):
        rng = np.random.default_rng(net)
        x = rng.normal(size=(20, width))
        for _ in range(layers):
            x = np.maximum(x @ INITIALIZERS[init].weight(rng, width, width), 0)
        ratios.append((x**2).mean())
    return math.sqrt(np.mean(ratios))


def spectrum(
    activation: str, init: str, layers: int = 10, width: int = 400, nets: int = 6
) -> float:
    """Relative variance of the squared singular values of a Jacobian (Pennington et al. 2017)."""
    phi = ACTIVATIONS[activation]
    found = []
    for net in range(nets):
        rng = np.random.default_rng(net)
        jacobian = np.eye(width)
        for _ in range(layers):
            weight = INITIALIZERS[init].weight(rng, width, width)
            # slopes at pre-activations that are normal
            jacobian = (jacobian @ weight) * phi.derivative(rng.normal(size=width))
        gram = jacobian @ jacobian.T
        found.append(width * (gram**2).sum() / np.trace(gram) ** 2 - 1)
    return float(np.mean(found))


@functools.cache
def selu_constants() -> tuple[float, float]:
    """α and λ with which mean 0 and variance 1 stay so (Klambauer et al. 2017)."""

    def off(parameters: Array) -> list[float]:
        settings = dict(zip(("alpha", "scale"), map(float, parameters), strict=True))
        selu = dataclasses.replace(SELU, settings=settings)
        return [float(moments.mean(selu, 1.0)), float(moments.mean_square(selu, 1.0)) - 1.0]

    alpha, scale = optimize.fsolve(off, [1.5, 1.0], xtol=1e-12)
    return float(alpha), float(scale)


def measured_born_dead(width: int, layers: int = 9, nets: int = LU_NETS) -> float:
    """Share of ReLU nets of one input of which a whole layer is off (Lu et al. 2019)."""
    rng = np.random.default_rng(0)
    x = np.ones((nets, 1))
    for _ in range(layers):
        weight = rng.normal(size=(nets, x.shape[1], width)) * math.sqrt(2 / x.shape[1])
        x = np.maximum(np.matmul(x[:, None], weight)[:, 0], 0)
    return float((x == 0).all(axis=1).mean())


def log_gain_slope(width: int = 40, depths: Sequence[int] = (4, 8, 16), nets: int = 1500) -> float:
    """Slope of Var ln ‖J u‖² of relu nets with He's weights against Σ 1/n over their layers."""
    rng = np.random.default_rng(0)
    direction = np.zeros((nets, 1, width))
    direction[..., 0] = 1.0
    signal = rng.normal(size=(nets, 1, width))
    log, variances = np.zeros(nets), []
    for _ in range(max(depths)):
        weight = rng.normal(size=(nets, width, width)) * math.sqrt(2 / width)
        signal = np.maximum(signal @ weight, 0)
        direction = (direction @ weight) * (signal > 0)
        size = np.sqrt((direction**2).sum(axis=2, keepdims=True))
        log += 2 * np.log(size[:, 0, 0])
        direction, signal = direction / size, signal / size
        variances.append(log.var())
    chosen = np.array([variances[depth - 1] for depth in depths])
    return float(np.polyfit(np.array(depths) / width, chosen, 1)[0])


# --- what stands in the papers --------------------------------------------------------------------


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
