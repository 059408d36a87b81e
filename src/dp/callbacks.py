"""Callbacks: what a training loop calls in every step, and what it passes to them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dp.node import Node
from dp.typing import Array

if TYPE_CHECKING:
    from dp.program.arrays import StepArrays


@dataclass(frozen=True)
class Step:
    """What callbacks are given in every training step.

    Attributes
    ----------
    number : int
        From 1.
    x, y : Node
        The batch (whatever `random_batch` gave).
    loss : Node
        On that batch, before the update; (1, 1), or (members, 1, 1).
    grad : dict
        Parameter name -> gradient.
    param : dict
        Parameter name -> live array: before the update in `before_update`, after it afterwards.
    """

    number: int
    x: Node
    y: Node
    loss: Node
    grad: dict[str, Array]
    param: dict[str, Array]


class Callback:
    """Something to do in every training step; override either method, or both."""

    def before_update(self, step: Step) -> None:
        """Called when the gradients are known and the parameters not yet changed."""

    def after_update(self, step: Step) -> None:
        """Called when the parameters have been changed."""


class ProgramCallback(Callback):
    """A callback that reads a compiled step's arrays instead of being given copies.

    What it reads is overwritten by the next step.

    Attributes
    ----------
    reads_loss : bool
        Whether it reads the loss, which need not be computed otherwise.
    only_reads : bool
        Whether it changes nothing that the model depends on. Otherwise a program asks after every
        step whether anything has changed.
    """

    reads_loss = True
    only_reads = False

    def keep(self, captured: Any) -> Iterable[Any]:  # noqa: ARG002
        """Say which of a captured model's values it will read, besides loss and gradients."""
        return ()

    def before_program_update(self, number: int, arrays: StepArrays) -> None:
        """Called when the gradients are known and the parameters not yet changed."""

    def after_program_update(self, number: int, arrays: StepArrays) -> None:
        """Called when the parameters have been changed."""

    def undone(self, number: int) -> None:
        """Called when the steps after `number` have turned out wrong and were undone."""
