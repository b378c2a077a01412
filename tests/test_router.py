"""Which head applies: J_τ and its two solvers, Bayes' rule by hand, gates, users and their votes, contexts."""

from __future__ import annotations

import doctest
import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.utils.validation import check_is_fitted

import micropref._users.nearest
import micropref.router
from micropref._engine.gate_objective import GateObjective
from micropref._engine.gates import Gate, flatten
from micropref._rows.comparisons import Comparisons
from micropref._rows.layout import PairReader
from micropref.mixture import MixtureBradleyTerry
from micropref.pairs import make_pairs, swap_pairs
from micropref.router import ContextRouter


def frozen(heads, *, weights=None, gate=None) -> MixtureBradleyTerry:
    """A fitted mixture with given heads (K, d) and static weights (K,) or gate weights (K, c₁)."""
    heads = np.asarray(heads, dtype=float)
    n_components, n_features = heads.shape
    n_context = 0 if gate is None else np.shape(gate)[1]
    mixture = MixtureBradleyTerry(n_components, n_context_features=n_context)
    mixture.coef_ = heads
    mixture.weights_ = np.full(n_components, 1 / n_components) if weights is None else np.asarray(weights, dtype=float)
    offsets = np.log(mixture.weights_)
    mixture.gate_parameters_ = [] if n_components == 1 else [offsets] if gate is None else [np.asarray(gate), offsets]
    mixture.classes_, mixture.n_features_in_ = np.array([0, 1]), n_context + n_features
    return mixture


def random_problem(n: int, n_context: int, n_components: int, seed: int, n_features: int = 3):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, n_context + n_features))
    y = rng.integers(0, 2, size=n)
    y[0], y[-1] = 0, 1
    weights = rng.dirichlet(np.full(n_components, 5.0))
    return frozen(rng.normal(size=(n_components, n_features)), weights=weights), X, y, rng.uniform(0.3, 2, size=n)


@pytest.fixture(scope="module")
def planted():
    """Four contexts, each ruled by one of four heads; the prior knows nothing of it."""
    rng = np.random.default_rng(0)
    heads = 4 * np.vstack([np.eye(4)[:2], -np.eye(4)[:2]])
    topic = rng.integers(0, 4, size=600)
    D = rng.normal(size=(600, 4))
    context = 2 * np.eye(4)[topic] + 0.3 * rng.normal(size=(600, 4))
    y = (rng.random(600) < 1 / (1 + np.exp(-np.einsum("nd,nd->n", D, heads[topic])))).astype(int)
    assert np.bincount(topic).min() > 100
    return frozen(heads), make_pairs(D, 0 * D, context=context), y, topic


# ----------------------------------------------------------------------------------------------------- the reference


def log_gate(parameters, context, log_prior) -> list[float]:
    """log f(c) of one row, by the formulas."""
    *hidden, out, offset = parameters
    inner = list(context)
    if hidden:
        inner = [
            max(0.0, math.fsum(a * c for a, c in zip(row, context, strict=True)) + b)
            for row, b in zip(*hidden, strict=True)
        ]
    logits = [
        start + b + math.fsum(v * h for v, h in zip(row, inner, strict=True))
        for start, b, row in zip(log_prior, offset, out, strict=True)
    ]
    peak = max(logits)
    total = peak + math.log(math.fsum(math.exp(g - peak) for g in logits))
    return [g - total for g in logits]


def log_sigmoid(margin: float) -> float:
    return -math.log1p(math.exp(-margin)) if margin > 0 else margin - math.log1p(math.exp(margin))


def losses(mixture, X, y):
    """L_ik, row by row."""
    n_context = X.shape[1] - mixture.coef_.shape[1]
    signs = np.where(np.asarray(y) > 0, 1.0, -1.0)
    return [
        [
            -log_sigmoid(s * math.fsum(w * d for w, d in zip(head, row[n_context:], strict=True)))
            for head in mixture.coef_
        ]
        for row, s in zip(X.tolist(), signs, strict=True)
    ]


def objective_by_loops(parameters, mixture, X, y, weight, temperature, alpha) -> float:
    n_context = X.shape[1] - mixture.coef_.shape[1]
    parameters = [np.asarray(p) for p in parameters]
    if len(parameters) == 1:
        parameters = [np.zeros((len(parameters[0]), 0)), *parameters]
    log_prior = np.log(mixture.weights_)
    total = 0.0
    for row, loss, w in zip(X, losses(mixture, X, y), weight, strict=True):
        joint = [
            f - each / temperature
            for f, each in zip(log_gate(parameters, row[:n_context], log_prior), loss, strict=True)
        ]
        peak = max(joint)
        total -= w * (peak + math.log(math.fsum(math.exp(value - peak) for value in joint)))
    return total / math.fsum(weight) + 0.5 * alpha * sum(float((p**2).sum()) for p in parameters if p.ndim == 2)


def penalised(parameters) -> list[np.ndarray]:
    return [p for p in parameters if p.ndim == 2]


@pytest.mark.parametrize("temperature", [1.0, 0.05, 7.0])
@pytest.mark.parametrize(("kind", "n_context"), [("linear", 0), ("linear", 1), ("linear", 4), ("mlp", 4)])
def test_objective_and_gradient_equal_the_reference(kind, n_context, temperature):
    mixture, X, y, weight = random_problem(17, n_context, 3, seed=1)
    gate = Gate.create(kind, n_context, 3, 5)
    router = ContextRouter(mixture, gate=kind, hidden_units=5).partial_fit(X, y, groups=np.arange(17))
    rows = Comparisons(PairReader(X, n_context), weight=weight)
    objective = GateObjective(
        rows,
        gate,
        evidence=-np.array(losses(mixture, X, y)).T / temperature,
        offset=router._log_prior(rows.reader),
        alpha=0.03,
    )
    vector = np.random.default_rng(2).normal(size=flatten([np.zeros(s) for s in gate.shapes]).size)

    def reference(v):
        parts = np.split(v, np.cumsum([int(np.prod(s)) for s in gate.shapes])[:-1])
        shaped = [part.reshape(shape) for part, shape in zip(parts, gate.shapes, strict=True)]
        return objective_by_loops(shaped, mixture, X, y, weight, temperature, 0.03)

    value, gradient = objective.value_and_gradient(vector)
    assert value == pytest.approx(reference(vector), rel=1e-12)
    step = 1e-6
    slopes = [(reference(vector + step * e) - reference(vector - step * e)) / (2 * step) for e in np.eye(vector.size)]
    np.testing.assert_allclose(gradient, slopes, atol=2e-8)
    assert np.abs(gradient).min() > 1e-7 or kind == "mlp"


@pytest.mark.parametrize("solver", ["direct", "hedge"])
@pytest.mark.parametrize("n_context", [0, 3])
@pytest.mark.parametrize("temperature", [1.0, 0.3])
def test_fit_ends_at_a_stationary_point_of_the_reference(n_context, temperature, solver):
    mixture, X, y, weight = random_problem(30, n_context, 3, seed=4)
    router = ContextRouter(mixture, temperature=temperature, alpha=0.1, solver=solver, n_iter=200).fit(
        X, y, sample_weight=weight
    )
    arguments = mixture, X, y, weight, temperature, 0.1
    assert router.objective_ == pytest.approx(objective_by_loops(router.gate_parameters_, *arguments), rel=1e-10)
    assert router.converged_
    shapes = [p.shape for p in router.gate_parameters_]
    vector = flatten(router.gate_parameters_)
    step = 1e-5

    def reference(v):
        parts = np.split(v, np.cumsum([int(np.prod(s)) for s in shapes])[:-1])
        return objective_by_loops([p.reshape(s) for p, s in zip(parts, shapes, strict=True)], *arguments)

    slopes = [(reference(vector + step * e) - reference(vector - step * e)) / (2 * step) for e in np.eye(vector.size)]
    assert np.abs(slopes).max() < (1e-4 if solver == "direct" else 5e-4)
    assert reference(vector) < reference(0 * vector) - 1e-3


# -------------------------------------------------------------------------------------------------- the two solvers


@settings(max_examples=25)
@given(
    n=st.integers(4, 30),
    n_context=st.integers(0, 4),
    n_components=st.integers(1, 4),
    temperature=st.floats(0.05, 5),
    alpha=st.floats(0.01, 1),
    seed=st.integers(0, 10**6),
)
def test_no_step_of_hedge_raises_the_objective(n, n_context, n_components, temperature, alpha, seed):
    mixture, X, y, weight = random_problem(n, n_context, n_components, seed)
    router = ContextRouter(mixture, solver="hedge", n_iter=8, temperature=temperature, alpha=alpha)
    curve = np.array(router.fit(X, y, sample_weight=weight).loss_curve_)
    assert curve.shape == (9,)
    assert (np.diff(curve) <= 1e-9 * np.abs(curve[0])).all()
    assert curve[-1] == router.objective_
    start = [np.zeros((n_components, n_context)), np.zeros(n_components)]
    assert curve[0] == pytest.approx(objective_by_loops(start, mixture, X, y, weight, temperature, alpha), rel=1e-10)


@settings(max_examples=20)
@given(
    n=st.integers(6, 25),
    n_context=st.integers(0, 3),
    n_components=st.integers(2, 4),
    temperature=st.floats(0.5, 3),
    seed=st.integers(0, 10**6),
)
def test_where_the_direct_solver_ends_hedge_stays(n, n_context, n_components, temperature, seed):
    mixture, X, y, weight = random_problem(n, n_context, n_components, seed)
    router = ContextRouter(mixture, temperature=temperature, alpha=0.1).fit(X, y, sample_weight=weight)
    assert router.loss_curve_ == []
    rows = Comparisons(PairReader(X, n_context), weight=weight)
    objective = GateObjective(
        rows,
        Gate.create("linear", n_context, n_components, 0),
        evidence=-np.array(losses(mixture, X, y)).T / temperature,
        offset=router._log_prior(rows.reader),
        alpha=0.1,
    )
    vector = flatten(router.gate_parameters_)
    targets = objective.targets(vector)
    np.testing.assert_allclose(targets.sum(axis=0), 1)
    assert np.abs(objective.cross_entropy(vector, targets)[1]).max() < 2e-5


@settings(max_examples=10)
@given(n=st.integers(6, 40), n_components=st.integers(2, 4), seed=st.integers(0, 10**6))
def test_hedge_converges_to_the_direct_solution_at_its_known_rate(n, n_components, seed):
    """Without context J is convex in f, and after T steps J − J* ≤ KL(f* ‖ f⁰) / T."""
    mixture, X, y, _ = random_problem(n, 0, n_components, seed)
    best = ContextRouter(mixture).fit(X, y)
    hedge = ContextRouter(mixture, solver="hedge", n_iter=30).fit(X, y)
    f = best.mixture_weights(X[:1])[0]
    divergence = float(np.sum(f * np.log(np.maximum(f, 1e-300) / mixture.weights_)))
    gaps = np.array(hedge.loss_curve_) - best.objective_
    assert (gaps > -1e-6).all()
    assert (gaps[1:] * np.arange(1, 31) <= divergence + 1e-4).all()


def test_hedge_and_the_direct_solver_route_alike(planted):
    mixture, X, y, _ = planted
    direct = ContextRouter(mixture, alpha=0.01).fit(X[:200], y[:200])
    hedge = ContextRouter(mixture, alpha=0.01, solver="hedge", n_iter=60).fit(X[:200], y[:200])
    np.testing.assert_allclose(hedge.mixture_weights(X), direct.mixture_weights(X), atol=5e-3)
    assert hedge.n_iter_ == 60


def test_the_two_solvers_reach_the_same_depth_with_a_hidden_layer(planted):
    """Its objective has kinks and many minima, so that only their depth can be compared."""
    mixture, X, y, _ = planted
    common = {"gate": "mlp", "hidden_units": 16, "random_state": 0, "alpha": 0.01}
    direct = ContextRouter(mixture, **common).fit(X[:200], y[:200])
    hedge = ContextRouter(mixture, solver="hedge", n_iter=60, **common).fit(X[:200], y[:200])
    curve = np.array(hedge.loss_curve_)
    assert (np.diff(curve) <= 1e-9).all()
    assert direct.converged_
    assert direct.n_iter_ < 300
    assert hedge.objective_ == pytest.approx(direct.objective_, abs=0.01)
    assert curve[0] - curve[-1] > 0.1
    found = objective_by_loops(direct.gate_parameters_, mixture, X[:200], y[:200], np.ones(200), 1.0, 0.01)
    assert direct.objective_ == pytest.approx(found, rel=1e-10)


def test_hedge_that_has_not_arrived_says_so(planted):
    mixture, X, y, _ = planted
    router = ContextRouter(mixture, alpha=0.01, solver="hedge", n_iter=1).fit(X[:200], y[:200])
    assert not router.converged_
    assert router.n_iter_ == 1


def test_a_direct_solver_cut_short_warns(planted, monkeypatch):
    mixture, X, y, _ = planted
    monkeypatch.setattr("micropref._engine.gate_solvers.MAX_ITER", 1)
    with pytest.warns(ConvergenceWarning, match=r"stopped after 1 iterations.*PairScaler"):
        router = ContextRouter(mixture).fit(X, y)
    assert not router.converged_


# ----------------------------------------------------------------------------------------------- temperature, by hand


@pytest.mark.parametrize(
    ("prior", "label", "posterior"),
    [
        ((0.5, 0.5), 1, (0.8 / 1.1, 0.3 / 1.1)),
        ((0.25, 0.75), 1, (0.2 / 0.425, 0.225 / 0.425)),
        ((0.25, 0.75), 0, (0.05 / 0.575, 0.525 / 0.575)),
    ],
)
def test_at_temperature_one_a_step_is_bayes_rule(prior, label, posterior):
    """Two heads say 0.8 and 0.3 of a pair; the answer tells how much each is to be believed."""
    mixture = frozen([[math.log(4)], [math.log(3 / 7)]], weights=prior)
    X = np.ones((1, 1))
    router = ContextRouter(mixture, solver="hedge", n_iter=1).fit(X, [label])
    np.testing.assert_allclose(router.mixture_weights(X)[0], posterior, rtol=1e-4)
    user = ContextRouter(mixture).partial_fit(X, [label], groups=["ann"])
    np.testing.assert_allclose(user.mixture_weights(X, groups=["ann"])[0], posterior, rtol=1e-6)
    p_first = posterior[0] * 0.8 + posterior[1] * 0.3
    np.testing.assert_allclose(user.predict_proba(X, groups=["ann"]), [[1 - p_first, p_first]], rtol=1e-6)


def test_at_temperature_zero_the_better_head_takes_the_pair():
    mixture, X, y, _ = random_problem(40, 0, 3, seed=8)
    winner = np.argmin(losses(mixture, X, y), axis=1)
    router = ContextRouter(mixture, solver="hedge", n_iter=1, temperature=1e-6).fit(X, y)
    np.testing.assert_allclose(router.mixture_weights(X)[0], np.bincount(winner, minlength=3) / 40, atol=1e-4)
    warm = ContextRouter(mixture, solver="hedge", n_iter=1, temperature=1.0).fit(X, y)
    assert np.abs(warm.mixture_weights(X)[0] - router.mixture_weights(X)[0]).max() > 0.02


def test_the_paper_s_temperatures_are_numerically_fine(planted):
    mixture, X, y, _ = planted
    for solver in ("direct", "hedge"):
        router = ContextRouter(mixture, temperature=1e-4, solver=solver).fit(X[:200], y[:200])
        assert np.isfinite(router.objective_)
        assert router.score(X[200:], y[200:]) > 0.6
        np.testing.assert_allclose(router.mixture_weights(X).sum(axis=1), 1)


# ---------------------------------------------------------------------------------------------------------- the start


def contextual_mixture():
    """A mixture whose own gate reads two columns."""
    return frozen(3 * np.eye(3), gate=np.random.default_rng(3).normal(size=(3, 2)))


def test_before_any_label_weights_are_the_mixture_s_own():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(20, 5))
    narrow = ContextRouter(contextual_mixture()).partial_fit(X, groups=["ann"] * 20)
    np.testing.assert_allclose(narrow.mixture_weights(X), contextual_mixture().mixture_weights(X), rtol=1e-12)
    wide_X = np.hstack([X[:, :2], rng.normal(size=(20, 4)), X[:, 2:]])
    wide = ContextRouter(contextual_mixture()).partial_fit(wide_X, groups=["ann"] * 20)
    np.testing.assert_allclose(wide.mixture_weights(wide_X), contextual_mixture().mixture_weights(X), rtol=1e-12)
    static = ContextRouter(frozen(np.eye(3), weights=[0.2, 0.3, 0.5])).partial_fit(X, groups=["ann"] * 20)
    np.testing.assert_allclose(static.mixture_weights(X), np.tile([0.2, 0.3, 0.5], (20, 1)), rtol=1e-12)


@pytest.mark.parametrize("solver", ["direct", "hedge"])
def test_a_large_penalty_holds_all_but_the_offsets_at_the_start(solver):
    X = np.random.default_rng(0).normal(size=(60, 7))
    y = (X[:, 4] > 0).astype(int)
    router = ContextRouter(contextual_mixture(), alpha=1e7, solver=solver)
    learned = np.log(router.fit(X, y).mixture_weights(X))
    own = np.log(contextual_mixture().mixture_weights(np.hstack([X[:, :2], X[:, 4:]])))
    shift = learned - own
    shift -= shift[:, :1]
    np.testing.assert_allclose(shift, np.broadcast_to(shift[0], shift.shape), atol=1e-3)
    assert np.abs(shift).max() > 0.1  # offsets are free


def test_one_component_has_nothing_to_route():
    mixture, X, y, _ = random_problem(12, 2, 1, seed=0)
    for solver in ("direct", "hedge"):
        router = ContextRouter(mixture, solver=solver).fit(X, y).partial_fit(X, y).partial_fit(X, y, groups=[1] * 12)
        assert router.gate_parameters_ == []
        assert router.converged_
        np.testing.assert_allclose(
            router.decision_function(X, groups=[1] * 12), X[:, 2:] @ mixture.coef_[0], atol=1e-12
        )


# -------------------------------------------------------------------------------------------------------------- gates


@pytest.mark.parametrize("gate", ["linear", "mlp", "knn"])
def test_every_gate_learns_contexts_from_ten_labels_each(planted, gate):
    mixture, X, y, topic = planted
    few = np.concatenate([np.flatnonzero(topic == t)[:10] for t in range(4)])
    rest = np.setdiff1d(np.arange(len(X)), few)
    router = ContextRouter(mixture, gate=gate, random_state=0).fit(X[few], y[few])
    ceiling = (mixture.component_scores(X[:, 4:])[np.arange(len(X)), topic] > 0) == y
    assert router.score(X[rest], y[rest]) > ceiling[rest].mean() - 0.06
    assert mixture.score(X[rest, 4:], y[rest]) < 0.6
    assert (router.mixture_weights(X[rest]).argmax(axis=1) == topic[rest]).mean() > 0.85


def test_mlp_and_knn_learn_what_a_linear_gate_cannot():
    rng = np.random.default_rng(5)
    D, corner = rng.normal(size=(500, 2)), rng.integers(0, 2, size=(500, 2))
    kind = corner[:, 0] ^ corner[:, 1]
    y = (np.where(kind == 1, 1, -1) * D[:, 0] > 0).astype(int)
    X = make_pairs(D, 0 * D, context=4.0 * corner - 2 + 0.2 * rng.normal(size=(500, 2)))
    mixture = frozen([[4, 0], [-4, 0]])
    score = {
        gate: ContextRouter(mixture, gate=gate, hidden_units=16, random_state=0)
        .fit(X[:200], y[:200])
        .score(X[200:], y[200:])
        for gate in ("linear", "mlp", "knn")
    }
    assert score["linear"] < 0.65
    assert score["mlp"] > 0.95
    assert score["knn"] > 0.95


def test_knn_with_a_faiss_index_gives_the_same(planted, monkeypatch):
    mixture, X, y, _ = planted
    plain = ContextRouter(mixture, gate="knn", n_neighbors=7).fit(X[:100], y[:100]).partial_fit(X[100:200], y[100:200])
    monkeypatch.setattr(micropref._users.nearest, "_FAISS_ROWS", 50)
    indexed = (
        ContextRouter(mixture, gate="knn", n_neighbors=7).fit(X[:100], y[:100]).partial_fit(X[100:200], y[100:200])
    )
    assert plain._context_gate.pairs._points._index is None
    assert indexed._context_gate.pairs._points._index.ntotal == 200
    np.testing.assert_allclose(indexed.mixture_weights(X), plain.mixture_weights(X), atol=1e-9)


def test_knn_does_not_remember_rows_without_weight(planted):
    mixture, X, y, _ = planted
    weight = np.where(np.arange(200) % 3 == 0, 0.0, np.linspace(0.5, 2, 200))
    kept = weight > 0
    with_zeros = ContextRouter(mixture, gate="knn").fit(X[:200], y[:200], sample_weight=weight)
    without = ContextRouter(mixture, gate="knn").fit(X[:200][kept], y[:200][kept], sample_weight=weight[kept])
    np.testing.assert_array_equal(with_zeros.mixture_weights(X), without.mixture_weights(X))
    np.testing.assert_array_equal(with_zeros._context_gate.pairs.export()["weight"], weight[kept])
    unweighted = ContextRouter(mixture, gate="knn").fit(X[:200][kept], y[:200][kept])
    assert np.abs(unweighted.mixture_weights(X) - without.mixture_weights(X)).max() > 0.01


def test_the_same_seed_gives_the_same_bits(planted):
    mixture, X, y, _ = planted
    first, second, other = (
        ContextRouter(mixture, gate="mlp", hidden_units=8, random_state=seed).fit(X[:100], y[:100]).partial_fit(X, y)
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first.decision_function(X), second.decision_function(X))
    assert (first.decision_function(X) != other.decision_function(X)).any()


@pytest.mark.parametrize("solver", ["direct", "hedge"])
def test_weight_two_is_a_repeated_row_and_weight_zero_none(planted, solver):
    mixture, X, y, _ = planted
    counts = np.random.default_rng(0).integers(0, 3, size=100)
    weighted = ContextRouter(mixture, solver=solver, alpha=0.1).fit(X[:100], y[:100], sample_weight=counts)
    rows = np.repeat(np.arange(100), counts)
    repeated = ContextRouter(mixture, solver=solver, alpha=0.1).fit(X[rows], y[rows])
    assert weighted.objective_ == pytest.approx(repeated.objective_, abs=1e-7)
    np.testing.assert_allclose(weighted.mixture_weights(X), repeated.mixture_weights(X), atol=2e-3)


# ----------------------------------------------------------------------------------------------------------- contexts


def test_the_router_reads_more_context_than_the_mixture(planted):
    rng = np.random.default_rng(1)
    X = rng.normal(size=(200, 7))  # two columns for the mixture, two more for the router, three of difference
    y = (np.where(X[:, 2] > 0, 1, -1) * X[:, 4] > 0).astype(int)
    mixture = frozen([[4.0, 0, 0], [-4.0, 0, 0]], gate=np.zeros((2, 2)))
    router = ContextRouter(mixture).fit(X[:100], y[:100])
    assert router.n_context_features_ == 4
    assert router.score(X[100:], y[100:]) > 0.85
    explicit = ContextRouter(mixture, n_context_features=4).fit(X[:100], y[:100])
    np.testing.assert_array_equal(explicit.predict_proba(X), router.predict_proba(X))


def test_contexts_that_do_not_extend_the_mixture_s_are_errors():
    X = np.random.default_rng(0).normal(size=(10, 8))
    with pytest.raises(ValueError, match=r"X: expected at least 2 columns of context, got 1 of 4, since the last 3 "):
        ContextRouter(contextual_mixture()).fit(X[:, :4])
    with pytest.raises(ValueError, match=r"X: expected 4 columns of context, got 5 of 8, .*own context \(2 columns\)"):
        ContextRouter(contextual_mixture(), n_context_features=4).fit(X)
    with pytest.raises(
        ValueError, match=r"expected 1 columns of context, got 1 of .*must be empty or the first columns"
    ):
        ContextRouter(contextual_mixture(), n_context_features=1).partial_fit(X[:, :4], groups=["ann"] * 10)
    with pytest.raises(ValueError, match=r"one column for the difference"):
        ContextRouter(MixtureBradleyTerry(2), n_context_features=8, prefit=False).fit(X)
    router = ContextRouter(contextual_mixture()).fit(X)
    with pytest.raises(ValueError, match="X has 7 features, but ContextRouter is expecting 8 features"):
        router.predict(X[:, 1:])
    with pytest.raises(ValueError, match="X has 7 features, but ContextRouter is expecting 8 features"):
        router.partial_fit(X[:, 1:])


# --------------------------------------------------------------------------------------------- both stages, and neither


def two_tastes(n: int = 400):
    rng = np.random.default_rng(2)
    annotator = np.arange(n) // 4
    D = rng.normal(size=(n, 3))
    y = (np.where(annotator % 2 == 0, -3, 3) * D[:, 0] + rng.logistic(size=n) > 0).astype(int)
    return make_pairs(D, 0 * D, context=2 * np.eye(2)[annotator % 2]), y, annotator


@pytest.mark.parametrize("own_context", [0, 1, 2])
def test_prefit_false_is_both_stages_in_turn(own_context):
    X, y, annotator = two_tastes()
    mixture = MixtureBradleyTerry(2, n_context_features=own_context, n_init=2, random_state=0)
    whole = ContextRouter(mixture, n_context_features=2, prefit=False).fit(X, y, groups=annotator)
    assert not hasattr(mixture, "coef_")
    first = MixtureBradleyTerry(2, n_context_features=own_context, n_init=2, random_state=0)
    first.fit(np.hstack([X[:, :own_context], X[:, 2:]]), y, groups=annotator)
    second = ContextRouter(first).fit(X, y)
    np.testing.assert_array_equal(whole.predict_proba(X), second.predict_proba(X))
    without = ContextRouter(mixture, n_context_features=2, prefit=False).fit(X, y)
    assert not np.allclose(without.mixture_.coef_, whole.mixture_.coef_, atol=1e-3)


def test_prefit_false_takes_its_seed_where_the_mixture_has_none():
    X, y, annotator = two_tastes()
    model = ContextRouter(MixtureBradleyTerry(2, n_init=1), prefit=False, random_state=3)
    known = MixtureBradleyTerry(2, n_init=1, random_state=3).fit(X, y, groups=annotator)
    np.testing.assert_array_equal(model.fit(X, y, groups=annotator).mixture_.coef_, known.coef_)


@pytest.mark.parametrize("own_context", [0, 1])
def test_prefit_false_streams_both_stages(own_context):
    X, y, annotator = two_tastes()
    mixture = MixtureBradleyTerry(2, n_context_features=own_context, random_state=0)
    router = ContextRouter(clone(mixture), n_context_features=2, prefit=False)
    stage_one = np.hstack([X[:, :own_context], X[:, 2:]])
    for start in range(0, 8000, 50):
        rows = slice(start % 400, start % 400 + 50)
        router.partial_fit(X[rows], y[rows], groups=annotator[rows])
        mixture.partial_fit(stage_one[rows], y[rows], groups=annotator[rows])
    np.testing.assert_array_equal(router.mixture_.coef_, mixture.coef_)
    assert len(router.history_) == 100
    assert router.score(X, y, groups=annotator) > 0.75


def test_annotators_of_stage_one_do_not_belong_into_a_fit_of_stage_two():
    X, y, annotator = two_tastes()
    with pytest.raises(ValueError, match=r"annotators of stage 1.*partial_fit.*prefit=False"):
        ContextRouter(frozen(np.eye(3))).fit(X, y, groups=annotator)


def test_what_is_not_fitted_says_so(planted):
    _, X, y, _ = planted
    lost = ContextRouter(MixtureBradleyTerry(4))
    for action in (lambda: lost.fit(X, y), lambda: lost.partial_fit(X, y)):
        with pytest.raises(
            NotFittedError, match=r"mixture of this ContextRouter is not fitted.*FrozenEstimator.*prefit=False"
        ):
            action()
    for method in ("predict", "predict_proba", "decision_function", "mixture_weights", "log_likelihood", "rewards"):
        with pytest.raises(NotFittedError, match="ContextRouter instance is not fitted yet"):
            getattr(lost, method)(X)


def test_a_frozen_estimator_serves_as_well(planted):
    mixture, X, y, _ = planted
    router = (
        ContextRouter(FrozenEstimator(mixture))
        .fit(X[:100], y[:100])
        .partial_fit(X[100:110], y[100:110], groups=[5] * 10)
    )
    plain = ContextRouter(mixture).fit(X[:100], y[:100]).partial_fit(X[100:110], y[100:110], groups=[5] * 10)
    np.testing.assert_array_equal(router.predict_proba(X, groups=[5] * 600), plain.predict_proba(X, groups=[5] * 600))
    np.testing.assert_array_equal(router.rewards(X[:, 4:], X[:, :4]), plain.rewards(X[:, 4:], X[:, :4]))


def test_scikit_learn_sees_what_is_fitted(planted):
    mixture, X, y, _ = planted
    check_is_fitted(ContextRouter(mixture).partial_fit(X[:1], y[:1], groups=["ann"]))
    with pytest.raises(NotFittedError):
        check_is_fitted(ContextRouter(mixture))


def test_fit_forgets_users_and_labels(planted):
    mixture, X, y, _ = planted
    router = ContextRouter(mixture).partial_fit(X[:50], y[:50], groups=[7] * 50).partial_fit(X[300:], 1 - y[300:])
    router.fit(X[:100], y[:100])
    assert len(router.history_) == 0
    fresh = ContextRouter(mixture).fit(X[:100], y[:100])
    np.testing.assert_array_equal(router.predict_proba(X, groups=[7] * 600), fresh.predict_proba(X))
    for each in (router, fresh):  # nor does anything of the stream remain
        each.partial_fit(X[100:200], y[100:200])
    np.testing.assert_array_equal(router.predict_proba(X), fresh.predict_proba(X))


# ------------------------------------------------------------------------------------------------------------- streams


def test_one_label_at_a_time_comes_near_the_batch_fit(planted):
    mixture, X, y, _ = planted
    batch = ContextRouter(mixture).fit(X[:400], y[:400])
    stream = ContextRouter(mixture)
    for i in range(400):
        stream.partial_fit(X[i : i + 1], y[i : i + 1])
    assert stream.log_likelihood(X[400:], y[400:]) > batch.log_likelihood(X[400:], y[400:]) - 0.05
    assert stream.score(X[400:], y[400:]) > batch.score(X[400:], y[400:]) - 0.04
    assert batch.score(X[400:], y[400:]) > mixture.score(X[400:, 4:], y[400:]) + 0.25


@pytest.mark.parametrize("user", [None, "ann"])
@pytest.mark.parametrize("temperature", [1.0, 0.3])
def test_a_step_starts_from_the_objective_of_its_rows(planted, temperature, user):
    mixture, X, y, _ = planted
    weight = np.random.default_rng(0).uniform(0.1, 2, size=20)
    groups = None if user is None else [user] + [None] * 19
    router = ContextRouter(mixture, temperature=temperature, alpha=0.1)
    router.partial_fit(X[:20], y[:20], sample_weight=weight, groups=groups)
    rows = slice(0 if user is None else 1, 20)
    start = [np.zeros((4, 4)), np.zeros(4)]
    expected = objective_by_loops(start, mixture, X[rows], y[rows], weight[rows], temperature, 0.1)
    assert router.objective_ == pytest.approx(expected, rel=1e-10)


def test_a_stream_goes_on_from_a_fit(planted):
    mixture, X, y, _ = planted
    router = ContextRouter(mixture).fit(X[:100], y[:100])
    before = router.mixture_weights(X)
    router.partial_fit(X[100:101], y[100:101])
    assert 0 < np.abs(router.mixture_weights(X) - before).max() < 0.3


@pytest.mark.parametrize("gate", ["linear", "mlp", "knn"])
def test_rows_with_and_without_a_user_go_their_own_ways(planted, gate):
    mixture, X, y, _ = planted
    groups = [None, "ann", np.nan, "bob", -1] * 20
    known = np.array([isinstance(group, str) for group in groups])
    weight = np.random.default_rng(0).uniform(0.1, 2, size=100)
    mixed, apart = (
        ContextRouter(mixture, gate=gate, random_state=0).partial_fit(X[:9], y[:9], groups=["zoe"] * 9)
        for _ in range(2)
    )
    mixed.partial_fit(X[:100], y[:100], sample_weight=weight, groups=groups)
    users = [group for group in groups if isinstance(group, str)]
    apart.partial_fit(X[:100][known], y[:100][known], sample_weight=weight[known], groups=users)
    apart.partial_fit(X[:100][~known], y[:100][~known], sample_weight=weight[~known])
    np.testing.assert_array_equal(mixed.mixture_weights(X), apart.mixture_weights(X))
    asked = ["ann", "bob", "eve"] * 200
    np.testing.assert_array_equal(mixed.predict_proba(X, groups=asked), apart.predict_proba(X, groups=asked))
    assert len(mixed.history_) == 3


def test_rows_without_weight_teach_nothing(planted):
    mixture, X, y, _ = planted
    router = ContextRouter(mixture).fit(X[:100], y[:100])
    before = router.mixture_weights(X)
    router.partial_fit(X[:4], y[:4], sample_weight=[1, 0, 1, 0], groups=["ann", None, "ann", None])
    np.testing.assert_array_equal(router.mixture_weights(X), before)
    assert len(router.history_) == 1


def test_a_bad_batch_changes_nothing(planted):
    mixture, X, y, _ = planted
    router = ContextRouter(mixture).fit(X[:100], y[:100]).partial_fit(X[:5], y[:5], groups=["ann"] * 5)
    before = router.predict_proba(X, groups=["ann"] * 600)
    bad = X[:10].copy()
    bad[9, 6] = np.nan
    for groups in (None, ["ann"] * 10, ["ann"] * 9 + [None]):
        with pytest.raises(ValueError, match="NaN in row 9, column 6"):
            router.partial_fit(bad, y[:10], groups=groups)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        router.partial_fit(X[:10], y[:10], groups=["ann"])
    np.testing.assert_array_equal(router.predict_proba(X, groups=["ann"] * 600), before)


# --------------------------------------------------------------------------------------------------------------- users


@pytest.mark.parametrize("gate", ["linear", "knn"])
@pytest.mark.parametrize(("decay", "temperature"), [(1.0, 1.0), (0.8, 1.0), (0.8, 4.0), (1.0, 0.2)])
def test_a_user_s_weights_are_prior_times_history(planted, decay, temperature, gate):
    mixture, X, y, _ = planted
    router = ContextRouter(mixture, gate=gate, history_decay=decay, history_temperature=temperature, temperature=0.5)
    router.fit(X[:100], y[:100])
    users = [("ann", "bob")[i % 3 == 0] for i in range(20)]
    weight = np.random.default_rng(0).uniform(0.2, 2, size=20)
    for start, end in ((0, 3), (3, 20)):
        router.partial_fit(
            X[100 + start : 100 + end],
            y[100 + start : 100 + end],
            sample_weight=weight[start:end],
            groups=users[start:end],
        )
    loss = losses(mixture, X[100:120], y[100:120])
    asked = X[300:310]
    log_f = np.log(router.mixture_weights(asked))
    for user in ("ann", "bob"):
        votes = [i for i in range(20) if users[i] == user]
        log_weights = log_f.copy()
        for k in range(4):
            for age, i in enumerate(reversed(votes)):
                log_weights[:, k] -= decay**age * weight[i] * loss[i][k] / temperature
        expected = np.exp(log_weights - np.logaddexp.reduce(log_weights, axis=1)[:, None])
        np.testing.assert_allclose(router.mixture_weights(asked, groups=[user] * 10), expected, rtol=2e-5, atol=1e-12)


@settings(max_examples=20)
@given(cuts=st.lists(st.integers(0, 40), max_size=6), decay=st.sampled_from([1.0, 0.9]))
def test_the_way_votes_are_batched_does_not_matter(planted, cuts, decay):
    mixture, X, y, _ = planted
    users = np.arange(40) % 3
    whole, pieces = (ContextRouter(mixture, history_decay=decay) for _ in range(2))
    whole.partial_fit(X[:40], y[:40], groups=users)
    edges = sorted({0, 40, *cuts})
    for start, end in pairwise(edges):
        pieces.partial_fit(X[start:end], y[start:end], groups=users[start:end])
    asked = np.arange(600) % 3
    np.testing.assert_allclose(
        pieces.mixture_weights(X, groups=asked), whole.mixture_weights(X, groups=asked), atol=1e-5
    )


def test_unknown_users_get_the_prior_exactly(planted):
    mixture, X, y, _ = planted
    router = ContextRouter(mixture).fit(X[:100], y[:100]).partial_fit(X[:30], y[:30], groups=["ann"] * 30)
    prior = router.predict_proba(X)
    for groups in (["eve"] * 600, [None] * 600, np.full(600, np.nan), np.full(600, -1), np.arange(600)):
        np.testing.assert_allclose(router.predict_proba(X, groups=groups), prior, rtol=1e-12)
    some = router.predict_proba(X, groups=["ann", "eve", None] * 200)
    np.testing.assert_allclose(some[1::3], prior[1::3], rtol=1e-12)
    np.testing.assert_allclose(some[2::3], prior[2::3], rtol=1e-12)
    assert np.abs(some[::3] - prior[::3]).max() > 0.1


def test_a_user_s_votes_tell_their_taste(planted):
    mixture, X, y, topic = planted
    router = ContextRouter(mixture)
    no_context = np.hstack([0 * X[:, :4], X[:, 4:]])
    router.partial_fit(no_context[:400], y[:400], groups=topic[:400])
    assert router.score(no_context[400:], y[400:], groups=topic[400:]) > 0.8
    assert router.score(no_context[400:], y[400:]) < 0.6
    np.testing.assert_array_equal(
        router.mixture_weights(no_context[400:], groups=topic[400:]).argmax(axis=1), topic[400:]
    )


@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_five_thousand_votes_then_a_change_of_mind(scale):
    """With forgetting the change is followed; without, it is outvoted, and nothing underflows."""
    mixture = frozen(scale * np.array([[2.0, 0], [-2.0, 0], [0, 1.0]]))
    rng = np.random.default_rng(0)
    X = rng.normal(size=(5050, 2))
    signs = np.where(X[:, 0] > 0, 1, -1) * np.where(np.arange(5050) < 5000, 1, -1)
    followed = ContextRouter(mixture, history_decay=0.9)
    outvoted = ContextRouter(mixture, history_decay=1.0)
    for router in (followed, outvoted):
        router.partial_fit(X[:5000], signs[:5000], groups=["ann"] * 5000)
        assert router.mixture_weights(X[:1], groups=["ann"])[0, 0] > 0.99
        for i in range(5000, 5050):
            router.partial_fit(X[i : i + 1], signs[i : i + 1], groups=["ann"])
        weights = router.mixture_weights(X[:50], groups=["ann"] * 50)
        np.testing.assert_allclose(weights.sum(axis=1), 1)
        assert np.isfinite(router.decision_function(X[:50], groups=["ann"] * 50)).all()
    assert followed.mixture_weights(X[:1], groups=["ann"])[0, 1] > 0.99
    assert outvoted.mixture_weights(X[:1], groups=["ann"])[0, 0] > 0.99


def test_votes_weigh_what_they_weigh(planted):
    mixture, X, y, _ = planted
    weighted, repeated = ContextRouter(mixture), ContextRouter(mixture)
    weighted.partial_fit(X[:6], y[:6], sample_weight=[1, 2, 0, 3, 1, 0], groups=["ann"] * 6)
    rows = [0, 1, 1, 3, 3, 3, 4]
    repeated.partial_fit(X[rows], y[rows], groups=["ann"] * 7)
    asked = ["ann"] * 600
    np.testing.assert_allclose(
        weighted.mixture_weights(X, groups=asked), repeated.mixture_weights(X, groups=asked), rtol=1e-5
    )


def test_votes_without_weight_make_no_other_vote_older(planted):
    mixture, X, y, _ = planted
    weighted, absent = (ContextRouter(mixture, history_decay=0.5) for _ in range(2))
    weighted.partial_fit(X[:6], y[:6], sample_weight=[1, 2, 0, 3, 0, 0], groups=["ann"] * 6)
    absent.partial_fit(X[[0, 1, 3]], y[[0, 1, 3]], sample_weight=[1, 2, 3], groups=["ann"] * 3)
    asked = ["ann"] * 600
    np.testing.assert_array_equal(weighted.mixture_weights(X, groups=asked), absent.mixture_weights(X, groups=asked))


@pytest.mark.parametrize(
    "again",
    [
        [7, 8],
        (7, 8),
        np.array([7, 8], dtype=np.int8),
        np.array([7, 8], dtype=np.uint64),
        np.array([7.0, 8.0]),
        np.array([7, 8], dtype=object),
        torch.tensor([7, 8]),
    ],
    ids=lambda ids: f"{type(ids).__name__} {getattr(ids, 'dtype', '')}",
)
def test_integer_users_are_the_same_in_any_array(planted, again):
    mixture, X, y, _ = planted
    router = ContextRouter(mixture).partial_fit(X[:40], y[:40], groups=[7] * 20 + [8] * 20)
    expected = router.mixture_weights(X[:2], groups=[7, 8])
    assert np.abs(expected[0] - expected[1]).max() > 0.05
    np.testing.assert_array_equal(router.mixture_weights(X[:2], groups=again), expected)
    np.testing.assert_array_equal(router.mixture_weights(X[:1], groups=again[:1]), expected[:1])


def test_users_of_every_kind_live_together(planted):
    mixture, X, y, _ = planted
    users = ["ann", 7, "7.0", (1, "b"), ("b", 1), b"raw"]
    objects = np.empty(60, dtype=object)
    objects[:] = users * 10
    together = ContextRouter(mixture).partial_fit(X[:60], y[:60], groups=objects)
    assert len(together.history_) == 6
    for number, user in enumerate(users):
        alone = ContextRouter(mixture).partial_fit(X[number:60:6], y[number:60:6], groups=objects[number::6])
        one = np.empty(1, dtype=object)
        one[0] = user
        np.testing.assert_allclose(
            together.mixture_weights(X[:1], groups=one), alone.mixture_weights(X[:1], groups=one), rtol=1e-5
        )


def test_a_list_that_mixes_names_and_numbers_keeps_both(planted):
    mixture, X, y, _ = planted
    router = ContextRouter(mixture).partial_fit(X[:60], y[:60], groups=["ann", 7, float("nan")] * 20)
    assert sorted(router.history_.export()[0], key=str) == [7, "ann"]
    np.testing.assert_array_equal(
        router.mixture_weights(X[:2], groups=[7, "ann"])[0], router.mixture_weights(X[:1], groups=np.array([7]))[0]
    )
    small = ContextRouter(mixture).partial_fit(
        X[:60], y[:60], groups=np.tile(np.array([-100, 100, 5], dtype=np.int8), 20)
    )
    assert sorted(small.history_.export()[0]) == [-100, 5, 100]
    huge = ContextRouter(mixture).partial_fit(X[:60], y[:60], groups=np.full(60, 2**63 + 5, dtype=np.uint64))
    assert huge.history_.export()[0] == [2**63 + 5]


# --------------------------------------------------------------------------------------------------------- predictions


@pytest.fixture(scope="module")
def routed(planted):
    mixture, X, y, _ = planted
    return ContextRouter(mixture).fit(X[:100], y[:100]).partial_fit(X[:30], y[:30], groups=["ann"] * 15 + ["bob"] * 15)


@pytest.mark.parametrize("groups", [None, ["ann", "bob", "eve", None] * 150])
def test_probability_is_the_weighted_mean_over_heads(routed, planted, groups):
    _, X, _, _ = planted
    weights = routed.mixture_weights(X, groups=groups)
    p = (weights / (1 + np.exp(-X[:, 4:] @ routed.mixture_.coef_.T))).sum(axis=1)
    np.testing.assert_allclose(routed.predict_proba(X, groups=groups)[:, 1], p, rtol=1e-9)
    np.testing.assert_allclose(routed.predict_proba(X, groups=groups).sum(axis=1), 1)
    np.testing.assert_allclose(routed.decision_function(X, groups=groups), np.log(p / (1 - p)), rtol=1e-6, atol=1e-9)
    np.testing.assert_array_equal(routed.predict(X, groups=groups), (p > 0.5).astype(int))


@pytest.mark.parametrize("groups", [None, ["ann", "bob", "eve", None] * 150])
def test_swapping_responses_swaps_probabilities(routed, planted, groups):
    _, X, _, _ = planted
    swapped = swap_pairs(X, 4)
    odds = routed.decision_function(X, groups=groups)
    assert np.abs(odds).min() > 0
    np.testing.assert_array_equal(routed.decision_function(swapped, groups=groups), -odds)
    np.testing.assert_array_equal(
        routed.predict_proba(swapped, groups=groups), routed.predict_proba(X, groups=groups)[:, ::-1]
    )
    np.testing.assert_array_equal(
        routed.mixture_weights(swapped, groups=groups), routed.mixture_weights(X, groups=groups)
    )


def test_a_label_of_zero_is_the_swapped_pair(planted):
    mixture, X, y, _ = planted
    turned = np.where(y[:, None] == 1, X, swap_pairs(X, 4))
    asked = ["ann"] * 600
    labelled, unlabelled = ContextRouter(mixture), ContextRouter(mixture)
    labelled.fit(X[:100], y[:100]).partial_fit(X[:30], y[:30], groups=["ann"] * 30)
    unlabelled.fit(turned[:100]).partial_fit(turned[:30], groups=["ann"] * 30)
    np.testing.assert_allclose(
        unlabelled.predict_proba(X, groups=asked), labelled.predict_proba(X, groups=asked), rtol=1e-9
    )
    assert unlabelled.log_likelihood(turned, groups=asked) == pytest.approx(labelled.log_likelihood(X, y, groups=asked))
    assert unlabelled.score(turned, None) == pytest.approx(labelled.score(X, y))


@pytest.mark.parametrize("user", [None, "ann"])
def test_rewards_differ_by_the_weighted_margins(routed, planted, user):
    _, X, _, _ = planted
    rng = np.random.default_rng(1)
    first, second, context = rng.normal(size=(9, 4)), rng.normal(size=(9, 4)), X[:9, :4]
    groups = None if user is None else [user] * 9
    difference = routed.rewards(first, context, groups=groups) - routed.rewards(second, context, groups=groups)
    pairs = make_pairs(first, second, context=context)
    weights = routed.mixture_weights(pairs, groups=groups)
    np.testing.assert_allclose(
        difference, (weights * ((first - second) @ routed.mixture_.coef_.T)).sum(axis=1), rtol=1e-9
    )


def test_rewards_want_context_where_there_is_one(routed):
    with pytest.raises(ValueError, match=r"context: expected the 4 context features, got none; pass context="):
        routed.rewards(np.ones((2, 4)))
    with pytest.raises(ValueError, match=r"features: expected shape \(n_responses, 4\), .*, got \(2, 3\)"):
        routed.rewards(np.ones((2, 3)), np.ones((2, 4)))
    static = ContextRouter(frozen(np.eye(2), weights=[0.25, 0.75])).partial_fit(np.ones((1, 2)), groups=["ann"])
    np.testing.assert_allclose(static.rewards([[1.0, 2.0]]), [0.25 + 1.5])


@pytest.mark.parametrize("groups", [None, ["ann", "bob", "eve", None] * 150])
def test_likelihood_and_score_are_weighted_means(routed, planted, groups):
    _, X, y, _ = planted
    weight = np.random.default_rng(4).uniform(0, 2, size=600)
    p = routed.predict_proba(X, groups=groups)[np.arange(600), y]
    expected = np.average(np.log(p), weights=weight)
    assert routed.log_likelihood(X, y, sample_weight=weight, groups=groups) == pytest.approx(expected, rel=1e-9)
    assert routed.log_likelihood(X, y, groups=groups) == pytest.approx(np.log(p).mean(), rel=1e-9)
    hits = routed.predict(X, groups=groups) == y
    assert routed.score(X, y, sample_weight=weight, groups=groups) == pytest.approx(np.average(hits, weights=weight))
    assert routed.score(X, y, groups=groups) == pytest.approx(hits.mean())


@pytest.mark.parametrize(("gate", "device"), [("linear", None), ("mlp", None), ("knn", None), ("linear", "cpu")])
def test_torch_gives_what_numpy_gives(planted, gate, device):
    mixture, X, y, _ = planted
    plain = ContextRouter(mixture, gate=gate, hidden_units=8, random_state=0).fit(X[:100], y[:100])
    tensors = ContextRouter(mixture, gate=gate, hidden_units=8, random_state=0, device=device)
    T = torch.tensor(X)
    tensors.fit(X[:100] if device else T[:100], torch.tensor(y[:100]))
    groups = ["ann", None, "bob", "ann"] * 25
    for router, A in ((plain, X), (tensors, T)):
        router.partial_fit(A[100:200], y[100:200], groups=groups)
        router.partial_fit(A[200:210], y[200:210], sample_weight=np.ones(10))
    asked = ["ann", "bob", None] * 200
    found = tensors.predict_proba(T, groups=asked)
    assert isinstance(found, torch.Tensor)
    np.testing.assert_allclose(found.numpy(), plain.predict_proba(X, groups=asked), atol=1e-4)
    np.testing.assert_array_equal(tensors.predict(T, groups=asked), plain.predict(X, groups=asked))
    np.testing.assert_allclose(
        tensors.rewards(T[:, 4:], T[:, :4]).numpy(), plain.rewards(X[:, 4:], X[:, :4]), atol=1e-3
    )
    assert tensors.log_likelihood(T, y, groups=asked) == pytest.approx(
        plain.log_likelihood(X, y, groups=asked), abs=1e-5
    )


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_stored_precision_matters_little(planted, dtype):
    mixture, X, y, _ = planted
    single = X.astype(dtype)
    router = ContextRouter(mixture).fit(single[:100], y[:100]).partial_fit(single[:9], y[:9], groups=[1] * 9)
    double = ContextRouter(mixture).fit(X[:100], y[:100]).partial_fit(X[:9], y[:9], groups=[1] * 9)
    found = router.predict_proba(single, groups=[1] * 600)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, double.predict_proba(X, groups=[1] * 600), atol=0.02)


@pytest.mark.parametrize("gate", ["linear", "mlp", "knn"])
@pytest.mark.parametrize("scale", [1e-20, 1e20])
def test_contexts_of_any_size(planted, gate, scale):
    mixture, X, y, _ = planted
    scaled = np.hstack([scale * X[:, :4], X[:, 4:]]).astype(np.float32)
    router = ContextRouter(mixture, gate=gate, hidden_units=8, alpha=0.0, random_state=0).fit(scaled[:200], y[:200])
    router.partial_fit(scaled[200:300], y[200:300]).partial_fit(scaled[:20], y[:20], groups=[1] * 20)
    assert np.isfinite(router.decision_function(scaled, groups=[1] * 600)).all()
    assert router.score(scaled[300:], y[300:]) > 0.8


def test_margins_of_any_size(planted):
    mixture, X, y, _ = planted
    loud = frozen(1e4 * mixture.coef_)
    for gate in ("linear", "knn"):
        router = (
            ContextRouter(loud, gate=gate, alpha=0.1).fit(X[:100], y[:100]).partial_fit(X[:50], y[:50], groups=[1] * 50)
        )
        assert np.isfinite(router.log_likelihood(X, y, groups=[1] * 600))
        np.testing.assert_allclose(router.predict_proba(X, groups=[1] * 600).sum(axis=1), 1)


# ---------------------------------------------------------------------------------------------------- labels and errors


def test_labels_of_any_kind(planted):
    mixture, X, y, _ = planted
    reference = ContextRouter(mixture).fit(X[:100], y[:100]).partial_fit(X[100:150], y[100:150])
    for labels in (np.array([-1, 1]), np.array([False, True]), np.array(["bad", "good"])):
        router = ContextRouter(mixture).fit(X[:100], labels[y[:100]]).partial_fit(X[100:150], labels[y[100:150]])
        np.testing.assert_array_equal(router.classes_, labels)
        np.testing.assert_array_equal(router.predict(X), labels[reference.predict(X)])
        np.testing.assert_array_equal(router.predict_proba(X), reference.predict_proba(X))
        assert router.score(X, labels[y]) == reference.score(X, y)


def test_a_stream_learns_its_classes_from_the_first_call(planted):
    mixture, X, _, _ = planted
    with pytest.raises(ValueError, match=r"only one class, .*good.*classes="):
        ContextRouter(mixture).partial_fit(X[:1], ["good"])
    router = ContextRouter(mixture).partial_fit(X[:1], ["good"], classes=["bad", "good"], groups=["ann"])
    router.partial_fit(X[1:2], ["bad"], groups=["ann"])
    numbers = ContextRouter(mixture).partial_fit(X[:1], [1], groups=["ann"]).partial_fit(X[1:2], [0], groups=["ann"])
    asked = ["ann"] * 600
    np.testing.assert_array_equal(router.mixture_weights(X, groups=asked), numbers.mixture_weights(X, groups=asked))
    with pytest.raises(ValueError, match=r"as in the first call, got \['good', 'bad'\]"):
        router.partial_fit(X[2:3], ["bad"], classes=["good", "bad"])


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"temperature": 0.0}, r"temperature: expected a number in \[1e-20"),
        ({"temperature": -1}, r"temperature: expected a number in \[1e-20"),
        ({"history_temperature": 0}, r"history_temperature: expected a number in \[1e-20"),
        ({"history_decay": 0.0}, r"history_decay: expected a number in \(0.*1.*got 0.0"),
        ({"history_decay": 1.1}, r"history_decay: expected a number in \(0.*1.*got 1.1"),
        ({"alpha": -1e-3}, r"alpha: expected a number in \[0"),
        ({"alpha": np.nan}, "alpha: expected a number.*got nan"),
        ({"gate": "tree"}, "gate: expected one of 'linear', 'mlp', 'knn', 'cluster', got 'tree'"),
        ({"solver": "adam"}, "solver: expected one of 'direct', 'hedge', got 'adam'"),
        ({"hidden_units": 0}, "hidden_units: expected an integer of at least 1, got 0"),
        ({"n_iter": 0}, "n_iter: expected an integer of at least 1, got 0"),
        ({"n_neighbors": 0}, "n_neighbors: expected an integer of at least 1, got 0"),
        ({"n_neighbors": 2.5}, "n_neighbors: expected an integer of at least 1, got 2.5"),
        ({"n_context_features": -1}, "n_context_features: expected an integer of at least 0, got -1"),
    ],
)
def test_bad_parameters_are_named(planted, parameters, message):
    mixture, X, y, _ = planted
    for action in ("fit", "partial_fit"):
        with pytest.raises(ValueError, match=message):
            getattr(ContextRouter(mixture, **parameters), action)(X, y)


def test_bad_entries_are_located(planted, routed):
    mixture, X, y, _ = planted
    for column in (1, 6):
        for value, kind in ((np.nan, "NaN"), (np.inf, "infinity")):
            bad = X[:20].copy()
            bad[13, column] = value
            for gate in ("linear", "knn"):
                with pytest.raises(ValueError, match=f"{kind} in row 13, column {column}"):
                    ContextRouter(mixture, gate=gate).fit(bad, y[:20])
                with pytest.raises(ValueError, match=f"{kind} in row 13, column {column}"):
                    ContextRouter(mixture, gate=gate).partial_fit(bad, y[:20], groups=[1] * 20)
            for groups in (None, ["ann"] * 20):
                with pytest.raises(ValueError, match=f"{kind} in row 13, column {column}"):
                    routed.predict(bad, groups=groups)
    with pytest.raises(ValueError, match="y has 19"):
        ContextRouter(mixture).fit(X[:20], y[:19])
    with pytest.raises(ValueError, match=r"sample_weight: expected no negative number, got .* in row 2"):
        ContextRouter(mixture).fit(X[:3], y[:3], sample_weight=[1, 1, -1])
    with pytest.raises(ValueError, match=r"sample_weight: .* got zero in every row"):
        ContextRouter(mixture).partial_fit(X[:3], y[:3], sample_weight=[0, 0, 0])
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        routed.predict(X, groups=["ann"])
    with pytest.raises(ValueError, match="minimum of 1 is required"):
        routed.predict(X[:0])


def test_examples_run():
    failed, attempted = doctest.testmod(micropref.router)
    assert attempted > 8
    assert failed == 0


# ----------------------------------------------------------------------------------------- what a stream must not touch


def test_a_frozen_mixture_is_not_trained_by_a_stream():
    mixture, X, y, _ = random_problem(30, 0, 2, seed=1)
    before = mixture.coef_.copy()
    ContextRouter(FrozenEstimator(mixture), prefit=False).partial_fit(X, y)
    np.testing.assert_array_equal(mixture.coef_, before)


def test_a_batch_that_is_refused_teaches_neither_stage():
    _, X, y, _ = random_problem(60, 2, 2, seed=2)
    router = ContextRouter(MixtureBradleyTerry(2, random_state=0), n_context_features=2, prefit=False)
    router.partial_fit(X, y)
    before = router.mixture_.coef_.copy()
    X[3, 0] = np.nan
    with pytest.raises(ValueError, match="NaN in row 3, column 0"):
        router.partial_fit(X, y)
    np.testing.assert_array_equal(router.mixture_.coef_, before)
