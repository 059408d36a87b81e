"""The update of all parameters at once, for rules that act on each number alone."""

from __future__ import annotations

import numpy as np

from dp.program.pipeline import Compiled
from dp.typing import Array
from dp.updates import Updates

Stores = list[dict[str, Array]]

# Numbers of a flat vector that are updated at once: so few that passing results stay in a cache,
# and so many that memory is read ahead.
CHUNK = 1 << 17


class FlatUpdate:
    """An optimiser's `_update` of the flat vectors, in pieces that fit a cache.

    All pieces are changed, or none, also if an interrupt comes.

    Parameters
    ----------
    optimizer : Updates
    fast : Compiled
        Whose parameters, gradients and stores are updated.
    named_stores : list of dicts
        What the optimiser has as its `grad_stores` between updates.
    """

    def __init__(self, optimizer: Updates, fast: Compiled, named_stores: Stores) -> None:
        self._optimizer, self._named_stores = optimizer, named_stores
        size = len(fast.parameters)
        pieces = {str(at): slice(at, at + CHUNK) for at in range(0, size, CHUNK)}
        self._pieces = {name: fast.parameters[piece] for name, piece in pieces.items()}
        self._gradients = {name: fast.gradients[piece] for name, piece in pieces.items()}
        self._stores = [
            {name: store[piece] for name, piece in pieces.items()} for store in fast.state[1:]
        ]
        # an update of a piece that is one operation happens as a whole or not at all
        self._spare: dict[str, tuple[Array, Array]] = {}
        if self._stores or len(pieces) > 1:
            spare = np.empty((len(fast.state), min(CHUNK, size)), fast.state.dtype)
            for name, piece in pieces.items():
                live = fast.state[:, piece]
                self._spare[name] = spare[:, : live.shape[1]], live

    def __call__(self, number: int) -> None:
        """Change the parameters by the gradients, in step `number`."""
        optimizer, pieces, gradients = self._optimizer, self._pieces, self._gradients
        if not self._spare:
            optimizer._update(pieces, gradients, "0", number)
            return
        optimizer.grad_stores = self._stores
        try:
            if len(pieces) > 1:
                self._update_pieces(number)
                return
            spare, live = self._spare["0"]
            spare[...] = live
            try:
                optimizer._update(pieces, gradients, "0", number)
            except BaseException:
                live[...] = spare
                raise
        finally:
            optimizer.grad_stores = self._named_stores

    def _update_pieces(self, number: int) -> None:
        """Update piece by piece; if an interrupt comes, complete the step, or undo it."""
        piece = begun = ""  # the piece in turn; the one that `spare` belongs to
        try:
            for piece in self._pieces:
                begun = ""
                spare, live = self._spare[piece]
                spare[...] = live
                begun = piece
                self._optimizer._update(self._pieces, self._gradients, piece, number)
        except BaseException:
            self._mend(piece, begun, number)
            raise

    def _mend(self, piece: str, begun: str, number: int) -> None:
        """Undo an update that an interrupt came into, or, of many pieces, complete it.

        `begun` is the piece that may be changed in part; its numbers from before are kept.
        """
        if begun:
            spare, live = self._spare[begun]
            live[...] = spare
        names = list(self._pieces)
        rest = names[names.index(begun or piece) :] if begun or piece else []
        if len(rest) < len(names):
            for name in rest:
                self._optimizer._update(self._pieces, self._gradients, name, number)

    def end(self) -> None:
        """Give the optimiser its stores by name, if an interrupt has left it those of pieces."""
        if self._optimizer.grad_stores is self._stores:
            self._optimizer.grad_stores = self._named_stores
