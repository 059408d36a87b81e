"""What a trace says, in numbers and in one sentence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from gradlab.trace import Trace

# The gradient "does not reach" the first layer if the delta there is below a thousandth of the
# output layer's, and "explodes" if it is above a thousand times it.
REACHES_WITHIN_DECADES = 3.0
ABOUT_THE_SAME = 0.05


def layer_table(trace: Trace) -> list[dict[str, Any]]:
    """One row per layer: its gradient at the first and last step, delta, dead and saturated share.

    Returns
    -------
    list of dicts
        `layer` (name), `depth` (from 1), and, as medians over the members of an ensemble: `first`
        and `last`, mean |dL/dW| at the first and last step; `delta`, its rms at the first step;
        `dead` and `saturated`, shares at the last step, NaN where a layer is not finite.
    """
    rows = []
    for i, name in enumerate(trace.dataset["layer"].values):
        row: dict[str, Any] = {"layer": str(name), "depth": i + 1}
        for key, quantity, step in (
            ("first", "grad_mean_abs", 0),
            ("last", "grad_mean_abs", -1),
            ("delta", "delta_rms", 0),
            ("dead", "dead_fraction", -1),
            ("saturated", "saturated_fraction", -1),
        ):
            row[key] = float(np.median(trace[quantity].values[step, i]))
        rows.append(row)
    return rows


def decades_lost(trace: Trace, quantity: str = "grad_mean_abs", step: int = 0) -> float:
    """Decades by which a quantity falls from the output layer to the first, at a step.

    Parameters
    ----------
    trace : Trace
    quantity : str
        A quantity per layer, such as "delta_rms".
    step : int
        Position among the recorded steps.

    Returns
    -------
    float
        The median over members is taken first. Infinite if the first layer's is exactly zero;
        negative if it grows; NaN if either is not finite.
    """
    values = trace[quantity].values[step]
    first, output = (float(np.median(values[i])) for i in (0, -1))
    with np.errstate(all="ignore"):
        if not np.isfinite([first, output]).all():
            return float("nan")
        return float(np.log10(np.divide(output, first)))


def sentence(trace: Trace) -> str:
    """Say in one sentence whether the gradient reaches the first layer.

    Judged by the delta, as the field defines vanishing and exploding; dL/dW also depends on what
    goes into a layer.
    """
    if "nonfinite_step" in trace.attrs:
        return _divergence(trace)
    if not float(np.median(trace["grad_mean_abs"].values[0, 0])):
        return _zeros(trace)
    gradient, delta = decades_lost(trace), decades_lost(trace, "delta_rms")
    judged = delta if np.isfinite(delta) else gradient
    if judged >= REACHES_WITHIN_DECADES:
        verdict = "does not reach the first layer"
    elif judged <= -REACHES_WITHIN_DECADES:
        verdict = "explodes on its way to the first layer"
    else:
        verdict = "reaches the first layer"
    text = f"The gradient {verdict}: at the first step mean |dL/dW| {_change(gradient)}"
    if not np.isfinite(delta):
        return f"{text}."
    if abs(gradient - delta) >= REACHES_WITHIN_DECADES / 2:
        return f"{text}, which misleads, for the delta {_change(delta, short=True)}."
    return f"{text} (the delta {_change(delta, short=True)})."


def _change(decades: float, short: bool = False) -> str:
    if abs(decades) < ABOUT_THE_SAME:
        return "stays the same" if short else "is the same in the output layer and in layer 1"
    text = f"{'falls' if decades > 0 else 'grows'} by {abs(decades):.1f}"
    return text if short else f"{text} decades from the output layer to layer 1"


def _zeros(trace: Trace) -> str:
    first = trace["grad_mean_abs"].values[0]
    zero = [not float(np.median(layer)) for layer in first]
    names = [str(name) for name in trace.dataset["layer"].values]
    # beyond the first layer whose gradient is not zero there may be others
    count = zero.index(False) if False in zero else len(zero)
    where = names[0] if count == 1 else f"{names[0]} to {names[count - 1]}"
    text = f"The gradient does not reach the first layer: it is exactly zero in {where}"
    if trace.ensemble:
        text += f" in {_of_the_nets(first[0] == 0)}"
    return f"{text}."


def _divergence(trace: Trace) -> str:
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
