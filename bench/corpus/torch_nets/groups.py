"""Groups: the kinds of nets, each with a plan that learns, its part, and the faults that fit it."""

from __future__ import annotations

from dataclasses import dataclass

from bench.corpus.cases import Part
from bench.corpus.torch_nets.plan import Plan

# faults of any net
LOOP = (
    "rate-1e-9", "rate-1e-6", "never-warm", "gone-at-once", "cleared", "accumulated", "decay",
    "few-steps", "shuffled", "other-row", "rate-10", "rate-100",
)  # fmt: skip
# of nets that get numbers
DATA = ("zero", "constant", "one-row", "data-nan", "data-inf")
# of nets whose trunk must be trained
TRUNK = ("owned-last", "frozen-trunk", "detached", "no-grad")
# of losses
CLASSES = (
    "softmax-by-hand", "log-of-softmax", "entropy", "norm", "normalised", "softmax-twice",
)  # fmt: skip
BINARY = ("binary-by-hand", "targets-nan")
NUMBERS = (
    "relative", "log-error", "targets-nan", "sigmoid-numbers", "relu-out", "tanh-large", "flat",
)  # fmt: skip
COMMON_FAULTS = (*LOOP, *DATA, *TRUNK, *CLASSES, *BINARY, *NUMBERS)
# of these, the ones that are alone with their cause, or nearly so
SCARCE = (
    "cleared", "accumulated", "few-steps", "softmax-twice", "relu-out", "sigmoid-numbers",
    "tanh-large", "flat",
)  # fmt: skip
# of nets of many layers
DEEP = ("sigmoid-deep", "hardsigmoid-deep", "small-all", "small-std", "identical", "all-zero")
LARGE = ("large-3", "large-8", "large-normal", "large-1e6", "large-clipped")
INPUTS = ("times-30", "times-1000", "times-1e20", "far", "far-below")
RELU = ("bias-all", "bias-middle", "rate-1", "rate-3", "spike")
RECURRENT = ("recurrence-small", "recurrence-large")
LONG = (
    "recurrence-tenth", "recurrence-third", "recurrence-relu", "recurrence-relu-2",
    "recurrence-relu-3", "each-step",
)  # fmt: skip


@dataclass(frozen=True)
class Group:
    """A kind of net.

    Attributes
    ----------
    part : "calibration" or "test"
    plan : Plan
        It learns.
    faults : tuple of str
        Names in `faults.FAULTS`.
    controls : tuple of str
        Names in `controls.CONTROLS`.
    """

    part: Part
    plan: Plan
    faults: tuple[str, ...]
    controls: tuple[str, ...]


_ANY = (
    "zero-head",
    "adam-tiny",
    "adam-huge",
    "clipped",
    "warm-up",
    "to-zero",
    "small-batch",
    "fast",
)
COMMON_CONTROLS = _ANY
_PLAIN = ("converged", "converged-adam", "frozen-first", "framework", "decayed")
_RELU = ("sparse-relus", "half-dead", "deep")
_TANH = ("wide-tanh", "deep", "shallow-sigmoid", "large-weights", "large-inputs", "small-layer")
GROUPS: dict[str, Group] = {
    # --- plain nets
    "relu MLP on digits": Group(
        "calibration", Plan("digits", "mlp", depth=3),
        ("owned-first", *LOOP, *DATA, *TRUNK, *CLASSES, *DEEP, *LARGE, *INPUTS, *RELU,
         "small-middle", "raw",
         "dropout"),
        (*_ANY, *_PLAIN, *_RELU, "dropout", "partly-wrong", "without-reference"),
    ),
    "tanh MLP on digits": Group(
        "calibration", Plan("digits", "mlp", depth=3, activation="tanh"),
        ("owned-first", *LOOP, *DATA, *TRUNK, *CLASSES, *DEEP, *LARGE, *INPUTS, "dropout"),
        (*_ANY, *_PLAIN, *_TANH, "normalised-sigmoid", "partly-wrong"),
    ),
    "tanh MLP on moons": Group(
        "calibration",
        Plan("moons", "mlp", depth=2, activation="tanh", optimizer="adam", rate=0.02),
        (*LOOP, *DATA, *TRUNK, *BINARY, *DEEP, *LARGE, *INPUTS),
        (*_ANY, *_PLAIN, *_TANH, "probabilities", "partly-wrong"),
    ),
    "relu MLP on friedman": Group(
        "calibration", Plan("friedman", "mlp", depth=2, rate=0.02),
        ("owned-first", *LOOP, *DATA, *TRUNK, *NUMBERS, *DEEP, *LARGE, *INPUTS, *RELU),
        (*_ANY, *_PLAIN, *_RELU, "small-targets", "without-reference"),
    ),
    "relu MLP on cancer": Group(
        "test", Plan("cancer", "mlp", depth=2),
        (*LOOP, *DATA, *BINARY, *DEEP, *LARGE, *INPUTS, *RELU, "raw"),
        (*_ANY, *_PLAIN, *_RELU, "probabilities", "partly-wrong"),
    ),
    "gelu MLP on wine": Group(
        "test", Plan("wine", "mlp", depth=2, activation="gelu"),
        (*LOOP, *DATA, *CLASSES, *DEEP, *LARGE, *INPUTS, "raw"),
        (*_ANY, *_PLAIN, "deep", "dropout"),
    ),
    "tanh MLP on a wave": Group(
        "test", Plan("wave", "mlp", depth=2, activation="tanh", optimizer="adam", rate=0.02),
        ("owned-first", *LOOP, *DATA, *TRUNK, *NUMBERS, *DEEP, *LARGE, *INPUTS),
        (*_ANY, *_PLAIN, *_TANH, "small-targets"),
    ),
    "MLP with BatchNorm": Group(
        "calibration", Plan("digits", "mlp", depth=3, norm="batch"),
        (*LOOP, *DATA, *TRUNK, *CLASSES, "all-zero"),
        (*_ANY, "scaled-by-norm", "normalised-sigmoid", "deep", "converged"),
    ),
    "MLP with LayerNorm": Group(
        "test", Plan("digits", "mlp", depth=3, norm="layer", activation="elu"),
        (*LOOP, *DATA, *TRUNK, *CLASSES, "all-zero", "dropout"),
        (*_ANY, "deep", "converged", "frozen-first", "dropout"),
    ),
    "funnel on digits": Group(
        "test", Plan("digits", "funnel", depth=3, width=40, optimizer="adam", rate=0.01),
        (*LOOP, *DATA, *TRUNK, *CLASSES, *INPUTS, *RELU, "identical", "all-zero", "dropout"),
        (*_ANY, *_PLAIN, "half-dead"),
    ),
    "bag of tokens": Group(
        "calibration",
        Plan("topics", "bag", depth=1, width=16, length=12, optimizer="adam", rate=0.02),
        (*LOOP, *TRUNK, *CLASSES, "bias-all", "identical"),
        (*_ANY, *_PLAIN, "long", "half-dead", "without-reference"),
    ),
    # --- convolutional and residual nets
    "convolutional net, pooled": Group(
        "calibration",
        Plan("digits", "conv", depth=2, width=8, pool="max", optimizer="adam", rate=0.01),
        ("owned-first", *LOOP, *DATA, *TRUNK, *CLASSES, *DEEP, *LARGE, *INPUTS, *RELU),
        (*_ANY, "sparse-relus", "half-dead", "converged", "frozen-first", "partly-wrong"),
    ),
    "convolutional net with BatchNorm": Group(
        "calibration",
        Plan("digits", "conv", depth=2, width=8, pool="mean", norm="batch", optimizer="adam",
             rate=0.02),
        (*LOOP, *DATA, *CLASSES),
        (*_ANY, "scaled-by-norm", "converged", "max-pooled"),
    ),
    "convolutional net, flat": Group(
        "test", Plan("digits", "conv", depth=2, width=4),
        (*LOOP, *DATA, *CLASSES, *DEEP, *LARGE, *INPUTS, *RELU),
        (*_ANY, "half-dead", "deep", "frozen-first", "partly-wrong"),
    ),
    "convolutional net in time": Group(
        "test",
        Plan("rows", "conv in time", depth=2, width=20, pool="max", optimizer="adam", rate=0.01),
        (*LOOP, *DATA, *CLASSES, *DEEP, *LARGE, *INPUTS, *RELU),
        (*_ANY, "mean-pooled", "half-dead", "frozen-first"),
    ),
    "residual net with BatchNorm": Group(
        "calibration", Plan("digits", "residual", depth=2, width=4, pool="max"),
        (*LOOP, *DATA, *TRUNK, *CLASSES, "dropout"),
        (*_ANY, "zero-branches", "mean-pooled", "frozen-first"),
    ),
    "residual net without norm": Group(
        "test", Plan("digits", "preactivation", depth=3, rate=0.03),
        ("owned-first", *LOOP, *DATA, *TRUNK, *CLASSES, *LARGE, *INPUTS, "all-zero", "dropout"),
        (*_ANY, *_PLAIN, "half-dead", "deep", "dropout"),
    ),
    # --- recurrent nets
    "recurrent net, by hand": Group(
        "calibration",
        Plan("recall", "loop", length=12, activation="tanh", pool="last", optimizer="adam",
             rate=0.01),
        (*LOOP, *DATA, *TRUNK, *CLASSES, *RECURRENT, *LONG),
        (*_ANY, "converged", "without-reference"),
    ),
    "recurrent net, of rows": Group(
        "test", Plan("rows", "loop", activation="tanh", pool="last", optimizer="adam", rate=0.01),
        (*LOOP, *DATA, *TRUNK, *CLASSES, *RECURRENT, *INPUTS, *LONG, "recurrence-eight"),
        (*_ANY, "mean-pooled", "converged"),
    ),
    "RNN": Group(
        "calibration",
        Plan("recall", "rnn", depth=1, length=20, pool="last", optimizer="adam", rate=0.01),
        (*LOOP, *DATA, *TRUNK, *CLASSES, *RECURRENT, "recurrence-tenth", "recurrence-third"),
        (*_ANY, "converged", "dropout"),
    ),
    "recurrent net, narrow": Group(
        "test",
        Plan("recall", "loop", length=12, width=20, activation="tanh", pool="last",
             optimizer="adam", rate=0.01),
        (*RECURRENT, *LONG, "far"),
        ("zero-head", "adam-tiny", "clipped", "to-zero"),
    ),
    "RNN, narrow": Group(
        "test",
        Plan("recall", "rnn", depth=1, length=14, width=16, pool="last", optimizer="adam",
             rate=0.02),
        (*RECURRENT, "recurrence-tenth", "recurrence-third", "far"),
        ("zero-head", "adam-tiny", "clipped", "to-zero"),
    ),
    "LSTM": Group(
        "test", Plan("rows", "lstm", depth=1, pool="last", optimizer="adam", rate=0.02),
        (*LOOP, *DATA, *TRUNK, *CLASSES, "times-1000", "far", "all-zero"),
        (*_ANY, "mean-pooled", "converged", "dropout"),
    ),
    "LSTM on sums": Group(
        "test",
        Plan("sums", "lstm", depth=1, pool="mean", optimizer="adam", rate=0.02),
        (*LOOP, *DATA, *TRUNK, *NUMBERS, *RECURRENT, "times-1000", "far"),
        (*_ANY, "long", "small-targets"),
    ),
    "GRU": Group(
        "test", Plan("recall", "gru", depth=1, length=12, pool="last", optimizer="adam", rate=0.02),
        (*LOOP, *DATA, *TRUNK, *CLASSES, *RECURRENT, "far"),
        (*_ANY, "converged", "dropout"),
    ),
    "GRU of tokens": Group(
        "test",
        Plan("topics", "gru of tokens", depth=1, length=10, width=16, pool="mean", optimizer="adam",
             rate=0.02),
        (*LOOP, *TRUNK, *CLASSES, "dropout"),
        (*_ANY, "long", "frozen-first", "dropout"),
    ),
    # --- transformers
    "transformer": Group(
        "test", Plan("rows", "transformer", depth=1, optimizer="adam", rate=0.01, steps=40),
        ("owned-first", *LOOP, *DATA, *TRUNK, *CLASSES, "dropout", "all-zero"),
        (*_ANY, "dropout", "converged"),
    ),
    "transformer with markers": Group(
        "test",
        Plan("marked", "transformer", depth=2, length=8, optimizer="adam", rate=0.01, steps=40),
        (*LOOP, *TRUNK, *CLASSES, "dropout"),
        (*_ANY, "frozen-first", "converged"),
    ),
    "attention, by hand": Group(
        "test",
        Plan("topics", "attention", depth=1, length=10, width=16, optimizer="adam", rate=0.01,
             steps=40),
        (*LOOP, *TRUNK, *CLASSES, "dropout"),
        (*_ANY, "long", "frozen-first", "dropout"),
    ),
    "attention, of rows": Group(
        "test",
        Plan("rows", "attention", depth=1, width=20, optimizer="adam", rate=0.01, steps=40),
        (*LOOP, *DATA, *TRUNK, *CLASSES, "all-zero"),
        (*_ANY, "dropout", "without-reference"),
    ),
    # --- more of the recurrent nets
    "recurrent net, of rows, relu": Group(
        "calibration",
        Plan("rows", "loop", pool="last", optimizer="adam", rate=0.005),
        ("recurrence-relu", "recurrence-relu-2", "recurrence-relu-3", "recurrence-large",
         "recurrence-eight", "far", "cleared"),
        ("zero-head", "warm-up", "mean-pooled"),
    ),
    "RNN, of rows": Group(
        "calibration",
        Plan("rows", "rnn", depth=1, pool="last", optimizer="adam", rate=0.01),
        ("recurrence-large", "recurrence-eight", "far", "cleared"),
        ("zero-head", "warm-up", "mean-pooled"),
    ),
}  # fmt: skip
