"""Splits, labels and methods of a task: what must not change results."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from bench_cases import PLAIN, SPEC, cell_of, odds_of, preference_rows
from hypothesis import given, settings
from hypothesis import strategies as st

from micropref.bench._data import in_canonical_order
from micropref.bench._loading import load_data
from micropref.bench._methods.registry import RUNNERS
from micropref.bench._methods.steps import NotApplicable, Stages
from micropref.bench._specs import (
    ANNOTATORS,
    CONTEXTS,
    KINDS,
    TARGETS,
    TRAINING_CONTEXTS,
    DatasetSpec,
    resolve_settings,
)
from micropref.bench._tasks import make_task


@settings(max_examples=8)
@given(seed=st.integers(0, 1000), kind=st.sampled_from(PLAIN))
def test_names_and_the_order_of_rows_change_nothing(seed, kind):
    rng = np.random.default_rng(seed)
    parts = preference_rows(rng, n_context=2)
    data = in_canonical_order(**parts)
    order = rng.permutation(len(parts["user"]))
    names = rng.permutation([f"user {i}" for i in range(10)])
    units = rng.permutation(1000)
    other = in_canonical_order(
        **{
            **{name: part[order] for name, part in parts.items()},
            "user": names[parts["user"]][order],
            "unit": units[parts["unit"]][order],
        }
    )
    assert other.hash == data.hash
    for name in ("difference", "user", "unit", "is_tie"):
        np.testing.assert_array_equal(getattr(other, name), getattr(data, name))
    np.testing.assert_array_equal(odds_of(data, kind)[0], odds_of(other, kind)[0])


def test_users_who_are_alike_can_be_exchanged():
    """Many users cast the same votes: in whatever order their rows come, they are put in one."""
    rng = np.random.default_rng(11)
    votes = rng.normal(size=(6, 3))
    parts = {
        "context": np.zeros((24, 0)),
        "difference": np.tile(votes, (4, 1)),
        "weight": np.ones(24),
        "user": np.repeat(np.arange(4), 6),
        "target": np.full(24, -1),
        "unit": np.tile(np.arange(6), 4),
    }
    hashes = set()
    for _ in range(10):
        order = rng.permutation(24)
        hashes.add(in_canonical_order(**{name: part[order] for name, part in parts.items()}).hash)
    assert len(hashes) == 1


@settings(max_examples=8)
@given(
    seed=st.integers(0, 1000),
    kind=st.sampled_from(PLAIN),
)
def test_swapping_pairs_changes_rounding_alone(seed, kind):
    data = in_canonical_order(**preference_rows(np.random.default_rng(seed), n_context=2))
    found, other = (odds_of(data, kind, order_seed=order) for order in (0, 1))
    assert not np.array_equal(found[1].test_sign, other[1].test_sign)
    # Iterations end within `tol`, from wherever rounding led them.
    np.testing.assert_allclose(found[0], other[0], rtol=0.02, atol=0.02)


@pytest.fixture(scope="module", params=["users", "contexts"])
def poisoned(request):
    """Raw rows before anything is done with them, and the same with the labels of all test rows turned round."""
    rng = np.random.default_rng(4)
    spec = SPEC if request.param == "users" else replace(SPEC, protocol="contexts", pairs_per_annotator=0)
    parts = preference_rows(rng, n_context=2)
    if request.param == "contexts":
        parts["target"] = parts["user"] % 2
    data = in_canonical_order(**parts)
    task = make_task(data, spec, seed=0, budgets=(0, 3), n_draws=2)
    tested = {np.abs(row).tobytes() for row in task.inputs.test.difference}
    rows = np.array([np.abs(row).tobytes() in tested for row in parts["difference"].astype(np.float32)])
    assert 0 < rows.sum() < len(rows)
    turned = {**parts, "difference": np.where(rows[:, None], -parts["difference"], parts["difference"])}
    return spec, task, make_task(in_canonical_order(**turned), spec, seed=0, budgets=(0, 3), n_draws=2)


def test_labels_of_test_rows_decide_no_split(poisoned):
    _, clean, turned = poisoned
    assert clean.inputs.test.y is None
    assert turned.split_hash == clean.split_hash
    np.testing.assert_array_equal(turned.inputs.ranks, clean.inputs.ranks)
    np.testing.assert_array_equal(turned.inputs.train.difference, clean.inputs.train.difference)
    preferred = [task.test_sign * task.inputs.test.difference.T for task in (clean, turned)]
    np.testing.assert_array_equal(preferred[0], -preferred[1])


@pytest.mark.parametrize("kind", PLAIN)
def test_labels_of_test_rows_reach_no_fit(poisoned, kind):
    """Other labels of test rows in the raw data: every fit, and so every prediction, is the same."""
    spec, *tasks = poisoned
    (clean, meta), (turned, _) = (cell_of(task, kind, spec) for task in tasks)
    assert meta["status"] == "done", meta
    np.testing.assert_array_equal(clean["log_odds"], -turned["log_odds"])


def test_splits_keep_their_promises():
    parts = preference_rows(np.random.default_rng(5), n_users=20)
    data = in_canonical_order(**parts)
    task = make_task(data, SPEC, seed=2, budgets=(0, 1, 4), n_draws=3)
    inputs = task.inputs
    new = set((np.unique(task.target)).tolist())
    assert not new & set(inputs.annotators.tolist())
    assert not set(np.unique(inputs.pool_target).tolist()) & set(inputs.annotators.tolist())
    for draw in range(3):
        taken = [np.flatnonzero(inputs.ranks[draw] < budget) for budget in inputs.budgets]
        assert set(taken[1].tolist()) < set(taken[2].tolist())
        np.testing.assert_array_equal(np.sort(np.concatenate(list(inputs.steps(draw)))), taken[2])
        counts = np.unique(inputs.pool_target[taken[2]], return_counts=True)[1]
        assert counts.max() == 4
    other = make_task(data, SPEC, seed=3, budgets=(0, 1, 4), n_draws=3)
    assert other.split_hash != task.split_hash
    again = make_task(data, SPEC, seed=2, budgets=(0, 1, 4), n_draws=3)
    assert again.split_hash == task.split_hash
    np.testing.assert_array_equal(again.inputs.train.difference, inputs.train.difference)


@pytest.mark.parametrize("kind", PLAIN)
def test_methods_use_no_more_information_than_the_tables_say(kind):
    """Another assignment of annotators, or other contexts, change nothing for a method that does not claim them."""
    data = in_canonical_order(**preference_rows(np.random.default_rng(3), n_users=40, n_context=3))
    task = make_task(data, SPEC, seed=0, budgets=(0, 2), n_draws=1)
    random = np.random.default_rng(4)

    def shuffled(rows):
        return replace(rows, context=rows.context[random.permutation(len(rows))])

    inputs, chosen = task.inputs, resolve_settings(kind, {}, SPEC.parameters)
    claimed = KINDS[kind].information_with(chosen)
    chosen.pop("labels", None)  # of the cell, not of the method
    others = {
        frozenset({ANNOTATORS}): inputs.with_permuted_annotators(),
        frozenset({TRAINING_CONTEXTS, CONTEXTS}): replace(
            inputs, **{name: shuffled(getattr(inputs, name)) for name in ("train", "pool", "test")}
        ),
        frozenset({TARGETS}): replace(inputs, pool_target=random.permutation(inputs.pool_target)),
    }
    found = RUNNERS[kind](inputs, chosen, Stages())
    for information, other in others.items():
        if not information & claimed:
            np.testing.assert_array_equal(RUNNERS[kind](other, chosen, Stages()), found)


@pytest.mark.parametrize(
    ("kind", "given", "used"),
    [
        ("single", {}, set()),
        ("ensemble", {}, {ANNOTATORS}),
        ("ensemble", {"alpha": 0.1}, set()),
        ("hyre", {}, {ANNOTATORS, TARGETS}),
        ("hyre", {"alpha": 0.1}, {TARGETS}),
        ("categorical", {}, {ANNOTATORS, TARGETS}),
        ("categorical", {"user_alpha": 30.0}, {TARGETS}),
        ("mean_variance", {}, {TARGETS}),
        ("static", {"training_contexts": True}, {TRAINING_CONTEXTS, CONTEXTS}),
        ("micro_context", {"history": True}, {ANNOTATORS, CONTEXTS, TARGETS}),
    ],
)
def test_information_depends_on_settings(kind, given, used):
    assert KINDS[kind].information_with(resolve_settings(kind, given, {})) == used


def test_controls_are_permuted():
    data = in_canonical_order(**preference_rows(np.random.default_rng(6), n_users=20))
    inputs = make_task(data, SPEC, seed=0, budgets=(0, 2), n_draws=1).inputs
    permuted = inputs.with_permuted_annotators()
    assert not np.array_equal(permuted.annotators, inputs.annotators)
    np.testing.assert_array_equal(np.sort(permuted.annotators), np.sort(inputs.annotators))
    first, second = replace(inputs, ranks=np.repeat(inputs.ranks, 2, axis=0)).with_permuted_labels()
    owner = {row.tobytes(): user for row, user in zip(inputs.pool.difference, inputs.pool_target, strict=True)}
    for shuffled in (first, second):
        np.testing.assert_array_equal(shuffled.pool_target, inputs.pool_target)
        pairs = zip(shuffled.pool.difference, shuffled.pool_target, strict=True)
        assert np.mean([owner[row.tobytes()] == user for row, user in pairs]) < 0.5
    assert not np.array_equal(first.pool.difference, second.pool.difference)
    with pytest.raises(ValueError, match="permute: expected 'annotators', 'labels' or '', got 'x'"):
        RUNNERS["micro_history"](inputs, resolve_settings("micro_history", {"permute": "x"}, {}), Stages())


def test_what_methods_share_is_fitted_once_and_charged_to_each():
    stages, calls = Stages(), []
    for _ in range(2):
        stages.seconds = 0.0
        assert stages.get("key", lambda: calls.append(1) or "fit") == "fit"
    assert calls == [1]
    assert stages.seconds >= 0


def test_users_with_little_to_say(tmp_path):
    """One pair alone, votes on test units alone, a pair of no other user: metrics, and notes of what was done."""
    rng = np.random.default_rng(7)
    parts = preference_rows(rng, n_users=12)
    parts["user"][:3] = [100, 101, 102]
    data = in_canonical_order(**parts)
    spec = replace(SPEC, min_votes=1, new_users=1.0)
    with pytest.raises(ValueError, match="made: expected at least one training row for seed 0, got none"):
        make_task(data, spec, seed=0, budgets=(0, 1), n_draws=1)
    spec = replace(spec, new_users=0.9)
    task = make_task(data, spec, seed=0, budgets=(0, 1, 100), n_draws=1)
    assert any(re.fullmatch(r"\d of \d+ new users (has|have) no (test rows.*|labels.*)", note) for note in task.notes)
    assert task.mean_labels[0] == 0
    assert task.mean_labels[2] < 20
    for kind in ("micro_history", "lore", "user_rewards", "hyre_random"):
        assert np.isfinite(odds_of(data, kind, spec=spec)[0]).all()


def test_data_that_a_protocol_cannot_split(tmp_path):
    data = in_canonical_order(**preference_rows(np.random.default_rng(9)))
    with pytest.raises(ValueError, match="made: expected users with 50 votes or more, got at most 1"):
        make_task(data, replace(SPEC, min_votes=50), seed=0, budgets=(0,), n_draws=1)
    with pytest.raises(ValueError, match=r"made: test_units: expected fewer than the \d+ units .*, got 500"):
        make_task(data, replace(SPEC, test_units=500), seed=0, budgets=(0,), n_draws=1)
    row = {"prompt": "p", "chosen": "a", "rejected": "b"}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row))
    spec = DatasetSpec(name="rows", kind="file", path="rows.jsonl")
    with pytest.raises(ValueError, match="rows: expected a column of users for the protocol 'users', got none"):
        load_data(spec, tmp_path)
    with pytest.raises(ValueError, match="rows: target: expected one of the columns prompt, got 'context'"):
        load_data(replace(spec, protocol="contexts"), tmp_path)


def test_not_applicable_is_no_error():
    assert issubclass(NotApplicable, Exception)
    data = in_canonical_order(**preference_rows(np.random.default_rng(1)))
    anonymous = replace(data, user=np.full(len(data.user), -1), target=np.zeros(len(data.user), dtype=int))
    spec = replace(SPEC, protocol="contexts", pairs_per_annotator=0)
    task = make_task(anonymous, spec, seed=0, budgets=(0, 1), n_draws=1)
    for kind, reason in (("micro_permuted", "no annotators to permute"), ("micro_context", "no contexts")):
        meta = cell_of(task, kind, spec)[1]
        assert (meta["status"], meta["reason"]) == ("not applicable", reason)
    assert cell_of(task, "static", spec, training_contexts=True)[1]["reason"] == "no contexts"
