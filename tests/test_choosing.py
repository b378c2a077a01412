"""best_of, relabel, predict_proba, and log-odds for other users than those of the table."""

from __future__ import annotations

import doctest

import numpy as np
import pytest
from rollout_cases import LONG, QUESTION, SHORT, WISH, demo_model
from scipy.special import expit

import micropref._reward.choosing
import micropref._reward.judging
from micropref import PreferenceModel, load_demo, read_preferences
from micropref._reward import choosing
from micropref.datasets import PreferenceTable


@pytest.fixture(scope="module")
def model() -> PreferenceModel:
    return demo_model()[0]


@pytest.fixture(scope="module")
def table() -> PreferenceTable:
    return load_demo(n_annotators=60).test[:40]


# ------------------------------------------------------------------------------------------------------------- best_of


def test_best_of_is_the_first_of_rank(model, table):
    user = demo_model()[1]
    rng = np.random.default_rng(0)
    texts = [*table.chosen, *table.rejected]
    candidates = [list(rng.choice(texts, size=rng.integers(1, 5))) for _ in range(12)]
    prompts, users = table.prompt[:12], [user, None, "nobody knows me"] * 4
    found = model.best_of(prompts, candidates, [WISH, ""] * 6, users)
    rows = zip(prompts, candidates, [WISH, ""] * 6, users, strict=True)
    assert found.tolist() == [int(model.rank(*row)[0]) for row in rows]
    assert found.dtype == np.intp
    assert len(set(found.tolist())) > 1


def test_best_of_scores_in_batches(model, table, monkeypatch):
    candidates = [[a, b, c] for a, b, c in zip(table.chosen, table.rejected, table.chosen[::-1], strict=True)]
    expected = model.best_of(table.prompt, candidates, WISH)
    calls = []
    reward = PreferenceModel.reward
    monkeypatch.setattr(PreferenceModel, "reward", lambda *a, **k: calls.append(len(a[2])) or reward(*a, **k))
    assert (model.best_of(table.prompt, candidates, WISH) == expected).all()
    assert calls == [120]
    monkeypatch.setattr(choosing, "_AT_ONCE", 10)
    assert (model.best_of(table.prompt, candidates, WISH) == expected).all()
    assert calls[1:] == [9] * 13 + [3]


def test_the_first_of_level_candidates(model):
    assert model.best_of([QUESTION], [[SHORT, SHORT, LONG]], WISH).tolist() == [0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([QUESTION], [[SHORT], [LONG]]), "expected a list of candidates for every prompt, got 1 prompts and 2 lists"),
        (([QUESTION], [[]]), r"candidates\[0\]: expected at least one candidate, got none"),
        (([QUESTION], [[SHORT]], [WISH] * 2), "expected as many contexts"),
        (([QUESTION], [[SHORT]], WISH, [1, 2]), "users: expected one for each of 1 rows"),
    ],
)
def test_best_of_refuses(model, arguments, message):
    with pytest.raises(ValueError, match=message):
        model.best_of(*arguments)
    with pytest.raises(TypeError, match=r"candidates\[0\]: expected a list"):
        model.best_of([QUESTION], [SHORT])
    with pytest.raises(ValueError, match="empty: expected a number"):
        model.best_of([QUESTION], [[SHORT]], WISH, empty=np.nan)


# ------------------------------------------------------------------------------------- log-odds, probabilities of users


def test_log_odds_for_other_users(model, table):
    user = demo_model()[1]
    own = PreferenceTable(table.prompt, table.chosen, table.rejected, table.context, [user] * len(table))
    expected = model.log_odds(own)
    np.testing.assert_array_equal(model.log_odds(table, users=[user] * len(table)), expected)
    np.testing.assert_array_equal(model.log_odds(table, users=user), expected)
    assert np.abs(expected - model.log_odds(table, users="never seen")).max() > 0.1
    np.testing.assert_array_equal(model.log_odds(table, users="never seen"), model.log_odds(table, history=False))
    wished = PreferenceTable(table.prompt, table.chosen, table.rejected, [WISH] * len(table), table.group)
    np.testing.assert_array_equal(model.log_odds(table, contexts=WISH), model.log_odds(wished))
    with pytest.raises(ValueError, match="expected history=True and routed=True, since users are given"):
        model.log_odds(table, users=user, history=False)
    with pytest.raises(ValueError, match="users: expected one for each of 40 rows, got 3"):
        model.log_odds(table, users=[user] * 3)


def test_differences_of_rewards_and_log_odds_agree_in_sign(model, table):
    user = demo_model()[1]
    better, worse = (model.reward(table.prompt, texts, WISH, user) for texts in (table.chosen, table.rejected))
    odds = model.log_odds(table, users=user, contexts=WISH)
    clear = np.abs(odds) > 0.5
    assert clear.sum() > 10
    assert (np.sign(better - worse)[clear] == np.sign(odds)[clear]).mean() > 0.9


def test_probabilities(model, table):
    user = demo_model()[1]
    odds = model.log_odds(table, users=user).astype(np.float64)
    found = model.predict_proba(table, users=user)
    np.testing.assert_allclose(found, np.column_stack([expit(-odds), expit(odds)]), rtol=1e-12)
    assert found.dtype == np.float64
    turned = PreferenceTable(table.prompt, table.rejected, table.chosen, table.context, table.group)
    np.testing.assert_allclose(model.predict_proba(turned, users=user), found[:, ::-1], atol=1e-5)


# ------------------------------------------------------------------------------------------------------------- relabel


def test_relabelled_for_a_user(model, table):
    user = demo_model()[1]
    odds = model.log_odds(table, users=user)
    found = model.relabel(table, users=user, min_margin=0.7)
    rows = np.array(found.extra["row"])
    assert rows.tolist() == np.flatnonzero(np.abs(odds) >= 0.7).tolist()
    assert 0 < len(found) < len(table)
    assert found.n_rejected == len(table) - len(found)
    np.testing.assert_allclose(found.extra["margin"], np.abs(odds[rows]))
    assert found.extra["turned"] == (odds[rows] < 0).tolist()
    assert True in found.extra["turned"]
    for place, row in enumerate(rows):
        pair = (table.chosen[row], table.rejected[row])
        assert (found.chosen[place], found.rejected[place]) == (pair[::-1] if odds[row] < 0 else pair)
    assert list(found.group) == [user] * len(found)
    assert f"{sum(found.extra['turned'])} rows turned around" in str(found.report)
    assert f"{found.n_rejected} rows left out, decided by less than 0.7 nats" in str(found.report)
    # What was relabelled is what the model prefers, from whatever order it came.
    assert (model.log_odds(found) >= 0.7 - 1e-4).all()


def test_relabelling_forgets_who_answered(model, table):
    assert model.relabel(table, contexts=WISH).group is None
    assert set(model.relabel(table, contexts=WISH).context) == {WISH}
    asked = PreferenceTable(table.prompt, table.chosen, table.rejected, group=[demo_model()[1]] * len(table))
    with pytest.raises(ValueError, match="since this model was routed by contexts, got neither"):
        model.relabel(asked)


def test_labels_are_not_read(model):
    rows = [{"prompt": QUESTION, "response_a": LONG, "response_b": SHORT}] * 2
    for labels in ([], ["a", "b"], ["b", "tie"]):
        given = [row | {"label": label} for row, label in zip(rows, labels, strict=True)] if labels else rows
        found = model.relabel(given, contexts=WISH)
        assert (found.chosen, found.extra["turned"], found.extra["row"]) == ([SHORT] * 2, [True] * 2, [0, 1])


def test_a_file_for_dpo(model, table, tmp_path):
    found = model.relabel(table, users=[demo_model()[1]] * len(table), min_margin=0.5)
    found.to_jsonl(tmp_path / "dpo.jsonl")
    again = read_preferences(tmp_path / "dpo.jsonl")
    assert (again.prompt, again.chosen, again.rejected) == (found.prompt, found.chosen, found.rejected)
    assert again.extra["margin"] == found.extra["margin"]


def test_nothing_to_relabel(model, table):
    none = model.relabel(table, users="ann", min_margin=1e6)
    assert (len(none), none.n_rejected) == (0, len(table))
    assert len(model.relabel(table[:0], users="ann")) == 0


@pytest.mark.parametrize("margin", [-1.0, np.nan, np.inf, True, "1"])
def test_margins_that_are_none(model, table, margin):
    with pytest.raises(ValueError, match="min_margin: expected a finite number of nats from 0"):
        model.relabel(table, contexts=WISH, min_margin=margin)


@pytest.mark.parametrize("module", [micropref._reward.choosing, micropref._reward.judging])
def test_examples_in_the_docstrings(module):
    failures, tried = doctest.testmod(module)
    assert (failures, tried > 3) == (0, True)
