"""Messages, empty responses and missing contexts: one rule for every way in which a model is asked."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rollout_cases import LONG, QUESTION, SHORT, WISH, assistant_says, demo_model, user_says

from micropref import PreferenceModel
from micropref.datasets._asked import read_asked
from micropref.datasets.responses import read_responses

SYSTEM = {"role": "system", "content": "Be kind."}
CALL = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "clock", "arguments": '{"tz": 1}'}}]}
TOOL = {"role": "tool", "content": "23:00"}
PARTS = [{"type": "text", "text": "Sleep "}, {"type": "text", "text": "now."}]
EMPTY = [None, "", " \n", float("nan"), np.float32("nan"), pd.NA, [], [{"role": "assistant", "content": " "}],
         [{"role": "assistant", "content": "Let me see."}, {"role": "assistant", "content": ""}]]  # fmt: skip


@pytest.fixture(scope="module")
def model() -> PreferenceModel:
    return demo_model()[0]


TEXTS = st.text(alphabet="ab \n.", max_size=6)
MESSAGES = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant", "system"]), "content": TEXTS}), max_size=3
)


@given(prompt=TEXTS | MESSAGES, response=TEXTS | MESSAGES, context=TEXTS | MESSAGES)
def test_a_call_and_a_reader_understand_the_same(prompt, response, context):
    asked = read_asked([prompt], [response], [context])
    rows = [{"prompt": prompt, "response": response, "context": context}]
    if not asked.present:
        with pytest.raises(ValueError, match="row 0: expected text, got an empty response"):
            read_responses(rows)
        return
    table = read_responses(rows)
    assert (asked.prompts, asked.responses, asked.contexts) == (table.prompt, table.response, table.context)


@pytest.mark.parametrize(
    ("prompt", "response", "texts"),
    [
        (QUESTION, assistant_says(SHORT), (QUESTION, SHORT)),
        ([SYSTEM, *user_says(QUESTION)], SHORT, (f"system: Be kind.\n\nuser: {QUESTION}", SHORT)),
        (user_says("Hi"), [*user_says("Hi"), *assistant_says(SHORT)], ("Hi", SHORT)),
        (tuple(user_says("Hi")), tuple(assistant_says(SHORT)), ("Hi", SHORT)),
        (np.array(user_says("Hi"), dtype=object), np.array(assistant_says(SHORT), dtype=object), ("Hi", SHORT)),
        (user_says("Hi"), {"role": "assistant", "content": PARTS}, ("Hi", "Sleep now.")),
        (
            "Hi",
            [CALL, TOOL, *assistant_says("Bed.")],
            ("Hi", 'assistant: clock({"tz": 1})\n\ntool: 23:00\n\nassistant: Bed.'),
        ),
        (
            [*user_says("A?"), *assistant_says("B."), *user_says("C?")],
            assistant_says("D."),
            ("user: A?\n\nassistant: B.\n\nuser: C?", "D."),
        ),
        (None, '[{"role": "assistant", "content": "x"}]', ("", '[{"role": "assistant", "content": "x"}]')),
        ("Hi", '[{"role": "assistant", "cont', ("Hi", '[{"role": "assistant", "cont')),
    ],
)
def test_messages_as_text(prompt, response, texts):
    """Strings are text as they stand: a policy that writes messages, or half of them, has written text."""
    asked = read_asked([prompt], [response])
    assert (asked.prompts, asked.responses, asked.contexts) == ([texts[0]], [texts[1]], None)


@pytest.mark.parametrize("empty", EMPTY, ids=repr)
def test_an_empty_response_is_an_error_or_has_a_reward(model, empty):
    with pytest.raises(ValueError, match=r"response 1: expected text, got an empty response; pass empty="):
        model.reward([QUESTION] * 2, [SHORT, empty], contexts=WISH)
    found = model.reward(
        [QUESTION] * 3, [SHORT, empty, LONG], contexts=WISH, users=[None, 3, demo_model()[1]], empty=-7.5
    )
    assert found[1] == -7.5
    expected = model.reward([QUESTION] * 2, [SHORT, LONG], contexts=WISH, users=[None, demo_model()[1]])
    np.testing.assert_array_equal(found[[0, 2]], expected)
    _, std = model.reward([QUESTION] * 2, [empty, LONG], contexts=WISH, empty=0, return_std=True)
    assert np.isnan(std[0])
    assert std[1] > 0
    assert model.rank(QUESTION, [empty, LONG, SHORT], context=WISH, empty=-np.inf).tolist() == [2, 1, 0]
    with pytest.raises(ValueError, match="response 0: expected text, got an empty response"):
        model.rank(QUESTION, [empty, LONG])
    assert model.best_of([QUESTION] * 2, [[empty, LONG], [empty]], WISH, empty=-np.inf).tolist() == [1, 0]


def test_all_empty_and_none_at_all(model):
    np.testing.assert_array_equal(model.reward([QUESTION] * 2, ["", None], contexts=WISH, empty=1.0), [1.0, 1.0])
    assert model.reward([], [], contexts=[]).shape == (0,)
    assert model.best_of([], [], contexts=[]).shape == (0,)
    assert model.best_of([QUESTION] * 2, [["", ""], [""]], WISH, empty=-np.inf).tolist() == [0, 0]


@pytest.mark.parametrize("nothing", [None, "", float("nan"), pd.NA, []], ids=repr)
def test_a_missing_context_is_blank_everywhere(model, nothing):
    user = demo_model()[1]
    blank = model.reward([QUESTION], [SHORT], [""], [user])
    np.testing.assert_array_equal(model.reward([QUESTION], [SHORT], [nothing], [user]), blank)
    row = {"prompt": QUESTION, "chosen": SHORT, "rejected": LONG, "group": user}
    np.testing.assert_array_equal(model.log_odds([row | {"context": nothing}]), model.log_odds([row | {"context": ""}]))
    assert (model.rank(QUESTION, [SHORT, LONG], context=nothing) == model.rank(QUESTION, [SHORT, LONG])).all()


def test_every_way_to_ask_takes_messages(model):
    prompt, short, long = user_says(QUESTION), assistant_says(SHORT), assistant_says(LONG)
    plain = model.reward([QUESTION] * 2, [SHORT, LONG], [WISH] * 2)
    np.testing.assert_array_equal(model.reward([prompt] * 2, [short, LONG], [user_says(WISH), WISH]), plain)
    assert model.rank(prompt, [long, SHORT], context=user_says(WISH)).tolist() == [1, 0]
    assert model.best_of([prompt, QUESTION], [[long, SHORT], (short, LONG)], WISH).tolist() == [1, 0]
    rows = [{"prompt": prompt, "chosen": short, "rejected": long, "context": user_says(WISH)}]
    texts = [{"prompt": QUESTION, "chosen": SHORT, "rejected": LONG, "context": WISH}]
    np.testing.assert_array_equal(model.log_odds(rows), model.log_odds(texts))
    np.testing.assert_array_equal(model.predict_proba(rows), model.predict_proba(texts))
    assert model.relabel(rows) == model.relabel(texts)


@pytest.mark.parametrize("kind", [list, tuple, pd.Series, lambda column: np.array(column, dtype=object), iter])
def test_columns_of_any_kind(model, kind):
    expected = model.reward([QUESTION] * 2, [SHORT, LONG], [WISH, ""], ["7", None])
    columns = [[QUESTION] * 2, [SHORT, LONG], [WISH, None], [7, None]]
    np.testing.assert_array_equal(model.reward(*map(kind, columns)), expected)


def test_one_user_or_context_for_all_rows(model):
    user = demo_model()[1]
    expected = model.reward([QUESTION] * 2, [SHORT, LONG], [WISH] * 2, [user] * 2)
    for one in (user, np.str_(user), np.array([user] * 2)):
        np.testing.assert_array_equal(model.reward([QUESTION] * 2, [SHORT, LONG], WISH, one), expected)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((QUESTION, [SHORT]), TypeError, "prompts: expected a list, one for each row, got one string"),
        (
            ([QUESTION], {"role": "assistant", "content": "x"}),
            TypeError,
            "responses: expected a list, .*got one object",
        ),
        ((5, [SHORT]), TypeError, "prompts: expected a list, one for each row, got 5"),
        (([QUESTION], [5]), ValueError, "response 0: expected text or a list of messages, got 5"),
        (([QUESTION], [["x"]]), ValueError, "response 0: expected an object with 'role' and 'content'"),
        (([QUESTION], [[{"role": "user", "content": 5}]]), ValueError, "response 0: expected text or text parts"),
        (([QUESTION], ["\ud800"]), ValueError, "response 0: expected text that can be written as UTF-8"),
        (([QUESTION], [SHORT], [WISH] * 2), ValueError, "expected as many contexts as responses, got 2 contexts and 1"),
        (([QUESTION], [SHORT], [WISH], [1, 2]), ValueError, "users: expected one for each of 1 rows, got 2"),
        (([QUESTION], [SHORT], [WISH], [True]), ValueError, "expected"),
    ],
)
def test_what_is_refused(model, arguments, error, message):
    with pytest.raises(error, match=message):
        model.reward(*arguments)
