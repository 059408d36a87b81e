"""The house keeps its rules: no circle of files, no function too long or too deep to read.

Every import counts, also one for type checking alone, and one inside a function: a reader follows
them too. An import inside a function saves start-up time and nothing else, so it points down.
"""

import ast
import dataclasses
import functools
import pathlib
from collections.abc import Iterator

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PACKAGES = {"dp": ROOT / "src/dp", "gradiometer": ROOT / "src/gradiometer", "bench": ROOT / "bench"}
LINES, LEVELS = 50, 5
BLOCKS = (ast.If, ast.For, ast.While, ast.With, ast.Try)


@dataclasses.dataclass
class File:
    """A module: where it lies, what it is called, and what stands in it."""

    path: pathlib.Path
    module: str
    tree: ast.Module

    @property
    def package(self) -> str:
        is_package = self.path.name == "__init__.py"
        return self.module if is_package else self.module.rpartition(".")[0]


@functools.cache
def files_of(package: str) -> dict[str, File]:
    """Every module of a package, by its dotted name."""
    found = {}
    for path in sorted(PACKAGES[package].rglob("*.py")):
        parts = (package, *path.relative_to(PACKAGES[package]).with_suffix("").parts)
        module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[module] = File(path, module, ast.parse(path.read_text(encoding="utf-8")))
    return found


def imports_of(file: File, modules: dict[str, File]) -> dict[str, int]:
    """Which of the package's own modules a file imports, and in which line."""
    found: dict[str, int] = {}
    for node in ast.walk(file.tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                up = file.package.split(".")
                above = ".".join(up[: len(up) - node.level + 1])
                base = f"{above}.{base}" if base else above
            names = [f"{base}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            while name and name not in modules:
                name = name.rpartition(".")[0]
            if name and name != file.module:
                found.setdefault(name, node.lineno)
    return found


def circle_in(graph: dict[str, dict[str, int]]) -> list[str]:
    """The shortest circle of imports, as modules of which each imports the next; [] if none."""
    shortest: list[str] = []
    for start in graph:
        ways = {start: [start]}
        waiting = [start]
        while waiting and start not in graph[waiting[0]]:
            module = waiting.pop(0)
            for other in graph[module]:
                if other not in ways:
                    ways[other] = [*ways[module], other]
                    waiting.append(other)
        if waiting and (not shortest or len(ways[waiting[0]]) < len(shortest)):
            shortest = ways[waiting[0]]
    return shortest


@pytest.mark.parametrize("package", PACKAGES)
def test_no_circle_of_files(package):
    modules = files_of(package)
    graph = {name: imports_of(file, modules) for name, file in modules.items()}
    circle = circle_in(graph)
    arrows = [
        f"{modules[a].path.relative_to(ROOT)}, line {graph[a][b]}, imports {b}"
        for a, b in zip(circle, [*circle[1:], *circle[:1]], strict=True)
    ]
    assert not circle, f"a circle of {len(circle)} files:\n  " + "\n  ".join(arrows)


def functions_in(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef))


def lines_of(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """How many lines a function's body takes, without its docstring."""
    has_more = ast.get_docstring(function) is not None and len(function.body) > 1
    first, last = function.body[1 if has_more else 0], function.body[-1]
    assert last.end_lineno is not None
    return last.end_lineno - first.lineno + 1


def levels_of(node: ast.AST, level: int = 0) -> int:
    """How many blocks stand inside each other."""
    inner = [
        levels_of(child, level + isinstance(child, BLOCKS))
        for child in ast.iter_child_nodes(node)
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    ]
    return max([level, *inner])


# To become shorter: nothing is added here.
STILL_TOO_LONG = {
    "src/dp/program/graph.py _simpler",
    "src/dp/program/guards.py _reach",
    "src/dp/program/steps.py _steps",
}


@pytest.mark.parametrize("package", PACKAGES)
def test_functions_are_short_and_flat(package):
    too_long = []
    for file in files_of(package).values():
        place = file.path.relative_to(ROOT).as_posix()
        for function in functions_in(file.tree):
            lines, levels = lines_of(function), levels_of(function)
            if (
                lines > LINES or levels > LEVELS
            ) and f"{place} {function.name}" not in STILL_TOO_LONG:
                too_long.append(
                    f"{place}, line {function.lineno}: {function.name} has {lines} lines and "
                    f"{levels} levels"
                )
    assert not too_long, (
        f"a function has at most {LINES} lines and {LEVELS} levels of blocks:\n  "
        + "\n  ".join(too_long)
    )
