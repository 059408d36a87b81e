"""A look at the reference batch, which the training does not notice."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from gradiometer.recording import quantities as q
from gradiometer.recording.adapters.torch.arrays import as_array
from gradiometer.recording.adapters.torch.calls import Call
from gradiometer.recording.adapters.torch.forward import Forward
from gradiometer.recording.adapters.torch.functions import Function
from gradiometer.recording.adapters.torch.layers import Layer
from gradiometer.recording.adapters.torch.measuring import Measuring, looked_at
from gradiometer.recording.adapters.torch.restore import restored
from gradiometer.recording.adapters.torch.step import Step, join
from gradiometer.recording.quantities import Array
from gradiometer.recording.recorder import Recorder
from gradiometer.states import MODEL


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
        if not isinstance(given, tuple | list) or len(given) != 2:
            raise TypeError(
                f"reference must be a pair (x, y) of samples and labels, got {_what_is(given)}"
            )
        x, y = given
        inputs = x if isinstance(x, tuple) else (x,)
        # tensors stay the caller's, who may put other samples into them
        self._ours = [isinstance(part, np.ndarray) for part in inputs]
        self._inputs = [
            _tensor(part) if ours else part for part, ours in zip(inputs, self._ours, strict=True)
        ]
        self.labels = _labels(y)
        first = self._first
        if first is not None and not first.numel():
            raise ValueError(
                f"the reference batch has no samples: x has the shape {tuple(first.shape)}; at "
                "least one is needed"
            )

    @property
    def samples(self) -> int | None:
        """Length of the first tensor: usually the number of samples."""
        return len(self._first) if self._first is not None and self._first.ndim else None

    @property
    def _first(self) -> torch.Tensor | None:
        return next((part for part in self._inputs if isinstance(part, torch.Tensor)), None)

    def run(self, model: nn.Module) -> Any:
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
        model: nn.Module,
        layers: Sequence[Layer],
        forward: Forward,
        measuring: Measuring,
        record: Recorder,
    ) -> None:
        """Run the model on the batch, and keep in the step what is measured there."""
        last = Last()

        def note(call: Call, x: torch.Tensor, function: Function) -> None:
            last.note(x, function)
            call.activation = looked_at(call, x)

        measuring.look = note
        try:
            with evaluating(model), forward.reference() as calls:
                output = self.run(model)
        finally:
            measuring.look = None
        if record.needs("dead_fraction"):
            _take_dead_units(step, layers, calls, record)
        if self.labels is not None and record.needs("accuracy"):
            step.accuracy = accuracy(
                output, self, last, lambda why: record.miss(MODEL, ("accuracy",), why)
            )


def _take_dead_units(
    step: Step, layers: Sequence[Layer], calls: Sequence[Call], record: Recorder
) -> None:
    """Join what was measured of each layer's calls: a unit is dead if it is so in all."""
    for layer in layers:
        mine = [call for call in calls if call.layer is layer]
        parts = [call.activation for call in mine if call.activation is not None]
        if parts and len(parts) == len(mine):
            step.reference[layer] = join(parts)
        elif layer.unit is not None:
            why = next((call.why_not for call in mine if call.why_not), NOT_LOOKED_AT)
            record.miss(layer.name, ("dead_fraction",), why)


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


NOT_LOOKED_AT = "it was not seen on the reference batch"
NOT_TOLD = "whether the model's output are logits or probabilities cannot be told"
LABELS = "class numbers, 0 and 1, or one-hot rows"


class NoAccuracy(Exception):  # noqa: N818
    """Why the output or the labels name no classes."""


def accuracy(output: Any, reference: Reference, last: Last, miss: Callable[[str], None]) -> Array:
    """Share of samples whose class is right; NaN, and `miss(why)`, where there are no classes.

    Raises
    ------
    ValueError
        If there are not as many labels as samples, or a label is no class of the model.
    """
    try:
        return _accuracy(output, reference, last)
    except NoAccuracy as why:
        miss(str(why))
        return math.nan


def _accuracy(output: Any, reference: Reference, last: Last) -> Array:
    if not isinstance(output, torch.Tensor):
        raise NoAccuracy(
            f"the model's output is of type {type(output).__name__}; accuracy needs a tensor"
        )
    if output.ndim not in (1, 2) or not output.numel():
        raise NoAccuracy(
            f"the model's output has the shape {tuple(output.shape)}; accuracy needs (samples,) "
            "or (samples, classes)"
        )
    p = np.asarray(as_array(output.cpu()))
    p = p[:, None] if p.ndim == 1 else p
    y = _numbers(reference.labels)
    _check_number(len(p), len(y), reference.samples)
    classes = p.shape[1]
    if classes == 1 and y.size == len(p):
        y = y.reshape(-1)
        strange = y[~np.isin(y, (0, 1))]
        if strange.size:
            raise NoAccuracy(
                f"the model has one output, and the label {strange[0]:g} is neither 0 nor 1"
            )
        probabilities = last.probabilities(output)
        if probabilities is None:
            raise NoAccuracy(NOT_TOLD)
        if not probabilities:  # logits: class 1 above 0
            p = np.where(np.isfinite(p), p > 0, p)
        return q.accuracy(p, y)
    if y.size == len(p):
        y = y.reshape(-1)
        strange = y[~((y == np.floor(y)) & (y >= 0) & (y < classes))]
        if strange.size:
            if reference.labels.is_floating_point():  # values perhaps, of a regression
                raise NoAccuracy(
                    f"the label {strange[0]:g} is no class number; accuracy needs 0 to "
                    f"{classes - 1}, since the model has {classes} outputs"
                )
            raise ValueError(
                f"the reference batch has the label {int(strange[0])}, but the model has {classes} "
                f"outputs; labels must be class numbers from 0 to {classes - 1}"
            )
        return np.mean((p.argmax(axis=-1) == y) & np.isfinite(p).all(axis=-1))
    if y.shape != p.shape:
        raise NoAccuracy(
            f"the labels have the shape {y.shape}, the model's output {tuple(output.shape)}; "
            f"accuracy needs {LABELS}"
        )
    # smoothed or mixed rows have a largest entry too; sums of half precision are not exact
    if not ((y >= 0).all() and np.allclose(y.sum(axis=1), 1, atol=0.01)):
        raise NoAccuracy("the rows of the labels do not add up to 1, so that they name no class")
    return q.accuracy(p, y)


def _numbers(labels: Any) -> np.ndarray[Any, Any]:
    if not isinstance(labels, torch.Tensor) or labels.is_complex():
        kind = labels.dtype if hasattr(labels, "dtype") else type(labels).__name__
        raise NoAccuracy(f"the labels are of type {kind}; accuracy needs {LABELS}")
    labels = labels.detach().cpu()
    labels = labels.to_dense() if labels.is_sparse else labels
    y = labels.double().numpy()  # exact for class numbers
    return y if y.ndim else y.reshape(1)


def _check_number(rows: int, labels: int, samples: int | None) -> None:
    """Whether there are as many labels as rows of the output.

    These may be others than the length of x, whose first axis may be time.
    """
    if labels == rows:
        return
    if labels == samples:
        raise NoAccuracy(
            f"the model's output has {rows} rows for {samples} samples; accuracy needs one for each"
        )
    if samples in (None, rows):
        what = f"the reference batch has {rows} samples, but"
    else:
        what = f"the model's output on the reference batch has {rows} rows, but there are"
    raise ValueError(f"{what} {labels} labels; they must be as many")
