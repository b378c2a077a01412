"""What an answer says, by enumeration, by sampling and by its properties; batches against all other batches."""

from __future__ import annotations

from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import entr, expit

from micropref._engine.label_design import LabelDesign, LinearLabels
from micropref._engine.question_batches import (
    EXACT_ANSWERS,
    _Answers,
    choose_questions,
    expected_answers_information,
    joint_information,
    pick,
)
from micropref._engine.questions import (
    Hypotheses,
    hypotheses_of_normals,
    information_of_heads,
    information_of_normals,
)


def entropy(*probabilities):
    return float(sum(entr(np.asarray(probabilities, dtype=float)).ravel()))


def random_heads(seed, k=3, n=6, size=2.0):
    rng = np.random.default_rng(seed)
    weights, margins = rng.dirichlet(np.ones(k)), size * rng.normal(size=(k, n))
    assert np.ptp(margins) > 0
    return weights, margins


def joint_by_enumeration(weights, margins, rows):
    """H(answers) − H(answers given the head), from every combination of answers."""
    total = 0.0
    for answers in product((1, -1), repeat=len(rows)):
        likelihood = np.prod([expit(s * margins[:, j]) for s, j in zip(answers, rows, strict=True)], axis=0)
        total += entropy(weights @ likelihood) - weights @ entr(likelihood)
    return total


# -------------------------------------------------------------------------------------------------------- one question


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_information_is_that_of_the_table_of_heads_and_answers(temperature):
    weights, margins = random_heads(0, k=4, n=20)
    found = information_of_heads(np.tile(weights[:, None], 20), margins, temperature)
    for j in range(20):
        p = expit(margins[:, j] / temperature)
        joint = np.stack([weights * p, weights * (1 - p)])
        expected = entropy(joint.sum(axis=0)) + entropy(joint.sum(axis=1)) - entropy(joint)
        assert found[j] == pytest.approx(expected, abs=1e-12)
    assert np.ptp(found) > 0.01


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 6), st.floats(0.01, 60))
def test_properties_of_information(seed, k, size):
    weights, margins = random_heads(seed, k, 15, size)
    shared = np.tile(weights[:, None], 15)
    found = information_of_heads(shared, margins)
    assert (found >= 0).all()
    assert (found <= np.log(2) + 1e-12).all()
    np.testing.assert_array_equal(found, information_of_heads(shared, -margins))  # the pair the other way round
    order = np.random.default_rng(seed).permutation(k)
    np.testing.assert_allclose(found, information_of_heads(shared[order], margins[order]), atol=1e-14)
    # A head that stands there twice is one head; one without weight is none.
    twice = np.concatenate([shared[:1] / 2, shared[:1] / 2, shared[1:], 0 * shared[:1]])
    np.testing.assert_allclose(
        found, information_of_heads(twice, np.concatenate([margins[:1], margins, -margins[:1]])), atol=1e-13
    )
    assert (information_of_heads(shared, np.broadcast_to(margins[:1], margins.shape)) < 1e-15).all()  # heads agree


@given(st.floats(0.0, 8.0), st.floats(0.1, 5.0))
def test_opposite_heads_say_more_the_surer_they_are(margin, more):
    weights = np.full((2, 1), 0.5)
    low, high = (information_of_heads(weights, np.array([[m], [-m]]))[0] for m in (margin, margin + more))
    assert low <= high + 1e-15


@pytest.mark.parametrize("doubt", [1e-3, 1e-9, 1e-20, 1e-60])
def test_a_user_who_is_almost_certain_has_information_that_is_exact(doubt):
    """H(p̄) − Σ w H(p) would be rounding alone below 1e-16."""
    rng = np.random.default_rng(0)
    margins = rng.normal(size=(2, 30)) * 2
    found = information_of_heads(np.tile([[1.0 - doubt], [doubt]], 30), margins)
    p, q = expit(margins)
    divergence = q * np.log(q / p) + (1 - q) * np.log((1 - q) / (1 - p))
    np.testing.assert_allclose(found, doubt * divergence, rtol=200 * doubt + 1e-9)


@pytest.mark.parametrize("size", [1e3, 1e8])
def test_margins_of_any_size(size):
    weights = np.full((3, 1), 1 / 3)
    found = information_of_heads(weights, size * np.array([[1.0], [-1.0], [1.0]]))
    assert found[0] == pytest.approx(entropy(1 / 3, 2 / 3), abs=1e-12)


@pytest.mark.parametrize("deviation", [0.05, 0.5, 0.72, 1.4, 1.6, 2.9, 5.0, 11.0, 40.0])
def test_information_over_normal_margins_is_the_integral(deviation):
    means = np.array([[0.0, 1.0, -3.0, 6.0], [1.0, -2.0, 2.0, -6.0]])
    weights = np.array([[0.3], [0.7]])
    grid = np.linspace(-9, 9, 60_001)
    density = np.exp(-(grid**2) / 2) / np.exp(-(grid**2) / 2).sum()
    noise = np.array([[0.0, 0.5, 2.0, 0.0], [0.3, 0.5, 0.0, 0.0]])
    found = information_of_normals(np.tile(weights, 4), means, np.full((2, 4), deviation**2), noise, 2.0)
    for j in range(4):
        factor = 1 / np.sqrt(1 + np.pi * noise[:, j] / 8 / 4) / 2
        p = expit(factor[:, None] * (means[:, j][:, None] + deviation * grid))
        mean = float((weights[:, 0] * (p @ density)).sum())
        spread = float((weights[:, 0] * ((entr(p) + entr(1 - p)) @ density)).sum())
        assert found[j] == pytest.approx(entropy(mean, 1 - mean) - spread, abs=1e-5)


def test_normals_without_variance_are_heads():
    weights, margins = random_heads(2, 3, 12)
    shared, nothing = np.tile(weights[:, None], 12), np.zeros((3, 12))
    np.testing.assert_allclose(
        information_of_normals(shared, margins, nothing, nothing, 1.7),
        information_of_heads(shared, margins, 1.7),
        atol=1e-14,
    )
    # Noise that no vote can teach makes answers say less; what is not known of the user makes them say more.
    ones = np.ones((3, 12))
    plain = information_of_normals(shared, margins, ones, nothing)
    assert (information_of_normals(shared, margins, ones, 4 * ones) < plain).all()
    one = np.ones((1, 12))
    spread = [information_of_normals(one, 0 * one, v * one, 0 * one)[0] for v in (0.0, 0.1, 1.0, 5.0, 50.0)]
    assert (np.diff(spread) > 0.01).all()


def test_users_drawn_from_normals_have_their_information():
    rng = np.random.default_rng(1)
    k, n, q = 2, 40, 3
    weights, margins = np.tile(rng.dirichlet(np.ones(k))[:, None], n), rng.normal(size=(k, n))
    coordinates, noise = rng.normal(size=(n, q)), 0.3 * np.ones((k, n))
    roots = rng.normal(size=(k, q, q)) / 2
    beliefs = rng.normal(size=(k, q)) / 2, roots @ roots.swapaxes(1, 2)
    drawn = hypotheses_of_normals(
        weights, margins, noise, coordinates, beliefs, temperature=1.5, random=np.random.RandomState(0)
    )
    means = margins + beliefs[0] @ coordinates.T
    variances = np.einsum("ni,kij,nj->kn", coordinates, beliefs[1], coordinates)
    exact = information_of_normals(weights, means, variances, noise, 1.5)
    np.testing.assert_allclose(drawn.information(), exact, atol=0.02)
    np.testing.assert_allclose(drawn.weights.sum(axis=0), 1.0)


def test_users_drawn_from_normals_have_their_means_and_covariances_exactly():
    rng = np.random.default_rng(2)
    k, n, q = 3, 8, 4
    coordinates, roots = rng.normal(size=(n, q)), rng.normal(size=(k, q, q)) / 3
    beliefs = rng.normal(size=(k, q)) / 2, roots @ roots.swapaxes(1, 2)
    heads, nothing = rng.normal(size=(k, n)), np.zeros((k, n))
    settings = {"temperature": 1.0, "random": np.random.RandomState(0)}
    drawn = hypotheses_of_normals(np.full((k, n), 1 / k), heads, nothing, coordinates, beliefs, **settings)
    margins = (np.log(drawn.first) - np.log(drawn.second)).reshape(k, -1, n)
    np.testing.assert_allclose(margins.mean(axis=1), heads + beliefs[0] @ coordinates.T, atol=1e-9)
    for component in range(k):
        expected = coordinates @ beliefs[1][component] @ coordinates.T
        np.testing.assert_allclose(np.cov(margins[component].T, bias=True), expected, atol=1e-9)


# ------------------------------------------------------------------------------------------------------------- batches


def pool(seed, k=3, n=6, size=2.0):
    weights, margins = random_heads(seed, k, n, size)
    return Hypotheses.of_margins(weights[:, None], margins), weights, margins


@pytest.mark.parametrize("seed", range(3))
def test_joint_information_is_that_of_all_answers(seed):
    hypotheses, weights, margins = pool(seed)
    for size in (1, 2, 4):
        rows = np.arange(size)
        expected = joint_by_enumeration(weights, margins, rows)
        assert joint_information(hypotheses.part(rows)) == pytest.approx(expected, abs=1e-12)
    assert joint_information(hypotheses.part(np.array([0]))) == pytest.approx(hypotheses.information()[0], abs=1e-12)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6))
def test_every_question_of_a_batch_is_the_best_after_those_before(seed):
    hypotheses, weights, margins = pool(seed, k=3, n=7)
    chosen = choose_questions(hypotheses, 4, np.random.RandomState(0)).tolist()
    assert len(set(chosen)) == 4
    last = 0.0
    for size in range(1, 5):
        value = joint_by_enumeration(weights, margins, chosen[:size])
        rest = [joint_by_enumeration(weights, margins, [*chosen[: size - 1], j]) for j in range(7)
                if j not in chosen[: size - 1]]  # fmt: skip
        assert value == pytest.approx(max(rest), abs=1e-11)
        assert value >= last - 1e-12  # no answer takes anything away
        last = value


def test_greedy_batches_are_almost_the_best_ones():
    exact, shares = 0, []
    for seed in range(30):
        hypotheses, weights, margins = pool(seed, k=4, n=7)
        chosen = choose_questions(hypotheses, 3, np.random.RandomState(0))
        best = max(joint_by_enumeration(weights, margins, rows) for rows in combinations(range(7), 3))
        shares.append(joint_by_enumeration(weights, margins, chosen) / best)
        exact += shares[-1] > 1 - 1e-9
    assert exact >= 15
    assert min(shares) > 0.95


def test_weights_of_their_own_for_every_question():
    """Each candidate is judged under the weights of its context; equal ones are the common case."""
    weights, margins = random_heads(3, 3, 8)
    shared = Hypotheses.of_margins(weights[:, None], margins)
    each = Hypotheses(np.tile(weights[:, None], 8), shared.first, shared.second)
    rng = np.random.RandomState
    assert choose_questions(shared, 5, rng(0)).tolist() == choose_questions(each, 5, rng(0)).tolist()
    certain = np.tile(weights[:, None], 8)
    certain[:, 2:] = np.eye(3)[:, :1]
    assert set(choose_questions(Hypotheses(certain, shared.first, shared.second), 2, rng(0)).tolist()) == {0, 1}


def test_the_same_question_twice_says_less_than_another_one():
    margins = np.array([[4.0, 4.0, 4.0, 1.0], [-4.0, -4.0, -4.0, 2.0], [4.0, 4.0, 4.0, -3.0]])
    hypotheses = Hypotheses.of_margins(np.full((3, 1), 1 / 3), margins)
    assert 3 in choose_questions(hypotheses, 2, np.random.RandomState(0))


def test_a_question_behind_many_alike_is_found():
    """Alone it says less than 600 others, which all say the same."""
    alike = np.array([[1.0], [1.0], [-1.0], [-1.0]]) * np.linspace(4.0, 4.5, 600)
    margins = np.column_stack([alike, [3.0, -3.0, 3.0, -3.0]])
    hypotheses = Hypotheses.of_margins(np.full((4, 1), 0.25), margins)
    assert choose_questions(hypotheses, 2, np.random.RandomState(0)).tolist() == [599, 600]


def test_beyond_the_exact_size_answers_are_drawn_by_the_seed():
    n_questions = int(np.log2(EXACT_ANSWERS)) + 4
    hypotheses, _, _ = pool(5, k=12, n=20, size=1.0)
    one, two, other = (choose_questions(hypotheses, n_questions, np.random.RandomState(s)) for s in (0, 0, 1))
    assert one.tolist() == two.tolist()
    assert len(set(one.tolist())) == n_questions
    best = joint_information(hypotheses.part(one[:14]))
    assert joint_information(hypotheses.part(other[:14])) == pytest.approx(best, rel=0.02)
    assert joint_information(hypotheses.part(np.arange(14))) < best


def test_questions_that_are_equally_good_are_drawn():
    hypotheses = Hypotheses.of_margins(np.full((2, 1), 0.5), np.tile([[1.0], [-1.0]], 10))
    drawn = {int(choose_questions(hypotheses, 1, np.random.RandomState(seed))[0]) for seed in range(40)}
    assert len(drawn) > 5
    nothing = Hypotheses.of_margins(np.ones((1, 1)), np.ones((1, 10)))  # one head: no answer says anything
    assert len(set(choose_questions(nothing, 10, np.random.RandomState(0)).tolist())) == 10


def test_gains_that_differ_by_rounding_alone_are_equal():
    gain = np.array([0.5, 0.5 * (1 + 2e-12), 0.5 * (1 - 2e-12), 0.4])
    assert {pick(gain, np.random.RandomState(seed)) for seed in range(40)} == {0, 1, 2}
    assert {pick(gain * 1e-30, np.random.RandomState(seed)) for seed in range(40)} == {0, 1, 2}
    assert pick(np.array([1e-20, 2e-20]), np.random.RandomState(0)) == 1


# ------------------------------------------------------------------------------------------------- answers of targets


def shared_by_enumeration(weights, margins, j, target):
    table = np.array([[weights @ (expit(s * margins[:, j]) * expit(t * target)) for t in (1, -1)] for s in (1, -1)])
    return entropy(table.sum(axis=0)) + entropy(table.sum(axis=1)) - entropy(table)


def test_information_about_targets_is_that_of_the_tables_of_two_answers():
    hypotheses, weights, margins = pool(0, k=4, n=9)
    targets = np.random.default_rng(7).normal(size=(4, 5))
    found = expected_answers_information(hypotheses, Hypotheses.of_margins(weights[:, None], targets))
    for j in range(9):
        expected = np.mean([shared_by_enumeration(weights, margins, j, t) for t in targets.T])
        assert found[j] == pytest.approx(expected, abs=1e-12)
    assert (found <= hypotheses.information() + 1e-12).all()  # an answer says no more of answers than of the head


def test_questions_for_targets_are_about_what_the_targets_ask():
    """Heads differ in two directions; the targets depend on the second alone."""
    signs = np.array([[a, b] for a in (1, -1) for b in (1, -1)])
    margins = np.column_stack([signs[:, 0] * 4.0, signs[:, 1] * 3.0, signs[:, 0] * 3.9, signs[:, 1] * 2.9])
    hypotheses = Hypotheses.of_margins(np.full((4, 1), 0.25), margins)
    targets = Hypotheses.of_margins(np.full((4, 1), 0.25), signs[:, 1:] * np.array([[1.0, 2.0, 3.0]]))
    assert choose_questions(hypotheses, 2, np.random.RandomState(0), targets=targets).tolist() == [1, 3]
    assert choose_questions(hypotheses, 2, np.random.RandomState(0)).tolist() == [0, 1]


# ------------------------------------------------------------------------------------------------------------ designs


def labels(seed, n, k=2, c=3):
    rng = np.random.default_rng(seed)
    return LinearLabels(rng.normal(size=(n, k)), rng.normal(size=(n, c)))


def by_determinant(*parts):
    features = np.concatenate([part.features() for part in parts])
    return 0.5 * np.linalg.slogdet(np.eye(len(features)) + features @ features.T)[1]


@pytest.mark.parametrize("n_labelled", [0, 4, 30])
def test_gains_of_labels_are_differences_of_determinants(n_labelled):
    """By the number of labels and by that of the parameters, of which one is smaller."""
    candidates, labelled = labels(0, 8), labels(1, n_labelled)
    design = LabelDesign(candidates, labelled)
    before = by_determinant(labelled) if n_labelled else 0.0
    expected = [by_determinant(labelled, candidates.part([j])) - before for j in range(8)]
    np.testing.assert_allclose(design.gains(), expected, atol=1e-10)
    design.label(3)
    expected = [by_determinant(labelled, candidates.part([3, j])) - before - expected[3] for j in range(8)]
    np.testing.assert_allclose(design.gains(), expected, atol=1e-10)
    chosen = LabelDesign(candidates, labelled).choose(3, np.random.RandomState(0))
    assert len(set(chosen.tolist())) == 3


def test_drawn_answers_are_unbiased():
    """Of all combinations of answers together, and of the heads that they speak for."""
    hypotheses, weights, _ = pool(6, k=4, n=14)
    answers = _Answers(hypotheses, 64, np.random.RandomState(0))
    for first, second in zip(hypotheses.first.T, hypotheses.second.T, strict=True):
        answers.ask(first, second)
    assert len(answers.factor) <= 64
    assert answers.factor @ (weights @ answers.likelihood) == pytest.approx(1.0, abs=0.05)
