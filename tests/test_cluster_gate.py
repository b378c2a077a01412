"""gate="cluster": contexts that repeat with variations share their evidence; smooth ones leave the linear gate."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp

import micropref._users.cluster_gate
import micropref._users.clusters
from micropref import ContextRouter, MixtureBradleyTerry, persistence
from micropref._users.clusters import distinct_contexts, find_clusters

seeds = st.integers(0, 10**6)
WIDTH, D = 16, 6


def clustered(n: int, n_clusters: int, rng, spread: float = 0.2, width: int = WIDTH) -> tuple[np.ndarray, np.ndarray]:
    """Contexts around far centres, equally far from each other where they can be, and the cluster of each."""
    centers = 3 * rng.normal(size=(n_clusters, width))
    if n_clusters <= width:
        centers = 10 * np.linalg.qr(centers.T)[0].T
    z = rng.permutation(np.arange(n) % n_clusters)
    return centers[z] + spread * rng.normal(size=(n, width)), z


SMOOTH = {
    "normal": lambda rng, n, width: rng.normal(size=(n, width)),
    "uniform": lambda rng, n, width: rng.random(size=(n, width)),
    "heavy tails": lambda rng, n, width: rng.standard_t(3, size=(n, width)),
    "few directions": lambda rng, n, width: rng.normal(size=(n, width)) * np.exp(-np.arange(width) / 3),
    "on a sphere": lambda rng, n, width: (lambda x: x / np.linalg.norm(x, axis=1, keepdims=True))(
        rng.normal(size=(n, width))
    ),
}


@pytest.fixture(scope="module")
def heads() -> MixtureBradleyTerry:
    """Two opposite heads."""
    rng = np.random.default_rng(0)
    X, annotator = rng.normal(size=(1500, D)), np.arange(1500) // 5
    sign = np.where(annotator % 2 == 0, 1, -1)
    y = rng.random(1500) < 1 / (1 + np.exp(-3 * sign * X[:, 0]))
    return MixtureBradleyTerry(2, random_state=0).fit(X, y, groups=annotator)


def world(rng, n: int, n_clusters: int = 4, n_test: int = 600):
    """Rows whose cluster decides which head applies, in two parts, and the clusters of both."""
    contexts, z = clustered(n + n_test, n_clusters, rng)
    difference = rng.normal(size=(len(z), D))
    sign = np.where(z % 2 == 0, 1, -1)
    y = rng.random(len(z)) < 1 / (1 + np.exp(-3 * sign * difference[:, 0]))
    X = np.hstack([contexts, difference])
    return (X[:n], y[:n], z[:n]), (X[n:], y[n:], z[n:])


# --------------------------------------------------------------------------------------------------- the clusters


@pytest.mark.parametrize("n_clusters", [2, 4, 20, 100])
@pytest.mark.parametrize("width", [6, 64])
def test_planted_clusters_are_found(n_clusters, width):
    rng = np.random.default_rng(n_clusters)
    contexts, z = clustered(10 * n_clusters, n_clusters, rng, spread=0.05, width=width)
    found = find_clusters(contexts, np.ones(len(z)))[-1]
    assert len(found) == n_clusters
    assert found.density < 0.1
    label = found.of(contexts)
    assert len(set(zip(z, label, strict=True))) == n_clusters
    assert (label >= 0).all()
    for each in range(n_clusters):
        np.testing.assert_allclose(found.centers[label[z == each][0]], contexts[z == each].mean(axis=0), atol=1e-9)


@pytest.mark.parametrize("kind", SMOOTH)
@pytest.mark.parametrize("width", [2, 8, 100])
@settings(max_examples=25)
@given(n=st.integers(3, 300), seed=seeds)
def test_smooth_contexts_have_no_clusters(kind, width, n, seed):
    """Gaps among few numbers are common: up to twelve points on one line have one in a tenth of the draws."""
    rng = np.random.default_rng(seed)
    contexts = SMOOTH[kind](rng, n + (60 if width == 2 else 0), width)
    assert contexts.std() > 0
    assert find_clusters(contexts, np.ones(len(contexts))) == ()


def test_one_outlier_is_no_cluster():
    rng = np.random.default_rng(1)
    contexts = rng.normal(size=(100, 5))
    contexts[0] += 1000
    assert find_clusters(contexts, np.ones(100)) == ()


def test_two_clusters_of_very_different_size():
    rng = np.random.default_rng(2)
    contexts = rng.normal(size=(200, 20))
    contexts[:20] += 10
    (found,) = find_clusters(contexts, np.ones(200))
    assert sorted(np.bincount(found.of(contexts))) == [20, 180]


def test_contexts_that_repeat_exactly_are_clusters():
    """Distinct ones are spread smoothly; only how often each comes says that they repeat."""
    rng = np.random.default_rng(3)
    distinct = rng.normal(size=(40, 8))
    found = find_clusters(distinct[rng.permutation(np.arange(400) % 40)], np.ones(400))[-1]
    assert len(found) == 40
    assert find_clusters(distinct, np.ones(40)) == ()


@pytest.mark.parametrize("contexts", [np.zeros((9, 3)), np.ones((1, 3)), np.zeros((5, 0)), np.eye(4)])
def test_nothing_to_be_found(contexts):
    assert find_clusters(contexts, np.ones(len(contexts))) == ()


@given(seed=seeds, shift=st.sampled_from([0.0, 1e3, -1e4]), power=st.integers(-80, 80))
def test_units_and_origin_of_contexts(seed, shift, power):
    rng = np.random.default_rng(seed)
    contexts, _ = clustered(60, 4, rng)
    levels, moved_levels = (find_clusters(each, np.ones(60)) for each in (contexts, np.ldexp(contexts + shift, power)))
    assert len(levels) == len(moved_levels) > 0
    for plain, moved in zip(levels, moved_levels, strict=True):
        # Clusters are numbered by a hash, so that the numbers differ.
        pairs = set(zip(plain.of(contexts), moved.of(np.ldexp(contexts + shift, power)), strict=True))
        assert len(pairs) == len(plain) == len(moved)
        np.testing.assert_allclose(moved.cut, np.ldexp(plain.cut, 2 * power), rtol=1e-6)


@given(seed=seeds, n_clusters=st.sampled_from([0, 3]))
def test_order_and_repetition_of_contexts(seed, n_clusters):
    rng = np.random.default_rng(seed)
    contexts = clustered(50, n_clusters, rng)[0] if n_clusters else rng.normal(size=(50, WIDTH))
    times = rng.integers(1, 4, size=50)
    order = rng.permutation(times.sum())
    repeated = np.repeat(contexts, times, axis=0)[order]
    levels, plain_levels = find_clusters(contexts, times.astype(float)), find_clusters(repeated, np.ones(len(repeated)))
    assert len(levels) == len(plain_levels)
    for weighted, plain in zip(levels, plain_levels, strict=True):
        np.testing.assert_allclose(weighted.centers, plain.centers, atol=1e-12)
        np.testing.assert_allclose([weighted.cut, weighted.density], [plain.cut, plain.density], rtol=1e-9)


def test_many_contexts_need_no_table_of_all_pairs():
    """100 000 contexts: their table of pairs would take 80 GB."""
    rng = np.random.default_rng(4)
    contexts, z = clustered(100_000, 12, rng, width=8)
    found = find_clusters(contexts.astype(np.float32), np.ones(len(z)))[-1]
    assert len(found) == 12
    label = found.of(contexts)
    assert (label >= 0).mean() > 0.9999
    assert len(set(zip(z, label, strict=True)) - {(each, -1) for each in range(12)}) == 12


def test_clusters_of_clusters():
    """Labels say which of them share one component."""
    rng = np.random.default_rng(22)
    large, of_large = clustered(400, 4, rng, spread=0.0)
    small, of_small = clustered(400, 8, rng, spread=0.02, width=WIDTH)
    levels = find_clusters(large + 0.15 * small, np.ones(400))
    assert [len(level) for level in levels][:1] == [4]
    assert len(levels[-1]) == len({*zip(of_large, of_small, strict=True)})


def test_distinct_contexts_do_not_depend_on_order_or_precision():
    rng = np.random.default_rng(5)
    contexts = np.float32(rng.integers(-1, 2, size=(60, 3)))
    contexts[contexts == 0] *= -1  # -0.0
    order = rng.permutation(60)
    first, second = distinct_contexts(contexts), distinct_contexts(contexts[order].astype(np.float64) + 0.0)
    np.testing.assert_array_equal(first.contexts, second.contexts)
    np.testing.assert_array_equal(first.contexts[first.which], contexts + 0.0)
    np.testing.assert_array_equal(second.which, first.which[order])


# ------------------------------------------------------------------------------------------------------- the gate


@pytest.mark.parametrize("labels", [2, 5, 20])
def test_level_with_known_owners(heads, labels):
    """A user with the votes of the cluster is what the gate cannot beat."""
    found = []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        (X, y, z), (X_test, y_test, z_test) = world(rng, 4 * labels)
        router = ContextRouter(heads, gate="cluster").fit(X, y)
        assert len(router.clusters_) == len(np.unique(z))
        owner = ContextRouter(heads).partial_fit(X[:, WIDTH:], y, groups=z)
        linear = ContextRouter(heads).fit(X, y)
        found.append(
            [
                router.log_likelihood(X_test, y_test),
                owner.log_likelihood(X_test[:, WIDTH:], y_test, groups=z_test),
                linear.log_likelihood(X_test, y_test),
            ]
        )
    cluster, known, linear = np.mean(found, axis=0)
    assert abs(cluster - known) < 0.01
    assert cluster > linear + 0.003


@settings(max_examples=12)
@given(seed=seeds, kind=st.sampled_from(sorted(SMOOTH)))
def test_smooth_contexts_get_the_linear_gate(heads, seed, kind):
    rng = np.random.default_rng(seed)
    X = np.hstack([SMOOTH[kind](rng, 60, WIDTH), rng.normal(size=(60, D))])
    y = rng.integers(0, 2, size=60)
    linear, cluster = (ContextRouter(heads, gate=gate).fit(X[:40], y[:40]) for gate in ("linear", "cluster"))
    assert cluster.clusters_ is None
    for learn in (None, lambda router: router.partial_fit(X[40:], y[40:])):
        if learn:
            learn(linear), learn(cluster)
        np.testing.assert_array_equal(cluster.decision_function(X), linear.decision_function(X))
        assert cluster.objective_ == linear.objective_
        for one, other in zip(cluster.gate_parameters_, linear.gate_parameters_, strict=True):
            np.testing.assert_array_equal(one, other)


def test_a_context_near_no_cluster_gets_the_prior(heads):
    rng = np.random.default_rng(6)
    (X, y, _), _ = world(rng, 60)
    router = ContextRouter(heads, gate="cluster").fit(X, y)
    far = np.hstack([100 + rng.normal(size=(5, WIDTH)), X[:5, WIDTH:]])
    np.testing.assert_array_equal(router.mixture_weights(far), np.exp(heads.context_log_weights(np.empty((5, 0)))).T)
    huge = far.copy()
    huge[:, :WIDTH] = 1e200
    np.testing.assert_array_equal(router.mixture_weights(huge), router.mixture_weights(far))


def test_permuted_contexts_say_nothing(heads):
    """Labels contradict each other inside of clusters: the gate answers as the linear one, which learned nothing."""
    rng = np.random.default_rng(7)
    gains = []
    for _ in range(5):
        (X, y, _), (X_test, y_test, _) = world(rng, 120)
        X[:, :WIDTH] = X[rng.permutation(len(X)), :WIDTH]
        routers = [ContextRouter(heads, gate=gate, alpha=1.0).fit(X, y) for gate in ("cluster", "linear")]
        assert routers[0].clusters_ is not None
        gains.append([router.log_likelihood(X_test, y_test) for router in routers])
        gains[-1].append(heads.log_likelihood(X_test[:, WIDTH:], y_test))
    cluster, linear, prior = np.mean(gains, axis=0)
    assert abs(cluster - linear) < 0.01
    assert cluster < prior + 0.01


def by_loops(router, heads, X, y, z, query, cluster):
    """f of one query in a cluster, from the formula."""
    width = X.shape[1] - D
    margins = (X[:, width:] @ heads.coef_.T) * np.where(y, 1, -1)[:, None]
    evidence, prior = -np.logaddexp(0, -margins), np.log(heads.weights_)
    shares, prior_of_share = [0.0, 0.1, 0.2, 0.4, 0.7, 1.0], np.log([0.9, 0.02, 0.02, 0.02, 0.02, 0.02])
    answers, log_share = [], []
    with np.errstate(divide="ignore"):
        for share, at in zip(shares, prior_of_share, strict=True):
            votes = {
                each: sum(
                    np.log((1 - share) * np.exp(e) + share * np.exp(logsumexp(prior + e))) for e in evidence[z == each]
                )
                for each in np.unique(z)
            }
            log_share.append(at + sum(logsumexp(prior + vote) for vote in votes.values()))
            joint = prior + votes[cluster]
            followed = np.exp(joint - logsumexp(joint))
            stray = ContextRouter(heads).fit(X, y).mixture_weights(query)[0] if share == 1 else heads.weights_
            answers.append((1 - share) * followed + share * stray)
    log_share = np.array(log_share) - logsumexp(log_share)
    return np.exp(log_share) @ np.array(answers)


@pytest.mark.parametrize("permuted", [False, True])
def test_the_formula(heads, permuted):
    rng = np.random.default_rng(8)
    (X, y, z), (X_test, _, z_test) = world(rng, 24)
    if permuted:
        y = rng.permutation(y)
    router = ContextRouter(heads, gate="cluster").fit(X, y)
    assert len(router.clusters_) == 4
    for i in range(4):
        found = router.mixture_weights(X_test[i : i + 1])[0]
        np.testing.assert_allclose(found, by_loops(router, heads, X, y, z, X_test[i : i + 1], z_test[i]), atol=1e-9)


@settings(max_examples=6)
@given(seed=seeds)
def test_a_weight_is_a_number_of_rows_and_order_is_nothing(heads, seed):
    rng = np.random.default_rng(seed)
    (X, y, _), (X_test, _, _) = world(rng, 30, n_test=20)
    times = rng.integers(0, 4, size=30)
    times[:2] = 1
    weighted = ContextRouter(heads, gate="cluster").fit(X, y, sample_weight=times)
    order = rng.permutation(times.sum())
    rows = np.repeat(np.arange(30), times)[order]
    repeated = ContextRouter(heads, gate="cluster").fit(X[rows], y[rows])
    assert (weighted.clusters_ is None) == (repeated.clusters_ is None)
    # The linear gate is learned to a tolerance.
    np.testing.assert_allclose(weighted.mixture_weights(X_test), repeated.mixture_weights(X_test), atol=1e-3)


def test_swapping_a_pair_negates_the_log_odds(heads):
    rng = np.random.default_rng(9)
    (X, y, _), (X_test, _, _) = world(rng, 40)
    router = ContextRouter(heads, gate="cluster").fit(X, y)
    swapped = X_test.copy()
    swapped[:, WIDTH:] *= -1
    np.testing.assert_array_equal(router.decision_function(swapped), -router.decision_function(X_test))


def test_a_temperature_divides_the_evidence(heads):
    rng = np.random.default_rng(10)
    (X, y, _), (X_test, _, _) = world(rng, 40)
    sharp, soft = (
        ContextRouter(heads, gate="cluster", temperature=t).fit(X, y).mixture_weights(X_test).max(axis=1).mean()
        for t in (1.0, 20.0)
    )
    assert sharp > soft + 0.05


# ------------------------------------------------------------------------------------------ contexts without labels


def test_unlabelled_contexts_show_clusters_that_few_labels_do_not(heads):
    """One label per cluster: no two labelled contexts are near."""
    rng = np.random.default_rng(11)
    (X, y, z), (X_test, _, z_test) = world(rng, 400)
    first = np.unique(z, return_index=True)[1]
    alone = ContextRouter(heads, gate="cluster").fit(X[first], y[first])
    assert alone.clusters_ is None
    router = ContextRouter(heads, gate="cluster").fit(X[first], y[first], contexts=X[:, :WIDTH])
    assert len(router.clusters_) == 4
    owner = ContextRouter(heads).partial_fit(X[first][:, WIDTH:], y[first], groups=z[first])
    expected = owner.mixture_weights(X_test[:, WIDTH:], groups=z_test)
    np.testing.assert_allclose(router.mixture_weights(X_test), expected, atol=0.06)
    # Without labels, contexts are no evidence.
    again = ContextRouter(heads, gate="cluster").fit(X[first], y[first], contexts=X[rng.permutation(400), :WIDTH])
    np.testing.assert_allclose(again.mixture_weights(X_test), router.mixture_weights(X_test), atol=1e-12)


@pytest.mark.parametrize("gate", ["linear", "mlp", "knn"])
def test_other_gates_do_not_read_them(heads, gate):
    rng = np.random.default_rng(12)
    (X, y, _), (X_test, _, _) = world(rng, 40)
    plain, shown = (
        ContextRouter(heads, gate=gate, random_state=0).fit(X, y, contexts=contexts)
        for contexts in (None, X_test[:, :WIDTH])
    )
    assert plain.clusters_ is None
    np.testing.assert_array_equal(plain.decision_function(X_test), shown.decision_function(X_test))


@pytest.mark.parametrize(
    ("contexts", "message"),
    [
        (np.zeros((3, WIDTH + 1)), r"contexts: expected shape \(n_contexts, 16\), .*, got \(3, 17\)"),
        (np.zeros(WIDTH), r"contexts: expected shape"),
        (np.full((3, WIDTH), np.nan), "contexts: expected finite numbers, got NaN or infinity in row 0"),
        (np.full((3, WIDTH), "a"), "could not convert string to float"),
    ],
)
def test_bad_contexts_are_refused(heads, contexts, message):
    rng = np.random.default_rng(13)
    (X, y, _), _ = world(rng, 20)
    router = ContextRouter(heads, gate="cluster").fit(X, y)
    before = router.decision_function(X)
    with pytest.raises(ValueError, match=message):
        router.fit(X, ~y, contexts=contexts)
    np.testing.assert_array_equal(router.decision_function(X), before)


# ---------------------------------------------------------------------------------------------------------- streams


@settings(max_examples=10)
@given(seed=seeds, cut=st.integers(1, 39))
def test_later_rows_are_evidence_of_known_clusters(heads, seed, cut):
    """Whatever the batches are; the linear gate, which learns by steps, has a weight of next to nothing."""
    rng = np.random.default_rng(seed)
    (X, y, _), (X_test, _, _) = world(rng, 80)
    pieces = ContextRouter(heads, gate="cluster").fit(X[:40], y[:40])
    for rows in (slice(40, 40 + cut), slice(40 + cut, 80)):
        pieces.partial_fit(X[rows], y[rows])
    whole = ContextRouter(heads, gate="cluster").fit(X, y)
    np.testing.assert_allclose(pieces.mixture_weights(X_test), whole.mixture_weights(X_test), atol=1e-3)


def test_a_new_context_in_a_stream_begins_a_cluster(heads):
    rng = np.random.default_rng(14)
    (X, y, _), _ = world(rng, 40)
    router = ContextRouter(heads, gate="cluster").fit(X, y)
    new = X[:6].copy()
    new[:, :WIDTH] = 50 + 0.2 * rng.normal(size=(6, WIDTH))
    before = router.mixture_weights(new[5:])
    np.testing.assert_allclose(before[0], heads.weights_)
    router.partial_fit(new[:5], (new[:5, WIDTH:] @ heads.coef_[1]) > 0)
    assert len(router.clusters_) == 5
    assert router.mixture_weights(new[5:])[0, 1] > 0.8


def test_a_stream_finds_clusters_once_it_has_seen_enough(heads):
    rng = np.random.default_rng(15)
    (X, y, _), (X_test, y_test, _) = world(rng, 64)
    router = ContextRouter(heads, gate="cluster")
    known = []
    for row in range(64):
        router.partial_fit(X[row : row + 1], y[row : row + 1])
        known.append(router.clusters_ is not None)
    assert not known[0]
    assert known[-1]
    assert router.score(X_test, y_test) > 0.75


def test_rows_are_not_kept_for_ever(heads, monkeypatch):
    monkeypatch.setattr(micropref._users.cluster_gate, "_MOST_ROWS", 50)
    rng = np.random.default_rng(16)
    X, y = rng.normal(size=(120, WIDTH + D)), rng.integers(0, 2, size=120)
    router = ContextRouter(heads, gate="cluster").fit(X[:40], y[:40])
    memory = router._context_gate.memory
    assert len(memory._seen.contexts) == 40
    router.partial_fit(X[40:80], y[40:80])
    assert router._context_gate.memory._seen is None
    assert len(memory._seen.contexts) == 40  # of a twin, as it was
    assert router.partial_fit(X[80:], y[80:]).clusters_ is None


def test_clusters_are_not_without_number(heads, monkeypatch):
    monkeypatch.setattr(micropref._users.cluster_gate, "_MOST_CLUSTERS", 6)
    rng = np.random.default_rng(17)
    (X, y, _), _ = world(rng, 40)
    router = ContextRouter(heads, gate="cluster").fit(X, y)
    new = X[:10].copy()
    new[:, :WIDTH] = 1000 * rng.normal(size=(10, WIDTH))
    router.partial_fit(new, y[:10])
    assert len(router.clusters_) == 6
    assert (np.abs(router.mixture_weights(new) - heads.weights_).max(axis=1) < 1e-12).sum() == 8


# -------------------------------------------------------------------------------------- saving, types, votes


@pytest.mark.parametrize("n", [0, 3, 40], ids=["a stream of votes", "no clusters yet", "clusters"])
def test_saved_and_loaded(heads, tmp_path, n):
    rng = np.random.default_rng(18)
    (X, y, z), (X_test, _, _) = world(rng, 60)
    router = ContextRouter(heads, gate="cluster")
    router = router.fit(X[:n], y[:n]) if n else router.partial_fit(X[:5], y[:5], groups=z[:5])
    assert (router.clusters_ is None) == (n < 40)
    persistence.save(router, tmp_path / "router")
    again = persistence.load(tmp_path / "router")
    np.testing.assert_array_equal(again.decision_function(X_test), router.decision_function(X_test))
    for each in (router, again):  # what is loaded learns on; its steps of the linear gate begin anew
        each.partial_fit(X[20:], y[20:])
    assert (again.clusters_ is None) == (router.clusters_ is None)
    if router.clusters_ is not None:
        np.testing.assert_allclose(again.mixture_weights(X_test), router.mixture_weights(X_test), atol=0.02)


@pytest.mark.parametrize("kind", ["float32", "float16", "torch", "torch double"])
def test_types_of_rows(heads, kind):
    rng = np.random.default_rng(19)
    (X, y, _), (X_test, _, _) = world(rng, 40)
    expected = ContextRouter(heads, gate="cluster").fit(X, y).mixture_weights(X_test)
    if kind.startswith("torch"):
        torch = pytest.importorskip("torch")
        dtype = torch.float64 if "double" in kind else torch.float32
        convert = lambda each: torch.tensor(each, dtype=dtype)  # noqa: E731
    else:
        convert = lambda each: each.astype(kind)  # noqa: E731
    router = ContextRouter(heads, gate="cluster").fit(convert(X), y, contexts=convert(X_test)[:, :WIDTH])
    found = router.mixture_weights(convert(X_test))
    assert type(found) is type(convert(X_test))
    np.testing.assert_allclose(np.asarray(found), expected, atol=0.02)


def test_votes_come_on_top(heads):
    rng = np.random.default_rng(20)
    (X, y, _), _ = world(rng, 40)
    router = ContextRouter(heads, gate="cluster").fit(X, y)
    before = router.mixture_weights(X)
    router.partial_fit(X[:10], (X[:10, WIDTH:] @ heads.coef_[1]) > 0, groups=["ann"] * 10)
    np.testing.assert_array_equal(router.mixture_weights(X), before)
    assert (router.mixture_weights(X, groups=["ann"] * 40)[:, 1] >= before[:, 1] - 1e-12).all()


def test_a_mixture_with_a_gate_of_its_own_is_the_prior():
    """The prompt moves the prior; the cluster of the rest of the context is the evidence."""
    rng = np.random.default_rng(21)
    (X, y, _), (X_test, _, _) = world(rng, 60)
    prompt = rng.normal(size=(len(X) + len(X_test), 2))
    X, X_test = np.hstack([prompt[: len(X)], X]), np.hstack([prompt[len(X) :], X_test])
    stage_one = np.delete(X, np.arange(2, 2 + WIDTH), axis=1)
    mixture = MixtureBradleyTerry(2, n_context_features=2, random_state=0).fit(stage_one, y)
    router = ContextRouter(mixture, gate="cluster").fit(X, y)
    far = X_test.copy()
    far[:, 2 : 2 + WIDTH] += 1000
    prior = np.exp(mixture.context_log_weights(far[:, :2])).T
    np.testing.assert_allclose(router.mixture_weights(far), prior, atol=1e-12)
