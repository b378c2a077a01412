"""Which code a result depends on: the modules that a function reaches by imports, without docstrings and comments.

A module is reached if it is imported at its top or inside a function; imports for type checkers alone do not count.
`from package import name` reaches the module that defines the name and not the whole package, so that a package that
lists all rivals does not tie them together; the `__init__` of a package counts only if a name is defined in it. Code
outside the package does not count: its version does.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property, partial
from pathlib import Path
from typing import Any


class Sources:
    """The source files of a package, as they are when they are first asked for.

    Parameters
    ----------
    folder : Path
        Of the package; its name is that of the package.
    """

    def __init__(self, folder: Path):
        self._modules: dict[str, _Module] = {}
        for path in folder.rglob("*.py"):
            parts = path.relative_to(folder.parent).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            self._modules[name] = _Module(name, path)

    def digest(self, modules: Iterable[str]) -> str:
        """A hash of the code of all modules that these modules reach.

        Parameters
        ----------
        modules : iterable of str
            Dotted names; those outside the package are ignored.

        Returns
        -------
        digest : str
        """
        digest = hashlib.sha256()
        for name in sorted(self.reached(modules)):
            digest.update(f"{name} {self._modules[name].digest}\n".encode())
        return digest.hexdigest()

    def reached(self, modules: Iterable[str]) -> frozenset[str]:
        """Modules that these modules reach, themselves included."""
        found: set[str] = set()
        left = {name for name in modules if name in self._modules}
        while left:
            found |= left
            left = {one for name in left for one in self.imported(name)} - found
        return frozenset(found)

    def imported(self, name: str) -> set[str]:
        """Modules of the package that a module imports."""
        found: set[str] = set()
        for module, imported in self._modules[name].imports:
            if module in self._modules:
                found |= self._package(module) if imported is None else self._defining(module, imported)
        for start in self._modules[name].computed_imports:
            found |= {one for one in self._modules if one.startswith(start)}
        return found - {name}

    def _defining(self, module: str, name: str) -> set[str]:
        """Where a name comes from that is imported from a module."""
        if f"{module}.{name}" in self._modules:
            return self._package(f"{module}.{name}")
        if not self._modules[module].is_package or name in self._modules[module].defined:
            return {module}
        source = self._modules[module].passed_on.get(name)
        if source is not None and source[0] in self._modules:
            return self._defining(*source)
        # A name that the package looks up when it is asked for can be anywhere in it.
        return self._package(module)

    def _package(self, name: str) -> set[str]:
        """A module, and all modules below it if it is a package."""
        return {one for one in self._modules if one == name or one.startswith(f"{name}.")}


class _Module:
    """One source file, without docstrings, comments and what only type checkers read."""

    def __init__(self, name: str, path: Path):
        self.name, self._path = name, path
        self.is_package = path.name == "__init__.py"

    @cached_property
    def _tree(self) -> ast.Module:
        tree = ast.parse(self._path.read_text(encoding="utf-8"))
        _OnlyCode().visit(tree)
        return tree

    @cached_property
    def digest(self) -> str:
        return hashlib.sha256(ast.unparse(self._tree).encode()).hexdigest()

    @cached_property
    def imports(self) -> set[tuple[str, str | None]]:
        """Modules, each with the name that is imported from it; None for the module itself."""
        found: set[tuple[str, str | None]] = set()
        for node in ast.walk(self._tree):
            if isinstance(node, ast.Import):
                found |= {(alias.name, None) for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module is not None:
                found |= {(node.module, alias.name) for alias in node.names}
        return found

    @cached_property
    def computed_imports(self) -> set[str]:
        """What the names begin with that this module gives to `import_module`, as far as its text says."""
        found: set[str] = set()
        for statement in self._tree.body:
            # What a package looks up when it is asked for a name is found where the name is imported.
            if isinstance(statement, ast.FunctionDef) and statement.name == "__getattr__":
                continue
            for node in ast.walk(statement):
                if isinstance(node, ast.Call) and "import_module" in (
                    getattr(node.func, "id", ""),
                    getattr(node.func, "attr", ""),
                ):
                    found.add(self._beginning(node.args[0]))
        return found - {""}

    def _beginning(self, text: ast.expr) -> str:
        start = ""
        for part in text.values if isinstance(text, ast.JoinedStr) else [text]:
            if isinstance(part, ast.Constant):
                start += str(part.value)
            elif isinstance(part, ast.FormattedValue) and ast.unparse(part.value) == "__name__":
                start += self.name
            else:
                break
        return start

    @cached_property
    def defined(self) -> set[str]:
        """Names that statements at the top define."""
        found: set[str] = set()
        for node in self._tree.body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                found.add(node.name)
            elif isinstance(node, ast.Assign | ast.AnnAssign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                found |= {one.id for target in targets for one in ast.walk(target) if isinstance(one, ast.Name)}
        return found

    @cached_property
    def passed_on(self) -> dict[str, tuple[str, str]]:
        """Names imported at the top, each with its module and its name there."""
        return {
            alias.asname or alias.name: (node.module, alias.name)
            for node in self._tree.body
            if isinstance(node, ast.ImportFrom) and node.module is not None
            for alias in node.names
        }


class _OnlyCode(ast.NodeTransformer):
    """Removes what does nothing when it runs: docstrings, `pass`, and imports for type checkers alone."""

    def visit_Expr(self, node: ast.Expr) -> ast.Expr | None:
        is_text = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return None if is_text else node

    def visit_Pass(self, node: ast.Pass) -> None:
        return None

    def visit_If(self, node: ast.If) -> ast.AST | list[ast.stmt]:
        self.generic_visit(node)
        return node.orelse if ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING") else node


def modules_of(function: Callable[..., Any]) -> set[str]:
    """Modules that define a function, and the functions and classes that are bound to it by `partial`."""
    return {part.__module__ for part in _parts(function) if hasattr(part, "__module__")}


def name_of(function: Callable[..., Any]) -> list[str]:
    """Name of a function, and what is bound to it by `partial`."""
    return [getattr(part, "__qualname__", None) or repr(part) for part in _parts(function)]


def _parts(function: Any) -> Iterator[Any]:
    if not isinstance(function, partial):
        yield function
        return
    yield from _parts(function.func)
    for argument in function.args:
        yield from _parts(argument)
    for key, value in sorted(function.keywords.items()):
        yield key
        yield from _parts(value)
