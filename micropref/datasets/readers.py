"""Preference data from files and in-memory tables, in the layouts that are in use, as a `PreferenceTable`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from micropref._support.renamed import moved
from micropref.datasets._file_labels import LabelReader
from micropref.datasets._layout import find_layout
from micropref.datasets._reading import opened_for_reading, table_of
from micropref.datasets._report import refuse_source_as_rejected
from micropref.datasets.table import PreferenceTable

__all__ = ["read_preferences"]

__getattr__ = moved(__name__)

_TO_SKIP = "; to leave such rows out: skip_bad=True, in the shell --skip-bad"


def read_preferences(
    source: Any,
    *,
    columns: Mapping[str, str] | None = None,
    labels: Mapping[Any, str] | None = None,
    format: str | None = None,
    annotators: str | Sequence[str] | None = None,
    encoding: str | None = None,
    skip_bad: bool = False,
    rejected_path: str | os.PathLike[str] | None = None,
) -> PreferenceTable:
    """Read comparisons of two responses from a file or from a table in memory.

    The layout is recognised by the names of the columns; case, spaces and underscores do not matter:

    - Two responses, one of which is marked as preferred: ``chosen`` and ``rejected`` (``preferred_output`` and
      ``non_preferred_output``, ``better`` and ``worse``, …).
    - Two responses in an order, ``response_a`` and ``response_b`` (``answer1`` and ``answer2``, ``output_left`` and
      ``output_right``, …), with a column that says which was preferred (``label``, ``winner``, ``preference``,
      ``better``, ``choice``, …): 1, true, "a", "model_a", "first" and other names for the first; 0, -1, 2, false, "b",
      "model_b", "second" for the second; 0.5, "tie" or "both_bad" for neither.

    In both layouts, true in a column ``tie`` means that neither response was preferred. If the columns state the
    preferred response twice, as ``chosen``, ``rejected`` and ``label`` do, this is an error.

    Prompts (``prompt``, ``question``, ``instruction``, ``query``, ``input``, …), contexts and responses are text, or
    lists of messages with "role" and "content" or "from" and "value"; also as text that encodes a list of messages.
    Messages that both responses repeat belong to the prompt, and a column ``system`` is put before it. Without a column
    for the prompt, it is the common beginning of two conversations, or of two transcripts as in HH-RLHF.

    Optional columns are ``context``, the user (``user``, ``worker``, ``annotator``, ``judge``, ``rater_id``, …) and
    ``weight``. All other columns are kept as ``extra``. An integer names the same user in every format, as 12, as 12.0
    and as text. None, NaN, -1 and blank text mean no user; in CSV, so do NA, null and the other marks of missing
    values.

    A tie becomes two adjacent rows, one in each order, each of half the weight. ``table.report`` describes what was
    recognised.

    Parameters
    ----------
    source : path, "-", DataFrame, datasets.Dataset, list or iterator of dict, dict of columns, or PreferenceTable
        Paths end in ``.jsonl``, ``.ndjson``, ``.json``, ``.csv`` or ``.tsv``, each with ``.gz``, ``.bz2``, ``.xz``,
        ``.zst`` or without, in ``.parquet``, ``.arrow`` or ``.feather``, or are folders that ``save_to_disk`` wrote.
        ``"-"`` is standard input. Tables of Polars and Arrow are read like those of pandas. A PreferenceTable is
        returned unchanged.
    columns : dict of str to str, optional
        New name to name in the source, for columns with other names: ``{"chosen": "better", "topic": "label"}``.
    labels : dict of str, number or bool to {"first", "second", "tie"}, optional
        Meaning of the labels of the source, if it differs from the above: ``{0: "first", 1: "second", 2: "tie"}``.
        Case, outer spaces and the type do not matter: 1, 1.0 and "1" are one label. Labels outside the mapping keep
        their meaning, unless the mapping reverses the meaning of a label (as 0 above): then only ties keep their
        meaning. Any other label is an error.
    format : str, optional
        The layout, if it is not recognised by the columns: "arena", "openai", "sharegpt", "label-studio", "hh-rlhf" or
        "ultrafeedback"; or the file format, if the name of the file does not show it: "jsonl", "json", "csv", "tsv",
        "parquet".
    annotators : str or sequence of str, optional
        Columns that each hold the labels of one annotator (as text: separated by commas). Each label becomes a row of
        that user.
    encoding : str, optional
        Encoding of a text file, such as "cp1252". By default UTF-16 or UTF-32 if the file begins with their byte-order
        mark, otherwise UTF-8.
    skip_bad : bool, default=False
        Skip bad rows instead of stopping at the first one. They are counted by kind in a UserWarning, in ``n_rejected``
        and in ``report``, and written to `rejected_path`.
    rejected_path : path, optional
        File for skipped rows, as JSON lines ``{"line": number, "reason": ..., "row": ...}``. By default beside the
        source with ``.rejected.jsonl`` appended to its name; nowhere if the source is in memory.

    Returns
    -------
    PreferenceTable

    Raises
    ------
    MalformedRowError
        At the first bad row: "FILE, line 3: expected X, got Y". Lines of text files are counted from 1, and a CSV
        record has the number of its first line; rows of other sources are counted from 0. Also, even if bad rows are
        skipped, at the first unknown label and at the first byte that is invalid in the encoding, because these are
        errors of the whole source.
    ValueError
        If nothing can be read, all rows are bad, the suffix is unknown, `columns`, `labels`, `format`, `annotators` or
        `encoding` does not fit the source, columns contradict one another, or `rejected_path` is the source. Also if
        two numbers mean the same response and `labels` does not name both, such as 0 and -1, because one of them may be
        a tie.
    TypeError
        If the type of the source is unknown, or `labels` is not a mapping.
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
        for name, given in (("format", format), ("annotators", annotators), ("encoding", encoding)):
            if given is not None:
                raise ValueError(f"expected a PreferenceTable without {name}=, got {given!r}; it is read already")
        return source
    reader = LabelReader.of(labels)
    opened = opened_for_reading(source, columns or {}, format=format, annotators=annotators, encoding=encoding)
    if skip_bad:
        refuse_source_as_rejected(opened, rejected_path)
    layout = find_layout(opened, columns or {}, reader)
    return table_of(opened, layout, skip_bad=skip_bad, rejected_path=rejected_path, way_out=_TO_SKIP)
