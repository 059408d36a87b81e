"""What the gradient will do, from architecture, initialisation and data alone.

The modules::

    prediction.py      `predict`: the first step of an experiment
    comparison.py      a measured first step beside the prediction
    doubts.py          where a prediction may be off, and why

    moments.py         moments of an activation function, exact (piecewise.py) or numerical
    variances.py       the weights and biases that an initialiser draws
    maps.py            length and correlation maps, depth scales, the edge of chaos
    kernels.py         kernels of a batch, at infinite width
    infinite_width.py  the first step at infinite width
    finite_width.py    what a finite width adds: the spread over nets
    virtual.py         nets simulated at initialisation, for what has no formula
    bounds.py          an exact bound on the delta
    batches.py         the first batch, and the error at the output
    quadrature.py      means over a normal distribution
    expansion.py       second moments of any activation function
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
