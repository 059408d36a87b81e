"""What is recorded, and of which model: what all parts of a recorder are told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from gradiometer.recording.adapters.torch.layers import Layer, find_layers, unwrapped
from gradiometer.recording.adapters.torch.overhead import Overhead
from gradiometer.recording.session import Session


@dataclass(frozen=True)
class Plan:
    """What is recorded, and of which model.

    Attributes
    ----------
    session : Session
        What steps are added to, and what is told why something cannot be had.
    clock : Overhead
        Counts what recording takes.
    model, inner : nn.Module
        As the user calls it, and without what wraps it.
    layers, left_out : sequence of Layer
        Those that are recorded, and the others, in the order of registration.
    wanted : set of str
        Which quantities are measured.
    arrays : set of str
        The arrays they are measured of, by their names in `requires`.
    has_reference : bool
        Whether there is a reference batch.
    """

    session: Session
    clock: Overhead
    model: nn.Module
    inner: nn.Module
    layers: Sequence[Layer]
    left_out: Sequence[Layer]
    wanted: frozenset[str]
    arrays: frozenset[str]
    has_reference: bool

    @classmethod
    def of(cls, session: Session, clock: Overhead, model: nn.Module, has_reference: bool) -> Plan:
        """The plan of a model.

        Raises
        ------
        RecordingError
            If the model owns no weights, or hides them.
        ValueError
            If it has no layer of a name that is to be recorded.
        """
        wanted = frozenset(session.quantities)
        if "clip_factor" in wanted:
            wanted |= {"grad_rms"}
        inner = unwrapped(model)
        found = find_layers(inner)
        session.check_names([layer.name for layer in found])
        layers = [layer for layer in found if session.picks(layer.name)]
        left_out = [layer for layer in found if not session.picks(layer.name)]
        return cls(
            session, clock, model, inner, layers, left_out, wanted, session.arrays, has_reference
        )

    def wants(self, *quantities: str) -> bool:
        """Whether any of these quantities is measured."""
        return not self.wanted.isdisjoint(quantities)

    def fetches(self, *arrays: str) -> bool:
        """Whether any of these arrays is measured."""
        return not self.arrays.isdisjoint(arrays)

    @property
    def wants_activations(self) -> bool:
        """Whether φ must be found, in training passes or on the reference batch."""
        return self.fetches("activation", "reference_activation", "phi_delta", "arriving")

    @property
    def wants_calls(self) -> bool:
        """Whether anything of the layers' calls is measured; it counts where a delta comes back."""
        others = ("delta", "affine_delta", "input", "pre_activation")
        return self.wants_activations or self.fetches(*others)
