"""What a file may mean in two ways is refused with the lines that say which, or said."""

from __future__ import annotations

import json

import pytest
from reading_cases import texts, write_text

from micropref import read_preferences
from micropref.datasets import MalformedRowError
from micropref.datasets._unoriented import refuse_contradictions
from micropref.datasets.responses import read_responses

PAIR = {"prompt": "Boat?", "response_a": "A canoe.", "response_b": "A brick."}
SETTLED = {"prompt": "Boat?", "chosen": "A canoe.", "rejected": "A brick."}


def said(role, text):
    return {"role": role, "content": text}


@pytest.mark.parametrize("column", ["winner", "choice", "better", "Preferred Response", "selected"])
@pytest.mark.parametrize("cells", [[0, 1], ["1", "1"], [1.0, 0.0, "tie"]])
def test_numbers_from_zero_in_a_column_that_names_the_winner_need_a_mapping(column, cells):
    rows = [{**PAIR, column: cell} for cell in cells]
    with pytest.raises(ValueError, match=r"may be the number of a response .* --label 0=first --label 1=second"):
        read_preferences(rows, skip_bad=True)
    with pytest.raises(ValueError, match="may be the number of a response"):
        read_preferences(rows, columns={"label": column})
    table = read_preferences(rows, labels={"0": "first", "1": "second"})
    assert (table.chosen[0] == "A canoe.") == (cells[0] == 0)


@pytest.mark.parametrize(
    ("column", "cells", "first"),
    [
        ("label", [1, 0], [True, False]),
        ("preference", [0, 1], [False, True]),
        ("winner", [1, 2], [True, False]),
        ("winner", [-1, 1], [False, True]),
        ("choice", [True, False], [True, False]),
    ],
)
def test_numbers_that_can_mean_only_one_response_are_read(column, cells, first):
    table = read_preferences([{**PAIR, column: cell} for cell in cells])
    assert [text == "A canoe." for text in table.chosen] == first


def test_the_number_1_beside_responses_that_are_numbered_from_1_is_the_first():
    row = {"prompt": "Boat?", "response_1": "A canoe.", "response_2": "A brick.", "choice": 1}
    assert read_preferences([row]).chosen == ["A canoe."]


def test_a_mapping_of_the_tie_leaves_1_and_2_their_meaning():
    table = read_preferences([{**PAIR, "winner": cell} for cell in (1, 2, 0)], labels={0: "tie"})
    assert table.chosen == ["A canoe.", "A brick.", "A canoe.", "A brick."]


def test_numbers_that_may_mean_either_response_contradict_no_y():
    rows = [{**PAIR, "choice": cell} for cell in (0, 1)]
    for first_is_preferred in ([True, False], [False, True]):
        refuse_contradictions(rows, first_is_preferred)
    with pytest.raises(ValueError, match="expected the label of the table and y to agree"):
        refuse_contradictions([{**PAIR, "choice": "a"}], [False])


def test_what_a_user_says_is_no_user():
    rows = [{"system": "Be brief.", "user": f"What is boat {i}?", "chosen": "A", "rejected": "B"} for i in range(3)]
    with pytest.raises(ValueError, match=r"--column prompt=user; if it names users: .* --column user=user"):
        read_preferences(rows)
    assert read_preferences(rows, columns={"prompt": "user"}).prompt[0] == "system: Be brief.\n\nuser: What is boat 0?"
    assert read_preferences(rows, columns={"user": "user"}).group[0] == "What is boat 0?"
    assert read_preferences([{**SETTLED, "user": "Ann B. Smith"}]).group[0] == "Ann B. Smith"


@pytest.mark.parametrize("name", ["a\nb", "Who is it?", "如何入睡。", "x" * 120])
def test_a_column_called_group_is_read_as_a_table_wrote_it(name):
    assert read_preferences([{**SETTLED, "group": name}]).group[0] == name
    assert read_responses([{"prompt": "Boat?", "response": "A canoe.", "group": name}])
    for column in ("user", "annotator"):
        with pytest.raises(ValueError, match="expected names or numbers of users"):
            read_preferences([{**SETTLED, column: name}])


def test_text_that_may_be_the_prompt_is_mentioned_where_none_is_known():
    row = {"aufgabe": "Was ist ein Boot?", "chosen": "A canoe.", "rejected": "A brick."}
    assert "no prompt: if aufgabe holds it, columns={'prompt': 'aufgabe'}" in str(read_preferences([row]).report)
    for known in ({"prompt": "Boat?"}, {"chosen": [said("user", "q"), said("assistant", "x")]}):
        other = {"rejected": [said("user", "q"), said("assistant", "y")]} if "chosen" in known else {}
        assert "no prompt" not in str(read_preferences([{**row, **known, **other}]).report)


@pytest.mark.parametrize(
    "text",
    ["What is a boat?", "Boat?", "如何入睡", "เรือคืออะไร", [said("user", "Boat?")]],
    ids=["words", "mark", "chinese", "thai", "messages"],
)
def test_a_prompt_under_an_unknown_name_is_noticed_in_every_script(text):
    pair = {"chosen": "A canoe.", "rejected": "A brick."}
    assert "no prompt: if aufgabe holds it" in str(read_preferences([{**pair, "aufgabe": text}]).report)
    rows = [{"response": "A canoe.", "aufgabe": text}] * 2
    with pytest.raises(ValueError, match=r"if aufgabe holds it: .*--column prompt=aufgabe; if nothing does, leave"):
        read_responses(rows)
    assert read_responses(rows, columns={"prompt": "aufgabe"}).prompt[0] in (text, "Boat?")


@pytest.mark.parametrize(
    ("name", "cell"), [("id", "q-17"), ("model", "GPT 4"), ("created", 5), ("comment", "I liked it.")]
)
def test_what_is_no_text_or_a_remark_may_stand_beside_responses_without_prompt(name, cell):
    report = read_responses([{"response": "A canoe.", name: cell}] * 2).report
    assert "no prompt: all responses are ranked against one another" in str(report)


def test_the_label_can_count_instead_of_the_names_chosen_and_rejected():
    row = {**SETTLED, "label": 0}
    with pytest.raises(ValueError, match=r"If it is 'label': .*--column response_b=rejected --column label=label; if"):
        read_preferences([row])
    columns = {"response_a": "chosen", "response_b": "rejected", "label": "label"}
    assert read_preferences([row], columns=columns).chosen == ["A brick."]


@pytest.mark.parametrize("last", ["", " \n", None])
def test_an_empty_last_answer_after_several_turns_is_no_response(last):
    start = [said("user", "q"), said("assistant", "x"), said("user", "r")]
    other = [said("user", "q"), said("assistant", "y"), said("user", "r"), said("assistant", "z")]
    with pytest.raises(MalformedRowError, match=r"row 0: .*'chosen'; to leave such rows out: .*--skip-bad"):
        read_preferences([{"chosen": [*start, said("assistant", last)], "rejected": other}])
    text = "\n\nHuman: q\n\nAssistant: {}\n\nHuman: r\n\nAssistant:{}"
    with pytest.raises(MalformedRowError, match="an empty response in column 'chosen'"):
        read_preferences([{"chosen": text.format("x", last or ""), "rejected": text.format("y", " z")}])


def test_an_answer_at_the_end_of_the_prompt_is_a_response():
    row = {"messages": [said("user", "q"), said("assistant", "x")], "chosen": "x", "rejected": "y"}
    assert texts(read_preferences([row])) == [("q", "x", "y")]


def test_one_row_of_other_turns_does_not_make_text_of_the_lists_of_an_arena():
    won = {"winner_model_a": 1, "winner_model_b": 0, "winner_tie": 0}
    rows = [{"prompt": '["q"]', "response_a": '["x"]', "response_b": '["y"]', **won} for _ in range(3)]
    rows[1]["response_b"] = '["y", "z"]'
    with pytest.raises(MalformedRowError, match=r"row 1: expected as many turns .* got 1, 1 and 2"):
        read_preferences(rows)
    with pytest.warns(UserWarning, match="1 turns that do not match"):
        assert texts(read_preferences(rows, skip_bad=True)) == [("q", "x", "y")] * 2


def test_columns_of_several_annotators_are_said_by_their_names():
    rows = [{**PAIR, "label_1": "a", "label_2": "b"}]
    assert "annotators: label_1, label_2" in str(read_preferences(rows, annotators="label_1,label_2").report)
    with pytest.raises(MalformedRowError, match=r"got the label '\?' in column 'label_2'"):
        read_preferences([{**PAIR, "label_1": "a", "label_2": "?"}], annotators="label_1,label_2")


@pytest.mark.parametrize(
    ("row", "way"),
    [
        ({"prompt": "p", "response_1": "x", "response_2": "y", "overall_preference": -2}, "label=overall_preference"),
        (
            {"question": "q", "response_j": "x", "response_k": "y"},
            "response_a=response_j --column response_b=response_k",
        ),
    ],
)
def test_the_way_out_names_the_columns_that_are_meant(row, way):
    with pytest.raises(MalformedRowError, match=f"--column {way}"):
        read_preferences([row])


def test_a_list_of_texts_is_called_so():
    with pytest.raises(
        MalformedRowError, match=r"got the message 'x' in column 'chosen'; of texts there is one in a cell"
    ):
        read_preferences([{"prompt": "q", "chosen": ["x"], "rejected": ["y"]}])


def test_columns_that_are_no_mapping_are_refused():
    with pytest.raises(TypeError, match="columns: expected a mapping of names to columns, got 'prompt=x'"):
        read_preferences([SETTLED], columns="prompt=x")


def test_rows_under_one_key_of_an_object_are_read(tmp_path):
    path = write_text(tmp_path / "a.json", json.dumps({"version": 1, "data": [SETTLED, SETTLED]}))
    table = read_preferences(path)
    assert len(table) == 2
    assert "rows: data" in table.report.notes


def test_spaces_after_the_separators_are_no_part_of_the_cells(tmp_path):
    path = write_text(tmp_path / "a.csv", 'prompt, chosen, rejected\nBoat?, "A, b", "c"\n')
    assert texts(read_preferences(path)) == [("Boat?", "A, b", "c")]
    path = write_text(tmp_path / "b.csv", "prompt,chosen,rejected\nBoat?, a,b\n")
    assert texts(read_preferences(path)) == [("Boat?", " a", "b")]


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf_16_without_its_mark_is_called_by_its_order(tmp_path, encoding):
    path = tmp_path / "a.csv"
    path.write_bytes("prompt,chosen,rejected\nBoät?,a,b\n".encode(encoding))
    with pytest.raises(ValueError, match=f"in the shell --encoding {encoding}"):
        read_preferences(path)
    assert texts(read_preferences(path, encoding=encoding)) == [("Boät?", "a", "b")]


@pytest.mark.parametrize("column", ["tie", "Tie", "is_tie"])
def test_ties_are_read_whatever_the_case_of_their_column(column):
    table = read_preferences([{**PAIR, "winner": "a", column: True}])
    assert table.chosen == ["A canoe.", "A brick."]
    with pytest.raises(ValueError, match="got a tie"):
        refuse_contradictions([{**PAIR, "winner": "a", column: True}], [True])


def test_the_last_message_of_a_conversation_is_what_is_scored():
    rows = [{"messages": [said("user", "Boat?"), said("assistant", text)]} for text in ("A canoe.", "A brick.")]
    with pytest.raises(MalformedRowError, match="--column response=NAME"):
        read_responses(rows)
    table = read_responses(rows, columns={"response": "messages"})
    assert (table.prompt, table.response) == (["Boat?", "Boat?"], ["A canoe.", "A brick."])
    assert not table.report.notes
    rows = [{"system": "Be brief.", "response": row["messages"]} for row in rows]
    assert read_responses(rows).prompt[0] == "system: Be brief.\n\nuser: Boat?"


def test_what_a_user_says_is_no_user_to_score_for():
    with pytest.raises(ValueError, match=r"--column prompt=user; if it names users: .* --column user=user"):
        read_responses([{"user": "What is a boat?", "response": "A canoe."}])


def test_numbers_of_several_annotators_are_refused_by_the_names_of_their_columns():
    rows = [{**PAIR, "choice_1": 0, "choice_2": 1}]
    with pytest.raises(ValueError, match="got '0' in column 'choice_1, choice_2', which may be the number"):
        read_preferences(rows, annotators="choice_1,choice_2")
    rows = [{**PAIR, "label_1": 0, "label_2": 2}]
    with pytest.raises(ValueError, match="got both 0 and 2 in column 'label_1, label_2'"):
        read_preferences(rows, annotators="label_1,label_2")


@pytest.mark.parametrize(
    ("shown", "chosen"), [("text-1,text-2", "x"), ("answer1,answer2", "x"), ("answer2,answer1", "y")]
)
def test_the_side_of_a_pairwise_export_is_that_of_the_response_shown_there(shown, chosen):
    assert read_preferences([task(shown)]).chosen == [chosen]


def test_sides_in_no_order_need_a_mapping():
    with pytest.raises(MalformedRowError, match=r"got the label 'low' .* --label low=first"):
        read_preferences([task("low, high")])
    assert read_preferences([task("low, high")], labels={"low": "second"}).chosen == ["y"]


def task(shown):
    result = {"type": "pairwise", "to_name": shown, "value": {"selected": "left"}}
    data = {"prompt": "Boat?", "answer1": "x", "answer2": "y"}
    return {"data": data, "annotations": [{"completed_by": 7, "result": [result]}]}


@pytest.mark.parametrize(
    ("document", "note"),
    [
        ([SETTLED, SETTLED], ""),
        ({"data": [SETTLED, SETTLED]}, "rows: data"),
        ({"features": [{"name": "prompt"}], "rows": [{"row_idx": i, "row": SETTLED} for i in (0, 1)]}, "rows: rows"),
        ({name: [cell, cell] for name, cell in SETTLED.items()}, "one object of columns"),
        ({name: {"0": cell, "1": cell} for name, cell in SETTLED.items()}, "one object of columns"),
        ({"columns": list(SETTLED), "index": [0, 1], "data": [list(SETTLED.values())] * 2}, "one object of columns"),
        ({"0": SETTLED, "1": SETTLED}, "rows by their number"),
    ],
)
@pytest.mark.parametrize("indent", [None, 2])
def test_rows_in_every_usual_way_to_write_a_document(document, note, indent, tmp_path):
    table = read_preferences(write_text(tmp_path / "rows.json", json.dumps(document, indent=indent)))
    assert (table.prompt, table.chosen, table.rejected) == tuple([SETTLED[k]] * 2 for k in SETTLED)
    assert note in str(table.report)


def test_a_document_with_several_tables_is_refused_with_the_line_that_takes_one(tmp_path):
    path = write_text(tmp_path / "rows.json", json.dumps({"train": [SETTLED], "test": [SETTLED]}))
    with pytest.raises(
        ValueError, match=r"several in 'train', 'test'; .*\['train'\]\), in the shell: jq '\.\[\"train\"\]'"
    ):
        read_preferences(path)
    assert len(read_preferences(json.loads(path.read_text())["train"])) == 1


def test_all_labels_without_a_meaning_are_named():
    rows = [{**PAIR, "label": cell} for cell in (-3, 1, 3, -3, "?")]
    with pytest.raises(MalformedRowError, match=r"all without a meaning: '-3', '3', '\?'; say what each means"):
        read_preferences(rows)
    with pytest.raises(MalformedRowError, match="in column 'label'; say what it means"):
        read_preferences([{**PAIR, "label": -3}])
