"""The textbook's statements about activation functions and the gradient, tested.

Each claim has its experiment, its test and its verdict; `prove` runs them. Figures of papers are
reproduced as well.

The modules::

    catalogue.py   all claims; they stand in functions.py, flow.py, learning.py, units.py, inputs.py
    claim.py       what a claim is, and a proof of it
    proving.py     `prove`: every claim, one after the other
    laboratory.py  trains the nets, each experiment once
    statistics.py  the tests; estimates.py their effect sizes and intervals
    verdicts.py    from findings to a verdict
    planned.py     the tests that a claim will make; power.py what they can show
    proofs.py      all results, as tables and files
    figures.py     the figures of claims

    papers.py         numbers from papers
    simulations.py    how they are measured again
    reproductions.py  one of them beside ours
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
