"""What a run or a study found, or is predicted, as a table in the terminal."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from gradiometer.settings import SETTINGS

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console
    from rich.table import Table

    from gradiometer.diagnosis import Diagnosis
    from gradiometer.remedies import Remedies
    from gradiometer.theory import Prediction
    from gradiometer.trace import Trace

BAR_WIDTH = 14
MISSING = "–"
NARROW = 76  # columns that the table needs
STUDY_COLUMNS = {
    "accuracy": "accuracy",
    "delta_decades": "fall of the delta\n(decades)",
    "gradient_decades": "fall of |dL/dW|\n(decades)",
    "diverged": "diverged",
}


def print_report(trace: Trace) -> None:
    """Print the table of the layers, the accuracy and the closing sentence."""
    import numpy as np

    screen = console()
    screen.print(_table(trace.table(), trace), crop=False)
    final = trace["accuracy"].values[-1]
    members = f" (median of {final.size} nets)" if final.size > 1 else ""
    screen.print(f"Accuracy {np.median(final):.3f}{members}.", highlight=False)
    screen.print(trace.sentence(), highlight=False, style="bold", soft_wrap=True)


def print_diagnosis(diagnosis: Diagnosis) -> None:
    """Print the verdicts, the first one bold, each with its evidence; and what was not judged."""
    from gradiometer.reports.page import usual_in_words

    screen = console()
    for i, verdict in enumerate(diagnosis):
        screen.print(verdict.sentence, highlight=False, style="" if i else "bold", soft_wrap=True)
        for found in verdict.evidence:
            where = "" if found.layer is None else f" (layer {found.layer})"
            usual = usual_in_words(found.low, found.high)
            line = f"  {found.label}{where}: {found.value:.3g}{usual and f'; usually {usual}'}"
            screen.print(line, highlight=False, soft_wrap=True)
        if verdict.confidence is not None:
            hits, of = verdict.confidence.hits, verdict.confidence.of
            line = f"  This rule was right in {hits} of {of} nets of the calibration."
            screen.print(line, highlight=False, soft_wrap=True)
    for missing in diagnosis.not_judged:
        screen.print(missing.sentence, highlight=False, soft_wrap=True)


def print_remedies(remedies: Remedies) -> None:
    """Print the remedies that were tried, the best first, and what to do."""
    screen = console()
    if remedies.tried:
        screen.print(remedies.table(), crop=False)
    screen.print(remedies.sentence, highlight=False, style="bold", soft_wrap=True)
    best = remedies.recommended
    if best is not None:
        screen.print(f"  {best.code}", highlight=False, soft_wrap=True)


def console() -> Console:
    """Where tables are printed, wide enough for them."""
    from rich.console import Console

    # a pipe has no width of its own, and the table must not be cut off in it or squeezed
    width = None if sys.stdout.isatty() else 110
    # names of layers and folders are shown as they are: neither markup nor emoji
    found = Console(width=width, markup=False, emoji=False)
    if found.width < NARROW:
        found.width = NARROW
    return found


def _table(rows: list[dict[str, Any]], trace: Trace) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    steps = trace.dataset["step"].values
    # narrow enough for 80 columns
    table = Table(
        title="Where the gradient goes", title_justify="left", box=SIMPLE_HEAD, pad_edge=False
    )
    table.add_column("layer", justify="right")
    first, last = f"step {steps[0]}", f"step {steps[-1]}"
    for heading, step in (
        ("mean\n|dL/dW|", first),
        ("mean\n|dL/dW|", last),
        ("delta\nrms", first),
        ("dead\nunits", last),
        ("satu-\nrated", last),
    ):
        table.add_column(f"{heading}\n{step}", justify="right")
    table.add_column(f"mean |dL/dW|\non a log scale\n{first}")
    bars = log_bars([row["first"] for row in rows])
    for row, bar in zip(rows, bars, strict=True):
        table.add_row(
            f"{row['depth']} {row['layer']}",
            *(_number(row[key]) for key in ("first", "last", "delta")),
            *(_share(row[key]) for key in ("dead", "saturated")),
            bar,
        )
    return table


def study_table(summary: pd.DataFrame, axes: list[str]) -> Table:
    """A row per experiment: medians over seeds, with their intervals."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    intervals = [f"{name}_low" for name in STUDY_COLUMNS if f"{name}_low" in summary]
    known = bool(summary[intervals].notna().to_numpy().any())  # it takes six seeds or more
    table = Table(
        title="Medians over seeds" + (", with 95 % intervals" if known else ""),
        title_justify="left",
        box=SIMPLE_HEAD,
        pad_edge=False,
    )
    for name in axes:
        table.add_column(SETTINGS[name].word, justify="right")
    shown = {name: words for name, words in STUDY_COLUMNS.items() if name in summary}
    for words in shown.values():
        table.add_column(words, justify="right")
    for _, row in summary.iterrows():
        table.add_row(
            *(SETTINGS[name].label(row[name]) for name in axes),
            *(_with_interval(row, name) for name in shown),
        )
    return table


def prediction_table(prediction: Prediction) -> Table:
    """A row per layer: what is predicted of its first step."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(
        title="Predicted at the first step, over all seeds",
        title_justify="left",
        box=SIMPLE_HEAD,
        pad_edge=False,
    )
    for words in (
        "layer", "activation\nrms", "delta\nrms", "mean |dL/dW|\nmedian", "90 % of\nnets",
        "at infinite\nwidth",
    ):  # fmt: skip
        table.add_column(words, justify="right")
    table.add_column("mean |dL/dW|\non a log scale")
    rows = prediction.table()
    bars = log_bars([row["gradient"] for row in rows])
    for row, bar in zip(rows, bars, strict=True):
        table.add_row(
            f"{row['depth']} {row['layer']}",
            f"{row['activation_mean_square'] ** 0.5:.3g}",
            f"{row['delta']:.2e}",
            f"{row['gradient']:.2e}",
            f"{row['gradient_low']:.1e} – {row['gradient_high']:.1e}",
            f"{row['gradient_wide']:.2e}",
            bar,
        )
    return table


def _with_interval(row: pd.Series, name: str) -> str:
    if name == "diverged":
        return _share(row[name])
    middle, low, high = (row[key] for key in (name, f"{name}_low", f"{name}_high"))
    if middle != middle:
        return MISSING
    interval = "" if low != low else f" [{low:.2f}, {high:.2f}]"
    return f"{middle:.2f}{interval}"


def _number(value: float | None) -> str:
    return MISSING if value is None else f"{value:.2e}"


def _share(value: float | None) -> str:
    if value is None:
        return MISSING
    return f"{value:.0%}" if value == value else "nan"


def log_bars(values: Sequence[float | None], width: int = BAR_WIDTH) -> list[str]:
    """Bars on a common log scale, from the smallest value (one cell) to the largest (`width`)."""
    import math

    known = [v for v in values if v is not None and math.isfinite(v) and v > 0]
    low, high = (math.log10(end(known, default=1.0)) for end in (min, max))
    span = max(high - low, 1.0)
    bars = []
    for value in values:
        if value is None:
            bars.append("")
        elif value == 0:
            bars.append("0")
        elif math.isfinite(value) and value > 0:
            bars.append("█" * (1 + round((width - 1) * (math.log10(value) - low) / span)))
        else:
            bars.append("not finite")
    return bars
