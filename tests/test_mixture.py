"""MixtureBradleyTerry: what it finds, what it is invariant to, what it refuses."""

from __future__ import annotations

import doctest
import pickle
import tracemalloc
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment
from scipy.special import expit, log_expit, logsumexp, softmax
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.linear_model import LogisticRegression

from micropref import MixtureBradleyTerry, mixture
from micropref._arrays import blocks as array_blocks
from micropref._rows import comparisons
from micropref._users.stream import Stream
from micropref.pairs import swap_pairs


def small(n=40, c=2, d=3, seed=0):
    """A small table of comparisons, labels, annotators (−1: nobody) of two opinions told by context, weights."""
    rng = np.random.default_rng([seed, n, c, d])
    groups = rng.integers(-1, n // 4, size=n)
    taste = rng.normal(size=(n, 1 + c))
    taste[groups >= 0] = taste[groups[groups >= 0]]
    X = np.hstack([taste[:, 1:], rng.normal(size=(n, d))])
    side = np.sign(taste[:, -1])
    y = (side * X[:, c] + 0.5 * X[:, c + 1] + 0.3 * rng.normal(size=n) > 0).astype(int)
    return X, y, groups, rng.exponential(size=n)


def quick(n_components=2, **parameters):
    """A model whose minimum is well determined even by few rows, so that two fits of one thing can be compared."""
    defaults = {
        "n_context_features": 2,
        "n_init": 1,
        "random_state": 0,
        "alpha": 0.05,
        "gate_alpha": 0.05,
        "balance": 0.2,
    }
    return MixtureBradleyTerry(n_components, **(defaults | parameters))


def planted(n=6000, d=8, c=4, k=3, seed=0, answers=1, size=3.0):
    """Heads, a linear gate, and who answered; an annotator keeps the component of the first context."""
    rng = np.random.default_rng(seed)
    heads = rng.normal(size=(k, d)) * (size / np.sqrt(d))
    gate = rng.normal(size=(k, c)) * 3
    who = np.arange(n) // answers
    context = np.repeat(rng.normal(size=(-(-n // answers), c)), answers, axis=0)[:n]
    weights = softmax(context @ gate.T, axis=1)
    drawn = (weights.cumsum(axis=1) > rng.random(-(-n // answers))[who][:, None]).argmax(axis=1)
    difference = rng.normal(size=(n, d))
    p = expit((heads[drawn] * difference).sum(axis=1))
    return np.hstack([context, difference]), (rng.random(n) < p).astype(int), who, heads, weights


def split_population(n=4000, d=8, answers=8, seed=0):
    """Half of the annotators want the opposite of the other half, so that every pair is a coin to whoever asks one."""
    rng = np.random.default_rng(seed)
    head = rng.normal(size=d)
    head *= 3 / np.linalg.norm(head)
    who = np.arange(n) // answers
    side = rng.choice([-1, 1], size=who[-1] + 1)[who]
    X = rng.normal(size=(n, d))
    return X, (rng.random(n) < expit(side * (X @ head))).astype(int), who, head


def cosines(found, truth):
    found, truth = (np.atleast_2d(a) / np.linalg.norm(np.atleast_2d(a), axis=1, keepdims=True) for a in (found, truth))
    return found @ truth.T


def matched_cosine(found, truth):
    table = cosines(found, truth)
    return table[linear_sum_assignment(-table)].min()


def on_disk(path, X):
    mapped = np.memmap(path, dtype=X.dtype, mode="w+", shape=X.shape)
    mapped[:] = X
    mapped.flush()
    return np.memmap(path, dtype=X.dtype, mode="r", shape=X.shape)


# ------------------------------------------------------------------------------------------------------ what it finds


def test_planted_heads_and_gate_are_found():
    X, y, _, heads, weights = planted()
    model = MixtureBradleyTerry(3, n_context_features=4, alpha=1e-4, gate_alpha=1e-4, random_state=0).fit(X, y)
    table = cosines(model.coef_, heads)
    found, true = linear_sum_assignment(-table)
    assert table[found, true].min() >= 0.98
    assert np.abs(model.mixture_weights(X)[:, found] - weights[:, true]).mean() < 0.05
    assert model.converged_
    single = MixtureBradleyTerry(1, n_context_features=4, alpha=1e-4).fit(X, y)
    assert model.log_likelihood(X, y) > single.log_likelihood(X, y) + 0.05


def test_the_generators_of_these_tests_vary():
    X, y, who, heads, weights = planted(n=200, answers=4)
    assert np.unique(X[:, 4:]).size == 200 * 8
    assert len(np.unique(X[:, :4], axis=0)) == 50
    assert set(y) == {0, 1}
    assert len(set(who)) == 50
    assert np.unique(heads).size == heads.size
    assert (weights.std(axis=0) > 0.1).all()
    X, y, groups, weight = small()
    assert np.unique(X[:, 2:]).size == 40 * 3
    assert np.unique(X[:, :2]).size > 2 * 10
    assert set(y) == {0, 1}
    assert -1 in groups
    assert np.unique(weight).size == 40


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_annotators_tell_heads_apart_where_pairs_cannot(seed):
    X, y, who, head = split_population(seed=seed)
    model = MixtureBradleyTerry(2, random_state=seed)
    grouped = clone(model).fit(X, y, groups=who)
    assert matched_cosine(grouped.coef_, [head, -head]) >= 0.98
    np.testing.assert_allclose(grouped.weights_, 0.5, atol=0.06)
    alone = clone(model).fit(X, y)
    assert matched_cosine(alone.coef_, [head, -head]) < 0.7
    assert grouped.log_likelihood(X, y, groups=who) > alone.log_likelihood(X, y, groups=who) + 0.1
    shares = grouped.responsibilities(X, y, groups=who)
    assert shares.shape == (who[-1] + 1, 2)
    assert (shares.max(axis=1) > 0.9).mean() > 0.8


def test_balance_keeps_components_in_use():
    rng = np.random.default_rng(0)
    n, answers = 3000, 6
    who = np.arange(n) // answers
    side = np.where(rng.random(n // answers) < 0.85, 1, -1)[who]
    X = rng.normal(size=(n, 3))
    y = rng.random(n) < expit(side * 3 * X[:, 0])
    spread = []
    for balance in (0.0, 0.5, 5.0):
        weights = MixtureBradleyTerry(2, balance=balance, random_state=0).fit(X, y, groups=who).weights_
        spread.append(weights[0] - weights[1])
    assert spread[0] == pytest.approx(0.7, abs=0.06)
    assert spread[0] > spread[1] + 0.03 > spread[2] + 0.06


def test_a_hidden_layer_learns_what_a_linear_gate_cannot():
    rng = np.random.default_rng(0)
    context, difference = rng.normal(size=(1000, 2)), rng.normal(size=(1000, 3))
    side = np.sign(context.prod(axis=1))
    y = rng.random(1000) < expit(4 * side * difference[:, 0])
    X = np.hstack([context, difference])
    common = {"n_context_features": 2, "gate_alpha": 0.01, "n_init": 2, "random_state": 0}
    linear = MixtureBradleyTerry(2, **common).fit(X, y)
    hidden = MixtureBradleyTerry(2, gate="mlp", hidden_units=8, **common).fit(X, y)
    assert linear.score(X, y) < 0.65
    assert hidden.score(X, y) > 0.8
    assert hidden.log_likelihood(X, y) > linear.log_likelihood(X, y) + 0.2
    assert [p.shape for p in hidden.gate_parameters_] == [(8, 2), (8,), (2, 8), (2,)]


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("alpha", [1e-3, 1e-1])
def test_one_component_is_logistic_regression(alpha, weighted):
    X, y, groups, weight = small(300, 0, 5)
    weight = weight if weighted else None
    total = 300 if weight is None else weight.sum()
    theirs = LogisticRegression(C=1 / (alpha * total), fit_intercept=False, tol=1e-12, solver="newton-cholesky")
    theirs.fit(X, y, sample_weight=weight)
    for given_groups in (None, groups):
        ours = MixtureBradleyTerry(1, alpha=alpha, tol=1e-9).fit(X, y, sample_weight=weight, groups=given_groups)
        np.testing.assert_allclose(ours.coef_, theirs.coef_, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), rtol=1e-6)
        np.testing.assert_allclose(ours.decision_function(X), theirs.decision_function(X), rtol=1e-6, atol=1e-6)


def test_restarts_keep_the_best(capsys):
    X, y, who, _, _ = planted(300, 4, 2, 4, answers=3)
    model = MixtureBradleyTerry(4, alpha=0.01, tol=1e-4, verbose=1)
    values = [clone(model).set_params(n_init=n, random_state=0).fit(X[:, 2:], y, groups=who).objective_ for n in (1, 4)]
    printed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("start")]
    assert len(printed) == 5
    starts = [float(line.split("objective ")[1].split()[0]) for line in printed[1:]]
    assert max(starts) > min(starts) + 1e-3
    assert values[1] == pytest.approx(min(starts), abs=1e-6)
    assert values[0] == pytest.approx(starts[0], abs=1e-6)
    assert values[1] < values[0] - 1e-3


# -------------------------------------------------------------------------------------------------- invariances of fits

few = settings(max_examples=8)
seeds = st.integers(0, 10**6)
STRICT = {"tol": 1e-9, "max_iter": 1000}


def same_fit(a, b, tolerance=1e-5):
    assert a.objective_ == pytest.approx(b.objective_, rel=1e-9)
    for p, q in zip([a.coef_, *a.gate_parameters_], [b.coef_, *b.gate_parameters_], strict=True):
        np.testing.assert_allclose(p, q, rtol=0, atol=tolerance * max(1.0, np.abs(p).max()))
    np.testing.assert_allclose(a.weights_, b.weights_, atol=tolerance)


@few
@given(seeds, st.booleans())
def test_swapping_the_responses_swaps_the_probabilities(seed, in_groups):
    X, y, groups, _ = small(seed=seed)
    model = quick(3).fit(X, y, groups=groups if in_groups else None)
    swapped = swap_pairs(X, 2)
    np.testing.assert_allclose(model.predict_proba(swapped), model.predict_proba(X)[:, ::-1], rtol=0, atol=1e-15)
    np.testing.assert_allclose(model.decision_function(swapped), -model.decision_function(X), rtol=1e-13, atol=1e-15)
    np.testing.assert_allclose(model.component_scores(swapped), -model.component_scores(X), rtol=1e-13, atol=1e-15)
    assert np.array_equal(model.mixture_weights(swapped), model.mixture_weights(X))
    np.testing.assert_allclose(
        model.responsibilities(swapped, 1 - y, groups=groups), model.responsibilities(X, y, groups=groups), atol=1e-12
    )


@few
@given(seeds, st.booleans())
def test_a_repeated_row_is_a_row_of_weight_two(seed, in_groups):
    X, y, groups, _ = small(seed=seed)
    groups = groups if in_groups else np.full(len(X), -1)
    row = seed % len(X)
    weight = np.ones(len(X))
    weight[row] = 2
    again = [*range(len(X)), row]
    heavy = quick(**STRICT).fit(X, y, sample_weight=weight, groups=groups)
    same_fit(quick(**STRICT).fit(X[again], y[again], groups=groups[again]), heavy)
    plain = quick(**STRICT).fit(X, y, groups=groups)
    assert np.abs(plain.coef_ - heavy.coef_).max() > 1e-4


@few
@given(seeds)
def test_groups_of_one_are_no_groups(seed):
    X, y, _, _ = small(seed=seed)
    same_fit(quick(**STRICT).fit(X, y, groups=np.arange(len(X))), quick(**STRICT).fit(X, y))


@few
@given(seeds)
def test_the_order_of_rows_does_not_matter(seed):
    X, y, groups, weight = small(seed=seed)
    order = np.random.default_rng(seed).permutation(len(X))
    one = quick(**STRICT).fit(X, y, groups=groups, sample_weight=weight)
    same_fit(quick(**STRICT).fit(X[order], y[order], groups=groups[order], sample_weight=weight[order]), one)


@few
@given(seeds, st.booleans())
def test_second_preferred_is_the_swapped_pair_with_first_preferred(seed, in_groups):
    X, y, groups, weight = small(seed=seed)
    groups = groups if in_groups else None
    first = np.where((y == 1)[:, None], X, swap_pairs(X, 2))
    for learn in ("fit", "partial_fit"):
        labelled = getattr(quick(3), learn)(X, y, sample_weight=weight, groups=groups)
        unlabelled = getattr(quick(3), learn)(first, sample_weight=weight, groups=groups)
        constant = getattr(quick(3), learn)(first, np.ones(len(y)), sample_weight=weight, groups=groups)
        for other in (unlabelled, constant):
            assert other.classes_.tolist() == [0, 1]
            same_fit(other, labelled, 1e-6)


@pytest.mark.parametrize("learn", ["fit", "partial_fit"])
def test_one_pair_alone(learn):
    X, y, _, _ = small()
    models = [quick().partial_fit(X, y) for _ in range(3)]
    before = models[2].coef_.copy()
    for model, x, label in zip(models[:2], (X[:1], swap_pairs(X[:1], 2)), ([0], [1]), strict=True):
        getattr(model.set_params(n_components=2), learn)(np.vstack([x, x]), label * 2)
    np.testing.assert_allclose(models[0].coef_, models[1].coef_, rtol=0, atol=1e-12)
    assert np.abs(models[0].coef_ - before).max() > 1e-3


SPELLINGS = [
    (0, 1),
    (False, True),
    (-1, 1),
    (0.0, 1.0),
    ("it loses", "it wins"),
    (3, 8),
]


@pytest.mark.parametrize("learn", ["fit", "partial_fit"])
def test_all_spellings_of_the_labels_agree(learn):
    X, y, groups, _ = small()
    reference = getattr(quick(), learn)(X, y, groups=groups)
    for second, first in SPELLINGS:
        labels = np.array([second, first])[y]
        model = getattr(quick(), learn)(X, labels, groups=groups)
        assert np.array_equal(model.coef_, reference.coef_)
        assert model.classes_.tolist() == [second, first]
        assert np.array_equal(model.predict(X), np.array([second, first])[reference.predict(X)])
        assert model.predict(X).dtype == labels.dtype
        assert model.score(X, labels) == reference.score(X, y)
        assert model.log_likelihood(X, labels) == reference.log_likelihood(X, y)
        np.testing.assert_array_equal(model.responsibilities(X, labels), reference.responsibilities(X, y))


@pytest.mark.parametrize("in_groups", [False, True])
@pytest.mark.parametrize("gate", ["linear", "mlp"])
def test_the_same_seed_gives_the_same_bits(gate, in_groups):
    X, y, groups, weight = small(700)
    groups = groups if in_groups else None
    for learn in ("fit", "partial_fit"):
        one, two = (
            getattr(quick(3, gate=gate, hidden_units=4, max_iter=1000, random_state=5), learn)(
                X, y, sample_weight=weight, groups=groups
            )
            for _ in range(2)
        )
        for p, q in zip([one.coef_, *one.gate_parameters_], [two.coef_, *two.gate_parameters_], strict=True):
            assert np.array_equal(p, q)
        assert one.objective_ == two.objective_
        other = getattr(quick(3, gate=gate, hidden_units=4, max_iter=1000, random_state=6), learn)(X, y)
        assert not np.array_equal(other.coef_, one.coef_)


@pytest.mark.parametrize("in_groups", [False, True])
@pytest.mark.parametrize(
    ("c", "gate", "dtype"),
    [
        (0, "linear", np.float64),
        (2, "linear", np.float64),
        (2, "mlp", np.float64),
        (2, "linear", np.float32),
        (2, "mlp", np.float16),
    ],
)
def test_torch_learns_and_predicts_what_numpy_does(c, gate, dtype, in_groups):
    X, y, groups, weight = small(80, c)
    X = X.astype(dtype)
    groups = groups if in_groups else None
    tensors = (torch.tensor(X), torch.tensor(y), torch.tensor(weight), None if groups is None else torch.tensor(groups))
    tolerance = 1e-8 if dtype == np.float64 else 2e-3
    parameters = {"n_context_features": c, "gate": gate, "hidden_units": 3, "alpha": 0.1, "gate_alpha": 0.3}
    for learn in ("fit", "partial_fit"):
        ours = getattr(quick(**parameters), learn)(X, y, sample_weight=weight, groups=groups)
        theirs = getattr(quick(**parameters), learn)(
            tensors[0], tensors[1], sample_weight=tensors[2], groups=tensors[3]
        )
        assert theirs.objective_ == pytest.approx(ours.objective_, rel=tolerance)
        np.testing.assert_allclose(theirs.coef_, ours.coef_, atol=tolerance)
        assert isinstance(theirs.coef_, np.ndarray)
        precise = torch.float64 if dtype == np.float64 else torch.float32
        for name in ("predict_proba", "decision_function", "component_scores", "mixture_weights"):
            found = getattr(ours, name)(tensors[0])
            assert found.dtype == precise
            np.testing.assert_allclose(
                found.numpy(), getattr(ours, name)(X), atol=1e-12 if dtype == np.float64 else 1e-5
            )
        assert np.array_equal(ours.predict(tensors[0]), ours.predict(X))
        np.testing.assert_allclose(ours.rewards(tensors[0][:, c:]).numpy(), ours.rewards(X[:, c:]), atol=1e-5)
        np.testing.assert_allclose(
            np.asarray(ours.responsibilities(*tensors[:2], groups=tensors[3])),
            ours.responsibilities(X, y, groups=groups),
            atol=1e-12 if dtype == np.float64 else 1e-5,
        )
        assert ours.log_likelihood(*tensors) == pytest.approx(ours.log_likelihood(X, y, weight, groups), rel=1e-5)
        assert ours.score(*tensors[:2]) == ours.score(X, y)


def test_a_device_moves_arrays_to_torch(monkeypatch):
    X, y, groups, _ = small()
    seen = []
    original = comparisons.PairReader
    monkeypatch.setattr(comparisons, "PairReader", lambda rows, c: seen.append(type(rows)) or original(rows, c))
    one = quick(device="cpu").fit(X, y, groups=groups)
    assert set(seen) == {torch.Tensor}
    monkeypatch.undo()
    same_fit(one, quick().fit(X, y, groups=groups), 1e-6)
    assert isinstance(one.predict_proba(X), np.ndarray)
    np.testing.assert_allclose(
        quick(device="cpu").partial_fit(X, y, groups=groups).coef_, quick().partial_fit(X, y, groups=groups).coef_
    )


@few
@given(seeds, st.sampled_from([1e-8, 1e-3, 1e4]), st.sampled_from([1e-6, 1.0, 1e5]))
def test_other_units_give_the_same_model_in_other_units(seed, of_difference, of_context):
    X, y, groups, _ = small(seed=seed)
    scaled = X * np.array([of_context] * 2 + [of_difference] * 3)
    model = quick(2, **STRICT).fit(X, y, groups=groups)
    other = quick(2, **STRICT | {"alpha": 0.05 * of_difference**2, "gate_alpha": 0.05 * of_context**2})
    other.fit(scaled, y, groups=groups)
    assert other.objective_ == pytest.approx(model.objective_, rel=1e-9)
    np.testing.assert_allclose(other.coef_ * of_difference, model.coef_, atol=1e-5)
    np.testing.assert_allclose(other.gate_parameters_[0] * of_context, model.gate_parameters_[0], atol=1e-5)
    stream, other = quick(2, **STRICT).partial_fit(X, y), clone(other).partial_fit(scaled, y)
    np.testing.assert_allclose(other.coef_ * of_difference, stream.coef_, rtol=1e-6)


@pytest.mark.parametrize("size", [1e-20, 1e20])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("gate", ["linear", "mlp"])
@pytest.mark.parametrize("in_groups", [False, True])
def test_features_of_extreme_size(in_groups, gate, dtype, size):
    X, y, groups, _ = small(100)
    X = (X * size).astype(dtype)
    groups = groups if in_groups else None
    for alpha in (0.0, 1e-3):
        model = quick(
            alpha=alpha, gate_alpha=alpha, gate=gate, hidden_units=3, max_iter=300 if gate == "linear" else 30
        )
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.filterwarnings("ignore", "alpha=.* is so strong", UserWarning)  # beside features of 1e-20 it is
            if gate == "mlp":  # without a penalty that is felt its minimum lies at infinity
                warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(X, y, groups=groups)
            model.partial_fit(X, y, groups=groups)
            assert np.isfinite(model.predict_proba(X)).all()
            assert np.isfinite(model.log_likelihood(X, y, groups=groups))
        assert np.isfinite(model.coef_).all()
        assert np.isfinite(model.objective_)


@pytest.mark.parametrize("size", [1e-20, 1e-6, 1e-3])
def test_a_tiny_context_under_a_penalty_does_not_keep_heads_from_learning(size):
    X, y, _, _heads, _ = planted(2000, 4, 3, 2, size=4.0)
    X[:, :3] *= size
    settings = {"n_init": 1, "alpha": 1e-3, "gate_alpha": 1e-3, "random_state": 0}
    model = MixtureBradleyTerry(2, n_context_features=3, **settings).fit(X, y)
    static = MixtureBradleyTerry(2, **settings).fit(X[:, 3:], y)
    assert model.converged_
    assert model.objective_ == pytest.approx(static.objective_, abs=2e-4)


def test_margins_of_ten_thousand():
    X, y, groups, _ = small()
    for dtype in (np.float32, np.float64):
        model = quick().fit(X, y)
        model.coef_ = model.coef_ * (1e4 / np.abs(model.component_scores(X)).max())
        probabilities = model.predict_proba(X.astype(dtype))
        assert np.isfinite(probabilities).all()
        np.testing.assert_allclose(probabilities.sum(axis=1), 1.0, rtol=1e-6)
        for in_groups in (None, groups):
            value = model.log_likelihood(X.astype(dtype), 1 - y, groups=in_groups)
            assert np.isfinite(value)
            assert value < -100
            assert np.isfinite(model.responsibilities(X.astype(dtype), 1 - y, groups=in_groups)).all()
        assert np.isfinite(model.decision_function(X.astype(dtype))).all()


# ------------------------------------------------------------------------------------------------- files and their size


@pytest.mark.parametrize("in_groups", [False, True])
@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_a_file_is_as_good_as_memory(dtype, in_groups, tmp_path, monkeypatch):
    X, y, groups, _ = small(700)
    X = X.astype(dtype)
    mapped = on_disk(tmp_path / "x", X)
    groups = groups if in_groups else None
    for block_bytes in (array_blocks._BLOCK_BYTES, 1):
        monkeypatch.setattr(array_blocks, "_BLOCK_BYTES", block_bytes)
        for learn in ("fit", "partial_fit"):
            one, two = (getattr(quick(), learn)(rows, y, groups=groups) for rows in (X, mapped))
            assert np.array_equal(one.coef_, two.coef_)
            assert np.array_equal(one.weights_, two.weights_)
            for name in ("predict", "predict_proba", "component_scores", "mixture_weights"):
                assert np.array_equal(getattr(one, name)(mapped), getattr(one, name)(X))
            assert one.log_likelihood(mapped, y, groups=groups) == one.log_likelihood(X, y, groups=groups)


def test_predictions_do_not_depend_on_blocks(monkeypatch):
    X, y, _groups, _ = small(300)
    model = quick().fit(X, y)
    names = ("predict", "predict_proba", "decision_function", "component_scores", "mixture_weights")
    whole = [getattr(model, name)(X) for name in names]
    monkeypatch.setattr(array_blocks, "_BLOCK_BYTES", 1)
    for name, expected in zip(names, whole, strict=True):
        np.testing.assert_allclose(getattr(model, name)(X), expected, rtol=1e-13)


@pytest.mark.parametrize("in_groups", [False, True])
def test_memory_of_a_fit_on_a_file(in_groups, tmp_path):
    n, c, d = 150_000, 10, 190
    path = tmp_path / "x"
    mapped = np.memmap(path, dtype=np.float16, mode="w+", shape=(n, c + d))
    some = np.random.default_rng(0).normal(size=(10_000, c + d)).astype(np.float16)
    for start in range(0, n, len(some)):
        mapped[start : start + len(some)] = some
    mapped.flush()
    mapped = np.memmap(path, dtype=np.float16, mode="r", shape=(n, c + d))
    assert mapped.nbytes == 60_000_000
    groups = np.arange(n) // 5 if in_groups else None
    model = MixtureBradleyTerry(2, n_context_features=c, n_init=1, max_iter=1, random_state=0)
    with pytest.warns(ConvergenceWarning):
        clone(model).fit(mapped, groups=groups)  # what is compiled at first use is no memory of the data
    tracemalloc.start()
    try:
        with pytest.warns(ConvergenceWarning):
            model.fit(mapped, groups=groups)
        model.partial_fit(mapped[:5000], groups=None if groups is None else groups[:5000])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 40e6


# ------------------------------------------------------------------------------------------------------------- streams


def batches(n, size, seed):
    return np.array_split(np.random.default_rng(seed).permutation(n), -(-n // size))


def test_a_stream_approaches_the_full_fit():
    X, y, _, _heads, _ = planted()
    train, test = slice(0, 5000), slice(5000, None)
    full = MixtureBradleyTerry(3, n_context_features=4, random_state=0).fit(X[train], y[train])
    stream = MixtureBradleyTerry(3, n_context_features=4, random_state=0)
    first = None
    for seed in range(6):
        for rows in batches(5000, 500, seed):
            stream.partial_fit(X[rows], y[rows])
        first = stream.log_likelihood(X[test], y[test]) if first is None else first
    last = stream.log_likelihood(X[test], y[test])
    assert last > first
    assert last > full.log_likelihood(X[test], y[test]) - 0.02
    assert stream.n_iter_ == 60
    assert stream.converged_ is False


def test_evidence_of_annotators_survives_batches_that_cut_them():
    X, y, who, head = split_population(n=8000)
    found = {}
    for in_groups in (True, False):
        stream = MixtureBradleyTerry(2, random_state=0)
        for seed in range(3):
            for rows in batches(8000, 250, seed):
                stream.partial_fit(X[rows], y[rows], groups=who[rows] if in_groups else None)
        found[in_groups] = np.abs(cosines(stream.coef_, head)).max()
        sides = matched_cosine(stream.coef_, [head, -head])
        if in_groups:
            assert sides > 0.9
    assert found[True] > 0.95
    whole = MixtureBradleyTerry(2, random_state=0).fit(X, y, groups=who)
    alone = MixtureBradleyTerry(2, random_state=0)
    for seed in range(3):
        for rows in batches(8000, 250, seed):
            alone.partial_fit(X[rows], y[rows])
    grouped_value = whole.log_likelihood(X, y, groups=who)
    assert alone.log_likelihood(X, y, groups=who) < grouped_value - 0.1


def test_evidence_counts_and_is_kept_across_pickling():
    X, y, groups, weight = small(200)
    rows = [slice(0, 70), slice(70, 130), slice(130, 200)]
    whole, broken, forgetful = quick(), quick(), quick()
    for part in rows:
        whole.partial_fit(X[part], y[part], sample_weight=weight[part], groups=groups[part])
        broken = pickle.loads(pickle.dumps(broken))
        broken.partial_fit(X[part], y[part], sample_weight=weight[part], groups=groups[part])
        fresh_ids = np.where(groups[part] < 0, -1, groups[part] + 1000 * part.start)
        forgetful.partial_fit(X[part], y[part], sample_weight=weight[part], groups=fresh_ids)
    assert np.array_equal(whole.coef_, broken.coef_)
    assert np.abs(whole.coef_ - forgetful.coef_).max() > 1e-3


def test_old_evidence_fades_as_the_heads_that_it_was_taken_with():
    """Evidence of age t₀ is worth (t₀ / t)³ at age t, however often it was taken up in between."""
    streams = [Stream.create(2, fitted=None) for _ in range(2)]
    evidence = np.array([[0.0, -4.0], [-1.5, 0.0]])
    keys = ["a", "b"]
    for stream in streams:
        stream.adam.count = 3
        stream._record(keys, evidence)
        np.testing.assert_allclose(stream._recall(keys), evidence, rtol=1e-6)
    streams[1].adam.count = 5
    streams[1]._record(keys, streams[1]._recall(keys))
    for stream in streams:
        stream.adam.count = 7
        np.testing.assert_allclose(stream._recall(keys), evidence / 8, rtol=1e-6)


def test_evidence_taken_with_fitted_heads_stays():
    X, y, groups, _ = small(400)
    model = quick().fit(X, y, groups=groups)
    model.partial_fit(X[:5], y[:5], groups=["ann"] * 5)
    before = model._stream._recall(["ann"])
    for batch in np.array_split(np.arange(400), 50):
        model.partial_fit(X[batch], y[batch], groups=groups[batch])
    np.testing.assert_allclose(model._stream._recall(["ann"]), before * (1001 / 1051) ** 3, rtol=1e-5)


def test_string_and_integer_ids_are_remembered_alike():
    X, y, groups, _ = small(200)
    named = np.array([None if u < 0 else f"worker {u:03d}" for u in groups], dtype=object)
    floats = np.where(groups < 0, np.nan, groups)
    models = [quick(), quick(), quick()]
    for part in (slice(0, 90), slice(90, 200)):
        for model, ids in zip(models, (groups, named, floats), strict=True):
            model.partial_fit(X[part], y[part], groups=ids[part])
    mixed = quick().partial_fit(X[:90], y[:90], groups=groups[:90]).partial_fit(X[90:], y[90:], groups=floats[90:])
    for other in (*models[1:], mixed):
        assert np.array_equal(models[0].coef_, other.coef_)


def test_a_row_of_weight_zero_is_an_absent_row_of_a_stream():
    X, y, groups, _ = small(120)
    weight = np.ones(120)
    weight[groups < 10] = 0
    kept = weight > 0
    models = []
    for rows in (slice(None), kept):
        model = quick(gate_alpha=0.0).partial_fit(X, y, groups=groups)
        models.append(model.partial_fit(X[rows], y[rows], sample_weight=weight[rows], groups=groups[rows]))
    np.testing.assert_allclose(models[0].coef_, models[1].coef_, rtol=1e-10)
    np.testing.assert_allclose(models[0].gate_parameters_[0], models[1].gate_parameters_[0], rtol=1e-10)


def test_steps_whose_rows_all_weigh_zero_are_skipped():
    X, y, _groups, _ = small(1100)
    weight = np.ones(1100)
    weight[:512] = 0
    assert quick().partial_fit(X, y, sample_weight=weight).n_iter_ == 2
    assert quick().partial_fit(X, y).n_iter_ == 3


def test_a_step_in_which_nobody_is_grouped():
    X, y, groups, _ = small(1024)
    some = np.where(np.arange(1024) < 512, -1, groups)
    everyone = np.where(np.arange(1024) < 512, 10_000 + np.arange(1024), groups)
    one, two = quick().partial_fit(X, y, groups=some), quick().partial_fit(X, y, groups=everyone)
    np.testing.assert_allclose(one.coef_, two.coef_, rtol=1e-9)
    assert np.abs(one.coef_ - quick().partial_fit(X, y).coef_).max() > 1e-6


def test_a_stream_goes_on_after_fit():
    X, y, _, heads, _ = planted()
    model = MixtureBradleyTerry(3, n_context_features=4, random_state=0).fit(X[:3000], y[:3000])
    labels = np.where(y == 1, "yes", "no")
    before = model.coef_.copy()
    model.partial_fit(X[3000:3100], y[3000:3100])
    assert 0 < np.abs(model.coef_ - before).max() < 0.5
    for rows in batches(6000, 500, 0):
        model.partial_fit(X[rows], y[rows])
    assert matched_cosine(model.coef_, heads) > 0.95
    named = MixtureBradleyTerry(3, n_context_features=4, random_state=0).fit(X[:500], labels[:500])
    named.partial_fit(X[500:501], labels[500:501])
    assert named.classes_.tolist() == ["no", "yes"]


def test_classes_of_a_stream():
    X, y, _, _ = small()
    model = quick().partial_fit(X[:1], ["no"], classes=["no", "yes"])
    assert model.classes_.tolist() == ["no", "yes"]
    model.partial_fit(X, np.where(y == 1, "yes", "no"))
    model.partial_fit(X[:1], ["yes"], classes=["no", "yes"])
    assert set(model.predict(X)) <= {"no", "yes"}
    with pytest.raises(
        ValueError, match=r"expected classes=\['no', 'yes'\], as in the first call, got \['yes', 'no'\]"
    ):
        model.partial_fit(X[:1], ["yes"], classes=["yes", "no"])
    with pytest.raises(ValueError, match="'maybe'"):
        model.partial_fit(X[:1], ["maybe"])
    with pytest.raises(ValueError, match="cannot be known"):
        quick().partial_fit(X[:1], ["no"])
    counted = quick().partial_fit(X[:1], [1]).partial_fit(X[:1], [-1]).partial_fit(X[:1], [0])
    assert counted.classes_.tolist() == [0, 1]


def test_warm_start_begins_at_the_previous_solution():
    X, y, groups, _ = small(300)
    for gate in ("linear", "mlp"):
        model = quick(3, gate=gate, hidden_units=3, warm_start=True, max_iter=2000).fit(X, y, groups=groups)
        first, n_iter = model.objective_, model.n_iter_
        model.fit(X, y, groups=groups)
        assert n_iter > 5
        assert model.n_iter_ <= 2
        # A hidden layer has arrived once J falls by less than 1e-5 of itself.
        assert model.objective_ == pytest.approx(first, abs=1e-5 if gate == "mlp" else 1e-8)
    cold = quick(3, max_iter=2000).fit(X, y, groups=groups)
    assert cold.fit(X, y, groups=groups).n_iter_ > 5
    assert model.set_params(n_components=2).fit(X, y).coef_.shape == (2, 3)


# ------------------------------------------------------------------------------------------------------------- results


@pytest.mark.parametrize(("c", "gate"), [(0, "linear"), (2, "linear"), (2, "mlp")])
@pytest.mark.parametrize("k", [1, 2, 4])
def test_attributes(k, c, gate):
    X, y, groups, weight = small(60, c)
    model = quick(k, n_context_features=c, gate=gate, hidden_units=3, max_iter=2000)
    model.fit(X, y, sample_weight=weight, groups=groups)
    assert model.coef_.shape == (k, 3)
    assert model.weights_.shape == (k,)
    assert model.coef_.dtype == model.weights_.dtype == np.float64
    assert (np.diff(model.weights_) <= 0).all()
    assert model.weights_.sum() == pytest.approx(1.0, abs=1e-12)
    np.testing.assert_allclose(model.weights_, np.average(model.mixture_weights(X), axis=0, weights=weight), rtol=1e-9)
    assert isinstance(model.objective_, float)
    assert isinstance(model.n_iter_, int)
    assert model.n_iter_ > 0
    assert model.converged_ is True
    assert model.classes_.tolist() == [0, 1]
    assert model.n_features_in_ == c + 3
    assert model.component_scores(X).shape == model.mixture_weights(X).shape == (60, k)
    assert model.predict_proba(X).shape == (60, 2)
    assert model.decision_function(X).shape == model.predict(X).shape == (60,)
    assert model.context_log_weights(X[:, :c]).shape == (k, 60)


@pytest.mark.parametrize(("c", "gate"), [(0, "linear"), (2, "linear"), (2, "mlp")])
def test_sorting_components_changes_nothing_else(c, gate, monkeypatch):
    X, y, groups, _ = small(80, c)
    sort = MixtureBradleyTerry._sort_components
    monkeypatch.setattr(MixtureBradleyTerry, "_sort_components", lambda self: None)
    unsorted_seen = 0
    for seed in range(6):
        model = quick(4, n_context_features=c, gate=gate, hidden_units=3, max_iter=3000, random_state=seed)
        model.fit(X, y, groups=groups)
        order = np.argsort(-model.weights_, kind="stable")
        unsorted_seen += order.tolist() != [0, 1, 2, 3]
        weights, scores, p = model.mixture_weights(X), model.component_scores(X), model.predict_proba(X)
        sort(model)
        np.testing.assert_allclose(model.mixture_weights(X), weights[:, order], rtol=1e-12)
        np.testing.assert_array_equal(model.component_scores(X), scores[:, order])
        np.testing.assert_allclose(model.predict_proba(X), p, rtol=1e-12)
    assert unsorted_seen > 2


def by_formula(model, X, y, weight, groups):
    """log-likelihoods of units with their names, and posteriors, from the attributes alone."""
    c = model.n_context_features
    s = np.where(y == 1, 1, -1)
    evidence = log_expit(s[:, None] * (X[:, c:] @ model.coef_.T))
    units = [("row", i) for i in range(len(X)) if groups is None or groups[i] < 0]
    if groups is not None:
        units = [("group", u) for u in sorted(set(groups.tolist()) - {-1})] + units
    values, shares = [], []
    for kind, u in units:
        rows = [u] if kind == "row" else np.flatnonzero(groups == u)
        context = np.average(X[rows, :c], axis=0, weights=weight[rows])
        logits = context @ model.gate_parameters_[0].T + model.gate_parameters_[1]
        inner = [1.0] if kind == "row" else weight[rows]
        joint = logits - logsumexp(logits) + np.average(evidence[rows], axis=0, weights=inner) * np.sum(inner)
        values.append(logsumexp(joint) * (weight[u] if kind == "row" else 1.0))
        shares.append(softmax(joint))
    return sum(values) / weight.sum(), np.array(shares)


@pytest.mark.parametrize("in_groups", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_log_likelihood_and_responsibilities_are_the_formula(weighted, in_groups):
    X, y, groups, weight = small()
    model = quick(3).fit(X, y, groups=groups)
    X, y, groups, weight = small(seed=1)
    groups = groups if in_groups else None
    unit = np.ones(len(X))
    expected, _ = by_formula(model, X, y, weight if weighted else unit, groups)
    found = model.log_likelihood(X, y, weight if weighted else None, groups)
    assert found == pytest.approx(expected, rel=1e-12)
    _, shares = by_formula(model, X, y, unit, groups)
    np.testing.assert_allclose(model.responsibilities(X, y, groups=groups), shares, rtol=1e-10)
    np.testing.assert_allclose(shares.sum(axis=1), 1.0)


def test_responsibilities_where_nobody_is_grouped():
    X, y, _, _ = small()
    model = quick().fit(X, y)
    alone = model.responsibilities(X, y)
    assert np.array_equal(model.responsibilities(X, y, groups=np.full(len(X), -1)), alone)
    np.testing.assert_allclose(model.responsibilities(X), model.responsibilities(X, np.ones(len(X))))
    assert np.abs(model.responsibilities(X) - alone).max() > 1e-3


@pytest.mark.parametrize("balance", [0.0, 0.7])
def test_the_objective_is_the_penalised_likelihood(balance):
    X, y, groups, weight = small()
    model = quick(3, alpha=0.02, gate_alpha=0.06, balance=balance).fit(X, y, sample_weight=weight)
    expected = 0.01 * (model.coef_**2).sum() + 0.03 * (model.gate_parameters_[0] ** 2).sum()
    pi = model.mixture_weights(X)
    expected += balance * np.average((pi * np.log(pi)).sum(axis=1), weights=weight)
    assert model.objective_ == pytest.approx(expected - model.log_likelihood(X, y, weight), rel=1e-12)
    grouped = quick(3, balance=0.0, alpha=0.0, gate_alpha=0.06).fit(X, y, sample_weight=weight, groups=groups)
    penalty = 0.03 * (grouped.gate_parameters_[0] ** 2).sum()
    assert grouped.objective_ == pytest.approx(penalty - grouped.log_likelihood(X, y, weight, groups), rel=1e-12)


def test_probabilities_log_odds_and_labels():
    X, y, _, _ = small()
    model = quick(3).fit(X, y)
    first = (model.mixture_weights(X) * expit(model.component_scores(X))).sum(axis=1)
    np.testing.assert_allclose(model.predict_proba(X), np.column_stack([1 - first, first]), rtol=1e-12)
    np.testing.assert_allclose(model.decision_function(X), np.log(first) - np.log1p(-first), rtol=1e-9)
    assert np.array_equal(model.predict(X), (first > 0.5).astype(int))
    np.testing.assert_allclose(model.mixture_weights(X).sum(axis=1), 1.0, rtol=1e-12)
    np.testing.assert_allclose(np.exp(model.context_log_weights(X[:, :2])).T, model.mixture_weights(X), rtol=1e-12)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_rewards_of_single_responses(dtype):
    X, y, _, _ = small()
    model = quick(3).fit(X, y)
    first, second = (np.random.default_rng(i).normal(size=(7, 3)).astype(dtype) for i in (1, 2))
    difference = np.hstack([np.zeros((7, 2), dtype), first - second])
    rewards = model.rewards(first)
    assert rewards.shape == (7, 3)
    tolerance = {np.float16: 1e-2, np.float32: 1e-5, np.float64: 1e-12}[dtype]
    np.testing.assert_allclose(rewards - model.rewards(second), model.component_scores(difference), atol=tolerance)
    np.testing.assert_allclose(model.rewards(first.tolist()), first.astype(float) @ model.coef_.T, rtol=1e-12)
    np.testing.assert_allclose(model.rewards([[1, 2, 3]]), [[1, 2, 3]] @ model.coef_.T, rtol=1e-6)


def test_score():
    X, y, _, weight = small()
    model = quick().fit(X, y)
    right = model.predict(X) == y
    assert 0 < right.mean() < 1
    assert model.score(X, y) == pytest.approx(right.mean())
    assert model.score(X, y, sample_weight=weight) == pytest.approx(np.average(right, weights=weight))
    assert model.score(X, y, weight) != pytest.approx(model.score(X, y))
    first = np.where((y == 1)[:, None], X, swap_pairs(X, 2))
    assert model.score(first, None) == model.score(X, y)
    with pytest.raises(ValueError, match="X has 40 rows, y has 39"):
        model.score(X, y[:-1])


def test_verbose(capsys):
    X, y, _, _ = small()
    quick(n_init=2).fit(X, y)
    assert capsys.readouterr().out == ""
    quick(n_init=2, verbose=1).fit(X, y)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert lines[1].startswith("start 2 of 2: objective 0.")
    assert lines[1].endswith("iterations")
    assert lines[2] == "alpha 0.05, gate_alpha 0.05, history_temperature 1"
    model = quick(verbose=2).fit(X, y)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 + model.n_iter_
    assert lines[0].startswith("  objective 0.")


def test_too_few_iterations_are_a_warning():
    X, y, _, _ = small(200)
    with pytest.warns(ConvergenceWarning, match=r"stopped after 2 iterations.*tol=1e-05.*Increase max_iter"):
        model = quick(max_iter=2).fit(X, y)
    assert model.converged_ is False
    assert model.n_iter_ == 2
    assert quick().fit(X, y).n_iter_ > 2


def test_a_tie_is_two_half_rows():
    X, y, _, _ = small()
    tied = quick(1).fit(np.vstack([X[:1], X[:1], X[1:]]), [1, 0, *y[1:]], sample_weight=[0.5, 0.5] + [1] * 39)
    assert tied.log_likelihood(X[[0, 0]], [1, 0], sample_weight=[0.5, 0.5]) <= np.log(0.5)


# ----------------------------------------------------------------------------------------------------------- bad input


def in_numpy(X, _):
    return X


def in_torch(X, _):
    return torch.tensor(X)


def in_a_file(X, tmp_path):
    return on_disk(tmp_path / "bad", X)


METHODS = ["fit", "partial_fit", "predict", "predict_proba", "decision_function", "component_scores", "mixture_weights"]
METHODS += ["responsibilities", "log_likelihood", "score"]


@pytest.mark.parametrize("hold", [in_numpy, in_torch, in_a_file])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_entries_that_are_not_finite_are_named(dtype, method, hold, tmp_path, monkeypatch):
    monkeypatch.setattr(array_blocks, "_BLOCK_BYTES", 1)
    X, y, _groups, _ = small(150)
    X = X.astype(dtype)
    model = quick().fit(X, y)
    learns = method in ("fit", "partial_fit")
    for bad, name in ((np.nan, "NaN"), (np.inf, "infinity"), (-np.inf, "infinity")):
        for column in (1, 4):
            broken = X.copy()
            broken[131, column] = bad
            broken[140, 3] = np.nan if name == "infinity" else -bad
            arguments = (hold(broken, tmp_path),) + ((y,) if learns or method == "score" else ())
            with pytest.raises(ValueError, match=f"NaN or infinity: {name} in row 131, column {column}$"):
                getattr(clone(model) if learns else model, method)(*arguments)


def test_infinities_of_both_signs_and_sums_that_overflow():
    X, y, groups, _ = small()
    model = quick().fit(X, y, groups=groups)
    X[3, 1], X[5, 1] = np.inf, -np.inf
    with pytest.raises(ValueError, match="infinity in row 3, column 1"):
        model.predict(X)
    with pytest.raises(ValueError, match="infinity in row 3, column 1"):
        model.responsibilities(X, y, groups=groups)
    large = np.full((4, 5), 3e38, dtype=np.float32)
    model.coef_ = model.coef_ * 1e-30
    model.gate_parameters_[0] = model.gate_parameters_[0] * 1e-38
    assert np.isfinite(model.predict_proba(large)).all()


@pytest.mark.parametrize("hold", [in_numpy, in_torch])
def test_a_wrong_width(hold, tmp_path):
    X, y, _groups, _ = small()
    model = quick().fit(X, y)
    for method in METHODS[1:]:
        arguments = (hold(X[:, :4], tmp_path),) + ((y,) if method in ("partial_fit", "score") else ())
        with pytest.raises(ValueError, match="X has 4 features, but MixtureBradleyTerry is expecting 5 features"):
            getattr(model, method)(*arguments)
    for features in (X, X[0, 2:], X[:, :2]):
        with pytest.raises(ValueError, match=r"features: expected shape \(n_responses, 3\)"):
            model.rewards(hold(features, tmp_path))


NAMED_ERRORS = [
    ("fewer rows than components", lambda X, y: (X[:2], y[:2]), {}, "n_components=3.*, got n_samples=2"),
    ("no rows", lambda X, y: (X[:0], y[:0]), {}, "0 sample"),
    ("equal features", lambda X, y: (X * [1, 1, 0, 0, 0], y), {}, "every difference is zero"),
    ("one dimension", lambda X, y: (X[0], y), {}, "2D array"),
    ("labels too short", lambda X, y: (X, y[:-1]), {}, "X has 40 rows, y has 39"),
    ("three labels", lambda X, y: (X, np.arange(40) % 3), {}, "got 3 different labels"),
    ("a lone string", lambda X, y: (X, ["yes"] * 40), {}, "only one class, .*'yes'.*cannot be known"),
    ("groups too short", lambda X, y: (X, y), {"groups": [1, 2]}, r"inconsistent numbers of samples: \[40, 2\]"),
    ("groups in columns", lambda X, y: (X, y), {"groups": np.ones((40, 1))}, r"expected shape \(n_samples,\)"),
    (
        "weights too short",
        lambda X, y: (X, y),
        {"sample_weight": [1.0]},
        r"sample_weight.shape == \(1,\), expected \(40,\)",
    ),
    (
        "negative weights",
        lambda X, y: (X, y),
        {"sample_weight": [1] * 39 + [-2]},
        r"no negative number, got -2\.0 in row 39",
    ),
    ("zero weights", lambda X, y: (X, y), {"sample_weight": np.zeros(40)}, "zero in every row"),
    ("NaN weights", lambda X, y: (X, y), {"sample_weight": [1] * 39 + [np.nan]}, "NaN or infinity in row 39"),
]


@pytest.mark.parametrize("hold", [in_numpy, in_torch])
@pytest.mark.parametrize(("what", "change", "arguments", "message"), NAMED_ERRORS, ids=[e[0] for e in NAMED_ERRORS])
def test_bad_data(what, change, arguments, message, hold, tmp_path):
    X, y = change(*small()[:2])
    X = hold(X, tmp_path)
    message = {"no rows": "0 sample|minimum of 1 row", "one dimension": "2D array"}.get(what, message)
    for learn in ("fit", "partial_fit"):
        if what == "fewer rows than components" and learn == "partial_fit":
            getattr(quick(3), learn)(X, y)
            continue
        with pytest.raises(ValueError, match=message):
            getattr(quick(3), learn)(X, y, **arguments)


@pytest.mark.parametrize("seen", ["nothing", "fit"])
def test_a_stream_of_equal_responses(seen):
    X, y, _, _ = small()
    model = quick().fit(X, y) if seen == "fit" else quick()
    zero = X * [1, 1, 0, 0, 0]
    with pytest.raises(ValueError, match="every difference is zero"):
        model.partial_fit(zero[:1], y[:1])
    model.partial_fit(X, y).partial_fit(zero[:1], y[:1])
    assert np.isfinite(model.coef_).all()


BAD_PARAMETERS = [
    ("n_components", 0, "integer of at least 1, got 0"),
    ("n_components", 2.0, "integer of at least 1, got 2.0"),
    ("n_components", True, "integer of at least 1, got True"),
    ("n_context_features", -1, "integer of at least 0, got -1"),
    ("n_context_features", 5, "=5 and X with 5 feature"),
    ("n_context_features", 9, "=9 and X with 5 feature"),
    ("hidden_units", 0, "integer of at least 1, got 0"),
    ("max_iter", 0, "integer of at least 1, got 0"),
    ("max_iter", "many", "integer of at least 1, got 'many'"),
    ("n_init", 0, "integer of at least 1, got 0"),
    ("alpha", -1e-9, "number in .0, 1e.20. or 'auto', got -1e-09"),
    ("alpha", np.nan, "number in .0, 1e.20. or 'auto', got nan"),
    ("alpha", None, "number in .0, 1e.20. or 'auto', got None"),
    ("gate_alpha", np.inf, "number in .0, 1e.20. or 'auto', got inf"),
    ("balance", -0.5, "number in .0, 1e.10., got -0.5"),
    ("tol", 0.0, r"number in \(0, 1.79769e.308., got 0.0"),
    ("gate", "knn", "one of 'linear', 'mlp', got 'knn'"),
]


@pytest.mark.parametrize("learn", ["fit", "partial_fit"])
@pytest.mark.parametrize(("name", "value", "message"), BAD_PARAMETERS)
def test_bad_parameters(name, value, message, learn):
    X, y, _, _ = small()
    with pytest.raises(ValueError, match=f"{name}.*{message}"):
        getattr(quick(**{name: value}) if name != "n_components" else quick(value), learn)(X, y)


@pytest.mark.parametrize("method", ["rewards", *METHODS[2:]])
def test_nothing_is_predicted_before_learning(method):
    X, y, _, _ = small()
    with pytest.raises(NotFittedError):
        getattr(quick(), method)(X, *((y,) if method == "score" else ()))


def test_a_bad_batch_leaves_the_stream_as_it_was():
    X, y, groups, weight = small(100)
    half = slice(0, 50)
    broken = X.copy()
    broken[7, 3] = np.nan
    model, twin = (quick().partial_fit(X[half], y[half], groups=groups[half]) for _ in range(2))
    for arguments in (
        {"X": broken, "y": y},
        {"X": X[:, :4], "y": y},
        {"X": X, "y": y[:3]},
        {"X": X, "y": np.arange(100)},
        {"X": X, "y": y, "groups": groups[:3]},
        {"X": X, "y": y, "sample_weight": -weight},
        {"X": X, "y": y, "classes": [1, 2]},
    ):
        with pytest.raises(ValueError):
            model.partial_fit(**arguments)
    for one in (model, twin):
        one.partial_fit(X[50:], y[50:], groups=groups[50:])
    assert np.array_equal(model.coef_, twin.coef_)
    assert np.array_equal(model.predict(X), twin.predict(X))


def test_examples_in_the_documentation():
    found = doctest.testmod(mixture)
    assert found.attempted >= 8
    assert not found.failed
