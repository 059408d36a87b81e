"""The readable source: a captured function, and its backward pass, as a page of plain NumPy."""

from __future__ import annotations

import inspect
import json
from collections import Counter

import numpy as np

from dp import primitives as p
from dp import special
from dp.errors import CaptureError
from dp.program.capture import Captured, Origin, free_name
from dp.program.graph import Value
from dp.program.notation import LOOSE, NOTATIONS, SIGN, TIGHT, details

LINE = 88  # longest line into which expressions are gathered
INDENT = "    "
GRADIENTS = "gradients"
SCATTER = """\
def scatter(x, index, shape):
    into = np.zeros(shape, dtype=x.dtype)
    np.add.at(into, index, x)  # an index may name an entry twice
    return into"""


def readable(captured: Captured) -> str:
    """Write a captured function as a Python module that needs NumPy and nothing else.

    Its one function takes the inputs and a dict of parameters, and returns a dict of gradients and
    the value, as `Model.get_grad` does; or the value alone, if no gradient was captured.
    """
    return _Page(captured).text()


def readable_step(captured: Captured, rule: Captured | None, optimizer: str) -> str:
    """Write a whole training step: the gradients, and the update of every parameter.

    `rule` is the optimiser's `_update` of one parameter `w` by its gradient `g` in step `i`, with
    what it keeps between steps in `s1`, `s2`, …; None if it cannot be written down.
    """
    page = _Page(captured)
    text, inputs = page.text(), ", ".join(value.name for value in captured.inputs)
    if rule is None:
        return (
            f"{text}\n\n# The update is {optimizer}._update, which plain operations do not tell.\n"
        )
    stores = list(rule.gradients)
    lines = [f"for name, g in {GRADIENTS}.items():", f"{INDENT}w = param[name]"]
    lines += [f"{INDENT}{s} = stores[{k}][name]" for k, s in enumerate(stores)]
    lines += [INDENT + line for line in _Page(rule).assignments()]
    lines += [f"{INDENT}param[name] = {rule.output.name}"]
    lines += [
        f"{INDENT}stores[{k}][name] = {value.name}"
        for k, value in enumerate(rule.gradients.values())
    ]
    body = [
        f"{GRADIENTS}, {captured.output.name} = {page.function}({inputs}, param)",
        "",
        f"# {optimizer}",
        *lines,
        f"return {GRADIENTS}, {captured.output.name}",
    ]
    kept = ", stores" if stores else ""
    number = ", i" if any(v.name == "i" for v in _operands(rule)) else ""
    head = f"def step({inputs}, param{kept}{number}):"
    return "\n".join([text, "", head, *(INDENT + line if line else "" for line in body), ""])


def _operands(captured: Captured) -> set[Value]:
    return {operand for value in captured.values() for operand in value.operands}


class _Page:
    def __init__(self, captured: Captured) -> None:
        self.captured = captured
        self.values = captured.values()
        ends = [captured.output, *captured.gradients.values()]
        self.uses = Counter(o for value in self.values for o in value.operands)
        self.uses.update(ends)
        self.user = {o: value for value in self.values for o in value.operands}
        self.written: dict[Value, tuple[str, int]] = {}  # expression, and how tightly it holds
        self.constants: dict[Value, str] = {}
        self.own: dict[p.Primitive, str] = {}  # declared by the user, who has the kernels
        self.lines: list[str] = []
        self.taken = set(captured.taken)
        self.names: dict[Value, str] = {}  # of passing results that get a line of their own
        self.scatters = False
        self.quiet = False  # whether an exp may overflow on its way to a right result

    def text(self) -> str:
        """The whole module."""
        body = self._body()
        head = ["import numpy as np", "", ""]
        if any(v.primitive in (p.normal_cdf, p.normal_pdf) for v in self.values):
            source = inspect.getsource(special).replace("from __future__ import annotations\n", "")
            head = [source.rstrip(), "", ""]
        if self.scatters:
            head += [SCATTER, "", ""]
        if self.own:
            head.insert(0, "import dp")
            head += [
                f"{name} = dp.primitives.TABLE[{_quoted(primitive.name)}].kernel"
                for primitive, name in self.own.items()
            ]
            head += ["", ""]
        if self.constants:
            head += [f"{name} = {_literal(value)}" for value, name in self.constants.items()]
            head += ["", ""]
        if self.quiet:
            head.append('@np.errstate(over="ignore")')
        arguments = [value.name for value in self.captured.inputs]
        if self.captured.parameters:
            arguments.append("param")
        return "\n".join([*head, f"def {self.function}({', '.join(arguments)}):", *body, ""])

    @property
    def function(self) -> str:
        """What the function is called."""
        name = self.captured.function if self.captured.function.isidentifier() else "function"
        return f"{name}_gradients" if self.captured.gradients else name

    def assignments(self) -> list[str]:
        """The lines that compute, without headings."""
        for value in self.values:
            if self._inlined(value):
                self.written[value] = self._expression(value)
            else:
                self._assign(value)
        return self.lines

    def _body(self) -> list[str]:
        captured = self.captured
        for name, parameter in captured.parameters.items():
            if self.uses[parameter]:
                self.lines.append(f"{parameter.name} = param[{_quoted(name)}]")
        section: tuple[str, bool] | None = None
        for value in self.values:
            if self._inlined(value):
                self.written[value] = self._expression(value)
                continue
            origin = captured.origins.get(value)
            if origin is not None and (origin.layer, origin.backward) != section:
                section = (origin.layer, origin.backward)
                self.lines += ["", f"# {self._heading(origin)}"]
            self._assign(value)
        self.lines += ["", f"return {self._result()}"]
        return [INDENT + line if line else "" for line in self.lines]

    def _heading(self, origin: Origin) -> str:
        """What a section does, in words."""
        if not self.captured.layers:
            return "backward" if origin.backward else "forward"
        if not origin.layer:
            return "backward through the loss" if origin.backward else "loss"
        layer = next(layer for layer in self.captured.layers if layer.name == origin.layer)
        shown_name = origin.layer if origin.layer.isprintable() else _quoted(origin.layer)
        phi = layer.function
        shown = "" if phi is None or layer.activation is layer.pre_activation else f", {phi.name}"
        if origin.backward:
            return f"backward through layer {shown_name}{shown}"
        fan = f"{layer.input.shape[-1]} -> {layer.pre_activation.shape[-1]}"
        return f"layer {shown_name}: {fan}{shown}"

    def _inlined(self, value: Value) -> bool:
        """Whether it is written where it is used, instead of getting a line of its own."""
        if value.name or self.uses[value] != 1 or len(_lines(value)) > 1:
            return False
        user = self.user.get(value)
        if user is None:  # a result
            return False
        notation = NOTATIONS.get(user.primitive) if user.primitive else None
        at = user.operands.index(value)
        if notation is None or "".join(notation.lines).count(f"{{{at}}}") > 1:
            return False
        return len(self._expression(value)[0]) <= LINE // 2

    def _assign(self, value: Value) -> None:
        name = value.name
        if not name:
            name = self.names[value] = free_name(f"t{len(self.names) + 1}", self.taken)
        expression, _ = self._expression(value)
        self.lines.append(f"{name} = {expression}")
        for line in _lines(value)[1:]:
            self.lines.append(f"{name} = {line.format(y=name, **details(value))}")
        self.written[value] = (name, TIGHT)

    def _expression(self, value: Value) -> tuple[str, int]:
        """What computes a value, from operands that are written already."""
        primitive = value.primitive
        assert primitive is not None
        if primitive is p.sigmoid:
            self.quiet = True
        if primitive in (p.take, p.scatter):
            return self._indexed(value), TIGHT
        if primitive not in NOTATIONS:
            return self._declared(value), TIGHT
        notation = NOTATIONS[primitive]
        operands = [
            self._broadcast(value, operand) or self._operand(operand, need)
            for operand, need in zip(value.operands, notation.needs, strict=False)
        ]
        text = notation.lines[0].format(*operands, **details(value))
        if primitive is p.sum_to and len(value.operands[0].shape) > len(value.shape):
            return f"{text}.reshape({value.shape})", TIGHT
        return text, notation.level if len(notation.lines) == 1 else TIGHT

    def _declared(self, value: Value) -> str:
        """A call of an operation that the user has declared."""
        primitive = value.primitive
        assert primitive is not None
        if p.TABLE.get(primitive.name) is not primitive:
            raise CaptureError(
                f"{primitive.name!r} has been declared anew since it was captured, so the page "
                "cannot name it; capture again"
            )
        if primitive not in self.own:
            self.own[primitive] = free_name(primitive.name, self.taken)
        given = [
            self._full(o) if o.uniform is not None else self._operand(o, LOOSE)
            for o in value.operands
        ]
        given += [f"{name}={setting!r}" for name, setting in value.settings.items()]
        return f"{self.own[primitive]}({', '.join(given)})"

    def _broadcast(self, value: Value, operand: Value) -> str:
        """An operand in full, where NumPy would not broadcast what stands for it; "" elsewhere."""
        assert value.primitive is not None
        if value.primitive is p.concatenate and len(operand.shape) < len(value.shape):
            shape = (*value.shape[:-2], *operand.shape[-2:])
            whole = operand.uniform is not None
            text = self._full(operand) if whole else self._operand(operand, LOOSE)
            return f"np.broadcast_to({text}, {shape})"
        others = [o.shape for o in value.operands if o.uniform is None]
        if operand.uniform is not None:
            enough = bool(others) and np.broadcast_shapes(*others) == value.shape
            floats = any(o.uniform is None and o.dtype == value.dtype for o in value.operands)
            if not value.primitive.elementwise or not enough or not floats:
                return self._full(operand)
        return ""

    def _indexed(self, value: Value) -> str:
        index = value.settings["index"]
        shown = "[..., " + ", ".join(map(_index_text, index)) + "]"
        pointwise = p.makes_column(index)
        if value.primitive is p.take:
            taken = f"{self._operand(value.operands[0], TIGHT)}{shown}"
            return f"{taken}[..., None]" if pointwise else taken
        self.scatters = True
        given = self._operand(value.operands[0], TIGHT) + ("[..., 0]" if pointwise else "")
        return f"scatter({given}, np.s_{shown}, {value.shape})"

    def _operand(self, value: Value, need: int) -> str:
        if value.constant:
            if value.uniform is None:
                if value not in self.constants:
                    wanted = f"c{len(self.constants) + 1}"
                    self.constants[value] = free_name(wanted, self.taken)
                return self.constants[value]
            text = _number(value)
            return f"({text})" if text.startswith("-") and need >= SIGN else text
        text, level = self.written.get(value, (value.name, TIGHT))
        return text if level >= need else f"({text})"

    def _result(self) -> str:
        output = self._end(self.captured.output)
        if not self.captured.gradients:
            return output
        pairs = [f"{_quoted(name)}: {self._end(g)}" for name, g in self.captured.gradients.items()]
        flat = "{" + ", ".join(pairs) + "}"
        if len(flat) + len(output) < LINE:
            return f"{flat}, {output}"
        return "{\n" + "".join(f"{INDENT * 2}{pair},\n" for pair in pairs) + f"{INDENT}}}, {output}"

    def _end(self, value: Value) -> str:
        return self._full(value) if value.uniform is not None else self._operand(value, LOOSE)

    def _full(self, value: Value) -> str:
        return f"np.full({value.shape}, {_number(value)}, dtype=np.{value.dtype})"


def _lines(value: Value) -> tuple[str, ...]:
    notation = NOTATIONS.get(value.primitive) if value.primitive else None
    return notation.lines if notation else ("",)


def _number(value: Value) -> str:
    """A uniform constant as the shortest literal that gives it back."""
    assert value.array is not None
    shortest = str(value.array.flat[0])
    if shortest in ("inf", "-inf", "nan"):
        return f"{shortest[:-3]}np.{shortest[-3:]}"
    return shortest.removesuffix(".0")


def _literal(value: Value) -> str:
    assert value.array is not None
    numbers = repr(value.array.tolist())
    for word in ("inf", "nan"):
        numbers = numbers.replace(word, f"np.{word}")
    return f"np.array({numbers}, dtype=np.{value.dtype})"


def _quoted(name: str) -> str:
    """A string as it is written between double quotes."""
    return json.dumps(name, ensure_ascii=False)


def _index_text(part: object) -> str:
    if isinstance(part, slice):
        ends = ["" if end is None else str(end) for end in (part.start, part.stop)]
        return ":".join([*ends, *([str(part.step)] if part.step is not None else [])])
    return f"np.array({np.asarray(part).tolist()!r})"
