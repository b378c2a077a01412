"""Prompts: given, or shared by both responses; texts or messages."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from reading_cases import assistant, texts, user

from micropref.datasets import read_preferences

HH = "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: And?\n\nAssistant:"


@pytest.mark.parametrize(
    ("chosen", "rejected", "expected"),
    [
        (HH + " I see.", HH + " I say.", (HH, " I see.", " I say.")),
        (HH + " I see.", HH + " No.\n\nHuman: Why?\n\nAssistant: So.", (HH, " I see.", None)),
        ("The cat sat.", "The cat ran.", ("The cat ", "sat.", "ran.")),
        ("The cat", "The catalogue", ("The ", "cat", "catalogue")),
        ("One\ttwo three", "One\ttwo  four", ("One\ttwo ", "three", " four")),
        ("alpha", "alpine", ("", "alpha", "alpine")),
        ("The cat ", "The cat sat", ("The ", "cat ", "cat sat")),
        ("Q Assistant: yes", "Q Assistant: no", ("Q Assistant: ", "yes", "no")),
        # Cutting at the last marker would leave nothing of the first answer.
        (HH[: HH.index("\n\nHuman: And?")] + HH[:0] + "\n\nAssistant: ", HH, None),
        ("yes", "no", ("", "yes", "no")),
    ],
)
def test_implicit_prompt_of_texts(chosen, rejected, expected):
    ((prompt, first, second),) = texts(read_preferences([{"chosen": chosen, "rejected": rejected}]))
    assert prompt + first == chosen
    assert prompt + second == rejected
    assert first.strip()
    assert second.strip()
    if expected is not None:
        assert (prompt, first) == expected[:2]


def test_the_last_marker_that_leaves_an_answer_is_where_the_prompt_ends():
    start = "\n\nHuman: a\n\nAssistant:"
    chosen = start + " x\n\nAssistant: "
    ((prompt, first, second),) = texts(read_preferences([{"chosen": chosen, "rejected": chosen + "more"}]))
    assert (prompt, first, second) == (start, " x\n\nAssistant: ", " x\n\nAssistant: more")


@given(st.text("ab \n", max_size=30), *[st.text("ab \n", max_size=8).filter(lambda text: text.strip())] * 2)
def test_implicit_prompt_loses_nothing_and_leaves_something(prompt, first, second):
    assume(first != second)
    ((found, chosen, rejected),) = texts(read_preferences([{"chosen": prompt + first, "rejected": prompt + second}]))
    assert (found + chosen, found + rejected) == (prompt + first, prompt + second)
    assert chosen.strip()
    assert rejected.strip()
    assert not found or found[-1].isspace()
    if prompt and prompt[-1].isspace():
        assert found.startswith(prompt)


@pytest.mark.parametrize(
    ("chosen", "rejected", "expected"),
    [
        ([user("Hi"), assistant("A")], [user("Hi"), assistant("B")], ("Hi", "A", "B")),
        (
            [{"role": "system", "content": "Be kind."}, user("Hi"), assistant("A")],
            [{"role": "system", "content": "Be kind."}, user("Hi"), assistant("B")],
            ("system: Be kind.\n\nuser: Hi", "A", "B"),
        ),
        (
            [user("Hi"), assistant("A"), user("Go on"), assistant("C")],
            [user("Hi"), assistant("B")],
            ("Hi", "assistant: A\n\nuser: Go on\n\nassistant: C", "B"),
        ),
        ([user("Hi")], [user("Hi"), assistant("B")], ("", "user: Hi", "user: Hi\n\nassistant: B")),
        ([assistant("A")], [assistant("B")], ("", "A", "B")),
    ],
)
def test_implicit_prompt_of_messages(chosen, rejected, expected):
    assert texts(read_preferences([{"chosen": chosen, "rejected": rejected}])) == [expected]


@pytest.mark.parametrize("prompt", ["Hi", " Hi\n", [user("Hi")]])
def test_messages_of_an_explicit_prompt_are_not_repeated_in_the_responses(prompt):
    row = {"prompt": prompt, "chosen": [user("Hi"), assistant("A")], "rejected": [user("Hi"), assistant("B")]}
    table = read_preferences([row])
    assert table.prompt[0].strip() == "Hi"
    assert (table.chosen, table.rejected) == (["A"], ["B"])


def test_an_explicit_prompt_stays_beside_text_and_other_messages():
    rows = [
        {"prompt": "Hi", "chosen": "Hi there", "rejected": [assistant("B")]},
        {"prompt": [user("a"), assistant("b")], "chosen": [user("a"), user("c")], "rejected": "Hi"},
        {"prompt": [], "chosen": [assistant("A")], "rejected": "B"},
    ]
    assert texts(read_preferences(rows)) == [
        ("Hi", "Hi there", "B"),
        ("user: a\n\nassistant: b", "user: a\n\nuser: c", "Hi"),
        ("", "A", "B"),
    ]


def test_text_parts_are_joined():
    parts = [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}]
    rows = [{"prompt": "p", "chosen": [assistant(parts)], "rejected": [assistant(np.array(parts))]}]
    rows[0]["rejected"].append(user("Bye"))
    assert texts(read_preferences(rows)) == [("p", "Hello", "assistant: Hello\n\nuser: Bye")]


def test_messages_in_csv_cells(tmp_path):
    chosen, rejected = json.dumps([user("Hi"), assistant("A")]), json.dumps([user("Hi"), assistant("B")])
    path = tmp_path / "a.csv"
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([["chosen", "rejected", "context"], [chosen, rejected, json.dumps([user("Short!")])]])
        writer.writerows([["[1, 2]", "[3, 4]", "[" * 10_000], ["[{}]", "[]", '[{"role": "user"}]']])
    table = read_preferences(path)
    assert texts(table) == [("Hi", "A", "B"), ("", "[1, 2]", "[3, 4]"), ("", "[{}]", "[]")]
    assert table.context == ["Short!", "[" * 10_000, '[{"role": "user"}]']
