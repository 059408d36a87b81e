"""A judgement in words: a sentence or two on whether the gradient reaches the first layer."""

from __future__ import annotations

import math
from dataclasses import dataclass

from gradiometer.quantities import DELTA
from gradiometer.summary.findings import (
    Chain,
    Dead,
    Diverged,
    Flow,
    Judgement,
    Kind,
    Nets,
    NothingToCompare,
    TrainedLater,
    Unreached,
    Zeros,
)
from gradiometer.thresholds import ABOUT_THE_SAME, MISLEADING_DECADES

MOST_CHAINS = 3  # that are told one by one
NAMES = {
    "grad_mean_abs": "mean |dL/dW|",
    "grad_rms": "the rms of dL/dW",
    "delta_rms": "the rms of the delta",
}


def in_words(judgement: Judgement) -> str:
    """Say what was found, the gravest alone or first."""
    if judgement.diverged is not None:
        return _diverged(judgement.diverged)
    if judgement.unreached is not None:
        return _unreached(judgement.unreached)
    if judgement.nothing is not None:
        return _nothing(judgement.nothing)
    told = judgement.chains
    text = ""
    if len(told) > 1:
        text = f"These are {len(told)} chains of layers, each judged by itself. "
    text += " ".join(_ChainInWords(judgement, chain).text() for chain in told[:MOST_CHAINS])
    left = len(told) - MOST_CHAINS
    if left > 0:
        text += f" ({left} more, in which the gradient changes less.)"
    if judgement.later is not None:
        text += f" {_trained_later(judgement.later)}"
    if judgement.dead is not None:
        text += f" {_dead(judgement.dead)}"
    return text


# --- one chain ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _ChainInWords:
    judgement: Judgement
    chain: Chain

    def text(self) -> str:
        """Of the first step, and of what became of it."""
        if len(self.chain.layers) == 1:
            return self._one_layer()
        first = self.chain.first
        if first.zeros is not None:
            text = f"The gradient does not reach {self._goal}{self._why_there}: "
            text += _zeros(first.zeros)
        else:
            text = (
                f"The gradient {self._verdict(first)}{self._why_there}: at the first step "
                f"{NAMES[first.shown.quantity]} {_change(first, self._way)}"
            )
        return text + ("." if self.chain.last is None else self._what_became(self.chain.last))

    @property
    def _only(self) -> bool:
        return len(self.judgement.chains) == 1

    @property
    def _goal(self) -> str:
        """The layer that the gradient should reach."""
        if self._only and (not self.chain.before or self.judgement.described):
            return "the first layer"
        return repr(self.chain.layers[0])

    @property
    def _why_there(self) -> str:
        """Why that layer is the first one, if others come before it."""
        before = self.chain.before
        if not self._only or self.judgement.described or set(before) <= {"outside"}:
            return ""
        frozen = before.count("frozen")
        if frozen == len(before):
            return f", the first layer that is trained ({frozen} before it frozen)"
        return f", the first layer whose {self._known} is known"

    @property
    def _known(self) -> str:
        return "delta" if self.chain.by_delta else "gradient"

    @property
    def _way(self) -> str:
        if self.judgement.described:
            return "from the output layer to layer 1"
        return f"from {self.chain.layers[-1]!r} to {self.chain.layers[0]!r}"

    def _verdict(self, flow: Flow) -> str:
        """Whether it reaches the first layer, at a step at which it is not zero there."""
        return {
            Kind.HEALTHY: f"reaches {self._goal}",
            Kind.VANISHING: f"does not reach {self._goal}",
            Kind.EXPLODING: f"explodes on its way to {self._goal}",
            Kind.UNKNOWN: f"towards {self._goal} cannot be judged",
        }[flow.kind]

    def _what_became(self, last: Flow) -> str:
        """Of the last step, after what was said of the first."""
        first, was_zero = self.chain.first, self.chain.first.zeros is not None
        when = f"at the last step, {last.step}"
        if last.zeros is not None:
            if was_zero:
                return f", and still is {when}."
            return f". {when.capitalize()}, it does not: {_zeros(last.zeros)}."
        if not was_zero and first.kind == last.kind:
            if _change(last) == _change(first):
                return f"; the same {when}."
            return f"; {when}, it {_change(last)}."
        if math.isnan(last.decades):
            return f"; {when}, it cannot be compared."
        change = f"{NAMES[last.shown.quantity]} {_change(last, self._way if was_zero else '')}"
        return f". {when.capitalize()}, it {self._verdict(last)}: {change}."

    def _one_layer(self) -> str:
        """A chain with a single layer: there is nothing to compare it with."""
        first, last, parts = self.chain.first, self.chain.last, self.judgement.roles
        what = f"whose {self._known} is known"
        if parts.count("trained") == 1:
            frozen = parts.count("frozen")
            what = "that is trained" + (f" ({frozen} frozen)" if frozen else "")
        name = repr(self.chain.layers[0]) + (f", the only layer {what}" if self._only else "")
        verb = "reaches" if first.zeros is None else "does not reach"
        number = f"{_size(first)} at the first step"
        number += "" if last is None else f", and {_size(last)} at the last"
        return f"The gradient {verb} {name}: {NAMES[first.shown.quantity]} is {number}."


def _size(flow: Flow) -> str:
    if flow.zeros is not None:
        return "exactly zero"
    return "not known" if flow.shown.first is None else f"{flow.shown.first:.1e}"


def _change(flow: Flow, way: str = "") -> str:
    """How what is shown changes, and how the delta does."""
    text = _decades(flow.shown.decades, way)
    if flow.shown.quantity == DELTA or flow.delta is None or math.isnan(flow.delta.decades):
        return text
    delta = f"the delta {_decades(flow.delta.decades)}"
    if abs(flow.shown.decades - flow.delta.decades) >= MISLEADING_DECADES:
        return f"{text}, which is misleading: {delta}"
    return f"{text} ({delta})"


def _decades(decades: float, way: str = "") -> str:
    """How a quantity changes on its way; "" for one that was just named."""
    if math.isnan(decades):
        return f"cannot be compared {way}".rstrip()
    if math.isinf(decades):
        return "is exactly zero there" if decades > 0 else "grows from exactly zero"
    if abs(decades) < ABOUT_THE_SAME:
        both = way.replace("from", "in").replace(" to ", " and in ")
        return f"is about the same {both}" if way else "stays about the same"
    text = f"{'falls' if decades > 0 else 'grows'} by {abs(decades):.1f}"
    return f"{text} decades {way}" if way else text


def _zeros(zeros: Zeros) -> str:
    """In which layers it is exactly zero, and why it must be."""
    first, last = zeros.layers[0], zeros.layers[-1]
    several = len(zeros.layers) > 1
    text = f"it is exactly zero in {first}" + (f" to {last}" if several else "")
    if zeros.nets is not None:
        return f"{text} in {_of(zeros.nets)}"
    text += "" if several else " alone"
    if zeros.below is not None:
        text += f", as it must be while the weights of {zeros.below} are zero"
    return text


# --- other findings -------------------------------------------------------------------------------


def _of(nets: Nets) -> str:
    return f"{nets.count} of {nets.total} nets"


def _diverged(found: Diverged) -> str:
    who = "The run diverged" if found.nets is None else f"{_of(found.nets)} diverged"
    when = f"{'by' if found.skipped else 'in'} step {found.step}"
    if found.layer is None:
        return f"{who}: the loss is not finite {when}."
    return (
        f"{who}: the first values that are not finite, {found.values} of them, came up {when} in "
        f"layer {found.layer!r} ({found.array})."
    )


def _unreached(found: Unreached) -> str:
    where = repr(found.layers[0])
    if len(found.layers) > 1:
        where += f" to {found.layers[-1]!r}"
    return f"No gradient reaches {where}: the first layer that gets one is {found.first!r}."


def _nothing(found: NothingToCompare) -> str:
    if found.step is None:
        return (
            "No gradient reached any layer in the first step: was backward() called, and outside "
            "of torch.no_grad()?"
        )
    if not found.layers:
        return f"No gradient reached any layer in the first step; one did in step {found.step}."
    where = ", ".join(map(repr, found.layers[:3])) + (" …" if len(found.layers) > 3 else "")
    if not found.of_weights:
        return (
            f"There are no layers to compare: deltas are known of {where} alone, where no weight "
            "is trained."
        )
    return (
        f"There are no layers to compare: gradients are known only for {where}, and the delta "
        "is not known there."
    )


def _trained_later(found: TrainedLater) -> str:
    more = len(found.layers) - 1
    who = repr(found.layers[0]) + (f" and {more} more" if more else "")
    verb = "are" if more else "is"
    return f"From step {found.step} on {who}, frozen at first, {verb} trained too."


def _dead(found: Dead) -> str:
    name, share = max(found.shares, key=lambda one: one[1])
    more = len(found.shares) - 1
    others = f", and most units of {more} other layer{'s' if more > 1 else ''}" if more else ""
    return f"By then {share:.0%} of the units of {name!r} are dead{others}."
