"""From rows of a published set to a table: what is expected of cells, and what becomes of bad rows."""

from __future__ import annotations

import math
import reprlib
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import numpy as np
from sklearn.utils import check_random_state

from micropref._support.warnings import level_of_caller
from micropref.datasets._chat import Speech, read_speech
from micropref.datasets._faults import MalformedRowError, RowFault, kind_of
from micropref.datasets._report import ReadReport
from micropref.datasets._sources import Record, Source
from micropref.datasets._text import is_blank, listed
from micropref.datasets.rating_table import RatingTable
from micropref.datasets.table import PreferenceTable

_T = TypeVar("_T")


@dataclass(frozen=True)
class Comparison:
    """One row of the table to be; texts are checked when it is made."""

    prompt: str
    chosen: str
    rejected: str
    context: str = ""
    group: Any = None
    weight: float = 1.0
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for text in (self.chosen, self.rejected):
            if is_blank(text):
                raise RowFault("an empty response", "expected text, got an empty response")
        if self.chosen == self.rejected:
            raise RowFault("the same response twice", "expected two different responses, got the same text in both")


class Reading:
    """The rows of one source, read one by one: a bad one stops it or, if they may be skipped, is counted."""

    def __init__(self, source: Source, skip_bad: bool) -> None:
        self.source = source
        self._skip_bad = skip_bad
        self._faults: list[str] = []
        self._kinds: Counter[str] = Counter()

    def each(self, parse: Callable[[Mapping[str, Any]], _T], expected: Sequence[str]) -> list[tuple[Record, _T]]:
        """What `parse` makes of the cells of every row that has the columns `expected`, with the row."""
        if not self.source.records:
            raise ValueError(f"{self.source.name}: expected rows, got an empty source")
        parsed = []
        for record in self.source.records:
            one = self.attempt(record, partial(_parsed, parse, record, expected))
            if one is not None:
                parsed.append((record, one))
        return parsed

    def attempt(self, record: Record, make: Callable[[], _T]) -> _T | None:
        """What `make` returns, or None if it raises a ValueError and bad rows may be skipped."""
        try:
            return make()
        except ValueError as fault:
            place = f"{self.source.unit} {record.number}: {fault}"
            if not self._skip_bad:
                raise MalformedRowError(f"{self.source.name}, {place} (skip_bad=True leaves such rows out)") from None
            self._faults.append(place)
            self._kinds[kind_of(fault)] += 1
            return None

    def table(
        self,
        comparisons: Iterable[Comparison],
        *,
        has_context: bool = False,
        has_group: bool = False,
        is_weighted: bool = False,
    ) -> PreferenceTable:
        """The comparisons as a table; what was left out is said in a UserWarning and in ``n_rejected``.

        Raises
        ------
        ValueError
            If all rows are bad.
        """
        rows = list(comparisons)
        self._say_what_was_left_out(bool(rows))
        names = dict.fromkeys(name for row in rows for name in row.extra)
        return PreferenceTable(
            prompt=[row.prompt for row in rows],
            chosen=[row.chosen for row in rows],
            rejected=[row.rejected for row in rows],
            context=[row.context for row in rows] if has_context else None,
            group=[row.group for row in rows] if has_group else None,
            weight=[row.weight for row in rows] if is_weighted else None,
            extra={name: [row.extra.get(name) for row in rows] for name in names},
            n_rejected=len(self._faults),
            report=ReadReport(
                source=self.source.name,
                n_rows=len(self.source.records),
                n_rejected=len(self._faults),
                faults=dict(self._kinds),
            ),
        )

    def ratings(self, rated: Iterable[tuple[str, str, Mapping[str, float]]], attributes: Sequence[str]) -> RatingTable:
        """Prompts, responses and their scores by attribute, NaN where there is none; the rest as in `table`."""
        rows = list(rated)
        self._say_what_was_left_out(bool(rows))
        scores = [[given.get(name, math.nan) for name in attributes] for _, _, given in rows]
        return RatingTable(
            prompt=[prompt for prompt, _, _ in rows],
            response=[response for _, response, _ in rows],
            scores=np.array(scores, dtype=np.float64).reshape(len(rows), len(attributes)),
            attributes=tuple(attributes),
            n_rejected=len(self._faults),
            source=self.source.name,
        )

    def _say_what_was_left_out(self, any_good: bool) -> None:
        if not self._faults:
            return
        counted = f"{len(self._faults)} of {len(self.source.records)} rows"
        if not any_good:
            raise ValueError(
                f"{self.source.name}: expected a good row, got none; {counted} are bad, first {self._faults[0]}"
            )
        warnings.warn(
            f"{self.source.name}: {counted} are left out; the first is {self._faults[0]}",
            UserWarning,
            stacklevel=level_of_caller(),
        )


def _parsed(parse: Callable[[Mapping[str, Any]], _T], record: Record, expected: Sequence[str]) -> _T:
    return parse(cells_of(record, expected))


def cells_of(record: Record, expected: Sequence[str]) -> Mapping[str, Any]:
    """The cells of a row, ValueError unless it is readable and has the expected columns."""
    if record.fault:
        raise ValueError(record.fault)
    missing = [name for name in expected if name not in record.cells]
    if missing:
        raise ValueError(f"expected the columns {listed(missing)} too, got {listed(record.cells)}")
    cells: Mapping[str, Any] = record.cells
    return cells


def text_of(cells: Mapping[str, Any], column: str, *, may_be_blank: bool = False) -> str:
    """The text in a column, ValueError if it holds something else or, unless it may be, is blank."""
    text = read_speech(cells[column], column)
    if not isinstance(text, str):
        raise ValueError(f"expected text, got {reprlib.repr(cells[column])} in column {column!r}")
    if not may_be_blank and is_blank(text):
        raise ValueError(f"expected text, got an empty one in column {column!r}")
    return text


def number_of(cells: Mapping[str, Any], column: str) -> float:
    """The finite number in a column."""
    cell = cells[column]
    try:
        number = float(cell)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if isinstance(cell, bool) or not math.isfinite(number):
        raise ValueError(f"expected a number, got {reprlib.repr(cell)} in column {column!r}")
    return number


def speech_of(cells: Mapping[str, Any], column: str) -> Speech:
    """Text or messages; one message may stand alone, and the role "model" is the assistant."""
    cell = cells[column]
    speech = read_speech([cell] if isinstance(cell, Mapping) else cell, column)
    if isinstance(speech, str):
        return speech
    return [("assistant" if role == "model" else role, content) for role, content in speech]


def split_by(
    table: PreferenceTable, keys: Sequence[Any], test_size: float, random_state: Any
) -> tuple[PreferenceTable, PreferenceTable]:
    """Two tables of which none has a key of the other; `test_size` is the share of the distinct keys.

    Raises
    ------
    ValueError
        If the share is not between 0 and 1, or a side would have no key.
    """
    if isinstance(test_size, bool) or not isinstance(test_size, int | float) or not 0 < test_size < 1:
        raise ValueError(f"expected a test_size between 0 and 1, the share of the test, got {test_size!r}")
    distinct = list(dict.fromkeys(keys))
    n_test = round(test_size * len(distinct))
    if not 0 < n_test < len(distinct):
        raise ValueError(f"expected a test_size that leaves no side empty, got {test_size} of {len(distinct)}")
    order = check_random_state(random_state).permutation(len(distinct))
    in_test = {distinct[i] for i in order[:n_test]}
    is_test = [key in in_test for key in keys]
    train = [row for row, held_out in enumerate(is_test) if not held_out]
    test = [row for row, held_out in enumerate(is_test) if held_out]
    return table[train], table[test]
