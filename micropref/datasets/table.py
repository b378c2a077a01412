"""PreferenceTable: comparisons of texts, column by column."""

from __future__ import annotations

import gzip
import json
import numbers
import os
import reprlib
import warnings
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from micropref._rows.ids import user_id
from micropref._support.optional import require
from micropref._support.renamed import moved
from micropref._support.warnings import level_of_caller
from micropref.datasets._report import ReadReport
from micropref.datasets._text import is_blank, is_unicode

if TYPE_CHECKING:
    import pandas

__all__ = ["PreferenceTable"]

__getattr__ = moved(__name__)

COLUMNS = ("prompt", "chosen", "rejected", "context", "group", "weight")

# `label` and `tie` beside chosen and rejected say which one was preferred; in a table that is settled already.
_NOT_EXTRA = frozenset({*COLUMNS, "label", "tie"})


@dataclass(frozen=True, init=False, eq=False, repr=False)
class PreferenceTable:
    """An immutable table of comparisons in which ``chosen`` is always the preferred response.

    It has ``len`` and ``shape`` and is sliced like a one-dimensional array, so it can be the ``X`` of a
    scikit-learn pipeline, of ``cross_val_predict`` and of ``train_test_split``.

    Parameters
    ----------
    prompt : sequence of n str
        The prompts; ``""`` if a prompt is unknown.
    chosen, rejected : sequence of n str
        The preferred and the other response: not blank, and not the same text.
    context : sequence of n str, optional
        A stated criterion or a user profile; ``""`` for a row without one.
    group : sequence of n ids, optional
        Ids of the annotators: integers, text or tuples of these. None, NaN, -1 and blank text mean no user and are
        stored as None. Integers are stored as integers, in whichever form they are written (12, 12.0, "12").
    weight : array-like of n numbers, optional
        Finite and not negative.
    extra : mapping of str to sequences of n cells, optional
        Other columns, of any type. They must not have the name of a column of the table, ``label`` or ``tie``.
    n_rejected : int, default=0
        Number of rows that a reader left out; 0 for a part of a table.
    report : ReadReport, optional
        What a reader recognised in its source; None for a part of a table.
    *old : int
        `n_rejected` by position, as 0.1 took it; deprecated.

    Attributes
    ----------
    prompt, chosen, rejected : list of str
    context : list of str or None
    group : ndarray of shape (n,), dtype object, or None
    weight : ndarray of shape (n,), dtype float64, or None
    extra : dict of str to list
    n_rejected : int
    report : ReadReport or None
        ``print(table.report)`` shows the role of each column in one line.

    Raises
    ------
    ValueError
        If columns differ in length, or a cell is invalid in its column.

    Examples
    --------
    >>> from micropref.datasets import PreferenceTable
    >>> table = PreferenceTable(
    ...     prompt=["Say hello."] * 2, chosen=["Hello!", "Hi."], rejected=["Go away.", "Hello!"], group=["ann", "bob"]
    ... )
    >>> table
    PreferenceTable(2 rows, 1 prompt, 2 groups, no contexts)
    >>> table[1]["chosen"]
    'Hi.'
    >>> table[table.group == "ann"].chosen
    ['Hello!']
    """

    prompt: list[str]
    chosen: list[str]
    rejected: list[str]
    context: list[str] | None
    group: NDArray[np.object_] | None
    weight: NDArray[np.float64] | None
    extra: dict[str, list[Any]]
    n_rejected: int
    report: ReadReport | None

    def __init__(
        self,
        prompt: Sequence[str],
        chosen: Sequence[str],
        rejected: Sequence[str],
        context: Sequence[str] | None = None,
        group: Sequence[Any] | NDArray[Any] | None = None,
        weight: ArrayLike | None = None,
        extra: Mapping[str, Sequence[Any]] | None = None,
        *old: int,
        n_rejected: int = 0,
        report: ReadReport | None = None,
    ) -> None:
        n_rejected = _only_by_name(old, n_rejected)
        columns: dict[str, Any] = {
            "prompt": _text_column("prompt", prompt),
            "chosen": _text_column("chosen", chosen),
            "rejected": _text_column("rejected", rejected),
            "context": None if context is None else _text_column("context", context),
            "group": None if group is None else _group_column(group),
            "weight": None if weight is None else _weight_column(weight),
        }
        extra_columns = {name: list(cells) for name, cells in (extra or {}).items()}
        _check_extra_names(extra_columns)
        _check_lengths(columns | extra_columns)
        _check_answers(columns["chosen"], columns["rejected"])
        known = {"extra": extra_columns, "n_rejected": n_rejected, "report": report}
        for name, column in {**columns, **known}.items():
            object.__setattr__(self, name, column)

    def __len__(self) -> int:
        return len(self.chosen)

    @property
    def shape(self) -> tuple[int]:
        """``(n,)``, so that scikit-learn slices a table as it slices an array."""
        return (len(self),)

    def __getitem__(self, rows: Any) -> Any:
        """One row as a dict for an integer, else the rows of a slice, boolean mask or integer array as a table."""
        if isinstance(rows, tuple) and len(rows) == 2 and rows[1] is Ellipsis:
            rows = rows[0]
        if isinstance(rows, numbers.Integral):
            return {name: column[int(rows)] for name, column in self._columns().items()}
        positions = np.arange(len(self))[rows if isinstance(rows, slice) else _row_index(rows)]
        return PreferenceTable(
            prompt=[self.prompt[i] for i in positions],
            chosen=[self.chosen[i] for i in positions],
            rejected=[self.rejected[i] for i in positions],
            context=None if self.context is None else [self.context[i] for i in positions],
            group=None if self.group is None else self.group[positions],
            weight=None if self.weight is None else self.weight[positions],
            extra={name: [cells[i] for i in positions] for name, cells in self.extra.items()},
        )

    def __eq__(self, other: object) -> bool:
        """Whether every column holds the same cells in the same rows; ``n_rejected`` and ``report`` are not."""
        if not isinstance(other, PreferenceTable):
            return NotImplemented
        mine, theirs = self._columns(), other._columns()
        return mine.keys() == theirs.keys() and all(list(mine[name]) == list(theirs[name]) for name in mine)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        groups = None if self.group is None else {one for one in self.group if one is not None}
        parts = [
            _count(len(self), "row"),
            _count(len(set(self.prompt)), "prompt"),
            _count(len(groups or ()), "group"),
            _count(len(set(self.context or ()) - {""}), "context"),
        ]
        if self.weight is not None:
            parts.append("weighted")
        if self.extra:
            parts.append(f"extra: {', '.join(self.extra)}")
        return f"PreferenceTable({', '.join(parts)})"

    @staticmethod
    def concat(tables: Iterable[PreferenceTable]) -> PreferenceTable:
        """Tables one below the other.

        A column that only some of the tables have is filled: contexts with ``""``, groups and extra columns with None,
        weights with 1.

        Parameters
        ----------
        tables : iterable of PreferenceTable
            At least one.

        Returns
        -------
        PreferenceTable

        Raises
        ------
        ValueError
            If there is no table.
        """
        tables = list(tables)
        if not tables:
            raise ValueError("expected at least one table, got none")

        def stacked(name: str, filler: object) -> list[Any] | None:
            columns = [table._columns().get(name) for table in tables]
            if all(column is None for column in columns):
                return None
            pairs = zip(tables, columns, strict=True)
            return [cell for table, column in pairs for cell in ([filler] * len(table) if column is None else column)]

        extra_names = dict.fromkeys(name for table in tables for name in table.extra)
        return PreferenceTable(
            prompt=stacked("prompt", "") or [],
            chosen=stacked("chosen", "") or [],
            rejected=stacked("rejected", "") or [],
            context=stacked("context", ""),
            group=stacked("group", None),
            weight=stacked("weight", 1.0),
            extra={name: stacked(name, None) or [] for name in extra_names},
            n_rejected=sum(table.n_rejected for table in tables),
            report=tables[0].report if len(tables) == 1 else ReadReport.together(table.report for table in tables),
        )

    def to_pandas(self) -> pandas.DataFrame:
        """The table as a pandas DataFrame with one column for each column that exists, extra ones last.

        Returns
        -------
        pandas.DataFrame
            It reads back with `read_preferences`.

        Raises
        ------
        ImportError
            If pandas is not installed.
        """
        return require("pandas", "Turning a table into a DataFrame").DataFrame(self._columns())

    def to_jsonl(self, path: str | os.PathLike[str]) -> None:
        """Write one JSON object per line, compressed if the name ends in ``.gz``; `read_preferences` reads it back.

        Parameters
        ----------
        path : path
            Usually named ``.jsonl`` or ``.jsonl.gz``. An existing file is replaced.

        Raises
        ------
        TypeError
            If an id or an extra column holds something that JSON cannot, with the row.
        """
        columns = self._columns()
        if self.weight is not None:
            columns["weight"] = self.weight.tolist()
        # A lone surrogate in an extra column becomes \udXXX, which inside a JSON string is its escape.
        opener: Any = gzip.open if Path(path).suffix.lower() == ".gz" else open
        with opener(path, "wt", encoding="utf-8", errors="backslashreplace", newline="\n") as file:
            for row, cells in enumerate(zip(*columns.values(), strict=True)):
                try:
                    line = json.dumps(dict(zip(columns, cells, strict=True)), ensure_ascii=False, default=_from_numpy)
                except TypeError as error:
                    raise TypeError(f"row {row} cannot be written as JSON: {error}") from None
                file.write(line + "\n")

    def _columns(self) -> dict[str, Any]:
        columns = {name: getattr(self, name) for name in COLUMNS}
        return {name: column for name, column in columns.items() if column is not None} | self.extra


def _only_by_name(old: tuple[int, ...], n_rejected: int) -> int:
    """`n_rejected`, which 0.1 also took by position."""
    if not old:
        return n_rejected
    if len(old) > 1:
        raise TypeError(f"expected at most 8 arguments by position, got {7 + len(old)}")
    warnings.warn(
        "pass n_rejected by name: micropref 0.3 will refuse it by position",
        FutureWarning,
        stacklevel=level_of_caller(),
    )
    return old[0]


def _text_column(name: str, texts: Sequence[str] | NDArray[Any]) -> list[str]:
    if isinstance(texts, str):
        raise ValueError(f"{name}: expected a list with a text for each row, got one text")
    column = texts.tolist() if isinstance(texts, np.ndarray) else list(texts)
    for row, text in enumerate(column):
        if not isinstance(text, str):
            raise ValueError(f"{name}, row {row}: expected text, got {reprlib.repr(text)}")
        if not is_unicode(text):
            raise ValueError(f"{name}, row {row}: expected text that can be written as UTF-8, got a lone surrogate")
    return column


def _group_column(groups: Iterable[object]) -> NDArray[np.object_]:
    ids: list[Hashable | None] = []
    for row, group in enumerate(groups):
        try:
            ids.append(user_id(group))
        except ValueError as error:
            raise ValueError(f"group, row {row}: {error}") from None
    column = np.empty(len(ids), dtype=object)
    column[:] = ids
    column.flags.writeable = False
    return column


def _weight_column(weight: ArrayLike) -> NDArray[np.float64]:
    column = np.array(weight, dtype=np.float64)
    if column.ndim != 1:
        raise ValueError(f"weight: expected one number for each row, got shape {column.shape}")
    bad = np.flatnonzero(~(np.isfinite(column) & (column >= 0)))
    if bad.size:
        raise ValueError(f"weight, row {bad[0]}: expected a finite number that is not negative, got {column[bad[0]]}")
    column.flags.writeable = False
    return column


def _check_extra_names(extra: Mapping[Any, object]) -> None:
    for name in extra:
        if not isinstance(name, str):
            raise ValueError(f"extra: expected text as the name of a column, got {name!r}")
        if name in _NOT_EXTRA:
            raise ValueError(f"extra: expected another name, got {name!r}, which means something else in a table")


def _check_lengths(columns: Mapping[str, Any]) -> None:
    lengths = {name: len(column) for name, column in columns.items() if column is not None}
    if len(set(lengths.values())) > 1:
        found = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise ValueError(f"expected columns of one length, got columns of different lengths ({found})")


def _check_answers(chosen: list[str], rejected: list[str]) -> None:
    for row, (better, worse) in enumerate(zip(chosen, rejected, strict=True)):
        if is_blank(better) or is_blank(worse):
            raise ValueError(f"row {row}: expected text, got an empty {'chosen' if is_blank(better) else 'rejected'}")
        if better == worse:
            raise ValueError(f"row {row}: expected two different responses, got the same text twice")


def _row_index(rows: Any) -> NDArray[Any]:
    index = np.asarray(rows)
    if index.size == 0 and index.ndim == 1:
        return index.astype(np.intp)
    if isinstance(rows, tuple) or index.ndim != 1 or index.dtype.kind not in "biu":
        raise IndexError(
            "expected an integer, a slice, a boolean mask or an array of integers (columns are attributes: "
            f"table.chosen, table.extra[...]), got the index {reprlib.repr(rows)}"
        )
    return index


def _count(number: int, what: str) -> str:
    return f"{number or 'no'} {what}{'' if number == 1 else 's'}"


def _from_numpy(value: Any) -> object:
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"expected what JSON can hold, got a {type(value).__name__}")
