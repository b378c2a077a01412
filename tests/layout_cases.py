"""Small files in the layouts that people have, and the comparisons that are in them; every text is made up."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any, NamedTuple


class Case(NamedTuple):
    """One file, how it is read, and its rows: (prompt, chosen, rejected, user); a tie is two rows."""

    name: str
    file: str
    content: bytes
    rows: list[tuple[str, str, str, Any]]
    said: str = ""
    options: dict[str, Any] = {}

    def write(self, folder: Path) -> Path:
        path = folder / self.file
        path.write_bytes(self.content)
        return path


def lines(*rows: dict[str, Any]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def table(rows: list[list[Any]], delimiter: str = ",") -> bytes:
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


def say(role: str, content: Any) -> dict[str, Any]:
    return {"role": role, "content": content}


def chat(*turns: str) -> list[dict[str, Any]]:
    return [say(("user", "assistant")[i % 2], turn) for i, turn in enumerate(turns)]


def gpt(*turns: str) -> list[dict[str, str]]:
    return [{"from": ("human", "gpt")[i % 2], "value": turn} for i, turn in enumerate(turns)]


PLAIN = [("Boat?", "A canoe.", "A brick.", "eve"), ("Hat?", "A beret.", "A pan.", "tom")]
HH = "\n\nHuman: Boat?\n\nAssistant:"


def kaggle(questions: list[str], one: list[str | None], other: list[str | None], *winner: int) -> dict[str, Any]:
    return {
        "id": 7,
        "model_a": "m1",
        "model_b": "m2",
        "prompt": json.dumps(questions),
        "response_a": json.dumps(one),
        "response_b": json.dumps(other),
        **dict(zip(("winner_model_a", "winner_model_b", "winner_tie"), winner, strict=True)),
    }


def task(selected: str | None, by: Any, **more: Any) -> dict[str, Any]:
    result = (
        [] if selected is None else [{"type": "pairwise", "value": {"selected": selected}, "from_name": "pw", **more}]
    )
    return {"id": 1, "completed_by": by, "result": result, "was_cancelled": False}


LABEL_STUDIO = [
    {
        "id": 3,
        "data": {"prompt": "Boat?", "answer1": "A canoe.", "answer2": "A brick."},
        "annotations": [task("left", 5), task("right", {"id": 6, "email": "tom@example.org"})],
        "meta": {},
    },
    {
        "id": 4,
        "data": {"prompt": "Hat?", "answer1": "A pan.", "answer2": "A beret."},
        "annotations": [task("right", 5), {**task("left", 6), "was_cancelled": True}],
    },
]


def csv_of(header: str, *rows: list[Any], delimiter: str = ",") -> bytes:
    return table([header.split(","), *rows], delimiter)


def rated(value: int) -> dict[str, Any]:
    aspects = ("instruction_following", "honesty", "truthfulness", "helpfulness")
    return {aspect: {"Rating": str(value), "Rationale": "-"} for aspect in aspects}


BOTH = [("Boat?", "A canoe.", "A brick.", None), ("Boat?", "A brick.", "A canoe.", None)]

CASES = [
    Case(
        "arena",
        "arena.jsonl",
        lines(
            {
                "question_id": "q1",
                "model_a": "m1",
                "model_b": "m2",
                "winner": "model_a",
                "judge": "eve",
                "conversation_a": chat("Boat?", "A canoe."),
                "conversation_b": chat("Boat?", "A brick."),
            },
            {
                "question_id": "q2",
                "model_a": "m2",
                "model_b": "m1",
                "winner": "model_b",
                "judge": "tom",
                "conversation_a": chat("Hat?", "A pan."),
                "conversation_b": chat("Hat?", "A beret."),
            },
        ),
        PLAIN,
        "responses: conversation_a, conversation_b; label: winner; user: judge; format: arena",
    ),
    Case(
        "arena-pandas",
        "arena.csv",
        csv_of(
            "conversation_a,conversation_b,winner,judge",
            # As pandas writes arrays: in the notation of Python, without commas between the messages.
            [
                str(chat("Boat?", "It's a canoe.")).replace("}, {", "}\n {"),
                str(chat("Boat?", "A brick.")),
                "model_a",
                "eve",
            ],
            [str(chat("Hat?", "A pan.")), str(chat("Hat?", 'A "beret".')), "model_b", "tom"],
        ),
        [("Boat?", "It's a canoe.", "A brick.", "eve"), ("Hat?", 'A "beret".', "A pan.", "tom")],
    ),
    Case(
        "arena-lists",
        "kaggle.csv",
        csv_of(
            "id,model_a,model_b,prompt,response_a,response_b,winner_model_a,winner_model_b,winner_tie",
            list(kaggle(["Boat?"], ["A canoe."], ["A brick."], 1, 0, 0).values()),
            list(kaggle(["Hat?", "Why?"], ["A pan.", "Hm."], ["A beret.", "Style."], 0, 1, 0).values()),
            list(kaggle(["Boat?"], ["A canoe."], ["A brick."], 0, 0, 1).values()),
        ),
        [
            (*PLAIN[0][:3], None),
            (
                "Hat?",
                "assistant: A beret.\n\nuser: Why?\n\nassistant: Style.",
                "assistant: A pan.\n\nuser: Why?\n\nassistant: Hm.",
                None,
            ),
            *BOTH,
        ],
        "responses: response_a, response_b; label: winner; format: arena",
    ),
    Case(
        "arena-names",
        "named.csv",
        csv_of(
            "prompt,model_a,model_b,response_a,response_b,winner",
            ["Boat?", "gull-2", "crow", "A brick.", "A canoe.", "crow"],
            ["Hat?", "crow", "gull-2", "A beret.", "A pan.", "crow"],
        ),
        [(*row[:3], None) for row in PLAIN],
    ),
    Case(
        "openai",
        "openai.jsonl",
        lines(
            {
                "input": {"messages": chat("Boat?"), "tools": [], "parallel_tool_calls": True},
                "preferred_output": [say("assistant", "A canoe.")],
                "non_preferred_output": [say("assistant", "A brick.")],
            }
        ),
        [("Boat?", "A canoe.", "A brick.", None)],
        "prompt: input; chosen: preferred_output; rejected: non_preferred_output; format: openai",
    ),
    Case(
        "sharegpt",
        "sharegpt.json",
        json.dumps(
            [
                {
                    "conversations": gpt("Boat?"),
                    "chosen": {"from": "gpt", "value": "A canoe."},
                    "rejected": {"from": "gpt", "value": "A brick."},
                    "labeler": "eve",
                }
            ]
        ).encode(),
        PLAIN[:1],
        "prompt: conversations; chosen: chosen; rejected: rejected; user: labeler; format: sharegpt",
    ),
    Case(
        "sharegpt-whole",
        "whole.jsonl",
        lines({"chosen": gpt("Boat?", "A canoe."), "rejected": gpt("Boat?", "A brick."), "worker_id": "eve"}),
        PLAIN[:1],
    ),
    Case(
        "label-studio",
        "label_studio.json",
        json.dumps(LABEL_STUDIO).encode(),
        [
            ("Boat?", "A canoe.", "A brick.", 5),
            ("Boat?", "A brick.", "A canoe.", 6),
            ("Hat?", "A beret.", "A pan.", 5),
        ],
        "prompt: prompt; responses: answer1, answer2; label: label; user: completed_by; format: label-studio",
    ),
    Case(
        "label-studio-min",
        "min.csv",
        csv_of(
            "answer1,answer2,annotator,comparison,id,prompt",
            ["A canoe.", "A brick.", "eve", '{"selected":"left"}', 1, "Boat?"],
            ["A pan.", "A beret.", "tom", '{"selected":"right"}', 2, "Hat?"],
        ),
        PLAIN,
    ),
    Case(
        "hh-rlhf",
        "hh.jsonl",
        lines({"chosen": HH + " A canoe.", "rejected": HH + " A brick."}),
        [(HH, " A canoe.", " A brick.", None)],
        "chosen: chosen; rejected: rejected; format: hh-rlhf",
    ),
    Case(
        "ultrafeedback",
        "ultrafeedback.jsonl",
        lines(
            {
                "source": "made up",
                "instruction": "Boat?",
                "models": ["m1", "m2"],
                "completions": [
                    {"model": "m1", "response": "A brick.", "annotations": rated(2)},
                    {"model": "m2", "response": "A canoe.", "annotations": rated(5)},
                ],
            }
        ),
        [("Boat?", "A canoe.", "A brick.", None)] * 4,
    ),
    Case(
        "binarized",
        "binarized.jsonl",
        lines(
            {
                "prompt": "Boat?",
                "prompt_id": "00ff",
                "chosen": chat("Boat?", "A canoe."),
                "rejected": chat("Boat?", "A brick."),
                "messages": chat("Boat?", "A canoe."),
                "score_chosen": 8.0,
                "score_rejected": 3.0,
            }
        ),
        [("Boat?", "A canoe.", "A brick.", None)],
    ),
    Case(
        "alpaca",
        "alpaca.json",
        json.dumps(
            [
                {"instruction": "Name a boat.", "input": "One word.", "chosen": "Canoe.", "rejected": "Brick."},
                {"instruction": "Name a hat.", "input": "", "chosen": "Beret.", "rejected": "Pan."},
            ]
        ).encode(),
        [
            ("Name a boat.\n\nOne word.", "Canoe.", "Brick.", None),
            ("Name a hat.", "Beret.", "Pan.", None),
        ],
        "prompt: instruction and input; chosen: chosen; rejected: rejected; prompt: instruction, then input",
    ),
    Case(
        "context-conversation",
        "helpful.jsonl",
        lines(
            {
                "context": chat("Boat?", "Which?", "Any."),
                "response1": "A canoe.",
                "response2": "A brick.",
                "preference": "response1",
            }
        ),
        [("user: Boat?\n\nassistant: Which?\n\nuser: Any.", "A canoe.", "A brick.", None)],
    ),
    Case(
        "semicolons",
        "excel.csv",
        table(
            [
                ["Prompt", "Response A", "Response B", "Better", "Annotator ID"],
                ["Boat?", "A canoe.", "A brick.", "A", "eve"],
                ["Hat?", "A pan.", "A beret.", "B", "tom"],
            ],
            ";",
        ),
        PLAIN,
        "prompt: Prompt; responses: Response A, Response B; label: Better; user: Annotator ID; separated by semicolons",
    ),
    Case(
        "utf-16",
        "sheet.csv",
        "sep=\t\nquery\toutput_1\toutput_2\tchoice\trater_id\nBoat?\tA canoë.\tA brick.\tleft\teve\n".encode("utf-16"),
        [("Boat?", "A canoë.", "A brick.", "eve")],
    ),
    Case(
        "cp1252",
        "old.tsv",
        "question\tanswer_a\tanswer_b\twinner\nBoat?\tA canoë.\tA brick.\tA>B\nHat?\tA beret.\tA pan.\tequal\n".encode(
            "cp1252"
        ),
        [
            ("Boat?", "A canoë.", "A brick.", None),
            ("Hat?", "A beret.", "A pan.", None),
            ("Hat?", "A pan.", "A beret.", None),
        ],
        options={"encoding": "cp1252"},
    ),
    Case(
        "wide",
        "wide.csv",
        csv_of(
            "prompt,completion_a,completion_b,label_1,label_2,label_3",
            ["Boat?", "A canoe.", "A brick.", "a", "b", ""],
            ["Hat?", "A pan.", "A beret.", "b", "", "b"],
        ),
        [
            ("Boat?", "A canoe.", "A brick.", "label_1"),
            ("Boat?", "A brick.", "A canoe.", "label_2"),
            ("Hat?", "A beret.", "A pan.", "label_1"),
            ("Hat?", "A beret.", "A pan.", "label_3"),
        ],
        options={"annotators": "label_1,label_2,label_3"},
    ),
    Case(
        "system",
        "system.jsonl",
        lines({"system": "Be brief.", "question": "Boat?", "chosen": "A canoe.", "rejected": "A brick."}),
        [("system: Be brief.\n\nuser: Boat?", "A canoe.", "A brick.", None)],
        "prompt: question; system: system; chosen: chosen; rejected: rejected",
    ),
    Case(
        "history-in-both",
        "history.jsonl",
        lines(
            {
                "prompt": "And a hat?",
                "chosen": [say("system", "Be brief."), *chat("Boat?", "A canoe.", "And a hat?", "A beret.")],
                "rejected": [say("system", "Be brief."), *chat("Boat?", "A canoe.", "And a hat?", "A pan.")],
            }
        ),
        [
            (
                "system: Be brief.\n\nuser: Boat?\n\nassistant: A canoe.\n\nuser: And a hat?",
                "A beret.",
                "A pan.",
                None,
            )
        ],
    ),
    Case(
        "mapped",
        "mapped.csv",
        csv_of(
            "task,one,two,verdict,who",
            ["Boat?", "A canoe.", "A brick.", "1", "eve"],
            ["Hat?", "A pan.", "A beret.", "2", "tom"],
            ["Hat?", "A pan.", "A beret.", "0", "tom"],
        ),
        [*PLAIN, ("Hat?", "A pan.", "A beret.", "tom"), ("Hat?", "A beret.", "A pan.", "tom")],
        options={
            "columns": {"prompt": "task", "response_a": "one", "response_b": "two", "label": "verdict", "user": "who"},
            "labels": {"1": "first", "2": "second", "0": "tie"},
        },
    ),
]
BY_NAME = {case.name: case for case in CASES}


def shell_options(options: dict[str, Any]) -> list[str]:
    """What the command takes for options of `read_preferences`."""
    given: list[str] = []
    for role, name in options.get("columns", {}).items():
        given += ["--column", f"{role}={name}"]
    for label, meaning in options.get("labels", {}).items():
        given += ["--label", f"{label}={meaning}"]
    for name in ("format", "annotators", "encoding"):
        if name in options:
            given += [f"--{name}", options[name]]
    return given
