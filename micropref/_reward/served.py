"""For whom a model answers: users and contexts of a call, one for each row or one for all."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from micropref.datasets._asked import listed_rows, read_contexts
from micropref.datasets.table import PreferenceTable

__all__ = ["ids_of_rows", "served"]


def ids_of_rows(users: Any, n: int) -> Sequence[Hashable] | None:
    """Ids of n rows, of which a single text or integer stands for all; None where there are none.

    Tuples are sequences of ids: a tuple that is one id stands in a list.
    """
    if users is None:
        return None
    if isinstance(users, str | bytes | np.generic) or not hasattr(users, "__iter__"):
        return [users] * n
    # An array keeps its type, by which ids that may have been rounded are refused.
    ids: Any = users if isinstance(users, np.ndarray) else listed_rows(users, "users")
    if len(ids) != n:
        raise ValueError(f"users: expected one for each of {n} rows, got {len(ids)}")
    return ids  # type: ignore[no-any-return]


def served(table: PreferenceTable, users: Any, contexts: Any) -> PreferenceTable:
    """A table with other users and contexts, where any are given."""
    if users is not None:
        ids: Any = ids_of_rows(users, len(table))
        table = replace(table, group=ids)
    if contexts is not None:
        table = replace(table, context=read_contexts(contexts, len(table)))
    return table
