"""Formats whose columns have names of the common table: what they are called, and how their cells look."""

from __future__ import annotations

from micropref.datasets._cells import is_conversation, unpacked
from micropref.datasets._faults import RowFault
from micropref.datasets._formats.protocol import Format, column_by_spelling, same
from micropref.datasets._prompts import is_transcript
from micropref.datasets._sources import Source

__all__ = ["HH_RLHF", "OPENAI", "SHAREGPT"]


def _fits_openai(source: Source) -> bool:
    return {"input", "preferredoutput", "nonpreferredoutput"} <= column_by_spelling(source).keys()


def _fits_sharegpt(source: Source) -> bool:
    columns = column_by_spelling(source)
    if not {"conversations", "chosen", "rejected"} <= columns.keys():
        return False
    cells = [record.cells.get(columns["conversations"]) for record in source.records if not record.fault]
    try:
        return any(is_conversation(unpacked(cell, "conversations")) for cell in cells)
    except RowFault:
        return False


def _fits_hh(source: Source) -> bool:
    columns = column_by_spelling(source)
    if not {"chosen", "rejected"} <= columns.keys() or "prompt" in columns:
        return False
    readable = [record.cells for record in source.records if not record.fault]
    return any(is_transcript(cells.get(columns["chosen"])) for cells in readable)


OPENAI = Format(
    name="openai",
    expected="input with messages, preferred_output and non_preferred_output",
    columns=("prompt", "chosen", "rejected"),
    fits=_fits_openai,
    rewrite=same,
)
SHAREGPT = Format(
    name="sharegpt",
    expected="conversations of messages with 'from' and 'value', chosen and rejected",
    columns=("prompt", "chosen", "rejected"),
    fits=_fits_sharegpt,
    rewrite=same,
)
HH_RLHF = Format(
    name="hh-rlhf",
    expected=r"chosen and rejected with transcripts '\n\nHuman: …\n\nAssistant: …'",
    columns=("chosen", "rejected"),
    fits=_fits_hh,
    rewrite=same,
)
