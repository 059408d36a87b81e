"""The report of `gradiometer prove`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from gradiometer.reports.page import render

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from gradiometer.claims import Proofs


def page(proofs: Proofs, figures: Mapping[str, Figure]) -> str:
    """The report as HTML.

    Parameters
    ----------
    proofs : Proofs
    figures : mapping of str to Figure
        By the name of the claim; a claim without one has no picture.
    """
    return render("proofs.html", proofs=proofs, figures=figures)
