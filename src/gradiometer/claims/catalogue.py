"""All claims, in the order of the lesson."""

from __future__ import annotations

from collections.abc import Sequence

from dp.validation import unknown
from gradiometer.claims import flow, functions, inputs, learning, units
from gradiometer.claims.claim import Claim

CLAIMS: dict[str, Claim] = {
    claim.name: claim
    for subject in (functions, flow, learning, units, inputs)
    for claim in subject.CLAIMS
}


def chosen(names: Sequence[str] | None) -> list[Claim]:
    """The claims of these names, each once; all by default.

    Raises
    ------
    ValueError
        If there is no claim of a name, with the one that is closest.
    """
    if names is None:
        return [*CLAIMS.values()]
    if isinstance(names, str):
        raise ValueError(f"claims are a list of names, such as [{names!r}], got {names!r}")
    for name in names:
        if name not in CLAIMS:
            raise ValueError(unknown("claim", name, CLAIMS))
    return [CLAIMS[name] for name in dict.fromkeys(names)]
