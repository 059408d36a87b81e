"""What a trace says in a sentence or two: whether the gradient reaches the first layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gradiometer.quantities import DELTA, GRADIENTS
from gradiometer.summary.chains import chains, gradient_of, median, roles
from gradiometer.summary.numbers import decades_lost

if TYPE_CHECKING:
    from gradiometer.labelled import LabelledRun

# The gradient "does not reach" the first layer if the delta there is below a thousandth of the
# output layer's, and "explodes" if it is above a thousand times it.
REACHES_WITHIN_DECADES = 3.0
ABOUT_THE_SAME = 0.05
MOSTLY_DEAD = 0.5  # a share of units that is told
MOST_CHAINS = 3  # that are told one by one
NAMES = {
    "grad_mean_abs": "mean |dL/dW|",
    "grad_rms": "the rms of dL/dW",
    "delta_rms": "the rms of the delta",
}


def sentence(trace: LabelledRun) -> str:
    """Say whether the gradient reaches the first layer, at the first step and at the last.

    Judged by the delta, as the field defines vanishing and exploding; dL/dW also depends on what
    goes into a layer. Only layers of one chain are compared, and only those that are trained and
    whose delta is known. Of several chains each is judged by itself.

    Raises
    ------
    KeyError
        If neither gradients nor deltas were recorded.
    """
    if "nonfinite_step" in trace.attrs:
        return _divergence(trace)
    if not any(name in trace.dataset for name in (*GRADIENTS, DELTA)):
        raise KeyError(
            "this trace has neither gradients nor deltas; record it with "
            "quantities=[…, 'grad_mean_abs', 'delta_rms']"
        )
    cut = _cut(trace)
    if cut:
        return cut
    found = chains(trace)
    if not found:
        return _nothing(trace)
    told = [_Told(trace, chain, len(found) == 1) for chain in found]
    if len(told) > 1:
        told.sort(key=lambda one: -one.concern)
        text = f"These are {len(told)} chains of layers, each judged by itself. "
        text += " ".join(one.text() for one in told[:MOST_CHAINS])
        left = len(told) - MOST_CHAINS
        text += f" ({left} more, in which the gradient changes less.)" if left > 0 else ""
    else:
        text = told[0].text()
    return text + _thawed(trace) + _dead(trace)


class _Told:
    """One chain, and what is said of it."""

    def __init__(self, trace: LabelledRun, chain: Sequence[int], only: bool) -> None:
        self.trace, self.chain, self.only = trace, chain, only
        self.ends = chain[0], chain[-1]
        self.gradient = gradient_of(trace)
        if self.gradient and np.isnan(median(trace, self.gradient, 0, chain[0])):
            self.gradient = None
        self.shown = self.gradient or DELTA
        self.steps = trace.dataset.sizes["step"]

    @property
    def concern(self) -> float:
        """How much there is to tell, to tell the worst first."""
        judged = self.judged(0)
        return np.inf if np.isnan(judged) or self.is_zero(0) else abs(judged)

    def text(self) -> str:
        """Of the first step, and of what became of it."""
        if len(self.chain) == 1:
            return self._one_layer()
        if self.is_zero(0):
            goal = self.goal + self.why_there
            first = f"The gradient does not reach {goal}: {self._zeros(0)}."
            return first if self.steps == 1 else f"{first[:-1]}{self._end_of(None)}"
        start = (
            f"The gradient {self.verdict(0)}{self.why_there}: at the first step "
            f"{NAMES[self.shown]} {self._change(0, way=True)}"
        )
        return f"{start}{self._end_of(self.verdict(0))}"

    # --- the pieces -------------------------------------------------------------------------------

    @property
    def goal(self) -> str:
        """The layer that the gradient should reach."""
        first = self.chain[0]
        if self.only and (first == 0 or self.trace.experiment):
            return "the first layer"
        return repr(self.trace.layers[first])

    @property
    def why_there(self) -> str:
        """Why that layer is the first one, if others come before it."""
        before = roles(self.trace)[: self.chain[0]]
        if not self.only or self.trace.experiment or set(before) <= {"outside"}:
            return ""
        frozen = before.count("frozen")
        if frozen == len(before):
            return f", the first layer that is trained ({frozen} before it frozen)"
        return f", the first layer whose {'delta' if self.deltas else 'gradient'} is known"

    @property
    def deltas(self) -> bool:
        """Whether deltas are known, by which it is judged."""
        there = DELTA in self.trace.dataset
        return there and not np.isnan(median(self.trace, DELTA, 0, self.chain[0]))

    def lost(self, quantity: str, step: int) -> float:
        """Decades by which a quantity falls between the ends."""
        return decades_lost(self.trace, quantity, step, self.ends)

    def judged(self, step: int) -> float:
        """By the delta, if it is known, or else by the gradient."""
        found = self.lost(DELTA, step) if self.deltas else np.nan
        return self.lost(self.shown, step) if np.isnan(found) and self.gradient else found

    def is_zero(self, step: int) -> bool:
        """Whether the gradient of the first layer is exactly zero."""
        return median(self.trace, self.shown, step, self.chain[0]) == 0

    def verdict(self, step: int) -> str:
        """Whether it reaches the first layer."""
        decades = self.judged(step)
        if np.isnan(decades):
            return f"towards {self.goal} cannot be judged"
        if decades >= REACHES_WITHIN_DECADES:
            return f"does not reach {self.goal}"
        if decades <= -REACHES_WITHIN_DECADES:
            return f"explodes on its way to {self.goal}"
        return f"reaches {self.goal}"

    def _change(self, step: int, way: bool) -> str:
        """How what is shown changes, and how the delta does."""
        shown = self.lost(self.shown, step)
        text = _change(shown, self._way() if way else "")
        delta = self.lost(DELTA, step) if self.deltas else np.nan
        if self.shown == DELTA or np.isnan(delta):
            return text
        if abs(shown - delta) >= REACHES_WITHIN_DECADES / 2:
            return f"{text}, which is misleading: the delta {_change(delta)}"
        return f"{text} (the delta {_change(delta)})"

    def _way(self) -> str:
        if self.trace.experiment:
            return "from the output layer to layer 1"
        names = self.trace.layers
        return f"from {names[self.ends[1]]!r} to {names[self.ends[0]]!r}"

    def _zeros(self, step: int) -> str:
        """In which layers of the chain it is exactly zero, from the first on."""
        names, values = self.trace.layers, self.trace[self.shown].values[step]
        zero = [float(np.median(values[i])) == 0 for i in self.chain]
        count = zero.index(False) if False in zero else len(zero)
        first, last = names[self.chain[0]], names[self.chain[count - 1]]
        text = f"it is exactly zero in {first}" + (f" to {last}" if count > 1 else "")
        if self.trace.ensemble:
            return text + f" in {_of_the_nets(values[self.chain[0]] == 0)}"
        text += " alone" if count == 1 else ""
        return text + self._zero_weights(step, count)

    def _zero_weights(self, step: int, count: int) -> str:
        """Why it must be zero, if the layer above passes nothing back."""
        if count == len(self.chain) or "weight_rms" not in self.trace.dataset:
            return ""
        if median(self.trace, "weight_rms", step, self.chain[count]):
            return ""
        return (
            f", as it must be while the weights of {self.trace.layers[self.chain[count]]} are zero"
        )

    def _end_of(self, verdict: str | None) -> str:
        """What became of it at the last step, after what was said of the first."""
        if self.steps == 1:
            return "."
        last = f"at the last step, {int(self.trace.dataset['step'].values[-1])},"
        if self.is_zero(-1):
            if verdict is None:
                return f", and still is {last[:-1]}."
            return f". {last.capitalize()} it does not: {self._zeros(-1)}."
        if verdict == self.verdict(-1):
            if self._change(-1, way=False) == self._change(0, way=False):
                return f"; the same {last[:-1]}."
            return f"; {last} it {self._change(-1, way=False)}."
        if np.isnan(self.judged(-1)):
            return f"; {last} it cannot be compared."
        change = f"{NAMES[self.shown]} {self._change(-1, way=verdict is None)}"
        return f". {last.capitalize()} it {self.verdict(-1)}: {change}."

    def _one_layer(self) -> str:
        """A chain with a single layer: there is nothing to compare it with."""
        names, at = self.trace.layers, self.chain[0]
        name, part = repr(names[at]), roles(self.trace)
        what = "whose delta is known" if self.deltas else "whose gradient is known"
        if part.count("trained") == 1:
            frozen = part.count("frozen")
            what = "that is trained" + (f" ({frozen} frozen)" if frozen else "")
        name += f", the only layer {what}" if self.only else ""
        values = [median(self.trace, self.shown, step, at) for step in (0, -1)]
        if not values[0]:
            verb, number = "does not reach", "exactly zero at the first step"
        else:
            verb, number = "reaches", f"{values[0]:.1e} at the first step"
        if self.steps > 1:
            number += f", and {f'{values[1]:.1e}' if values[1] else 'exactly zero'} at the last"
        return f"The gradient {verb} {name}: {NAMES[self.shown]} is {number}."


def _nothing(trace: LabelledRun) -> str:
    """No layer of which at the first step anything could be compared."""
    recorded = [name for name in (*GRADIENTS, DELTA) if name in trace.dataset]
    known = [~np.isnan(trace[name].values) for name in recorded]
    seen = np.any([k.reshape(*k.shape[:2], -1).any(axis=-1) for k in known], axis=0)
    if not seen.any():
        return (
            "No gradient reached any layer in the first step: was backward() called, and outside "
            "of torch.no_grad()?"
        )
    if not seen[0].any():
        step = int(trace.dataset["step"].values[seen.any(axis=1).argmax()])
        return f"No gradient reached any layer in the first step; one did in step {step}."
    gradients = [k[0] for name, k in zip(recorded, known, strict=True) if name != DELTA]
    of_weights = any(k.any() for k in gradients)
    there = np.any(gradients, axis=0) if of_weights else seen[0]
    there = there.reshape(len(there), -1).any(axis=-1)
    names = [repr(str(trace.layers[i])) for i in np.flatnonzero(there)]
    where = ", ".join(names[:3]) + (" …" if len(names) > 3 else "")
    if not of_weights:
        return (
            f"There are no layers to compare: deltas are known of {where} alone, where no weight "
            "is trained."
        )
    return (
        f"There are no layers to compare: gradients are known only for {where}, and the delta "
        "is not known there."
    )


def _cut(trace: LabelledRun) -> str:
    """A sentence on layers that should be trained, and are not reached; "" if there are none."""
    part = roles(trace)
    if "trained" not in part:
        return ""
    first = part.index("trained")
    names = trace.layers
    recorded = [name for name in (gradient_of(trace), DELTA) if name and name in trace.dataset]
    missed = [
        repr(str(names[i]))
        for i in range(first)
        if part[i] == "unreached"
        and all(np.isnan(trace[name].values[:, i]).all() for name in recorded)
    ]
    if not missed:
        return ""
    where = missed[0] if len(missed) == 1 else f"{missed[0]} to {missed[-1]}"
    return f"No gradient reaches {where}: the first layer that gets one is {str(names[first])!r}."


def _change(decades: float, way: str = "") -> str:
    """How it changes on its way; "" for one that was just named."""
    if np.isnan(decades):
        return f"cannot be compared {way}".rstrip()
    if np.isinf(decades):
        return "is exactly zero there" if decades > 0 else "grows from exactly zero"
    if abs(decades) < ABOUT_THE_SAME:
        both = way.replace("from", "in").replace(" to ", " and in ")
        return f"is about the same {both}" if way else "stays about the same"
    text = f"{'falls' if decades > 0 else 'grows'} by {abs(decades):.1f}"
    return f"{text} decades {way}" if way else text


def _thawed(trace: LabelledRun) -> str:
    """Layers that were frozen in the first step and are trained later; "" if there are none."""
    gradient = gradient_of(trace)
    if gradient is None or "frozen" not in roles(trace):
        return ""
    known = ~np.isnan(trace[gradient].values)
    known = known.reshape(*known.shape[:2], -1).any(axis=-1)
    later = [i for i, role in enumerate(roles(trace)) if role == "frozen" and known[:, i].any()]
    if not later:
        return ""
    step = int(trace.dataset["step"].values[known[:, later].any(axis=1).argmax()])
    first, more = repr(str(trace.layers[later[0]])), len(later) - 1
    who = f"{first} and {more} more" if more else first
    return f" From step {step} on {who}, frozen at first, {'are' if more else 'is'} trained too."


def _dead(trace: LabelledRun) -> str:
    """Layers of which most units are dead at the last step; "" if there are none."""
    if "dead_fraction" not in trace.dataset or trace.dataset.sizes["step"] == 1:
        return ""
    values = trace["dead_fraction"].values[-1]
    shares = {i: float(np.median(values[i])) for i in range(len(values))}
    many = {i: share for i, share in shares.items() if share >= MOSTLY_DEAD}
    if not many:
        return ""
    worst = max(many, key=lambda i: many[i])
    more = len(many) - 1
    others = f", and most units of {more} other layer{'s' if more > 1 else ''}" if more else ""
    return f" By then {many[worst]:.0%} of the units of {trace.layers[worst]!r} are dead{others}."


def _divergence(trace: LabelledRun) -> str:
    attrs = trace.attrs
    if trace.ensemble:
        bad = trace["nonfinite_count"].values.any(axis=(0, 1))
        bad |= ~np.isfinite(trace["loss"].values).all(axis=0)
        who = f"{_of_the_nets(bad)} diverged"
        who = who[0].upper() + who[1:]
    else:
        who = "The run diverged"
    steps = trace.dataset["step"].values
    # with steps left out between those recorded, it may have happened in one of them
    skipped = len(steps) > 1 and int(steps[1] - steps[0]) > 1
    when = f"{'by' if skipped else 'in'} step {attrs['nonfinite_step']}"
    if "nonfinite_layer" not in attrs:
        return f"{who}: the loss is not finite {when}."
    values = int(attrs["nonfinite_values"])
    return (
        f"{who}: the first values that are not finite, {values} of them, came up {when} in layer "
        f"{attrs['nonfinite_layer']!r} ({attrs['nonfinite_in']})."
    )


def _of_the_nets(which: Any) -> str:
    return f"{int(np.sum(which))} of {len(which)} nets"
