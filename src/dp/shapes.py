"""Checks of operands' shapes, and the description of an operation in an error message."""

from __future__ import annotations

from typing import Any

import numpy as np

from dp import primitives as p
from dp.errors import ShapeError
from dp.typing import Array

Nodes = tuple[Any, ...]
NO_SETTINGS: dict[str, Any] = {}


def check_shapes(primitive: p.Primitive, parents: Nodes) -> None:
    """Raise ShapeError where shapes do not fit, and where a column would broadcast with a row."""
    a, b = parents[0].value.shape, parents[1].value.shape
    if primitive is p.dot:
        if a[-1] != b[-2]:
            raise ShapeError(
                f"{describe(primitive, parents)}: the left side has {a[-1]} columns, the right "
                f"side {b[-2]} rows; they must be as many"
            )
    elif primitive.elementwise:
        if a != b and (1, 1) not in (a, b):
            _check_crossing(primitive, parents, a, b)
        for other in parents[2:] if len(parents) > 2 else ():  # what `where` chooses from
            c = other.value.shape
            _check_crossing(primitive, parents, a, c)
            if a[-2:] != (
                max(b[-2], c[-2]),
                max(b[-1], c[-1]),
            ):  # no matrix asks for all pairs
                _check_crossing(primitive, parents, b, c)


def _check_crossing(
    primitive: p.Primitive, parents: Nodes, a: tuple[int, ...], b: tuple[int, ...]
) -> None:
    (rows_a, columns_a), (rows_b, columns_b) = a[-2:], b[-2:]
    crossed = (columns_a == 1 != columns_b and rows_b == 1 != rows_a) or (
        rows_a == 1 != rows_b and columns_b == 1 != columns_a
    )
    if crossed:
        rows, columns = max(rows_a, rows_b), max(columns_a, columns_b)
        raise ShapeError(
            f"{describe(primitive, parents)}: a column meets a row, which would silently "
            f"become a {rows}×{columns} matrix; transpose one of them (.T), or reshape "
            "labels to a column with y.reshape(-1, 1). If you mean all pairs, begin with a "
            f"matrix: matrix + column + row, such as np.zeros(({rows}, {columns})) + column + row"
        )


def describe(primitive: p.Primitive, parents: Nodes, settings: dict[str, Any] = NO_SETTINGS) -> str:
    """Describe an operation in an error: its name, its operands' shapes, and the layer."""
    operands = " and ".join(
        f"{parent.shape}" + (f" {parent.name!r}" if parent.name else "") for parent in parents
    )
    details = "".join(f", {key}={value}" for key, value in settings.items())
    near = nearest_parameter(parents)
    layer = f" (nearest parameter: {near!r})" if near else ""
    return f"{primitive.name} of {operands}{details}{layer}"


def nearest_parameter(nodes: Nodes, reach: int = 1000) -> str | None:
    """Name of the closest named ancestor, which identifies the layer of an operation."""
    seen, level = set(nodes), list(nodes)
    while level and len(seen) <= reach:
        for node in level:
            if node.name:
                return str(node.name)
        level = [q for node in level for q in node.parents if q not in seen]
        seen.update(level)
    return None


def anomaly_message(
    primitive: p.Primitive, parents: Nodes, settings: dict[str, Any], value: Array
) -> str:
    """The message about a result that is not finite."""
    what = describe(primitive, parents, settings)
    bad = [q for q in parents if not np.isfinite(q.value).all()]
    if bad:
        given = f"{bad[0].shape}" + (f" {bad[0].name!r}" if bad[0].name else "")
        return f"forward {what}: its operand {given} is not finite already"
    count = int((~np.isfinite(value)).sum())
    kind = "NaN" if np.isnan(value).any() else "Inf"
    return f"forward {what} gave {kind} in {count} of {value.size} entries"
