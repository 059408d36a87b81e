"""How matrix products are made in parts."""

import numpy as np
import pytest
from tests.dp.program.programs import close

import dp
from dp import Node
from dp.program import products
from dp.program.step import one_step


@pytest.mark.parametrize("kernels", [True, False])
@pytest.mark.parametrize("batch", [64, 96, 127, 400, 2000])  # some too few, too many, or odd
@pytest.mark.parametrize("features", [120, 6])
def test_products_are_made_in_parts_where_there_are_kernels_for_small_ones(
    features, batch, kernels, monkeypatch
):
    monkeypatch.setattr(products, "has_small_kernels", lambda: kernels)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(batch, features)), np.eye(9)[rng.integers(0, 9, batch)]
    net = dp.Net(features, 120, 3, "tanh", n_outputs=9, seed=0, dtype=np.float32)
    step = one_step(dp.SGD(net, x, y, batch_size=batch))
    rows = rng.integers(0, batch, batch)
    x, y = x[rows].astype(np.float32), y[rows].astype(np.float32)
    right, loss = net.get_grad(Node(x), Node(y))
    found, value = step(x, y)
    close(value, loss.value, np.float32)
    for name in right:
        close(found[name], right[name], np.float32)
    # 120 x 121 x 96 is 1.4 million, and the last one's 9 x 121 x 2000 is 2.2 million
    assert ("_parts" in step.fast_source) == (kernels and batch in (96, 2000))


@pytest.mark.parametrize(
    ("shape", "parts"),
    [
        ((100, 101, 128), 2),
        ((128, 129, 128), 4),  # three do not divide it
        ((10, 1025, 256), 4),  # few rows
        ((100, 100, 100), None),  # a small kernel does it whole
        ((200, 201, 256), None),  # so large that repacking pays
        ((100, 101, 127), None),
        ((500, 501, 8), None),  # too few columns
    ],
)
def test_how_a_product_is_parted(shape, parts, monkeypatch):
    monkeypatch.setattr(products, "has_small_kernels", lambda: True)
    m, k, n = shape
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(m, k)).astype(np.float32), rng.normal(size=(k, n)).astype(np.float32)
    out = np.zeros((m + 1, n), np.float32)[:-1]
    found = products.in_parts(a, b, out)
    assert (found is None) == (parts is None)
    assert products.in_parts(a, np.asfortranarray(b), out) is None
    assert products.in_parts(a.astype(float), b.astype(float), out.astype(float)) is None
    if found is not None:
        assert [len(stack) for stack in found] == [parts, parts]
        np.matmul(a, *found)
        np.testing.assert_allclose(out, a @ b, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("blas", "baseline", "found", "there"),
    [
        ("scipy-openblas", ["X86_V2"], ["X86_V3", "X86_V4"], True),
        ("openblas64", ["SSE"], ["AVX2", "AVX512F", "AVX512_SKX"], True),
        ("scipy-openblas", ["X86_V4"], [], True),
        ("scipy-openblas", ["X86_V2"], ["X86_V3"], False),
        ("mkl-sdl", ["X86_V2"], ["X86_V3", "X86_V4"], False),
        ("accelerate", ["NEON"], ["ASIMDHP"], False),
    ],
)
def test_where_there_are_kernels_for_small_products(blas, baseline, found, there, monkeypatch):
    built = {
        "Build Dependencies": {"blas": {"name": blas}},
        "SIMD Extensions": {"baseline": baseline, "found": found},
    }
    assert products.has_small_kernels() in (True, False)
    monkeypatch.setattr(np, "show_config", lambda mode: built)
    assert products.has_small_kernels.__wrapped__() is there
