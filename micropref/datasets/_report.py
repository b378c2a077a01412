"""What a reader understood of a source, what it left out, and why."""

from __future__ import annotations

import json
import os
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from micropref._support.warnings import level_of_caller
from micropref.datasets._faults import kind_of
from micropref.datasets._sources import Record, Source

__all__ = ["ReadReport"]


@dataclass(frozen=True, kw_only=True)
class ReadReport:
    """Layout and columns that `read_preferences` recognised in a source.

    Attributes
    ----------
    source : str
        Name of the source.
    n_rows : int
        Rows of the source.
    n_rejected : int
        Rows that were left out, because `skip_bad` allows it.
    faults : dict of str to int
        How many rows were left out for which kind of reason.
    columns : dict of str to str
        Column of the source by what it was taken for: ``{"prompt": "question", "user": "judge"}``.
    notes : tuple of str
        What else was found: the format, the encoding, the separator, columns that look like an id and are not used.
    """

    source: str
    n_rows: int
    n_rejected: int = 0
    faults: Mapping[str, int] = field(default_factory=dict)
    columns: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        """One line: ``user: judge; label: winner``."""
        return "; ".join((*(f"{role}: {column}" for role, column in self.columns.items()), *self.notes))

    @property
    def is_plain(self) -> bool:
        """Whether all columns have the library's own names, so that no name had to be recognised.

        Returns
        -------
        is_plain : bool
        """
        return not self.notes and all(
            column == role or set(column.split(", ")) <= _OWN.get(role, set()) for role, column in self.columns.items()
        )

    @staticmethod
    def together(reports: Iterable[ReadReport | None]) -> ReadReport | None:
        """One report of several sources; None if one of them has none.

        Parameters
        ----------
        reports : iterable of ReadReport or None

        Returns
        -------
        report : ReadReport or None
        """
        found: list[ReadReport] = []
        for report in reports:
            if report is None:
                return None
            found.append(report)
        faults: Counter[str] = Counter()
        for report in found:
            faults.update(report.faults)
        return ReadReport(
            source=", ".join(dict.fromkeys(report.source for report in found)),
            n_rows=sum(report.n_rows for report in found),
            n_rejected=sum(report.n_rejected for report in found),
            faults=dict(faults.most_common()),
        )

    def left_out(self) -> str:
        """Number of rows left out, with the reasons: ``2 of 480 rows are left out (1 empty …)``.

        Returns
        -------
        text : str
            Empty if there are none.
        """
        if not self.n_rejected:
            return ""
        kinds = ", ".join(f"{count} {kind}" for kind, count in self.faults.items())
        return f"{self.n_rejected} of {self.n_rows} rows are left out ({kinds})"


_OWN = {
    "user": {"group", "user", "user_id", "worker", "annotator", "annotator_id"},
    "label": {"label", "preference"},
    "responses": {"response_a", "response_b", "first", "second", "response_1", "response_2"},
}


def report_rejected(
    source: Source,
    rejected: Sequence[tuple[Record, ValueError]],
    rejected_path: str | os.PathLike[str] | None,
) -> dict[str, int]:
    """Write the rows that are left out, and say in a warning how many there are of each kind, which are returned.

    Raises
    ------
    ValueError
        If no row is left.
    """
    if rejected_path is None and source.path is not None:
        rejected_path = f"{source.path}.rejected.jsonl"
    if rejected_path is not None:
        # A lone surrogate becomes \\udXXX, which inside a JSON string is its escape.
        with open(rejected_path, "w", encoding="utf-8", errors="backslashreplace", newline="\n") as file:
            for record, reason in rejected:
                row = {"line": record.number, "reason": str(reason), "row": record.cells}
                file.write(json.dumps(row, ensure_ascii=False, default=str, skipkeys=True) + "\n")
    kept = "" if rejected_path in (None, os.devnull) else f"; they are kept in {os.fspath(rejected_path or '')}"
    kinds = dict(Counter(kind_of(fault) for _, fault in rejected).most_common())
    first = f"the first is {source.unit} {rejected[0][0].number}: {rejected[0][1]}"
    counted = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
    if len(rejected) == len(source.records):
        raise ValueError(f"{source.name}: expected good rows, got {len(rejected)} bad ones only{kept}; {first}")
    warnings.warn(
        f"{source.name}: {len(rejected)} of {len(source.records)} rows are left out{kept}; {first}; by kind: {counted}",
        UserWarning,
        stacklevel=level_of_caller(),
    )
    return kinds


def refuse_source_as_rejected(source: Source, rejected_path: str | os.PathLike[str] | None) -> None:
    """A ValueError if the file for rows that are left out is the source itself, whose data it would replace."""
    if rejected_path is None or source.path is None:
        return
    kept = Path(rejected_path)
    if kept.exists() and source.path.exists() and kept.samefile(source.path):
        raise ValueError(
            f"{os.fspath(rejected_path)}: expected a separate file for the skipped rows, got the file of the data, "
            "which they would replace; name another file: rejected_path=..., in the shell --rejected FILE"
        )
