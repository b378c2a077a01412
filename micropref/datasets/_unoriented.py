"""Comparisons in the order of their columns, for callers whose labels come separately from the table."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from micropref.datasets._columns import find_label, find_responses, name_columns
from micropref.datasets._faults import RowFault
from micropref.datasets._file_labels import LabelReader, check_labels_of, is_tie, refuse_numbers_of_columns
from micropref.datasets._layout import Layout, find_layout
from micropref.datasets._reading import opened_for_reading, table_of
from micropref.datasets._report import refuse_source_as_rejected
from micropref.datasets._sources import Record, Source
from micropref.datasets.table import PreferenceTable

__all__ = ["read_unoriented", "refuse_contradictions"]


def read_unoriented(
    source: Any,
    *,
    columns: Mapping[str, str] | None = None,
    format: str | None = None,
    encoding: str | None = None,
    skip_bad: bool = False,
    rejected_path: str | os.PathLike[str] | None = None,
) -> PreferenceTable:
    """Read comparisons without asking which response was preferred: labels and ties are ignored and may be missing.

    Parameters
    ----------
    source : path, DataFrame, Dataset, list of dict, dict of columns, or PreferenceTable
        As in `read_preferences`; response_a and response_b (and the like) need no label.
    columns, format, encoding, skip_bad, rejected_path
        As in `read_preferences`.

    Returns
    -------
    PreferenceTable
        One row for each row of the source, with the texts only. Its ``chosen`` is the response whose column comes
        first (chosen, response_a, first or response_1), its ``rejected`` the other one, whichever was preferred.

    Raises
    ------
    ValueError
        As `read_preferences`, and if the source has several pairs of columns with responses.
    """
    if isinstance(source, PreferenceTable):
        return source
    opened = opened_for_reading(source, columns or {}, format=format, encoding=encoding)
    if skip_bad:
        refuse_source_as_rejected(opened, rejected_path)
    layout = _layout_without_labels(opened, columns or {})
    texts_only = replace(layout, label=None, tie=None, group=None, weight=None, extra={})
    return table_of(opened, texts_only, skip_bad=skip_bad, rejected_path=rejected_path)


def refuse_contradictions(source: Any, first_is_preferred: Sequence[bool] | None) -> None:
    """Compare the labels that a source has itself with labels that came separately.

    Parameters
    ----------
    source : as in `read_unoriented`
        Rows whose label is missing or is not one that `read_preferences` understands agree with everything; so does a
        PreferenceTable.
    first_is_preferred : sequence of n bool, optional
        What y says; None if it says nothing that can be compared.

    Raises
    ------
    ValueError
        If the source calls a row a tie, or contradicts y.
    """
    if isinstance(source, PreferenceTable):
        return
    opened = opened_for_reading(source, {})
    stated = _stated(opened)
    for record, share in zip(opened.records, stated, strict=True):
        if share == 0.5:
            raise ValueError(
                f"{opened.place(record)}: expected a preferred response, as y is given, got a tie; to keep ties, fit "
                "without y on table = read_preferences(source), where a tie is two rows of half the weight, and with "
                "sample_weight=table.weight"
            )
    if first_is_preferred is None:
        return
    contrary = [
        record
        for record, share, first in zip(opened.records, stated, first_is_preferred, strict=True)
        if share is not None and share != first
    ]
    if contrary:
        first = first_is_preferred[opened.records.index(contrary[0])]
        by_y, by_label = ("first", "second") if first else ("second", "first")
        raise ValueError(
            f"{opened.place(contrary[0])}: expected the label of the table and y to agree, got the {by_label} response "
            f"preferred by the label and the {by_y} by y, as in {len(contrary)} of {len(opened.records)} rows; y is 1 "
            "if the first response was preferred: correct y, fit without y to use the label, or drop the label"
        )


def _layout_without_labels(source: Source, columns: Mapping[str, str]) -> Layout:
    named = name_columns(source, columns)
    pairs, _ = find_responses(named)
    if len(pairs) > 1:
        raise ValueError(
            f"{source.name}: expected one pair of columns with responses, so that y can be about these, got "
            f"{' as well as '.join(f'{first} and {second}' for first, second in pairs)}; leave out the others"
        )
    return find_layout(source, columns, LabelReader(), is_labelled=False)


def _stated(source: Source) -> list[float | None]:
    """What the label of each row says of its first response: 1 preferred, 0 not, 0.5 a tie, None nothing."""
    reader = LabelReader()
    named = name_columns(source, {})
    pairs, settled = find_responses(named)
    labels = find_label(named, pairs[0] if pairs else None, settled, reader)
    column = named.column_of[labels[0]] if len(labels) == 1 else None
    if column is not None and pairs:
        try:
            refuse_numbers_of_columns(source, pairs[0], column, reader)
        except ValueError:  # what may mean either response contradicts nothing
            column = None
    tie = next((named.column_of[name] for name in named.called("tie")), None)
    shares = [_share(record, column, tie, reader) for record in source.records]
    if column is not None:
        understood = [
            record
            for record, share in zip(source.records, shares, strict=True)
            if share is not None and not record.fault
        ]
        # A fault of labels together, such as 0 beside -1, is an error here.
        check_labels_of(replace(source, records=understood), column, tie, reader)
    return shares


def _share(record: Record, column: str | None, column_of_ties: str | None, reader: LabelReader) -> float | None:
    if record.fault:
        return None
    try:
        if column_of_ties is not None and is_tie(record.cells.get(column_of_ties), column_of_ties):
            return 0.5
    except RowFault:
        return None
    if column is None or reader.is_missing(record.cells.get(column), all_cells_are_text=True):
        return None
    return reader.share_of_first(record.cells.get(column))
