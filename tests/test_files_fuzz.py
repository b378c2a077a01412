"""Damaged files of every layout: each ends in a table or in a message, never in another exception."""

from __future__ import annotations

import json
import random
import warnings
import zlib
from typing import Any

import pytest
from layout_cases import CASES, Case

from micropref.datasets import PreferenceTable, read_preferences
from micropref.datasets.responses import read_responses

JUNK: tuple[Any, ...] = (
    *(
        None,
        True,
        False,
        0,
        1,
        -1,
        2,
        0.5,
        1e400,
        float("nan"),
        10**400,
        "",
        " ",
        "\ud800",
        "\0",
        "a",
        "tie",
        "[",
        "{}",
    ),
    *([], {}, [[]], [None], [1], ["a", None], [{}], {"a": 1}, {"role": "user"}, {"from": 1, "value": []}, [[[[{}]]]]),
    *(
        {"messages": {"messages": []}},
        {"content": []},
        {"selected": None},
        {"id": {}},
        {"choices": [[]]},
        [{"role": {}}],
    ),
    *('[{"role": "user", "content": "', "[{'role': 'user'}\n {'role'", "{'selected':", '{"selected": []}', "[" * 500),
    *("1" * 5000, "-" * 300 + "1", "(" * 90 + ")" * 90, '["a", 1]', "['a', None]", "{'messages': 3}", '{"from": []}'),
)
CHUNKS = (
    b"",
    b'"',
    b"'",
    b",",
    b";",
    b"\n",
    b"\r",
    b"\t",
    b"\0",
    b"\xff",
    b"\xc3",
    b"{",
    b"}",
    b"[",
    b"]",
    b"\\",
    b"\\u",
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths to every value inside of a value."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(deeper for key, one in inside for deeper in places(one, (*path, key)))]


def with_junk(rows: list[Any], draw: random.Random) -> list[Any]:
    """Rows of which some values are replaced or removed, or have other keys."""
    rows = json.loads(json.dumps(rows))
    for _ in range(draw.randint(1, 2)):
        path = draw.choice(places(rows))
        if not path:
            continue
        holder = rows
        for key in path[:-1]:
            holder = holder[key]
        action = draw.random()
        if action < 0.7:
            holder[path[-1]] = draw.choice(JUNK)
        elif action < 0.85:
            del holder[path[-1]]
        elif isinstance(holder, dict):
            holder[draw.choice(["label", "prompt", "chosen", "user", "value", "winner", "x"])] = holder.pop(path[-1])
    return rows


def damaged(content: bytes, draw: random.Random) -> bytes:
    """Bytes of which some are changed, cut off, repeated or put in."""
    for _ in range(draw.randint(1, 2)):
        at, to = sorted(draw.randint(0, len(content)) for _ in range(2))
        kind = draw.randrange(5)
        if kind == 0:
            content = content[:at] + draw.choice(CHUNKS) + content[at:]
        elif kind == 1:
            content = content[:at] + content[min(to, at + draw.randint(1, 20)) :]
        elif kind == 2:
            content = content[:at]
        elif kind == 3:
            content = content[:to] + content[at:to] + content[to:]
        else:
            content = content[:at] + bytes([draw.randrange(256)]) + content[at + 1 :]
    return content


def mutated(case: Case, draw: random.Random) -> tuple[str, bytes]:
    """Name and content of a damaged file."""
    is_json = case.file.endswith((".json", ".jsonl"))
    if is_json and draw.random() < 0.6:
        text = case.content.decode()
        rows = json.loads(text) if case.file.endswith(".json") else [json.loads(line) for line in text.splitlines()]
        rows = with_junk(rows, draw)
        text = "\n".join(map(json.dumps, rows)) if case.file.endswith("l") else json.dumps(rows)
        return case.file, text.encode()
    name = (
        case.file
        if draw.random() < 0.8
        else draw.choice(["a.csv", "a.json", "a.jsonl", "a.tsv", "a.parquet", "a.csv.gz"])
    )
    return name, damaged(case.content, draw)


def read_all(folder, numbers: range) -> tuple[int, int]:
    """How many damaged files ended in a table, and how many in a message."""
    n_tables = n_messages = 0
    said: list[str] = []
    for number in numbers:
        draw = random.Random(zlib.crc32(b"%d" % number))
        case = CASES[number % len(CASES)]
        name, content = mutated(case, draw)
        path = folder / name
        path.write_bytes(content)
        for options in ({}, {"skip_bad": True, "rejected_path": folder / "rejected.jsonl"}):
            try:
                found: Any = read_preferences(path, **case.options, **options)
                assert isinstance(found, PreferenceTable)
                assert str(found.report)
                n_tables += 1
            except ValueError as error:
                n_messages += 1
                said.append(str(error))
            except Exception as error:
                raise AssertionError(f"file {number} ({case.name}): {type(error).__name__}: {error}") from error
        try:
            read_responses(path)
        except ValueError as error:
            said.append(str(error))
    assert [message for message in said if "expected" not in message] == []
    return n_tables, n_messages


def test_damaged_files_end_in_a_table_or_a_message(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        n_tables, n_messages = read_all(tmp_path, range(300))
    assert min(n_tables, n_messages) > 50


@pytest.mark.slow
def test_thousands_of_damaged_files_end_in_a_table_or_a_message(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        n_tables, n_messages = read_all(tmp_path, range(300, 3_300))
    assert min(n_tables, n_messages) > 500
