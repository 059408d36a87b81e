"""Where a compiled step keeps its numbers: what a callback may read of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from dp.program.capture import Captured
from dp.program.graph import Value
from dp.program.pipeline import Compiled, compile_graph
from dp.typing import Array


@dataclass(frozen=True, eq=False)
class StepArrays:
    """The arrays of a compiled training step, handed to a `ProgramCallback`.

    They are views of the step's own memory, which the next step overwrites, and are to be read
    only. A step on batches of another shape has others.

    Attributes
    ----------
    captured : Captured
        What is computed. `captured.layers` tells which of its values are a layer's input,
        pre-activation, activation and delta.
    values : mapping
        Value -> its array: of the batch, the loss, and what the callback asked for in `keep`.
    x, y : array (…, batch, features), (…, batch, outputs)
    loss : array (…, 1, 1)
        Of the batch, before the update.
    weights, gradients : mapping
        Parameter name -> view of `flat_weights` or `flat_gradients`, in the parameter's shape.
    flat_weights, flat_gradients : arrays (n,)
        All parameters, and all their gradients. Those of one shape lie at equal distances.
    edited : bool
        Whether callbacks are handed copies of the gradients by name, and may change them.
    written_back : bool
        Whether what they change is copied into `gradients` before the update. Otherwise the
        optimiser updates parameter by parameter from those copies.
    compiled
        The step's program, for `beside`.
    """

    captured: Captured
    values: Mapping[Value, Array]
    x: Array
    y: Array
    loss: Array
    weights: Mapping[str, Array]
    gradients: Mapping[str, Array]
    flat_weights: Array
    flat_gradients: Array
    edited: bool
    written_back: bool
    compiled: Compiled = field(repr=False)

    def beside(self, captured: Captured, keep: Iterable[Value]) -> Compiled:
        """Another function of the same parameters, such as the forward pass on other data.

        It reads the parameters where the step has them, if both lay them out alike
        (`shares_parameters`); else copy `weights` into its `views` before each call of its `run`.
        """
        return compile_graph(captured, keep, beside=self.compiled)


def arrays_of(captured: Captured, fast: Compiled, edited: bool, written_back: bool) -> StepArrays:
    """Gather the arrays of a training step; the flags are those of `StepArrays`."""
    x, y = captured.inputs
    return StepArrays(
        captured,
        fast.arrays,
        fast.arrays[x],
        fast.arrays[y],
        fast.arrays[captured.output],
        fast.views,
        fast.gradient_views,
        fast.parameters,
        fast.gradients,
        edited,
        written_back,
        fast,
    )
