"""What a peer is given: a net before its training, its data, and the batches of every step.

Whoever runs a `Training` draws the rows of its batches from the same stream as
`dp.SGD(..., seed=...)` does, and must come to the same result.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


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


def with_bias(work: Training, dtype: Any) -> list[Array]:
    """Weights and bias of every layer in one matrix, (…, fan_out, fan_in + 1)."""
    return [
        np.concatenate([w, b], axis=-2).swapaxes(-1, -2).astype(dtype, order="C")
        for w, b in zip(work.weights, work.biases, strict=True)
    ]
