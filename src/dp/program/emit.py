"""Pass: the operations written down as NumPy calls into buffers, and compiled.

What makes it fast is the number of calls (`lower.py`, `merge.py`) and what lies beside what
(`layout.py`, `buffers.py`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dp import primitives as p
from dp.program.buffers import Buffers
from dp.program.capture import identifier
from dp.program.graph import Value
from dp.program.layout import Layout, base
from dp.program.lower import BITS, KEEP, Lowered, Operation, notation_of, parts
from dp.program.notation import details
from dp.program.products import in_parts
from dp.typing import Array

Named = tuple[Array, str]
RESERVED = {"run", "value"}


@dataclass(frozen=True, eq=False)
class Emitted:
    """The text of the fast form, and the function `run(value=True)` that it defines."""

    source: str
    run: Callable[..., None]


def emit(
    layout: Layout, lowered: Lowered, operations: Sequence[Operation], buffers: Buffers
) -> Emitted:
    """Write a function that computes everything from inputs and parameters into the buffers.

    With `value` False it leaves out what only the captured function's value needs.
    """
    text = _Text(layout, lowered, buffers)
    source = "\n".join([*text.lines(operations), ""])
    exec(compile(source, "<fast form>", "exec"), text.names)
    return Emitted(source, text.names["run"])


def _only_for_the_value(layout: Layout, operations: Sequence[Operation]) -> set[Operation]:
    """What neither gradients nor what is kept needs: only the function's own value."""
    if not layout.captured.gradients:
        return set()
    needed = {base(v) for v in (*layout.captured.gradients.values(), *layout.kept)}
    needed |= {block.gradient for block in layout.blocks}
    found = set()
    for operation in reversed(operations):
        if not needed.isdisjoint(parts(operation.result)):
            needed.update(operation.needed)
        else:
            found.add(operation)
    return found


class _Text:
    """The statements, and names for the arrays and functions they use."""

    def __init__(self, layout: Layout, lowered: Lowered, buffers: Buffers) -> None:
        self.layout, self.lowered, self.buffers = layout, lowered, buffers
        self.names: dict[str, Any] = {}
        self._by_place: dict[Any, str] = {}
        self._prepared = frozenset(lowered.prepared)

    def lines(self, operations: Sequence[Operation]) -> list[str]:
        """The whole function."""
        layout, buffers = self.layout, self.buffers
        lines = ["def run(value=True):"]
        if self.lowered.negated:
            self.names["negative"] = np.negative
            flat = self._named(buffers.flat, "parameters")
            negative = self._named(buffers.negative_flat, "negative_parameters")
            lines.append(f"    negative({flat}, {negative})")
        only_value = _only_for_the_value(layout, operations)
        for operation in operations:
            indent = "        " if operation in only_value else "    "
            if operation in only_value and lines[-1][:8] != indent:
                lines.append("    if value:")
            lines += [f"{indent}{line}" for line in self._operation(operation)]
        gradients = layout.views(buffers.flat_gradient)
        for name, value in layout.captured.gradients.items():
            if buffers.arrays[value] is not gradients[name] and name not in layout.by_block:
                view, given = self._named(gradients[name], f"d_{name}"), self._operand(value, False)
                self.names["copyto"] = np.copyto
                lines.append(f"    copyto({view}, {given})")
        return lines if len(lines) > 1 else [*lines, "    pass"]

    # --- names ------------------------------------------------------------------------------------

    def _named(self, thing: Any, wanted: str) -> str:
        """A name for an array or function, the same for the same thing, and none of NumPy's."""
        clean = identifier(wanted)
        name, number = clean, 2
        while self.names.get(name, thing) is not thing or name in RESERVED or hasattr(np, name):
            name, number = f"{clean}_{number}", number + 1
        self.names[name] = thing
        return name

    def _called(self, value: Value) -> str:
        return value.name or ("of_batch" if value in self._prepared else "t")

    def _array(self, value: Value, whole: bool = False) -> Named:
        return (self.buffers.full if whole else self.buffers.arrays)[value], self._called(value)

    def _operand(self, value: Value, scalar: bool, whole: bool = False) -> str:
        if value.uniform is not None and scalar:
            return self._number(value.uniform, value.dtype)
        return self._array_name(*self._array(value, whole))

    def _array_name(self, array: Array, wanted: str) -> str:
        address = array.__array_interface__["data"][0]
        key = (address, array.shape, array.strides, array.dtype.str)
        if key not in self._by_place:
            self._by_place[key] = self._named(array, wanted)
        return self._by_place[key]

    def _number(self, number: float, dtype: np.dtype[Any]) -> str:
        """The name of a constant; an array without axes costs less to call with than a float."""
        name = f"c{number:g}_{dtype}".replace("-", "m").replace(".", "p").replace("+", "")
        if self.names.setdefault(name, np.array(number, dtype)) != np.array(number, dtype):
            return self._named(np.array(number, dtype), name)
        return name

    def _transposed(self, name: str) -> str:
        array = self.names[name]
        return self._array_name(array.swapaxes(-1, -2), f"{name}_T") if array.ndim else name

    def _as_integers(self, name: str) -> str:
        array = self.names[name]
        return self._array_name(array.view(f"i{array.dtype.itemsize}"), f"{name}_bits")

    # --- operations -------------------------------------------------------------------------------

    def _operation(self, operation: Operation) -> list[str]:
        kind, operands, y = operation.kind, operation.operands, operation.result
        if kind == "affine":
            x, w = operands
            flat = self.buffers.negative_flat if self._is_negated(y) else self.buffers.flat
            inputs = (self.buffers.full[x], f"{self._called(x)}_1")
            block = (self.layout.block_of[w].of(flat), f"{w.name}_block")
            return [self._product(inputs, block, self._array(y))]
        if kind == "gradient":
            x, delta = operands
            inputs = (self.buffers.full[x].swapaxes(-1, -2), "inputs_T")
            deltas = (self.buffers.arrays[delta], "deltas")
            return [self._product(inputs, deltas, (self.buffers.arrays[y], "d_block"))]
        if kind is p.dot:
            a, b = operands
            return [self._product(self._array(a), self._array(b), self._array(y))]
        whole = operation in self.buffers.whole
        names = [self._operand(operand, kind.elementwise, whole) for operand in operands]
        into = self._array_name(*self._array(y, whole))
        return self._calls(kind, parts(y)[0], names, into)

    def _is_negated(self, value: Value) -> bool:
        return value in self.lowered.negated

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
                left = self._array_name(*a)
                dot = self._named(self.names[left].dot, f"{left}_dot")
                return f"{dot}({self._array_name(*b)}, {self._array_name(*out)})"
            a, b, out = map(_turned, (b, a, out))
        return self._matmul(a, b, out)

    def _matmul(self, *named: Named) -> str:
        self.names["matmul"] = np.matmul
        return f"matmul({', '.join(self._array_name(*one) for one in named)})"

    def _calls(
        self, primitive: p.Primitive, value: Value, operands: list[str], y: str
    ) -> list[str]:
        """The calls of an operation that is no product; `value` is its first result."""
        notation = notation_of(primitive)
        masked = primitive is p.where and value.operands[0].dtype != bool
        if notation is None or not notation.calls or masked:
            return [self._kernel(primitive, value, operands, y)]
        if primitive is BITS:
            operands = [self._as_integers(operands[0])]
        elif primitive is KEEP:
            operands, y = [operands[0], self._as_integers(operands[1])], self._as_integers(y)
        calls = notation.calls
        if primitive is p.sigmoid and self._is_negated(value.operands[0]):
            calls = (calls[1].replace("({y}", "({0}"), *calls[2:])
        constants = {
            "one": self._number(1, value.dtype),
            "zero": self._number(0, value.dtype),
            "bit": self._number(1, np.dtype(np.int8)),
        }
        lines = []
        for call in calls:
            text = call.format(*operands, y=y, **constants, **details(value)).removeprefix("np.")
            function = text.split("(")[0].split(".")[0]
            self.names[function] = getattr(np, function)
            if text != f"copyto({y}, {y})":
                lines.append(text)
        return lines

    def _kernel(self, primitive: p.Primitive, value: Value, operands: list[str], y: str) -> str:
        """A call of the kernel, where no calls into a buffer are known."""
        kernel = functools.partial(primitive.kernel, **value.settings)
        name = self._named(kernel, f"{primitive.name}_{len(self.names)}")
        self.names["copyto"] = np.copyto
        if primitive.elementwise:  # the memory's own order is quicker to go through
            operands, y = [self._transposed(o) for o in operands], self._transposed(y)
        return f"copyto({y}, {name}({', '.join(operands)}))"


def _turned(named: Named) -> Named:
    """The transpose of a named matrix."""
    array, name = named
    return array.T, name.removesuffix("_T") if name.endswith("_T") else f"{name}_T"
