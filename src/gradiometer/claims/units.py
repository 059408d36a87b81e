"""Claims about ReLU's units: dead ones, overflow, and clipping."""

from __future__ import annotations

import math

import numpy as np

from dp.typing import Array
from gradiometer.claims import figures
from gradiometer.claims.claim import Claim, Evidence
from gradiometer.claims.flow import GRADIENT, NAMES, WIDE, in_words, logs
from gradiometer.claims.laboratory import LEARNING_RATE, STEPS, Laboratory, pre_activations
from gradiometer.claims.learning import learnt
from gradiometer.claims.learning import of as of_nets
from gradiometer.claims.planned import CHECK, EQUIVALENCE, EQUIVALENCE_FLOW, RANK, RANK_FLOW, SHARE
from gradiometer.claims.statistics import (
    check,
    clopper_pearson,
    equivalence,
    more_often,
    most,
    signed_rank,
)
from gradiometer.studies.outcomes import trend

LARGEST = float(np.finfo(np.float32).max)
DEEP = 60  # layers: overflow is expected three quarters of the way
LAYERS_OFF = 2.0  # margin of the layer at which it comes
CEILING = 2.0
MANY = 0.1  # of a layer's units
NO_COST = 0.05  # decades, 12 %, by which the gradient of layer 1 may change
RATES = (0.01, 1.0)


# --- dead units -----------------------------------------------------------------------------------


def gather_dead(laboratory: Laboratory) -> Evidence:
    """Evidence for `dead-units`."""
    units = laboratory.units()
    died, stayed = (
        (were & units.after).mean(axis=(0, 2)) for were in (~units.before, units.before)
    )
    wide = {
        w: laboratory.flow(activation="relu", width=w).hidden("dead_fraction") for w in (10, WIDE)
    }
    shares = "; ".join(
        f"width {w}: {dead[0].mean():.1%} in layer 1, {dead[-1].mean():.1%} in layer 10, where "
        f"{_nets_with_one(dead[-1])} have one"
        for w, dead in wide.items()
    )
    return Evidence(
        (
            more_often(
                "of a net's dead units after training, more died in it than were dead before", died,
                stayed,
            ),
        ),
        f"Units dead before any training, {shares}. After it {died.mean() + stayed.mean():.1%} of "
        f"all units are dead; {stayed.mean():.1%} were so before, {died.mean():.1%} were not.",
        lambda: figures.profiles(
            {f"width {w}": dead for w, dead in wide.items()},
            "share of dead units before training",
            log=False,
        ),
        tuple(
            finding
            for w, dead in wide.items()
            for finding in (
                signed_rank(
                    f"width {w}: more than {MANY:.0%} of layer 10 are dead before training",
                    dead[-1], np.zeros_like(dead[-1]), "share of units", MANY,
                ),
                signed_rank(
                    f"width {w}: their share grows with the layer, in each net", trend(dead),
                    np.zeros(dead.shape[1]), "share of units per layer",
                ),
            )
        ),
    )  # fmt: skip


def _nets_with_one(dead: Array) -> str:
    """In how many nets a layer has a dead unit; of nets, for units of one net are no sample."""
    low, high = clopper_pearson(int((dead > 0).sum()), len(dead))
    return f"{of_nets(dead > 0)} nets [{low:.1%}, {high:.1%}]"


def gather_ever(laboratory: Laboratory) -> Evidence:
    """Evidence for `dead-for-ever`."""
    units = laboratory.units(scaling="raw")
    revived = units.before & ~units.after
    first, deeper = int(revived[0].sum()), int(revived[1:].sum())
    dead_first, dead_deeper = int(units.before[0].sum()), int(units.before[1:].sum())
    return Evidence(
        (
            check(
                "no unit that is dead at the start is alive at the end", not revived.any(),
                first + deeper, "units that came back", dead_first + dead_deeper,
            ),
        ),
        f"Of units dead at the start, {first} of {dead_first} in layer 1 and {deeper} of "
        f"{dead_deeper} in layers 2 to 10 are alive after training.",
        lambda: figures.profiles(
            {
                "dead at the start": units.before.mean(axis=-1),
                "of these alive at the end": revived.mean(axis=-1),
                "dead at the end": units.after.mean(axis=-1),
            },
            "share of units",
            log=False,
        ),
        (
            check(
                "none comes back in layer 1", first == 0 and dead_first > 0, first,
                "units that came back", dead_first,
            ),
            most(
                "in most nets one comes back in a deeper layer", np.any(revived[1:], axis=(0, 2))
            ),
        ),
    )  # fmt: skip


def gather_kills(laboratory: Laboratory) -> Evidence:
    """Evidence for `rate-kills`."""
    rates = (RATES[0], LEARNING_RATE, RATES[1])
    died = {}
    for rate in rates:
        units = laboratory.units(learning_rate=rate)
        died[rate] = (~units.before & units.after).mean(axis=(0, 2))
    words = ", ".join(f"{each.mean():.1%} at rate {rate:g}" for rate, each in died.items())
    return Evidence(
        (
            signed_rank(
                f"more units die at rate {RATES[1]:g} than at {RATES[0]:g}", died[RATES[1]],
                died[RATES[0]], "share of units",
            ),
        ),
        f"Of all units, dead at the end but not at the start: {words}.",
        lambda: figures.strips(
            {f"rate {rate:g}": each for rate, each in died.items()},
            f"share of units that died in {STEPS} steps",
        ),
    )  # fmt: skip


# --- no upper end ---------------------------------------------------------------------------------


def overflows_at(laboratory: Laboratory, init: str) -> Array:
    """The first layer whose pre-activations are not all finite, in float32; infinite if none."""
    experiment = laboratory.experiment(
        activation="relu", init=init, width=WIDE, layers=DEEP, dtype="float32",
    )  # fmt: skip
    x = experiment.load_data().x
    found = []
    for net in laboratory.nets(experiment):
        spoilt = np.stack(
            [~np.isfinite(h).all(axis=(-2, -1)) for h in pre_activations(net, x[::10])]
        )
        found.append(np.where(spoilt.any(axis=0), spoilt.argmax(axis=0) + 1.0, np.inf))
    return np.concatenate(found)


def gather_overflow(laboratory: Laboratory) -> Evidence:
    """Evidence for `overflow`."""
    at = {init: overflows_at(laboratory, init) for init in ("he_normal", "normal")}
    over = {init: np.isfinite(layer) for init, layer in at.items()}
    # of N(0, 1) each layer multiplies the rms by √(n/2)
    expected = math.log(LARGEST) / math.log(math.sqrt(WIDE / 2))
    layer = np.where(over["normal"], at["normal"], np.nan)
    return Evidence(
        (most("nets with He's weights overflow", over["he_normal"]),),
        f"Of {DEEP} layers of {WIDE} units in float32, {of_nets(over['he_normal'])} nets overflow "
        f"with He's weights and {of_nets(over['normal'])} with N(0, 1), at layer "
        f"{in_words(layer, 1)}; a gain of √(n/2) per layer says {expected:.1f}.",
        lambda: figures.profiles(
            {
                "N(0, 1) weights": _sizes(laboratory, "normal"),
                "He's weights": _sizes(laboratory, "he_normal"),
            },
            "rms of pre-activations (finite ones)",
            line=(LARGEST, "largest float32"),
        ),
        (
            most("nets with weights from N(0, 1) overflow", over["normal"]),
            most("nets with He's weights do not", ~over["he_normal"]),
            equivalence(
                f"they do at layer {expected:.1f}, where √(n/2) per layer gets to the largest "
                "float32", layer, "layer", expected, LAYERS_OFF,
            ),
        ),
    )  # fmt: skip


def _sizes(laboratory: Laboratory, init: str) -> Array:
    """Rms of the pre-activations of hidden layers, NaN from an overflow on; (layers, nets)."""
    experiment = laboratory.experiment(
        activation="relu", init=init, width=WIDE, layers=DEEP, dtype="float32", members=8
    )
    x = experiment.load_data().x
    found = []
    for net in laboratory.nets(experiment):
        sizes = []
        for h in pre_activations(net, x[::10]):
            exact = h.astype(np.float64)  # its square has no place in float32
            with np.errstate(invalid="ignore"):
                sizes.append(np.sqrt((exact**2).mean(axis=(-2, -1))))
        found.append(np.stack(sizes)[:-1])
    values = np.concatenate(found, axis=1)
    return np.where(np.isfinite(values), values, np.nan)


def gather_clipping(laboratory: Laboratory) -> Evidence:
    """Evidence for `clipping`."""
    free = laboratory.flow(activation="relu")
    clipped = laboratory.flow(activation="relu", clip=CEILING)
    raw = [laboratory.flow(activation="relu", clip=clip, scaling="raw") for clip in (None, CEILING)]
    change = logs(clipped, GRADIENT, 1) - logs(free, GRADIENT, 1)
    with np.errstate(invalid="ignore"):
        change_raw = logs(raw[1], GRADIENT, 1) - logs(raw[0], GRADIENT, 1)
    flat, flat_clipped = (net.hidden("saturated_fraction")[0] for net in (free, clipped))
    largest = float(_largest(laboratory))
    learn = learnt(laboratory.trained(activation="relu", clip=CEILING))
    bounded = check(
        f"activations are at most {CEILING:g}", largest <= CEILING, largest, "largest activation",
        laboratory.seeds,
    )  # fmt: skip
    return Evidence(
        (
            bounded,
            equivalence(
                "dL/dW of layer 1 stays as it is", change, "decades", margin=NO_COST
            ),
        ),
        f"A ceiling of {CEILING:g} changes mean |dL/dW| of layer 1 by {in_words(change, 2)} "
        f"decades, on raw inputs by {in_words(change_raw, 2)}, and raises the share of units in it "
        f"without slope from {flat.mean():.1%} to {flat_clipped.mean():.1%}; {of_nets(learn)} nets "
        "learn.",
        lambda: figures.strips(
            {"standardised inputs": change, "raw inputs": change_raw},
            f"change of log10 {NAMES[GRADIENT]} of layer 1\nby the ceiling (decades)",
            lines=[(0.0, "no change")],
        ),
        (
            signed_rank(
                "dL/dW of layer 1 is smaller, in the same nets", -change, np.zeros_like(change),
                "decades",
            ),
            bounded,
            signed_rank(
                "more units of layer 1 have no slope, in the same nets", flat_clipped, flat,
                "share of units",
            ),
            most("they still learn", learn),
        ),
    )  # fmt: skip


def _largest(laboratory: Laboratory) -> float:
    """The largest activation of the clipped nets on the data set, before training."""
    experiment = laboratory.experiment(activation="relu", clip=CEILING)
    x = experiment.load_data().x
    return max(
        float(net.activation(h).max())
        for net in laboratory.nets(experiment)
        for h in [*pre_activations(net, x)][:-1]
    )


_TRAINED = f"{STEPS} steps of gradient descent at rate {LEARNING_RATE:g}"

CLAIMS = [
    Claim(
        "dead-units",
        "Dead ReLU units have died in training.",
        f"Ten ReLU layers of 10 and of {WIDE} units on Iris, the lesson's weights: share of units "
        f"that are zero on the whole data set, before training and after {_TRAINED}.",
        gather_dead,
        "Many ReLU units are dead before any training, and the more, the deeper the layer.",
        why="In deep layers the samples' signals are alike, so a unit that is off for one of them "
        "is off for all.",
        said_tests=(SHARE,),
        reworded_tests=(RANK_FLOW,) * 4,
    ),
    Claim(
        "dead-for-ever",
        "A dead ReLU unit never comes back.",
        f"Ten ReLU layers of ten units on raw Iris, where units of layer 1 are dead too: unit by "
        f"unit, before and after {_TRAINED}.",
        gather_ever,
        "A dead unit of layer 1 never comes back; one of a deeper layer may, as its inputs change.",
        why="A dead unit has no gradient and keeps its weights. In layer 1 its inputs stay as "
        "well; above, the layers below move them.",
        said_tests=(CHECK,),
        reworded_tests=(CHECK, SHARE),
    ),
    Claim(
        "rate-kills",
        "Large learning rates kill ReLU units.",
        f"Ten ReLU layers of ten units on Iris: units that die in {STEPS} steps at rates "
        f"{RATES[0]:g}, {LEARNING_RATE:g} and {RATES[1]:g}, the same seeds.",
        gather_kills,
        why="One large step can push a unit's bias and weights so far that no sample reaches it.",
        said_tests=(RANK,),
    ),
    Claim(
        "overflow",
        "As ReLU has no upper bound, activations overflow in deep nets.",
        f"{DEEP} ReLU layers of {WIDE} units in float32, forwards, with He's weights and with "
        "weights from N(0, 1).",
        gather_overflow,
        "Activations overflow where layers gain more than 1: with weights from N(0, 1), √(n/2) per "
        f"layer, at about layer 45 of width {WIDE}; with He's weights they do not.",
        why="It is the gain per layer that decides, and that is the weights'.",
        said_tests=(SHARE,),
        reworded_tests=(SHARE, SHARE, EQUIVALENCE),
    ),
    Claim(
        "clipping",
        "Clipping the ReLU bounds its activations at no cost.",
        f"Ten ReLU layers of ten units on Iris with and without a ceiling of {CEILING:g}, the same "
        f"seeds: at the first step, and after {_TRAINED}.",
        gather_clipping,
        "Clipping bounds the activations, and adds a second region of zero gradient, which takes "
        "some of the gradient away; the nets still learn.",
        why="Above the ceiling a unit has slope 0, as it has below 0.",
        said_tests=(CHECK, EQUIVALENCE_FLOW),
        reworded_tests=(RANK_FLOW, CHECK, RANK_FLOW, SHARE),
    ),
]
