"""The model on the reference batch, which the training does not notice."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from gradiometer.recording.adapters.torch.arrays import as_array
from gradiometer.recording.adapters.torch.calls import Call
from gradiometer.recording.adapters.torch.forward import Forward
from gradiometer.recording.adapters.torch.measuring import Measuring, measured_on_reference
from gradiometer.recording.adapters.torch.plan import Plan
from gradiometer.recording.adapters.torch.restore import restored
from gradiometer.recording.adapters.torch.step import Step
from gradiometer.recording.assembly import join
from gradiometer.recording.functions import Function
from gradiometer.recording.reference import LABELS, NoAccuracy, accuracy, pair
from gradiometer.states import MODEL

NOT_LOOKED_AT = "it was not seen on the reference batch"


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; training mode, buffers and random stream as before."""
    training = [module for module in model.modules() if module.training]
    try:
        # not model.eval(), by which some models merge weights
        for module in training:
            module.training = False
        with restored(model), torch.no_grad():
            yield
    finally:
        for module in training:
            module.training = True


class Reference:
    """A batch of samples and labels, checked as far as that can be done without the model.

    Parameters
    ----------
    given : (x, y)
        `x` is what the model takes, a tuple if these are several arguments; arrays of NumPy become
        tensors. The labels may be None.
    """

    def __init__(self, given: Any) -> None:
        x, y = pair(given, _what_is(given))
        inputs = x if isinstance(x, tuple) else (x,)
        # tensors stay the caller's, who may put other samples into them
        self._ours = [isinstance(part, np.ndarray) for part in inputs]
        self._inputs = [
            _tensor(part) if ours else part for part, ours in zip(inputs, self._ours, strict=True)
        ]
        self._labels = _labels(y)
        first = self._first
        if first is not None and not first.numel():
            raise ValueError(
                f"the reference batch has no samples: x has the shape {tuple(first.shape)}; at "
                "least one is needed"
            )

    @property
    def _first(self) -> torch.Tensor | None:
        return next((part for part in self._inputs if isinstance(part, torch.Tensor)), None)

    def _run(self, model: nn.Module) -> Any:
        """What the model gives for the samples; those made here take its dtype and device."""
        weight = next((p for p in model.parameters() if p.is_floating_point()), None)
        if weight is not None:
            self._inputs = [
                part.to(weight.device, weight.dtype if part.is_floating_point() else None)
                if ours
                else part
                for part, ours in zip(self._inputs, self._ours, strict=True)
            ]
        try:
            return model(*self._inputs)
        except Exception as error:
            shown = " and ".join(map(_shown, self._inputs))
            error.add_note(f"while the model was run on reference=…, x {shown}")
            raise

    def look(
        self,
        step: Step,
        plan: Plan,
        forward: Forward,
        measuring: Measuring,
    ) -> None:
        """Run the model on the batch, and keep in the step what is measured there."""
        last = Last()

        def note(call: Call, x: torch.Tensor, function: Function) -> None:
            last.note(x, function)
            call.activation = measured_on_reference(call, x)

        measuring.look = note
        try:
            with evaluating(plan.model), forward.reference() as calls:
                output = self._run(plan.model)
        finally:
            measuring.look = None
        if plan.wants("dead_fraction"):
            _take_dead_units(step, calls, plan)
        if self._labels is not None and plan.wants("accuracy"):
            try:
                step.accuracy = self._accuracy(output, last)
            except NoAccuracy as why:
                plan.session.miss(MODEL, ("accuracy",), str(why))

    def _accuracy(self, output: Any, last: Last) -> float:
        if not isinstance(output, torch.Tensor):
            raise NoAccuracy(
                f"the model's output is of type {type(output).__name__}; accuracy needs a tensor"
            )
        single = output.ndim == 1 or (output.ndim == 2 and output.shape[1] == 1)
        first = self._first
        return accuracy(
            np.asarray(as_array(output.cpu())),
            _numbers(self._labels),
            len(first) if first is not None and first.ndim else None,
            last.probabilities(output) if single else None,
        )


def _take_dead_units(step: Step, calls: Sequence[Call], plan: Plan) -> None:
    """Join what was measured of each layer's calls: a unit is dead if it is so in all."""
    for layer in plan.layers:
        mine = [call for call in calls if call.layer is layer]
        parts = [call.activation for call in mine if call.activation is not None]
        if parts and len(parts) == len(mine):
            step.reference[layer] = join(parts)
        elif layer.unit is not None:
            why = next((call.why_not for call in mine if call.why_not), NOT_LOOKED_AT)
            plan.session.miss(layer.name, ("dead_fraction",), why)


class Last:
    """What the layer that was called last gave: whether a model's output are probabilities."""

    def __init__(self) -> None:
        self._x: torch.Tensor | None = None
        self._function: Function | None = None

    def note(self, x: torch.Tensor, function: Function) -> None:
        """A layer gave x = function(h)."""
        self._x, self._function = x, function

    def probabilities(self, output: torch.Tensor) -> bool | None:
        """Whether these are: yes, no (logits), or None if it cannot be told."""
        x = self._x
        if (
            x is not None
            and self._function is not None
            and x.data_ptr() == output.data_ptr()  # the same, perhaps in another shape
            and x.numel() == output.numel()
        ):
            return self._function.name == "sigmoid"
        # what became of it after the layer was not seen
        return None if bool(((output >= 0) & (output <= 1)).all()) else False


# --- what was given -------------------------------------------------------------------------------


def _what_is(given: Any) -> str:
    """What was given instead of a pair, and how it would become one."""
    kind = type(given).__name__
    if isinstance(given, tuple | list):
        return f"a {kind} of {len(given)}; several arguments of the model are one x: ((a, b), y)"
    if isinstance(given, torch.utils.data.DataLoader):
        return f"{kind}; one of its batches is next(iter(loader))"
    if isinstance(given, torch.Tensor | np.ndarray):
        return f"{kind}; without labels it is (x, None)"
    return kind


def _shown(x: Any) -> str:
    if isinstance(x, torch.Tensor):
        return f"of shape {tuple(x.shape)}, {x.dtype}"
    return f"of type {type(x).__name__}"


def _tensor(array: np.ndarray[Any, Any]) -> torch.Tensor:
    """A copy: PyTorch warns of arrays that cannot be written, and takes no strides below 0."""
    try:
        return torch.from_numpy(np.array(array, array.dtype.newbyteorder("=")))
    except TypeError as error:
        raise TypeError(
            f"x of the reference batch is an array of {array.dtype}, of which PyTorch makes no "
            "tensor; accepted are numbers, such as float32 or int64"
        ) from error


def _labels(y: Any) -> Any:
    """Labels as a tensor; as they are if they are no numbers, which some models are trained on."""
    if y is None or isinstance(y, torch.Tensor):
        return y
    try:
        return _tensor(np.asarray(y)) if hasattr(y, "__array__") else torch.as_tensor(y)
    except (TypeError, ValueError, RuntimeError):
        return y


def _numbers(labels: Any) -> np.ndarray[Any, Any]:
    if not isinstance(labels, torch.Tensor) or labels.is_complex():
        kind = labels.dtype if hasattr(labels, "dtype") else type(labels).__name__
        raise NoAccuracy(f"the labels are of type {kind}; accuracy needs {LABELS}")
    return np.asarray(as_array(labels.detach().cpu()))
