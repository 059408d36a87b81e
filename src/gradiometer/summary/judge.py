"""What a run says: whether the gradient reaches the first layer, and what else is to be told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from gradiometer.quantities import DELTA, GRADIENTS
from gradiometer.states import Mask, State
from gradiometer.summary.chains import chains, gradient_of, roles
from gradiometer.summary.findings import (
    Chain,
    Dead,
    Diverged,
    Fall,
    Flow,
    Judgement,
    Nets,
    NothingToCompare,
    TrainedLater,
    Unreached,
    Zeros,
)
from gradiometer.summary.numbers import decades_lost, diverged_members, median
from gradiometer.thresholds import MOSTLY_DEAD

if TYPE_CHECKING:
    from gradiometer.labelled import LabelledRun


def judge(run: LabelledRun) -> Judgement:
    """Judge a run: whether the gradient reaches the first layer, at the first step and the last.

    Judged by the delta, as the field defines vanishing and exploding; dL/dW also depends on what
    goes into a layer. Only layers of one chain are compared, and only those that are trained and
    whose delta is known. Of several chains each is judged by itself.

    Raises
    ------
    KeyError
        If neither gradients nor deltas were recorded, and the run did not diverge.
    """
    diverged = _diverged(run)
    compared = [name for name in (*GRADIENTS, DELTA) if name in run.dataset]
    if not compared and diverged is None:
        raise KeyError(
            "this trace has neither gradients nor deltas; record it with "
            "quantities=[…, 'grad_mean_abs', 'delta_rms']"
        )
    found = [_ChainOf(run, chain).judged() for chain in (chains(run) if compared else ())]
    return Judgement(
        described=bool(run.experiment),
        roles=tuple(roles(run)),
        chains=tuple(sorted(found, key=lambda chain: -chain.concern)),
        diverged=diverged,
        unreached=_unreached(run),
        nothing=_nothing(run, compared) if compared and not found else None,
        later=_trained_later(run),
        dead=_dead(run),
    )


@dataclass(frozen=True)
class _ChainOf:
    """Layers of a run that are compared, by their positions."""

    run: LabelledRun
    positions: Sequence[int]

    def judged(self) -> Chain:
        """The gradient along them, at the first step and the last."""
        names, start = self.run.layers, self.positions[0]
        last = self._flow(-1) if self.run.dataset.sizes["step"] > 1 else None
        return Chain(
            layers=tuple(str(names[i]) for i in self.positions),
            before=tuple(roles(self.run)[:start]),
            first=self._flow(0),
            last=last,
        )

    def _is_known(self, quantity: str) -> bool:
        return median(self.run, quantity, 0, self.positions[0]) is not None

    def _flow(self, step: int) -> Flow:
        gradient = gradient_of(self.run)
        shown = gradient if gradient is not None and self._is_known(gradient) else DELTA
        return Flow(
            step=int(self.run.dataset["step"].values[step]),
            shown=self._fall(shown, step),
            delta=self._fall(DELTA, step) if self._is_known(DELTA) else None,
            zeros=self._zeros(shown, step),
        )

    def _fall(self, quantity: str, step: int) -> Fall:
        ends = self.positions[0], self.positions[-1]
        first, last = (median(self.run, quantity, step, i) for i in ends)
        return Fall(quantity, first, last, decades_lost(self.run, quantity, step, ends))

    def _zeros(self, quantity: str, step: int) -> Zeros | None:
        run, positions = self.run, self.positions
        zero = [median(run, quantity, step, i) == 0 for i in positions]
        if not zero[0]:
            return None
        count = zero.index(False) if False in zero else len(zero)
        layers = tuple(str(run.layers[i]) for i in positions[:count])
        if run.ensemble:
            return Zeros(layers, nets=_nets(run[quantity].values[step, positions[0]] == 0))
        below = None
        if count < len(positions) and median(run, "weight_rms", step, positions[count]) == 0:
            below = str(run.layers[positions[count]])
        return Zeros(layers, below=below)


def _nets(which: Mask) -> Nets:
    return Nets(int(np.sum(which)), len(which))


def _diverged(run: LabelledRun) -> Diverged | None:
    attrs, steps = run.attrs, run.dataset["step"].values
    if "nonfinite_step" not in attrs:
        return None
    nets = _nets(diverged_members(run.dataset)) if run.ensemble else None
    step, skipped = int(attrs["nonfinite_step"]), len(steps) > 1 and int(steps[1] - steps[0]) > 1
    if "nonfinite_layer" not in attrs:
        return Diverged(step, skipped, nets=nets)
    return Diverged(
        step,
        skipped,
        str(attrs["nonfinite_layer"]),
        str(attrs["nonfinite_in"]),
        int(attrs["nonfinite_values"]),
        nets,
    )


def _known(run: LabelledRun, quantity: str) -> Mask:
    """Where a quantity is not missing in all nets; (steps, layers)."""
    there = run.status(quantity).values != State.MISSING
    return np.asarray(there.reshape(*there.shape[:2], -1).any(axis=-1))


def _unreached(run: LabelledRun) -> Unreached | None:
    """Layers that should be trained, and get no gradient, before one that does."""
    part = roles(run)
    recorded = [name for name in (gradient_of(run), DELTA) if name and name in run.dataset]
    if "trained" not in part or not recorded:
        return None
    first = part.index("trained")
    known = np.any([_known(run, name) for name in recorded], axis=(0, 1))
    missed = [i for i in range(first) if part[i] == "unreached" and not known[i]]
    if not missed:
        return None
    return Unreached(tuple(str(run.layers[i]) for i in missed), str(run.layers[first]))


def _nothing(run: LabelledRun, compared: Sequence[str]) -> NothingToCompare:
    """Where gradients or deltas are known, though no chain is."""
    known = {name: _known(run, name) for name in compared}
    seen = np.any([*known.values()], axis=0)
    if not seen.any():
        return NothingToCompare(None)
    step = int(run.dataset["step"].values[seen.any(axis=1).argmax()])
    gradients = [there[0] for name, there in known.items() if name != DELTA]
    of_weights = any(there.any() for there in gradients)
    there = np.any(gradients, axis=0) if of_weights else seen[0]
    names = tuple(str(run.layers[i]) for i in np.flatnonzero(there))
    return NothingToCompare(step, names, of_weights)


def _trained_later(run: LabelledRun) -> TrainedLater | None:
    """Layers that were frozen in the first step, and have a gradient in a later one."""
    gradient, part = gradient_of(run), roles(run)
    if gradient is None or "frozen" not in part:
        return None
    known = _known(run, gradient)
    later = [i for i, role in enumerate(part) if role == "frozen" and known[:, i].any()]
    if not later:
        return None
    step = int(run.dataset["step"].values[known[:, later].any(axis=1).argmax()])
    return TrainedLater(step, tuple(str(run.layers[i]) for i in later))


def _dead(run: LabelledRun) -> Dead | None:
    """Layers of which most units are dead at the last step."""
    steps = run.dataset["step"].values
    if len(steps) == 1:
        return None
    shares = [(str(name), median(run, "dead_fraction", -1, i)) for i, name in enumerate(run.layers)]
    many = [(name, share) for name, share in shares if share is not None and share >= MOSTLY_DEAD]
    return Dead(int(steps[-1]), tuple(many)) if many else None
