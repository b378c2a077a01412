"""Prompts: given, or shared by both responses; texts or messages."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from reading_cases import assistant, texts, user

from micropref.datasets import MalformedRowError, read_preferences

HH = "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: And?\n\nAssistant:"


@pytest.mark.parametrize(
    ("chosen", "rejected", "expected"),
    [
        (HH + " I see.", HH + " I say.", (HH, " I see.", " I say.")),
        (HH + " I see.", HH + " No.\n\nHuman: Why?\n\nAssistant: So.", (HH, " I see.", None)),
        (HH.lstrip() + " I see.", HH.lstrip() + " I say.", (HH.lstrip(), " I see.", " I say.")),
        # A common beginning is no prompt: where no column holds one, there is none.
        ("The cat sat.", "The cat ran.", ("", "The cat sat.", "The cat ran.")),
        ("Q\n\nAssistant: yes", "Q\n\nAssistant: no", ("", "Q\n\nAssistant: yes", "Q\n\nAssistant: no")),
        (HH + " Yes.", "\n\nHuman: Ho" + HH[11:] + " No.", ("", HH + " Yes.", None)),
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


@pytest.mark.parametrize("blank", ["", " ", "\n"])
def test_a_transcript_without_a_last_answer_has_an_empty_response(blank):
    start = "\n\nHuman: a\n\nAssistant: x\n\nHuman: b\n\nAssistant:"
    for chosen, rejected in ((start + blank, start + " y"), (start + " y", start + blank)):
        for prompt in ({}, {"prompt": start}):
            with pytest.raises(MalformedRowError, match="row 0: expected text, got an empty response"):
                read_preferences([{"chosen": chosen, "rejected": rejected, **prompt}])


@given(
    st.text("ab \n", min_size=1, max_size=30).filter(str.strip), *[st.text("ab \n", max_size=8).filter(str.strip)] * 2
)
def test_a_transcript_loses_nothing(question, first, second):
    assume(first != second)
    start = f"\n\nHuman: {question}\n\nAssistant:"
    assert texts(read_preferences([{"chosen": start + first, "rejected": start + second}])) == [(start, first, second)]
    assert texts(read_preferences([{"chosen": first, "rejected": second}])) == [("", first, second)]


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
