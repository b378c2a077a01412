"""Defaults that know the data: penalties, temperatures and numbers of heads that "auto" chooses."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone

from micropref import ContextRouter, MixtureBradleyTerry, PreferenceModel, load_demo
from micropref._engine.dead_heads import dead_heads
from micropref._engine.gates import Gate
from micropref._engine.priors import GATE_DEVIATION, HEAD_DEVIATION, gate_penalty, head_penalty
from micropref._engine.vote_temperature import TEMPERATURES, _clearly_best, _mixed
from micropref._estimator.dead_heads import warn_of_dead_heads
from micropref.distributed._groups import hash_ids
from micropref.embed import HashingEncoder
from micropref.persistence import load, save
from micropref.selection import _choose, _Fold

N, PAIRS, D, C = 120, 5, 4, 3


def world(seed: int = 0, *, n: int = N, k: int = 2, pairs: int = PAIRS, size: float = 3.0):
    """Contexts, differences, labels and annotators of a planted mixture whose gate reads the context."""
    rng = np.random.default_rng(seed)
    heads = rng.normal(size=(k, D)) / np.sqrt(D) * size
    gate = rng.normal(size=(C, k))
    context = np.repeat(rng.normal(size=(n, C)), pairs, axis=0)
    groups = np.repeat(np.arange(n), pairs)
    taste = (context[::pairs] @ gate + rng.gumbel(size=(n, k))).argmax(axis=1)[groups]
    difference = rng.normal(size=(n * pairs, D))
    y = (rng.random(n * pairs) < 1 / (1 + np.exp(-(difference * heads[taste]).sum(axis=1)))).astype(int)
    return context, difference, y, groups


def mixture(**parameters):
    defaults = {"n_components": 2, "n_context_features": C, "n_init": 1, "tol": 1e-8, "random_state": 0}
    return MixtureBradleyTerry(**defaults | parameters)


CONTEXT, DIFFERENCE, Y, GROUPS = world()


def features(scale_of_context: float = 1.0, scale_of_difference: float = 1.0):
    return np.hstack([CONTEXT * scale_of_context, DIFFERENCE * scale_of_difference])


# ------------------------------------------------------------------------------------------------------------ formulas


def test_a_penalty_is_a_prior_in_nats():
    """w ~ N(0, I / (α Ω)): the margin on a pair of the usual norm has the standard deviation s."""
    model = mixture().fit(features(), Y, groups=GROUPS)
    norm = np.sqrt((DIFFERENCE**2).sum(axis=1).mean())
    assert model.alpha_ == pytest.approx(norm**2 / (HEAD_DEVIATION**2 * len(Y)))
    assert norm / np.sqrt(model.alpha_ * len(Y)) == pytest.approx(HEAD_DEVIATION)
    assert model.gate_alpha_ == pytest.approx((CONTEXT**2).sum(axis=1).mean() / (GATE_DEVIATION**2 * len(Y)))
    router = ContextRouter(model).fit(features()[:50], Y[:50])
    assert router.alpha_ == pytest.approx((CONTEXT[:50] ** 2).sum(axis=1).mean() / (GATE_DEVIATION**2 * 50))


@given(
    norm=st.floats(1e-20, 1e20), total=st.floats(1e-3, 1e9), factor=st.floats(1e-3, 1e3), hidden=st.sampled_from([0, 7])
)
@settings(max_examples=50, deadline=None)
def test_penalties_scale_as_the_rows_do(norm, total, factor, hidden):
    gate = Gate(3, 2, hidden)
    head, of_gate = head_penalty("auto", norm, total), gate_penalty("auto", gate, norm, total)
    assert head_penalty("auto", factor * norm, total) == pytest.approx(factor**2 * head)
    assert head_penalty("auto", norm, factor * total) == pytest.approx(head / factor)
    assert gate_penalty("auto", gate, factor * norm, total).inputs == pytest.approx(factor**2 * of_gate.inputs)
    # The layer behind hidden units knows no scale of contexts.
    assert gate_penalty("auto", gate, factor * norm, total).hidden == of_gate.hidden
    assert head_penalty(0.3, norm, total) == 0.3
    assert gate_penalty(0.3, gate, norm, total) == (0.3, 0.3)


# ---------------------------------------------------------------------------------------------------- scale and weight

FITS = {
    "mixture": lambda X: mixture().fit(X, Y),
    "mixture with annotators": lambda X: mixture().fit(X, Y, groups=GROUPS),
    "mixture, mlp gate": lambda X: mixture(gate="mlp", hidden_units=4, max_iter=40).fit(X, Y, groups=GROUPS),
    "one head": lambda X: mixture(n_components=1).fit(X, Y),
    "stream": lambda X: mixture().partial_fit(X[:300], Y[:300], groups=GROUPS[:300]).partial_fit(X[300:], Y[300:]),
    "stream after fit": lambda X: mixture().fit(X[:300], Y[:300]).partial_fit(X[300:], Y[300:]),
}
ROUTERS = {
    "router": {},
    "router, hedge": {"solver": "hedge", "n_iter": 5},
    "router, mlp": {"gate": "mlp", "hidden_units": 4, "random_state": 0},
    "router, knn": {"gate": "knn"},
    "router, cluster": {"gate": "cluster"},
}


def around(centers: np.ndarray, spread: float, n: int, rng) -> np.ndarray:
    """Contexts near some centres, the same number for each."""
    return centers[rng.permutation(np.arange(n) % len(centers))] + spread * rng.normal(size=(n, centers.shape[1]))


def far_apart(n: int, rng) -> np.ndarray:
    return 10 * np.linalg.qr(rng.normal(size=(8, n)))[0].T


# Contexts (n, 8) of worlds whose clusters are clear, doubtful, nested, or all equally far from each other, so that
# distances are equal up to rounding.
CONTEXTS = {
    "clear": lambda n, rng: around(far_apart(4, rng), 0.2, n, rng),
    "doubtful": lambda n, rng: around(rng.normal(size=(5, 8)), 0.35, n, rng),
    "nested": lambda n, rng: around((far_apart(4, rng)[:, None] + rng.normal(size=(3, 8))).reshape(12, 8), 0.1, n, rng),
    "far from the origin": lambda n, rng: 1000 + around(rng.normal(size=(6, 8)), 0.1, n, rng),
    "repeated": lambda n, rng: around(rng.normal(size=(20, 8)), 0.0, n, rng),
    "one of six": lambda n, rng: 0.3 * around(np.eye(8)[:6], 0.0, n, rng),
    "on a grid": lambda n, rng: 0.1 * rng.integers(0, 3, size=(n, 8)) * (np.arange(8) < 3),
    "smooth": lambda n, rng: rng.normal(size=(n, 8)),
}


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("scales", [(10, 1), (1, 10), (0.1, 10)], ids=str)
@pytest.mark.parametrize("name", FITS)
def test_features_ten_times_as_large_change_no_prediction_of_a_mixture(name, scales):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        one, other = FITS[name](features()), FITS[name](features(*scales))
    expected = one.predict_proba(features())
    np.testing.assert_allclose(other.predict_proba(features(*scales)), expected, rtol=0, atol=1e-3)
    assert np.ptp(expected[:, 1]) > 0.3


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("learn", ["fit", "partial_fit", "votes"])
@pytest.mark.parametrize("scales", [(10, 1), (1, 10)], ids=str)
@pytest.mark.parametrize("name", ROUTERS)
def test_features_ten_times_as_large_change_no_prediction_of_a_router(name, scales, learn):
    def routed(X):
        router = ContextRouter(mixture(n_context_features=0).fit(X[:, C:], Y, groups=GROUPS), **ROUTERS[name])
        if learn == "votes":
            return router.partial_fit(X[:200], Y[:200], groups=GROUPS[:200])
        getattr(router, learn)(X[:80], Y[:80])
        return router.partial_fit(X[80:160], Y[80:160])

    expected = routed(features()).predict_proba(features(), groups=GROUPS)
    found = routed(features(*scales)).predict_proba(features(*scales), groups=GROUPS)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-3)


@pytest.fixture(scope="module")
def two_heads():
    return mixture(n_context_features=0).fit(DIFFERENCE, Y, groups=GROUPS)


@pytest.mark.parametrize("kind", CONTEXTS)
@given(
    seed=st.integers(0, 10**6),
    n=st.integers(10, 80),
    scale=st.sampled_from([10.0, 1e-3, 3.7]),
    learn=st.sampled_from(["fit", "fit and more", "batches", "with unlabelled"]),
)
@settings(max_examples=15, deadline=None)
def test_no_prediction_of_the_cluster_gate_depends_on_the_unit_of_contexts(two_heads, kind, seed, n, scale, learn):
    rng = np.random.default_rng(seed)
    contexts, rows = CONTEXTS[kind](2 * n, rng), rng.integers(len(Y), size=2 * n)

    def answers(contexts):
        X, y, router = np.hstack([contexts, DIFFERENCE[rows]]), Y[rows], ContextRouter(two_heads, gate="cluster")
        if learn == "batches":
            router.partial_fit(X[: n // 2], y[: n // 2]).partial_fit(X[n // 2 : n], y[n // 2 : n])
        else:
            first = n // 2 if learn == "fit and more" else n
            router.fit(X[:first], y[:first], contexts=contexts if learn == "with unlabelled" else None)
            router = router.partial_fit(X[first:n], y[first:n]) if first < n else router
        return router.predict_proba(X)[:, 1], 0 if router.clusters_ is None else len(router.clusters_)

    (expected, n_clusters), (found, n_found) = answers(contexts), answers(scale * contexts)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-3)
    assert n_found == n_clusters


def test_a_row_twice_is_a_row_of_weight_two():
    X, twice = features(), np.arange(len(Y)) % 3 == 0
    rows = np.repeat(np.arange(len(Y)), 1 + twice)
    for groups in (None, GROUPS):
        weighted = mixture().fit(X, Y, sample_weight=1.0 + twice, groups=groups)
        repeated = mixture().fit(X[rows], Y[rows], groups=None if groups is None else groups[rows])
        assert weighted.alpha_ == pytest.approx(repeated.alpha_)
        assert weighted.gate_alpha_ == pytest.approx(repeated.gate_alpha_)
        assert weighted.history_temperature_ == repeated.history_temperature_
        np.testing.assert_allclose(weighted.coef_, repeated.coef_, atol=1e-4)
    weighted = ContextRouter(weighted).fit(X, Y, sample_weight=1.0 + twice)
    assert weighted.alpha_ == pytest.approx(ContextRouter(weighted.mixture_).fit(X[rows], Y[rows]).alpha_)


def test_the_penalty_of_a_stream_is_that_of_the_rows_so_far():
    X = features()
    whole = mixture().fit(X, Y)
    stream = mixture()
    for batch in np.array_split(np.arange(len(Y)), 7):
        stream.partial_fit(X[batch], Y[batch])
    after_fit = mixture().fit(X[:400], Y[:400]).partial_fit(X[400:], Y[400:])
    for model in (stream, after_fit):
        assert model.alpha_ == pytest.approx(whole.alpha_)
        assert model.gate_alpha_ == pytest.approx(whole.gate_alpha_)
    labelled = ContextRouter(whole).fit(X[:30], Y[:30]).partial_fit(X[30:90], Y[30:90])
    labelled.partial_fit(X[90:], Y[90:], groups=GROUPS[90:])  # votes of users teach no gate
    assert labelled.alpha_ == pytest.approx(ContextRouter(whole).fit(X[:90], Y[:90]).alpha_)


def test_a_saved_stream_goes_on_with_its_total(tmp_path):
    X = features()
    for model in (mixture().fit(X[:400], Y[:400]), mixture().partial_fit(X[:400], Y[:400])):
        save(model, tmp_path / "mixture")
        restored = load(tmp_path / "mixture")
        assert (restored.alpha_, restored.gate_alpha_) == (model.alpha_, model.gate_alpha_)
        assert restored.partial_fit(X[400:], Y[400:]).alpha_ == pytest.approx(mixture().fit(X, Y).alpha_)
    router = ContextRouter(mixture().fit(X, Y)).fit(X[:50], Y[:50])
    save(router, tmp_path / "router")
    restored = load(tmp_path / "router")
    assert (restored.alpha_, restored.history_temperature_) == (router.alpha_, router.history_temperature_)
    assert restored.partial_fit(X[50:80], Y[50:80]).alpha_ == router.partial_fit(X[50:80], Y[50:80]).alpha_


def test_numbers_stand_for_themselves_and_parameters_for_the_next_fit():
    model = mixture(alpha=0.2, gate_alpha=0.3).fit(features(), Y)
    assert (model.alpha_, model.gate_alpha_) == (0.2, 0.3)
    router = ContextRouter(model, alpha=0.4, history_temperature=3).fit(features(), Y)
    assert (router.alpha_, router.history_temperature_) == (0.4, 3.0)
    before = router.predict_proba(features())
    router.set_params(alpha="auto", history_temperature="auto")
    assert (router.alpha_, router.history_temperature_) == (0.4, 3.0)
    np.testing.assert_array_equal(router.predict_proba(features()), before)
    assert clone(router).alpha == "auto"


@pytest.mark.parametrize("value", ["automatic", "", None, -1, np.nan, True])
def test_other_words_are_refused(value):
    with pytest.raises(ValueError, match=r"alpha: expected a number in .* or 'auto', got"):
        mixture(alpha=value).fit(features(), Y)
    with pytest.raises(ValueError, match=r"history_temperature: expected a number in .* or 'auto', got"):
        ContextRouter(mixture().fit(features(), Y), history_temperature=value).fit(features(), Y)


def test_a_gate_without_parameters_has_no_penalty():
    router = ContextRouter(mixture().fit(features(), Y), gate="knn").fit(features(), Y)
    assert not hasattr(router, "alpha_")
    assert not hasattr(ContextRouter(router.mixture_).partial_fit(features(), Y, groups=GROUPS), "alpha_")


# -------------------------------------------------------------------------------------------------------- temperatures


def scattered(seed: int, spread: float, *, n: int = 300, pairs: int = 20):
    """Annotators of two tastes who scatter around them."""
    rng = np.random.default_rng(seed)
    heads = rng.normal(size=(2, D)) * 1.5
    groups = np.repeat(np.arange(n), pairs)
    own = heads[rng.integers(2, size=n)] + spread * rng.normal(size=(n, D))
    difference = rng.normal(size=(n * pairs, D))
    y = (rng.random(n * pairs) < 1 / (1 + np.exp(-(difference * own[groups]).sum(axis=1)))).astype(int)
    return difference, y, groups


@pytest.mark.parametrize("seed", range(3))
def test_annotators_between_heads_want_a_higher_temperature(seed):
    faithful = mixture(n_context_features=0).fit(*scattered(seed, 0.0)[:2], groups=scattered(seed, 0.0)[2])
    X, y, groups = scattered(seed, 1.0)
    between = mixture(n_context_features=0).fit(X, y, groups=groups)
    assert faithful.history_temperature_ <= 1.5
    assert between.history_temperature_ > 1.0
    router = ContextRouter(between).partial_fit(X[:100], y[:100], groups=groups[:100])
    assert router.history_temperature_ == between.history_temperature_
    by_hand = ContextRouter(between, history_temperature=between.history_temperature_)
    by_hand.partial_fit(X[:100], y[:100], groups=groups[:100])
    np.testing.assert_array_equal(by_hand.predict_proba(X, groups=groups), router.predict_proba(X, groups=groups))


@pytest.mark.parametrize("seed", range(2))
def test_the_temperature_chosen_serves_new_users(seed):
    X, y, groups = scattered(seed, 1.0, n=400)
    old, new = groups < 250, groups >= 250
    model = mixture(n_context_features=0).fit(X[old], y[old], groups=groups[old])
    history = new & (np.arange(len(y)) % 2 == 0)
    test = new & ~history

    def nats(temperature):
        router = ContextRouter(model, history_temperature=temperature)
        router.partial_fit(X[history], y[history], groups=groups[history])
        return -router.log_likelihood(X[test], y[test], groups=groups[test])

    loss = {temperature: nats(temperature) for temperature in TEMPERATURES}
    assert loss[model.history_temperature_] < min(loss.values()) + 0.01


@pytest.mark.parametrize("kind", ["no groups", "one each", "one head", "few", "stream"])
def test_bayes_rule_where_annotators_say_nothing(kind):
    X, y, groups = scattered(0, 1.0)
    k = 1 if kind == "one head" else 2
    groups = {"no groups": None, "one each": np.arange(len(y))}.get(kind, groups)
    rows = slice(0, 400) if kind == "few" else slice(None)
    model = mixture(n_components=k, n_context_features=0)
    learn = model.partial_fit if kind == "stream" else model.fit
    assert learn(X[rows], y[rows], groups=None if groups is None else groups[rows]).history_temperature_ == 1.0


def test_rows_in_another_order_choose_the_same_temperature():
    X, y, groups = scattered(1, 1.0)
    order = np.random.default_rng(0).permutation(len(y))
    model = mixture(n_context_features=0).fit(X, y, groups=groups)
    shuffled = mixture(n_context_features=0).fit(X[order], y[order], groups=groups[order])
    assert shuffled.history_temperature_ == model.history_temperature_


def test_halves_of_annotators_do_not_follow_their_numbers():
    for ids in (np.arange(4000), 2 * np.arange(4000), np.array([f"user {i}" for i in range(4000)], dtype=object)):
        held_out = _mixed(hash_ids(ids)) >= np.uint64(1 << 63)
        assert abs(held_out.mean() - 0.5) < 0.03
        assert abs(held_out[::2].mean() - 0.5) < 0.04


def test_another_temperature_needs_more_than_its_standard_error():
    n, grid = 50, len(TEMPERATURES)
    for gain, expected in ((0.0, 1.0), (0.5, 1.0), (2.0, TEMPERATURES[3])):
        total = np.zeros(grid)
        total[3] = gain * np.sqrt(n)
        squares = np.where(np.arange(grid) == 3, n + total**2 / n, 0.0)
        assert _clearly_best(np.concatenate([[n], total, squares])) == expected


# -------------------------------------------------------------------------------------------------------- what it says


@pytest.mark.parametrize(
    ("n_dead", "without_dead", "living"),
    [
        ([0, 0, 0], [-0.60, -0.61, -0.62], 4),
        ([1, 1, 0], [-0.60, -0.61, -0.62], 3),  # no loss without it, and dead in most folds
        ([2, 2, 2], [-0.59, -0.61, -0.62], 2),
        ([1, 0, 0], [-0.60, -0.61, -0.62], 4),
        ([1, 1, 1], [-0.61, -0.62, -0.63], 4),  # rare, and missed where it is left out
    ],
)
def test_dead_heads_are_never_counted(n_dead, without_dead, living):
    own = (-0.60, -0.61, -0.62)
    four = [_Fold(*each) for each in zip(own, without_dead, [1.0] * 3, n_dead, strict=True)]
    one = [_Fold(value - 0.1, value - 0.1, 1.0, 0) for value in own]
    for rule in ("one_se", "best"):
        assert _choose([1, 4], [one, four], rule)[0] == living


@pytest.mark.parametrize(
    ("weights", "n_dead"),
    [
        ([1.0], 0),
        ([0.5, 0.479, 0.021], 0),
        ([0.5, 0.481, 0.019], 1),
        ([0.0, 0.0, 1.0], 2),
        ([1 / 60] * 60, 0),  # an equal share each
        ([1 / 50] * 48 + [0.032, 0.008], 1),
    ],
)
def test_a_head_is_dead_below_two_percent_or_half_an_equal_share(weights, n_dead):
    assert dead_heads(np.array(weights)).sum() == n_dead


def test_the_warning_says_below_which_weight_a_head_is_dead():
    with pytest.warns(UserWarning, match=r"a weight of less than 1 % \(0.008\)"):
        warn_of_dead_heads(np.array([1 / 50] * 48 + [0.032, 0.008]))


def test_a_dead_head_warns_and_says_what_to_do():
    X, y, groups = scattered(0, 0.0)
    model = mixture(n_components=6, n_context_features=0, alpha=1e-3, tol=1e-4)
    with pytest.warns(UserWarning, match=r"less than 2 % .*Use n_components=\d.*select_n_components.*balance"):
        model.fit(X, y, groups=groups)
    assert (model.weights_ < 0.02).any()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mixture(n_context_features=0).fit(X, y, groups=groups)
        mixture(n_components=6, n_context_features=0).partial_fit(X, y, groups=groups)


def test_what_was_chosen_is_printed(capsys):
    mixture(verbose=1).fit(features(), Y, groups=GROUPS)
    assert "alpha 0.00" in capsys.readouterr().out


@pytest.fixture(scope="module")
def demo():
    return load_demo(n_annotators=150)


def test_a_model_of_texts_chooses_its_heads(demo, capsys):
    model = PreferenceModel.fit(demo.train, encoder=HashingEncoder(64), n_init=2, random_state=0, verbose=1)
    assert 2 <= model.mixture.n_components <= 4
    assert f"n_components={model.mixture.n_components}: of 1, 2, 3, 4" in capsys.readouterr().out
    given = PreferenceModel.fit(demo.train, encoder=HashingEncoder(64), n_components=3, n_init=1, random_state=0)
    assert given.mixture.n_components == 3
    own = MixtureBradleyTerry(3, n_init=1, random_state=0)
    assert PreferenceModel.fit(demo.train, encoder=HashingEncoder(64), mixture=own).mixture.n_components == 3


def test_a_model_of_texts_without_annotators_has_one_head(demo):
    rows = [
        {"prompt": prompt, "chosen": chosen, "rejected": rejected}
        for prompt, chosen, rejected in zip(demo.train.prompt, demo.train.chosen, demo.train.rejected, strict=True)
    ]
    assert PreferenceModel.fit(rows[:100], encoder=HashingEncoder(32), random_state=0).mixture.n_components == 1
