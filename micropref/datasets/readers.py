"""Preference data from files and in-memory tables, in the layouts that are in use, as a `PreferenceTable`."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping
from typing import Any

from micropref._support.renamed import moved
from micropref._support.warnings import level_of_caller
from micropref.datasets._file_labels import LabelReader
from micropref.datasets._layout import Comparison, find_layout
from micropref.datasets._sources import MalformedRowError, Record, Source, open_source
from micropref.datasets.table import PreferenceTable

__all__ = ["read_preferences"]

__getattr__ = moved(__name__)


def read_preferences(
    source: Any,
    *,
    columns: Mapping[str, str] | None = None,
    labels: Mapping[Any, str] | None = None,
    skip_bad: bool = False,
    rejected_path: str | os.PathLike[str] | None = None,
) -> PreferenceTable:
    """Read comparisons of two responses from a file or from a table in memory.

    The layout is found from the columns present:

    - ``chosen`` and ``rejected``, with ``prompt`` or without. Without it the prompt is what both begin with.
    - ``response_a`` and ``response_b`` (or ``first`` and ``second``, or ``response_1`` and ``response_2``) with
      ``label`` or ``preference``: 1, true, "a", "model_a", "first" and other names for the first; 0, -1, 2, false,
      "b", "model_b", "second" for the second; 0.5, "tie" or "both_bad" for neither.

    In both, a column ``tie`` that is true says that neither was preferred. Columns that answer twice which one was,
    such as ``chosen``, ``rejected`` and ``label``, are an error.

    Prompts, contexts and responses are text, or lists of ``{"role", "content"}`` messages (in CSV: as JSON).
    Optional columns are ``context``, ``group`` (or one of ``user``, ``user_id``, ``worker``, ``annotator``,
    ``annotator_id``) and ``weight``. All others come along as ``extra``. An integer names the same user in every
    format, as 12, as 12.0 and as text; None, NaN, -1 and blank text are no user, and in CSV so are NA, null and the
    other marks of missing values.

    A tie becomes two adjacent rows, one in each order, each of half the weight.

    Parameters
    ----------
    source : path, pandas.DataFrame, datasets.Dataset, list of dict, dict of columns, or PreferenceTable
        Paths end in ``.jsonl``, ``.ndjson``, ``.json`` (one list of objects), ``.csv``, ``.tsv``, each with ``.gz``
        or without, or in ``.parquet``. A PreferenceTable is returned as it is.
    columns : dict of str to str, optional
        New name to name in the source, for columns called otherwise: ``{"chosen": "better", "topic": "label"}``.
    labels : dict of str, number or bool to {"first", "second", "tie"}, optional
        What the labels of the source mean, where it is not the above: ``{0: "first", 1: "second", 2: "tie"}``. Case,
        outer spaces and the type do not matter: 1, 1.0 and "1" are one label. Labels that are not named keep their
        meaning, unless the mapping reverses the meaning of one (as 0 above): then only names of ties do. Labels of
        neither kind are an error.
    skip_bad : bool, default=False
        Leave bad rows out, count them in a UserWarning and in ``n_rejected``, and write them to `rejected_path`,
        instead of stopping at the first.
    rejected_path : path, optional
        Where left-out rows go, as JSON lines ``{"line": number, "reason": ..., "row": ...}``. By default beside the
        source with ``.rejected.jsonl`` appended to its name; nowhere if the source is in memory.

    Returns
    -------
    PreferenceTable

    Raises
    ------
    MalformedRowError
        At the first bad row: "FILE, line 3: expected X, got Y". Lines of text files count from 1, a CSV record stands
        where it begins; rows of other sources count from 0.
        Also, whether bad rows are skipped or not, at the first label that is not understood.
    ValueError
        If nothing can be read, all rows are bad, the suffix is unknown, `columns` or `labels` does not fit the source,
        or columns contradict one another. Also if two numbers would mean the same response and `labels` does not name
        both, such as 0 and -1, of which one may be a tie.
    TypeError
        If the source is of no known kind, or `labels` is no mapping.
    FileNotFoundError
        If there is no such file.

    Examples
    --------
    >>> from micropref import read_preferences
    >>> table = read_preferences([
    ...     {"prompt": "Tea?", "response_a": "Yes.", "response_b": "No.", "label": 0, "user": "ann"},
    ...     {"prompt": "Tea?", "response_a": "Yes.", "response_b": "No.", "label": "tie", "user": "bob"},
    ... ])
    >>> table.chosen, table.weight.tolist(), table.group.tolist()
    (['No.', 'Yes.', 'No.'], [1.0, 0.5, 0.5], ['ann', 'bob', 'bob'])
    """
    if isinstance(source, PreferenceTable):
        if columns:
            raise ValueError(f"expected a PreferenceTable without columns=, got {columns!r}; it has its names already")
        if labels:
            raise ValueError(f"expected a PreferenceTable without labels=, got {labels!r}; it has no labels any more")
        return source
    reader = LabelReader.of(labels)
    opened = open_source(source)
    if not opened.records:
        raise ValueError(f"{opened.name}: expected rows of comparisons, got an empty source")
    layout = find_layout(opened, columns or {}, reader)

    comparisons: list[Comparison] = []
    rejected: list[tuple[Record, str]] = []
    for record in opened.records:
        try:
            comparisons += layout.comparisons(record)
        except ValueError as fault:
            if not skip_bad:
                raise MalformedRowError(f"{opened.place(record)}: {fault}") from None
            rejected.append((record, str(fault)))
    if rejected:
        _report_rejected(opened, rejected, rejected_path)

    is_weighted = layout.weight is not None or any(one.weight != 1.0 for one in comparisons)
    return PreferenceTable(
        prompt=[one.prompt for one in comparisons],
        chosen=[one.chosen for one in comparisons],
        rejected=[one.rejected for one in comparisons],
        context=None if layout.context is None else [one.context for one in comparisons],
        group=None if layout.group is None else [one.group for one in comparisons],
        weight=[one.weight for one in comparisons] if is_weighted else None,
        extra={name: [one.cells.get(column) for one in comparisons] for name, column in layout.extra.items()},
        n_rejected=len(rejected),
    )


def _report_rejected(
    source: Source, rejected: list[tuple[Record, str]], rejected_path: str | os.PathLike[str] | None
) -> None:
    if rejected_path is None and source.path is not None:
        rejected_path = f"{source.path}.rejected.jsonl"
    if rejected_path is not None:
        # A lone surrogate becomes \udXXX, which inside a JSON string is its escape.
        with open(rejected_path, "w", encoding="utf-8", errors="backslashreplace", newline="\n") as file:
            for record, reason in rejected:
                row = {"line": record.number, "reason": reason, "row": record.cells}
                file.write(json.dumps(row, ensure_ascii=False, default=str) + "\n")
    kept_in = "" if rejected_path is None else f"; they are kept in {os.fspath(rejected_path)}"
    first = f"the first is {source.unit} {rejected[0][0].number}: {rejected[0][1]}"
    if len(rejected) == len(source.records):
        raise ValueError(f"{source.name}: expected good rows, got {len(rejected)} bad ones only{kept_in}; {first}")
    warnings.warn(
        f"{source.name}: {len(rejected)} of {len(source.records)} rows are left out{kept_in}; {first}",
        UserWarning,
        stacklevel=level_of_caller(),
    )
