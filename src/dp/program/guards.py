"""What a captured function depends on besides arguments and parameters, and whether it changed.

A program freezes what its function read: attributes of the model, closures, globals, the contents
of lists and arrays. A `Guard` finds these without running anything: it goes through the functions
that can be reached, and notes what stands under the names that their code mentions. Whether any of
it has changed is then a comparison of references.
"""

from __future__ import annotations

import collections
import dis
import functools
import hashlib
import itertools
import math
import operator
import os
import random
import sys
import sysconfig
import types
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dp import primitives as p
from dp.activations import Activation
from dp.model import Model, View
from dp.node import Node
from dp.order import topological_order
from dp.parameters import KEPT

MISSING = object()
SMALL = 1 << 16  # bytes of an array that are compared each time; a larger one's only at times

# dp's own modules whose functions depend on attributes; all other libraries are taken as constant
WALKED = frozenset(("dp.layers", "dp.model", "dp.net", "dp.losses"))
# with these, code reads attributes under names that it does not mention
DYNAMIC = {
    "getattr", "vars", "hasattr", "eval", "exec", "globals", "locals", "dir", "attrgetter",
    "methodcaller", "__dict__", "__getattribute__", "__getattr__",
}  # fmt: skip
# methods that a call of an object does not come to
UNCALLED = {
    "__init__", "__new__", "__repr__", "__reduce__", "__deepcopy__", "__copy__", "__del__",
    "__getstate__", "__setstate__", "__init_subclass__",
}  # fmt: skip
SCALARS = (int, float, complex, str, bytes, bool, type(None), np.generic)
CONSTANT = (
    *SCALARS,
    type,
    range,
    slice,
    np.dtype,
    np.ufunc,
    types.BuiltinFunctionType,
    types.MethodDescriptorType,
    types.WrapperDescriptorType,
    p.Primitive,
    Activation,
)
RANDOM = (np.random.Generator, np.random.RandomState, np.random.BitGenerator, random.Random)
HEAP_TYPE = 1 << 9  # a flag of classes that are made by a `class` statement
_FOLDERS = (sysconfig.get_path("stdlib"), str(Path(p.__file__).parent) + os.sep)
_LIBRARIES = frozenset(("numpy", "dp", "scipy", "builtins")) | sys.stdlib_module_names
# of those, the ones that draw no random numbers but where "rand" is written
NO_RANDOM = frozenset(("numpy", "dp", "math", "builtins", "functools", "itertools", "operator"))
Check = tuple[Callable[..., Any], Any, Any, str]
Content = tuple[Callable[[Any], Any], Any, Any, str]


class Guard:
    """What a function depends on, as it was when the guard was made.

    The numbers of named Nodes are not watched: they are parameters, which a program takes anew.

    Attributes
    ----------
    iterators : list of str
        What the function may read that gives something else at every look.
    generators : list of (str, object)
        Generators of random numbers that it may draw from.
    may_draw : bool
        Whether its code mentions random numbers, or a library that may draw them.
    arrays : list of (str, array)
        Arrays that it may read.
    """

    def __init__(self, function: Any = None) -> None:
        self.iterators: list[str] = []
        self.generators: list[tuple[str, Any]] = []
        self.may_draw = False
        self.arrays: list[tuple[str, np.ndarray[Any, Any]]] = []
        self._checks: list[Check] = []  # (get, key, what stands there, path)
        self._contents: list[Content] = []  # (look, thing, what it holds, path)
        self._large: list[Content] = []
        self._columns: tuple[Any, ...] | None = None  # of the checks
        self._names: set[str] = set()
        self._all_names = False
        self._spaces: list[_Space] = []
        self._seen: dict[int, Any] = {}
        self._queue: list[tuple[str, Any]] = []
        if function is not None:
            self.follow(_name_of(function), function)

    def follow(self, path: str, thing: Any) -> None:
        """Watch what a function, or an object, depends on."""
        self._queue.append((path, thing))
        while self._queue or any(self._look(space) for space in list(self._spaces)):
            while self._queue:
                self._reach(*self._queue.pop())

    def follow_kernel(self, primitive: p.Primitive) -> None:
        """Watch what an operation of the user's own depends on."""
        for function in (primitive.kernel, *primitive.rules):
            if isinstance(function, types.FunctionType) and _is_own_code(function.__code__):
                self.follow(primitive.name, function)

    def watch(self, owner: Any, names: Collection[str], path: str) -> None:
        """Watch some attributes of an object, by identity."""
        for name in names:
            for space in (vars(owner), *(vars(kind) for kind in type(owner).__mro__[:-1])):
                found = space.get(name, MISSING)
                self._checks.append((space.get, name, found, f"{path}.{name}"))
                if found is not MISSING:
                    break

    def watch_contents(self, thing: Any, path: str) -> None:
        """Watch what lies in a list or dict, by identity."""
        self._contents.append((_contents, thing, _contents(thing), path))
        if isinstance(thing, dict):  # each value by itself, as `settle` may leave one out
            self._checks += [
                (thing.get, key, value, f"{path}[{key!r:.20}]") for key, value in thing.items()
            ]

    def changed(self) -> str:
        """Say what has changed; "" if nothing. For large arrays, see `changed_large`."""
        if not self._as_it_was():
            for get, key, before, path in self._checks:
                if not _same(get(key, MISSING), before):
                    return path
        return _first_changed(self._contents)

    def changed_large(self) -> str:
        """Say which large array has changed; "" if none. To find out takes a look at all of it."""
        return _first_changed(self._large)

    def _as_it_was(self) -> bool:
        """Whether every name stands for the very same object: what is nearly always so, fast."""
        if self._columns is None or len(self._columns[0]) != len(self._checks):
            columns = tuple(zip(*self._checks, strict=True)) or ((), (), (), ())
            self._columns = columns[:3]
        gets, keys, before = self._columns
        found = map(operator.call, gets, keys, itertools.repeat(MISSING))
        return all(map(operator.is_, found, before))

    def settle(self) -> str:
        """Say what the function itself has changed since, as a counter; "" if nothing.

        Nodes that it keeps for itself, such as an activation to be looked at later, may differ from
        run to run. They are not watched any more.
        """
        kept = []
        for check in self._checks:
            get, key, before, path = check
            now = get(key, MISSING)
            if _same(now, before):
                kept.append(check)
            elif not _is_stash(now, before):
                return path
        self._checks, self._columns = kept, None
        return self.changed() or self.changed_large()

    # --- what can be reached ----------------------------------------------------------------------

    def _reach(self, path: str, thing: Any) -> None:
        """Note what a thing holds, and go on with it; what cannot change is passed over."""
        if isinstance(thing, CONSTANT) and not _own_type(thing):
            return
        if type(thing).__name__ == "cython_function_or_method":
            return
        if id(thing) in self._seen:
            return
        self._seen[id(thing)] = thing
        for kinds, look in _LOOKS:
            if isinstance(thing, kinds):
                look(self, path, thing)
                return
        self._object(path, thing)

    def _go(self, path: str, thing: Any) -> None:
        self._queue.append((path, thing))

    def _function(self, path: str, function: types.FunctionType) -> None:
        module = function.__module__ or ""
        if module in WALKED:
            self._names |= _names_in(function.__code__)[1]
            return
        if not _is_own_code(function.__code__):
            self.may_draw |= module.partition(".")[0] not in NO_RANDOM
            return
        wrapped = getattr(function, "__wrapped__", None)
        if wrapped is not None:
            self._go(path, wrapped)
        for name in ("__defaults__", "__kwdefaults__", "__code__"):
            value = getattr(function, name)
            get = functools.partial(getattr, function)
            self._checks.append((get, name, value, f"{path}.{name}"))
            self._go(path, value)
        code = function.__code__
        for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
            get = functools.partial(getattr, cell)
            try:
                value = cell.cell_contents
            except ValueError:  # not filled yet
                continue
            self._checks.append((get, "cell_contents", value, name))
            self._go(name, value)
        global_names, attributes, modules = _names_in(code)
        for name in global_names:
            if name in function.__globals__:
                value = function.__globals__[name]
                self._checks.append((function.__globals__.get, name, value, name))
                self._go(name, value)
        for name in modules:
            self._go(name, sys.modules.get(name))
        self._all_names |= not DYNAMIC.isdisjoint(global_names | attributes)
        self._names |= attributes
        self.may_draw |= any("rand" in name for name in global_names | attributes)

    def _method(self, path: str, method: types.MethodType) -> None:
        self._go(path, method.__func__)
        self._go(path.rpartition(".")[0] or "self", method.__self__)

    def _partial(self, path: str, partial: functools.partial[Any]) -> None:
        self._go(path, partial.func)
        self._go(path, (partial.args, partial.keywords))

    def _wrapper(self, path: str, wrapper: Any) -> None:
        """A static or class method, or a property."""
        for name in ("__func__", "fget", "func"):
            if hasattr(wrapper, name):
                self._go(path, getattr(wrapper, name))

    def _class(self, path: str, thing: type) -> None:
        for kind in thing.__mro__[:-1]:
            constant = kind.__module__ in WALKED
            self._spaces.append(_Space(path, vars(kind), constant=constant))

    def _node(self, path: str, node: Node) -> None:
        if node.name is None:
            self._checks.append((functools.partial(getattr, node), "value", node.value, path))
            self._array(path, node.value)

    def _generator(self, path: str, generator: Any) -> None:
        self.may_draw = True
        self.generators.append((path, generator))

    def _iterator(self, path: str, _: Any) -> None:
        self.iterators.append(path)

    def _module(self, path: str, module: types.ModuleType) -> None:
        if _is_own(module):
            self._spaces.append(_Space(path, vars(module)))
        else:
            self.may_draw |= module.__name__.partition(".")[0] not in NO_RANDOM

    def _object(self, path: str, thing: Any) -> None:
        """An instance: its attributes, and its class."""
        kind = type(thing)
        self._go(path, kind)
        if isinstance(getattr(thing, "__dict__", None), dict):
            self._spaces.append(_Space(path, vars(thing), kind))
            self._spaces[-1].thing = thing
        slots = [name for part in kind.__mro__ for name in _slots_of(part)]
        for name in slots:
            value = getattr(thing, name, MISSING)
            self._checks.append((functools.partial(getattr, thing), name, value, f"{path}.{name}"))
            self._go(f"{path}.{name}", value)

    def _array(self, path: str, array: Any) -> None:
        self.arrays.append((path, array))
        if array.dtype.hasobject:
            self.watch_contents(array, path)
        elif array.nbytes <= SMALL:
            self._contents.append((_bytes, array, _bytes(array), path))
        else:
            self._large.append((_digest, array, _digest(array), path))

    def _container(self, path: str, thing: Any) -> None:
        if isinstance(thing, Mapping) and not isinstance(thing, (dict, types.MappingProxyType)):
            self._object(path, thing)
        elif not isinstance(thing, (tuple, frozenset)):
            self.watch_contents(thing, path)
        keys = thing.items() if isinstance(thing, Mapping) else enumerate(thing)
        for key, value in keys:
            if not isinstance(value, SCALARS):
                self._go(f"{path}[{key!r:.20}]", value)

    def _look(self, space: _Space) -> bool:
        """Note what stands under the names that were not looked up yet; whether there were any."""
        values, kind = space.values, space.kind
        # what a model of the library's own reads stands under names of which no code tells
        kept = {name for name in values if name.startswith(KEPT)}
        names = (self._names | kept) - space.looked_up
        if kind is None and not space.looked_up:  # what operators and calls use without a name
            names |= {name for name in values if _is_method(name, values)}
        if kind is not None and self._all_names and not space.whole:
            names |= values.keys() - space.looked_up
            self._contents.append((_contents, values, _contents(values), space.path))
            space.whole = True
        space.looked_up |= names
        found = [name for name in names if name in values]
        for name in names if not space.constant else ():
            # one of the class stands until the object has its own
            if name in values or (
                kind is not None and not name.startswith("__") and hasattr(kind, name)
            ):
                value = values.get(name, MISSING)
                self._checks.append((values.get, name, value, f"{space.path}.{name}"))
                if value is MISSING and isinstance(vars(Model).get(name), View):
                    self._go(f"{space.path}.{name}", getattr(space.thing, name))
        for name in found:
            self._go(f"{space.path}.{name}", values[name])
        return bool(found)


# how each kind of thing is looked at, the first that fits; all others are objects
_LOOKS: tuple[tuple[Any, Callable[[Guard, str, Any], None]], ...] = (
    (types.FunctionType, Guard._function),
    (types.MethodType, Guard._method),
    (functools.partial, Guard._partial),
    ((staticmethod, classmethod, property, functools.cached_property), Guard._wrapper),
    (type, Guard._class),
    (Node, Guard._node),
    (np.ndarray, Guard._array),
    (RANDOM, Guard._generator),
    (Iterator, Guard._iterator),
    (types.ModuleType, Guard._module),
    ((list, tuple, set, frozenset, collections.deque, Mapping), Guard._container),
)


class _Space:
    """Names and values of an instance of `kind`, of a class or a module; which were looked up."""

    def __init__(
        self, path: str, values: Mapping[str, Any], kind: type | None = None, constant: bool = False
    ) -> None:
        self.path, self.values, self.kind, self.constant = path, values, kind, constant
        self.thing: Any = None  # the instance
        self.looked_up: set[str] = set()
        self.whole = False


@functools.lru_cache(maxsize=4096)
def _names_in(code: types.CodeType) -> tuple[frozenset[str], frozenset[str], frozenset[str]]:
    """Globals, attributes and modules that code mentions, functions within it included."""
    found: tuple[set[str], set[str], set[str]] = (set(), set(), set())
    for instruction in dis.get_instructions(code):
        operation, name = instruction.opname, instruction.argval
        if operation in ("LOAD_GLOBAL", "LOAD_NAME"):
            found[0].add(name)
        elif operation == "IMPORT_NAME":
            found[2].add(name)
        elif "ATTR" in operation or operation in ("LOAD_METHOD", "IMPORT_FROM"):
            found[1].add(name[0] if isinstance(name, tuple) else name)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            for mine, theirs in zip(found, _names_in(constant), strict=True):
                mine |= theirs
    return tuple(frozenset(str(name) for name in part) for part in found)  # type: ignore[return-value]


def _name_of(function: Any) -> str:
    if isinstance(function, types.MethodType):
        return f"self.{function.__name__}"
    return str(getattr(function, "__name__", "function"))


def _own_type(thing: Any) -> bool:
    """Whether a thing is a class that somebody wrote, whose attributes may change."""
    if not isinstance(thing, type) or not thing.__flags__ & HEAP_TYPE:
        return False
    # code that was run by `exec`, as a page of documentation is, has no module of its own
    return thing.__module__ == "builtins" or _is_own(sys.modules.get(thing.__module__))


@functools.lru_cache(maxsize=4096)
def _is_own_code(code: types.CodeType) -> bool:
    """Whether code was written by the user: it lies in no library's folder."""
    file = code.co_filename
    return not (
        file.startswith((*_FOLDERS, "<frozen"))
        or "site-packages" in file
        or "dist-packages" in file
    )


def _is_own(module: types.ModuleType | None) -> bool:
    """Whether a module is none of an installed library."""
    if module is None or module.__name__ in WALKED:
        return True
    file = getattr(module, "__file__", None) or ""
    library = module.__name__.partition(".")[0] in _LIBRARIES
    return not library and "site-packages" not in file and "dist-packages" not in file


def _is_method(name: str, values: Mapping[str, Any]) -> bool:
    """Whether it is a method that operators and calls use."""
    called = name.startswith("__") and name not in UNCALLED
    return called and isinstance(values[name], types.FunctionType)


def _slots_of(kind: type) -> list[str]:
    if not _own_type(kind):
        return []
    return [n for n, value in vars(kind).items() if isinstance(value, types.MemberDescriptorType)]


def _first_changed(contents: Collection[Content]) -> str:
    """The path of the first thing that holds something else by now; "" if none."""
    changed = (path for look, thing, before, path in contents if not _same(look(thing), before))
    return next(changed, "")


def _contents(thing: Any) -> tuple[Any, ...]:
    if isinstance(thing, Mapping):
        return tuple(thing) if isinstance(thing, dict) else (*thing.keys(), *thing.values())
    if isinstance(thing, (set, frozenset)):
        return tuple(sorted(thing, key=lambda one: (type(one).__name__, repr(one))))
    return tuple(thing.flat) if isinstance(thing, np.ndarray) else tuple(thing)


def _same(now: Any, before: Any) -> bool:
    return now is before or _alike(now, before)


def _alike(now: Any, before: Any) -> bool:
    """Whether two things that cannot change are equal, bit for bit where they are numbers."""
    if type(now) is not type(before):
        return False
    if isinstance(now, (float, np.floating)):
        equal = now == before and math.copysign(1.0, now) == math.copysign(1.0, before)
        return bool(equal) or bool(now != now and before != before)
    if isinstance(now, types.MethodType):  # made anew at every look
        return now.__self__ is before.__self__ and now.__func__ is before.__func__
    if isinstance(now, tuple):
        return len(now) == len(before) and all(map(_same, now, before))
    return isinstance(now, SCALARS) and bool(now == before)


def _bytes(array: Any) -> bytes:
    return bytes(array.tobytes())


def _digest(array: Any) -> str:
    whole = np.ascontiguousarray(array)
    return hashlib.blake2b(whole.view(np.uint8).data, digest_size=16).hexdigest()


def _nodes_in(thing: Any) -> list[Node] | None:
    """The Nodes of a Node, or of lists and dicts of Nodes; None if there is anything else."""
    if isinstance(thing, Node):
        return [thing]
    if isinstance(thing, Mapping):
        thing = list(thing.values())
    if not isinstance(thing, (list, tuple)):
        return None
    parts = [_nodes_in(part) for part in thing]
    if any(part is None for part in parts):
        return None
    return [node for part in parts if part is not None for node in part]


def _is_stash(now: Any, before: Any) -> bool:
    """Whether a function has kept Nodes of its latest run, which do not depend on those before."""
    mine = _nodes_in(now)
    theirs = [] if before is MISSING or before is None else _nodes_in(before)
    if mine is None or theirs is None:
        return False
    older = set(theirs)
    return not any(older & set(topological_order(node)) for node in mine)
