"""Packages: installed versions, the lowest that micropref accepts, and the extra that brings an absent one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, packages_distributions, requires, version
from importlib.util import find_spec

from micropref._support.optional import EXTRA_OF

__all__ = ["REQUIRED", "Package", "installed_version", "packages"]

# Import names of what every installation has, in the order of pyproject.toml.
REQUIRED = (
    *("numpy", "scipy", "sklearn", "threadpoolctl", "array_api_compat", "narwhals", "safetensors", "typer", "rich"),
)
# Their lower bounds are those of a working copy.
_WORKING_COPY = ("test", "docs", "dev")


@dataclass(frozen=True)
class Package:
    """One package.

    Attributes
    ----------
    module : str
        Name under which it is imported.
    distributions : list of str
        Names under which it is installed. More than one have written over each other's files.
    version : str or None
        None where it is absent, "unknown" where it can be imported but has no metadata.
    at_least : str or None
        Lowest version that micropref accepts, where it states one.
    extra : str or None
        The extra that brings it; None: every installation has it.
    """

    module: str
    distributions: list[str]
    version: str | None
    at_least: str | None
    extra: str | None

    @property
    def name(self) -> str:
        """What pip calls it."""
        return self.distributions[0] if self.distributions else self.module.replace("_", "-")

    @property
    def is_too_old(self) -> bool:
        """Whether its version is below the lowest that micropref accepts."""
        if self.version is None or self.at_least is None:
            return False
        return bool(_numbers(self.version)) and _numbers(self.version) < _numbers(self.at_least)


def installed_version() -> str | None:
    """Version of micropref in the metadata that state the bounds; None where the sources are not installed."""
    try:
        return version("micropref")
    except PackageNotFoundError:
        return None


def packages() -> list[Package]:
    """Required packages, then optional ones; nothing is imported."""
    installed, bounds = packages_distributions(), _bounds()
    asked: list[tuple[str, str | None]] = [*((module, None) for module in REQUIRED), *EXTRA_OF.items()]
    return [_package(module, extra, installed, bounds) for module, extra in asked]


def _package(module: str, extra: str | None, installed: Mapping[str, list[str]], bounds: Mapping[str, str]) -> Package:
    names = list(dict.fromkeys(installed.get(module, [])))
    at_least = next((bounds[one] for one in map(_normal, [*names, module]) if one in bounds), None)
    return Package(module, names, _version(module, names), at_least, extra)


def _version(module: str, names: list[str]) -> str | None:
    for name in names or [module]:
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return "unknown" if find_spec(module) is not None else None


def _bounds() -> dict[str, str]:
    """Lowest accepted versions by normal name, as the installed micropref states them."""
    try:
        lines = requires("micropref") or []
    except PackageNotFoundError:  # the sources are used without being installed
        return {}
    found: dict[str, str] = {}
    for line in lines:
        requirement, _, marker = line.partition(";")
        of_extra = re.search(r"extra == [\"']([^\"']+)", marker)
        stated = re.match(r"([\w.-]+)\s*(?:\[[^\]]*\])?\s*\(?>=\s*([\w.]+)", requirement)
        if stated is not None and (of_extra is None or of_extra[1] not in _WORKING_COPY):
            found[_normal(stated[1])] = stated[2]
    return found


def _normal(name: str) -> str:
    """A name as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _numbers(found: str) -> list[int]:
    """Numbers of a release, without zeros at the end."""
    release = re.match(r"\d+(\.\d+)*", found)
    numbers = [int(number) for number in release[0].split(".")] if release is not None else []
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return numbers
