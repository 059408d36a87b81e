"""Pass: the operations written down as NumPy calls into buffers, and compiled.

What makes it fast is the number of calls (`lower.py`, `merge.py`) and what lies beside what
(`layout.py`, `buffers.py`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from dp import primitives as p
from dp.program.buffers import Buffers
from dp.program.capture import identifier
from dp.program.graph import Value
from dp.program.layout import Layout, base
from dp.program.lower import BITS, KEEP, Lowered, Operation, notation_of
from dp.program.merge import Merged
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


def emit(layout: Layout, lowered: Lowered, merged: Merged, buffers: Buffers) -> Emitted:
    """Write a function that computes everything from inputs and parameters into the buffers.

    With `value` False it leaves out what only the captured function's value needs.
    """
    text = _Text(layout, lowered, merged, buffers)
    source = "\n".join([*text.lines(), ""])
    exec(compile(source, "<fast form>", "exec"), text.names)
    return Emitted(source, text.names["run"])


def _only_for_the_value(layout: Layout, merged: Merged) -> set[Operation]:
    """What neither gradients nor what is kept needs: only the function's own value."""
    if not layout.captured.gradients:
        return set()
    needed = {base(v) for v in (*layout.captured.gradients.values(), *layout.kept)}
    needed |= {block.gradient for block in layout.blocks}
    found = set()
    for operation in reversed(merged.operations):
        if any(result in needed for _, result in operation.lanes):
            needed |= {base(o) for operands, _ in operation.lanes for o in operands}
        else:
            found.add(operation)
    return found


class _Text:
    """The statements, and names for the arrays and functions they use."""

    def __init__(self, layout: Layout, lowered: Lowered, merged: Merged, buffers: Buffers) -> None:
        self.layout, self.lowered, self.merged, self.buffers = layout, lowered, merged, buffers
        self.names: dict[str, Any] = {}
        self._by_place: dict[Any, str] = {}
        self._prepared = frozenset(lowered.prepared)

    def lines(self) -> list[str]:
        """The whole function."""
        layout, buffers = self.layout, self.buffers
        lines = ["def run(value=True):"]
        if self.lowered.negated:
            self.names["negative"] = np.negative
            flat = self._named(buffers.flat, "parameters")
            negative = self._named(buffers.negative_flat, "negative_parameters")
            lines.append(f"    negative({flat}, {negative})")
        only_value = _only_for_the_value(layout, self.merged)
        for operation in self.merged.operations:
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

    def _array(self, value: Value) -> Named:
        return self.buffers.arrays[value], self._called(value)

    def _operand(self, value: Value, scalar: bool) -> str:
        if value.uniform is not None and scalar:
            return self._number(value.uniform, value.dtype)
        return self._array_name(*self._array(value))

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

    def _slab(self, values: list[Value], whole: bool) -> Array:
        """Those of a slab, (values, …); `whole` with the column of ones."""
        slab = self.merged.slab_of[values[0]]
        at = slab.index(values[0])
        part = self.buffers.slabs[slab][at : at + len(values)]
        return part if whole else part[..., : values[0].shape[-1]]

    # --- operations -------------------------------------------------------------------------------

    def _operation(self, operation: Operation) -> list[str]:
        if operation.kind == "affine":
            (((x, w), y),) = operation.lanes
            flat = self.buffers.negative_flat if self._is_negated(y) else self.buffers.flat
            inputs = (self.buffers.full[x], f"{self._called(x)}_1")
            block = (self.layout.block_of[w].of(flat), f"{w.name}_block")
            return [self._product(inputs, block, self._array(y))]
        if operation.kind is p.dot and len(operation.lanes) == 1:
            (((a, b), y),) = operation.lanes
            return [self._product(self._array(a), self._array(b), self._array(y))]
        if operation.kind == "gradient":
            return [self._gradient(operation)]
        results = [result for _, result in operation.lanes]
        first, many = results[0], len(operation.lanes) > 1
        whole = operation in self.buffers.whole
        operands = []
        for k, operand in enumerate(operation.lanes[0][0]):
            column = [given[k] for given, _ in operation.lanes]
            if operand in self.merged.slab_of and any(v is not operand for v in column):
                name = f"{self._called(operand)}_to"
                operands.append(self._array_name(self._slab(column, whole), name))
            else:
                operands.append(self._operand(operand, operation.kind.elementwise))
        into = self._slab(results, whole) if many else self.buffers.arrays[first]
        name = self._array_name(into, self._called(first) + ("_to" if many else ""))
        return self._calls(operation.kind, first, operands, name)

    def _is_negated(self, value: Value) -> bool:
        return value in self.lowered.negated

    def _gradient(self, operation: Operation) -> str:
        """Gradients of blocks, each the product of a layer's input and delta."""
        xs, deltas = ([operands[k] for operands, _ in operation.lanes] for k in (0, 1))
        block = self.layout.block_of[operation.lanes[0][1]]
        count = len(xs) if len(xs) > 1 else None
        alike = all(x is xs[0] for x in xs)
        left = self.buffers.full[xs[0]] if alike else self._slab(xs, True)
        alike = all(delta is deltas[0] for delta in deltas)
        right = self.buffers.arrays[deltas[0]] if alike else self._slab(deltas, False)
        out = block.of(self.buffers.flat_gradient, count)
        return self._product(
            (left.swapaxes(-1, -2), "inputs_T"), (right, "deltas"), (out, "d_block")
        )

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
