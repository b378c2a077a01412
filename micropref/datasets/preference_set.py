"""PreferenceSet: the tables of a published set, and what has to be said when they are used."""

from __future__ import annotations

from dataclasses import dataclass

from micropref.datasets.table import PreferenceTable

__all__ = ["PreferenceSet"]


@dataclass(frozen=True, eq=False, kw_only=True)
class PreferenceSet:
    """Comparisons of a published set, with its licence and its citation.

    Attributes
    ----------
    name : str
    train, validation, test : PreferenceTable or None
        None where the set has no such part.
    licence : str
        What the publishers allow, in their terms; what is unknown is said to be unknown.
    citation : str
        Authors, year, title and arXiv number of what to cite.
    source : str
        Where the rows came from: a name on the hub with its revision, a path, or the kind of object.
    """

    name: str
    train: PreferenceTable | None = None
    validation: PreferenceTable | None = None
    test: PreferenceTable | None = None
    licence: str = "unknown"
    citation: str = "unknown"
    source: str = "unknown"

    def __repr__(self) -> str:
        parts = {part: getattr(self, part) for part in ("train", "validation", "test")}
        rows = [f"{part} {len(table)}" for part, table in parts.items() if table is not None]
        return f"{type(self).__name__}({self.name!r}, rows: {', '.join(rows) or 'none'}, licence: {self.licence})"
