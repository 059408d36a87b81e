"""The fast form: the values of a captured graph, computed into buffers that are made once.

What makes it fast is the number of calls (`steps.py`, `merging.py`) and what lies beside what
(`memory.py`); here it is written down and compiled.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dp import primitives as p
from dp.errors import ShapeError
from dp.node import Node
from dp.program.blocks import Wishes
from dp.program.capture import Captured, identifier
from dp.program.graph import Value
from dp.program.memory import Memory, buffer
from dp.program.notation import details
from dp.program.products import in_parts
from dp.program.steps import BITS, KEEP, Step, notation_of
from dp.validation import as_matrix

Array = NDArray[Any]
Named = tuple[Array, str]
RESERVED = {"run", "value"}


class Replay:
    """Buffers, and the function that fills them.

    Attributes
    ----------
    source : str
        The function's text.
    arrays : dict
        Value -> its buffer, for inputs, outputs and what was to be kept.
    parameters, gradients : arrays (n,)
        All of them in one vector each.
    state : array (1 + stores, n)
        The parameters, and an optimiser's stores.
    run : callable
        Computes everything from the inputs and parameters that lie in their buffers; with False,
        not what only the function's value needs.

    Parameters
    ----------
    captured : Captured
    keep : iterable of Values
        Which of them, besides output and gradients, are wanted in `arrays`.
    beside : Replay, optional
        Another one of the same parameters, whose vector this one reads instead of one of its own,
        if it lays them out alike (`shares_parameters`).
    by_rows : bool
        Hold every parameter row by row, as models do, although columns may be quicker to compute
        with: where others read them in every step.
    batches : bool
        The inputs are batches of rows. They lie beside each other in `tables`, and what is computed
        from them alone is not computed by `run`, but put there with them (`Table.fill`).
    stores : int
        Vectors like that of the parameters that an optimiser needs, see `state`.
    """

    def __init__(
        self,
        captured: Captured,
        keep: Iterable[Value] = (),
        beside: Replay | None = None,
        by_rows: bool = False,
        batches: bool = False,
        stores: int = 0,
    ) -> None:
        other = None if beside is None else beside.planner
        wishes = Wishes(list(keep), other, by_rows, batches, stores)
        self.planner: _Text = _Text(captured, wishes)
        planner = self.planner
        self.source = planner.source
        self.arrays = planner.arrays
        self.tables = planner.tables
        self.parameters, self.gradients = planner.flat, planner.flat_gradient
        self.state = planner.state
        self.run = planner.function
        self.shares_parameters = planner.shared
        self.views = planner.parameter_views(self.parameters)
        self.gradient_views = planner.parameter_views(self.gradients)


class _Text(Memory):
    """The statements, and names for the arrays and functions they use."""

    def __init__(self, captured: Captured, wishes: Wishes) -> None:
        super().__init__(captured, wishes)
        self.names: dict[str, Any] = {}
        self._by_place: dict[Any, str] = {}
        self.source = ""
        self.function = self._compiled()

    def _compiled(self) -> Any:
        lines = ["def run(value=True):"]
        if self.negates_parameters:
            self.names["negative"] = np.negative
            flat, negative = (
                self._named(self.flat, "parameters"),
                self._named(self.negative_flat, "negative_parameters"),
            )
            lines.append(f"    negative({flat}, {negative})")
        only_value = self._only_for_the_value()
        for step in self.steps:
            indent = "        " if step in only_value else "    "
            if step in only_value and lines[-1][:8] != indent:
                lines.append("    if value:")
            lines += [f"{indent}{line}" for line in self._lines(step)]
        gradients = self.parameter_views(self.flat_gradient)
        for name, value in self.captured.gradients.items():
            if self.arrays[value] is not gradients[name] and name not in self.by_block:
                view, given = self._named(gradients[name], f"d_{name}"), self._operand(value, False)
                self.names["copyto"] = np.copyto
                lines.append(f"    copyto({view}, {given})")
        if len(lines) == 1:
            lines.append("    pass")
        self.source = "\n".join([*lines, ""])
        exec(compile(self.source, "<fast form>", "exec"), self.names)
        return self.names["run"]

    def _only_for_the_value(self) -> set[Step]:
        """Steps that neither gradients nor what is kept needs: only the function's own value."""
        if not self.captured.gradients:
            return set()
        needed = {self.base(v) for v in (*self.captured.gradients.values(), *self.keep)}
        needed |= {block.gradient for block in self.blocks}
        found = set()
        for step in reversed(self.steps):
            if any(result in needed for _, result in step.lanes):
                needed |= {self.base(o) for operands, _ in step.lanes for o in operands}
            else:
                found.add(step)
        return found

    def _named(self, thing: Any, wanted: str) -> str:
        """A name for an array or function, the same for the same thing, and none of NumPy's."""
        clean = identifier(wanted)
        name, number = clean, 2
        while self.names.get(name, thing) is not thing or name in RESERVED or hasattr(np, name):
            name, number = f"{clean}_{number}", number + 1
        self.names[name] = thing
        return name

    def _called(self, value: Value) -> str:
        return value.name or ("of_batch" if value in self.prepared else "t")

    def _operand(self, value: Value, scalar: bool) -> str:
        if value.uniform is not None and scalar:
            return self._number(value.uniform, value.dtype)
        return self._array_name(self._view(value), self._called(value))

    def _array_name(self, array: Array, wanted: str) -> str:
        key = (
            array.__array_interface__["data"][0],
            array.shape,
            array.strides,
            array.dtype.str,
        )
        if key not in self._by_place:
            self._by_place[key] = self._named(array, wanted)
        return self._by_place[key]

    def _slab_view(self, values: list[Value], whole: bool) -> Array:
        slab = self.slab_of[values[0]]
        assert slab.array is not None
        at = slab.values.index(values[0])
        part = slab.array[at : at + len(values)]
        return part if whole else part[..., : slab.shape[-1]]

    def _lines(self, step: Step) -> list[str]:
        if step.kind == "affine":
            (((x, w), y),) = step.lanes
            flat = self.negative_flat if y in self.negated else self.flat
            inputs = (self.full[x], f"{self._called(x)}_1")
            block = (self.block_of[w].of(flat), f"{w.name}_block")
            return [self._product(inputs, block, (self._view(y), self._called(y)))]
        if step.kind is p.dot and len(step.lanes) == 1:
            (((a, b), y),) = step.lanes
            left, right, out = ((self._view(v), self._called(v)) for v in (a, b, y))
            return [self._product(left, right, out)]
        if step.kind == "gradient":
            return self._gradient_lines(step)
        results = [result for _, result in step.lanes]
        first, many = results[0], len(step.lanes) > 1
        whole = self.padded(step)
        operands = []
        for k, operand in enumerate(step.lanes[0][0]):
            column = [given[k] for given, _ in step.lanes]
            if many and operand in self.slab_of and any(v is not operand for v in column):
                view = self._slab_view(column, whole)
                operands.append(self._array_name(view, f"{self._called(operand)}_to"))
            else:
                operands.append(self._operand(operand, step.kind.elementwise))
        into = self._slab_view(results, whole) if many else self._view(first)
        name = self._array_name(into, self._called(first) + ("_to" if many else ""))
        return self._calls(step.kind, first, operands, name, step.lanes[0][0][0] in self.negated)

    def _gradient_lines(self, step: Step) -> list[str]:
        block = self.block_of[step.lanes[0][1]]
        if len(step.lanes) == 1:
            (((x, delta), _),) = step.lanes
            left, right, out = self.full[x], self._view(delta), block.of(self.flat_gradient)
        else:
            xs, deltas = ([ops[k] for ops, _ in step.lanes] for k in (0, 1))
            left = self.full[xs[0]] if xs[0] is xs[1] else self._slab_view(xs, True)
            right = (
                self._view(deltas[0]) if deltas[0] is deltas[1] else self._slab_view(deltas, False)
            )
            out = block.of(self.flat_gradient, len(step.lanes))
        inputs = (left.swapaxes(-1, -2), "inputs_T")
        return [self._product(inputs, (right, "deltas"), (out, "d_block"))]

    def _product(self, a: Named, b: Named, out: Named) -> str:
        """A matrix product; of two matrices by the method `dot`, which costs less to call."""
        arrays = (a[0], b[0], out[0])
        if all(array.ndim == 2 and array.dtype == out[0].dtype for array in arrays):
            if not out[0].flags.c_contiguous:  # (a b)ᵀ = bᵀ aᵀ
                a, b, out = map(_turned, (b, a, out))
            if out[0].flags.c_contiguous:
                parts = in_parts(a[0], b[0], out[0])
                if parts is not None:
                    b, out = (parts[0], f"{b[1]}_parts"), (parts[1], f"{out[1]}_parts")
                    return self._matmul(a, b, out)
                left = self._array_name(a[0], a[1])
                dot = self._named(self.names[left].dot, f"{left}_dot")
                return f"{dot}({self._array_name(*b)}, {self._array_name(*out)})"
            a, b, out = map(_turned, (b, a, out))
        return self._matmul(a, b, out)

    def _matmul(self, *named: Named) -> str:
        self.names["matmul"] = np.matmul
        return f"matmul({', '.join(self._array_name(*one) for one in named)})"

    def _calls(
        self, primitive: p.Primitive, value: Value, operands: list[str], y: str, negated: bool
    ) -> list[str]:
        notation = notation_of(primitive)
        masked = primitive is p.where and value.operands[0].dtype != bool
        if notation is None or not notation.calls or masked:
            kernel = functools.partial(primitive.kernel, **value.settings)
            name = self._named(kernel, f"{primitive.name}_{len(self.names)}")
            self.names["copyto"] = np.copyto
            if primitive.elementwise:  # the memory's own order is quicker to go through
                operands, y = [self._transposed(o) for o in operands], self._transposed(y)
            return [f"copyto({y}, {name}({', '.join(operands)}))"]
        if primitive is BITS:
            operands = [self._as_integers(operands[0])]
        elif primitive is KEEP:
            operands, y = [operands[0], self._as_integers(operands[1])], self._as_integers(y)
        constants = {
            "one": self._number(1, value.dtype),
            "zero": self._number(0, value.dtype),
            "bit": self._number(1, np.dtype(np.int8)),
        }
        if primitive is p.relu:
            constants["zeros"] = self._zeros(y)
        calls = notation.calls
        if negated:
            calls = (calls[1].replace("({y}", "({0}"), *calls[2:])
        if value in self.scratched:  # all but the last result into the operand's own buffer
            last = calls[-1].rpartition("{y}")
            steps = [call.replace("{y}", "{0}") for call in calls[:-1]]
            calls = (*steps, last[0].replace("{y}", "{0}") + last[1] + last[2])
        lines = []
        for call in calls:
            text = call.format(*operands, y=y, **constants, **details(value)).removeprefix("np.")
            function = text.split("(")[0]
            self.names[function.split(".")[0]] = getattr(np, function.split(".")[0])
            if text != f"copyto({y}, {y})":
                lines.append(text)
        return lines

    def _number(self, number: float, dtype: np.dtype[Any]) -> str:
        """The name of a constant; an array without axes costs less to call with than a float."""
        name = f"c{number:g}_{dtype}".replace("-", "m").replace(".", "p").replace("+", "")
        if self.names.setdefault(name, np.array(number, dtype)) != np.array(number, dtype):
            return self._named(np.array(number, dtype), name)
        return name

    def _zeros(self, like: str) -> str:
        """As many zeros as an array has entries: `maximum` with one zero is slow."""
        array = self.names[like]
        key = ("zeros", array.shape, array.dtype.str)
        if key not in self._by_place:
            self._by_place[key] = self._named(buffer(array.shape, array.dtype), f"zeros_{like}")
        return self._by_place[key]

    def _transposed(self, name: str) -> str:
        array = self.names[name]
        return self._array_name(array.swapaxes(-1, -2), f"{name}_T") if array.ndim else name

    def _as_integers(self, name: str) -> str:
        array = self.names[name]
        return self._array_name(array.view(f"i{array.dtype.itemsize}"), f"{name}_bits")


def _turned(named: Named) -> Named:
    """The transpose of a named matrix."""
    array, name = named
    return array.T, name.removesuffix("_T") if name.endswith("_T") else f"{name}_T"


def quietly(captured: Captured) -> contextlib.AbstractContextManager[Any]:
    """No warning where a sigmoid's exp overflows on its way to a right result."""
    if any(value.primitive is p.sigmoid for value in captured.values()):
        return np.errstate(over="ignore")
    return contextlib.nullcontext()


def fitting(value: Value, argument: Any) -> Array:
    """Give an argument as an array, if it has the captured shape and dtype."""
    array = argument.value if isinstance(argument, Node) else as_matrix(argument, value.dtype)
    check_shape(value.name, array.shape, value.shape)
    if array.dtype != value.dtype:
        raise TypeError(
            f"argument {value.name!r} was captured as {value.dtype}, got {array.dtype}; convert "
            "it, or capture anew"
        )
    return array


def check_shape(name: str, shape: tuple[int, ...], captured: tuple[int, ...]) -> None:
    """Raise ShapeError unless a shape is the captured one."""
    if shape != captured:
        raise ShapeError(
            f"{name!r} was captured with shape {captured}, got {shape}; a program takes one shape: "
            "capture anew for another"
        )
