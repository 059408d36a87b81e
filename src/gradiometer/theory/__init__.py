"""What the gradient will do, from architecture, initialisation and data alone.

`predict` answers for an experiment; the rooms behind it hold the theory: moments of activation
functions, length and correlation maps, kernels of a batch, finite width, and an exact bound.
"""

from __future__ import annotations

from gradiometer.theory.bounds import Bounds, bounds
from gradiometer.theory.comparison import Comparison, compare
from gradiometer.theory.maps import Edge, Phase, edge_of_chaos, phase
from gradiometer.theory.prediction import Prediction, TheoryError, predict
from gradiometer.theory.variances import VARIANCES

__all__ = [
    "VARIANCES",
    "Bounds",
    "Comparison",
    "Edge",
    "Phase",
    "Prediction",
    "TheoryError",
    "bounds",
    "compare",
    "edge_of_chaos",
    "phase",
    "predict",
]
