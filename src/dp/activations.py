"""Named activation functions: their range, slope, and where they saturate.

This table has the range of each, its largest slope, and where it saturates: where |φ'| is below 5 %
of that largest slope. Kernel and derivative are those of its primitive. An operation that Nodes
have a method for is in `primitives.py`; one that is an activation function alone is entered here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dp import primitives as p
from dp.typing import Array
from dp.validation import number, positive_number, unknown

SATURATED_BELOW = 0.05


@dataclass(frozen=True)
class Activation:
    """An activation function φ, applied to Nodes or to arrays, elementwise.

    Attributes
    ----------
    name, formula : str
        Its name in the table, and φ(h) in plain text.
    range : (float, float)
        Infimum and supremum of φ over the real numbers.
    max_slope : float
        Supremum of |φ'|.
    saturates : str
        Where |φ'| is below 5 % of `max_slope`, in words.
    flat : tuple of (float, float)
        The same as intervals of h, each with both its ends.
    """

    name: str
    formula: str
    range: tuple[float, float]
    max_slope: float
    saturates: str
    flat: tuple[tuple[float, float], ...] = ()
    primitive: p.Primitive | None = field(repr=False, default=None)
    settings: dict[str, Any] = field(default_factory=dict)

    def __call__(self, h: Any) -> Any:
        """φ(h): a Node of a Node, an array of an array."""
        return h if self.primitive is None else self.primitive(h, **self.settings)

    def derivative(self, h: Array) -> Array:
        """φ'(h), elementwise, by the same rule as in the reverse sweep."""
        h = np.asarray(h)
        if self.primitive is None:
            return np.ones_like(h)
        rule = self.primitive.rules[0]
        assert rule is not None
        y = self.primitive.kernel(h, **self.settings)
        slope: Array = rule(np.ones_like(h), y, h, **self.settings)
        return slope

    def saturated(self, h: Any) -> Any:
        """Where |φ'(h)| is below 5 % of its maximum; False where h is NaN.

        Uses only comparisons, so that it works with arrays of any library.
        """
        found = None
        for low, high in self.flat:
            inside = h <= high if low == -_INF else h >= low
            if low > -_INF and high < _INF:
                inside = inside & (h <= high)
            found = inside if found is None else found | inside
        return h > _INF if found is None else found  # nowhere: nothing is above infinity


# LeCun et al. 1998, "Efficient BackProp", 4.4: f(±1) = ±1
LECUN_SCALE = 1.7159
LECUN_STRETCH = 2.0 / 3.0

LECUN_TANH = p.entry(
    "lecun_tanh",
    lambda x: LECUN_SCALE * np.tanh(LECUN_STRETCH * x),
    lambda g, y, x: g * (LECUN_STRETCH * (LECUN_SCALE - y * y / LECUN_SCALE)),
)
CLIPPED_RELU = p.entry(
    "clipped_relu",
    lambda x, ceiling: np.clip(x, 0.0, ceiling),
    # asks where the slope is 0, not where it is 1: NaN answers no, and stays visible
    lambda g, y, x, ceiling: p.where(
        p.less_equal(x, 0.0), 0.0, p.where(p.greater_equal(x, ceiling), 0.0, g)
    ),
)

_INF = math.inf
_SMALLEST = 2.0**-149  # above 0, also in float32
_ACOSH = math.acosh(math.sqrt(1.0 / SATURATED_BELOW))  # tanh' = 1 / cosh² = 5 %
# sigmoid' = s (1 - s) = 5 % of 1/4
_LOGIT = math.log(
    (1.0 + math.sqrt(1.0 - SATURATED_BELOW)) / (1.0 - math.sqrt(1.0 - SATURATED_BELOW))
)
_LOG = math.log(SATURATED_BELOW)  # exp' = exp = 5 %


def _beyond(end: float) -> tuple[tuple[float, float], ...]:
    """Both tails: |h| >= end."""
    return (-_INF, -end), (end, _INF)


def clipped_relu(ceiling: float = 6.0) -> Activation:
    """ReLU that stops at `ceiling`: min(max(0, h), ceiling).

    Raises
    ------
    ValueError
        If the ceiling is not a positive number.
    """
    ceiling = positive_number("the ceiling of a clipped relu", ceiling)
    return Activation(
        "clipped_relu",
        f"min(max(0, h), {ceiling:g})",
        (0.0, ceiling),
        1.0,
        f"h <= 0 and h >= {ceiling:g}",
        ((-_INF, 0.0), (ceiling, _INF)),
        CLIPPED_RELU,
        {"ceiling": ceiling},
    )


def leaky_relu(slope: float = 0.01) -> Activation:
    """ReLU that keeps a slope below 0: h if h > 0, else slope · h.

    Raises
    ------
    TypeError, ValueError
        If the slope is not a number.
    """
    slope = number("the slope of a leaky relu", slope)
    low = 0.0 if slope <= 0 else -_INF  # with a negative slope the left arm points upwards
    steepest = max(1.0, abs(slope))
    left = ("h <= 0", ((-_INF, 0.0),)), abs(slope)
    right = ("h > 0", ((_SMALLEST, _INF),)), 1.0
    saturates, flat = next(
        (arm for arm, size in (left, right) if size < SATURATED_BELOW * steepest), ("nowhere", ())
    )
    return Activation(
        "leaky_relu",
        f"h if h > 0 else {slope:g} h",
        (low, _INF),
        steepest,
        saturates,
        flat,
        p.leaky_relu,
        {"slope": slope},
    )


def elu(alpha: float = 1.0) -> Activation:
    """h if h > 0, else alpha · (exp(h) - 1) (Clevert et al. 2016).

    Raises
    ------
    ValueError
        If alpha is not a number above 0.
    """
    alpha = positive_number("the alpha of an elu", alpha)
    steepest = max(1.0, alpha)
    ends = math.log(SATURATED_BELOW * steepest / alpha)
    return Activation(
        "elu",
        f"h if h > 0 else {alpha:g} (exp(h) - 1)" if alpha != 1 else "h if h > 0 else exp(h) - 1",
        (-alpha, _INF),
        steepest,
        f"h < {ends:.2f}" if ends < 0 else "h <= 0",
        ((-_INF, min(ends, 0.0)),),
        p.elu,
        {"alpha": alpha, "scale": 1.0},
    )


_ALL = [
    Activation("identity", "h", (-_INF, _INF), 1.0, "nowhere"),
    Activation(
        "sigmoid",
        "1 / (1 + exp(-h))",
        (0.0, 1.0),
        0.25,
        f"|h| > {_LOGIT:.2f}",
        _beyond(_LOGIT),
        p.sigmoid,
    ),
    Activation("tanh", "tanh(h)", (-1.0, 1.0), 1.0, f"|h| > {_ACOSH:.2f}", _beyond(_ACOSH), p.tanh),
    Activation(
        "lecun_tanh",
        "1.7159 tanh(2 h / 3)",
        (-LECUN_SCALE, LECUN_SCALE),
        LECUN_SCALE * LECUN_STRETCH,
        f"|h| > {_ACOSH / LECUN_STRETCH:.2f}",
        _beyond(_ACOSH / LECUN_STRETCH),
        LECUN_TANH,
    ),
    Activation("relu", "max(0, h)", (0.0, _INF), 1.0, "h <= 0", ((-_INF, 0.0),), p.relu),
    clipped_relu(),
    leaky_relu(),
    elu(),
    Activation(
        "selu",
        "1.0507 (h if h > 0 else 1.6733 (exp(h) - 1))",
        (-p.SELU_SCALE * p.SELU_ALPHA, _INF),
        p.SELU_SCALE * p.SELU_ALPHA,
        f"h < {_LOG:.2f}",
        ((-_INF, _LOG),),
        p.elu,
        {"alpha": p.SELU_ALPHA, "scale": p.SELU_SCALE},
    ),
    # the extrema of gelu and silu, and where their slopes are at 5 %, to double precision
    Activation(
        "gelu",
        "h Φ(h)",
        (-0.16997120747990369, _INF),
        0.5 * math.erfc(-1.0) + math.exp(-1.0) / math.sqrt(math.pi),  # φ'' = 0 at h = √2
        "h < -2.28, and -0.90 < h < -0.63",
        ((-_INF, -2.2785606938035556), (-0.90326131905940406, -0.63345662811112531)),
        p.gelu,
    ),
    Activation(
        "silu",
        "h sigmoid(h)",
        (-0.27846454276107379, _INF),
        1.0998393194969217,
        "h < -3.93, and -1.60 < h < -1.06",
        ((-_INF, -3.9298973170368844), (-1.5950734907213252, -1.0591201597490294)),
        p.silu,
    ),
    Activation(
        "softplus",
        "log(1 + exp(h))",
        (0.0, _INF),
        1.0,
        f"h < {_LOG - math.log(1.0 - SATURATED_BELOW):.2f}",
        ((-_INF, _LOG - math.log(1.0 - SATURATED_BELOW)),),
        p.softplus,
    ),
]

# Acts on the rows of the output layer, not on entries: no choice for a hidden layer.
SOFTMAX = Activation(
    "softmax",
    "exp(h) / Σ exp(h)",
    (0.0, 1.0),
    0.25,
    "not elementwise",
    (),
    p.softmax,
    {"axis": 1},
)

ACTIVATIONS: dict[str, Activation] = {activation.name: activation for activation in _ALL}


def get(name: str | Activation, ceiling: float | None = None) -> Activation:
    """Look an activation function up by name.

    Parameters
    ----------
    name : str or Activation
        A name in `ACTIVATIONS`; an Activation is given back as it is.
    ceiling : float, optional
        Clips a relu at this value.

    Raises
    ------
    ValueError
        If there is no such function, naming those there are; or if a function other than relu is
        to be clipped.
    """
    if isinstance(name, Activation):
        activation = name
    elif isinstance(name, str) and name in ACTIVATIONS:
        activation = ACTIVATIONS[name]
    else:
        raise ValueError(unknown("activation", name, ACTIVATIONS))
    if ceiling is None:
        return activation
    if activation.name not in ("relu", "clipped_relu"):
        raise ValueError(f"only relu can be clipped at a ceiling, not {activation.name!r}")
    return clipped_relu(ceiling)


def matching(primitive: p.Primitive | None, settings: dict[str, Any]) -> Activation | None:
    """Find the activation function that a recorded operation is, or None if it is none of them."""
    if primitive is None:
        return None
    for activation in ACTIVATIONS.values():
        if activation.primitive is primitive:
            if activation.settings == settings:
                return activation
            if primitive is CLIPPED_RELU:
                return clipped_relu(**settings)
            if primitive is p.leaky_relu:
                return leaky_relu(**settings)
            if primitive is p.elu and settings["scale"] == 1.0 and settings["alpha"] > 0:
                return elu(settings["alpha"])
    return None
