"""Layouts of public files that names of columns alone do not explain: each is rewritten to rows with plain columns."""

from __future__ import annotations

from dataclasses import replace

from micropref.datasets._faults import ways_to_name
from micropref.datasets._files import KINDS
from micropref.datasets._formats import arena, label_studio, named, ultrafeedback
from micropref.datasets._formats.protocol import Format
from micropref.datasets._names import nearest
from micropref.datasets._sources import Source
from micropref.datasets._text import listed

__all__ = ["FORMATS", "file_kind", "rewritten"]

#: Every format by the name that ``format=`` and ``--format`` take.
FORMATS: dict[str, Format] = {
    one.name: one
    for one in (
        arena.FORMAT,
        named.OPENAI,
        named.SHAREGPT,
        label_studio.FORMAT,
        named.HH_RLHF,
        ultrafeedback.FORMAT,
    )
}


def file_kind(format: str | None) -> str | None:
    """The kind of file that a format names, such as "csv"; None for a format of columns, or for none."""
    if format is None or format in FORMATS:
        return None
    if format not in KINDS:
        raise ValueError(
            f"format: expected one of {listed(FORMATS)}, or how a file is written ({listed(KINDS)}), got {format!r}"
            f"{nearest(format, (*FORMATS, *KINDS))}"
        )
    return format


def rewritten(source: Source, format: str | None) -> Source:
    """The source with rows of plain columns, if it has one of the formats; as it is if it has none.

    Raises
    ------
    ValueError
        If it does not have the format that is named.
    """
    if format in FORMATS:
        chosen = FORMATS[format]
        if not chosen.fits(source):
            columns = source.columns
            hint = next((near for name in chosen.columns if (near := nearest(name, columns))), "")
            raise ValueError(
                f"{source.name}: expected {chosen.expected} for the format {chosen.name!r}, got the columns "
                f"{listed(columns)}{hint}; leave the format out, or say which column is which: "
                f"{ways_to_name(dict.fromkeys(chosen.columns, 'NAME'))}"
            )
        return _noted(chosen.rewrite(source), chosen)
    found = next((one for one in FORMATS.values() if one.is_detected and one.fits(source)), None)
    return source if found is None else _noted(found.rewrite(source), found)


def _noted(source: Source, format: Format) -> Source:
    return replace(source, notes=(*source.notes, f"format: {format.name}"))
