"""How a run was measured: what was run, with what, at what cost, and what is missing."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from gradiometer.plots.titles import settings_parts
from gradiometer.plots.words import printable, shortened
from gradiometer.quantities import OF_LAYERS, OF_STEPS
from gradiometer.states import MODEL, mask_of, places_missing, reason_for, reasons_of

if TYPE_CHECKING:
    from gradiometer.diagnosis import Verdict
    from gradiometer.trace import Trace

MOST_NAMED = 8  # layers, in a row of the table of what is missing
MOST_ROWS = 100  # of that table


def title_of(trace: Trace) -> str:
    """What was run, in a line."""
    if trace.experiment:
        members = trace.dataset.sizes.get("member", 1)
        nets = f"{members} nets" if members > 1 else ""
        return ", ".join(settings_parts(trace.experiment, nets))
    return f"A net of {_count(len(trace.layers), 'layer')}, recorded without an experiment"


def facts(trace: Trace, verdict: Verdict) -> Iterator[tuple[str, str]]:
    """What there is to know of the measuring: a word and its value in words, one by one."""
    attrs = trace.attrs
    yield "Steps", _steps(trace)
    yield "Nets", _nets(trace)
    if "dtype" in attrs:
        yield "Numbers", str(attrs["dtype"])
    if "optimizer" in attrs:
        yield "Optimiser", f"{attrs['optimizer']}{_rate(trace)}"
    yield "Recorded", ", ".join(_recorded(trace))
    left = [name for name in (*OF_LAYERS, *OF_STEPS) if name not in trace.dataset]
    if left:
        yield "Not recorded", ", ".join(left)
    with contextlib.suppress(KeyError, TypeError, ValueError):
        share = 100 * float(attrs["recording_overhead"])
        yield "Overhead", f"{share:.2g} % of the time went to recording"
    with contextlib.suppress(KeyError, TypeError, ValueError):
        yield "Time", f"{float(attrs['wall_time_s']):.3g} s"
    yield "Confidence", _confidence(verdict)
    yield "File", _file(trace)
    versions = _versions(trace)
    if versions:
        yield "Versions", versions


def _recorded(trace: Trace) -> list[str]:
    return [name for name in trace.quantities if "step" in trace.dataset[name].dims]


def missing(trace: Trace) -> list[tuple[str, str, str]]:
    """Which quantities are missing where, and why: quantities and layers in words, reason."""
    reasons = reasons_of(trace.attrs)
    places: dict[tuple[str, str], list[str]] = {}  # quantity, reason -> layers
    for name in trace.quantities:
        mask = mask_of(name, trace.dataset)
        for place in [] if mask is None else places_missing(trace.dataset, name, mask):
            layer = None if place == MODEL else place
            why = reason_for(reasons, name, layer) or "no reason is known"
            places.setdefault((name, why), []).append(place)
    names: dict[tuple[str, str], list[str]] = {}  # layers in words, reason -> quantities
    for (name, why), layers in places.items():
        names.setdefault((_listed(layers), why), []).append(name)
    found = [(", ".join(group), layers, why) for (layers, why), group in names.items()]
    if len(found) > MOST_ROWS:
        found = [*found[:MOST_ROWS], ("…", f"{len(found) - MOST_ROWS} more rows", "")]
    return found


def _listed(layers: list[str]) -> str:
    if layers == [MODEL]:
        return "the whole net"
    more = f" and {len(layers) - MOST_NAMED} more" if len(layers) > MOST_NAMED else ""
    return ", ".join(shortened(printable(name)) for name in layers[:MOST_NAMED]) + more


def _steps(trace: Trace) -> str:
    steps = trace.dataset["step"].values
    if not len(steps):
        return "no step was recorded"
    text = f"{_count(len(steps), 'recorded step')}, from {steps[0]:,} to {steps[-1]:,}"
    if trace.attrs.get("interrupted"):
        text += "; the training was interrupted"
    if "time_limit" in trace.attrs:
        text += f"; ended by the time limit of {trace.attrs['time_limit']} s"
    return text


def _nets(trace: Trace) -> str:
    if not trace.ensemble:
        return f"1, seed {trace.attrs['seed']}" if "seed" in trace.attrs else "1"
    members = trace.dataset["member"].values
    return f"{len(members)}, seeds {members[0]} to {members[-1]}; numbers are medians over them"


def _rate(trace: Trace) -> str:
    """The learning rate, in the words that follow the optimiser's name."""
    if "learning_rate" in trace.attrs:
        return f", learning rate {trace.attrs['learning_rate']}"
    if "learning_rate" in trace.dataset.coords:
        rates = trace.dataset["learning_rate"].values
        return f", learning rate from {rates[0]:.3g} to {rates[-1]:.3g}"
    return ""


def _confidence(verdict: Verdict) -> str:
    sure = verdict.confidence
    if sure is None or not sure.of:
        return f"the rule “{verdict.rule}” has no hit rate: it was not calibrated"
    return (
        f"the rule “{verdict.rule}” was right in {sure.hits} of {sure.of} nets of the calibration "
        f"({sure.rate:.0%})"
    )


def _file(trace: Trace) -> str:
    return {
        True: "read from a file whose checksum was right",
        False: "read from a file without a checksum, in which damage may go unnoticed",
        None: "not read from a file",
    }[trace.verified]


def _versions(trace: Trace) -> str:
    try:
        found: Any = json.loads(trace.attrs.get("versions", "{}"))
        return ", ".join(f"{name} {number}" for name, number in found.items())
    except (TypeError, ValueError, AttributeError):
        return ""


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}" + ("" if number == 1 else "s")
