"""record: the two lines that record any training."""

from __future__ import annotations

import sys
from collections.abc import Collection
from typing import Any

import dp
from gradiometer.recording.adapters.dp import recorder_of as of_dp
from gradiometer.recording.live import OnVerdict, live_of
from gradiometer.recording.recorder import TrainingRecorder
from gradiometer.recording.session import Session


def record(
    model: Any,
    optimizer: Any = None,
    *,
    reference: tuple[Any, Any] | None = None,
    every: int = 1,
    histograms: bool = False,
    quantities: Collection[str] | None = None,
    max_overhead: float | None = None,
    layers: Collection[str] | None = None,
    stop_on: Collection[str] = (),
    on_verdict: OnVerdict | None = None,
) -> TrainingRecorder:
    """Record every training step of a model inside the block.

    Parameters
    ----------
    model : dp.Model, torch.nn.Module or keras.Model
        Any model of dp; any module of PyTorch that owns weights; a model that Keras trains, by
        `fit` or `train_on_batch`.
    optimizer : torch.optim.Optimizer, a list of them, or what trains a model of dp
        With PyTorch, whose steps are recorded; of several, one ends when each of them has made one.
        It may be left out: then each step of any optimizer that updates the model is one. It may
        also be an object that holds one and has a method `step` (Accelerate, Lookahead). With dp
        steps are seen at the model, whatever trains it; the optimizer is only checked to be the
        model's, and may be left out.
    reference : (x, y), optional
        The batch on which dead units and accuracy are measured; by default each step's own batch
        (and with PyTorch no accuracy). With PyTorch the model is in evaluation mode there, and `y`
        holds class numbers, or 0 and 1, or one-hot rows. `y` may be None.
    every : int
        Record every k-th step.
    histograms : bool
        Record log10 histograms of the gradients too.
    quantities : collection of str, optional
        Record only these, such as ["grad_mean_abs", "loss"]: names in `PER_LAYER` and `PER_STEP`.
    max_overhead : float, optional
        Leave out steps, so that recording takes at most this share of the time: 0.05 for 5 %.
    layers : collection of str, optional
        Record only these layers, by their names, such as ["h1", "out"]; all by default. `grad_norm`
        stays that of the whole net.
    stop_on : collection of str, optional
        Kinds of verdicts that stop the training, such as ["non-finite", "vanishing"]: then
        `TrainingStopped` is raised out of the step, the `with` block ends without it, and
        `recorder.stopped` is the verdict.
    on_verdict : callable, optional
        Called with the first verdict of each kind but "healthy". Without it, the first one becomes
        a `GradientWarning` if there is `stop_on`; without both nothing is diagnosed meanwhile.

    Returns
    -------
    TrainingRecorder
        A context manager, which gives itself. Its `trace` may be taken at any time, also after an
        exception ended the training. It can also be told by `before_step()` and `after_step()`
        where a step begins and ends, without a `with` block.

    Raises
    ------
    TypeError
        If the model is of another framework.
    RecordingError
        If the optimizer trains another model, or a layer could only be recorded wrongly, or the
        model owns no weights. In the training, if it cannot be seen where a step ends.
    ValueError
        If there is no such quantity, kind of verdict or layer. (A layer of dp that shows only in
        the first step is checked there.)

    Notes
    -----
    With `stop_on` or `on_verdict` the run is diagnosed after 10, 20, 40, 80 … recorded steps, and a
    verdict counts once two looks in a row say it ("stalled" from step 40 on). What is not finite
    counts as soon as it is seen. The training is the same, bit for bit, until it is stopped.

    With dp a step is a computation of the loss's gradient (`get_grad`, or `grad` of the loss) and
    the change of parameters after it; the library's own training loop tells its steps exactly.

    Examples
    --------
    >>> from dp import SGD, Net
    >>> from gradiometer import record
    >>> from gradiometer.data import load
    >>> data = load("iris2")
    >>> net = Net(4, 10, 3, "tanh", seed=0)
    >>> sgd = SGD(net, data.x, data.y, seed=0)
    >>> with record(net, sgd) as recorder:
    ...     _ = sgd.train(5, print_each=None)
    >>> recorder.trace.grad_w.shape
    (4, 5)
    """
    session = Session(
        every, histograms, quantities, max_overhead, only=layers, live=live_of(stop_on, on_verdict)
    )
    if isinstance(model, dp.Model):
        return of_dp(session, model, optimizer, reference)
    keras = sys.modules.get("keras")  # whoever has a model of it has imported it
    if keras is not None and isinstance(model, keras.Model) and _by_keras(keras, optimizer):
        from gradiometer.recording.adapters.keras import recorder_of as of_keras

        return of_keras(session, model, reference)
    torch = sys.modules.get("torch")  # whoever has a model of it has imported it
    if torch is not None and isinstance(model, torch.nn.Module):
        from gradiometer.recording.adapters.torch import recorder_of as of_torch

        return of_torch(session, model, optimizer, reference)
    raise TypeError(
        f"cannot record {type(model).__name__}; expected a dp.Model, a torch.nn.Module or a "
        "keras.Model (for functions of JAX see gradiometer.jax, for estimators of scikit-learn "
        "gradiometer.from_sklearn)"
    )


def _by_keras(keras: Any, optimizer: Any) -> bool:
    """Whether it is Keras that trains the model, and no optimizer of PyTorch."""
    return optimizer is None or isinstance(optimizer, keras.optimizers.Optimizer)
