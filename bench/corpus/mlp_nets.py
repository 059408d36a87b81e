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
            "inputs-x10:dead layer-bias-10 layer-weights-x300:exploding offset-100:dead "
            "rate-x100:dead rate-x10:dead sigmoid weights-x0.1 weights-x10:non-finite "
            "weights-x3:exploding"
        ),
        sound="layer-weights-x1e-4:small",
    ),
    Net(
        "calibration", "relu", "iris", 10, "sgd", 0.05,
        faults=(
            "bias-5 inputs-zero layer-bias-10 offset-10:non-finite pytorch rate-x10:dead "
            "rate-x30:non-finite sigmoid weights-x30:non-finite weights-x3:exploding"
        ),
        sound="layer-weights-x1e-4:sparse",
    ),
    Net(
        "calibration", "relu", "iris2", 20, "sgd", 0.02, {"batch_size": 100},
        faults=(
            "alike-0.1 bias-2 bias-5 inputs-equal inputs-x1000:non-finite "
            "layer-weights-x300:non-finite offset-10:dead pytorch rate-x30:non-finite "
            "sigmoid"
        ),
        sound=(
            "decay-0.1:sparse head-relu:sparse layer-weights-x1e-4:sparse "
            "rate-x10:sparse"
        ),
    ),
    Net(
        "calibration", "relu", "moons", 4, "adam", 0.01,
        faults=(
            "alike-0 bias-2 decay-0.3 inputs-nan inputs-zero offset-100:dead "
            "rate-x1000:dead rate-x100:dead rate-x30:dead weights-x30:exploding"
        ),
        sound=(
            "layer-weights-x300:sparse normal:large rate-x10:sparse weights-x0.1:small "
            "weights-x3:jump"
        ),
    ),
    Net(
        "calibration", "relu", "waves", 3, "sgd", 0.05,
        faults=(
            "bias-2 inputs-x1000:dead inputs-x100:dead inputs-x10:non-finite "
            "layer-bias-10 layer-weights-x300:exploding normal:non-finite "
            "rate-x10:non-finite targets-nan weights-x10:exploding"
        ),
    ),
    Net(
        "calibration", "relu", "digits", 3, "sgd", 0.1,
        faults=(
            "alike-0.1 bias-2 inputs-equal inputs-inf inputs-x100:dead inputs-x10:dead "
            "rate-x1000:dead rate-x100:dead weights-x10:exploding weights-x30:exploding"
        ),
        sound="weights-x3:jump",
    ),
    Net(
        "calibration", "relu", "digits", 2, "adam", 0.01,
        faults=(
            "bias-5 decay-0.3 inputs-x1000:dead inputs-zero loss-log-of-exp-out30 "
            "offset-10:dead rate-x1000:dead rate-x30:dead weights-x30:exploding"
        ),
        sound="normal:jump weights-x10:jump",
    ),
    Net(
        "calibration", "relu", "iris", 5, "momentum", 0.2,
        faults=(
            "bias-5 decay-0.3 inputs-equal inputs-x10:dead normal:exploding "
            "rate-x1000:dead rate-x30:dead sigmoid weights-x0.3 weights-x3:non-finite"
        ),
        sound="layer-weights-x1e-4:small",
    ),
    Net(
        "calibration", "tanh", "iris2", 4, "sgd", 0.3,
        faults=(
            "alike-0 decay-0.3 head-relu inputs-x1e-4 inputs-zero "
            "loss-log-of-sigmoid-out100 offset-10:saturated sigmoid targets-shuffled"
        ),
        sound=(
            "inputs-x100:tiny layer-weights-x1e-4:small layer-weights-x300:tiny "
            "rate-x1000:tiny rate-x30:tiny weights-x0.1:small weights-x3:saturated"
        ),
    ),
    Net(
        "calibration", "tanh", "iris", 10, "sgd", 0.1,
        faults=(
            "decay-0.1 normal:saturated offset-100:saturated rate-x100:saturated sigmoid "
            "steps-4 weights-x0.03 weights-x10:saturated weights-x30:saturated"
        ),
        sound="layer-weights-x1e-4:small",
    ),
    Net(
        "calibration", "tanh", "iris", 20, "adam", 0.003, {"init": "orthogonal"},
        faults=(
            "decay-0.1 inputs-x100:saturated loss-log-of-softmax-out100 normal:saturated "
            "rate-x10:saturated sigmoid weights-x0.1 weights-x10:saturated "
            "weights-x30:saturated"
        ),
        sound="inputs-x10:saturated layer-weights-x1e-4:small",
    ),
    Net(
        "calibration", "tanh", "moons", 4, "adam", 0.01,
        faults=(
            "decay-0.1 head-softmax inputs-x1000:saturated loss-log-of-sigmoid-out30 "
            "rate-x30:saturated sigmoid steps-4 weights-x0.3 weights-x30:saturated"
        ),
        sound="layer-weights-x1e-4:small normal:saturated",
    ),
    Net(
        "calibration", "tanh", "digits", 3, "sgd", 0.3,
        faults=(
            "alike-0.1 decay-0.1 inputs-x100:saturated loss-log-of-softmax-out30 "
            "rate-x100:saturated steps-4 weights-x0.03 weights-x10:saturated "
            "weights-x30:saturated"
        ),
        sound="normal:saturated rate-x10:saturated",
    ),
    Net(
        "calibration", "tanh", "waves", 3, "sgd", 0.1, {"steps": 150},
        faults=(
            "decay-0.3 head-sigmoid inputs-x1e-4 loss-root offset-10:saturated "
            "rate-x100:non-finite rate-x10:non-finite targets-nan targets-shuffled "
            "weights-x0.1"
        ),
        sound="inputs-x100:saturated weights-x10:saturated",
    ),
    Net(
        "calibration", "tanh", "iris", 6, "momentum", 0.3,
        faults=(
            "alike-0 inputs-x100:saturated inputs-x10:saturated rate-1e-5 "
            "rate-x30:saturated sigmoid steps-4 weights-x0.03 weights-x30:saturated"
        ),
        sound="layer-weights-x1e-4:small weights-x0.3:small weights-x3:saturated",
    ),
    Net(
        "calibration", "sigmoid", "iris", 2, "sgd", 0.5, {"steps": 200},
        faults=(
            "head-relu inputs-inf inputs-x10:saturated loss-log-of-softmax-out100 "
            "rate-1e-3 rate-x1000:saturated rate-x100:saturated steps-12 "
            "targets-shuffled"
        ),
        sound="rate-x30:saturated",
    ),
    Net(
        "calibration", "sigmoid", "moons", 2, "adam", 0.1, {"steps": 200},
        faults=(
            "decay-0.3 head-softmax inputs-nan inputs-x1000:saturated rate-1e-5 "
            "rate-x100:saturated rate-x30:saturated steps-12 targets-shuffled"
        ),
        sound="weights-x30:saturated",
    ),
    Net(
        "calibration", "sigmoid", "digits", 2, "adam", 0.02,
        faults=(
            "head-relu inputs-inf inputs-x1e-4 loss-log-of-exp-out100 "
            "offset-100:saturated rate-1e-3 rate-x1000:saturated steps-12 "
            "targets-shuffled"
        ),
        sound=(
            "loss-log-of-exp-out30:jump loss-log-of-softmax-out30:jump "
            "weights-x10:saturated"
        ),
    ),
    Net(
        "calibration", "elu", "iris", 6, "sgd", 0.05,
        faults=(
            "head-relu inputs-x100:non-finite layer-weights-x300:exploding rate-1e-5 "
            "rate-x100:non-finite sigmoid weights-x0.3 weights-x10:non-finite "
            "weights-x3:exploding"
        ),
        sound="decay-0.1:jump layer-weights-x1e-4:small",
    ),
    Net(
        "calibration", "elu", "moons", 8, "adam", 0.01,
        faults=(
            "alike-0.1 decay-0.1 head-softmax loss-log-of-sigmoid-out100 "
            "offset-10:stalled rate-1e-3 sigmoid weights-x0.1 weights-x30:exploding"
        ),
        sound=(
            "head-relu:jump layer-weights-x1e-4:small layer-weights-x300:saturated "
            "normal:tiny weights-x3:tiny"
        ),
    ),
    Net(
        "calibration", "elu", "waves", 4, "sgd", 0.03, {"steps": 150},
        faults=(
            "head-sigmoid inputs-x1e-4 offset-10:non-finite rate-1e-5 "
            "rate-x1000:non-finite sigmoid targets-shuffled weights-x0.3 "
            "weights-x3:non-finite"
        ),
        sound="layer-weights-x1e-4:small",
    ),
    Net(
        "calibration", "leaky_relu", "iris", 8, "sgd", 0.05,
        faults=(
            "inputs-x1e-4 offset-100:non-finite rate-1e-3 rate-x30:non-finite sigmoid "
            "steps-12 targets-shuffled weights-x0.5 weights-x3:non-finite"
        ),
        sound="layer-weights-x1e-4:saturated",
    ),
    Net(
        "calibration", "leaky_relu", "moons", 5, "momentum", 0.2, {"steps": 150},
        faults=(
            "inputs-x1000:non-finite inputs-x1e-4 rate-1e-5 rate-x100:non-finite sigmoid "
            "steps-4 targets-shuffled weights-x0.03 weights-x10:non-finite"
        ),
        sound="layer-weights-x1e-4:small rate-x10:saturated",
    ),
    Net(
        "calibration", "leaky_relu", "waves", 3, "adam", 0.01,
        faults=(
            "alike-0.1 head-sigmoid inputs-x1e-4 loss-relative normal:exploding "
            "rate-1e-3 steps-12 targets-nan weights-x10:exploding"
        ),
        sound="inputs-x10:jump weights-x0.03:small weights-x0.1:saturated",
    ),
    Net(
        "calibration", "identity", "iris2", 8, "sgd", 0.03,
        faults=(
            "alike-0 inputs-equal inputs-x10:non-finite loss-log-of-sigmoid-out30 "
            "offset-100:non-finite offset-10:stalled sigmoid targets-shuffled "
            "weights-x0.5"
        ),
        sound=(
            "inputs-x1000:tiny layer-weights-x1e-4:small rate-x1000:tiny rate-x100:tiny "
            "rate-x30:tiny weights-x10:tiny"
        ),
    ),
    Net(
        "calibration", "identity", "iris2", 3, "sgd", 0.1,
        faults=(
            "alike-0 head-softmax inputs-nan inputs-x100:non-finite inputs-x1e-4 "
            "inputs-zero normal:non-finite rate-x1000:non-finite targets-shuffled"
        ),
        sound="layer-weights-x300:tiny rate-x100:tiny weights-x30:tiny weights-x3:tiny",
    ),
    Net(
        "calibration", "identity", "digits", 2, "momentum", 0.3,
        faults=(
            "inputs-equal inputs-inf inputs-x10:non-finite inputs-x1e-4 normal:exploding "
            "rate-x10:non-finite steps-4 targets-shuffled weights-x30:non-finite"
        ),
    ),
    Net(
        "calibration", "sigmoid", "iris", 8, "adam", 0.01, {"normalisation": "batch"},
        faults="alike-0 inputs-nan inputs-zero no-norm rate-1e-3 rate-x1000:saturated",
        sound="alike-0.1:tiny decay-0.3:jump inputs-x1e-4:large rate-x100:saturated",
    ),
)  # fmt: skip
