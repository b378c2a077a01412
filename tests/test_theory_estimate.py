"""The terms for one's own data: scores, intervals, refusals; and the test of one reward against several."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import binom

from micropref import MixtureBradleyTerry
from micropref.theory import _estimate, _refit, error_decomposition, estimate_irreducible_error, single_reward_test
from micropref.theory._units import Model, SortedRows


def world(seed, n=1500, d=4, k=2, per_group=5, context=0):
    """Planted heads; with a context the weights of two components depend on its first column."""
    rng = np.random.default_rng(seed)
    heads = 1.5 * rng.normal(size=(k, d))
    difference, contexts = rng.normal(size=(n, d)), rng.normal(size=(n, context))
    groups = np.arange(n) // per_group
    contexts = contexts[groups]
    z = rng.integers(0, k, n)[groups]
    if context:
        z = (rng.random(n)[groups] < expit(2 * contexts[:, 0])).astype(int)
    y = (rng.random(n) < expit((difference * heads[z]).sum(axis=1))).astype(int)
    return np.hstack([contexts, difference]), y, groups, expit(difference @ heads.T)


def fitted(X, y, groups, k=2, **options):
    return MixtureBradleyTerry(k, alpha=1e-5, random_state=0, n_init=2, **options).fit(X, y, groups=groups)


@pytest.mark.parametrize("context", [0, 3])
def test_scores_are_the_gradient_of_the_fitted_likelihood(context):
    """Mixed rows: groups, ungrouped rows, weights; against finite differences of the estimator's own likelihood."""
    X, y, groups, _ = world(0, n=60, context=context)
    groups = np.where(np.arange(60) % 7 == 0, -1, groups)
    weight = np.random.default_rng(1).uniform(0.5, 2, 60)
    weight[5] = 0
    estimator = fitted(X, y, groups, n_context_features=context)
    rng = np.random.default_rng(2)
    estimator.coef_ = estimator.coef_ + 0.3 * rng.normal(size=estimator.coef_.shape)  # away from the optimum
    data, model = SortedRows.create(estimator, X, y, groups, weight), Model.of(estimator)
    scores = np.concatenate([model.unit_scores(data, rows) for rows in data.blocks()])
    total = (data.outer[:, None] * scores).sum(axis=0) / weight.sum()
    parameters = [estimator.coef_, *estimator.gate_parameters_]
    numeric = []
    for array in parameters:
        for place in np.ndindex(array.shape):
            value, sides = array[place], []
            for step in (1e-5, -1e-5):
                array[place] = value + step
                sides.append(estimator.log_likelihood(X, y, weight, groups))
            array[place] = value
            numeric.append((sides[0] - sides[1]) / 2e-5)
    assert np.abs(numeric).max() > 0.01
    np.testing.assert_allclose(total, numeric, atol=1e-8)
    mean = (data.outer * model.unit_log_likelihood(data)).sum() / weight.sum()
    assert mean == pytest.approx(estimator.log_likelihood(X, y, weight, groups), abs=1e-12)


def test_blocks_never_cut_a_unit():
    X, y, groups, _ = world(0, n=9000, per_group=900)
    data = SortedRows.create(fitted(X[:900], y[:900], np.arange(900) // 5), X, y, groups, None)
    blocks = data.blocks()
    assert len(blocks) > 2
    assert [block.start for block in blocks[1:]] == [block.stop for block in blocks[:-1]]
    assert all(data.unit[block.start] != data.unit[block.start - 1] for block in blocks[1:])


@pytest.mark.parametrize("context", [0, 2])
def test_a_planted_value_is_found(context):
    X, y, groups, probs = world(3, n=3000, context=context)
    estimator = fitted(X, y, groups, n_context_features=context)
    found = estimate_irreducible_error(estimator, X, y, groups)
    first = expit(2 * X[:, :1]) if context else np.full((len(X), 1), 0.5)
    truth = error_decomposition(np.hstack([1 - first, first]), probs, features=X[:, context:])
    for name in ("label_noise", "group_information", "misspecification", "cross_entropy"):
        low, high = getattr(found, f"{name}_interval")
        assert low <= getattr(found, name) <= high
        # Three half-widths: the benchmark counts how often one is enough.
        assert abs(getattr(truth, name) - getattr(found, name)) < 3 * (high - low) / 2
        assert high - low < 0.2
    total = found.label_noise + found.group_information + found.misspecification
    assert total == pytest.approx(found.cross_entropy, abs=1e-9)
    assert (found.n_rows, found.n_groups) == (3000, 600)
    assert "Knowing which group answers gains at most" in found.advice


def test_the_estimate_before_correction_is_the_decomposition(monkeypatch):
    """Draws and refits that move nothing: all intervals close around the plug-in value."""
    X, y, groups, _ = world(4)
    estimator = fitted(X, y, groups)
    zeros = np.zeros((200, estimator.coef_.size + 2))
    monkeypatch.setattr(_estimate, "_one_step_bootstrap", lambda *_: (np.eye(zeros.shape[1]), zeros))
    monkeypatch.setattr(_estimate, "refitted", lambda *_: zeros[:50])
    found = estimate_irreducible_error(estimator, X, y, groups)
    plug_in = error_decomposition(estimator.mixture_weights(X), expit(estimator.component_scores(X)), features=X)
    for name in ("label_noise", "group_information", "misspecification", "cross_entropy"):
        value = getattr(plug_in, name)
        assert getattr(found, name) == pytest.approx(value, abs=1e-6)
        assert getattr(found, f"{name}_interval") == pytest.approx((value, value), abs=1e-6)


def test_the_correction_and_the_ends_of_the_interval(monkeypatch):
    """Draws give the spread, refits the bias; they are skewed: the long tail becomes the lower end."""
    X, y, groups, _ = world(4, n=100)
    rng = np.random.default_rng(0)
    change = rng.exponential(0.1, size=200)
    refit = change[:50] + 0.02 + 0.001 * rng.normal(size=50)
    values = np.stack([np.concatenate([[base], base + change, base + refit]) for base in (0.3, 0.5, 0.7)])
    monkeypatch.setattr(_estimate, "_terms", lambda *_: values)
    found = estimate_irreducible_error(fitted(X, y, groups), X, y, groups)
    bias = change.mean() + (refit - change[:50]).mean()
    assert bias == pytest.approx(change.mean() + 0.02, abs=1e-3)
    low, high = np.quantile(change, [0.025, 0.975]) - change.mean()
    assert found.group_information == pytest.approx(0.5 - bias)
    assert found.group_information_interval == pytest.approx((0.5 - bias - high, 0.5 - bias - low))
    assert found.label_noise == pytest.approx(0.3 - bias)
    assert found.misspecification == pytest.approx(0.7 - bias)
    assert found.cross_entropy == pytest.approx(1.5 - 3 * bias)


def mixed_rows(n=80):
    """A fit with contexts, groups, ungrouped rows, weights and penalties, and weights of its units."""
    X, y, groups, _ = world(0, n=n, context=2)
    groups = np.where(np.arange(n) % 3 == 0, -1, groups)
    weight = np.random.default_rng(1).uniform(0.5, 3, n)
    estimator = fitted(X, y, groups, n_context_features=2)
    estimator.alpha_, estimator.gate_alpha_ = 0.3, 0.7
    data, model = SortedRows.create(estimator, X, y, groups, weight), Model.of(estimator)
    multiplicity = np.random.default_rng(5).exponential(size=(data.n_units, 3))
    return data, model, multiplicity / multiplicity.mean(axis=0)


def test_one_step_of_the_bootstrap():
    """Against the dense formula, unit by unit, with groups, ungrouped rows, weights and penalties."""
    data, model, multiplicity = mixed_rows()
    information, draws = _estimate._one_step_bootstrap(model, data, multiplicity)
    (rows,) = data.blocks()
    scores = model.unit_scores(data, rows)
    heads, gates = model.coef.size, model.gate.size
    expected = data.weight.sum() * np.diag([0.3] * heads + [0.7] * gates + [0.0] * 2)
    change = np.zeros((len(expected), 3))
    for u, score in enumerate(scores):
        expected += data.outer[u] * np.outer(score, score)
        change += data.outer[u] * np.outer(score, multiplicity[u] - 1)
    np.testing.assert_allclose(information, expected, rtol=1e-6, atol=1e-6)
    expected_draws = np.linalg.pinv(expected, rcond=1e-12) @ change
    assert np.abs(expected_draws).max() > 0.01
    np.testing.assert_allclose(draws.T, expected_draws, rtol=1e-4, atol=1e-6)
    assert len(set(data.outer)) > 10


def test_the_objective_of_a_refit_is_the_weighted_likelihood():
    """Values and gradients unit by unit, against those of the model itself at other parameters."""
    data, model, multiplicity = mixed_rows()
    theta = model.parameters + 0.3 * np.random.default_rng(0).normal(size=(3, len(model.parameters)))
    value, gradient = _refit._objective(model, theta, data, multiplicity)
    k, d, c = *model.coef.shape, model.gate.shape[1]
    for b in range(3):
        gate = theta[b, k * d : k * (d + c)].reshape(k, c)
        other = replace(model, coef=theta[b, : k * d].reshape(k, d), gate=gate, offset=theta[b, k * (d + c) :])
        counted = multiplicity[:, b] * data.outer
        penalty = model.penalties * data.weight.sum()
        expected = counted @ other.unit_log_likelihood(data) - 0.5 * penalty @ theta[b] ** 2
        assert value[b] == pytest.approx(expected, rel=1e-12)
        scores = np.concatenate([other.unit_scores(data, rows) for rows in data.blocks()])
        np.testing.assert_allclose(gradient[b], counted @ scores - penalty * theta[b], atol=1e-9)


def test_a_refit_is_the_fit_to_the_weighted_rows():
    """Whole groups with integer multiplicities, against the estimator on rows that are repeated as whole groups."""
    X, y, groups, _ = world(1, n=600)
    estimator = fitted(X, y, groups, tol=1e-9, max_iter=2000)
    data, model = SortedRows.create(estimator, X, y, groups, None), Model.of(estimator)
    times = np.random.default_rng(0).poisson(1, size=data.n_units)
    times[:2] += data.n_units - times.sum() if times.sum() < data.n_units else 0
    multiplicity = times[:, None] * data.n_units / times.sum()
    information, (one_step,) = _estimate._one_step_bootstrap(model, data, multiplicity)
    (change,) = _refit.refitted(model, data, multiplicity, information)
    rows = np.concatenate([np.tile(np.flatnonzero(groups == u), times[u]) for u in range(data.n_units)])
    copies = np.concatenate([np.repeat(np.arange(times[u]) * 1000 + u, 5) for u in range(data.n_units)])
    again = fitted(X[rows], y[rows], copies, tol=1e-9, max_iter=2000)
    order = np.argsort(((again.coef_[:, None] - estimator.coef_) ** 2).sum(axis=2), axis=0)[0]
    truth = (again.coef_[order] - estimator.coef_).ravel()
    found, before = change[: truth.size], one_step[: truth.size]
    assert np.abs(truth).max() > 0.1
    assert np.abs(found - truth).max() < 0.02
    assert np.abs(before - truth).max() > 5 * np.abs(found - truth).max()  # a single step is not enough


@pytest.mark.slow
def test_intervals_cover_the_planted_truth():
    """In 400 worlds each 95 % interval covers as often as coins of 0.95 do but once in a thousand times."""
    names = ("label_noise", "group_information", "misspecification", "cross_entropy")
    covered = []
    for seed in range(400):
        X, y, groups, probs = world(seed, n=900)
        truth = error_decomposition([0.5, 0.5], probs, features=X)
        found = estimate_irreducible_error(fitted(X, y, groups), X, y, groups)
        ends = [getattr(found, f"{name}_interval") for name in names]
        covered.append([low <= getattr(truth, name) <= high for name, (low, high) in zip(names, ends, strict=True)])
    counts = dict(zip(names, np.sum(covered, axis=0).tolist(), strict=True))
    assert min(counts.values()) >= binom.ppf(0.001, 400, 0.95), counts
    assert max(counts.values()) < 400, counts  # an interval that covers always is too wide to be of use


def test_misspecification_of_a_draw_is_that_of_its_own_best_reward():
    X, y, groups, _ = world(3, n=600)
    estimator = fitted(X, y, groups)
    data, model = SortedRows.create(estimator, X, y, groups, None), Model.of(estimator)
    draws = 0.1 * np.random.default_rng(0).normal(size=(4, len(model.penalties)))
    terms = _estimate._terms(model, draws, data, alpha=0.0)
    weights, probs = model.at(draws, data, slice(0, 600))
    for b in range(5):
        parts = error_decomposition(weights[b], probs[b], features=data.difference)
        assert terms[0, b] == pytest.approx(parts.label_noise, abs=1e-12)
        assert terms[1, b] == pytest.approx(parts.group_information, abs=1e-12)
        assert terms[2, b] == pytest.approx(parts.misspecification, abs=2e-5)
    first = (weights[0] * probs[0]).sum(axis=1)
    held = expit(data.difference @ _estimate.best_single_reward(data.difference, first, np.full(600, 1 / 600)))
    stale = [error_decomposition(weights[b], probs[b], held).misspecification - terms[2, b] for b in range(1, 5)]
    assert max(stale) > 2e-4  # without the step the tolerance above would be missed


def test_a_row_of_weight_zero_is_no_row():
    X, y, groups, _ = world(5, n=500)
    estimator = fitted(X, y, groups)
    weight = np.ones(500)
    weight[:5], weight[207] = 0, 0  # a whole group, and one row of another
    kept = weight > 0
    with_zeros = estimate_irreducible_error(estimator, X, y, groups, weight)
    assert with_zeros == estimate_irreducible_error(estimator, X[kept], y[kept], groups[kept])
    assert (with_zeros.n_rows, with_zeros.n_groups) == (494, 99)


def test_order_of_rows_does_not_matter_and_draws_are_seeded():
    X, y, groups, _ = world(5, n=500)
    estimator = fitted(X, y, groups)
    found = estimate_irreducible_error(estimator, X, y, groups)
    assert estimate_irreducible_error(estimator, X, y, groups) == found
    order = np.random.default_rng(0).permutation(500)
    shuffled = estimate_irreducible_error(estimator, X[order], y[order], groups[order])
    assert shuffled.group_information == pytest.approx(found.group_information, abs=1e-9)
    assert estimate_irreducible_error(estimator, X, y, groups, random_state=1) != found


def test_one_component_has_no_group_information():
    X, y, groups, _ = world(6, n=400)
    found = estimate_irreducible_error(fitted(X, y, groups, k=1), X, y)
    assert found.group_information_interval == (0.0, 0.0)
    assert found.advice.startswith("The data do not show that groups disagree")


def test_a_flat_likelihood_is_refused():
    X, y, _, _ = world(7, k=1)
    estimator = MixtureBradleyTerry(2, alpha=1e-3, random_state=0).fit(X, y)
    with pytest.raises(ValueError, match="expected data that identify the groups, got no group with two comparisons"):
        estimate_irreducible_error(estimator, X, y)


def test_a_curved_likelihood_needs_no_groups():
    rng = np.random.default_rng(0)
    X = 6 * rng.normal(size=(4000, 2))
    z = rng.integers(0, 2, 4000)
    y = (rng.random(4000) < expit(np.where(z, X[:, 0], X[:, 1]))).astype(int)
    estimator = MixtureBradleyTerry(2, alpha=1e-5, random_state=0).fit(X, y)
    found = estimate_irreducible_error(estimator, X, y)
    truth = error_decomposition([0.5, 0.5], expit(X[:, ::-1]), np.full(4000, 0.5))
    assert found.group_information == pytest.approx(truth.group_information, abs=0.05)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_bootstrap": 5}, "n_bootstrap: expected an integer of at least 20, got 5"),
        ({"X": np.zeros((400, 7))}, "X has 7 features, but .* is expecting 4 features"),
        ({"balance": 0.5}, "balance=0, got gate='linear', balance=0.5"),
    ],
)
def test_bad_input(change, message):
    X, y, groups, _ = world(8, n=400)
    estimator = fitted(X, y, groups, balance=change.pop("balance", 0.0))
    with pytest.raises(ValueError, match=message):
        estimate_irreducible_error(estimator, change.pop("X", X), y, groups, **change)


# ------------------------------------------------------------------------------------------- one reward or several


def test_several_tastes_are_noticed_and_one_is_not_split():
    estimator = MixtureBradleyTerry(2, random_state=0, n_init=2)
    X, y, groups, _ = world(2, n=2000)
    several = single_reward_test(estimator, X, y, groups)
    assert several.p_value < 0.001
    assert several.gain > 0.01
    assert several.log_evidence > 7
    assert several.n_groups == 400
    assert not hasattr(estimator, "coef_")
    X, y, groups, _ = world(2, k=1)
    one = single_reward_test(estimator, X, y, groups)
    assert one.p_value > 0.05
    assert one.gain < 0.01


def test_the_evidence_from_its_definition():
    """Both halves by hand, the single reward by scikit-learn without penalty."""
    from sklearn.linear_model import LogisticRegression

    estimator = MixtureBradleyTerry(2, random_state=0, n_init=2)
    X, y, groups, _ = world(3, n=400)
    half = np.isin(groups, np.random.RandomState(0).permutation(80)[:40])
    evidence = []
    for train in (half, ~half):
        mixture = MixtureBradleyTerry(2, random_state=0, n_init=2).fit(X[train], y[train], groups=groups[train])
        single = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-10, max_iter=10_000).fit(X[~train], y[~train])
        of_single = np.log(single.predict_proba(X[~train])[np.arange((~train).sum()), y[~train]]).mean()
        of_mixture = mixture.log_likelihood(X[~train], y[~train], groups=groups[~train])
        evidence.append(np.exp(200 * (of_mixture - of_single)))
    found = single_reward_test(estimator, X, y, groups)
    assert found.log_evidence == pytest.approx(np.log(np.mean(evidence)), abs=1e-4)
    assert found.p_value == pytest.approx(min(1, 1 / np.mean(evidence)), abs=1e-4)


def test_size_in_a_small_simulation():
    """At most 5 % are called several, whatever the penalty and however few the rows; see benchmarks/bench_theory.py."""
    estimator = MixtureBradleyTerry(2, random_state=0, n_init=1)
    found = [single_reward_test(estimator, *world(seed, n=200, d=2, k=1)[:3]) for seed in range(40)]
    assert sum(test.p_value < 0.05 for test in found) <= 4
    evidence = [test.log_evidence for test in found]
    assert np.mean(np.exp(evidence)) <= 1  # an e-value; its logarithm varies
    assert np.std(evidence) > 0.1


def decaying(seed, k, n, d=768, scale=4.0):
    """Differences whose variance falls along their axes, as those of embeddings do; k equal groups of five answers."""
    rng = np.random.default_rng(seed)
    variance = 1.0 / np.arange(1, d + 1) ** 2
    difference = rng.normal(size=(n, d)) * np.sqrt(variance / variance.sum())
    heads = scale * rng.normal(size=(k, d))
    groups = np.arange(n) // 5
    z = rng.integers(0, k, n)[groups]
    return difference, (rng.random(n) < expit((difference * heads[z]).sum(axis=1))).astype(int), groups


def test_many_features_leave_no_power_and_the_test_says_so():
    """150 features and 300 comparisons in a half: two groups are worth 0.08 nats, and p is 1."""
    X, y, groups = decaying(0, k=2, n=600, d=150)
    estimator = MixtureBradleyTerry(2, alpha=1e-3, random_state=0, n_init=1)
    with pytest.warns(
        UserWarning, match="got 600 comparisons and 150 features: it can only notice a gain of 0."
    ) as said:
        found = single_reward_test(estimator, X, y, groups)
    assert found.p_value == 1
    assert found.gain > 0.03
    assert "does not show that one reward is enough; with the gain of 0.0" in str(said[0].message)
    assert "it takes about 10,000 comparisons" in str(said[0].message)
    assert said[0].filename == __file__
    assert found.needed_gain > 0.3
    assert not found.has_power
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        few = single_reward_test(estimator, *world(2, n=2000)[:3])
    assert few.has_power


def test_the_needed_gain_is_where_the_evidence_is_enough():
    """Halves of n rows: log 20 = n × needed gain − price, and evidence = n × gain − price."""
    X, y, groups, _ = world(2, n=2000)
    found = single_reward_test(MixtureBradleyTerry(2, random_state=0, n_init=2), X, y, groups)
    # The mean of the two evidences in logarithms is below the logarithm of their mean, by log 2 at most apart.
    expected = 1000 * (found.gain - found.needed_gain) + np.log(20)
    assert expected <= found.log_evidence + 1e-9
    assert 0.002 < found.needed_gain < 0.02
    assert replace(found, needed_gain=0.2).has_power is False


@pytest.mark.slow
@pytest.mark.parametrize(("k", "n", "seeds", "called"), [(1, 6000, 3, 0), (2, 40_000, 1, 1)])
def test_size_and_power_at_768_features(k, n, seeds, called):
    """One reward is never called several; two groups are noticed once there are fifty comparisons for each feature."""
    estimator = MixtureBradleyTerry(2, alpha=1e-4, random_state=0, n_init=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = [single_reward_test(estimator, *decaying(seed, k, n)) for seed in range(seeds)]
    assert sum(test.p_value < 0.05 for test in found) == called


def test_weights_and_ungrouped_rows():
    estimator = MixtureBradleyTerry(2, random_state=0, n_init=2)
    X, y, groups, _ = world(1, n=600)
    weight = np.ones(600)
    weight[groups == 3] = 0
    with_weights = single_reward_test(estimator, X, y, groups, weight)
    assert with_weights.n_groups == 119
    assert np.isfinite(with_weights.log_evidence)
    assert single_reward_test(estimator, X, y).n_groups == 600


@pytest.mark.parametrize(
    ("k", "n", "message"),
    [(1, 40, "n_components of at least 2, got 1"), (2, 15, "at least four groups for two halves, got 3")],
)
def test_bad_tests(k, n, message):
    X, y, groups, _ = world(0, n=n)
    with pytest.raises(ValueError, match=message):
        single_reward_test(MixtureBradleyTerry(k), X, y, groups)
