"""What a docstring must say, read from signatures; and every public name of the package, which must obey."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from functools import cache
from types import ModuleType
from typing import Any

import micropref

NOTHING = (None, "None", "NoReturn")  # annotations of what returns no result


@cache
def public_modules() -> dict[str, ModuleType]:
    """Modules and packages without a leading underscore in any part of their name, by their name."""
    found = {"micropref": micropref}
    for info in pkgutil.walk_packages(micropref.__path__, "micropref."):
        if not any(part.startswith("_") for part in info.name.split(".")):
            found[info.name] = importlib.import_module(info.name)
    return found


def methods(cls: type) -> Iterator[tuple[str, object]]:
    """Public methods and properties of a class that this package defines, those of its bases included."""
    for name, value in inspect.getmembers(cls):
        static = inspect.getattr_static(cls, name)
        function = static.fget if isinstance(static, property) else value
        own = str(getattr(function, "__module__", "") or "")
        is_method = callable(value) or isinstance(static, property)
        if is_method and not inspect.isclass(value) and not name.startswith("_") and own.startswith("micropref"):
            yield name, static if isinstance(static, property) else value


@cache
def public_names() -> dict[str, object]:
    """Every name in an `__all__` and its public methods, once each, by the first dotted name that leads to it."""
    found: dict[str, object] = {}
    seen: set[int] = set()
    for module_name, module in public_modules().items():
        for name in getattr(module, "__all__", ()):
            value = getattr(module, name, None)
            if value is None or id(value) in seen or not (inspect.isclass(value) or inspect.isroutine(value)):
                continue
            seen.add(id(value))
            found[f"{module_name}.{name}"] = value
            if inspect.isclass(value):
                found |= {f"{module_name}.{name}.{method}": function for method, function in methods(value)}
    return found


def documented(docstring: str, section: str = "Parameters") -> set[str]:
    """Names in a section of a numpydoc docstring that lists names."""
    text = re.search(rf"^{section}\n-+\n(.*?)(?=^\w[\w ]*\n-+\n|\Z)", inspect.cleandoc(docstring), re.S | re.M)
    if text is None:
        return set()
    heads = re.findall(r"^(\*{0,2}\w[\w, *]*?)(?: : .*)?$", text.group(1), re.M)
    return {name.strip().lstrip("*") for head in heads for name in head.split(",")}


def sections(docstring: str) -> list[str]:
    return re.findall(r"^(\w[\w ]*)\n-+$", inspect.cleandoc(docstring), re.M)


def faults(value: object) -> list[str]:
    """What is wrong with the docstring of a class, a function, a method or a property; empty if nothing is."""
    docstring = inspect.getdoc(value)
    if not docstring or not _is_written(value):
        return ["no docstring"]
    wrong = []
    if not docstring.splitlines()[0].rstrip().endswith((".", "?")):
        wrong.append("the first line is no sentence")
    if isinstance(value, property) or getattr(value, "_is_protocol", False):
        return wrong
    if inspect.isclass(value):
        # Results list their fields as attributes, since only this package constructs them.
        return wrong + _faults_of_arguments(docstring, _arguments(value), documented(docstring, "Attributes"))
    wrong += _faults_of_arguments(docstring, _arguments(value), set())
    returned = inspect.signature(value).return_annotation  # type: ignore[arg-type]
    has_result = bool({"Returns", "Yields"} & set(sections(docstring)))
    if has_result and returned in NOTHING:
        wrong.append("documents a result, but returns none")
    if not has_result and returned not in NOTHING:
        wrong.append("does not document its result")
    return wrong


def _faults_of_arguments(docstring: str, arguments: set[str], fields: set[str]) -> list[str]:
    named = documented(docstring)
    missing, unknown = arguments - named - fields, named - arguments
    return [
        *([f"does not document {', '.join(sorted(missing))}"] if missing else []),
        *([f"documents {', '.join(sorted(unknown))}, which it does not take"] if unknown else []),
    ]


def _arguments(value: Any) -> set[str]:
    if inspect.isclass(value) and issubclass(value, BaseException) and "__init__" not in vars(value):
        return set()
    return set(inspect.signature(value).parameters) - {"self", "cls"}


def _is_written(value: object) -> bool:
    """Whether a docstring was written, and neither inherited by a class nor made by dataclass or NamedTuple."""
    if not inspect.isclass(value):
        return True
    own = vars(value).get("__doc__") or ""
    return bool(own) and not own.startswith(f"{value.__name__}(")
