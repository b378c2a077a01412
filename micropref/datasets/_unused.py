"""Columns that repeat like an id and are not used: they may name the users, and are mentioned."""

from __future__ import annotations

import re
from typing import Any

from micropref._rows.vocabulary import meaning_of
from micropref.datasets._names import spelled
from micropref.datasets._sources import Source

__all__ = ["like_ids"]

# Columns whose values repeat for other reasons than that the same person answered.
_OTHER = re.compile(
    r"model|lang|categor|topic|source|split|turn|dataset|task|domain|type|subset|version|score|rating|rank|tag|date"
    r"|time|country|gender|age|prompt|question|length|token|strength|margin|aspect|criteri|judgment|status|config|level"
)
_PERSON = re.compile(
    r"user|worker|annot|rater|judge|label+er|person|subject|particip|email|reviewer|member|author|expert"
)
_LONGEST = 64
_AT_MOST = 2


def like_ids(source: Source, columns: list[str], *, has_user: bool) -> tuple[str, ...]:
    """A note on each unused column whose cells repeat like an id.

    Parameters
    ----------
    source : Source
    columns : list of str
        Columns that nothing uses.
    has_user : bool
        Whether the users are known from another column; then only columns whose name speaks of a person are mentioned.
    """
    notes = []
    for column in columns:
        name = spelled(column)
        speaks_of_person = _PERSON.search(name) is not None
        if (_OTHER.search(name) and not speaks_of_person) or (has_user and not speaks_of_person):
            continue
        cells = [record.cells.get(column) for record in source.records if not record.fault]
        values = _ids(cells)
        if values is None:
            continue
        n_distinct, n = len(set(values)), len(values)
        if n_distinct > 1 and n >= 2 * n_distinct and (speaks_of_person or _look_like_ids(values)):
            way = "" if has_user else f": if it names the users, --column user={column}, columns={{'user': {column!r}}}"
            notes.append(f"not used: {column}, which repeats like an id ({n_distinct} values in {n} rows){way}")
    return tuple(notes[:_AT_MOST])


def _look_like_ids(values: list[Any]) -> bool:
    """Whether values look like ids and not like categories or ratings: numbers beyond a scale, or text with digits."""
    distinct = set(values)
    if all(isinstance(value, int) for value in distinct):
        return len(distinct) > 2 and not all(-10 <= value <= 10 for value in distinct)
    return len(distinct) > 2 and all(any(letter.isdigit() or letter == "@" for letter in str(v)) for v in distinct)


def _ids(cells: list[Any]) -> list[Any] | None:
    """The cells that hold something if all of these may be ids, else None."""
    values = [cell for cell in cells if cell is not None and cell == cell and cell != ""]
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int | str):
            return None
        if isinstance(value, str) and (len(value) > _LONGEST or " " in value.strip() or meaning_of(value)):
            return None
    return values or None
