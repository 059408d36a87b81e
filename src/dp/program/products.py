"""How NumPy's BLAS is best asked for a matrix product."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from dp.typing import Array

# OpenBLAS multiplies small matrices by kernels that neither repack them nor start threads: up to
# this many multiplications, and where there is AVX-512.
SMALL = 100**3
# Up to FEW_TIMES as many are quicker in several parts, in float32: by 5 to 20 % on one thread, and
# by 10 to 40 % on two. (Without such kernels they would be up to 16 % slower.) Up to NARROW_TIMES
# where there are at most NARROW rows, or columns of a: then repacking is most of the work.
FEW_TIMES, NARROW_TIMES, NARROW = 2.2, 4.0, 16
LEAST = 32  # columns of a part


@functools.cache
def has_small_kernels() -> bool:
    """Whether NumPy's BLAS is OpenBLAS, and the processor has AVX-512."""
    built: Any = np.show_config(mode="dicts")
    blas = str(built.get("Build Dependencies", {}).get("blas", {}).get("name", ""))
    simd = built.get("SIMD Extensions", {})
    known = {*simd.get("baseline", ()), *simd.get("found", ())}
    return "openblas" in blas and not known.isdisjoint(("X86_V4", "AVX512_SKX"))


def in_parts(a: Array, b: Array, out: Array) -> tuple[Array, Array] | None:
    """The product a b, as several products that are each small enough for those kernels.

    Parameters
    ----------
    a, b, out : arrays (m, k), (k, n), (m, n)

    Returns
    -------
    (array, array) or None
        Columns of b and out, (parts, k, n / parts) and (parts, m, n / parts), both views, for
        `matmul`. None where one call for the whole is better, as it is in float64: there, threads
        that share a product win more than they cost.
    """
    (m, k), n = a.shape, b.shape[1]
    times = m * k * n / SMALL
    by_rows = b.strides[1] == b.itemsize and out.strides[1] == out.itemsize
    if a.dtype != np.float32 or not by_rows or not has_small_kernels():
        return None
    if not 1 < times <= (NARROW_TIMES if min(m, k) <= NARROW else FEW_TIMES):
        return None
    for parts in range(2, n // LEAST + 1):
        if n % parts == 0 and times <= parts:
            b, out = (x.reshape(len(x), parts, -1).swapaxes(0, 1) for x in (b, out))
            return b, out
    return None
