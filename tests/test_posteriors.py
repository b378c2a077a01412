"""Users as posteriors: the filter by sampling, any batching, forgetting, prediction, intervals, storage, threads."""

from __future__ import annotations

import copy
import os
import pickle
import signal
import threading
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, log_expit, logsumexp, ndtr

from micropref import ContextRouter, HierarchicalBradleyTerry, MixtureBradleyTerry, make_pairs
from micropref._engine.gaussian_users import Scatter
from micropref._engine.normal_mixtures import lower_quantile
from micropref._users.posteriors import UserPosteriors
from micropref._users.store import Pairs, Votes

K, D, Q = 2, 5, 3


def planted_scatter(seed: int = 0, *, k: int = K, d: int = D, q: int = Q, residual: float = 0.2) -> Scatter:
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(rng.normal(size=(d, q)))[0]
    roots = rng.normal(size=(k, q, q)) / np.sqrt(q)
    covariances = roots @ roots.swapaxes(1, 2) + 0.3 * np.eye(q)
    assert np.ptp(covariances) > 0
    return Scatter(basis, covariances, np.full(k, residual if q < d else 0.0))


SCATTER = planted_scatter()


def heads_with(scatter: Scatter, seed: int = 0, *, size: float = 1.0) -> MixtureBradleyTerry:
    """A fitted mixture of planted heads, around which users scatter."""
    rng = np.random.default_rng(seed)
    k, d = scatter.n_components, len(scatter.basis)
    mixture = MixtureBradleyTerry(k, max_iter=1, n_init=1, random_state=0)
    with pytest.warns(match="L-BFGS") if k > 1 else pytest.warns():
        mixture.fit(rng.normal(size=(40, d)), np.arange(40) % 2)
    mixture.coef_ = size * rng.normal(size=(k, d))
    mixture.gate_parameters_ = [np.zeros(k)] if k > 1 else []
    mixture.weights_ = np.full(k, 1 / k)
    mixture.scatter_ = scatter
    return mixture


def random_pairs(n: int, seed: int = 0, scatter: Scatter = SCATTER) -> Pairs:
    rng = np.random.default_rng(seed)
    coordinates, outside = scatter.coordinates(rng.normal(size=(n, len(scatter.basis))))
    margins = rng.normal(size=(scatter.n_components, n))
    assert n < 2 or margins.std() > 0
    return Pairs(margins, coordinates, outside)


def random_votes(n: int, seed: int = 0, scatter: Scatter = SCATTER, weight=None) -> Votes:
    return Votes(random_pairs(n, seed, scatter), weight)


def part_of(votes: Votes, rows) -> Votes:
    rows = np.arange(len(votes.pairs.coordinates))[rows]
    return Votes(votes.pairs.part(rows), None if votes.weight is None else votes.weight[rows])


def posteriors(*parts, users=("ann",), scatter: Scatter = SCATTER, **settings) -> UserPosteriors:
    """Posteriors after votes that the users cast in turn."""
    store = UserPosteriors(scatter)
    for votes in parts:
        store.update(users, np.arange(len(votes.pairs.coordinates)) % len(users), votes, **settings)
    return store


def numbers(store: UserPosteriors, user="ann") -> np.ndarray:
    users, values = store.export()
    return values[users.index(user)].reshape(store.scatter.n_components, -1).astype(np.float64)


def mean_of(store: UserPosteriors, user="ann") -> np.ndarray:
    return numbers(store, user)[:, 1 : 1 + store.scatter.n_directions] * store._unit


def covariance_of(store: UserPosteriors, user="ann") -> np.ndarray:
    q = store.scatter.n_directions
    packed = numbers(store, user)[:, 1 + q :]
    covariances = np.empty((len(packed), q, q))
    i, j = np.triu_indices(q)
    covariances[:, i, j] = covariances[:, j, i] = packed * store._unit**2
    return covariances


# ----------------------------------------------------------------------------------------------------------- the filter


def by_sampling(votes: Votes, scatter: Scatter, k: int, n: int = 400_000):
    """log Z, mean and covariance of u under component k after all votes, by importance sampling from the prior."""
    rng = np.random.default_rng(9)
    root = np.linalg.cholesky(scatter.covariances[k])
    u = rng.normal(size=(n, scatter.n_directions)) @ root.T
    margins = votes.pairs.margins[k] + u @ votes.pairs.coordinates.T
    noise = rng.normal(size=margins.shape) * np.sqrt(scatter.residual[k] * votes.pairs.outside)
    log_weight = log_expit(margins + noise).sum(axis=1)
    log_z = logsumexp(log_weight) - np.log(n)
    share = np.exp(log_weight - logsumexp(log_weight))
    mean = share @ u
    return log_z, mean, (u - mean).T @ ((u - mean) * share[:, None])


@pytest.mark.parametrize("n_votes", [1, 4])
def test_state_is_the_posterior(n_votes):
    votes = random_votes(n_votes)
    store = posteriors(votes)
    expected = [by_sampling(votes, SCATTER, k) for k in range(K)]
    log_z = np.array([log_z for log_z, _, _ in expected])
    np.testing.assert_allclose(numbers(store)[:, 0], log_z - log_z.max(), atol=0.02)
    np.testing.assert_allclose(mean_of(store), [mean for _, mean, _ in expected], atol=0.02)
    np.testing.assert_allclose(covariance_of(store), [covariance for *_, covariance in expected], atol=0.03)
    assert np.abs(mean_of(store)).max() > 0.1  # learned something
    assert np.abs(covariance_of(store) - SCATTER.covariances).max() > 0.02


@settings(max_examples=20)
@given(
    cuts=st.lists(st.integers(0, 40), max_size=6),
    decay=st.sampled_from([1.0, 0.97, 0.5]),
    temperature=st.sampled_from([1.0, 0.5, 3.0]),
    seed=st.integers(0, 1000),
)
def test_any_split_into_calls_gives_the_same_state(cuts, decay, temperature, seed):
    votes = random_votes(40, seed)
    users, index = ["ann", "bob", 3], np.random.default_rng(seed).integers(3, size=40)
    whole, pieces = UserPosteriors(SCATTER), UserPosteriors(SCATTER)
    whole.update(users, index, votes, decay, temperature)
    for start, end in pairwise([0, *sorted(cuts), 40]):
        pieces.update(users, index[start:end], part_of(votes, slice(start, end)), decay, temperature)
    for user in set(np.array(users, dtype=object)[index]):
        np.testing.assert_allclose(numbers(pieces, user), numbers(whole, user), rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("n_votes", [10, 300])
def test_one_vote_at_a_time_is_all_at_once(n_votes):
    votes = random_votes(n_votes)
    whole, single = posteriors(votes), posteriors(*(part_of(votes, [i]) for i in range(n_votes)))
    asked = random_pairs(200, seed=5)
    index = np.zeros(200, dtype=int)
    for one, other in zip(whole.answer(["ann"], index, asked), single.answer(["ann"], index, asked), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)


def test_users_do_not_touch_each_other():
    votes = random_votes(12)
    together = posteriors(votes, users=("ann", "bob", 7))
    for i, user in enumerate(("ann", "bob", 7)):
        alone = posteriors(part_of(votes, slice(i, None, 3)), users=(user,))
        np.testing.assert_array_equal(numbers(together, user), numbers(alone, user))


def test_an_unknown_user_is_the_population_to_the_last_bit():
    store, asked = posteriors(random_votes(4)), random_pairs(6)
    store.update(["eve"], np.empty(0, dtype=int), part_of(random_votes(4), []))
    assert "eve" in store
    population = store.answer([], np.full(6, -1), asked)
    for users, index in ((["bob"], 0), (["ann"], -1), (["eve"], 0), (["ann", "bob"], 1)):
        found = store.answer(users, np.full(6, index), asked)
        for one, other in zip(found, population, strict=True):
            np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(population.evidence, 0)
    np.testing.assert_array_equal(population.margins, asked.margins)
    np.testing.assert_allclose(
        population.variances, SCATTER.prior_variance(asked.coordinates, asked.outside), rtol=1e-12
    )
    assert "bob" not in store  # asking about a user does not create one


def test_rows_of_different_users_are_answered_each_for_its_own():
    votes = random_votes(12)
    store, asked = posteriors(votes, users=("ann", "bob", 7)), random_pairs(5)
    index = np.array([1, -1, 0, 1, 2])
    found = store.answer(["ann", "new", 7], index, asked)
    for i, user in enumerate(["new", None, "ann", "new", 7]):
        alone = store.answer([user], np.zeros(1, dtype=int), asked.part(np.array([i])))
        for one, other in zip(found, alone, strict=True):
            np.testing.assert_allclose(one[:, i], other[:, 0], rtol=1e-13)


@given(weight=st.sampled_from([1, 2, 3]), seed=st.integers(0, 100))
def test_a_weight_is_a_number_of_votes(weight, seed):
    votes = random_votes(5, seed)
    weighted = posteriors(votes._replace(weight=np.full(5, float(weight))))
    repeated = posteriors(part_of(votes, np.repeat(np.arange(5), weight)))
    np.testing.assert_allclose(numbers(weighted), numbers(repeated), rtol=1e-5, atol=1e-6)


@given(temperature=st.sampled_from([0.5, 2.0, 10.0]), seed=st.integers(0, 100))
def test_a_temperature_divides_the_weight_of_every_vote(temperature, seed):
    weight = np.random.default_rng(seed).uniform(0.5, 2.0, size=6)
    votes = random_votes(6, seed, weight=weight)
    tempered = posteriors(votes, temperature=temperature)
    np.testing.assert_array_equal(numbers(tempered), numbers(posteriors(votes._replace(weight=weight / temperature))))
    plain = mean_of(posteriors(votes))
    assert (np.abs(mean_of(tempered)).sum() < np.abs(plain).sum()) == (temperature > 1)


def test_a_tie_says_that_the_margin_is_small():
    """Two rows of weight ½, one in each order: no side is taken, and the spread along the pair shrinks."""
    pair = random_pairs(1)
    pair = pair._replace(margins=0 * pair.margins)
    both = pair.signed(np.array([1], dtype=np.int8)), pair.signed(np.array([-1], dtype=np.int8))
    store = posteriors(*(Votes(each, np.array([0.5])) for each in both))
    moved = posteriors(Votes(pair))
    z = pair.coordinates[0]
    assert (np.abs(mean_of(store) @ z) < 0.15 * np.abs(mean_of(moved) @ z)).all()
    assert (z @ covariance_of(store) @ z < 0.97 * (z @ SCATTER.covariances @ z)).all()


@settings(max_examples=20)
@given(seed=st.integers(0, 200), decay=st.sampled_from([0.3, 0.6]))
def test_old_votes_fade_until_the_user_is_the_population_again(seed, decay):
    store = posteriors(random_votes(20, seed), decay=decay)
    before = np.abs(mean_of(store)).max()
    hardly = random_votes(40, seed + 1, weight=np.full(40, 1e-9))
    store.update(["ann"], np.zeros(40, dtype=int), hardly, decay)
    assert np.abs(mean_of(store)).max() < 1e-6 < before
    np.testing.assert_allclose(covariance_of(store), SCATTER.covariances, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(numbers(store)[:, 0], 0, atol=1e-6)


@settings(max_examples=20)
@given(seed=st.integers(0, 200))
def test_with_decay_the_last_votes_decide(seed):
    last = random_votes(25, seed + 2)
    one, other = (posteriors(random_votes(10, seed + i), last, decay=0.5) for i in range(2))
    np.testing.assert_allclose(numbers(one), numbers(other), rtol=1e-3, atol=1e-3)
    kept = (numbers(posteriors(random_votes(10, seed + i), last)) for i in range(2))
    assert np.abs(np.subtract(*kept)).max() > 1e-2


@pytest.mark.parametrize("size", [1e-6, 1.0, 1e8])
@pytest.mark.parametrize("weight", [1e-6, 1.0, 1e6])
def test_votes_of_any_size_and_weight_leave_beliefs_that_can_be_used(size, weight):
    pairs = random_pairs(10)
    votes = Votes(Pairs(size * pairs.margins, size * pairs.coordinates, size**2 * pairs.outside), np.full(10, weight))
    store = posteriors(votes, votes)
    found = store.answer(["ann"], np.zeros(10, dtype=int), votes.pairs)
    assert all(np.isfinite(part).all() for part in found)
    assert (found.variances >= 0).all()
    if size == 1.0 and weight == 1e6:
        assert np.linalg.eigvalsh(covariance_of(store)).max() < 0.05


@pytest.mark.parametrize("exponent", [-60, -20, 20, 60])
def test_features_of_any_scale_have_the_same_users(exponent):
    scale = 2.0**exponent
    heads, scaled = heads_with(SCATTER), heads_with(SCATTER)
    scaled.coef_ = heads.coef_ / scale
    scaled.scatter_ = Scatter(SCATTER.basis, SCATTER.covariances / scale**2, SCATTER.residual / scale**2)
    rows, asked = differences(8, seed=1), differences(9, seed=2)
    one = ContextRouter(heads).partial_fit(rows, groups=["ann"] * 8)
    other = ContextRouter(scaled).partial_fit(scale * rows, groups=["ann"] * 8)
    np.testing.assert_allclose(
        other.decision_function(scale * asked, ["ann"] * 9), one.decision_function(asked, ["ann"] * 9), rtol=1e-6
    )


def test_scatters_without_directions_or_variance_are_heads():
    nothing = Scatter.none(K, D)
    votes, asked = random_votes(6, scatter=nothing), random_pairs(9, scatter=nothing)
    found = posteriors(votes, scatter=nothing).answer(["ann"], np.zeros(9, dtype=int), asked)
    evidence = log_expit(votes.pairs.margins).sum(axis=1)
    np.testing.assert_allclose(found.evidence[:, 0], evidence - evidence.max(), rtol=1e-6)
    np.testing.assert_array_equal(found.margins, asked.margins)
    np.testing.assert_array_equal(found.variances, 0)
    flat = Scatter(SCATTER.basis, 0 * SCATTER.covariances, np.zeros(K))
    same = posteriors(Votes(random_pairs(6)), scatter=flat).answer(["ann"], np.zeros(9, dtype=int), random_pairs(9))
    np.testing.assert_array_equal(same.margins, random_pairs(9).margins)
    np.testing.assert_array_equal(same.variances, 0)


# ------------------------------------------------------------------------------------------------------------- storage


def test_a_user_takes_240_bytes_at_four_components_and_four_directions():
    scatter = planted_scatter(k=4, d=8, q=4)
    store = UserPosteriors(scatter)
    users = list(range(100))
    store.update(users, np.arange(100), random_votes(100, scatter=scatter))
    assert store.export()[1].nbytes == 100 * 240
    size = len(pickle.dumps(store))
    assert size < 100 * 250 + 5000
    store.update(users, np.repeat(users, 30), random_votes(3000, scatter=scatter))
    assert len(pickle.dumps(store)) <= size


def test_export_and_restore_are_inverse():
    store, again = posteriors(random_votes(12), users=("ann", 7, (1, "b"))), UserPosteriors(SCATTER)
    again.restore(*store.export())
    assert again.export()[0] == store.export()[0]
    np.testing.assert_array_equal(again.export()[1], store.export()[1])
    assert len(again) == 3
    assert (1, "b") in again


def test_a_copy_changes_on_its_own():
    store = posteriors(random_votes(4))
    before = numbers(store)
    for other in (store.copy(), copy.deepcopy(store), pickle.loads(pickle.dumps(store))):
        np.testing.assert_array_equal(numbers(other), before)
        other.update(["ann", "bob"], np.array([0, 1]), random_votes(2, seed=3))
        assert len(other) == 2
        assert np.abs(numbers(other) - before).max() > 1e-3
    np.testing.assert_array_equal(numbers(store), before)
    assert len(store) == 1


def test_an_update_that_is_refused_leaves_no_user_behind():
    store = UserPosteriors(SCATTER)
    with pytest.raises(TypeError, match="unhashable"):
        store.update(["ann", ["bob"]], np.array([0, 1]), random_votes(2))
    with pytest.raises(ValueError, match="expected 1 votes, one of every user, got 2"):
        store.update(["ann"], np.array([0]), random_votes(2))
    assert len(store) == 0


def test_every_vote_of_four_threads_is_counted():
    store, votes, errors = UserPosteriors(SCATTER), random_votes(1), []

    def cast(thread: int) -> None:
        try:
            for i in range(100):
                store.update(["ann"], np.zeros(1, dtype=int), votes)
                if i % 10 == 0:
                    store.update([(thread, i)], np.zeros(1, dtype=int), votes)
                    store.copy().update(["ann"], np.zeros(1, dtype=int), votes)
                    store.answer(["ann"], np.zeros(1, dtype=int), votes.pairs)
        except Exception as error:  # a thread's error is not the test's
            errors.append(error)

    threads = [threading.Thread(target=cast, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    alone = posteriors(*[votes] * 400)
    np.testing.assert_array_equal(numbers(store), numbers(alone))
    assert len(store) == 41


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_child_forked_while_a_thread_votes_votes_too():
    store, votes = posteriors(random_votes(1)), random_votes(1)
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with store._lock:
            held.set()
            done.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    try:
        pid = os.fork()
        if pid == 0:
            signal.alarm(20)  # ends a child that waits
            before = numbers(store)
            store.update(["ann"], np.zeros(1, dtype=int), votes)
            os._exit(0 if np.abs(numbers(store) - before).max() > 0 else 1)
        assert os.waitpid(pid, 0)[1] == 0
    finally:
        done.set()
        thread.join()


# ----------------------------------------------------------------------------------------------------------- the router


@pytest.fixture(scope="module")
def heads() -> MixtureBradleyTerry:
    return heads_with(SCATTER)


def differences(n: int, seed: int = 0, d: int = D) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d))


def voted(heads, n: int = 20, users=("ann",), **parameters) -> ContextRouter:
    rows = differences(n, seed=1)
    labels = (rows[:, 0] > 0).astype(int)
    return ContextRouter(heads, **parameters).partial_fit(rows, labels, groups=np.resize(np.array(users, object), n))


@pytest.mark.parametrize("user", ["ann", "new", None])
def test_probabilities_are_expectations_over_what_is_not_known(heads, user):
    router, asked = voted(heads), differences(30, seed=2)
    rng = np.random.default_rng(3)
    draws = []
    for k in range(K):
        if user == "ann":
            mean, covariance = mean_of(router.history_)[k], covariance_of(router.history_)[k]
        else:
            mean, covariance = np.zeros(Q), SCATTER.covariances[k]
        u = rng.multivariate_normal(mean, covariance, size=20_000)
        z, outside = SCATTER.coordinates(asked)
        noise = rng.normal(size=(20_000, 30)) * np.sqrt(SCATTER.residual[k] * outside)
        draws.append(expit(asked @ heads.coef_[k] + u @ z.T + noise).mean(axis=0))
    weights = router.mixture_weights(asked, groups=[user] * 30)
    expected = (weights.T * draws).sum(axis=0)
    np.testing.assert_allclose(router.predict_proba(asked, groups=[user] * 30)[:, 1], expected, atol=0.01)
    assert (np.abs(weights - 0.5).max() > 0.01) == (user == "ann")


def test_swapping_the_responses_negates_the_log_odds_exactly(heads):
    router, asked = voted(heads, users=("ann", "bob")), differences(50, seed=2)
    for groups in (None, ["ann"] * 50, ["ann", "new"] * 25):
        np.testing.assert_array_equal(
            router.decision_function(-asked, groups), -router.decision_function(asked, groups)
        )
        interval, swapped = (router.margin_interval(sign * asked, groups, level=0.8) for sign in (1, -1))
        np.testing.assert_array_equal(swapped, -interval[:, ::-1])


def test_swapped_votes_and_labels_are_the_same_votes(heads):
    rows, asked = differences(20, seed=1), differences(9, seed=2)
    labels = (rows[:, 0] > 0).astype(int)
    one = ContextRouter(heads).partial_fit(rows, labels, groups=["ann"] * 20)
    other = ContextRouter(heads).partial_fit(-rows, 1 - labels, groups=["ann"] * 20)
    both = (router.decision_function(asked, groups=["ann"] * 9) for router in (one, other))
    np.testing.assert_array_equal(*both)


def test_an_unknown_user_is_the_population(heads):
    router, asked = voted(heads), differences(50, seed=2)
    population = router.decision_function(asked)
    for groups in (["new"] * 50, [None] * 50, np.full(50, -1)):
        np.testing.assert_array_equal(router.decision_function(asked, groups), population)
    assert np.abs(router.decision_function(asked, ["ann"] * 50) - population).max() > 0.1
    without_votes = voted(heads, 2)
    np.testing.assert_array_equal(without_votes.decision_function(asked), population)


def test_a_vote_without_weight_was_never_cast(heads):
    rows, asked = differences(20, seed=1), differences(9, seed=2)
    weight = np.where(np.arange(20) % 3 == 0, 0.0, 1.5)
    users = np.resize(np.array(["ann", "bob"], object), 20)
    with_zeros = ContextRouter(heads, history_decay=0.9).partial_fit(rows, sample_weight=weight, groups=users)
    kept = weight > 0
    without = ContextRouter(heads, history_decay=0.9).partial_fit(
        rows[kept], sample_weight=weight[kept], groups=users[kept]
    )
    groups = np.resize(users, 9)
    both = (router.decision_function(asked, groups) for router in (with_zeros, without))
    np.testing.assert_array_equal(*both)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, "torch"])
def test_other_kinds_of_arrays_give_the_same(heads, dtype):
    rows, asked = (differences(n, seed=n).astype(np.float16).astype(np.float64) for n in (20, 9))

    def as_kind(array: np.ndarray):
        return pytest.importorskip("torch").as_tensor(array) if dtype == "torch" else array.astype(dtype)

    expected = ContextRouter(heads).partial_fit(rows, groups=["ann"] * 20).decision_function(asked, ["ann"] * 9)
    router = ContextRouter(heads).partial_fit(as_kind(rows), groups=["ann"] * 20)
    found = router.decision_function(as_kind(asked), ["ann"] * 9)
    assert type(found) is type(as_kind(asked))
    np.testing.assert_allclose(np.asarray(found), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("gate", ["linear", "mlp", "knn"])
@pytest.mark.parametrize("solver", ["direct", "hedge"])
def test_contexts_route_heads_with_a_scatter(gate, solver):
    """Contexts that name the head; what is learned is what a new user of that head would answer."""
    heads = heads_with(SCATTER)
    heads.coef_ = np.array([[2.0], [-2.0]]) * heads.coef_[:1]
    rng = np.random.default_rng(4)
    component = np.arange(400) % K
    rows = differences(400, seed=4)
    users = heads.coef_[component] + rng.multivariate_normal(np.zeros(Q), SCATTER.covariances[0], 400) @ SCATTER.basis.T
    labels = (rng.random(400) < expit((rows * users).sum(axis=1))).astype(int)
    X = make_pairs(rows, 0 * rows, context=np.eye(K)[component])
    router = ContextRouter(heads, gate=gate, solver=solver, random_state=0).fit(X[:200], labels[:200])
    own = router.mixture_weights(X)[np.arange(400), component]
    assert own.mean() > 0.85
    population = ContextRouter(heads).partial_fit(rows[:1], groups=["ann"])
    assert router.log_likelihood(X[200:], labels[200:]) > population.log_likelihood(rows[200:], labels[200:]) + 0.05
    # One step of a stream moves towards the same place.
    stream = ContextRouter(heads, gate=gate, random_state=0)
    for _ in range(60):
        stream.partial_fit(X[:200], labels[:200])
    assert stream.mixture_weights(X)[np.arange(400), component].mean() > 0.7


def test_context_is_the_prior_and_votes_the_evidence(heads):
    """log-weight of k = log f_k(c) + log Z_k, whatever the context."""
    rows = differences(10, seed=1)
    contexts = np.eye(K)[np.arange(10) % K]
    X = make_pairs(rows, 0 * rows, context=contexts)
    router = ContextRouter(heads).fit(X, np.arange(10) % 2).partial_fit(X[:6], groups=["ann"] * 6)
    prior, after = (router.mixture_weights(X, groups) for groups in (None, ["ann"] * 10))
    gained = np.log(after) - np.log(prior)
    np.testing.assert_allclose(
        gained - gained[:, :1],
        np.tile(numbers(router.history_)[:, 0], (10, 1)) - numbers(router.history_)[0, 0],
        atol=1e-5,
    )


def test_a_copy_of_the_router_learns_on_its_own(heads):
    router, asked = voted(heads), differences(9, seed=2)
    before = router.decision_function(asked, ["ann"] * 9)
    for other in (router._forked(), copy.deepcopy(router), pickle.loads(pickle.dumps(router))):
        np.testing.assert_array_equal(other.decision_function(asked, ["ann"] * 9), before)
        other.partial_fit(asked, groups=["ann"] * 9)
        assert np.abs(other.decision_function(asked, ["ann"] * 9) - before).max() > 1e-3
    np.testing.assert_array_equal(router.decision_function(asked, ["ann"] * 9), before)


# ------------------------------------------------------------------------------------------------ rewards and intervals


def test_differences_of_rewards_are_expected_margins(heads):
    router = voted(heads)
    first, second = differences(9, seed=2), differences(9, seed=3)
    for groups in (None, ["ann"] * 9):
        gap = router.rewards(first, groups=groups) - router.rewards(second, groups=groups)
        weights = router.mixture_weights(first - second, groups)
        mean = np.zeros((K, Q)) if groups is None else mean_of(router.history_)
        expected = sum(
            weights[:, k] * ((first - second) @ (heads.coef_[k] + SCATTER.basis @ mean[k])) for k in range(K)
        )
        np.testing.assert_allclose(gap, expected, rtol=1e-5, atol=1e-5)


def test_standard_deviations_of_rewards_by_sampling(heads):
    router, features = voted(heads, 6), differences(9, seed=2)
    rewards, std = router.rewards(features, groups=["ann"] * 9, return_std=True)
    np.testing.assert_array_equal(rewards, router.rewards(features, groups=["ann"] * 9))
    rng = np.random.default_rng(0)
    n = 200_000
    weights = router.mixture_weights(features[:1], groups=["ann"])[0]
    k = rng.choice(K, n, p=weights)
    roots = np.linalg.cholesky(covariance_of(router.history_))
    u = mean_of(router.history_)[k] + (roots[k] @ rng.normal(size=(n, Q, 1)))[..., 0]
    z, outside = SCATTER.coordinates(features)
    sampled = (heads.coef_ @ features.T)[k] + u @ z.T
    sampled += rng.normal(size=sampled.shape) * np.sqrt(SCATTER.residual[k][:, None] * outside)
    np.testing.assert_allclose(std, sampled.std(axis=0), rtol=0.02)
    np.testing.assert_allclose(rewards, sampled.mean(axis=0), atol=0.02)
    _, unknown = router.rewards(features, return_std=True)
    assert (unknown > std).mean() > 0.7  # votes teach


def test_deviations_and_intervals_of_heads_without_scatter():
    heads = heads_with(SCATTER)
    heads.scatter_ = None
    router, asked = ContextRouter(heads).partial_fit(differences(1), groups=["ann"]), differences(9, seed=2)
    each = asked @ heads.coef_.T
    rewards, std = router.rewards(asked, return_std=True)
    np.testing.assert_allclose(rewards, each.mean(axis=1))
    np.testing.assert_allclose(std, each.std(axis=1))
    np.testing.assert_allclose(router.margin_interval(asked), np.sort(each, axis=1), rtol=1e-9)


@pytest.mark.parametrize("n_components", [1, 3])
@pytest.mark.parametrize("width", [5, 3])
def test_intervals_cover_what_they_promise(n_components, width):
    """50, 80 and 95 % intervals of the margins of new pairs, of planted users with 1, 5 and 31 votes."""
    scatter = planted_scatter(k=n_components, q=width, residual=0.0)
    heads = heads_with(scatter, size=0.7)
    rng = np.random.default_rng(5)
    n_users, n_asked = 1500, 4
    component = rng.integers(n_components, size=n_users)
    roots = np.linalg.cholesky(scatter.covariances)[component]
    rewards = heads.coef_[component] + (roots @ rng.normal(size=(n_users, width, 1)))[..., 0] @ scatter.basis.T
    asked = rng.normal(size=(n_users, n_asked, D))
    truth = np.einsum("uad,ud->ua", asked, rewards).ravel()
    who = np.repeat(np.arange(n_users), n_asked)
    for n_votes in (1, 5, 31):
        rows = rng.normal(size=(n_users, n_votes, D))
        labels = rng.random((n_users, n_votes)) < expit(np.einsum("uvd,ud->uv", rows, rewards))
        router = ContextRouter(heads).partial_fit(
            rows.reshape(-1, D), labels.ravel(), groups=np.repeat(np.arange(n_users), n_votes)
        )
        for level in (0.5, 0.8, 0.95):
            low, high = router.margin_interval(asked.reshape(-1, D), groups=who, level=level).T
            assert np.mean((low <= truth) & (truth <= high)) == pytest.approx(level, abs=0.03), (n_votes, level)


def test_intervals_of_a_fitted_model_cover_what_they_promise():
    """Of new users, where the head and the scatter are those that were learned from others."""
    rng = np.random.default_rng(11)
    head, deviation = rng.normal(size=4) * 1.5, 1.0

    def votes(n_users, n_votes):
        rewards = head + deviation * rng.normal(size=(n_users, 4))
        X = rng.normal(size=(n_users, n_votes, 4))
        y = rng.random((n_users, n_votes)) < expit(np.einsum("uvd,ud->uv", X, rewards))
        return X.reshape(-1, 4), y.ravel(), np.repeat(np.arange(n_users), n_votes), rewards

    X, y, groups, _ = votes(800, 20)
    model = HierarchicalBradleyTerry(1, random_state=0).fit(X, y, groups=groups)
    for n_votes in (1, 5, 31):
        X, y, groups, rewards = votes(1000, n_votes)
        router = ContextRouter(model).partial_fit(X, y, groups=groups)
        asked, who = rng.normal(size=(4000, 4)), np.repeat(np.arange(1000), 4)
        truth = np.einsum("nd,nd->n", asked, rewards[who])
        for level in (0.5, 0.8, 0.95):
            low, high = router.margin_interval(asked, groups=who, level=level).T
            assert np.mean((low <= truth) & (truth <= high)) == pytest.approx(level, abs=0.03), (n_votes, level)


@given(seed=st.integers(0, 1000), probability=st.floats(0.001, 0.999))
def test_quantiles_of_mixtures_of_normals(seed, probability):
    rng = np.random.default_rng(seed)
    weights = rng.dirichlet(np.ones(3), size=4).T
    means, variances = rng.normal(size=(3, 4)) * 10 ** rng.uniform(-3, 3), rng.exponential(size=(3, 4)) + 1e-6
    found = lower_quantile(weights, means, variances, probability)
    np.testing.assert_allclose(
        (weights * ndtr((found - means) / np.sqrt(variances))).sum(axis=0), probability, atol=1e-9
    )


@pytest.mark.parametrize("level", [0.0, 1.0, -1, 95, np.nan])
def test_a_level_is_a_probability(heads, level):
    with pytest.raises(ValueError, match="expected a probability between 0 and 1, got"):
        voted(heads).margin_interval(differences(2), level=level)
