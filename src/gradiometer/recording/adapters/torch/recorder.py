"""Recording the training of a PyTorch model, whatever its training loop looks like."""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Collection
from types import TracebackType
from typing import Any

import scipy.linalg.blas  # noqa: F401  (what sums are made by: loaded here, not in the first step)
import torch
from torch import nn

from gradiometer.recording.adapters.torch.optimizers import checked_optimizers
from gradiometer.recording.adapters.torch.overhead import Overhead, costs
from gradiometer.recording.adapters.torch.reference import Reference
from gradiometer.recording.adapters.torch.training import Training
from gradiometer.recording.adapters.torch.unregistered import unregistered_layers
from gradiometer.recording.errors import RecordingError
from gradiometer.recording.recorder import Recorder
from gradiometer.recording.session import Session


class TorchRecorder(Recorder):
    """Records the training steps of a PyTorch model.

    Made by `gradiometer.record`. Used as a context manager, or attached and detached, it records
    the steps of an optimizer by itself; or else `before_step` and `after_step` say where a step
    begins and ends.

    Parameters
    ----------
    model : torch.nn.Module
    optimizer : torch.optim.Optimizer, or list of them, optional
        Each of its steps is a step; of several, one ends as soon as each of them has made one. By
        default those of any optimizer that updates the model. It may also be an object that holds
        one and has a method `step` (Accelerate, Lookahead).
    reference : (x, y), optional
        The batch on which dead units and accuracy are measured, the model being in evaluation mode.
        `y` holds class numbers, or 0 and 1, or one-hot rows; None if there is no accuracy.
    every, histograms, quantities, max_overhead
        See `gradiometer.record`.

    Raises
    ------
    RecordingError
        If the model owns no weights, or hides them.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Any = None,
        *,
        reference: tuple[Any, Any] | None = None,
        every: int = 1,
        histograms: bool = False,
        quantities: Collection[str] | None = None,
        max_overhead: float | None = None,
    ) -> None:
        # the first step takes what only a first step does, which says little of later ones
        session = Session(every, histograms, quantities, max_overhead, always=2)
        super().__init__(session)
        session.timed = clock = Overhead()
        optimizers = checked_optimizers(optimizer)
        batch = None if reference is None else Reference(reference)
        # it is known to PyTorch's global hooks, which must not keep this recorder alive
        self._training = Training(weakref.proxy(self.session), clock, model, optimizers, batch)
        self._tell_unregistered()
        self._check_optimizers(optimizers)
        self._attached = False
        weakref.finalize(self, self._training.detach).atexit = False

    def _tell_unregistered(self) -> None:
        """Tell of layers that PyTorch does not see."""
        for layers in unregistered_layers(self._training.inner):
            self.session.miss(layers.name, self.session.of_layers, layers.why)
            if layers.trainable:
                warnings.warn(layers.why, UserWarning, stacklevel=4)

    def _check_optimizers(self, optimizers: tuple[Any, ...]) -> None:
        for given in optimizers:
            if not self._training.updates.updates(given):
                raise RecordingError(
                    f"the {type(given).__name__} given updates none of the weights of this "
                    f"{type(self._training.inner).__name__}; expected an optimizer made from its "
                    "parameters()"
                )

    def __enter__(self) -> TorchRecorder:
        self.attach()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.detach()

    def attach(self) -> None:
        """Record the optimizer's steps from now on.

        Raises
        ------
        RuntimeError
            If it is attached already, or between `before_step` and `after_step`.
        """
        if self._attached or self._training.is_told:
            raise RuntimeError("this recorder is recording already; detach() it first")
        self._attached = True
        self._training.attach()
        self._turn_on()
        self._training.prepare()

    def detach(self) -> None:
        """Stop recording; no hook stays behind. It may be attached again, and goes on counting."""
        self._training.detach()
        self._attached = False
        self.session.turn(on=False)

    def _turn_on(self) -> None:
        costs()  # measured now, so that it is no part of the training
        self.session.turn(on=True)

    def before_step(self) -> None:
        """Say that a step begins: before its first forward pass.

        Raises
        ------
        RuntimeError
            If the recorder is attached, so that it sees the steps by itself.
        """
        training = self._training
        if self._attached:
            raise RuntimeError(
                "this recorder sees the optimizer's steps by itself; use before_step and "
                "after_step without a with block and without attach()"
            )
        if training.is_told:  # the step before was not finished
            training.rest()
        elif not self.session.done:
            self._turn_on()
        training.is_told = True
        training.prepare()
        if training.step is not None:
            training.take_before(training.step)

    def after_step(self, loss: torch.Tensor | float | None = None) -> None:
        """Say that it has ended: after the optimizer's step.

        Parameters
        ----------
        loss : number, optional
            The loss to record; by default what was passed to `backward`.

        Raises
        ------
        RuntimeError
            Without `before_step`.
        """
        training = self._training
        if not training.is_told:
            raise RuntimeError("after_step() without before_step()")
        try:
            training.finish(loss)
        finally:
            training.rest()
            training.is_told = False
