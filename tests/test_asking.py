"""What a router asks: its information, batches, users who are known, contradict themselves, or scatter; contexts."""

from __future__ import annotations

import copy
import pickle
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import entr, expit
from sklearn.exceptions import NotFittedError

from micropref import ContextRouter, HierarchicalBradleyTerry, MixtureBradleyTerry, load, make_pairs, save
from micropref._engine.gaussian_users import Scatter
from micropref._rows.pair_keys import NoQuestionLeftError, pair_keys
from micropref._users.answered import AnsweredPairs

K, D = 3, 5
rng = np.random.default_rng(0)
HEADS = 2 * rng.normal(size=(K, D))
POOL = rng.normal(size=(60, D))


def mixture_of(heads, weights=None, scatter=None, temperature=1.0, kind=MixtureBradleyTerry):
    """A fitted mixture of planted heads."""
    k = len(heads)
    model = MixtureBradleyTerry(k, max_iter=1, n_init=1, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(np.random.default_rng(1).normal(size=(40, heads.shape[1])), np.arange(40) % 2)
    weights = np.full(k, 1 / k) if weights is None else np.asarray(weights)
    model.coef_, model.weights_ = np.array(heads), weights
    model.gate_parameters_ = [np.log(weights)] if k > 1 else []
    model.scatter_, model.history_temperature_ = scatter, temperature
    return model


def router_of(heads=HEADS, **settings):
    """A router that knows one user, of no importance."""
    return ContextRouter(mixture_of(heads, **settings)).partial_fit(POOL[:1], [1], groups=["another"])


def scatter_of(k=K, d=D, q=2, size=1.0, residual=0.3):
    generator = np.random.default_rng(3)
    basis = np.linalg.qr(generator.normal(size=(d, q)))[0]
    roots = size * generator.normal(size=(k, q, q))
    return Scatter(basis, roots @ roots.swapaxes(1, 2), np.full(k, residual))


def by_hand(router, X, user, temperature=1.0):
    groups = None if user is None else [user] * len(X)
    weights = router.mixture_weights(X, groups=groups)
    p = expit(X @ router.mixture_.coef_.T / temperature)
    mean = (weights * p).sum(axis=1)
    return entr(mean) + entr(1 - mean) - (weights * (entr(p) + entr(1 - p))).sum(axis=1)


# -------------------------------------------------------------------------------------------------- information, heads


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_information_is_that_of_answers_as_noisy_as_votes_are_trusted(temperature):
    router = router_of(temperature=temperature).partial_fit(POOL[:2], [1, 0], groups=["ann"] * 2)
    for user in ("ann", "never seen", None):
        groups = None if user is None else [user] * 60
        found = router.expected_information(POOL, groups)
        np.testing.assert_allclose(found, by_hand(router, POOL, user, temperature), atol=1e-12)
        np.testing.assert_allclose(found, router.expected_information(-POOL, groups), rtol=1e-9)
        assert found.min() >= 0
        assert found.max() <= np.log(2)
        assert np.ptp(found) > 0.05
    mixed = router.expected_information(POOL[:2], ["ann", None])
    assert mixed[0] == pytest.approx(router.expected_information(POOL[:1], ["ann"])[0], rel=1e-9)
    assert mixed[1] == pytest.approx(router.expected_information(POOL[1:2])[0], rel=1e-9)


def test_the_first_suggestion_is_the_pair_of_most_information():
    router = router_of().partial_fit(POOL[:2], [1, 0], groups=["ann"] * 2)
    for user in ("ann", "never seen", None):
        found = by_hand(router, POOL[5:], user)
        assert router.suggest(POOL[5:], group=user).tolist() == [int(found.argmax())]
        assert router.suggest(POOL[5:], 4, user)[0] == found.argmax()
    assert router.suggest(POOL, 1, "never seen").tolist() == router.suggest(POOL, 1).tolist()


def test_the_second_question_of_a_batch_is_the_best_of_answers_as_noisy_as_votes_are_trusted():
    """Of all pairs of questions by their four answers, at a temperature at which other pairs are chosen."""
    rows = {}
    for temperature in (1.0, 4.0):
        router = router_of(3 * HEADS, temperature=temperature)
        p = expit(3 * POOL @ HEADS.T / temperature)
        rows[temperature] = one, two = router.suggest(POOL, 2, "ann").tolist()
        values = np.full(60, -np.inf)
        for j in set(range(60)) - {one}:
            answers = [a * b for a in (p[one], 1 - p[one]) for b in (p[j], 1 - p[j])]
            values[j] = sum(entr(answer.mean()) - entr(answer).mean() for answer in answers)
        assert values[two] == pytest.approx(values.max(), abs=1e-12)
    assert rows[1.0] != rows[4.0]


def test_the_scale_of_rows_and_their_precision_change_little():
    router = router_of()
    single = router.expected_information(POOL.astype(np.float32))
    np.testing.assert_allclose(single, router.expected_information(POOL), atol=1e-6)
    tensor = torch.tensor(POOL)
    np.testing.assert_allclose(router.expected_information(tensor), router.expected_information(POOL), atol=1e-12)
    assert router.suggest(tensor, 3, "ann").tolist() == router.suggest(POOL, 3, "ann").tolist()
    assert router.suggest(POOL.tolist(), 3, "ann").tolist() == router.suggest(POOL, 3, "ann").tolist()


def test_contexts_choose_the_questions():
    """In the first context the head is known, in the second it is one of two."""
    X = make_pairs(POOL[:40], 0 * POOL[:40], np.eye(2)[np.arange(40) % 2])
    y = ((POOL[:40] * HEADS[np.arange(40) % 4 // 3]).sum(axis=1) > 0).astype(int)
    router = ContextRouter(mixture_of(HEADS)).fit(X, y)
    again = make_pairs(np.repeat(POOL[40:], 2, axis=0), np.zeros((40, D)), np.eye(2)[np.arange(40) % 2])
    assert (router.suggest(again, 5) % 2 == 1).all()
    assert router.expected_information(again)[1::2].mean() > 2 * router.expected_information(again)[::2].mean()


# ---------------------------------------------------------------------------------------------------- asked only once


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 8), st.sampled_from(["information", "epig"]))
def test_no_two_questions_of_a_batch_are_the_same_pair(seed, n_queries, strategy):
    generator = np.random.default_rng(seed)
    pool = np.concatenate([POOL[:8], -POOL[:8], POOL[:8]])
    order = generator.permutation(24)
    rows = router_of().suggest(pool[order], n_queries, "ann", strategy, random_state=seed)
    assert len(set((order[rows] % 8).tolist())) == n_queries


@pytest.mark.parametrize("scatter", [None, scatter_of()])
def test_a_pair_that_was_answered_is_not_asked_again(scatter, tmp_path):
    router = router_of(scatter=scatter)
    asked = []
    for _ in range(6):
        row = int(router.suggest(POOL[:6], 1, "ann")[0])
        asked.append(row)
        router.partial_fit(-POOL[[row]], [0], groups=["ann"])  # the user saw it the other way round
    assert sorted(asked) == list(range(6))
    with pytest.raises(NoQuestionLeftError, match="expected candidates that have not been answered, got none"):
        router.suggest(POOL[:6], 1, "ann")
    assert len(router.suggest(POOL[:6], 6, "bob")) == 6
    if scatter is None:
        save(router, tmp_path)
    saved = [load(tmp_path)] if scatter is None else []
    for other in (*saved, copy.deepcopy(router), pickle.loads(pickle.dumps(router)), router._forked()):
        assert other.suggest(POOL[:7], 1, "ann").tolist() == [6]
        other.partial_fit(POOL[6:7], [1], groups=["ann"])
    assert router.suggest(POOL[:7], 1, "ann").tolist() == [6]  # the copies remember on their own
    assert router.suggest(POOL[:7].astype(np.float32), 1, "ann").tolist() == [6]


def test_votes_without_weight_and_labels_of_contexts_are_no_answers():
    router = router_of().partial_fit(POOL[:3], [1, 1, 1], sample_weight=[1, 0, 1], groups=["ann", "ann", None])
    assert sorted(router.suggest(POOL[:3], 2, "ann").tolist()) == [1, 2]


def test_the_last_answers_are_remembered_in_a_ring():
    ring = AnsweredPairs(4)
    ring.add(np.array([0, 1, 0]), np.array([10, 11, 12], dtype=np.uint64))
    other = ring.copy()
    ring.add(np.array([0, 2]), np.array([13, 14], dtype=np.uint64))
    assert sorted(ring.of(0).tolist()) == [12, 13]
    assert ring.of(-1).tolist() == []
    assert sorted(other.of(0).tolist()) == [10, 12]
    ring.add(np.array([7]), np.array([15], dtype=np.uint64))
    assert (ring.of(1).tolist(), ring.of(7).tolist(), ring.of(0).tolist()) == ([], [15], [12, 13])
    again = AnsweredPairs(4)
    again.restore(ring.export())
    assert [sorted(again.of(u).tolist()) for u in range(8)] == [sorted(ring.of(u).tolist()) for u in range(8)]
    ring.add(np.zeros(9, dtype=int), np.arange(9, dtype=np.uint64))
    assert sorted(ring.of(0).tolist()) == [5, 6, 7, 8]


@pytest.mark.parametrize("size", [1, 7, 4096, 5000, 12_288])
def test_the_ring_is_that_of_all_votes_cut_to_its_size(size):
    """Votes that come singly and by thousands, with copies in between that go on by themselves."""
    generator = np.random.default_rng(size)
    ring, votes = AnsweredPairs(size), np.empty((0, 2), dtype=np.uint64)
    for n in (1, 3, 4095, 1, 2000, 1, 9000, 17, 4096):
        new = generator.integers(0, 5, size=(n, 2)).astype(np.uint64)
        new[:, 1] += np.uint64(1 << 63)
        copied, before = ring.copy(), votes
        ring.add(new[:, 0].astype(np.int32), new[:, 1])
        votes = np.concatenate([votes, new])[-size:]
        for one, expected in ((ring, votes), (copied, before)):
            for user in (0, 4, 5, -1):
                kept = expected[expected[:, 0] == user, 1] if user >= 0 else []
                assert sorted(one.of(user).tolist()) == sorted(np.asarray(kept).tolist())
        exported = ring.export()
        np.testing.assert_array_equal(exported["users"], votes[:, 0])
        np.testing.assert_array_equal(exported["pairs"].view(np.uint64), votes[:, 1])
        copied.add(np.array([3]), np.array([77], dtype=np.uint64))
        assert 77 not in ring.of(3).tolist()


@pytest.mark.parametrize("scatter", [None, scatter_of()])
def test_a_pair_is_not_asked_again_after_many_votes_of_other_users(scatter):
    others = np.random.default_rng(4).normal(size=(20_000, D))
    router = router_of(scatter=scatter).partial_fit(POOL[:3], [1, 0, 1], groups=["ann"] * 3)
    router.partial_fit(others, np.arange(20_000) % 2, groups=np.arange(20_000) % 900)
    assert sorted(router.suggest(POOL[:6], 3, "ann").tolist()) == [3, 4, 5]


@pytest.mark.parametrize("width", [1, 2, 7, 64])
def test_keys_of_pairs(width):
    generator = np.random.default_rng(width)
    rows = generator.integers(-3, 4, size=(400, width)).astype(float)
    keys = pair_keys(rows)
    canonical = {tuple(row if next((v for v in row if v), 1) > 0 else -row) for row in rows}
    assert len(set(keys.tolist())) == len({tuple(v + 0.0 for v in row) for row in canonical})
    np.testing.assert_array_equal(keys, pair_keys(-rows))
    np.testing.assert_array_equal(keys, pair_keys(rows.astype(np.float16)))
    np.testing.assert_array_equal(keys, pair_keys(torch.tensor(rows)))
    np.testing.assert_array_equal(keys, np.concatenate([pair_keys(row[None]) for row in rows]))  # whatever the batch


# ------------------------------------------------------------------------------------------------- seeds, and the wrong


def test_equal_questions_are_drawn_by_the_seed():
    router = router_of(HEADS[:1])  # one head: no answer says anything
    assert (router.expected_information(POOL) == 0).all()
    drawn = [tuple(router.suggest(POOL, 3, "ann", random_state=seed).tolist()) for seed in range(8)]
    assert len(set(drawn)) == 8
    assert drawn[0] == tuple(router.suggest(POOL, 3, "ann").tolist())
    assert all(len(set(rows)) == 3 for rows in drawn)


def test_a_user_who_contradicts_themself_is_heard():
    """After answers of one head, questions still tell it from the others, and as many of another head move the user."""
    router = router_of()
    generator, flipped = np.random.default_rng(5), None
    for turn in range(45):
        head, pool = HEADS[0] if turn < 15 else HEADS[1], generator.normal(size=(100, D))
        information = router.expected_information(pool, ["ann"] * 100)
        row = router.suggest(pool, 1, "ann")
        assert information[row] == information.max() > 0
        p = expit(pool[row] @ router.mixture_.coef_.T)[0]
        assert np.ptp(p) > 0.2  # it matters which head the user has
        router.partial_fit(pool[row], (pool[row] @ head > 0).astype(int), groups=["ann"])
        weights = router.mixture_weights(pool[:1], ["ann"])[0]
        if turn == 14:
            assert weights[0] > 0.99
        if flipped is None and weights[1] > 0.5:
            flipped = turn
    assert flipped is not None
    assert flipped < 35


def test_both_answers_to_the_same_pair_leave_a_user_open():
    router = router_of()
    pair = POOL[router.suggest(POOL, 1, "ann")]
    router.partial_fit(np.repeat(pair, 6, axis=0), [0, 1] * 3, groups=["ann"] * 6)
    assert router.mixture_weights(pair, ["ann"]).max() < 1 - 1e-6
    assert router.expected_information(POOL, ["ann"] * 60).max() > 1e-6


# ------------------------------------------------------------------------------------------------------ asked or drawn


@pytest.mark.parametrize("strategy", ["information", "epig"])
def test_two_questions_teach_more_than_two_drawn_pairs(strategy):
    generator = np.random.default_rng(0)
    test = generator.normal(size=(300, D))
    right = {"asked": [], "drawn": []}
    for user in range(60):
        head, pool = HEADS[user % K], generator.normal(size=(50, D))
        for how, losses in right.items():
            router = router_of()
            for _ in range(2):
                row = router.suggest(pool, 1, "new", strategy) if how == "asked" else generator.integers(50, size=1)
                router.partial_fit(pool[row], (pool[row] @ head > 0).astype(int), groups=["new"])
            losses.append(router.log_likelihood(test, test @ head > 0, groups=["new"] * 300))
    difference = np.array(right["asked"]) - right["drawn"]
    assert difference.mean() > 2 * difference.std() / np.sqrt(60) > 0


def test_targets_decide_what_is_asked():
    """Heads differ along two axes; the target pairs along one of them alone."""
    heads = 3.0 * np.array([[a, b, 0, 0, 0] for a in (1, -1) for b in (1, -1)], dtype=float)
    pool, targets = np.eye(5)[:3] * [[1.1], [1.0], [1.0]], np.outer([1.0, 2.0, -1.0], np.eye(5)[1])
    router = router_of(heads)
    assert router.suggest(pool, 1, "ann").tolist() == [0]
    for strategy in ("information", "epig"):
        assert router.suggest(pool, 1, "ann", strategy, target=targets).tolist() == [1]
    many = np.repeat(targets, 100, axis=0)  # of which some are drawn
    assert router.suggest(pool, 2, "ann", target=many)[0] == 1
    assert len(router.suggest(POOL, 7, "ann", "epig")) == 7


# ---------------------------------------------------------------------------------------------- users who scatter


def test_information_about_users_who_scatter_is_that_of_sampled_ones():
    scatter = scatter_of()
    router = router_of(scatter=scatter).partial_fit(POOL[:4], [1, 0, 1, 1], groups=["ann"] * 4)
    generator = np.random.default_rng(0)
    for user in ("ann", "new"):
        weights = router.mixture_weights(POOL[:10], [user] * 10)[0]
        means, covariances = router.history_.belief(user)
        z, outside = scatter.coordinates(POOL[:10])
        mean, spread = np.zeros(10), np.zeros(10)
        for k in range(K):
            users = generator.multivariate_normal(means[k], covariances[k], size=20_000)
            margins = POOL[:10] @ HEADS[k] + users @ z.T
            noise = np.sqrt(scatter.residual[k] * outside)[None, :, None] * np.linspace(-3, 3, 25)
            density = np.exp(-(np.linspace(-3, 3, 25) ** 2) / 2)
            p = (expit(margins[..., None] + noise) @ density) / density.sum()
            mean += weights[k] * p.mean(axis=0)
            spread += weights[k] * (entr(p) + entr(1 - p)).mean(axis=0)
        expected = entr(mean) + entr(1 - mean) - spread
        found = router.expected_information(POOL[:10], [user] * 10)
        np.testing.assert_allclose(found, expected, atol=0.01)
        assert np.ptp(found) > 0.02


def test_one_head_with_scatter_asks_where_users_differ():
    scatter = Scatter(np.eye(D)[:, :1], np.full((1, 1, 1), 4.0), np.zeros(1))
    router = router_of(0 * HEADS[:1], scatter=scatter)
    pool = np.vstack([np.eye(D)[1:], 0.2 * np.eye(D)[:1], np.eye(D)[:1]])
    assert router.expected_information(pool)[: D - 1].max() < 1e-12
    assert router.suggest(pool, 1, "ann").tolist() == [D]
    asked = router.suggest(np.vstack([pool, 1.01 * np.eye(D)[:1]]), 3, "ann").tolist()
    assert set(asked) == {D - 1, D, D + 1}


def test_batches_for_users_who_scatter_ask_in_several_directions():
    scatter = Scatter(np.eye(D)[:, :3], np.eye(3)[None] * 4.0, np.zeros(1))
    router = router_of(0 * HEADS[:1], scatter=scatter)
    pool = np.repeat(np.eye(D)[:3], 4, axis=0) * np.array([[1.0], [1.05], [0.95], [1.1]] * 3)
    for strategy in ("information", "epig"):
        rows = router.suggest(pool, 3, "ann", strategy)
        assert sorted((rows // 4).tolist()) == [0, 1, 2]
        assert rows.tolist() == router.suggest(pool, 3, "ann", strategy).tolist()


@pytest.mark.parametrize("strategy", ["information", "epig"])
def test_batches_for_a_known_user_leave_out_what_is_known(strategy):
    scatter = Scatter(np.eye(D)[:, :3], np.eye(3)[None] * 4.0, np.zeros(1))
    router = router_of(0 * HEADS[:1], scatter=scatter)
    pool = np.repeat(np.eye(D)[:3], 2, axis=0) * np.array([[1.5], [1.6], [1.0], [1.1], [1.0], [1.1]])
    assert 0 in router.suggest(pool, 2, "new", strategy) // 2
    known = np.linspace(0.2, 3, 60)[:, None] * np.eye(D)[:1]
    router.partial_fit(known, np.arange(60) % 2, groups=["ann"] * 60)  # who has no taste along the first axis
    assert sorted((router.suggest(pool, 2, "ann", strategy) // 2).tolist()) == [1, 2]


def test_a_fitted_hierarchical_model_asks_better_than_chance():
    generator = np.random.default_rng(0)
    own = np.array([2.0, 0, 0, 0]) + generator.normal(size=(150, 4)) * [0.2, 2.0, 0.2, 0.2]
    X = generator.normal(size=(150 * 12, 4))
    users = np.repeat(np.arange(150), 12)
    y = (generator.random(1800) < expit((X * own[users]).sum(axis=1))).astype(int)
    model = HierarchicalBradleyTerry(1, rank=1, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(X[:1200], y[:1200], groups=users[:1200])
    router = ContextRouter(model).partial_fit(X[:1], y[:1], groups=["another"])
    rows = router.suggest(generator.normal(size=(50, 4)), 5, "new")
    assert len(set(rows.tolist())) == 5
    unit = router.suggest(np.eye(4), 1, "new")
    assert unit.tolist() == [1]


# ----------------------------------------------------------------------------------------------------------- contexts


def test_contexts_to_label_are_unlike_those_that_have_labels():
    heads = np.array([[3.0, 0], [-3.0, 0]])
    difference = np.tile([[1.0, 0.0]], (30, 1))
    context = np.eye(3)[np.arange(30) % 3]
    difference = difference * (1 + 0.01 * np.arange(30)[:, None])
    X = make_pairs(difference, 0 * difference, context)
    router = ContextRouter(mixture_of(heads)).fit(X[[0, 3]], [1, 1])
    first = router.suggest_contexts(X, 4, labelled=X[[0, 3]])
    assert router.suggest_contexts(X, 1, labelled=X[[0, 3]], target=X[[4, 7]])[0] % 3 == 1
    assert {int(row) % 3 for row in first[:2]} == {1, 2}
    assert 0 not in first
    assert router.suggest_contexts(X, 4, labelled=X[[0, 3]]).tolist() == first.tolist()
    agree = X.copy()
    agree[::2, 3:] = [0.0, 5.0]  # of these pairs both heads say the same
    assert (router.suggest_contexts(agree, 3) % 2 == 1).all()


def test_labels_of_suggested_contexts_teach_the_gate_more():
    """Contexts come in kinds, of which some are common."""
    gain = []
    for seed in range(30):
        generator = np.random.default_rng(seed)
        centres, kind = 2 * generator.normal(size=(3, 6)), np.minimum(generator.geometric(0.3, size=700) - 1, 2)
        context, difference = centres[kind] + 0.1 * generator.normal(size=(700, 6)), generator.normal(size=(700, 3))
        y = (generator.random(700) < expit(3 * difference[np.arange(700), kind])).astype(int)
        X = make_pairs(difference, 0 * difference, context)
        mixture, start, rest, test = mixture_of(3 * np.eye(3)), np.arange(12), np.arange(12, 400), np.arange(400, 700)
        asked = ContextRouter(mixture).fit(X[start], y[start]).suggest_contexts(X[rest], 8, labelled=X[start])
        values = []
        for more in (rest[asked], rest[:8]):
            rows = np.concatenate([start, more])
            values.append(ContextRouter(mixture).fit(X[rows], y[rows]).log_likelihood(X[test], y[test]))
        gain.append(values[0] - values[1])
    # A gate that is wrong about a kind costs much, so that gains vary.
    assert np.mean(gain) > 1.5 * np.std(gain) / np.sqrt(30) > 0
    assert np.mean(np.array(gain) > 0) > 0.6


# ---------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize("n_queries", [0, -1, 61, 1.5, True, "3", None])
def test_a_number_of_questions_that_cannot_be(n_queries):
    router = router_of()
    with pytest.raises(ValueError, match=r"n_queries: expected an integer between 1 and 60, .* got"):
        router.suggest(POOL, n_queries)
    with pytest.raises(ValueError, match=r"n_queries: expected an integer between 1 and 60, .* got"):
        router.suggest_contexts(POOL, n_queries)


def test_what_cannot_be_asked():
    router = router_of()
    with pytest.raises(ValueError, match="strategy: expected one of 'information', 'epig', got 'random'"):
        router.suggest(POOL, strategy="random")
    with pytest.raises(ValueError, match="group: expected an integer, a string"):
        router.suggest(POOL, group=True)
    with pytest.raises(ValueError, match="features"):
        router.suggest(POOL[:, 1:])
    with pytest.raises(ValueError, match="features"):
        router.suggest(POOL, target=POOL[:, 1:])
    bad = POOL.copy()
    bad[3, 2] = np.nan
    with pytest.raises(ValueError, match="row 3"):
        router.suggest(bad)
    with pytest.raises(ValueError, match="row 3"):
        router.expected_information(bad)
    with pytest.raises(NotFittedError):
        ContextRouter(mixture_of(HEADS)).suggest(POOL)
    with pytest.raises(NotFittedError):
        ContextRouter(mixture_of(HEADS)).expected_information(POOL)


def test_asking_changes_nothing():
    router = router_of().partial_fit(POOL[:2], [1, 0], groups=["ann"] * 2)
    before = pickle.dumps(router)
    for strategy in ("information", "epig"):
        router.suggest(POOL, 3, "ann", strategy)
        router.suggest(POOL, 3, "eve", strategy)
    router.suggest_contexts(POOL, 3)
    router.expected_information(POOL, ["ann"] * 60)
    assert pickle.dumps(router) == before
    assert "eve" not in router.history_
