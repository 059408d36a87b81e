"""The textbook's statements about activation functions and the gradient, tested.

Each claim has its experiment, its test and its verdict; `prove` runs them. Beside them, figures of
papers are reproduced.
"""

from __future__ import annotations

from gradlab.claims.catalogue import CLAIMS
from gradlab.claims.claim import Claim, Proof
from gradlab.claims.papers import Reproduction
from gradlab.claims.proofs import Proofs, ProofsError, prove
from gradlab.claims.statistics import Finding
from gradlab.claims.verdicts import Verdict

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
