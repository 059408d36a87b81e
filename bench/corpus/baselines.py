"""What other tools' published rules say of a recorded run, to compare the diagnosis with.

Each is re-implemented from its published definition, with its default thresholds, over what a trace
has. Where a rule needs an array that a trace does not keep, the nearest recorded quantity stands in
for it, and the function says so. A rule gives the kind of verdict that its alarm is nearest to, or
None if it raises no alarm.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from gradiometer.diagnosis.reading import Reading
from gradiometer.trace import Trace

Floats = NDArray[np.float64]


def _any(values: NDArray[np.bool_]) -> bool:
    return bool(values.any())


def _norms(net: Reading) -> Floats:
    """Norm of dL/dW of each layer in each step."""
    return np.asarray(net.all("grad_rms") * np.sqrt(net.fans("fan_in") * net.fans("fan_out")))


def _mean_abs(net: Reading) -> Floats:
    return net.all("grad_mean_abs")


def sagemaker(trace: Trace) -> str | None:
    """SageMaker Debugger's built-in rules, in the order of their gravity.

    ExplodingTensor: any NaN or infinity. VanishingGradient: mean |g| < 1e-7. DeadRelu: more than
    half of the units of a layer are dead; a trace counts units that are zero on every sample, the
    rule those active on less than 1 % of them. UpdateToWeightRatio: above 10, or below 1e-8.
    LossNotDecreasing: less than 0.1 % in 10 steps. Its saturation rule looks at outputs beyond
    -23 and 17 (sigmoid) or 9.4999 (tanh), which a trace does not keep; it is left out.
    """
    net = Reading(trace)
    if net.diverged:
        return "non-finite"
    if _any(_mean_abs(net) < 1e-7):
        return "vanishing"
    if _any(net.all("dead_fraction") > 0.5):
        return "dead"
    ratio = net.all("update_ratio")
    if _any(ratio > 10):
        return "exploding"
    if _any(ratio < 1e-8):
        return "stalled"
    loss = net.all("loss")
    before, after = loss[:-10], loss[10:]
    return "stalled" if _any(after > before - 0.001 * np.abs(before)) else None


def autotrainer(trace: Trace) -> str | None:
    """AutoTrainer (Zhang et al., ICSE 2021), with the thresholds of its configuration.

    Exploding gradient: NaN, or a ratio of norms of neighbouring layers above 70. Vanishing: norm of
    the first layer over the last below 1e-3, and that of the first below 1e-4. Dying ReLU: at least
    70 % of the entries of a layer's gradient are exactly zero. Unstable convergence: the loss rises
    by 0.03 or more in at least 20 % of the steps. Slow convergence: accuracy (or, without one, the
    loss) changes by less than 0.01, and accuracy is below 0.6.
    """
    net = Reading(trace)
    if net.diverged:
        return "exploding"
    norms = _norms(net)
    with np.errstate(all="ignore"):
        if _any(norms[:, :-1] / norms[:, 1:] > 70):
            return "exploding"
        first, last = norms[:, 0], norms[:, -1]
        if _any((first / last < 1e-3) & (first < 1e-4)):
            return "vanishing"
    if _any(net.all("grad_zero_fraction") >= 0.7):
        return "dead"
    loss, accuracy = net.all("loss"), net.all("accuracy")
    if len(loss) > 1 and (np.diff(loss) >= 0.03).mean() >= 0.2:
        return "stalled"
    learns = accuracy if np.isfinite(accuracy).any() else loss
    slow = abs(learns[-1] - learns[0]) < 0.01
    poor = not np.isfinite(accuracy[-1]) or accuracy[-1] < 0.6
    return "stalled" if slow and poor else None


def deepdiagnosis(trace: Trace) -> str | None:
    """DeepDiagnosis (Wardat et al., ICSE 2022), with its default thresholds.

    NaN or infinity. Dead node: at least 70 % of a ReLU layer's outputs are zero. Saturated: at
    least |z| = 5 in more than half of a layer's units of sigmoid or tanh; a trace counts where the
    slope is below 5 %, that is |z| >= 4.4 of a sigmoid. Vanishing: mean |g| < 1e-7. Unchanged
    weight: rate times norm of g over norm of W outside 1e-5 to 1e-1. Out of range: variance of W
    outside 1e-5 to 10.
    """
    net = Reading(trace)
    if net.diverged:
        return "non-finite"
    off = net.all("saturated_fraction")
    names = np.array(net.activations)
    if _any(off[:, names == "relu"] >= 0.7):
        return "dead"
    if _any(off[:, np.isin(names, ["sigmoid", "tanh"])] > 0.5):
        return "saturated"
    if _any(_mean_abs(net) < 1e-7):
        return "vanishing"
    variance = net.all("weight_rms") ** 2
    if _any((variance < 1e-5) | (variance > 10)):
        return "exploding"
    rate = float(trace.attrs.get("learning_rate", np.nan))
    with np.errstate(all="ignore"):
        ratio = rate * net.all("grad_rms") / net.all("weight_rms")
    return "stalled" if _any((ratio < 1e-5) | (ratio > 1e-1)) else None


def delta_ratio(trace: Trace) -> str | None:
    """The ratio of the deltas of the first and the last layer: 100 vanishing, 1000 exploding.

    As torchmortem has it for the norms of the gradients of the layers' outputs; here of their rms.
    """
    net = Reading(trace)
    if net.diverged:
        return "non-finite"
    delta = net.all("delta_rms")
    for chain in net.chains:
        if len(chain) < 2:
            continue
        with np.errstate(all="ignore"):
            ratio = delta[:, chain[-1]] / delta[:, chain[0]]
        if _any(ratio >= 100):
            return "vanishing"
        if _any(ratio <= 1 / 1000):
            return "exploding"
    return None


BASELINES: Mapping[str, Callable[[Trace], str | None]] = {
    "SageMaker Debugger": sagemaker,
    "AutoTrainer": autotrainer,
    "DeepDiagnosis": deepdiagnosis,
    "ratio of deltas": delta_ratio,
}
