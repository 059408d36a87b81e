"""Claims about the scale of the inputs."""

from __future__ import annotations

import numpy as np

from gradiometer.claims import figures
from gradiometer.claims.claim import Claim, Evidence
from gradiometer.claims.flow import NAMES, SLOPE, in_words, slopes
from gradiometer.claims.laboratory import LEARNING_RATE, STEPS, Laboratory
from gradiometer.claims.learning import learnt, loss, of
from gradiometer.claims.planned import EQUIVALENCE_FLOW, RANK, RANK_FLOW, SHARE
from gradiometer.claims.statistics import equivalence, most, signed_rank
from gradiometer.quantities import DELTA

# name -> scaling of an experiment; Iris is in cm
SCALINGS: dict[str, str | float] = {"standardised": "standardise", "raw cm": "raw", "raw mm": 10.0}
SATURATED = "saturated_fraction"


def gather_raw(laboratory: Laboratory) -> Evidence:
    """Evidence for `raw-inputs`."""
    layer = {
        name: laboratory.flow(activation="tanh", scaling=scaling).hidden(SATURATED)[0]
        for name, scaling in SCALINGS.items()
    }
    nets = {
        name: laboratory.trained(activation="sigmoid", layers=3, scaling=scaling)
        for name, scaling in SCALINGS.items()
    }
    end = {name: net.last["loss"] for name, net in nets.items()}
    learn = {name: learnt(net) for name, net in nets.items()}
    shares = ", ".join(f"{each.mean():.0%} {name}" for name, each in layer.items())
    losses = ", ".join(f"{loss(net):.3g} {name}" for name, net in nets.items())
    saturated = (
        signed_rank(
            "raw cm saturate more units of layer 1",
            layer["raw cm"],
            layer["standardised"],
            "share of units",
        ),
        signed_rank(
            "raw mm saturate still more", layer["raw mm"], layer["raw cm"], "share of units"
        ),
    )
    raw = ("raw cm", "raw mm")
    return Evidence(
        (
            *saturated,
            *(most(f"nets that are given {name} do not learn", ~learn[name]) for name in raw),
        ),
        f"Saturated tanh units of layer 1 at the first step: {shares}. Median loss of three "
        f"sigmoid layers after {STEPS} steps: {losses}; "
        f"{', '.join(f'{of(learn[name])} nets learn from {name}' for name in raw)}.",
        lambda: figures.strips(layer, "share of saturated units in layer 1"),
        (
            *saturated,
            *(
                signed_rank(f"the loss is higher with {name}", end[name], end["standardised"],
                            "loss")
                for name in raw
            ),
            *(most(f"nets that are given {name} learn", learn[name]) for name in raw),
        ),
    )  # fmt: skip


def gather_cures(laboratory: Laboratory) -> Evidence:
    """Evidence for `scaling-cures`."""
    nets = {
        name: laboratory.flow(activation="sigmoid", scaling=scaling)
        for name, scaling in SCALINGS.items()
    }
    layer = {name: net.hidden(SATURATED)[0] for name, net in nets.items()}
    slope = {name: slopes(net, DELTA) for name, net in nets.items()}
    return Evidence(
        (equivalence("standardised, the delta has no slope", slope["standardised"], SLOPE),),
        f"Standardising takes the share of saturated sigmoids of layer 1 from "
        f"{layer['raw mm'].mean():.0%} (raw mm) to {layer['standardised'].mean():.1%}; the delta's "
        f"slope over layers 2 to 10 is {in_words(slope['standardised'])} decades per layer, where "
        f"it was {in_words(slope['raw mm'])}.",
        lambda: figures.profiles(
            {name: net.hidden(DELTA) for name, net in nets.items()}, NAMES[DELTA]
        ),
        (
            equivalence(
                "the delta's slope is what it is with raw mm, in the same nets",
                slope["standardised"] - slope["raw mm"], SLOPE,
            ),
            signed_rank("the standardised slope is above 0", slope["standardised"],
                        np.zeros_like(slope["standardised"]), SLOPE),
            signed_rank("raw mm saturate more units of layer 1", layer["raw mm"],
                        layer["standardised"], "share of units"),
        ),
    )  # fmt: skip


CLAIMS = [
    Claim(
        "raw-inputs",
        "Inputs that are not scaled saturate the units, and nets do not learn from them.",
        "Iris standardised, in cm and in mm, the same seeds: saturated units of the first of ten "
        f"tanh layers; loss of three sigmoid layers after {STEPS} steps at rate {LEARNING_RATE:g}.",
        gather_raw,
        "Inputs that are not scaled saturate units of layer 1 and hold training up: the loss comes "
        "out higher, though a shallow net learns all the same.",
        why="Pre-activations of layer 1 grow with the inputs, and land where φ is flat; the other "
        "layers are given what they always are.",
        said_tests=(RANK_FLOW, RANK_FLOW, SHARE, SHARE),
        reworded_tests=(RANK_FLOW, RANK_FLOW, RANK, RANK, SHARE, SHARE),
        shared_tests=2,
    ),
    Claim(
        "scaling-cures",
        "Scaling the inputs cures saturation, and with it the vanishing gradient.",
        "Ten sigmoid layers of ten units on Iris standardised, in cm and in mm, the same seeds, at "
        "the first step.",
        gather_cures,
        "Scaling the inputs cures layer 1 only: from layer 2 on the delta vanishes as before.",
        why="What layer 2 is given is between 0 and 1 whatever the inputs are.",
        said_tests=(EQUIVALENCE_FLOW,),
        reworded_tests=(EQUIVALENCE_FLOW, RANK_FLOW, RANK_FLOW),
    ),
]
