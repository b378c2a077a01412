"""Comparisons in the order of their columns, for callers whose labels come separately from the table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from micropref.datasets._layout import RESPONSE_PAIRS
from micropref.datasets._sources import Record, Source, open_source
from micropref.datasets.readers import read_preferences
from micropref.datasets.table import PreferenceTable

__all__ = ["read_unoriented", "refuse_contradictions"]

_SETTLED = ("chosen", "rejected")


def read_unoriented(source: Any) -> PreferenceTable:
    """Read comparisons without asking which response was preferred: labels and ties are ignored and may be missing.

    Parameters
    ----------
    source : path, DataFrame, Dataset, list of dict, dict of columns, or PreferenceTable
        As in `read_preferences`; response_a and response_b (and the like) need no label.

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
    opened = open_source(source)
    pair = _response_pair(opened)
    if pair is None:
        return read_preferences(opened)  # whose error says which columns there should be
    return read_preferences(replace(opened, records=[_as_it_stands(record, pair) for record in opened.records]))


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
    opened = open_source(source)
    stated = _stated(opened, _response_pair(opened))
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
            f"preferred by the label and the {by_y} by y, and so in {len(contrary)} of {len(opened.records)} rows; y "
            "is 1 where the first response was preferred: correct y, fit without y to use the label, or drop the label"
        )


def _response_pair(source: Source) -> tuple[str, str] | None:
    """The two columns with the responses; None where there are none."""
    present = {name for record in source.records if not record.fault for name in record.cells}
    pairs = [pair for pair in RESPONSE_PAIRS if present.issuperset(pair)]
    if len(pairs) > 1:
        raise ValueError(
            f"{source.name}: expected one pair of columns with responses, so that y can be about these, got "
            f"{' as well as '.join(f'{first} and {second}' for first, second in pairs)}; leave out the others"
        )
    return pairs[0] if pairs else None


def _as_it_stands(record: Record, pair: tuple[str, str]) -> Record:
    if record.fault:
        return record
    cells = {name: record.cells[name] for name in (*pair, "prompt", "context") if name in record.cells}
    if pair != _SETTLED:
        cells["label"] = "first"
    return record._replace(cells=cells)


def _stated(source: Source, pair: tuple[str, str] | None) -> list[float | None]:
    """What the label of each row says of its first response: 1 preferred, 0 not, 0.5 a tie, None nothing."""
    columns = ("label", "tie") if pair == _SETTLED else ("label", "preference", "tie")
    labels = [
        {} if record.fault else {name: record.cells[name] for name in columns if name in record.cells}
        for record in source.records
    ]
    distinct = {repr(label): label for label in labels}
    share_of = {spelled: _share_of_first(source, label) for spelled, label in distinct.items()}
    # A fault of labels together, such as 0 beside -1, is an error here.
    if understood := [label for spelled, label in distinct.items() if share_of[spelled] is not None]:
        _oriented_by_label(source, understood)
    return [share_of[repr(label)] for label in labels]


def _share_of_first(source: Source, label: Mapping[str, Any]) -> float | None:
    try:
        orders = _oriented_by_label(source, [label]).chosen
    except ValueError:
        return None
    return orders.count("first") / len(orders)


def _oriented_by_label(source: Source, labels: Iterable[Mapping[str, Any]]) -> PreferenceTable:
    """Comparisons of "first" and "second" with these labels: `read_preferences` alone knows what a label means."""
    texts = {"prompt": "", "response_a": "first", "response_b": "second"}
    rows = [{**texts, **({} if "preference" in label else {"label": None}), **label} for label in labels]
    return read_preferences(replace(source, records=[Record(number, row) for number, row in enumerate(rows)]))
