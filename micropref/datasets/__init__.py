"""Comparisons of texts: tables, readers for the common file formats, simulated preferences and the demo world."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from micropref.datasets.readers import read_preferences
from micropref.datasets.sources import MalformedRowError
from micropref.datasets.table import PreferenceTable

if TYPE_CHECKING:
    from micropref.datasets.demo import load_demo
    from micropref.datasets.simulate import make_preferences

__all__ = ["MalformedRowError", "PreferenceTable", "load_demo", "make_preferences", "read_preferences"]

# Reading a file should not pay for the simulators and the demo's texts.
_LAZY_HOME = {"load_demo": "demo", "make_preferences": "simulate"}


def __getattr__(name: str) -> object:
    if name not in _LAZY_HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LAZY_HOME[name]}"), name)
