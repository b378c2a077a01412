"""Which response of a row is the first one, by y or by its label but never by both, and how tables are read."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from micropref._arrays.backend import to_numpy
from micropref._rows.labels import signs_as_fit_reads_them
from micropref.datasets._sources import Source, open_source
from micropref.datasets._unoriented import read_unoriented, refuse_contradictions
from micropref.datasets.readers import read_preferences
from micropref.datasets.table import PreferenceTable

CHOSEN_FIRST = "chosen-first"
AS_GIVEN = "as-given"


def read_rows(source: Any, orientation: str) -> PreferenceTable:
    """Read one comparison for each row.

    Parameters
    ----------
    source : table of n comparisons
    orientation : {"chosen-first", "as-given"}
        Whether the label of a row says which response is the first one, or its columns do.

    Returns
    -------
    PreferenceTable
        Its ``chosen`` is the first response.

    Raises
    ------
    ValueError
        If there is no row, or ties made two rows out of one.
    """
    if orientation == AS_GIVEN:
        return _not_empty(read_unoriented(source))
    is_path = isinstance(source, str | os.PathLike)
    if not (is_path or hasattr(source, "__len__")):
        source = open_source(source)  # an iterator, whose rows come only once
    table = _not_empty(read_preferences(source))
    n_rows = len(source.records) if isinstance(source, Source) else None
    if n_rows is None and not (is_path or isinstance(source, Mapping)):
        n_rows = len(source)
    if n_rows is not None and n_rows != len(table):
        raise ValueError(
            f"expected one comparison for each row, got ties: {n_rows} rows became {len(table)}; "
            "turn the data into a table with read_preferences before it goes into an estimator"
        )
    return table


def read_training_rows(source: Any, y: Any) -> tuple[PreferenceTable, str]:
    """Read the rows of a fit, and the orientation that follows from whether it has y.

    Parameters
    ----------
    source : table of n comparisons
    y : array-like of n labels, or None
        What the estimator behind learns from. With it rows stay as given, since y is about these.

    Returns
    -------
    table : PreferenceTable
    orientation : {"chosen-first", "as-given"}

    Raises
    ------
    ValueError
        As `read_rows`; if y has another length or contradicts the label of a row; if a row is a tie beside y.
    """
    if y is None:
        return read_rows(source, CHOSEN_FIRST), CHOSEN_FIRST
    source = source if isinstance(source, PreferenceTable) else open_source(source)
    table = read_rows(source, AS_GIVEN)
    labels = np.asarray(to_numpy(y))
    if labels.shape not in ((len(table),), (len(table), 1)):
        raise ValueError(f"expected a label in y for each of the {len(table)} rows, got y of shape {labels.shape}")
    signs = signs_as_fit_reads_them(labels.ravel(), len(table))
    refuse_contradictions(source, None if signs is None else (signs > 0).tolist())
    return table, AS_GIVEN


def _not_empty(table: PreferenceTable) -> PreferenceTable:
    if not len(table):
        raise ValueError("expected at least one comparison, got none")
    return table
