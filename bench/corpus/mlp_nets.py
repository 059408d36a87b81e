"""The sound perceptrons, kind by kind, and what is done to each; see `mlp`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bench.corpus.cases import Part

# how each activation function's weights are best drawn
INITIALISERS = {
    "relu": "he_normal", "leaky_relu": "he_normal", "clipped_relu": "he_normal",
    "elu": "he_uniform", "gelu": "he_normal", "silu": "he_normal", "softplus": "glorot_uniform",
    "sigmoid": "glorot_uniform", "tanh": "glorot_uniform", "lecun_tanh": "lecun_normal",
    "selu": "lecun_normal", "identity": "glorot_normal",
}  # fmt: skip
NUMBERS = ("waves", "hills")  # data sets whose targets are numbers


@dataclass(frozen=True)
class Net:
    """A sound net, and what is done to it.

    Attributes
    ----------
    part : "calibration" or "test"
    activation, data, layers, optimizer, learning_rate
        As in an Experiment.
    more : dict
        Further settings, and those that differ from the usual ones.
    faults : str
        Names in `mlp_faults.FAULTS`, with the kind after a colon where a fault has several.
    sound : str
        Names in `mlp_faults.SOUND` or `FAULTS` of changes with which it learns all the same, each
        with a name in `TRAPS` after a colon.
    """

    part: Part
    activation: str
    data: str
    layers: int
    optimizer: str
    learning_rate: float
    more: Mapping[str, Any] = field(default_factory=dict)
    faults: str = ""
    sound: str = ""

    @property
    def settings(self) -> dict[str, Any]:
        """How it is trained, but for the seed."""
        return {
            "data": self.data,
            "activation": self.activation,
            "layers": self.layers,
            "width": 20,
            "init": INITIALISERS[self.activation],
            "optimizer": self.optimizer,
            "learning_rate": self.learning_rate,
            "steps": 120,
            "batch_size": 64,
            **({"head": "linear"} if self.data in NUMBERS else {}),
            **self.more,
        }

    @property
    def slug(self) -> str:
        """The beginning of its cases' names."""
        parts = [self.activation, self.data, str(self.layers), self.optimizer, *self._forms()]
        return "-".join(parts).replace("_", "-").replace(" ", "-")

    def group(self, activation: str) -> str:
        """Kind of net, once its activation function is settled."""
        forms = "".join(f", {form}" for form in self._forms())
        return f"{activation} MLP on {self.data}, {self.optimizer}{forms}"

    def _forms(self) -> list[str]:
        normalisation = self.more.get("normalisation")
        return [
            *([f"{normalisation} norm"] if normalisation else []),
            *(["residual"] if self.more.get("residual") else []),
        ]


NETS = (
    Net(
        "calibration", "relu", "iris", 4, "sgd", 0.1,
        faults=(
            "inputs-x10:dead layer-bias-10 layer-weights-x300:exploding rate-1e-3 "
            "rate-x10:dead rate-x30:dead"
        ),
        sound="first-layer-weights-x1e-3:plain layer-weights-x1e-4:small loss-x1e-5:tiny",
    ),
    Net(
        "calibration", "relu", "iris", 10, "sgd", 0.05,
        faults=(
            "layer-bias-10 rate-1e-5 rate-x10:stalled sigmoid weights-x30:non-finite "
            "weights-x3:non-finite"
        ),
        sound="batch-4:plain head-zero:tiny layer-weights-x1e-4:sparse",
    ),
    Net(
        "calibration", "relu", "iris2", 20, "sgd", 0.02, {"batch_size": 100},
        faults=(
            "bias-2 inputs-x1000:non-finite offset-10:dead rate-x30:non-finite sigmoid "
            "weights-x0.03"
        ),
        sound="decay-0.1:sparse first-layer-weights-x1e-3:sparse rate-x10:sparse",
    ),
    Net(
        "calibration", "relu", "moons", 4, "adam", 0.01,
        faults="bias-5 inputs-zero loss-log-of-sigmoid-out100 weights-x30:exploding",
        sound=(
            "first-layer-weights-x1e-3:plain inputs-x3:plain layer-weights-x300:large "
            "normal:plain rate-x10:sparse weights-x0.1:small"
        ),
    ),
    Net(
        "calibration", "relu", "waves", 3, "sgd", 0.05,
        faults=(
            "bias-2 inputs-x100:dead offset-10:dead rate-x100:non-finite targets-nan "
            "weights-x0.1 weights-x10:non-finite"
        ),
        sound="batch-4:plain sum:plain",
    ),
    Net(
        "calibration", "relu", "digits", 3, "sgd", 0.1,
        faults=(
            "inputs-x10:dead layer-bias-10 rate-x100:dead steps-4 weights-x0.03 "
            "weights-x10:exploding"
        ),
        sound="inputs-x3:tiny loss-x1e4:jump weights-x3:jump",
    ),
    Net(
        "calibration", "relu", "digits", 2, "adam", 0.01,
        faults=(
            "bias-2 inputs-equal inputs-x1000:dead inputs-x1e-4 loss-log-of-exp-out30 "
            "rate-x1000:dead"
        ),
        sound="loss-x1e-5:tiny out-weights-x100:jump weights-x10:jump",
    ),
    Net(
        "calibration", "relu", "iris", 5, "momentum", 0.2,
        faults=(
            "inputs-x100:dead normal:exploding rate-x30:dead sigmoid steps-12 "
            "weights-x0.3"
        ),
        sound="inputs-x3:tiny layer-weights-x1e-4:small loss-x1e4:jump",
    ),
    Net(
        "calibration", "tanh", "iris2", 4, "sgd", 0.3,
        faults=(
            "alike-0 head-relu offset-10:saturated sigmoid targets-shuffled "
            "weights-x0.03"
        ),
        sound="head-zero:tiny out-weights-x100:jump rate-x1000:tiny weights-x0.1:small",
    ),
    Net(
        "calibration", "tanh", "iris", 10, "sgd", 0.1,
        faults=(
            "inputs-x10:saturated normal:saturated rate-x1000:saturated steps-4 "
            "weights-x0.5 weights-x10:saturated"
        ),
        sound="first-layer-weights-x1e-3:plain layer-weights-x1e-4:small loss-x1e4:jump",
    ),
    Net(
        "calibration", "tanh", "iris", 20, "adam", 0.003, {"init": "orthogonal"},
        faults=(
            "alike-0.1 inputs-x100:saturated pytorch rate-x10:saturated "
            "weights-x10:saturated"
        ),
        sound="head-zero:tiny inputs-x10:saturated layer-weights-x1e-4:small",
    ),
    Net(
        "calibration", "tanh", "moons", 4, "adam", 0.01,
        faults=(
            "alike-0 head-softmax inputs-x1000:saturated rate-x1000:saturated "
            "weights-x0.1 weights-x30:saturated"
        ),
        sound="rate-x10:saturated rate-x3:plain steps-600:saturated",
    ),
    Net(
        "calibration", "tanh", "digits", 3, "sgd", 0.3,
        faults=(
            "alike-0.1 inputs-x1e-4 inputs-zero rate-x1000:saturated "
            "weights-x10:saturated weights-x30:saturated"
        ),
        sound="batch-4:plain normal:saturated sum:jump",
    ),
    Net(
        "calibration", "tanh", "waves", 3, "sgd", 0.1, {"steps": 150},
        faults=(
            "head-sigmoid loss-relative offset-100:saturated offset-10:saturated "
            "rate-x1000:non-finite weights-x0.1"
        ),
        sound="first-layer-weights-x1e-3:plain inputs-x3:plain weights-x10:saturated",
    ),
    Net(
        "calibration", "tanh", "iris", 6, "momentum", 0.3,
        faults=(
            "decay-0.3 inputs-equal inputs-x10:saturated rate-x1000:saturated steps-4 "
            "weights-x30:saturated"
        ),
        sound=(
            "first-layer-weights-x1e-3:plain rate-x3:plain weights-x0.3:plain "
            "weights-x3:saturated"
        ),
    ),
    Net(
        "calibration", "sigmoid", "iris", 2, "sgd", 0.5, {"steps": 200},
        faults=(
            "head-relu inputs-zero loss-log-of-exp-out100 rate-x100:saturated steps-12 "
            "targets-shuffled"
        ),
        sound="out-weights-x100:jump rate-x30:saturated rate-x3:plain",
    ),
    Net(
        "calibration", "sigmoid", "moons", 2, "adam", 0.1, {"steps": 200},
        faults=(
            "decay-0.1 inputs-equal inputs-x100:saturated rate-x30:saturated steps-12 "
            "targets-shuffled"
        ),
        sound="head-zero:tiny out-weights-x100:jump weights-x30:saturated",
    ),
    Net(
        "calibration", "sigmoid", "digits", 2, "adam", 0.02,
        faults="alike-0.1 inputs-x1000:saturated inputs-zero rate-x30:saturated steps-12",
        sound="head-zero:tiny loss-log-of-softmax-out30:saturated rate-x3:saturated",
    ),
    Net(
        "calibration", "elu", "iris", 6, "sgd", 0.05,
        faults=(
            "inputs-x100:non-finite inputs-x10:non-finite offset-100:stalled "
            "rate-x10:non-finite weights-x0.3 weights-x3:non-finite"
        ),
        sound="decay-0.1:jump inputs-x3:saturated loss-x1e4:jump",
    ),
    Net(
        "calibration", "elu", "moons", 8, "adam", 0.01,
        faults=(
            "alike-0.1 inputs-equal offset-10:stalled rate-x100:stalled sigmoid "
            "weights-x30:exploding"
        ),
        sound=(
            "head-relu:plain layer-weights-x300:saturated loss-x1e4:jump "
            "steps-600:saturated weights-x3:tiny"
        ),
    ),
    Net(
        "calibration", "elu", "waves", 4, "sgd", 0.03, {"steps": 150},
        faults=(
            "head-sigmoid inputs-nan offset-100:non-finite sigmoid targets-shuffled "
            "weights-x3:non-finite"
        ),
        sound="first-layer-weights-x1e-3:plain loss-x1e-5:plain",
    ),
    Net(
        "calibration", "leaky_relu", "iris", 8, "sgd", 0.05,
        faults=(
            "inputs-x10:non-finite offset-10:stalled rate-x10:stalled "
            "rate-x30:non-finite targets-shuffled weights-x30:non-finite"
        ),
        sound="layer-weights-x1e-4:small loss-x1e4:jump steps-600:plain",
    ),
    Net(
        "calibration", "leaky_relu", "moons", 5, "momentum", 0.2, {"steps": 150},
        faults=(
            "inputs-inf inputs-x1000:non-finite normal:non-finite rate-x100:non-finite "
            "sigmoid targets-shuffled"
        ),
        sound="first-layer-weights-x1e-3:plain loss-x1e-5:tiny",
    ),
    Net(
        "calibration", "leaky_relu", "waves", 3, "adam", 0.01,
        faults=(
            "inputs-x100:stalled layer-weights-x300:exploding loss-root "
            "rate-x1000:stalled rate-x100:stalled targets-nan"
        ),
        sound=(
            "inputs-x10:plain loss-x1e4:jump rate-x3:plain weights-x0.03:small "
            "weights-x0.1:plain"
        ),
    ),
    Net(
        "calibration", "identity", "iris2", 8, "sgd", 0.03,
        faults=(
            "decay-0.3 inputs-x10:non-finite offset-10:non-finite sigmoid "
            "targets-shuffled weights-x0.5"
        ),
        sound="batch-4:plain rate-x30:tiny steps-600:plain weights-x10:large",
    ),
    Net(
        "calibration", "identity", "iris2", 3, "sgd", 0.1,
        faults=(
            "decay-0.3 head-softmax inputs-nan rate-x1000:non-finite targets-shuffled "
            "weights-x10:non-finite"
        ),
        sound="out-weights-x100:jump rate-x100:tiny rate-x3:plain weights-x30:tiny",
    ),
    Net(
        "calibration", "identity", "digits", 2, "momentum", 0.3,
        faults=(
            "decay-0.3 inputs-inf inputs-x100:non-finite normal:non-finite "
            "rate-x10:non-finite weights-x10:non-finite"
        ),
        sound="first-layer-weights-x1e-3:plain loss-x1e4:jump",
    ),
    Net(
        "calibration", "sigmoid", "iris", 8, "adam", 0.01, {"normalisation": "batch"},
        faults=(
            "alike-0 inputs-nan loss-log-of-softmax-out100 no-norm rate-1e-3 "
            "rate-x1000:saturated"
        ),
        sound=(
            "alike-0.1:tiny decay-0.3:jump inputs-x1e-4:large inputs-x3:plain "
            "loss-x1e-5:tiny"
        ),
    ),
    Net(
        "calibration", "relu", "moons", 12, "adam", 0.003, {"steps": 150, "normalisation": "layer"},
        faults="inputs-x10:stalled rate-1e-5 rate-x100:dead weights-x30:exploding",
        sound="decay-0.1:jump decay-0.3:jump head-zero:tiny loss-x1e4:jump pytorch:sparse",
    ),
    Net(
        "calibration", "tanh", "iris2", 30, "sgd", 0.05, {"normalisation": "batch", "steps": 80},
        faults="alike-0 head-softmax rate-1e-3 rate-x1000:saturated steps-4",
        sound=(
            "inputs-x1e-4:large loss-x1e4:jump normal:plain weights-x0.3:plain "
            "weights-x0.5:plain"
        ),
    ),
    Net(
        "calibration", "relu", "iris", 16, "sgd", 0.02, {"residual": True, "init_scale": 0.5},
        faults="bias-5 decay-0.1 layer-weights-x300:non-finite rate-x10:non-finite sigmoid",
        sound=(
            "layer-bias-10:tiny layer-weights-x1e-4:sparse out-weights-x100:jump "
            "pytorch:plain"
        ),
    ),
    Net(
        "calibration", "sigmoid", "iris2", 6, "sgd", 0.1, {"residual": True},
        faults=(
            "decay-0.1 head-relu loss-log-of-sigmoid-out30 no-residual "
            "offset-100:saturated"
        ),
        sound="head-zero:tiny inputs-x1000:tiny out-weights-x100:jump rate-x10:jump",
    ),
    Net(
        "calibration", "relu", "moons", 6, "momentum", 0.3, {"width": 50},
        faults="bias-5 decay-0.1 offset-10:dead sigmoid weights-x3:non-finite",
        sound="bias-0.3:plain layer-weights-x1e-4:sparse sum:jump",
    ),
    Net(
        "calibration", "tanh", "iris", 5, "sgd", 0.1, {"width": 60},
        faults=(
            "layer-weights-x300:saturated rate-1e-5 rate-x1000:saturated "
            "rate-x10:saturated weights-x30:saturated"
        ),
        sound="first-layer-weights-x1e-3:plain loss-x1e-5:tiny",
    ),
    Net(
        "calibration", "elu", "iris2", 10, "sgd", 0.05, {"width": 10},
        faults=(
            "inputs-x1000:stalled inputs-x100:non-finite inputs-x10:stalled pytorch "
            "rate-1e-3 rate-x30:stalled"
        ),
        sound="batch-4:plain decay-0.1:jump sum:jump",
    ),
    Net(
        "calibration", "leaky_relu", "digits", 3, "adam", 0.005, {"width": 40},
        faults=(
            "inputs-x1e-4 loss-log-of-softmax-out30 rate-1e-5 rate-x100:stalled "
            "rate-x30:stalled"
        ),
        sound="batch-4:plain out-weights-x100:jump weights-x0.03:small weights-x10:large",
    ),
    Net(
        "test", "gelu", "wine", 4, "adam", 0.01, {"steps": 60},
        faults=(
            "alike-0.1 inputs-x1e-4 loss-log-of-softmax-out30 rate-1e-3 "
            "rate-x100:stalled rate-x30:saturated"
        ),
        sound=(
            "first-layer-weights-x1e-3:plain inputs-x3:sparse layer-weights-x1e-4:small "
            "layer-weights-x300:saturated loss-x1e-5:tiny normal:saturated "
            "rate-x10:saturated weights-x0.03:tiny weights-x0.1:small "
            "weights-x10:saturated weights-x3:saturated"
        ),
    ),
    Net(
        "test", "gelu", "hills", 3, "sgd", 0.1, {"steps": 100, "width": 10},
        faults=(
            "head-sigmoid offset-10:dead rate-x10:non-finite rate-x30:dead targets-nan "
            "weights-x0.1 weights-x10:non-finite weights-x30:non-finite "
            "weights-x3:non-finite"
        ),
        sound="first-layer-weights-x1e-3:plain loss-root:plain loss-x1e-5:tiny sum:plain",
    ),
    Net(
        "test", "gelu", "circles", 4, "adam", 0.01, {"steps": 60},
        faults=(
            "alike-0.1 inputs-equal inputs-x100:stalled offset-100:stalled "
            "rate-x1000:dead rate-x100:dead steps-4 weights-x30:exploding "
            "weights-x3:exploding"
        ),
        sound=(
            "layer-weights-x1e-4:small layer-weights-x300:saturated loss-x1e4:jump "
            "normal:plain rate-x30:saturated rate-x3:plain steps-600:plain "
            "weights-x0.03:tiny weights-x0.1:small"
        ),
    ),
    Net(
        "test", "silu", "circles", 5, "adam", 0.01,
        faults=(
            "alike-0.1 head-softmax inputs-zero rate-x1000:dead rate-x100:stalled "
            "rate-x30:stalled sigmoid weights-x10:exploding weights-x30:exploding"
        ),
        sound=(
            "batch-4:plain inputs-x100:saturated layer-weights-x1e-4:small "
            "layer-weights-x300:saturated loss-x1e4:jump normal:large rate-x10:saturated "
            "steps-600:plain weights-x0.1:tiny weights-x0.3:small weights-x3:jump"
        ),
    ),
    Net(
        "test", "silu", "wine", 6, "sgd", 0.1, {"width": 40},
        faults=(
            "decay-0.1 normal:non-finite offset-100:non-finite rate-x30:non-finite "
            "sigmoid weights-x0.3 weights-x3:non-finite"
        ),
        sound=(
            "inputs-x3:saturated layer-weights-x1e-4:small loss-x1e4:jump "
            "steps-600:plain"
        ),
    ),
    Net(
        "test", "silu", "breast_cancer", 4, "momentum", 0.3,
        faults=(
            "inputs-equal inputs-x1000:non-finite inputs-x100:dead inputs-x10:dead "
            "layer-weights-x300:exploding rate-x1000:dead rate-x10:dead"
        ),
        sound="batch-4:plain head-zero:tiny layer-weights-x1e-4:small sum:jump",
    ),
    Net(
        "test", "selu", "breast_cancer", 8, "sgd", 0.03,
        faults=(
            "inputs-x10:non-finite normal:non-finite offset-10:stalled "
            "rate-x30:non-finite sigmoid weights-x0.3 weights-x3:non-finite"
        ),
        sound=(
            "head-zero:tiny layer-weights-x1e-2:plain layer-weights-x1e-4:small "
            "out-weights-x100:jump"
        ),
    ),
    Net(
        "test", "selu", "circles", 6, "adam", 0.01,
        faults=(
            "alike-0 decay-0.3 head-softmax inputs-x1000:stalled inputs-x1e-4 "
            "inputs-zero offset-100:stalled offset-10:stalled rate-x100:stalled "
            "rate-x30:stalled sigmoid targets-shuffled weights-x10:exploding"
        ),
        sound="first-layer-weights-x1e-3:plain loss-x1e4:jump rate-x3:plain",
    ),
    Net(
        "test", "selu", "hills", 4, "sgd", 0.03, {"width": 10},
        faults=(
            "inputs-equal inputs-x100:non-finite loss-root rate-x100:non-finite "
            "rate-x30:non-finite sigmoid weights-x30:non-finite"
        ),
        sound="batch-4:plain layer-weights-x1e-4:small loss-x1e-5:tiny sum:plain",
    ),
    Net(
        "test", "softplus", "wine", 3, "adam", 0.01,
        faults=(
            "alike-0 decay-0.1 inputs-x1e-4 inputs-zero rate-x100:stalled "
            "rate-x30:stalled steps-4 targets-shuffled weights-x10:exploding "
            "weights-x30:exploding"
        ),
        sound="first-layer-weights-x1e-3:plain inputs-x3:saturated loss-x1e-5:tiny",
    ),
    Net(
        "test", "softplus", "circles", 2, "adam", 0.03,
        faults=(
            "decay-0.1 head-softmax inputs-equal steps-4 targets-shuffled "
            "weights-x10:exploding weights-x30:exploding"
        ),
        sound="batch-4:plain head-zero:tiny out-weights-x100:jump",
    ),
    Net(
        "test", "softplus", "breast_cancer", 3, "sgd", 0.1, {"width": 40},
        faults=(
            "decay-0.1 head-softmax inputs-x1000:dead inputs-x100:dead inputs-zero "
            "rate-x100:stalled rate-x30:non-finite steps-4"
        ),
        sound="first-layer-weights-x1e-3:plain loss-x1e-5:tiny sum:jump",
    ),
    Net(
        "test", "lecun_tanh", "wine", 6, "sgd", 0.1, {"width": 10},
        faults=(
            "decay-0.3 inputs-equal inputs-x10:saturated normal:saturated "
            "rate-x1000:saturated rate-x100:saturated rate-x30:saturated "
            "weights-x10:saturated weights-x30:saturated"
        ),
        sound=(
            "inputs-x3:tiny layer-weights-x1e-2:plain layer-weights-x1e-4:small "
            "layer-weights-x300:saturated loss-x1e4:jump weights-x3:saturated"
        ),
    ),
    Net(
        "test", "lecun_tanh", "circles", 4, "adam", 0.01,
        faults=(
            "alike-0 decay-0.3 inputs-zero normal:saturated offset-100:saturated "
            "rate-x100:saturated sigmoid targets-shuffled weights-x30:saturated"
        ),
        sound=(
            "batch-4:plain head-zero:tiny inputs-x10:plain layer-weights-x1e-4:small "
            "layer-weights-x300:saturated out-weights-x100:jump weights-x3:saturated"
        ),
    ),
    Net(
        "test", "lecun_tanh", "hills", 4, "sgd", 0.05, {"width": 40},
        faults=(
            "head-sigmoid inputs-nan inputs-x1e-4 loss-relative offset-10:saturated "
            "rate-x10:non-finite sigmoid targets-shuffled weights-x0.03 "
            "weights-x30:saturated"
        ),
        sound=(
            "first-layer-weights-x1e-3:plain inputs-x3:plain layer-weights-x1e-4:small "
            "layer-weights-x300:saturated loss-x1e-5:tiny weights-x3:saturated"
        ),
    ),
    Net(
        "test", "clipped_relu", "wine", 4, "sgd", 0.1,
        faults="bias-2 head-relu inputs-inf normal:exploding",
        sound="bias-0.3:plain layer-weights-x1e-4:small steps-600:plain sum:jump",
    ),
    Net(
        "test", "clipped_relu", "circles", 6, "adam", 0.01,
        faults="bias-5 inputs-nan rate-1e-5 weights-x30:exploding",
        sound=(
            "bias-0.3:sparse first-layer-weights-x1e-3:plain layer-weights-x1e-4:sparse "
            "loss-x1e-5:tiny out-weights-x100:jump rate-x3:sparse steps-600:sparse "
            "weights-x0.1:sparse"
        ),
    ),
    Net(
        "test", "relu", "circles", 4, "adam", 0.01,
        faults=(
            "bias-5 inputs-inf layer-bias-10 rate-1e-3 rate-x100:dead rate-x30:dead "
            "weights-x10:exploding weights-x30:exploding"
        ),
        sound=(
            "bias-0.3:sparse first-layer-weights-x1e-3:plain inputs-x3:plain "
            "layer-weights-x1e-4:sparse rate-x10:sparse weights-x0.03:sparse "
            "weights-x0.1:small"
        ),
    ),
    Net(
        "test", "relu", "wine", 6, "sgd", 0.05, {"width": 50},
        faults=(
            "bias-2 inputs-nan layer-bias-10 offset-10:dead steps-12 weights-x0.1 "
            "weights-x3:non-finite"
        ),
        sound=(
            "bias-0.3:plain layer-weights-x1e-4:small loss-x1e-5:tiny "
            "out-weights-x100:jump rate-x3:plain"
        ),
    ),
    Net(
        "test", "relu", "wine", 12, "sgd", 0.03,
        faults=(
            "bias-2 layer-bias-10 layer-weights-x300:non-finite normal:exploding "
            "offset-100:non-finite rate-x100:non-finite weights-x0.5"
        ),
        sound="bias-0.3:sparse inputs-x3:tiny layer-weights-x1e-2:plain loss-x1e-5:tiny",
    ),
    Net(
        "test", "relu", "hills", 4, "sgd", 0.05,
        faults=(
            "bias-5 decay-0.1 inputs-x1000:non-finite inputs-x100:non-finite "
            "layer-weights-x300:non-finite loss-relative targets-nan"
        ),
        sound="batch-4:plain head-zero:tiny layer-weights-x1e-4:small sum:jump",
    ),
    Net(
        "test", "relu", "breast_cancer", 10, "rmsprop", 0.003, {"width": 30},
        faults=(
            "inputs-inf layer-bias-10 rate-1e-5 rate-x100:dead rate-x30:dead steps-12 "
            "weights-x30:exploding"
        ),
        sound=(
            "bias-0.3:plain layer-weights-x1e-2:small layer-weights-x1e-4:sparse "
            "loss-x1e-5:tiny out-weights-x100:plain rate-x3:plain"
        ),
    ),
    Net(
        "test", "tanh", "wine", 10, "sgd", 0.1, {"width": 10},
        faults=(
            "alike-0 inputs-nan inputs-x10:saturated normal:saturated pytorch "
            "rate-x1000:saturated rate-x100:saturated weights-x10:saturated "
            "weights-x30:saturated"
        ),
        sound=(
            "batch-4:plain head-zero:tiny inputs-x3:saturated layer-weights-x1e-4:small "
            "layer-weights-x300:saturated out-weights-x100:jump weights-x3:saturated"
        ),
    ),
    Net(
        "test", "tanh", "circles", 4, "rmsprop", 0.005, {"steps": 150},
        faults=(
            "alike-0 loss-log-of-sigmoid-out100 normal:saturated offset-10:stalled "
            "rate-x100:saturated sigmoid targets-shuffled weights-x0.03 "
            "weights-x10:saturated weights-x30:saturated"
        ),
        sound=(
            "inputs-x10:plain layer-weights-x1e-4:small layer-weights-x300:saturated "
            "loss-x1e4:jump rate-x3:plain steps-600:plain weights-x3:plain"
        ),
    ),
    Net(
        "test", "tanh", "hills", 3, "sgd", 0.1, {"width": 40},
        faults=(
            "head-sigmoid inputs-x1e-4 loss-root offset-100:saturated "
            "rate-x10:non-finite steps-4 targets-nan targets-shuffled weights-x0.03 "
            "weights-x30:saturated"
        ),
        sound=(
            "first-layer-weights-x1e-3:plain inputs-x3:plain loss-x1e-5:tiny "
            "weights-x10:saturated"
        ),
    ),
    Net(
        "test", "tanh", "breast_cancer", 12, "sgd", 0.05,
        faults=(
            "inputs-x100:saturated normal:saturated rate-x1000:stalled "
            "rate-x100:saturated rate-x30:saturated weights-x0.1 weights-x10:saturated "
            "weights-x30:saturated"
        ),
        sound=(
            "batch-4:plain head-zero:tiny layer-weights-x1e-4:small "
            "layer-weights-x300:saturated sum:jump weights-x3:saturated"
        ),
    ),
    Net(
        "test", "sigmoid", "wine", 2, "sgd", 0.5, {"steps": 150},
        faults=(
            "head-relu loss-log-of-exp-out100 offset-100:saturated rate-1e-3 steps-12 "
            "targets-shuffled weights-x30:saturated"
        ),
        sound="out-weights-x100:jump rate-x3:plain steps-600:plain weights-x10:saturated",
    ),
    Net(
        "test", "sigmoid", "circles", 2, "adam", 0.05, {"steps": 150},
        faults=(
            "head-relu inputs-x1000:saturated inputs-x100:saturated rate-1e-5 "
            "rate-x100:saturated rate-x30:saturated"
        ),
        sound=(
            "first-layer-weights-x1e-3:plain inputs-x3:plain loss-x1e-5:tiny "
            "weights-x10:saturated"
        ),
    ),
    Net(
        "test", "sigmoid", "breast_cancer", 2, "rmsprop", 0.01,
        faults=(
            "head-relu inputs-x1000:saturated rate-1e-3 rate-x100:saturated "
            "rate-x30:saturated steps-12"
        ),
        sound=(
            "batch-4:plain head-zero:tiny out-weights-x100:plain rate-x10:saturated "
            "weights-x10:saturated"
        ),
    ),
    Net(
        "test", "elu", "wine", 8, "rmsprop", 0.003, {"width": 10},
        faults=(
            "decay-0.3 inputs-x1e-4 rate-x100:stalled rate-x30:stalled sigmoid "
            "targets-shuffled weights-x0.3 weights-x10:exploding weights-x30:exploding"
        ),
        sound=(
            "batch-4:plain head-zero:tiny layer-weights-x1e-4:small "
            "out-weights-x100:jump"
        ),
    ),
    Net(
        "test", "elu", "circles", 5, "adam", 0.01,
        faults=(
            "decay-0.3 inputs-x1e-4 loss-log-of-sigmoid-out30 offset-10:stalled "
            "rate-x100:stalled rate-x30:stalled sigmoid targets-shuffled weights-x0.3 "
            "weights-x10:exploding weights-x30:exploding"
        ),
        sound="layer-weights-x1e-4:small loss-x1e4:jump rate-x3:plain steps-600:plain",
    ),
    Net(
        "test", "leaky_relu", "circles", 5, "rmsprop", 0.01, {"width": 50},
        faults=(
            "inputs-x1000:stalled offset-10:stalled rate-1e-5 rate-x1000:stalled "
            "rate-x100:stalled rate-x30:stalled sigmoid steps-12 weights-x30:exploding"
        ),
        sound=(
            "first-layer-weights-x1e-3:plain inputs-x3:plain layer-weights-x1e-4:small "
            "loss-x1e-5:tiny rate-x10:jump"
        ),
    ),
    Net(
        "test", "identity", "wine", 4, "sgd", 0.05, {"width": 40},
        faults=(
            "inputs-x100:non-finite offset-10:non-finite rate-x1000:non-finite sigmoid "
            "weights-x0.03 weights-x10:non-finite"
        ),
        sound=(
            "batch-4:plain head-zero:tiny layer-weights-x1e-4:small "
            "out-weights-x100:jump"
        ),
    ),
    Net(
        "test", "identity", "breast_cancer", 12, "sgd", 0.02,
        faults=(
            "decay-0.3 inputs-x10:non-finite inputs-x1e-4 offset-100:non-finite "
            "rate-x10:stalled sigmoid weights-x0.5"
        ),
        sound=(
            "first-layer-weights-x1e-3:plain layer-weights-x1e-4:small loss-x1e4:jump "
            "rate-x3:plain"
        ),
    ),
    Net(
        "test", "sigmoid", "wine", 8, "adam", 0.01, {"normalisation": "batch"},
        faults=(
            "alike-0 inputs-zero loss-log-of-softmax-out100 no-norm rate-1e-3 "
            "targets-shuffled"
        ),
        sound="first-layer-weights-x1e-3:plain loss-x1e-5:tiny rate-x3:plain",
    ),
    Net(
        "test", "tanh", "circles", 12, "adam", 0.003, {"steps": 200, "normalisation": "layer"},
        faults=(
            "alike-0.1 inputs-x1e-4 loss-log-of-sigmoid-out30 sigmoid steps-4 "
            "weights-x0.1"
        ),
        sound="first-layer-weights-x1e-3:plain loss-x1e4:jump rate-x3:plain",
    ),
    Net(
        "test", "relu", "wine", 24, "sgd", 0.01, {"residual": True, "init_scale": 0.3},
        faults=(
            "bias-2 bias-5 inputs-x10:non-finite layer-weights-x300:non-finite rate-1e-3 "
            "rate-x100:non-finite"
        ),
        sound="inputs-x3:tiny",
    ),
    Net(
        "test", "gelu", "breast_cancer", 12, "adam", 0.003, {"residual": True, "steps": 60},
        faults=(
            "alike-0.1 inputs-x1e-4 loss-log-of-sigmoid-out100 rate-1e-5 rate-x1000:dead "
            "rate-x100:dead rate-x30:stalled"
        ),
        sound="batch-4:saturated head-zero:tiny loss-x1e-5:saturated out-weights-x100:jump",
    ),
)  # fmt: skip
