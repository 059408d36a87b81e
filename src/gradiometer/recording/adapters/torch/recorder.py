"""Recording the training of a PyTorch model, whatever its training loop looks like."""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Collection
from typing import Any

import scipy.linalg.blas  # noqa: F401  (what sums are made by: loaded here, not in the first step)
from torch import nn

from gradiometer.recording.adapters.torch.optimizers import checked_optimizers
from gradiometer.recording.adapters.torch.overhead import Overhead
from gradiometer.recording.adapters.torch.plan import Plan
from gradiometer.recording.adapters.torch.reference import Reference
from gradiometer.recording.adapters.torch.training import Training
from gradiometer.recording.adapters.torch.unregistered import unregistered_layers
from gradiometer.recording.errors import RecordingError
from gradiometer.recording.recorder import TrainingRecorder
from gradiometer.recording.session import Session


class TorchRecorder(TrainingRecorder):
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
        If the model owns no weights, or hides them; or the optimizer updates none of them.
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
        session.timed = clock = Overhead()
        optimizers = checked_optimizers(optimizer)
        batch = None if reference is None else Reference(reference)
        plan = Plan.of(session, clock, model, batch is not None)
        training = Training(plan, optimizers, batch)
        super().__init__(session, training)
        for layers in unregistered_layers(plan.inner):
            session.miss(layers.name, session.of_layers, layers.why)
            if layers.trainable:
                warnings.warn(layers.why, UserWarning, stacklevel=3)
        for given in optimizers:
            if not training.updates.updates(given):
                raise RecordingError(
                    f"the {type(given).__name__} given updates none of the weights of this "
                    f"{type(plan.inner).__name__}; expected an optimizer made from its parameters()"
                )
        # PyTorch's global hooks know the training, and not this: when it is forgotten, they go
        weakref.finalize(self, training.detach, complete=False).atexit = False
