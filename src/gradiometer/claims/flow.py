"""Claims about the gradient's flow through the layers, at the first step."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from dp.activations import ACTIVATIONS
from dp.typing import Array
from gradiometer.claims import figures
from gradiometer.claims.claim import Claim, Evidence
from gradiometer.claims.estimates import pseudo_median
from gradiometer.claims.laboratory import Laboratory, Measured
from gradiometer.claims.planned import CHECK, EQUIVALENCE_FLOW, RANK_FLOW, SHARE_FLOW, SHIFT_FLOW
from gradiometer.claims.statistics import (
    MARGIN,
    Finding,
    check,
    equivalence,
    mann_whitney,
    most,
    signed_rank,
)
from gradiometer.quantities import DELTA, GRADIENTS, QUANTITIES
from gradiometer.studies.outcomes import slope
from gradiometer.theory import bounds, maps, predict
from gradiometer.theory.variances import of_layer

if TYPE_CHECKING:
    from matplotlib.figure import Figure


GRADIENT = GRADIENTS[0]
SLOPE = "decades per layer"
NAMES = {name: QUANTITIES[name].label for name in (GRADIENT, DELTA)}
WIDE = 100
QUARTER = math.log10(4.0)


def slopes(net: Measured, quantity: str) -> Array:
    """Slope of log10 over hidden layers 2 to L, by least squares; (nets,), decades per layer."""
    return slope(net.hidden(quantity))


def logs(net: Measured, quantity: str, layer: int) -> Array:
    """log10 of a quantity in a layer, counted from 1; -1 is the last hidden one; (nets,)."""
    values = net.hidden(quantity)[layer - 1 if layer > 0 else layer]
    with np.errstate(divide="ignore"):
        return np.asarray(np.log10(values))


def in_words(values: Array, digits: int = 3) -> str:
    """Pseudo-median and interval: "0.512 [0.507, 0.516]"."""
    middle, low, high = pseudo_median(values)
    return f"{middle:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def falls(what: str, net: Measured, quantity: str) -> Finding:
    """That a quantity is smaller in layer 1 than in the last hidden layer of the same net."""
    return signed_rank(what, logs(net, quantity, -1), logs(net, quantity, 1), "decades")


# --- by how much a layer shrinks the delta --------------------------------------------------------


def gather_quarter(laboratory: Laboratory) -> Evidence:
    """Evidence for `quarter-per-layer`."""
    shown: dict[str, tuple[Array, Array]] = {}
    typical = {}
    violated = layers = 0
    for init in ("dp", "pytorch"):
        flow = laboratory.flow(activation="sigmoid", init=init)
        delta = flow.hidden(DELTA)
        typical[init] = delta[:-1] / delta[1:]
        experiment = laboratory.experiment(
            activation="sigmoid", init=init, reduction="mean", members=laboratory.flow_seeds
        )
        data = experiment.load_data()
        found = [bounds(net, data.x, data.y) for net in laboratory.nets(experiment)]
        violated += sum(int(each.violated.sum()) for each in found)
        layers += sum(each.factor.size for each in found)
        shown[f"{init} init"] = (
            np.concatenate([each.factor.ravel() for each in found]),
            np.concatenate([each.ratio.ravel() for each in found]),
        )
    every = np.concatenate([each.ravel() for each in typical.values()])
    largest = float(every.max())
    above = float((typical["dp"] > 0.25).mean())
    nearest = max(float((ratio / factor).max()) for factor, ratio in shown.values())
    return Evidence(
        (
            check(
                "no layer lets through more than a quarter of the delta's rms", largest <= 0.25,
                largest, "largest factor", every.size,
            ),
        ),
        f"With the lesson's weights {above:.0%} of the layers let through more than a quarter, at "
        f"most {largest:.2f}. The bound with the weights' norm was violated {violated} times in "
        f"{layers} layers; the closest came to {nearest:.2%} of it.",
        lambda: figures.scatter(
            shown,
            ("bound, ¼ ‖W‖₂", "largest ‖δ^l‖ / ‖δ^(l+1)‖ in the data set"),
            "as much as the bound allows",
        ),
        (
            check(
                "‖δ^l‖ ≤ ¼ ‖W‖₂ ‖δ^(l+1)‖ in every layer, net and sample", violated == 0, violated,
                "violations", layers,
            ),
        ),
    )  # fmt: skip


def root_chi(init: str, width: int) -> float:
    """√χ₁ of the sigmoid in hidden layers of one width (Schoenholz et al. 2017)."""
    layer = of_layer(init, width, width)
    return math.sqrt(maps.phase(ACTIVATIONS["sigmoid"], layer.weight, layer.bias).chi)


def gather_typical(laboratory: Laboratory) -> Evidence:
    """Evidence for `typical-factor`."""
    inits, widths = ("dp", "pytorch"), (10, WIDE)
    nets = {
        (init, width): laboratory.flow(activation="sigmoid", init=init, width=width)
        for init in inits
        for width in widths
    }
    found = {which: slopes(net, DELTA) for which, net in nets.items()}
    roots = {which: root_chi(*which) for which in found}
    fourfold = [
        equivalence(
            f"{init} init, width {width}: the delta shrinks fourfold per layer", each, SLOPE,
            QUARTER,
        )
        for (init, width), each in found.items()
    ]  # fmt: skip
    by_root = [
        equivalence(
            f"{init} init, width {WIDE}: it shrinks by √χ₁ = {roots[init, WIDE]:.3f}",
            found[init, WIDE], SLOPE, -math.log10(roots[init, WIDE]),
        )
        for init in inits
    ]  # fmt: skip
    predicted = {init: predict(nets[init, 10].experiment).slope("delta")[0] for init in inits}
    as_predicted = [
        equivalence(
            f"{init} init, width 10: it shrinks by {10.0**-slope:.3f}, as predicted",
            found[init, 10], SLOPE, slope,
        )
        for init, slope in predicted.items()
    ]  # fmt: skip
    words = "; ".join(
        f"{init} init, width {width}: {10.0 ** -pseudo_median(each)[0]:.3f} "
        f"(√χ₁ = {roots[init, width]:.3f})"
        for (init, width), each in found.items()
    )
    wide = {init: roots[init, WIDE] for init in inits}
    return Evidence(
        tuple(fourfold),
        f"Per layer the delta's rms is multiplied by: {words}.",
        lambda: _factors(found, wide),
        (*by_root, *as_predicted),
    )


def _factors(found: dict[tuple[str, int], Array], wide: dict[str, float]) -> Figure:
    """The slopes by initialiser and width, beside a quarter and √χ₁ of wide layers."""
    return figures.strips(
        {f"{init} init\nwidth {width}": each for (init, width), each in found.items()},
        f"slope of log10 {NAMES[DELTA]}\n({SLOPE})",
        lines=[
            (QUARTER, "fourfold"),
            *(
                (-math.log10(root), f"√χ₁ of width {WIDE}, {init} init")
                for init, root in wide.items()
            ),
        ],
    )


# --- who vanishes ---------------------------------------------------------------------------------


def gather_sigmoid(laboratory: Laboratory) -> Evidence:
    """Evidence for `sigmoid-vanishes`."""
    nets = {name: laboratory.flow(activation=name) for name in ("sigmoid", "tanh", "relu")}
    net = nets["sigmoid"]
    found = {name: slopes(each, GRADIENT) for name, each in nets.items()}
    return Evidence(
        (
            falls("dL/dW of layer 1 is below that of layer 10", net, GRADIENT),
            falls("the delta of layer 1 is below that of layer 10", net, DELTA),
            # or a fall of no size to speak of would do
            *(
                signed_rank(
                    f"the slope of {NAMES[name]} is above {MARGIN:g}",
                    slopes(net, name),
                    np.zeros(net.hidden(name).shape[1]),
                    SLOPE,
                    MARGIN,
                )
                for name in (GRADIENT, DELTA)
            ),
            mann_whitney("its slope is above that of tanh", found["sigmoid"], found["tanh"], SLOPE),
            mann_whitney("its slope is above that of ReLU", found["sigmoid"], found["relu"], SLOPE),
        ),
        f"From layer 10 to layer 1 mean |dL/dW| falls by "
        f"{in_words(logs(net, GRADIENT, -1) - logs(net, GRADIENT, 1), 2)} decades, "
        f"{in_words(found['sigmoid'])} per layer.",
        lambda: figures.profiles(
            {name: each.hidden(GRADIENT) for name, each in nets.items()}, NAMES[GRADIENT]
        ),
    )


# ReLU's delta has a slope close to the margin: its claim is about dL/dW alone, and says so
_DELTA_TOO = {"tanh"}


def _keeps(activation: str) -> Any:
    def gather(laboratory: Laboratory) -> Evidence:
        net = laboratory.flow(activation=activation)
        found = {name: slopes(net, name) for name in (GRADIENT, DELTA)}
        lost = int(np.isnan(found[GRADIENT]).sum())
        without = f" In {lost} of {len(found[GRADIENT])} nets it is exactly zero." if lost else ""
        return Evidence(
            (
                equivalence("mean |dL/dW| has no slope over the layers", found[GRADIENT], SLOPE),
                # a slope is none of a net whose gradient is zero: that it vanished must count
                most(
                    "dL/dW is nowhere exactly zero",
                    np.asarray((net.hidden(GRADIENT) > 0).all(axis=0)),
                ),
                *(
                    [equivalence("the delta has none either", found[DELTA], SLOPE)]
                    if activation in _DELTA_TOO
                    else []
                ),
            ),
            f"Over layers 2 to 10 the slope of mean |dL/dW| is {in_words(found[GRADIENT])} decades "
            f"per layer, that of the delta {in_words(found[DELTA])}.{without}",
            lambda: figures.strips(
                {NAMES[name]: each for name, each in found.items()},
                f"slope of log10 over hidden layers\n({SLOPE})",
                band=(-MARGIN, MARGIN, f"± {MARGIN:g}, which counts as none"),
            ),
        )

    return gather


def gather_flat(laboratory: Laboratory) -> Evidence:
    """Evidence for `flat-gradient`."""
    net = laboratory.flow(activation="tanh", init="pytorch", width=WIDE)
    found = {name: slopes(net, name) for name in (GRADIENT, DELTA)}
    flat = equivalence("mean |dL/dW| has no slope over the layers", found[GRADIENT], SLOPE)
    none = np.zeros_like(found[DELTA])
    return Evidence(
        (flat, equivalence("the delta has none either", found[DELTA], SLOPE)),
        f"In tanh nets of width {WIDE} with PyTorch's weights the slope of mean |dL/dW| is "
        f"{in_words(found[GRADIENT])} decades per layer, and that of the delta "
        f"{in_words(found[DELTA])}.",
        lambda: figures.profiles(
            {
                NAMES[name]: net.hidden(name) / np.median(net.hidden(name)[-1])
                for name in (GRADIENT, DELTA)
            },
            "relative to the median of layer 10",
        ),
        (
            flat,
            signed_rank(
                f"the delta's slope is above {MARGIN:g}", found[DELTA], none, SLOPE, MARGIN
            ),
            falls("the delta of layer 1 is below that of layer 10", net, DELTA),
        ),
    )


_TEN = "Ten {} layers of ten units on Iris, the lesson's weights, at the first step"

CLAIMS = [
    Claim(
        "quarter-per-layer",
        "In a sigmoid net the gradient shrinks at least fourfold per layer, as σ' is at most ¼.",
        "Ten sigmoid layers of ten units on Iris, the lesson's and PyTorch's weights: ratios of "
        "the delta from layer to layer, and the exact bound for each layer, net and sample.",
        gather_quarter,
        "‖δ^l‖ is at most ¼ ‖W^(l+1)‖₂ times ‖δ^(l+1)‖: fourfold only where the weights do not "
        "make up for it.",
        why="The weights multiply the delta as well as the slopes do; the quarter bounds the "
        "slopes alone.",
        said_tests=(CHECK,),
        reworded_tests=(CHECK,),
    ),
    Claim(
        "typical-factor",
        "A sigmoid layer typically shrinks the gradient fourfold.",
        f"Ten sigmoid layers of ten and of {WIDE} units on Iris: slope of the delta over hidden "
        "layers, with the lesson's and with PyTorch's weights.",
        gather_typical,
        "A wide sigmoid layer multiplies the delta by √χ₁, which depends on the weights: by about "
        "a third with the lesson's and a seventh with PyTorch's. In layers of ten units the factor "
        "is typically a few per cent smaller still, as theory predicts.",
        why="χ₁ = σ_w² E σ'(h)² is how much of the delta's mean square a wide layer passes on; in "
        "narrow ones chance adds a spread, which lowers what is typical below the mean.",
        said_tests=(EQUIVALENCE_FLOW,) * 4,
        reworded_tests=(EQUIVALENCE_FLOW,) * 4,
    ),
    Claim(
        "sigmoid-vanishes",
        "In a net of ten sigmoid layers the gradient vanishes towards the input.",
        f"{_TEN.format('sigmoid')}: layer 1 against layer 10, and the slope against those of tanh "
        "and ReLU.",
        gather_sigmoid,
        why="Each layer passes on a third of the delta, and what it is given in turn scarcely "
        "differs from layer to layer.",
        said_tests=(*(RANK_FLOW,) * 4, SHIFT_FLOW, SHIFT_FLOW),
    ),
    Claim(
        "tanh-keeps",
        "In the lesson's net of ten tanh layers the gradient does not vanish.",
        f"{_TEN.format('tanh')}: slope of mean |dL/dW| over hidden layers.",
        _keeps("tanh"),
        why="With σ_w² = 2 a tanh layer passes on about what it is given, in either direction.",
        why_not="The gradient changes from layer to layer by more than the margin.",
        said_tests=(EQUIVALENCE_FLOW, SHARE_FLOW, EQUIVALENCE_FLOW),
    ),
    Claim(
        "relu-keeps",
        "In the lesson's net of ten ReLU layers dL/dW does not vanish.",
        f"{_TEN.format('ReLU')}: slope of mean |dL/dW| over hidden layers.",
        _keeps("relu"),
        why="With σ_w² = 2 the half of the units that is on makes up for the half that is off; at "
        "a width of ten, chance takes a little of the delta in every layer.",
        why_not="The gradient changes from layer to layer by more than the margin.",
        said_tests=(EQUIVALENCE_FLOW, SHARE_FLOW),
    ),
    Claim(
        "flat-gradient",
        "If dL/dW is of the same size in all layers, no gradient vanishes.",
        f"Ten tanh layers of {WIDE} units on Iris, PyTorch's weights, at the first step: slopes of "
        "mean |dL/dW| and of the delta over hidden layers.",
        gather_flat,
        "dL/dW can be of the same size in all layers while the delta vanishes: watch the delta.",
        why="dL/dW is delta times input: here activations shrink towards the output as the delta "
        "does towards the input, and the product stays (Glorot & Bengio 2010).",
        said_tests=(EQUIVALENCE_FLOW, EQUIVALENCE_FLOW),
        reworded_tests=(EQUIVALENCE_FLOW, RANK_FLOW, RANK_FLOW),
        shared_tests=1,
    ),
]
