"""What a run says, as values: one class per kind of finding, each with its evidence.

They are made by `judge`, and put into words by `sentence`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

from gradiometer.thresholds import REACHES_WITHIN_DECADES


class Kind(StrEnum):
    """What a finding is."""

    HEALTHY = "healthy"  # the gradient reaches the first layer of a chain
    VANISHING = "vanishing"
    EXPLODING = "exploding"
    UNKNOWN = "unknown"  # there is nothing that could be compared
    NON_FINITE = "non-finite"
    UNREACHED = "unreached"  # layers that are to be trained get no gradient
    DEAD = "dead"
    TRAINED_LATER = "trained later"


def kind_of_fall(decades: float) -> Kind:
    """What it is if the gradient falls by so many decades from the last layer to the first."""
    if decades >= REACHES_WITHIN_DECADES:
        return Kind.VANISHING
    if decades <= -REACHES_WITHIN_DECADES:
        return Kind.EXPLODING
    return Kind.UNKNOWN if math.isnan(decades) else Kind.HEALTHY


@dataclass(frozen=True)
class Nets:
    """How many of an ensemble's nets something is true of."""

    count: int
    total: int


@dataclass(frozen=True)
class Diverged:
    """Something is not finite.

    Attributes
    ----------
    step : int
        The first recorded step in which it is so.
    skipped : bool
        Whether steps were left out, so that it may have happened in one before.
    layer : str or None
        Where in that step the first such values came up; None if only the loss is not finite.
    array : str or None
        Which array of the layer, such as "activation".
    values : int or None
        How many of its entries.
    nets : Nets or None
        Which diverged, of an ensemble.
    """

    step: int
    skipped: bool
    layer: str | None = None
    array: str | None = None
    values: int | None = None
    nets: Nets | None = None
    kind: Kind = Kind.NON_FINITE


@dataclass(frozen=True)
class Unreached:
    """Layers that are to be trained, and that no backward pass comes to.

    Attributes
    ----------
    layers : tuple of str
    first : str
        The first layer that gets a gradient.
    """

    layers: tuple[str, ...]
    first: str
    kind: Kind = Kind.UNREACHED


@dataclass(frozen=True)
class NothingToCompare:
    """No chain of layers is known at the first step.

    Attributes
    ----------
    step : int or None
        The first step in which a gradient or delta is known; None if there is none.
    layers : tuple of str
        Of which one is known at the first step.
    of_weights : bool
        Whether gradients are known there, and not only deltas.
    """

    step: int | None
    layers: tuple[str, ...] = ()
    of_weights: bool = False
    kind: Kind = Kind.UNKNOWN


@dataclass(frozen=True)
class Fall:
    """By how much a quantity falls from the last layer of a chain to the first, at one step.

    Attributes
    ----------
    quantity : str
    first, last : float or None
        Of the first and the last layer, as the median over nets; None if it is missing.
    decades : float
        Infinite if the first layer's is exactly zero, negative if it grows, NaN if it cannot be
        compared.
    """

    quantity: str
    first: float | None
    last: float | None
    decades: float


@dataclass(frozen=True)
class Zeros:
    """Where the gradient is exactly zero.

    Attributes
    ----------
    layers : tuple of str
        From the first layer of the chain on.
    nets : Nets or None
        In how many of an ensemble it is zero in the first layer.
    below : str or None
        The layer after them, if its weights are zero, so that it passes nothing back.
    """

    layers: tuple[str, ...]
    nets: Nets | None = None
    below: str | None = None


@dataclass(frozen=True)
class Flow:
    """The gradient along a chain, at one step.

    Attributes
    ----------
    step : int
    shown : Fall
        Of dL/dW, or, where no gradient is known, of the delta.
    delta : Fall or None
        None if no delta is known.
    zeros : Zeros or None
        None if what is shown is not zero in the first layer.
    """

    step: int
    shown: Fall
    delta: Fall | None
    zeros: Zeros | None

    @property
    def decades(self) -> float:
        """By how many it falls: judged by the delta, if it is known, or else by the gradient."""
        if self.delta is None or math.isnan(self.delta.decades):
            return self.shown.decades
        return self.delta.decades

    @property
    def kind(self) -> Kind:
        """Whether it reaches the first layer."""
        return Kind.VANISHING if self.zeros is not None else kind_of_fall(self.decades)


@dataclass(frozen=True)
class Chain:
    """The gradient along layers that one gradient goes through.

    Attributes
    ----------
    layers : tuple of str
        Those that are compared, from the first.
    before : tuple of str
        The roles of all layers before the first one.
    first : Flow
        At the first recorded step.
    last : Flow or None
        At the last one; None if there is only one step.
    """

    layers: tuple[str, ...]
    before: tuple[str, ...]
    first: Flow
    last: Flow | None

    @property
    def kind(self) -> Kind:
        """At the first step: what the initial weights do."""
        return self.first.kind

    @property
    def by_delta(self) -> bool:
        """Whether deltas are known, by which it is judged."""
        return self.first.delta is not None

    @property
    def concern(self) -> float:
        """How much there is to tell, to tell the worst first."""
        if self.first.zeros is not None or math.isnan(self.first.decades):
            return math.inf
        return abs(self.first.decades)


@dataclass(frozen=True)
class TrainedLater:
    """Layers that were frozen in the first step, and are trained from a later one on."""

    step: int
    layers: tuple[str, ...]
    kind: Kind = Kind.TRAINED_LATER


@dataclass(frozen=True)
class Dead:
    """Layers of which most units are dead at the last step.

    Attributes
    ----------
    step : int
    shares : tuple of (str, float)
        Layer and share of its units, in the order of the layers.
    """

    step: int
    shares: tuple[tuple[str, float], ...]
    kind: Kind = Kind.DEAD


Finding = Diverged | Unreached | NothingToCompare | Chain | TrainedLater | Dead


@dataclass(frozen=True)
class Judgement:
    """Everything that a run says.

    Attributes
    ----------
    described : bool
        Whether it is the run of an experiment, whose layers are a plain stack.
    roles : tuple of str
        Of all layers; see `LayerInfo`.
    chains : tuple of Chain
        The worst first.
    diverged, unreached, nothing, later, dead
        Further findings; None for those that there are not.
    """

    described: bool
    roles: tuple[str, ...]
    chains: tuple[Chain, ...] = ()
    diverged: Diverged | None = None
    unreached: Unreached | None = None
    nothing: NothingToCompare | None = None
    later: TrainedLater | None = None
    dead: Dead | None = None

    @property
    def findings(self) -> tuple[Finding, ...]:
        """All of them, in the order in which they are told."""
        others = (self.diverged, self.unreached, self.nothing)
        found = (*others, *self.chains, self.later, self.dead)
        return tuple(finding for finding in found if finding is not None)
