"""Recording the training of a PyTorch model, whatever its training loop looks like."""

from __future__ import annotations

import warnings
import weakref
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


def recorder_of(
    session: Session, model: nn.Module, optimizer: Any, reference: Any
) -> TrainingRecorder:
    """Make a recorder of the training steps of a PyTorch model; see `gradiometer.record`.

    Raises
    ------
    RecordingError
        If the model owns no weights, or hides them; or the optimizer updates none of them.
    """
    # the first step takes what only a first step does, which says little of later ones
    session.schedule.always = 2
    session.timed = clock = Overhead()
    optimizers = checked_optimizers(optimizer)
    batch = None if reference is None else Reference(reference)
    plan = Plan.of(session, clock, model, batch is not None)
    training = Training(plan, optimizers, batch)
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
    recorder = TrainingRecorder(session, training)
    # PyTorch's global hooks know the training, and not this: when it is forgotten, they go
    weakref.finalize(recorder, training.detach, complete=False).atexit = False
    return recorder
