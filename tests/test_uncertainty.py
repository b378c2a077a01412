"""Standard errors of heads and rewards: against published ones, another implementation, and planted truth."""

from __future__ import annotations

import pickle
from itertools import permutations

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st

import micropref._engine.information
from micropref import ContextRouter, MixtureBradleyTerry, PreferenceModel, load_demo, persistence
from micropref._estimator.bootstrap import _matched, bootstrapped_heads
from micropref._rows.comparisons import Comparisons

seeds = st.integers(0, 10**6)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def one_head(X, y=None, *, alpha=0.0, groups=None, sample_weight=None) -> MixtureBradleyTerry:
    return MixtureBradleyTerry(1, alpha=alpha, random_state=0).fit(X, y, sample_weight=sample_weight, groups=groups)


def uncertain(X, y=None, *, kind, alpha=0.0, **said) -> MixtureBradleyTerry:
    return one_head(X, y, alpha=alpha, **said).estimate_uncertainty(X, y, kind=kind, **said)


# ----------------------------------------------------------------------------------------------- published figures

JOURNALS = ("Biometrika", "Comm Statist", "JASA", "JRSS-B")
# Citations between journals, 1987-88 (Stigler 1994; Agresti, Categorical Data Analysis, 2nd ed., p. 448): entry (i, j)
# is how often an article in journal j cites journal i, a comparison that i wins.
CITATIONS = np.array([[0, 730, 498, 221], [33, 0, 68, 17], [320, 813, 0, 142], [284, 276, 325, 0]])
# BradleyTerry2 (Turner and Firth, J. Stat. Softw. 48(9), 2012), printed by its own tests: BTabilities(BTm(...)) with
# each of two references, and with abilities that sum to zero.
CITATION_ERRORS = {
    "Biometrika": (0.0, 0.10254534, 0.06058873, 0.07082997),
    "JASA": (0.06058873, 0.09817049, 0.0, 0.07294356),
    "sum": (0.04333047, 0.07257974, 0.04164102, 0.05304699),
}
CITATION_ABILITIES = {
    "Biometrika": (0.0, -2.9490725, -0.4795698, 0.2689541),
    "JASA": (0.4795698, -2.4695027, 0.0, 0.7485238),
    "sum": (0.7899221, -2.1591504, 0.3103523, 1.0588761),
}

TEAMS = ("Baltimore", "Boston", "Cleveland", "Detroit", "Milwaukee", "New York", "Toronto")
# Games of 1987 in the Eastern Division of the American League (Agresti, 2nd ed., p. 438): wins of the home team (row)
# and of the team away (column).
HOME_WINS = np.array(
    [
        [0, 1, 3, 1, 2, 2, 1],
        [6, 0, 5, 2, 5, 4, 3],
        [2, 4, 0, 3, 2, 4, 3],
        [4, 6, 6, 0, 3, 4, 4],
        [6, 6, 4, 4, 0, 4, 4],
        [6, 4, 4, 5, 3, 0, 2],
        [6, 4, 4, 4, 2, 2, 0],
    ]
)
AWAY_WINS = np.array(
    [
        [0, 6, 4, 5, 5, 4, 6],
        [0, 0, 2, 5, 1, 2, 3],
        [4, 2, 0, 3, 5, 3, 4],
        [3, 0, 1, 0, 3, 3, 2],
        [0, 1, 2, 3, 0, 3, 2],
        [1, 3, 2, 1, 3, 0, 5],
        [0, 3, 2, 3, 5, 4, 0],
    ]
)
# As BradleyTerry2 prints them, with Baltimore as the reference; the last of the second row is the home advantage.
BASEBALL_ERRORS = (0.3339, 0.3319, 0.3396, 0.3433, 0.3359, 0.3367)
BASEBALL_ERRORS_AT_HOME = (0.3378, 0.3350, 0.3446, 0.3474, 0.3404, 0.3403, 0.1309)


def citations() -> tuple[np.ndarray, np.ndarray]:
    """Differences of players, the winner first, and how often each was seen."""
    pairs = list(permutations(range(4), 2))
    winner, loser = np.array(pairs).T
    return np.eye(4)[winner] - np.eye(4)[loser], CITATIONS[winner, loser].astype(float)


def baseball(at_home: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Differences of teams, the home team first, whether it won, and how often."""
    home, away = np.array(list(permutations(range(7), 2))).T
    X = np.eye(7)[home] - np.eye(7)[away]
    X = np.hstack([X, np.ones((42, 1))]) if at_home else X
    won, lost = HOME_WINS[home, away], AWAY_WINS[home, away]
    return np.vstack([X, X]), np.repeat([1, 0], 42), np.concatenate([won, lost]).astype(float)


def test_the_tables_are_those_of_the_sources():
    assert CITATIONS.sum() == 3727
    assert (HOME_WINS.sum(), (HOME_WINS + AWAY_WINS).sum()) == (154, 273)
    X, weight = citations()
    assert (len(X), weight.min()) == (12, 17)


@pytest.mark.parametrize("reference", ["Biometrika", "JASA"])
def test_citations_with_a_reference(reference):
    X, weight = citations()
    at = JOURNALS.index(reference)
    kept = np.arange(4) != at
    model = uncertain(X[:, kept], kind="model", sample_weight=weight)
    np.testing.assert_allclose(model.standard_errors_[0], np.array(CITATION_ERRORS[reference])[kept], atol=1e-7)
    np.testing.assert_allclose(model.coef_[0], np.array(CITATION_ABILITIES[reference])[kept], atol=1e-4)


def test_citations_without_a_reference():
    """Of single journals the data say nothing; differences, and abilities that sum to zero, are as published."""
    X, weight = citations()
    model = uncertain(X, kind="model", sample_weight=weight)
    assert np.isinf(model.standard_errors_).all()
    for name, errors in CITATION_ERRORS.items():
        against = np.full(4, 0.25) if name == "sum" else np.eye(4)[JOURNALS.index(name)]
        rewards, found = model.rewards(np.eye(4) - against, return_std=True)
        np.testing.assert_allclose(found[:, 0], errors, atol=1e-7)
        np.testing.assert_allclose(rewards[:, 0], CITATION_ABILITIES[name], atol=1e-4)


@pytest.mark.parametrize("at_home", [False, True])
def test_baseball(at_home):
    X, y, weight = baseball(at_home)
    model = uncertain(X[:, 1:], y, kind="model", sample_weight=weight)
    expected = BASEBALL_ERRORS_AT_HOME if at_home else BASEBALL_ERRORS
    np.testing.assert_allclose(model.standard_errors_[0], expected, atol=5.1e-5)
    again = sm.GLM(y, X[:, 1:], family=sm.families.Binomial(), freq_weights=weight).fit(tol=1e-13)
    np.testing.assert_allclose(model.standard_errors_[0], again.bse, atol=1e-9)


# ------------------------------------------------------------------------------- against statsmodels, and by loops


def clustered_rows(seed: int, n: int = 300, d: int = 4, n_groups: int = 30):
    """Annotators who differ in the first coordinate."""
    rng = np.random.default_rng(seed)
    X, groups = rng.normal(size=(n, d)), rng.integers(0, n_groups, size=n)
    margin = X @ rng.normal(size=d) + 2 * rng.normal(size=n_groups)[groups] * X[:, 0]
    return X, (rng.random(n) < sigmoid(margin)).astype(int), groups


@settings(max_examples=15)
@given(seed=seeds, n_groups=st.integers(8, 200))
def test_sandwich_errors_are_those_of_statsmodels(seed, n_groups):
    """`cov_type="cluster"` with its usual correction, G / (G − 1) · (N − 1) / (N − k)."""
    X, y, groups = clustered_rows(seed, n_groups=n_groups)
    model = uncertain(X, y, kind="sandwich", groups=groups)
    binomial = sm.GLM(y, X, family=sm.families.Binomial())
    expected = binomial.fit(cov_type="cluster", cov_kwds={"groups": groups}, tol=1e-13)
    np.testing.assert_allclose(model.uncertainty_.covariance, expected.cov_params(), rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(model.standard_errors_[0], expected.bse, rtol=1e-7)
    of_model = uncertain(X, y, kind="model", groups=groups)
    np.testing.assert_allclose(of_model.uncertainty_.covariance, binomial.fit(tol=1e-13).cov_params(), rtol=1e-6)
    assert model.standard_errors_[0, 0] > 1.05 * of_model.standard_errors_[0, 0] or n_groups > 60


def test_many_groups_in_runs(monkeypatch):
    X, y, groups = clustered_rows(1, n=500, n_groups=60)
    whole = uncertain(X, y, kind="sandwich", groups=groups).uncertainty_.covariance
    monkeypatch.setattr(micropref._engine.information, "_BLOCK_ROWS", 7)
    np.testing.assert_allclose(uncertain(X, y, kind="sandwich", groups=groups).uncertainty_.covariance, whole)


def test_ungrouped_rows_are_groups_of_one():
    X, y, groups = clustered_rows(2)
    alone, one_each = (uncertain(X, y, kind="sandwich", groups=each) for each in (None, np.arange(len(X))))
    np.testing.assert_allclose(alone.uncertainty_.covariance, one_each.uncertainty_.covariance, rtol=1e-9)
    some = groups.astype(object)
    some[::3] = None
    numbered = np.where(np.arange(len(X)) % 3 == 0, 1000 + np.arange(len(X)), groups)
    mixed, named = (uncertain(X, y, kind="sandwich", groups=each) for each in (some, numbered))
    np.testing.assert_allclose(mixed.uncertainty_.covariance, named.uncertainty_.covariance, rtol=1e-9)


@pytest.mark.parametrize("kind", ["model", "sandwich"])
@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("alpha", [0.0, 0.01])
def test_a_weight_is_a_number_of_rows(kind, grouped, alpha):
    X, y, groups = clustered_rows(3)
    times = np.random.default_rng(3).integers(0, 4, size=len(X))
    rows = np.repeat(np.arange(len(X)), times)
    weighted = uncertain(X, y, kind=kind, alpha=alpha, sample_weight=times, groups=groups if grouped else None)
    repeated = uncertain(X[rows], y[rows], kind=kind, alpha=alpha, groups=groups[rows] if grouped else None)
    np.testing.assert_allclose(weighted.uncertainty_.covariance, repeated.uncertainty_.covariance, rtol=1e-7)


@pytest.mark.parametrize("kind", ["model", "sandwich"])
def test_a_penalty_is_a_prior(kind):
    X, y, groups = clustered_rows(4)
    alpha, n = 0.05, len(X)
    model = MixtureBradleyTerry(1, alpha=alpha, tol=1e-9).fit(X, y)
    model.estimate_uncertainty(X, y, groups=groups, kind=kind)
    signs = np.where(y == 1, 1, -1)
    wrong = sigmoid(-signs * (X @ model.coef_[0]))
    bread = np.linalg.inv((X * (wrong * (1 - wrong))[:, None]).T @ X + alpha * n * np.eye(4))
    gradients = np.array([(X * (signs * wrong)[:, None])[groups == each].sum(axis=0) for each in np.unique(groups)])
    count = len(gradients)
    factor = count / (count - 1) * (n - 1) / (n - 4)
    expected = bread if kind == "model" else factor * bread @ gradients.T @ gradients @ bread
    np.testing.assert_allclose(model.uncertainty_.covariance, expected, rtol=1e-5, atol=1e-9)


# ----------------------------------------------------------------------------------- where data do not determine


@pytest.mark.parametrize("kind", ["model", "sandwich"])
def test_equal_features_are_known_together_only(kind):
    X, y, groups = clustered_rows(5)
    plain = uncertain(X, y, kind=kind, groups=groups)
    twice = np.hstack([X, X[:, :1], np.zeros((len(X), 1))])
    model = uncertain(twice, y, kind=kind, groups=groups)
    assert np.isinf(model.standard_errors_[0, [0, 4, 5]]).all()
    np.testing.assert_allclose(model.standard_errors_[0, 1:4], plain.standard_errors_[0, 1:4], rtol=1e-6)
    asked = np.hstack([X[:9], X[:9, :1], np.zeros((9, 1))])
    for as_type in (np.float64, np.float32):
        found = model.rewards(asked.astype(as_type), return_std=True)[1]
        np.testing.assert_allclose(found, plain.rewards(X[:9], return_std=True)[1], rtol=1e-4)
    asked[:, 5] = 1.0
    assert np.isinf(model.rewards(asked, return_std=True)[1]).all()


def test_nearly_equal_features_are_known_apart():
    X, y, groups = clustered_rows(5)
    X[:, 1] = X[:, 0] + 1e-3 * X[:, 1]
    model = uncertain(X, y, kind="model", groups=groups)
    p = 1 / (1 + np.exp(-X @ one_head(X, y).coef_[0]))
    inverse = np.linalg.inv(X.T @ (X * (p * (1 - p))[:, None]))
    np.testing.assert_allclose(model.standard_errors_[0], np.sqrt(np.diag(inverse)), rtol=1e-3)


@given(powers=st.lists(st.integers(-12, 12), min_size=4, max_size=4))
def test_units_of_features(powers):
    X, y, groups = clustered_rows(6, n=120)
    units = np.ldexp(1.0, powers)
    coef = one_head(X, y).coef_
    found = []
    for scaled, at in ((X, coef), (X * units, coef / units)):
        rows = Comparisons.read(MixtureBradleyTerry(1), scaled, y, None, groups, first=True)
        found.append(micropref._engine.information.covariance_of_reward(rows, at[0], 0.0, sandwich=True).matrix)
    np.testing.assert_allclose(found[1] * units * units[:, None], found[0], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("kind", ["model", "sandwich"])
def test_separated_labels_are_refused(kind):
    X = np.random.default_rng(7).normal(size=(30, 2))
    y = X[:, 0] > 0
    model = MixtureBradleyTerry(1, alpha=1e-3).fit(X, y).set_params(alpha=0.0)
    model.estimate_uncertainty(X, y, kind=kind)  # of the fit, which had a penalty
    with pytest.raises(ValueError, match="use alpha > 0"):
        MixtureBradleyTerry(1, alpha=0.0, tol=1e-2).fit(X, y).estimate_uncertainty(X, y, kind=kind)


@pytest.mark.parametrize(
    ("n_components", "arguments", "message"),
    [
        (2, {"kind": "model"}, "kind='model': expected a mixture of one head, got 2; use 'bootstrap'"),
        (2, {"kind": "sandwich"}, "expected a mixture of one head"),
        (1, {"kind": "jackknife"}, "kind: expected one of 'model', 'sandwich', 'bootstrap', got 'jackknife'"),
        (1, {"n_resamples": 1}, "n_resamples: expected an integer of at least 2, got 1"),
        (1, {"n_resamples": True}, "n_resamples: expected an integer"),
        (1, {"groups": np.zeros(300, dtype=int)}, "expected at least two groups with weight for a bootstrap, got 1"),
        (1, {"groups": np.zeros(300, dtype=int), "kind": "sandwich"}, "expected at least two groups .* got 1"),
        (1, {"groups": np.zeros(299, dtype=int)}, "groups|inconsistent"),
    ],
)
def test_bad_arguments(n_components, arguments, message):
    X, y, _ = clustered_rows(8)
    model = MixtureBradleyTerry(n_components, alpha=0.01, random_state=0).fit(X, y)
    with pytest.raises(ValueError, match=message):
        model.estimate_uncertainty(X, y, **arguments)
    with pytest.raises(ValueError, match="call estimate_uncertainty on the rows of the fit"):
        model.rewards(X, return_std=True)
    with pytest.raises(AttributeError, match="call estimate_uncertainty on the rows of the fit first"):
        model.standard_errors_  # noqa: B018


# ---------------------------------------------------------------------------------------------------- the bootstrap


def two_kinds(seed: int, n_groups: int = 60, per_group: int = 8, d: int = 3):
    """Annotators with one of two heads; the heads."""
    rng = np.random.default_rng(seed)
    heads = np.array([[2.5, 0.0, 1.0], [-2.5, 1.0, 0.0]])[:, :d]
    groups = np.repeat(np.arange(n_groups), per_group)
    X = rng.normal(size=(len(groups), d))
    z = (rng.random(n_groups) < 0.35).astype(int)
    y = rng.random(len(groups)) < sigmoid((X * heads[z][groups]).sum(axis=1))
    return X, y.astype(int), groups, heads


def test_bootstrap_of_groups_is_near_the_sandwich():
    X, y, groups = clustered_rows(9, n=1000, n_groups=120)
    model = one_head(X, y, groups=groups)
    boot = model.estimate_uncertainty(X, y, groups=groups, n_resamples=200, random_state=0).standard_errors_
    sandwich = model.estimate_uncertainty(X, y, groups=groups, kind="sandwich").standard_errors_
    of_rows = model.estimate_uncertainty(X, y, n_resamples=80, random_state=0).standard_errors_
    np.testing.assert_allclose(boot, sandwich, rtol=0.2)
    assert of_rows[0, 0] < 0.8 * sandwich[0, 0]


def test_heads_of_samples_are_matched():
    rng = np.random.default_rng(10)
    heads, X = rng.normal(size=(4, 5)), rng.normal(size=(50, 5))
    moved = heads + 0.01 * rng.normal(size=(4, 5))
    order = [2, 0, 3, 1]
    np.testing.assert_array_equal(_matched(moved[order], X, X @ heads.T), moved)


def test_bootstrap_of_two_heads():
    X, y, groups, _ = two_kinds(11)
    mixture = MixtureBradleyTerry(2, random_state=0).fit(X, y, groups=groups)
    before = mixture.predict_proba(X)
    mixture.estimate_uncertainty(X, y, groups=groups, n_resamples=40)
    np.testing.assert_array_equal(mixture.predict_proba(X), before)
    deviations = mixture.uncertainty_.deviations
    assert deviations.dtype == np.float32
    assert deviations.shape == (40, 2, 3)
    assert np.min(mixture.standard_errors_) > 0.1
    assert np.max(mixture.standard_errors_) < 1.5  # heads that changed places would be 5 apart
    rewards, std = mixture.rewards(X[:5], return_std=True)
    np.testing.assert_array_equal(rewards, mixture.rewards(X[:5]))
    margins = np.einsum("bkd,nd->bnk", deviations.astype(float), X[:5])
    np.testing.assert_allclose(std, margins.std(axis=0, ddof=1), rtol=1e-5)
    again = MixtureBradleyTerry(2, random_state=0).fit(X, y, groups=groups)
    again.estimate_uncertainty(X, y, groups=groups, n_resamples=40)
    np.testing.assert_array_equal(again.uncertainty_.deviations, deviations)


def test_a_group_drawn_twice_is_two_groups():
    """The samples that are fitted: rows of every group together, under a new name for each draw."""
    X, y, groups, _ = two_kinds(12, n_groups=10, per_group=4)
    seen = []

    class Spy(MixtureBradleyTerry):
        def fit(self, X, y=None, sample_weight=None, groups=None):
            seen.append((np.asarray(X), np.asarray(y), groups))
            return super().fit(X, y, sample_weight=sample_weight, groups=groups)

    order = np.random.default_rng(0).permutation(40)
    X, y, groups = X[order], y[order], groups[order].astype(object)
    groups[groups == 3] = None
    mixture = Spy(2, random_state=0).fit(X, y, groups=groups)
    seen.clear()
    rows = mixture._rows(X, y, None, groups)
    bootstrapped_heads(mixture, rows, 20, 0)
    assert len(seen) == 20
    numbers = {row.tobytes(): i for i, row in enumerate(X)}
    times = np.zeros(40)
    for drawn, labels, ids in seen:
        source = np.array([numbers[row.tobytes()] for row in drawn])
        np.testing.assert_array_equal(labels, np.where(y[source] == 1, 1, -1))
        times += np.bincount(source, minlength=40)
        for each in set(ids) - {-1}:
            of = groups[source[ids == each]]
            assert len(of) == 4
            assert len(set(of)) == 1
            assert len(set(source[ids == each])) == 4
        assert all(groups[i] is None for i in source[ids == -1])
        assert len(set(ids) - {-1}) + (ids == -1).sum() == 13
    assert times.min() > 5
    assert abs(times.mean() - 20) < 2


def test_rows_without_weight_are_never_drawn():
    X, y, groups, _ = two_kinds(13)
    weight = np.where(groups < 30, 1.0, 0.0)
    kept = weight > 0
    found = [
        MixtureBradleyTerry(1, alpha=0.1, random_state=0)
        .fit(X[rows], y[rows], sample_weight=w)
        .estimate_uncertainty(X[rows], y[rows], sample_weight=w, groups=groups[rows], n_resamples=10)
        for rows, w in ((slice(None), weight), (kept, weight[kept]))
    ]
    np.testing.assert_allclose(found[0].standard_errors_, found[1].standard_errors_, rtol=1e-3)


@pytest.mark.parametrize("kind", ["model", "sandwich", "bootstrap"])
@pytest.mark.parametrize("dtype", ["float16", "float32", "torch"])
def test_types_of_rows(kind, dtype):
    X, y, groups = clustered_rows(14)
    expected = one_head(X, y, groups=groups)
    expected.estimate_uncertainty(X, y, groups=groups, kind=kind, n_resamples=20)
    if dtype == "torch":
        torch = pytest.importorskip("torch")
        rows = torch.tensor(X, dtype=torch.float32)
    else:
        rows = X.astype(dtype)
    model = one_head(rows, y, groups=groups).estimate_uncertainty(rows, y, groups=groups, kind=kind, n_resamples=20)
    rewards, std = model.rewards(rows[:7], return_std=True)
    assert type(std) is type(rewards)
    assert std.dtype == rewards.dtype
    tolerance = 0.02 if dtype == "float16" else 1e-3
    np.testing.assert_allclose(np.asarray(std), expected.rewards(X[:7], return_std=True)[1], rtol=tolerance)


# --------------------------------------------------------------------------------------------------- life of a model


def test_learning_again_forgets_it():
    X, y, _ = clustered_rows(15)
    model = uncertain(X, y, kind="model")
    assert uncertain(X, y, kind="model").fit(X, y).uncertainty_ is None
    assert uncertain(X, y, kind="model").partial_fit(X, y).uncertainty_ is None
    assert model.set_params(alpha=1.0).uncertainty_ is not None
    first = model.standard_errors_
    model.estimate_uncertainty(X, y, kind="model")  # with the penalty of the fit
    np.testing.assert_array_equal(model.standard_errors_, first)
    with pytest.raises(ValueError, match="kind"):
        model.estimate_uncertainty(X, y, kind="none")
    np.testing.assert_array_equal(model.standard_errors_, first)


@pytest.mark.parametrize("kind", ["model", "sandwich", "bootstrap"])
def test_saved_and_loaded(kind, tmp_path):
    X, y, groups = clustered_rows(16)
    X = np.hstack([X, X[:, :1]])
    model = one_head(X, y, alpha=0.0 if kind == "model" else 0.01)
    model.estimate_uncertainty(X, y, groups=groups, kind=kind, n_resamples=10)
    router = ContextRouter(model).partial_fit(X[:5], y[:5], groups=["ann"] * 5)
    persistence.save(model, tmp_path / "model")
    persistence.save(router, tmp_path / "router")
    for again in (persistence.load(tmp_path / "model"), pickle.loads(pickle.dumps(model))):
        assert again.uncertainty_.kind == kind
        for found, expected in zip(again.rewards(X, return_std=True), model.rewards(X, return_std=True), strict=True):
            np.testing.assert_array_equal(found, expected)
    of_router = persistence.load(tmp_path / "router").rewards(X, return_std=True)
    for found, expected in zip(of_router, router.rewards(X, return_std=True), strict=True):
        np.testing.assert_array_equal(found, expected)
    plain = one_head(X, y)
    persistence.save(plain, tmp_path / "plain")
    assert persistence.load(tmp_path / "plain").uncertainty_ is None


def test_a_router_adds_it_to_what_it_does_not_know_of_a_user():
    """Var w_zᵀφ = Σ_k f_k (w_kᵀφ − r)² + Σ_k f_k Var w_kᵀφ."""
    X, y, groups, _ = two_kinds(17)
    mixture = MixtureBradleyTerry(2, random_state=0).fit(X, y, groups=groups)
    plain = ContextRouter(mixture).partial_fit(X[:8], y[:8], groups=groups[:8])
    mixture.estimate_uncertainty(X, y, groups=groups, n_resamples=30)
    router = ContextRouter(mixture).partial_fit(X[:8], y[:8], groups=groups[:8])
    users = np.where(np.arange(9) % 2 == 0, 0, -1)
    each, std = mixture.rewards(X[:9], return_std=True)
    rewards, found = router.rewards(X[:9], groups=users, return_std=True)
    weights = router.mixture_weights(X[:9], groups=users)
    between = (weights * (each - rewards[:, None]) ** 2).sum(axis=1)
    np.testing.assert_allclose(found**2, between + (weights * std**2).sum(axis=1), rtol=1e-9)
    np.testing.assert_allclose(
        plain.rewards(X[:9], groups=users, return_std=True)[1] ** 2, between, rtol=1e-7, atol=1e-9
    )
    wide, narrow = (np.diff(one.margin_interval(X[:9], groups=users))[:, 0] for one in (router, plain))
    assert (wide > narrow).all()


def test_an_interval_of_what_is_not_determined_is_the_line():
    X, y, _ = clustered_rows(18)
    X = np.hstack([X, X[:, :1]])
    router = ContextRouter(uncertain(X, y, kind="model")).partial_fit(X[:3], y[:3], groups=[1] * 3)
    asked = X[:4].copy()
    asked[0, -1] += 1
    interval = router.margin_interval(asked)
    np.testing.assert_array_equal(interval[0], [-np.inf, np.inf])
    assert np.isfinite(interval[1:]).all()
    assert np.isinf(router.rewards(asked, return_std=True)[1][0])


# --------------------------------------------------------------------------------------------------------- texts


@pytest.fixture(scope="module")
def texts():
    return load_demo(n_annotators=40)


@pytest.mark.parametrize("n_components", [1, 2])
def test_rewards_of_texts(texts, n_components, tmp_path):
    model = PreferenceModel.fit(texts.train, n_components=n_components, random_state=0)
    prompts, responses = list(texts.test.prompt[:6]), list(texts.test.chosen[:6])
    if n_components == 1:
        with pytest.raises(ValueError, match="call estimate_uncertainty on the comparisons of the fit"):
            model.reward(prompts, responses, return_std=True)
    else:
        model.reward(prompts, responses, return_std=True)
    rewards = model.reward(prompts, responses)
    model.estimate_uncertainty(texts.train, n_resamples=5)
    found, std = model.reward(prompts, responses, return_std=True)
    np.testing.assert_allclose(found, rewards, rtol=1e-5)
    assert (std > 0).all()
    model.save(tmp_path / "model")
    again = PreferenceModel.load(tmp_path / "model")
    np.testing.assert_array_equal(again.reward(prompts, responses, return_std=True)[1], std)
    users = [texts.history.group[0]] * 6
    routed = model.route(texts.history)
    of_user, std_of_user = routed.reward(prompts, responses, users=users, return_std=True)
    np.testing.assert_allclose(of_user, routed.reward(prompts, responses, users=users))
    if n_components == 1:
        np.testing.assert_allclose(std_of_user, std, rtol=1e-5)
    routed.estimate_uncertainty(texts.train, n_resamples=9)
    assert (routed.reward(prompts, responses, users=users, return_std=True)[1] != std_of_user).all()
    assert [len(each) for each in routed.reward([], [], users=[], return_std=True)] == [0, 0]


# --------------------------------------------------------------------------------------------------------- coverage


def covered(found: np.ndarray, std: np.ndarray, truth: np.ndarray) -> np.ndarray:
    assert (std > 0).all()
    return np.abs(found - truth) < 1.959964 * std


@pytest.mark.slow
def test_model_based_intervals_cover():
    """95 % intervals of coefficients and of rewards of one Bradley-Terry model, 300 worlds."""
    rng = np.random.default_rng(0)
    inside, inside_rewards = [], []
    for _ in range(300):
        truth, X, asked = rng.normal(size=4), rng.normal(size=(400, 4)), rng.normal(size=(5, 4))
        y = rng.random(400) < sigmoid(X @ truth)
        model = uncertain(X, y, kind="model")
        inside.append(covered(model.coef_[0], model.standard_errors_[0], truth))
        rewards, std = model.rewards(asked, return_std=True)
        inside_rewards.append(covered(rewards[:, 0], std[:, 0], asked @ truth))
    assert abs(np.mean(inside) - 0.95) < 0.03
    assert abs(np.mean(inside_rewards) - 0.95) < 0.03


@pytest.mark.slow
def test_sandwich_intervals_cover_where_annotators_repeat_themselves():
    """Each annotator gives every answer four times: the model's intervals are half as wide as they must be."""
    rng = np.random.default_rng(1)
    of_sandwich, of_model, of_bootstrap = [], [], []
    for world in range(200):
        truth, X = rng.normal(size=3), np.repeat(rng.normal(size=(300, 3)), 4, axis=0)
        y = np.repeat(rng.random(300) < sigmoid(X[::4] @ truth), 4)
        groups = np.arange(1200) // 4
        model = one_head(X, y)
        for kind, inside in (("sandwich", of_sandwich), ("model", of_model), ("bootstrap", of_bootstrap)):
            if kind == "bootstrap" and world % 3:
                continue
            model.estimate_uncertainty(X, y, groups=groups, kind=kind, n_resamples=50, random_state=world)
            inside.append(covered(model.coef_[0], model.standard_errors_[0], truth))
    assert abs(np.mean(of_sandwich) - 0.95) < 0.03
    assert abs(np.mean(of_bootstrap) - 0.95) < 0.03
    assert np.mean(of_model) < 0.8


@pytest.mark.slow
def test_bootstrap_intervals_of_two_heads_cover():
    """Rewards under each of two planted heads, by a bootstrap of annotators."""
    rng = np.random.default_rng(2)
    inside = []
    for world in range(60):
        X, y, groups, heads = two_kinds(world, n_groups=150, per_group=10)
        mixture = MixtureBradleyTerry(2, alpha=1e-4, n_init=2, random_state=0).fit(X, y, groups=groups)
        mixture.estimate_uncertainty(X, y, groups=groups, n_resamples=40, random_state=world)
        asked = rng.normal(size=(6, 3))
        rewards, std = mixture.rewards(asked, return_std=True)
        inside.append(covered(rewards, std, asked @ heads.T))
    assert abs(np.mean(inside) - 0.95) < 0.03
