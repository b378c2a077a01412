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

    The layout is found from the columns present, whatever the case, the spaces and the underscores of their names:

    - Two responses of which one is named as preferred: ``chosen`` and ``rejected`` (``preferred_output`` and
      ``non_preferred_output``, ``better`` and ``worse``, …).
    - Two responses in an order, ``response_a`` and ``response_b`` (``answer1`` and ``answer2``, ``output_left`` and
      ``output_right``, …), with a column that says which was preferred (``label``, ``winner``, ``preference``,
      ``better``, ``choice``, …): 1, true, "a", "model_a", "first" and other names for the first; 0, -1, 2, false, "b",
      "model_b", "second" for the second; 0.5, "tie" or "both_bad" for neither.

    In both, a column ``tie`` that is true says that neither was preferred. Columns that answer twice which one was,
    such as ``chosen``, ``rejected`` and ``label``, are an error.

    Prompts (``prompt``, ``question``, ``instruction``, ``query``, ``input``, …), contexts and responses are text, or
    lists of messages with "role" and "content" or "from" and "value"; also as text that spells out such a list. What
    both responses repeat of a conversation belongs to the prompt, and a column ``system`` opens it. Without a column
    for the prompt it is what two conversations, or two transcripts as in HH-RLHF, begin with.

    Optional columns are ``context``, the user (``user``, ``worker``, ``annotator``, ``judge``, ``rater_id``, …) and
    ``weight``. All others come along as ``extra``. An integer names the same user in every format, as 12, as 12.0 and
    as text; None, NaN, -1 and blank text are no user, and in CSV so are NA, null and the other marks of missing values.

    A tie becomes two adjacent rows, one in each order, each of half the weight. What was understood of the source is in
    ``table.report``.

    Parameters
    ----------
    source : path, "-", DataFrame, datasets.Dataset, list or iterator of dict, dict of columns, or PreferenceTable
        Paths end in ``.jsonl``, ``.ndjson``, ``.json``, ``.csv`` or ``.tsv``, each with ``.gz``, ``.bz2``, ``.xz``,
        ``.zst`` or without, in ``.parquet``, ``.arrow`` or ``.feather``, or are folders that ``save_to_disk`` wrote.
        ``"-"`` is standard input. Tables of Polars and Arrow are read as those of pandas. A PreferenceTable is returned
        as it is.
    columns : dict of str to str, optional
        New name to name in the source, for columns called otherwise: ``{"chosen": "better", "topic": "label"}``.
    labels : dict of str, number or bool to {"first", "second", "tie"}, optional
        What the labels of the source mean, where it is not the above: ``{0: "first", 1: "second", 2: "tie"}``. Case,
        outer spaces and the type do not matter: 1, 1.0 and "1" are one label. Labels that are not named keep their
        meaning, unless the mapping reverses the meaning of one (as 0 above): then only names of ties do. Labels of
        neither kind are an error.
    format : str, optional
        The layout, which is otherwise found from the columns: "arena", "openai", "sharegpt", "label-studio", "hh-rlhf"
        or "ultrafeedback"; or how a file is written, where its name does not say so: "jsonl", "json", "csv", "tsv",
        "parquet".
    annotators : str or sequence of str, optional
        Columns with the labels of one annotator each (text: separated by commas). Each becomes a row of that user.
    encoding : str, optional
        Of a file of text, such as "cp1252". By default UTF-16 or UTF-32 where the file begins with the mark of these,
        else UTF-8.
    skip_bad : bool, default=False
        Leave bad rows out, count them by kind in a UserWarning, in ``n_rejected`` and in ``report``, and write them to
        `rejected_path`, instead of stopping at the first.
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
        Also, whether bad rows are skipped or not, at the first label that is not understood and at the first byte that
        is not in the encoding: these are faults of the source.
    ValueError
        If nothing can be read, all rows are bad, the suffix is unknown, `columns`, `labels`, `format`, `annotators` or
        `encoding` does not fit the source, columns contradict one another, or `rejected_path` is the source. Also if
        two numbers would mean the same response and `labels` does not name both, such as 0 and -1, of which one may be
        a tie.
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
