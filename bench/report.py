"""Tables and figures of what was measured."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench.timing import Row

# Okabe and Ito's colours, told apart by everybody
OURS, LIMIT, OTHERS = "#D55E00", "#000000", "#56B4E9"
SCALE = {"s": 1.0, "ms": 1e3, "µs": 1e6}


def table(rows: Sequence[Row], unit: str, limit: str, first: str) -> str:
    """A Markdown table, fastest first, and a line for everyone who was skipped.

    Parameters
    ----------
    rows : sequence of Row
    unit : str
        "ms per run": how times are shown, and what of.
    limit : str
        What ratios refer to.
    first : str
        What `Row.first_s` is.
    """
    scale = SCALE[unit.split()[0]]
    notes = any(row.note for row in rows)
    lines = [
        f"| peer | median, {unit} | minimum | × {limit} | × of minima | {first} |"
        + " note |" * notes,
        "|---|---|---|---|---|---|" + "---|" * notes,
    ]
    for row in rows:
        if row.skipped:
            continue
        line = f"| {row.peer.label} | {digits(row.median * scale)} | {digits(row.minimum * scale)} "
        line += f"| {row.ratio:.2f} | {row.minimum_ratio:.2f} | {digits(row.first_s)} |"
        lines.append(line + f" {row.note} |" * notes)
    skipped = [f"- {row.peer.label}: {row.skipped}" for row in rows if row.skipped]
    if skipped:
        lines += ["", "Not measured:", *skipped]
    return "\n".join(lines)


def digits(number: float) -> str:
    """Three of them."""
    if number >= 100:
        return f"{number:,.0f}"
    return f"{number:.3g}" if number < 1 else f"{number:.{1 if number >= 10 else 2}f}"


def figure(rows: Sequence[Row], title: str, limit: str, path: Path) -> None:
    """Horizontal bars, ratios to the limit on a log axis."""
    from matplotlib.figure import Figure

    shown = [row for row in rows if not row.skipped][::-1]
    if not shown:
        return
    drawing = Figure(figsize=(8, 1.2 + 0.34 * len(shown)), layout="constrained")
    axes = drawing.add_subplot()
    ours = [row.peer.module == "dp_peers" for row in shown]
    hand = [row.peer.module.startswith("numpy_") for row in shown]
    colours = [OURS if o else LIMIT if h else OTHERS for o, h in zip(ours, hand, strict=True)]
    ratios = [row.ratio for row in shown]
    lowest = min(0.8, 0.9 * min(ratios))
    bars = axes.barh(
        range(len(shown)), [r - lowest for r in ratios], left=lowest, color=colours, height=0.7
    )
    axes.bar_label(bars, [f"{r:.2f} ×" if r < 10 else f"{r:.0f} ×" for r in ratios], padding=3)
    axes.set_yticks(range(len(shown)), [row.peer.label for row in shown])
    axes.set_xscale("log")
    axes.set_xlim(lowest, 1.6 * max(ratios))
    ticks = [t for t in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000) if t < 1.6 * max(ratios)]
    axes.set_xticks(ticks, [str(t) for t in ticks])
    axes.set_xticks([], minor=True)
    axes.set_ylim(-0.6, len(shown) - 0.4)
    axes.axvline(1.0, color="0.4", linewidth=1, linestyle="--", zorder=0)
    axes.set_xlabel(f"time, × {limit} (log scale; shorter is faster)")
    axes.set_title(title, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    drawing.savefig(path, dpi=150)
