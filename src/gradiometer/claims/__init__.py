"""The textbook's statements about activation functions and the gradient, tested.

Each claim has its experiment, its test and its verdict; `prove` runs them. Beside them, figures of
papers are reproduced.
"""

from __future__ import annotations

from gradiometer.claims.catalogue import CLAIMS
from gradiometer.claims.claim import Claim, Proof
from gradiometer.claims.proofs import Proofs, ProofsError
from gradiometer.claims.proving import prove
from gradiometer.claims.reproductions import Reproduction
from gradiometer.claims.statistics import Finding
from gradiometer.claims.verdicts import Verdict

__all__ = [
    "CLAIMS",
    "Claim",
    "Finding",
    "Proof",
    "Proofs",
    "ProofsError",
    "Reproduction",
    "Verdict",
    "prove",
]
