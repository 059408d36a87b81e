"""The workloads: data, initial weights and batches, the same for every peer, and what they give.

A `Training` describes gradient descent on a fully connected net. Whoever runs it draws the rows of
its batches from the same stream as `dp.SGD(..., seed=...)` does, and must come to the same result.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

ACTIVATIONS = ("sigmoid", "tanh", "relu")
DEPTHS = range(1, 11)
SEEDS = range(20)
TOLERANCE = {"float64": 1e-9, "float32": 2e-2}


@dataclass(frozen=True, eq=False)
class Training:
    """Gradient descent on a fully connected net with cross-entropy.

    Attributes
    ----------
    x, y : array (samples, features), (samples, outputs)
        One output: 0 or 1, a sigmoid. More: one-hot, a softmax.
    weights, biases : list of arrays (…, fan_in, fan_out), (…, 1, fan_out)
        Before the first step; stacks if there are several seeds.
    activation : str
        Of the hidden layers.
    alpha : float
        Rate of the descent, along the gradient of the loss summed over the batch.
    steps, batch : int
    seed : int or sequence of ints
        Of the batches. Several: one net each, trained side by side.
    """

    x: Array
    y: Array
    weights: list[Array]
    biases: list[Array]
    activation: str
    alpha: float
    steps: int
    batch: int
    seed: int | Sequence[int] = 0

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of data, parameters and gradients."""
        return self.x.dtype

    @property
    def depth(self) -> int:
        """Number of hidden layers."""
        return len(self.weights) - 1

    @property
    def widths(self) -> list[int]:
        """Features, units of every layer, outputs."""
        return [w.shape[-2] for w in self.weights] + [self.weights[-1].shape[-1]]

    def rows(self, steps: int | None = None) -> Array:
        """Rows of the batches: (steps, batch), or (seeds, steps, batch) for several seeds."""
        size = (self.steps if steps is None else steps, self.batch)
        if isinstance(self.seed, int):
            return self.stream().integers(0, len(self.x), size=size)
        drawn = [np.random.default_rng((s, 1)).integers(0, len(self.x), size) for s in self.seed]
        return np.stack(drawn)

    def stream(self) -> np.random.Generator:
        """The stream of one seed's batches, from its beginning."""
        return np.random.default_rng((self.seed, 1))

    def exactly(self) -> Training:
        """The same numbers in float64, for the result that everybody must come to."""
        return replace(
            self,
            x=self.x.astype(np.float64),
            y=self.y.astype(np.float64),
            weights=[w.astype(np.float64) for w in self.weights],
            biases=[b.astype(np.float64) for b in self.biases],
        )

    def alone(self, member: int) -> Training:
        """The training of one of several seeds."""
        assert not isinstance(self.seed, int)
        return replace(
            self,
            weights=[w[member] for w in self.weights],
            biases=[b[member] for b in self.biases],
            seed=self.seed[member],
        )


@dataclass(frozen=True)
class Steps:
    """A training that can be continued.

    Attributes
    ----------
    run : callable
        Trains so many steps more.
    parameters : callable or None
        The weights and the bias of every layer, in turn. None: there is nothing to check.
    """

    run: Callable[[int], None]
    parameters: Callable[[], Sequence[Array]] | None = None


@dataclass(frozen=True, eq=False)
class Sweep:
    """Every activation function at every depth, each with every seed."""

    trainings: dict[tuple[str, int], Training]


def lesson(dtype: str, steps: int = 100) -> Training:
    """Ten hidden sigmoid layers of ten on Iris: mean |dL/dW| of all matrices at every step."""
    return _iris("sigmoid", 10, 0, dtype, steps)


def sweep(
    dtype: str,
    activations: Sequence[str] = ACTIVATIONS,
    depths: Sequence[int] = DEPTHS,
    seeds: Sequence[int] = SEEDS,
    steps: int = 100,
) -> Sweep:
    """Train 3 activation functions × 10 depths × 20 seeds, recorded as in the lesson."""
    return Sweep(
        {
            (activation, depth): _iris(activation, depth, list(seeds), dtype, steps)
            for activation in activations
            for depth in depths
        }
    )


def wide(dtype: str = "float32") -> Training:
    """784-1024-1024-10, relu, batches of 256: large matrix products."""
    return random_labels([784, 1024, 1024, 10], "relu", 256, dtype)


def deep(dtype: str = "float32") -> Training:
    """100 features, 50 tanh layers of 100, 10 classes, batches of 128: many small products."""
    return random_labels([100] * 51 + [10], "tanh", 128, dtype)


@dataclass(frozen=True)
class Workload:
    """What is measured under one name.

    Attributes
    ----------
    kind : str
        How a peer prepares it; see `bench.peers`.
    make : callable
        dtype -> what it is given.
    dtypes : tuple of str
        Measured if no dtype is asked for.
    unit : str
        What the time is the time of, and in what: "ms per run".
    units : int
        Of them in a timed run.
    """

    kind: str
    make: Callable[[str], Any]
    dtypes: tuple[str, ...]
    unit: str
    units: int = 1

    def checker(self, dtype: str) -> Callable[[Any, str], tuple[str, float]]:
        """Make the function that compares a peer's result with the reference.

        It is given the result and the peer's name, raises ValueError unless they agree, and
        returns a note and the factor by which the peer's time is to be multiplied.
        """
        from bench.peers.numpy_by_hand import plain_training

        work = self.make(dtype)
        if self.kind == "lesson":
            lesson_means, _ = plain_training(work.exactly())
            return lambda found, who: (check(found, lesson_means, dtype, who) or "", 1.0)
        if self.kind == "steps":
            _, after = plain_training(work.exactly())
            first = [p for pair in zip(work.weights, work.biases, strict=True) for p in pair]

            def check_steps(found: Any, who: str) -> tuple[str, float]:
                if found is not None:
                    check_change(found, first, after, dtype, who)
                return "", 1.0

            return check_steps
        if self.kind == "sweep":
            cells = {
                cell: plain_training(training.exactly())[0]
                for cell, training in work.trainings.items()
            }

            def check_sweep(found: Any, who: str) -> tuple[str, float]:
                members = len(next(iter(found.values())))
                for cell, right in cells.items():
                    share = 0.9 if cell[0] == "relu" and dtype == "float32" else 1.0
                    check(found[cell], right[:members], dtype, f"{who} {cell}", share)
                if members == len(SEEDS):
                    return "", 1.0
                return f"scaled from {members} of {len(SEEDS)} seeds", len(SEEDS) / members

            return check_sweep
        size, _ = work
        gradient = np.full((4, 4), 0.999 ** (size // 2))
        return lambda found, who: (check(found, gradient, dtype, who) or "", 1.0)


def check(found: Array, expected: Array, dtype: str, what: str, share: float = 1.0) -> None:
    """Raise ValueError unless two recordings agree.

    Parameters
    ----------
    found, expected : array
        Positive numbers; `expected` in float64.
    dtype : str
        That of the computation, which decides the tolerance (relative).
    what : str
        Stands in front of the error.
    share : float
        Of the numbers, that must agree: below 1 where a single rounding may set a relu to zero,
        after which that net goes its own way.
    """
    found = np.asarray(found, dtype=np.float64)
    if found.shape != expected.shape:
        raise ValueError(f"{what}: the result has shape {found.shape}, not {expected.shape}")
    if not np.isfinite(found).all():
        raise ValueError(f"{what}: the result is not finite")
    # where nothing is expected, relative to the smallest normal number
    scale = np.maximum(np.abs(expected), np.finfo(np.float32).tiny)
    error = float(np.quantile(np.abs(found - expected) / scale, share, method="higher"))
    if error > TOLERANCE[dtype]:
        raise ValueError(f"{what}: differs by {error:.1e}, allowed is {TOLERANCE[dtype]:.0e}")


def check_change(
    found: Sequence[Array], first: Sequence[Array], expected: Sequence[Array], dtype: str, what: str
) -> None:
    """Raise ValueError unless parameters have changed as expected, by norm."""
    for number, (new, old, right) in enumerate(zip(found, first, expected, strict=True)):
        if np.shape(new) != right.shape:
            raise ValueError(
                f"{what}: parameter {number} has shape {np.shape(new)}, not {right.shape}"
            )
        should = right.astype(np.float64) - old
        error = np.linalg.norm(np.asarray(new, dtype=np.float64) - right) / np.linalg.norm(should)
        if not error <= TOLERANCE[dtype]:
            raise ValueError(
                f"{what}: parameter {number} differs by {error:.1e} of its change, "
                f"allowed is {TOLERANCE[dtype]:.0e}"
            )


def _iris(activation: str, depth: int, seed: int | list[int], dtype: str, steps: int) -> Training:
    import dp
    from gradiometer.data import load

    data = load("iris2")
    parameters = list(dp.Net(4, 10, depth, activation, seed=seed, dtype=dtype).get_param().values())
    return Training(
        data.x.astype(dtype),
        data.y.astype(dtype),
        parameters[0::2],
        parameters[1::2],
        activation,
        0.001,
        steps,
        128,
        seed,
    )


def random_labels(widths: list[int], activation: str, batch: int, dtype: str) -> Training:
    """Random data with random labels; a rate so small that the numbers stay as they begin."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, widths[-1], size=4 * batch)
    bounds = [np.sqrt(6.0 / (i + o)) for i, o in itertools.pairwise(widths)]
    return Training(
        rng.normal(size=(4 * batch, widths[0])).astype(dtype),
        np.eye(widths[-1], dtype=dtype)[labels],
        [
            rng.uniform(-b, b, (i, o)).astype(dtype)
            for b, i, o in zip(bounds, widths, widths[1:], strict=False)
        ],
        [rng.uniform(-0.1, 0.1, (1, o)).astype(dtype) for o in widths[1:]],
        activation,
        1e-5,
        3,
        batch,
    )


WORKLOADS: dict[str, Workload] = {
    "lesson": Workload("lesson", lesson, ("float64", "float32"), "ms per run"),
    "wide": Workload("steps", wide, ("float32",), "ms per step", 16),
    "deep": Workload("steps", deep, ("float32",), "ms per step", 60),
    "sweep": Workload("sweep", sweep, ("float32", "float64"), "s"),
    "graphs": Workload(
        "chain", lambda dtype: (1_000, dtype), ("float64",), "µs per operation", 1_000
    ),
}
