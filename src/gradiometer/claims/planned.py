"""The tests that a claim will make, known before anything is trained."""

from __future__ import annotations

from dataclasses import dataclass

from gradiometer.claims.laboratory import Laboratory


@dataclass(frozen=True)
class Planned:
    """A test that a claim will make.

    Attributes
    ----------
    kind : str
        "check", "rank", "equivalence", "shift" or "share".
    flow : bool
        Whether it is of the nets of a single step, of which there are more than seeds.
    """

    kind: str
    flow: bool = False

    def nets(self, laboratory: Laboratory) -> int:
        """How many nets it has at most (of each group, if it compares two)."""
        return laboratory.flow_seeds if self.flow else laboratory.seeds


CHECK = Planned("check")
SHARE, SHARE_FLOW = Planned("share"), Planned("share", True)
RANK, RANK_FLOW = Planned("rank"), Planned("rank", True)
EQUIVALENCE, EQUIVALENCE_FLOW = Planned("equivalence"), Planned("equivalence", True)
SHIFT_FLOW = Planned("shift", True)
