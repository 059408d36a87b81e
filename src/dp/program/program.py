"""Program: a captured function, to be read and to be called."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any, overload

import numpy as np

from dp.node import Node
from dp.program.calls import check_shape, fitting, quietly, refuse_if_changed
from dp.program.capture import Captured, captured
from dp.program.pipeline import Compiled, compile_graph
from dp.program.source import readable
from dp.program.step import TrainingStep, one_step
from dp.updates import Updates


@overload
def capture(function: Updates) -> TrainingStep: ...
@overload
def capture(function: Callable[..., Node], *arguments: Any, gradient: bool = True) -> Program: ...
def capture(
    function: Callable[..., Node] | Updates, *arguments: Any, gradient: bool = True
) -> Program | TrainingStep:
    """Capture a function of Nodes, and its gradients, or a whole training step, as a program.

    Parameters
    ----------
    function : callable or Optimizer
        Takes as many Nodes as there are arguments and gives a Node, such as `model.loss`; named
        Nodes that it uses are parameters. Of an optimiser, the step it makes on a batch: loss,
        gradients and update.
    *arguments : arrays
        An example: the program takes arguments of these shapes and dtypes.
    gradient : bool
        Capture the gradients of the parameters too.

    Returns
    -------
    Program or TrainingStep
        Both have a `source` to read and can be called.

    Raises
    ------
    CaptureError
        If the function decides by values, draws random numbers, or uses plain NumPy on a Node's
        value: a program could only repeat what it found once.

    Examples
    --------
    >>> import dp
    >>> net = dp.Net(2, 3, 1, "tanh", seed=0)
    >>> program = dp.capture(net.loss, [[1.0, 2.0], [3.0, 4.0]], [[0.0], [1.0]])
    >>> gradients, loss = program([[0.0, 1.0], [1.0, 0.0]], [[1.0], [1.0]])
    >>> "h1 = np.tanh(h1_pre)" in program.source
    True
    """
    if isinstance(function, Updates):
        return one_step(function)
    return Program(captured(function, arguments, gradient))


class Program:
    """A captured function; made by `capture`.

    Its `source` is a module of plain NumPy with one function, which takes the arguments and a dict
    of parameters, and returns what calling the program returns.
    """

    def __init__(self, captured: Captured) -> None:
        self.captured = captured

    @cached_property
    def source(self) -> str:
        """Plain NumPy, to be read; runs on its own."""
        return readable(self.captured)

    @cached_property
    def _compiled(self) -> Compiled:
        return compile_graph(self.captured, by_rows=True)

    @property
    def fast_source(self) -> str:
        """What a call runs: the same, into buffers made once."""
        return self._compiled.source

    def __repr__(self) -> str:
        shapes = ", ".join(f"{v.name} {'×'.join(map(str, v.shape))}" for v in self.captured.inputs)
        return f"<program {self.captured.function}({shapes})>"

    def __call__(self, *arguments: Any) -> Any:
        """Compute with the parameters' present values.

        Parameters
        ----------
        *arguments : arrays
            Of the captured shapes and dtypes.

        Returns
        -------
        (dict, array)
            Name -> gradient, and the value; or the value alone, if no gradient was captured. They
            are the caller's: the next call does not change them.

        Raises
        ------
        ShapeError
            If an argument, or a parameter by now, has another shape than the captured one.
        TypeError
            If an argument is not as many, or of another dtype.
        CaptureError
            If something else that the function depends on has changed since it was captured.
        """
        refuse_if_changed(self.captured)
        wanted = self.captured.inputs
        if len(arguments) != len(wanted):
            raise TypeError(f"{self!r} takes {len(wanted)} arguments, got {len(arguments)}")
        fast = self._compiled
        for value, argument in zip(wanted, arguments, strict=True):
            np.copyto(fast.arrays[value], fitting(value, argument))
        for name, node in self.captured.nodes.items():
            check_shape(name, node.shape, self.captured.parameters[name].shape)
            np.copyto(fast.views[name], node.value)
        with quietly(self.captured):
            fast.run()
        output = fast.arrays[self.captured.output]
        result = np.array(np.broadcast_to(output, self.captured.output.shape))
        if not self.captured.gradients:
            return result
        views = fast.gradient_views
        return {name: np.array(views[name], order="C") for name in self.captured.gradients}, result
