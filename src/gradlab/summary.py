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
# by which it is told, the first that was recorded
GRADIENTS, DELTA = ("grad_mean_abs", "grad_rms"), "delta_rms"
NAMES = {
    "grad_mean_abs": "mean |dL/dW|",
    "grad_rms": "the rms of dL/dW",
    "delta_rms": "the rms of the delta",
}


def layer_table(trace: Trace) -> list[dict[str, Any]]:
    """One row per layer: its gradient at the first and last step, delta, dead and saturated share.

    Returns
    -------
    list of dicts
        `layer` (name), `depth` (from 1), and, as medians over the members of an ensemble: `first`
        and `last`, mean |dL/dW| at the first and last step; `delta`, its rms at the first step;
        `dead` and `saturated`, shares at the last step, NaN where a layer is not finite. What was
        not recorded is NaN too.
    """
    rows = []
    for i, name in enumerate(trace.layers):
        row: dict[str, Any] = {"layer": str(name), "depth": i + 1}
        for key, quantity, step in (
            ("first", "grad_mean_abs", 0),
            ("last", "grad_mean_abs", -1),
            ("delta", "delta_rms", 0),
            ("dead", "dead_fraction", -1),
            ("saturated", "saturated_fraction", -1),
        ):
            known = quantity in trace.dataset
            row[key] = float(np.median(trace[quantity].values[step, i])) if known else np.nan
        rows.append(row)
    return rows


def decades_lost(
    trace: Trace,
    quantity: str = "grad_mean_abs",
    step: int = 0,
    layers: tuple[int, int] = (0, -1),
) -> float:
    """Decades by which a quantity falls from the output layer to the first, at a step.

    Parameters
    ----------
    trace : Trace
    quantity : str
        A quantity per layer, such as "delta_rms".
    step : int
        Position among the recorded steps.
    layers : (int, int)
        Positions of the first and of the last layer that are compared.

    Returns
    -------
    float
        The median over members is taken first. Infinite if the first layer's is exactly zero;
        negative if it grows; NaN if either is not finite.
    """
    values = trace[quantity].values[step]
    first, output = (float(np.median(values[i])) for i in layers)
    with np.errstate(all="ignore"):
        if not np.isfinite([first, output]).all():
            return float("nan")
        return float(np.log10(np.divide(output, first)))


def sentence(trace: Trace) -> str:
    """Say in one sentence whether the gradient reaches the first layer.

    Judged by the delta, as the field defines vanishing and exploding; dL/dW also depends on what
    goes into a layer. Layers that are frozen, or have no place in the forward pass, are left out.

    Raises
    ------
    KeyError
        If neither gradients nor deltas were recorded.
    """
    if "nonfinite_step" in trace.attrs:
        return _divergence(trace)
    cut = _cut(trace)
    if cut:
        return cut
    recorded = [name for name in (*GRADIENTS, DELTA) if name in trace.dataset]
    if not recorded:
        raise KeyError(
            "this trace has neither gradients nor deltas; record it with "
            "quantities=[…, 'grad_mean_abs', 'delta_rms']"
        )
    ends = {name: found for name in recorded if (found := _ends(trace, name))}
    if not ends:
        return (
            "No gradient reached any layer in the first step: was backward() called, and outside "
            "of torch.no_grad()?"
        )
    gradient = next((name for name in GRADIENTS if name in ends), None)
    if gradient and not _median(trace, gradient, ends[gradient][0]):
        return _zeros(trace, gradient)
    lost = {name: decades_lost(trace, name, layers=ends[name]) for name in ends}
    judged = lost.get(DELTA, np.nan)
    if np.isnan(judged) and gradient:
        judged = lost[gradient]
    shown = gradient or DELTA
    text = (
        f"The gradient {_verdict(judged)}: at the first step {NAMES[shown]} "
        f"{_change(lost[shown], _way(trace, ends[shown]))}"
    )
    if shown == DELTA or np.isnan(lost.get(DELTA, np.nan)):
        return f"{text}."
    if abs(lost[shown] - lost[DELTA]) >= REACHES_WITHIN_DECADES / 2:
        return f"{text}, which misleads, for the delta {_change(lost[DELTA])}."
    return f"{text} (the delta {_change(lost[DELTA])})."


def _verdict(decades: float) -> str:
    if np.isnan(decades):
        return "is zero, or not finite, at both ends of the net"
    if decades >= REACHES_WITHIN_DECADES:
        return "does not reach the first layer"
    if decades <= -REACHES_WITHIN_DECADES:
        return "explodes on its way to the first layer"
    return "reaches the first layer"


def _median(trace: Trace, quantity: str, layer: int) -> float:
    return float(np.median(trace[quantity].values[0, layer]))


def _roles(trace: Trace) -> list[str]:
    """What part each layer has in the training; see `LayerInfo`."""
    if "role" not in trace.dataset:
        return ["trained"] * trace.dataset.sizes["layer"]
    return [str(role) for role in trace.dataset["role"].values]


def _ends(trace: Trace, quantity: str) -> tuple[int, int] | None:
    """The outermost layers of which a quantity is known at the first step; None if of none."""
    known = [
        i
        for i, role in enumerate(_roles(trace))
        if role == "trained" and not np.isnan(_median(trace, quantity, i))
    ]
    return (known[0], known[-1]) if known else None


def _cut(trace: Trace) -> str:
    """A sentence on layers that should be trained, and are not reached; "" if there are none."""
    roles = _roles(trace)
    if "trained" not in roles:
        return ""
    first = roles.index("trained")
    names = trace.layers
    missed = [repr(str(names[i])) for i in range(first) if roles[i] == "unreached"]
    if not missed:
        return ""
    where = missed[0] if len(missed) == 1 else f"{missed[0]} to {missed[-1]}"
    return f"No gradient reaches {where}: the first layer that gets one is {str(names[first])!r}."


def _way(trace: Trace, ends: tuple[int, int]) -> str:
    """Between which layers it was compared."""
    names = trace.layers
    if ends[0] == ends[1]:
        return f"in {names[ends[0]]!r}, the only layer"
    if trace.experiment:
        return "from the output layer to layer 1"
    return f"from {names[ends[1]]!r} to {names[ends[0]]!r}"


def _change(decades: float, way: str = "") -> str:
    """How it changes on its way; "" for one that was just named."""
    if way.startswith("in "):
        return f"is known {way}"
    if np.isnan(decades):
        return f"cannot be compared {way}".rstrip()
    if np.isinf(decades):
        return "is exactly zero there" if decades > 0 else "grows from exactly zero"
    if abs(decades) < ABOUT_THE_SAME:
        both = way.replace("from", "in").replace(" to ", " and in ")
        return f"is the same {both}" if way else "stays the same"
    text = f"{'falls' if decades > 0 else 'grows'} by {abs(decades):.1f}"
    return f"{text} decades {way}" if way else text


def _zeros(trace: Trace, quantity: str) -> str:
    first = trace[quantity].values[0]
    zero = [not float(np.median(layer)) for layer in first]
    names = trace.layers
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
