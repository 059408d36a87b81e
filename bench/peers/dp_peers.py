"""dp: define-by-run, and compiled where the installed dp can."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

import dp
import gradiometer
from bench.peers import Skipped
from bench.training import Steps, Sweep, Training

Array = NDArray[Any]


def _ready(work: Training, **options: Any) -> tuple[dp.Net, dp.SGD]:
    features, *hidden, outputs = work.widths
    seed = work.seed if isinstance(work.seed, int) else list(work.seed)
    net = dp.Net(
        features,
        hidden[0],
        len(hidden),
        work.activation,
        n_outputs=outputs,
        seed=seed,
        dtype=work.dtype,
    )
    pairs = zip(work.weights, work.biases, strict=True)
    values = (value for pair in pairs for value in pair)
    net.set_param(dict(zip(net.get_param(), values, strict=True)))
    sgd = dp.SGD(net, work.x, work.y, {"alpha": work.alpha}, work.batch, seed=seed, **options)
    return net, sgd


def _train(work: Training, **options: Any) -> Array:
    """Mean |dL/dW|, (…, steps, layers), collected by a callback."""
    recorded: list[Array] = []

    def collect(step: dp.Step) -> None:
        # all layers in a row: fewer calls
        flat = np.concatenate([step.grad[name].reshape(lead) for name in names], axis=-1)
        recorded.append(np.add.reduceat(np.abs(flat, flat), starts, axis=-1) / sizes)

    net, sgd = _ready(work, callbacks=[collect], **options)
    names = [f"{layer}_weight" for layer in net.layers]
    lead = (*work.weights[0].shape[:-2], -1)
    sizes = np.array([weight.shape[-2] * weight.shape[-1] for weight in work.weights])
    starts = np.cumsum(sizes) - sizes
    sgd.train(work.steps, print_each=None)
    return np.stack(recorded, axis=-2)


def lesson(work: Training) -> Callable[[], Array]:
    """The lesson's net, a callback recording."""
    return lambda: _train(work)


def steps(work: Training, **options: Any) -> Steps:
    """Training that goes on and on."""
    net, sgd = _ready(work, **options)
    return Steps(
        lambda count: sgd.train(count, print_each=None) and None,
        lambda: list(net.get_param().values()),
    )


def sweep(work: Sweep) -> Callable[[], dict[tuple[str, int], Array]]:
    """Every activation function and depth, all seeds in one ensemble."""
    return lambda: {cell: _train(training) for cell, training in work.trainings.items()}


def chain(size: int, dtype: str) -> Callable[[], Array]:
    """A chain of operations on 4 × 4, forward and backward."""

    def run() -> Array:
        y = x = dp.Node(np.full((4, 4), 0.5, dtype))
        for _ in range(size // 2):
            y = y * 0.999 + 0.001
        return dp.gradients(y.sum(), [x])[0]

    return run


# --- compiled -------------------------------------------------------------------------------------


def _check_compiles(recording: bool = True) -> None:
    if "compile" not in inspect.signature(dp.SGD.__init__).parameters:
        raise Skipped("this dp's optimisers take no `compile`")
    if recording and "quantities" not in inspect.signature(gradiometer.record).parameters:
        raise Skipped("this gradiometer's `record` takes no `quantities`")


def _train_compiled(work: Training) -> Array:
    net, sgd = _ready(work, compile=True)
    with gradiometer.record(net, sgd, quantities=("grad_mean_abs",)) as recorder:
        sgd.train(work.steps, print_each=None)
    found = recorder["grad_mean_abs"]
    return np.moveaxis(found, (0, 1), (-2, -1))


def compiled_lesson(work: Training) -> Callable[[], Array]:
    """The lesson's net, compiled; a new net, a new optimiser and a new recorder in every run."""
    _check_compiles()
    return lambda: _train_compiled(work)


def compiled_steps(work: Training) -> Steps:
    """Training that goes on and on, compiled."""
    _check_compiles(recording=False)
    return steps(work, compile=True)


def recorded_steps(work: Training) -> Steps:
    """The same, mean |dL/dW| of every layer recorded in every step."""
    _check_compiles()
    net, sgd = _ready(work, compile=True)

    def run(count: int) -> None:
        with gradiometer.record(net, sgd, quantities=("grad_mean_abs",)):
            sgd.train(count, print_each=None)

    return Steps(run, lambda: list(net.get_param().values()))


def compiled_sweep(work: Sweep) -> Callable[[], dict[tuple[str, int], Array]]:
    """Every activation function and depth, all seeds in one ensemble, compiled."""
    _check_compiles()
    return lambda: {cell: _train_compiled(training) for cell, training in work.trainings.items()}
