"""Rows of preference data, as they come in files and in tables in memory."""

from __future__ import annotations

import os
from typing import Any

from micropref.datasets._faults import MalformedRowError
from micropref.datasets._files import open_path
from micropref.datasets._memory import open_in_memory
from micropref.datasets._records import Record, Source

__all__ = ["MalformedRowError", "Record", "Source", "open_source"]


def open_source(source: Any, *, encoding: str | None = None, kind: str | None = None) -> Source:
    """All rows of a file or of a table in memory.

    Parameters
    ----------
    source : path, "-" for standard input, table in memory, or iterable of mappings
    encoding : str, optional
        Of the text of a file; by default what its first bytes say, else UTF-8.
    kind : str, optional
        How a file is written ("jsonl", "csv", …), where its name does not say so.

    Raises
    ------
    FileNotFoundError, ValueError
        If there is nothing to read or no way to read it. A row that cannot be read is a record with a fault.
    TypeError
        If the source is of no known kind.
    """
    if isinstance(source, Source):
        return source
    if isinstance(source, str | os.PathLike):
        return open_path(os.fspath(source), encoding, kind)
    if encoding is not None:
        raise ValueError(f"encoding: expected only for a file, got {encoding!r} with a {type(source).__name__}")
    return open_in_memory(source)
