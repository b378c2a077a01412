"""What is not understood is refused with option, argument and nearest column; what is skipped is counted by kind."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from layout_cases import chat, gpt, lines, say
from reading_cases import ROWS, texts, write_jsonl

from micropref.datasets import MalformedRowError, PreferenceTable, read_preferences
from micropref.datasets._names import CHOSEN_PAIRS, GIVEN_PAIRS, NAMES
from micropref.datasets.responses import read_responses

PAIR = {"prompt": "p", "response_a": "x", "response_b": "y"}
SETTLED = {"prompt": "p", "chosen": "x", "rejected": "y"}


@st.composite
def spellings(draw, name: str) -> str:
    """A name as people write it: other cases, and spaces or marks before digits and letters."""
    joint = draw(st.sampled_from(["", "_", " ", "-", "."]))
    place = draw(st.integers(1, len(name)))
    text = name[:place] + (joint + name[place:] if place < len(name) else "")
    return draw(st.sampled_from([str.upper, str.title, str]))(text)


@given(data=st.data())
def test_every_name_of_the_tables_is_understood_in_every_spelling(data):
    roles = {role: data.draw(st.sampled_from(NAMES[role])) for role in ("label", "group")}
    first, second = data.draw(st.sampled_from([pair for pair in GIVEN_PAIRS if not pair[0].endswith(("0", "one"))]))
    named = {"first": first, "second": second, **roles}
    columns = {what: data.draw(spellings(name)) for what, name in named.items()}
    cells = {"first": "x", "second": "y", "label": "B", "group": "eve"}
    table = read_preferences([{columns[what]: cell for what, cell in cells.items()}])
    assert (table.chosen, table.group.tolist()) == (["y"], ["eve"])
    good, bad = data.draw(st.sampled_from(CHOSEN_PAIRS))
    rows = [{data.draw(spellings(good)): "x", data.draw(spellings(bad)): "y"}]
    assert read_preferences(rows).chosen == ["x"]


@pytest.mark.parametrize("name", ["question", "Instruction", "query", "input", "body", "user_query"])
def test_a_prompt_under_another_name_is_no_part_of_the_responses(name):
    rows = [{name: "Tea?", "chosen": "The tea is green.", "rejected": "The tea is black."}]
    assert texts(read_preferences(rows)) == [("Tea?", "The tea is green.", "The tea is black.")]


def test_two_prompts_are_refused_unless_they_say_the_same():
    rows = [{"question": "p", "query": "q", "chosen": "x", "rejected": "y"}]
    with pytest.raises(ValueError, match=r"got 'question', 'query'; .*columns=.*--column prompt=question"):
        read_preferences(rows)
    assert read_preferences(rows, columns={"prompt": "query"}).prompt == ["q"]
    assert read_preferences([rows[0] | {"query": "p"}]).prompt == ["p"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({**PAIR, "votes_a": 2, "votes_b": 1}, r"say which one it is: columns=\{'label': 'NAME'\}"),
        ({**PAIR, "labl": 1}, r"say which one it is: columns=\{'label': 'labl'\}, in the shell --column label=labl"),
        ({"prompt": "p", "chosn": "x", "rejected": "y"}, r"columns=\{'chosen': 'chosn', .*--column chosen=chosn"),
        ({**PAIR, "label_1": "a", "label_2": "b"}, r"annotators=\['label_1', 'label_2'\], in the shell --annotators l"),
        ({**PAIR, "response_c": "z", "label": 1}, r"a third one in the column 'response_c'"),
        ({**SETTLED, "label": 1}, r"got the columns 'chosen', 'rejected', 'label'.*--column other_label=label"),
        ({**SETTLED, "winner": "b"}, r"got the columns 'chosen', 'rejected', 'winner'"),
        ({**PAIR, "label": 1, "winner": "a"}, r"'label', 'winner'; which one counts"),
        ({"prompt": "p", "completion": "x", "label": True}, r"single responses in the column 'completion' .* KTO"),
        ({"conversations": gpt("a", "b"), "kto_tag": True}, r"single responses in the column 'conversations' .* KTO"),
        (
            {"prompt": "p", "response_0": "x", "response_1": "y", "label": 1},
            r"may be the number of a response.*--label",
        ),
        ({**PAIR, "Response A": "z", "label": 1}, r"expected one column of a name, got 'response_a', 'Response A'"),
    ],
)
@pytest.mark.parametrize("skip_bad", [False, True])
def test_a_fault_of_the_source_is_no_row_to_skip(row, message, skip_bad):
    with pytest.raises(ValueError, match=message):
        read_preferences([row], skip_bad=skip_bad)


def test_responses_that_are_numbered_from_zero():
    row = {"prompt": "p", "response_0": "x", "response_1": "y"}
    assert read_preferences([row | {"label": "response_1"}]).chosen == ["y"]
    assert read_preferences([row | {"label": 0}], labels={0: "first", 1: "second"}).chosen == ["x"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "arena"}, r"expected conversation_a .* for the format 'arena', got the columns 'prompt', 'chosen'"),
        ({"format": "areena"}, r"did you mean 'arena'"),
        ({"annotators": "label_1"}, r"annotators= \(in the shell --annotators\), got 'label_1'"),
        ({"columns": {"user": "chosn"}}, r"--column.*got 'chosn'.*; did you mean 'chosen'\?"),
        ({"columns": {"user": "prompt", "worker": "chosen"}}, r"expected one column for 'group', got more"),
    ],
)
def test_options_that_do_not_fit(options, message):
    with pytest.raises(ValueError, match=message):
        read_preferences([SETTLED], **options)


def test_a_table_that_is_read_takes_no_options():
    table = read_preferences(ROWS)
    for options in ({"format": "arena"}, {"annotators": "a"}, {"encoding": "utf-8"}):
        with pytest.raises(ValueError, match="expected a PreferenceTable without"):
            read_preferences(table, **options)


def test_what_the_caller_names_counts():
    row = {**SETTLED, "label": 0, "question": "q", "worker": 1, "judge": 2}
    names = {"chosen": "chosen", "rejected": "rejected", "user": "judge", "prompt": "prompt"}
    table = read_preferences([row], columns=names)
    assert texts(table) == [("p", "x", "y")]
    assert table.group.tolist() == [2]
    assert table.extra == {"other_label": [0], "question": ["q"], "worker": [1]}


def test_annotators_beside_a_user_or_a_label_are_refused():
    row = {**PAIR, "l1": "a", "l2": "b"}
    with pytest.raises(ValueError, match=r"got the column 'judge' with users"):
        read_preferences([row | {"judge": 1}], annotators=["l1", "l2"])
    with pytest.raises(ValueError, match=r"got a column 'label' as well"):
        read_preferences([row | {"label": 1}], annotators=["l1", "l2"])
    with pytest.raises(ValueError, match=r"expected each column once"):
        read_preferences([row], annotators=["l1", "l1"])
    table = read_preferences([row, row | {"l1": None, "l2": float("nan")}][:1], annotators=("l1", "l2"))
    assert (table.chosen, table.group.tolist()) == (["x", "y"], ["l1", "l2"])
    with pytest.raises(MalformedRowError, match="row 1: expected a label"):
        read_preferences([row, row | {"l1": None, "l2": float("nan")}], annotators=("l1", "l2"))


# ------------------------------------------------------------------------------------------------------------ messages


CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Oslo"}}}


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({**say("assistant", "Let me look."), "tool_calls": [CALL]}, 'Let me look.\nweather({"city": "Oslo"})'),
        ({**say("assistant", None), "tool_calls": np.array([CALL])}, 'weather({"city": "Oslo"})'),
        ({"role": "assistant", "tool_calls": [CALL, CALL]}, 'weather({"city": "Oslo"})\nweather({"city": "Oslo"})'),
        ({**say("assistant", ""), "function_call": {"name": "f", "arguments": "{}"}}, "f({})"),
        (say("assistant", [{"type": "text", "value": "Yes."}]), "Yes."),
        (say("assistant", [{"type": "text", "text": {"value": "Yes."}}]), "Yes."),
        (
            say("assistant", [{"type": "text", "text": "So."}, {"type": "tool_use", "name": "f", "input": {"a": 1}}]),
            'So.\nf({"a": 1})',
        ),
        ({"from": "gpt", "value": "Yes."}, "Yes."),
    ],
)
def test_what_a_message_says(message, text):
    for packed in ([message], message, {"messages": [message]}):
        assert read_preferences([{"prompt": "p", "chosen": packed, "rejected": "no"}]).chosen == [text]


@pytest.mark.parametrize("call", [{"type": "function"}, "weather", {"function": {"name": 3}}])
def test_calls_of_tools_without_a_name_are_refused(call):
    rows = [{"prompt": "p", "chosen": [{**say("assistant", "x"), "tool_calls": [call]}], "rejected": "no"}]
    with pytest.raises(MalformedRowError, match="expected a tool call with the name of a function"):
        read_preferences(rows)


def test_text_that_begins_as_messages_do_is_understood_or_refused():
    for cut in (
        '[{"role": "assistant", "content": "Ap',
        "[{'role': 'assistant', 'content': ...",
        '{"messages": [{"role"',
    ):
        with pytest.raises(MalformedRowError, match=r"row 0: expected a list of messages.* in column 'chosen'"):
            read_preferences([{"prompt": "p", "chosen": cut, "rejected": "no"}])
    for text in ("[1, 2]", '{"a": 1}', "[", "{'role'", "['a']", "[{}]"):
        assert read_preferences([{"prompt": "p", "chosen": text, "rejected": "no"}]).chosen == [text]


messages = st.lists(
    st.tuples(st.sampled_from(["user", "assistant"]), st.text(min_size=1, max_size=12)), min_size=1, max_size=4
)


@given(messages)
def test_messages_that_python_or_numpy_printed_are_read_as_they_were(turns):
    wanted = [say(role, content) for role, content in turns]
    for text in (str(wanted), "[" + "\n ".join(map(str, wanted)) + "]", json.dumps(wanted)):
        rows = [{"prompt": "p", "chosen": text, "rejected": "no no no"}]
        plain = [{"prompt": "p", "chosen": wanted, "rejected": "no no no"}]
        try:
            expected = read_preferences(plain).chosen
        except MalformedRowError:
            with pytest.raises(MalformedRowError):
                read_preferences(rows)
        else:
            assert read_preferences(rows).chosen == expected


@given(shared=messages, opening=st.integers(0, 4), answers=st.lists(st.text("abc", min_size=1), min_size=2, max_size=2))
def test_what_both_responses_share_is_in_the_prompt_once(shared, opening, answers):
    if answers[0] == answers[1]:
        return
    whole = [say(role, content) for role, content in shared]
    both = [
        {"chosen": [*whole, say("assistant", one)], "rejected": [*whole, say("assistant", other)]}
        for one, other in [answers]
    ]
    implicit = read_preferences(both)
    explicit = read_preferences([both[0] | {"prompt": whole[opening:]}])
    assert implicit.prompt == explicit.prompt
    for table in (implicit, explicit):
        assert (table.chosen, table.rejected) == ([answers[0]], [answers[1]])


def test_a_context_that_is_a_conversation_is_the_prompt_where_no_other_column_is():
    rows = [{"context": chat("Tea?"), "chosen": "x", "rejected": "y"}]
    table = read_preferences(rows)
    assert (table.prompt, table.context) == (["Tea?"], None)
    table = read_preferences([rows[0] | {"prompt": "p"}])
    assert (table.prompt, table.context) == (["p"], ["Tea?"])
    assert read_preferences(rows, columns={"context": "context"}).context == ["Tea?"]


# ----------------------------------------------------------------------------------------------------------- the report


def test_what_was_recognised_is_said_in_one_line():
    rows = [
        {"Question": "p", "Answer 1": "x", "Answer 2": "y", "Winner": "A", "judge": "eve", "crew": f"c{i % 3}"}
        for i in range(9)
    ]
    report = read_preferences(rows).report
    said = "prompt: Question; responses: Answer 1, Answer 2; label: Winner; user: judge"
    assert str(report) == said
    rows = [{name: cell for name, cell in row.items() if name != "judge"} for row in rows]
    report = read_preferences(rows).report
    assert "crew, which repeats like an id (3 values in 9 rows)" in str(report)
    assert "--column user=crew" in str(report)
    assert not report.is_plain
    assert read_preferences([SETTLED | {"user": 1}]).report.is_plain


def test_rows_that_are_left_out_are_counted_by_kind(tmp_path):
    path = write_jsonl(
        tmp_path / "a.jsonl", [SETTLED, SETTLED | {"chosen": " "}, SETTLED | {"chosen": "y"}, SETTLED | {"chosen": ""}]
    )
    with open(path, "a", encoding="utf-8") as file:
        file.write("{\n")
    with pytest.warns(
        UserWarning, match=r"4 of 5 rows are left out; .*by kind: 2 an empty response, 1 the same"
    ) as seen:
        table = read_preferences(path, skip_bad=True)
    kinds = {"an empty response": 2, "the same response twice": 1, "malformed JSON": 1}
    assert (table.report.n_rows, table.report.n_rejected, table.report.faults) == (5, 4, kinds)
    assert "4 of 5 rows are left out (2 an empty response" in table.report.left_out()
    assert len(seen) == 1
    both = PreferenceTable.concat([table, table])
    assert both.report.faults == {kind: 2 * count for kind, count in kinds.items()}
    assert table[:1].report is None


def test_the_rows_that_are_left_out_do_not_replace_the_data(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(lines(SETTLED, SETTLED | {"chosen": ""}))
    (tmp_path / "link.jsonl").symlink_to(path)
    before = path.read_bytes()
    for rejected in (path, tmp_path / "link.jsonl"):
        with pytest.raises(
            ValueError, match=r"expected a separate file .* rejected_path=..., in the shell --rejected FILE"
        ):
            read_preferences(path, skip_bad=True, rejected_path=rejected)
        assert path.read_bytes() == before


def test_responses_without_a_prompt_that_is_understood_are_refused():
    rows = [{"task": "Name a fruit.", "response": "Apple."}, {"task": "Name a tree.", "response": "Oak tree."}]
    with pytest.raises(
        ValueError, match=r"expected a column with the prompt.*columns=\{'prompt': 'task'\}.*--column prompt=task"
    ):
        read_responses(rows)
    assert read_responses(rows, columns={"prompt": "task"}).prompt == ["Name a fruit.", "Name a tree."]
    assert read_responses([{"question": "q", "answer": "a"}]).prompt == ["q"]
    with pytest.raises(ValueError, match=re.escape("expected one column with the response, got 'output', 'answer'")):
        read_responses([{"question": "q", "answer": "a", "output": "b"}])
    with pytest.raises(MalformedRowError, match="did you mean 'respnse'"):
        read_responses([{"question": "q", "respnse": "a"}])
