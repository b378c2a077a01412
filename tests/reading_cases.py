"""Comparisons as people write them, for the tests of tables and readers."""

from __future__ import annotations

import json

from micropref.datasets import PreferenceTable

BIG = 1234567890123456789

ROWS = [
    {"prompt": "Tea?", "chosen": "Yes.", "rejected": "No."},
    {"prompt": "Milk?", "chosen": "A little.", "rejected": "A lot."},
    {"prompt": "Tea?", "chosen": "Green.", "rejected": "Black."},
]


def user(content):
    return {"role": "user", "content": content}


def assistant(content):
    return {"role": "assistant", "content": content}


def table_of(n=6, **columns):
    return PreferenceTable(
        prompt=[f"q{i % 2}" for i in range(n)],
        chosen=[f"good {i}" for i in range(n)],
        rejected=[f"bad {i}" for i in range(n)],
        **columns,
    )


def a_full_table():
    """A table with every column."""
    return table_of(
        context=["short", "", "long", "", "short", "long"],
        group=["ann", None, "bob", -1, float("nan"), "ann"],
        weight=[1, 0.5, 2, 0, 1, 1],
        extra={"query_id": [0, 1, 2, 3, 4, 5], "tags": [["a"], [], None, ["b"], [], []]},
    )


def write_jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_text(path, text):
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def texts(table):
    return list(zip(table.prompt, table.chosen, table.rejected, strict=True))
