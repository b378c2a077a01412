"""Faults of rows and of sources: what was expected and found, and how to say otherwise in Python and in a shell."""

from __future__ import annotations

import shlex
from collections.abc import Mapping

__all__ = ["MalformedRowError", "RowFault", "ways_to_name"]


class MalformedRowError(ValueError):
    """A row of preference data that cannot be used; the message names the row, what was expected and what it holds."""


class RowFault(ValueError):
    """What is wrong with one row; `kind` is the same for all rows with that fault, for counts."""

    def __init__(self, kind: str, message: str):
        super().__init__(message)
        self.kind = kind


def kind_of(fault: ValueError) -> str:
    """The kind of a fault, for counts."""
    return fault.kind if isinstance(fault, RowFault) else "with another fault"


def ways_to_name(columns: Mapping[str, str]) -> str:
    """How to say which column is which: ``columns={'prompt': 'question'}, in the shell --column prompt=question``."""
    options = " ".join(f"--column {shlex.quote(f'{role}={name}')}" for role, name in columns.items())
    return f"columns={dict(columns)}, in the shell {options}"
