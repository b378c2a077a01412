"""The theory: an exact identity, an ordered chain, and the two corrections to Theorem 3.2."""

from __future__ import annotations

import dataclasses
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import expit, rel_entr

from micropref.theory import IrreducibleErrorBounds, _bounds, error_decomposition, irreducible_error_bounds

PROBABILITIES = st.floats(0, 1, allow_subnormal=False) | st.sampled_from([0.0, 0.5, 1.0])


@st.composite
def populations(draw, *, per_prompt=False):
    """Weights, probabilities, single model, sample weights and prompts; edges included."""
    n, k, prompts = draw(st.integers(1, 12)), draw(st.integers(1, 5)), draw(st.integers(1, 3))
    prompt = np.arange(n) % prompts
    raw = draw(arrays(float, (prompts if per_prompt else n, k), elements=PROBABILITIES))
    raw[:, 0] += 0.1  # not all zero
    weights = raw / raw.sum(axis=1, keepdims=True)
    probs = draw(arrays(float, (n, k), elements=PROBABILITIES))
    single = draw(arrays(int, n, elements=st.integers(1, 1023))) / 1024  # 1 - q is exact
    omega = draw(arrays(float, n, elements=st.floats(0.01, 10) | st.just(0.0)))
    omega[0] = 1.0
    return weights[prompt] if per_prompt else weights, probs, single, omega, prompt


def entropy(p):
    """The slow way, with Python's own logarithm."""
    return -sum(x * np.log(x) for x in (p, 1 - p) if x > 0)


def slow_terms(weights, probs, single, omega):
    """Every term from its definition, row by row: H(Y|Z), H(Y) − H(Y|Z), CE − H(Y)."""
    noise = group = wrong = 0.0
    for row, p_k, q, o in zip(weights, probs, single, omega / omega.sum(), strict=True):
        p = min(1.0, sum(w * s for w, s in zip(row, p_k, strict=True)))
        own = sum(w * entropy(s) for w, s in zip(row, p_k, strict=True))
        noise += o * own
        group += o * (entropy(p) - own)
        wrong += o * (-p * np.log(q) - (1 - p) * np.log1p(-q) - entropy(p))
    return noise, group, wrong


@given(populations())
def test_terms_equal_their_definitions_and_add_up(population):
    weights, probs, single, omega, _ = population
    parts = error_decomposition(weights, probs, single, sample_weight=omega)
    noise, group, wrong = slow_terms(weights, probs, single, omega)
    assert parts.label_noise == pytest.approx(noise, abs=1e-12)
    assert parts.group_information == pytest.approx(group, abs=1e-12)
    assert parts.misspecification == pytest.approx(wrong, abs=1e-12)
    total = parts.label_noise + parts.group_information + parts.misspecification
    assert parts.cross_entropy == pytest.approx(total, abs=1e-12)
    assert min(parts.label_noise, parts.group_information, parts.misspecification) >= 0


@given(populations(per_prompt=True))
def test_every_step_of_the_chain(population):
    weights, probs, single, omega, prompt = population
    parts = error_decomposition(weights, probs, single, sample_weight=omega)
    bounds = irreducible_error_bounds(weights, probs, prompt, sample_weight=omega)
    assert bounds.information == parts.group_information
    assert parts.cross_entropy - parts.label_noise >= bounds.information - 1e-12
    assert bounds.pairwise_slack >= -1e-12
    assert bounds.averaged_slack >= -1e-12
    assert bounds.theorem_3_2_slack >= -1e-12
    assert bounds.theorem_3_2 >= 0
    assert bounds.information <= np.log(weights.shape[1]) + 1e-12


@given(populations())
def test_the_first_two_bounds_hold_for_any_weights(population):
    weights, probs, _, omega, _ = population
    bounds = irreducible_error_bounds(weights, probs, sample_weight=omega)
    assert bounds.pairwise_slack >= -1e-12
    assert (bounds.averaged, bounds.theorem_3_2, bounds.diversity) == (None, None, None)
    assert (bounds.averaged_slack, bounds.theorem_3_2_slack) == (None, None)


@given(populations())
def test_heads_that_agree_tell_nothing(population):
    weights, probs, single, omega, _ = population
    one = error_decomposition([1.0], probs[:, :1], single, sample_weight=omega)
    same = error_decomposition(weights, np.repeat(probs[:, :1], weights.shape[1], axis=1), single, sample_weight=omega)
    assert one.group_information == 0
    assert same.group_information == pytest.approx(0, abs=1e-14)
    assert same.cross_entropy == pytest.approx(one.cross_entropy, abs=1e-12)


@given(populations(per_prompt=True), st.randoms(use_true_random=False))
def test_order_of_heads_and_names_of_answers_do_not_matter(population, random):
    weights, probs, single, omega, prompt = population
    order = list(range(weights.shape[1]))
    random.shuffle(order)
    parts = error_decomposition(weights, probs, single, sample_weight=omega)
    bounds = irreducible_error_bounds(weights, probs, prompt, sample_weight=omega)
    for w, p, q in ((weights[:, order], probs[:, order], single), (weights, 1 - probs, 1 - single)):
        again = error_decomposition(w, p, q, sample_weight=omega)
        for name in ("cross_entropy", "label_noise", "group_information", "misspecification"):
            assert getattr(again, name) == pytest.approx(getattr(parts, name), abs=1e-12)
        chain = irreducible_error_bounds(w, p, prompt, sample_weight=omega)
        for name in ("information", "pairwise", "averaged", "theorem_3_2"):
            assert getattr(chain, name) == pytest.approx(getattr(bounds, name), abs=1e-12)


def random_world(exchangeable, seed=0, prompts=6, answers=5, k=3):
    rng = np.random.default_rng(seed)
    rewards = 2 * rng.normal(size=(prompts, k, answers))
    if not exchangeable:  # what head 0 likes better comes first
        rewards = np.take_along_axis(rewards, np.argsort(-rewards[:, :1], axis=2), axis=2)
    pairs = [(i, j) for i in range(answers) for j in range(answers) if (i != j if exchangeable else i < j)]
    a, b = np.array(pairs).T
    probs = np.moveaxis(expit(rewards[:, :, a] - rewards[:, :, b]), 1, 2).reshape(-1, k)
    prompt = np.repeat(np.arange(prompts), len(pairs))
    weights = rng.dirichlet(np.ones(k), size=prompts)[prompt]
    ids = prompt * answers + np.tile(a, prompts), prompt * answers + np.tile(b, prompts)
    return weights, probs, prompt, ids


def test_theorem_3_2_is_zero_exactly_where_pairs_are_exchangeable():
    weights, probs, prompt, _ = random_world(exchangeable=True)
    bounds = irreducible_error_bounds(weights, probs, prompt)
    assert bounds.theorem_3_2 == pytest.approx(0, abs=1e-15)
    assert bounds.averaged == pytest.approx(0, abs=1e-15)
    assert bounds.pairwise > 0.5 * bounds.information > 0.01
    weights, probs, prompt, _ = random_world(exchangeable=False)
    assert irreducible_error_bounds(weights, probs, prompt).theorem_3_2 > 1e-4


@pytest.mark.parametrize("exchangeable", [True, False])
def test_every_bound_equals_its_definition(exchangeable):
    """Expectations and variances in plain loops over prompts and pairs."""
    weights, probs, prompt, _ = random_world(exchangeable, seed=8)
    omega = np.random.default_rng(8).uniform(0.1, 3, size=len(probs))
    pairwise = averaged = uniform = 0.0
    for x in np.unique(prompt):
        rows = np.flatnonzero(prompt == x)
        pi, mass = weights[rows[0]], omega[rows].sum()
        for i in rows:
            pairwise += 2 * omega[i] * np.sum(pi * (probs[i] - np.sum(pi * probs[i])) ** 2)
        mean = sum(omega[i] * probs[i] for i in rows) / mass
        averaged += 2 * mass * np.sum(pi * (mean - np.sum(pi * mean)) ** 2)
        uniform += mass * np.sum((mean - mean.mean()) ** 2) / 3
    bounds = irreducible_error_bounds(weights, probs, prompt, omega)
    assert bounds.pairwise == pytest.approx(pairwise / omega.sum(), rel=1e-12)
    assert bounds.averaged == pytest.approx(averaged / omega.sum(), rel=1e-12)
    assert bounds.theorem_3_2 == pytest.approx(2 * weights.min() * 3 * uniform / omega.sum(), rel=1e-12)
    assert bounds.theorem_3_2 > 1e-5
    assert bounds.diversity == pytest.approx(weights.min())


def test_with_raw_scores_the_theorem_would_be_false():
    """Two equal groups with scores ±5: the right-hand side is 50 nats, the whole information log 2."""
    scores = np.array([[5.0, -5.0]])
    right_hand_side = 2 * 0.5 * 2 * scores.var(axis=1).mean()
    bounds = irreducible_error_bounds([0.5, 0.5], expit(scores), prompt=[0])
    assert right_hand_side == 50
    assert bounds.theorem_3_2 <= bounds.information < np.log(2) < right_hand_side
    with pytest.raises(ValueError, match=r"probabilities between 0 and 1, not scores, got 5\.0 in row 0, column 0"):
        irreducible_error_bounds([0.5, 0.5], scores, prompt=[0])


def test_the_best_tabular_reward_is_the_best():
    weights, probs, _, ids = random_world(exchangeable=False, seed=3)
    omega = np.random.default_rng(1).uniform(0.1, 2, size=len(probs))
    best = error_decomposition(weights, probs, sample_weight=omega, responses=ids)
    p = (weights * probs).sum(axis=1)
    reward, step = np.zeros(int(max(i.max() for i in ids)) + 1), 8.0
    for _ in range(4000):  # plain gradient descent on the same convex problem
        residual = omega / omega.sum() * (expit(reward[ids[0]] - reward[ids[1]]) - p)
        reward -= step * (np.bincount(ids[0], residual, len(reward)) - np.bincount(ids[1], residual, len(reward)))
    q = expit(reward[ids[0]] - reward[ids[1]])
    slow = error_decomposition(weights, probs, q, sample_weight=omega)
    assert best.misspecification == pytest.approx(slow.misspecification, abs=1e-7)
    assert best.misspecification > 1e-3
    names = tuple(np.array([f"answer {i}" for i in column]) for column in ids)
    named = error_decomposition(weights, probs, sample_weight=omega, responses=names)
    assert named.misspecification == pytest.approx(best.misspecification, abs=1e-9)


def test_the_best_linear_reward_finds_a_single_group():
    rng = np.random.default_rng(0)
    differences, head = rng.normal(size=(300, 4)), rng.normal(size=4)
    probs = expit(differences @ head)[:, None]
    parts = error_decomposition([1.0], probs, features=differences)
    assert parts.misspecification == pytest.approx(0, abs=1e-12)
    # A single head cannot be the mean of two that disagree about half of the coordinates.
    other = expit(differences @ (head * [1, 1, -3, -3]))[:, None]
    two = error_decomposition([0.5, 0.5], np.hstack([probs, other]), features=differences)
    assert two.misspecification > 1e-4
    worse = error_decomposition([0.5, 0.5], np.hstack([probs, other]), probs[:, 0])
    assert worse.misspecification > two.misspecification


def test_certain_answers_have_a_finite_best_reward():
    parts = error_decomposition([1.0], [[1.0], [0.0]], features=[[1.0], [-1.0]])
    assert parts.label_noise == parts.group_information == 0
    assert 0 <= parts.cross_entropy < 1e-6


def test_a_certain_and_wrong_model_has_infinite_error():
    parts = error_decomposition([1.0], [[0.5], [0.5]], single_probs=[0.0, 0.5])
    assert parts.cross_entropy == parts.misspecification == np.inf
    harmless = error_decomposition([1.0], [[0.5], [0.5]], single_probs=[0.0, 0.5], sample_weight=[0, 1])
    assert harmless.misspecification == 0


def test_weights_that_vanish_take_their_head_along():
    parts = error_decomposition([[1.0, 0.0]], [[0.0, 0.7]], single_probs=[0.0])
    assert parts.cross_entropy == parts.group_information == parts.label_noise == 0


def test_tiny_weights_do_not_overflow():
    bounds = irreducible_error_bounds([[1 - 1e-200, 1e-200]], [[0.0, 1e-200]])
    assert 0 <= bounds.information < 1e-100


def test_single_precision_is_welcome():
    rng = np.random.default_rng(0)
    weights = rng.dirichlet(np.ones(4), size=50).astype(np.float32)
    probs = rng.uniform(size=(50, 4)).astype(np.float32)
    bounds = irreducible_error_bounds(weights, probs)
    p = (weights * probs).sum(axis=1, keepdims=True)
    expected = (weights * (rel_entr(probs, p) + rel_entr(1 - probs, 1 - p))).sum(axis=1).mean()
    assert bounds.information == pytest.approx(expected, rel=1e-4)


def test_a_repeated_row_equals_weight_two():
    weights, probs, prompt, ids = random_world(exchangeable=False, prompts=2)
    omega = np.ones(len(probs))
    omega[3] = 2
    again = np.append(np.arange(len(probs)), 3)
    assert irreducible_error_bounds(weights, probs, prompt, omega).theorem_3_2 == pytest.approx(
        irreducible_error_bounds(weights[again], probs[again], prompt[again]).theorem_3_2, rel=1e-12
    )
    weighted = error_decomposition(weights, probs, sample_weight=omega, responses=ids)
    repeated = error_decomposition(weights[again], probs[again], responses=(ids[0][again], ids[1][again]))
    assert weighted.misspecification == pytest.approx(repeated.misspecification, abs=1e-9)


def test_weights_that_vary_within_a_prompt_are_named():
    weights = np.array([[0.5, 0.5], [0.9, 0.1], [0.5, 0.5], [0.1, 0.9]])
    probs = np.full((4, 2), 0.3)
    message = "function of the prompt alone, got different weights for prompt 'b' in rows 1 and 3"
    with pytest.raises(ValueError, match=message):
        irreducible_error_bounds(weights, probs, prompt=np.array(["a", "b", "a", "b"], dtype=object))
    with pytest.raises(ValueError, match="in rows 1 and 3"):  # rows of the caller, not of what weights left over
        irreducible_error_bounds(weights, probs, prompt=["a", "b", "a", "b"], sample_weight=[0, 1, 1, 1])
    bounds = irreducible_error_bounds(weights, probs, prompt=["a", "b", "a", "b"], sample_weight=[1, 1, 1, 0])
    assert bounds.diversity == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([0.5, 0.5], [0.1, 0.9]), "component_probs: expected shape"),
        (([0.5, 0.5], np.empty((0, 2))), "component_probs: expected at least one row and one component"),
        (([0.5, 0.3, 0.2], [[0.1, 0.9]]), r"weights: expected shape \(1, 2\) or \(2,\), got \(3,\)"),
        (([[0.5, 0.5]], [[0.1, np.nan]]), "got nan in row 0, column 1"),
        (([1.5, -0.5], [[0.1, 0.9]]), "weights: expected probabilities between 0 and 1, not scores, got 1.5 in row 0"),
        (([[0.5, 0.4]], [[0.1, 0.9]]), "expected a sum of 1 over the components, got 0.9 in row 0"),
    ],
)
def test_bad_populations(arguments, message):
    with pytest.raises(ValueError, match=message):
        irreducible_error_bounds(*arguments)
    with pytest.raises(ValueError, match=message):
        error_decomposition(*arguments, single_probs=[0.5])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "got none of them"),
        ({"single_probs": [0.5], "features": [[1.0]]}, "got single_probs and features"),
        ({"single_probs": [1.2]}, "single_probs: expected probabilities"),
        ({"single_probs": [[0.5]]}, "single_probs: expected one dimension, got 2"),
        ({"single_probs": [0.5, 0.5]}, "single_probs: expected 1 rows"),
        ({"responses": ([0],)}, "responses: expected two columns"),
        ({"responses": ([0], [1, 2])}, "responses: expected 1 rows"),
        ({"features": [1.0]}, r"features: expected shape \(n_samples, n_features\)"),
        ({"features": [[np.inf]]}, "features: expected finite numbers, got inf in row 0, column 0"),
        ({"single_probs": [0.5], "sample_weight": [0.0]}, "expected at least one positive weight"),
    ],
)
def test_bad_single_models(options, message):
    with pytest.raises(ValueError, match=message):
        error_decomposition([0.5, 0.5], [[0.1, 0.9]], **options)


def test_bad_prompts():
    with pytest.raises(ValueError, match="prompt: expected 1 rows"):
        irreducible_error_bounds([0.5, 0.5], [[0.1, 0.9]], prompt=[0, 1])
    with pytest.raises(ValueError, match="prompt: expected one dimension, got 2"):
        irreducible_error_bounds([0.5, 0.5], [[0.1, 0.9]], prompt=[[0]])


def test_generated_populations_vary():
    """A generator of one constant would make every property above empty."""
    seen = set()

    @settings(max_examples=50, database=None)
    @given(populations())
    def collect(population):
        seen.add(population[1].tobytes())

    collect()
    assert len(seen) > 10


# ------------------------------------------------------------------------------------------------- the renamed bound


@pytest.fixture
def not_warned_yet():
    _bounds._warn_renamed.cache_clear()
    yield
    _bounds._warn_renamed.cache_clear()


@pytest.mark.parametrize(("old", "new"), [("printed", "theorem_3_2"), ("printed_slack", "theorem_3_2_slack")])
def test_the_old_name_of_a_bound_warns_once(old, new, not_warned_yet):
    bounds = IrreducibleErrorBounds(0.4, 0.3, 0.2, 0.05, 0.5)
    with pytest.warns(FutureWarning, match=f"IrreducibleErrorBounds.{old} was renamed to {new}") as caught:
        values = [getattr(bounds, old) for _ in range(2)]
    assert values == [getattr(bounds, new)] * 2
    assert len(caught) == 1
    assert caught[0].filename == __file__


def test_the_old_keyword_of_a_bound_warns_once(not_warned_yet):
    with pytest.warns(FutureWarning, match="printed was renamed to theorem_3_2") as caught:
        bounds = [IrreducibleErrorBounds(0.4, 0.3, 0.2, diversity=0.5, printed=0.0) for _ in range(2)]
    assert len(caught) == 1
    assert bounds[0] == bounds[1] == IrreducibleErrorBounds(0.4, 0.3, 0.2, 0.0, 0.5)
    with pytest.raises(TypeError, match="expected theorem_3_2 alone, got its old name printed as well"):
        IrreducibleErrorBounds(0.4, 0.3, 0.2, 0.05, printed=0.05)


def test_bounds_are_values(recwarn):
    bounds = IrreducibleErrorBounds(0.4, 0.3)
    assert dataclasses.asdict(bounds) == {
        "information": 0.4, "pairwise": 0.3, "averaged": None, "theorem_3_2": None, "diversity": None,
    }  # fmt: skip
    assert dataclasses.replace(bounds, theorem_3_2=0.1).theorem_3_2 == 0.1
    assert pickle.loads(pickle.dumps(bounds)) == bounds
    with pytest.raises(dataclasses.FrozenInstanceError):
        bounds.pairwise = 0.2
    assert len(recwarn) == 0
