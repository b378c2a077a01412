"""The package as text: its modules, what each imports, and the shape of its functions, without importing any."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import micropref

PACKAGE = Path(micropref.__file__).parent
ROOT = PACKAGE.parent


@cache
def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(["micropref", *(parts[:-1] if parts[-1] == "__init__" else parts)])] = path
    return found


@cache
def source(module: str) -> str:
    return modules()[module].read_text(encoding="utf-8")


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(source(module))


def part_of(module: str) -> str:
    """The first name below micropref; empty for micropref itself."""
    return [*module.split("."), ""][1]


def is_public(module: str) -> bool:
    """Whether no name on the way to a module begins with an underscore."""
    return not any(name.startswith("_") for name in module.split("."))


def place(module: str, line: int) -> str:
    """Where an editor finds it."""
    return f"{modules()[module].relative_to(ROOT)}:{line}"


@cache
def imports(module: str, *, at_import_time: bool, for_types: bool = False) -> frozenset[str]:
    """What a module imports: inside functions too unless `at_import_time`, and for type checkers only if asked for."""
    found = set()

    def visit(node: ast.AST) -> None:
        if not for_types and isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            return
        if at_import_time and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            return
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: a relative import"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                found.add(full if full in modules() else str(node.module))
                # `from micropref import make_pairs` would hide where the arrow goes.
                assert node.module != "micropref" or full in modules() or alias.name == "__version__", module
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(tree(module))
    return frozenset(found)


def calls(module: str) -> Iterator[tuple[ast.Call, str]]:
    """Every call with the last name of what is called: `validate_data` of ``validation.validate_data(...)``."""
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Call):
            yield node, ast.unparse(node.func).rpartition(".")[2]


def functions(module: str) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Every function and method, those inside of others too."""
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def strings(module: str) -> Iterator[tuple[int, str]]:
    """Line and text of every string; what an f-string fills in is {}, and adjacent strings are one."""
    inside: set[ast.AST] = set()
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.JoinedStr):
            parts = [str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values]
            inside.update(node.values)
            yield node.lineno, "".join(parts)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in inside:
            yield node.lineno, node.value
