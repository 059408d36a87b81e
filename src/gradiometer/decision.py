"""The net's decision in the plane of the data's first two principal components."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

import dp
from gradiometer.data import Data
from gradiometer.trace import Trace

GRID = 80  # points per side of the plane


def add_decision(trace: Trace, net: dp.Net, data: Data) -> None:
    """Add to a trace the samples and the net's decision, as the figure `decision` shows them.

    Variables: `points` (sample, component) and `label` (sample); `explained_variance` (component);
    `decision_class` and `decision_confidence` (grid_y, grid_x[, member]), the latter the
    probability of the class decided for, NaN where the net's output is.
    """
    # NumPy's decomposition: loading scikit-learn for it takes a second
    center = data.x.mean(axis=0)
    _, singular, components = np.linalg.svd(data.x - center, full_matrices=False)
    variance = singular**2 / max(float((singular**2).sum()), np.finfo(float).tiny)
    plane = components[:2]
    points = (data.x - center) @ plane.T
    sides = []
    for values in points.T:
        margin = 0.15 * (np.ptp(values) or 1.0)
        sides.append(np.linspace(values.min() - margin, values.max() + margin, GRID))
    mesh = np.stack(np.meshgrid(*sides), axis=-1).reshape(-1, 2)
    with dp.no_grad():
        p = net.forward(mesh @ plane + center, like=data.x).value.astype(np.float64)
    if data.n_outputs == 1:
        p = np.concatenate([1 - p, p], axis=-1)
    decision = p.argmax(axis=-1)
    confidence = p.max(axis=-1)
    shape = (*decision.shape[:-1], GRID, GRID)
    member = ("member",) if decision.ndim > 1 else ()
    dims = ("grid_y", "grid_x", *member)

    def grid(values: Any) -> Any:
        return np.moveaxis(values.reshape(shape), 0, -1) if member else values.reshape(shape)

    trace.dataset = trace.dataset.assign(
        points=(("sample", "component"), points),
        label=(("sample",), data.labels),
        explained_variance=(("component",), variance[:2]),
        decision_class=(dims, grid(decision)),
        decision_confidence=(dims, grid(confidence)),
    ).assign_coords(component=["pc1", "pc2"], grid_x=sides[0], grid_y=sides[1])
    trace.dataset.attrs["class_names"] = json.dumps(list(data.class_names))
