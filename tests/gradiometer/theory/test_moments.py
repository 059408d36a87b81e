"""Gaussian moments of every activation function, against independent quadrature and identities."""

import itertools
import math

import numpy as np
import pytest
from scipy import integrate, stats

from dp.activations import ACTIVATIONS, Activation, clipped_relu, elu, leaky_relu
from gradiometer.theory import moments
from gradiometer.theory.piecewise import pieces

EVERY = [*ACTIVATIONS.values(), leaky_relu(0.2), leaky_relu(-0.5), elu(2.0), clipped_relu(1.0)]
CURVED = [a for a in EVERY if pieces(a) is None]
every = pytest.mark.parametrize("activation", EVERY, ids=lambda a: f"{a.name}{a.settings}")


def around_the_circle(activation: Activation, q_a, q_b, correlation):
    """C and D in polar coordinates, in which a kink at 0 is a direction, where the panels end."""
    angle = math.acos(correlation)
    kinks = (np.array([0.5, 1.5]) * math.pi + np.array([[0.0], [angle]])).ravel() % (2 * math.pi)
    cuts = np.unique([0.0, *kinks, 2 * math.pi]).tolist()
    finer = 0.25 ** np.arange(4, 0, -1)
    part = np.unique([0.0, *finer, *(1 - finer), 1.0])
    x, w = np.polynomial.legendre.leggauss(16)
    ends = np.arange(0, 11.0, 1.0)
    r = (ends[:-1, None] + 0.5 * (1 + x)).ravel()
    w_r = np.tile(0.5 * w, len(ends) - 1) * r * np.exp(-r * r / 2) / (2 * math.pi)
    c = d = 0.0
    for a, b in itertools.pairwise(cuts):
        panels = a + (b - a) * part
        half = np.diff(panels)[:, None] / 2
        t, w_t = (panels[:-1, None] + half * (1 + x)).ravel(), (half * w).ravel()
        u_a = math.sqrt(q_a) * r * np.cos(t)[:, None]
        u_b = math.sqrt(q_b) * r * np.cos(t - angle)[:, None]
        c += w_t @ (activation(u_a) * activation(u_b)) @ w_r
        d += w_t @ (activation.derivative(u_a) * activation.derivative(u_b)) @ w_r
    return c, d


def along_a_line(f, q, kinks=()):
    """E f(√q z) by adaptive quadrature between the kinks."""
    ends = [-12.0, *sorted(k / math.sqrt(q) for k in kinks if abs(k) < 12 * math.sqrt(q)), 12.0]
    return sum(
        integrate.quad(
            lambda z: float(f(np.array(math.sqrt(q) * z))) * stats.norm.pdf(z),
            a,
            b,
            epsabs=1e-13,
            limit=400,
        )[0]
        for a, b in itertools.pairwise(ends)
    )


@every
@pytest.mark.parametrize("q", [1e-4, 0.5, 1.0, 12.6, 400.0])
def test_moments_of_one_pre_activation(activation, q):
    kinks = [0.0]
    if "ceiling" in activation.settings:
        kinks.append(activation.settings["ceiling"])
    for found, f in [
        (moments.mean, activation),
        (moments.mean_square, lambda u: activation(u) ** 2),
        (moments.mean_square_slope, lambda u: activation.derivative(u) ** 2),
        (moments.mean_fourth_slope, lambda u: activation.derivative(u) ** 4),
    ]:
        expected = along_a_line(f, q, kinks)
        assert float(found(activation, q)) == pytest.approx(expected, rel=1e-9, abs=1e-12)


@every
@pytest.mark.parametrize(("q_a", "q_b"), [(1.0, 1.0), (0.05, 0.06), (4.0, 3.0), (30.0, 35.0)])
def test_moments_of_pairs(activation, q_a, q_b):
    # a kink away from 0 is no direction: its reference follows below
    if activation.name == "clipped_relu":
        return
    sizes = [
        math.sqrt(float(f(activation, q_a)) * float(f(activation, q_b)))
        for f in (moments.mean_square, moments.mean_square_slope)
    ]
    for correlation in (-0.9, 0.3, 0.99, 0.9999, 1.0):
        expected = around_the_circle(activation, q_a, q_b, correlation)
        found = moments.pair(activation, q_a, q_b, correlation)
        # curved ones with a kink, close to 1 at unlike variances, are the hardest
        exact = 1e-8 if correlation < 0.95 or pieces(activation) else 1e-6
        kinked = 1e-4 if activation.name in ("elu", "selu") and correlation > 0.95 else exact
        large = 1e-5 if q_a > 10 and correlation > 0.95 else exact
        assert abs(found[0] - expected[0]) / sizes[0] < exact
        assert abs(found[1] - expected[1]) / sizes[1] < max(exact, kinked, large)


@pytest.mark.parametrize("ceiling", [1.0, 6.0])
@pytest.mark.parametrize("correlation", [-0.9, 0.0, 0.5, 0.99, 0.9999])
@pytest.mark.parametrize(("q_a", "q_b"), [(1.0, 1.0), (4.0, 3.0), (30.0, 35.0)])
def test_slopes_of_a_clipped_relu_are_probabilities(ceiling, correlation, q_a, q_b):
    cross = correlation * math.sqrt(q_a * q_b)
    normal = stats.multivariate_normal(
        [0, 0], [[q_a, cross], [cross, q_b]], abseps=1e-10, releps=1e-10
    )
    # P(0 < u_a < ceiling, 0 < u_b < ceiling)
    expected = normal.cdf([ceiling] * 2, lower_limit=[0, 0])
    c, d = moments.pair(clipped_relu(ceiling), q_a, q_b, correlation)
    assert d == pytest.approx(float(expected), abs=1e-7)
    # the products, in one direction by quadrature, in the other in closed form
    left = math.sqrt(q_b * (1 - correlation**2))

    def inner(u):
        centre = correlation * math.sqrt(q_b / q_a) * u
        ramp = [
            left * stats.norm.pdf(z) + (centre - t) * stats.norm.cdf(z)
            for t in (0.0, ceiling)
            for z in [(centre - t) / left]
        ]
        return np.clip(u, 0, ceiling) * (ramp[0] - ramp[1])

    assert c == pytest.approx(along_a_line(inner, q_a, [0.0, ceiling]), rel=1e-7)


def test_relu_at_known_angles():
    # Cho & Saul 2009: at a right angle 1/(2π) and a quarter, for equals a half, for opposites 0
    relu = ACTIVATIONS["relu"]
    for correlation, c, d in [(0, 1 / (2 * math.pi), 0.25), (1, 0.5, 0.5), (-1, 0, 0)]:
        assert moments.pair(relu, 1.0, 1.0, correlation) == pytest.approx((c, d), abs=1e-15)
    c, d = moments.pair(relu, 4.0, 9.0, 0.5)
    angle = math.acos(0.5)
    assert d == pytest.approx((math.pi - angle) / (2 * math.pi))
    expected = 6 * (math.sin(angle) + (math.pi - angle) * 0.5) / (2 * math.pi)
    assert c == pytest.approx(expected)


@every
def test_prices_theorem(activation):
    """The derivative of C with respect to a covariance is D."""
    k = np.array([[1.5, 0.7], [0.7, 0.8]])
    ends = []
    for by in (1e-5, -1e-5):
        changed = k.copy()
        changed[0, 1] += by
        changed[1, 0] += by
        ends.append(moments.kernels(activation, changed)[0][0, 1])
    _, d = moments.kernels(activation, k)
    assert (ends[0] - ends[1]) / 2e-5 == pytest.approx(d[0, 1], rel=1e-4, abs=1e-7)


@every
def test_what_does_not_vary_is_0(activation):
    k = np.array([[0.0, 0.0], [0.0, 2.0]])
    c, d = moments.kernels(activation, k)
    value = float(np.asarray(activation(np.zeros(1)))[0])
    slope = float(activation.derivative(np.zeros(1))[0])
    assert c[0, 0] == pytest.approx(value**2, abs=1e-15)
    assert d[0, 0] == pytest.approx(slope**2, abs=1e-12)
    assert c[0, 1] == pytest.approx(value * float(moments.mean(activation, 2.0)), abs=1e-12)
    assert float(moments.mean_square_slope(activation, 0.0)) == pytest.approx(slope**2, abs=1e-12)


@pytest.mark.parametrize("activation", CURVED, ids=lambda a: f"{a.name}{a.settings}")
def test_kernels_are_covariances(activation):
    """Symmetric, exact on the diagonal, and without negative eigenvalues beyond rounding."""
    x = np.random.default_rng(0).normal(size=(30, 3))
    k = 20 * x @ x.T
    for found, exact in zip(
        moments.kernels(activation, k),
        (moments.mean_square, moments.mean_square_slope),
        strict=True,
    ):
        assert np.allclose(found, found.T, rtol=1e-12)
        assert np.diag(found) == pytest.approx(exact(activation, np.diag(k)), rel=1e-9)
        assert np.linalg.eigvalsh(found)[0] > -1e-4 * found.max()


def test_wrong_covariances_are_refused():
    tanh = ACTIVATIONS["tanh"]
    for wrong in ([[1.0, 2.0]], [[np.nan]], [[np.inf]], [[-1.0]], [1.0]):
        with pytest.raises(ValueError, match=r"covariance must be|variance must be"):
            moments.kernels(tanh, wrong)
    with pytest.raises(ValueError, match="not below 0, got -1"):
        moments.mean(tanh, -1.0)
