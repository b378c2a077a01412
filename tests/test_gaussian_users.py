"""Beliefs about users, filtered vote by vote: against quadrature, compiled against NumPy's, and their limits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from micropref._engine.gaussian_users import (
    Beliefs,
    Scatter,
    VoteRounds,
    discounted,
    filter_votes,
    shrunken_margins,
)
from micropref._engine.logistic_normal import expected_log_odds, moments
from micropref.kernels import use_path
from micropref.kernels._pointwise import log_sigmoid

SEEDS = st.integers(0, 10_000)


def scatter_of(rng, k: int, d: int, q: int, size: float = 1.0) -> Scatter:
    """Users who scatter in q of d directions."""
    basis = np.linalg.qr(rng.normal(size=(d, d)))[0][:, :q]
    roots = rng.normal(size=(k, q, q)) * size
    return Scatter(basis, roots @ roots.swapaxes(1, 2), rng.random(k) * (q < d))


def votes_of(rng, k: int, d: int, n: int):
    return rng.normal(size=(n, d)), rng.normal(size=(k, n))


def filtered(scatter, users, margins, differences, n_users, **kwargs) -> Beliefs:
    beliefs = Beliefs.prior(scatter, n_users)
    z, outside = scatter.coordinates(differences)
    filter_votes(beliefs, VoteRounds(users, n_users), margins, z, scatter.residual[:, None] * outside, **kwargs)
    return beliefs


def assert_same(one: Beliefs, other: Beliefs, **tolerances) -> None:
    for name in ("evidence", "means", "covariances"):
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), err_msg=name, **tolerances)


@given(SEEDS, st.integers(1, 3), st.integers(0, 5), st.booleans())
def test_the_compiled_loop_is_numpys(seed, k, q, weighted):
    rng = np.random.default_rng(seed)
    scatter = scatter_of(rng, k, 5, q, size=2.0)
    users = rng.integers(0, 7, 40)
    differences, margins = votes_of(rng, k, 5, 40)
    weight = rng.choice([0.0, 0.25, 1.0, 2.0, 3.5, 100.0], 40) if weighted else None
    found = []
    for path in ("reference", "numba"):
        with use_path(path):
            found.append(filtered(scatter, users, margins * 20, differences, 7, weight=weight))
    assert_same(*found, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize(("n_votes", "tolerance"), [(1, 2e-5), (3, 5e-3), (31, 2e-3)])
def test_evidence_and_moments_are_those_of_quadrature(n_votes, tolerance):
    """One direction: after one vote exactly, up to the mixture of normals; after more as well as a normal can."""
    rng = np.random.default_rng(n_votes)
    grid = np.linspace(-12, 12, 20_001)
    for _ in range(20):
        margins, z = rng.normal(size=n_votes), rng.normal(size=n_votes)
        scatter = Scatter(np.eye(1), np.array([[[1.5]]]), np.zeros(1))
        beliefs = filtered(scatter, np.zeros(n_votes, int), margins[None], z[:, None], 1)
        log_density = -0.5 * grid**2 / 1.5 - 0.5 * np.log(2 * np.pi * 1.5)
        log_density += log_sigmoid(margins[:, None] + z[:, None] * grid).sum(axis=0)
        density = np.exp(log_density - log_density.max())
        total = np.trapezoid(density, grid)
        evidence = np.log(total) + log_density.max()
        mean = np.trapezoid(density * grid, grid) / total
        variance = np.trapezoid(density * (grid - mean) ** 2, grid) / total
        assert abs(beliefs.evidence[0, 0] - evidence) < tolerance * max(1, n_votes / 3)
        assert abs(beliefs.means[0, 0, 0] - mean) < 10 * tolerance
        assert abs(beliefs.covariances[0, 0, 0, 0] - variance) < 10 * tolerance


@given(SEEDS)
def test_one_vote_at_a_time_is_all_at_once(seed):
    rng = np.random.default_rng(seed)
    scatter = scatter_of(rng, 2, 4, 3)
    users = rng.integers(0, 5, 30)
    differences, margins = votes_of(rng, 2, 4, 30)
    singly = Beliefs.prior(scatter, 5)
    z, outside = scatter.coordinates(differences)
    at_once = filtered(scatter, users, margins, differences, 5, passes=1)
    for i in range(30):
        one = slice(i, i + 1)
        filter_votes(
            singly, VoteRounds(users[one], 5), margins[:, one], z[one], scatter.residual[:, None] * outside[one]
        )
    assert_same(at_once, singly, rtol=1e-10, atol=1e-12)


def mean_by_sampling(covariance, z, n=200_000):
    """Mean of u ~ N(0, covariance) after votes, by importance sampling from the prior."""
    u = np.random.default_rng(9).normal(size=(n, len(covariance))) @ np.linalg.cholesky(covariance).T
    share = np.exp(log_sigmoid(u @ z.T).sum(axis=1))
    return share @ u / share.sum()


@pytest.mark.parametrize("path", ["reference", "numba"])
def test_a_second_pass_comes_nearer_to_the_posterior(path):
    """Wide scatter and votes without noise, the hard case for one pass: the error of the mean falls to a third."""
    rng = np.random.default_rng(0)
    errors = []
    for _ in range(10):
        z = rng.normal(size=(6, 2))
        z *= np.sign(z @ rng.normal(size=2))[:, None]
        scatter = Scatter(np.eye(2), 25.0 * np.eye(2)[None], np.zeros(1))
        mean = mean_by_sampling(scatter.covariances[0], z)
        with use_path(path):
            found = [filtered(scatter, np.zeros(6, int), np.zeros((1, 6)), z, 1, passes=p) for p in (1, 2, 10)]
        errors.append([np.linalg.norm(one.means[0, 0] - mean) for one in found])
    once, twice, often = np.mean(errors, axis=0)
    assert once > 0.2
    assert max(twice, often) < once / 3


@pytest.mark.parametrize("path", ["reference", "numba"])
def test_evidence_is_the_integral_of_what_votes_say(path):
    """log Z of passes that have settled is that of prior and sites, whose factors the last pass leaves alone."""
    rng = np.random.default_rng(1)
    scatter = scatter_of(rng, 1, 3, 3)
    differences, margins = votes_of(rng, 1, 3, 8)
    with use_path(path):
        found = filtered(scatter, np.zeros(8, int), margins, differences, 1, passes=40)
    mean, covariance, prior = found.means[0, 0], found.covariances[0, 0], scatter.covariances[0]
    z = scatter.coordinates(differences)[0]
    s, v = z @ mean, np.einsum("ni,ij,nj->n", z, covariance, z)
    # The precision and shift of every site solve p = −∂² and r = ∂ + p m of the cavity: found from the belief alone.
    p = np.zeros(8)
    r = np.zeros(8)
    for _ in range(400):
        aside = v / (1 - p * v)
        centre = (s - r * v) / (1 - p * v)
        _, slope, curvature = moments(margins[0] + centre, aside)
        p, r = curvature / (1 - curvature * aside), (slope + curvature * centre) / (1 - curvature * aside)
    aside, centre = v / (1 - p * v), (s - r * v) / (1 - p * v)
    log_z = moments(margins[0] + centre, aside)[0]
    # Z = ∫ prior Π sites; each site integrates to its own Z_i beside the cavity.
    constants = log_z - (r * centre + r**2 * aside / 2 - p * centre**2 / 2) / (1 + p * aside) + np.log1p(p * aside) / 2
    inverse = np.linalg.inv(covariance)
    total = constants.sum() + 0.5 * mean @ inverse @ mean
    total += 0.5 * np.linalg.slogdet(covariance)[1] - 0.5 * np.linalg.slogdet(prior)[1]
    np.testing.assert_allclose(np.linalg.inv(prior) + z.T @ (p[:, None] * z), inverse, rtol=1e-6)
    np.testing.assert_allclose(found.evidence[0, 0], total, rtol=1e-7)


@given(SEEDS)
def test_with_more_passes_the_order_of_votes_does_not_matter(seed):
    rng = np.random.default_rng(seed)
    scatter = scatter_of(rng, 2, 4, 3)
    users = rng.integers(0, 3, 20)
    differences, margins = votes_of(rng, 2, 4, 20)
    weight = rng.choice([0.5, 1.0, 2.0], 20)
    order = rng.permutation(20)

    def apart(passes: int) -> float:
        one = filtered(scatter, users, margins, differences, 3, weight=weight, passes=passes)
        votes = users[order], margins[:, order], differences[order]
        other = filtered(scatter, *votes, 3, weight=weight[order], passes=passes)
        return max(np.abs(one.evidence - other.evidence).max(), np.abs(one.means - other.means).max())

    assert apart(30) < 1e-6
    assert apart(1) > apart(2)


@given(SEEDS)
def test_the_order_of_users_does_not_matter(seed):
    rng = np.random.default_rng(seed)
    scatter = scatter_of(rng, 2, 4, 4)
    users = rng.integers(0, 6, 30)
    differences, margins = votes_of(rng, 2, 4, 30)
    new = rng.permutation(6)
    rows = np.argsort(new[users], kind="stable")  # of every user in their order
    one = filtered(scatter, users, margins, differences, 6)
    other = filtered(scatter, new[users][rows], margins[:, rows], differences[rows], 6)
    np.testing.assert_allclose(other.evidence[:, new], one.evidence, rtol=1e-12)
    np.testing.assert_allclose(other.means[:, new], one.means, rtol=1e-10, atol=1e-13)


@given(SEEDS, st.integers(1, 4))
def test_a_weight_is_a_number_of_votes(seed, times):
    rng = np.random.default_rng(seed)
    scatter = scatter_of(rng, 2, 4, 3)
    users = rng.integers(0, 4, 12)
    differences, margins = votes_of(rng, 2, 4, 12)
    weighted = filtered(scatter, users, margins, differences, 4, weight=np.full(12, float(times)))
    rows = np.repeat(np.arange(12), times)
    assert_same(weighted, filtered(scatter, users[rows], margins[:, rows], differences[rows], 4), rtol=1e-10)
    none = filtered(scatter, users, margins, differences, 4, weight=np.zeros(12))
    assert_same(none, Beliefs.prior(scatter, 4), rtol=0)


@given(SEEDS, st.floats(0.01, 500))
def test_covariances_stay_covariances(seed, weight):
    rng = np.random.default_rng(seed)
    scatter = scatter_of(rng, 1, 3, 3, size=10.0)
    differences, margins = votes_of(rng, 1, 3, 20)
    beliefs = filtered(scatter, np.zeros(20, int), margins * 30, differences, 1, weight=np.full(20, weight))
    values = np.linalg.eigvalsh(beliefs.covariances[0, 0])
    assert values.min() > -1e-9 * np.trace(scatter.covariances[0])
    assert np.isfinite(beliefs.evidence).all()
    prior = np.linalg.eigvalsh(scatter.covariances[0])
    assert (values <= prior + 1e-9).all()


@given(SEEDS)
def test_decay_forgets(seed):
    """Decay 1 keeps all; what a vote long ago has said is gone."""
    rng = np.random.default_rng(seed)
    scatter = scatter_of(rng, 2, 3, 3)
    prior = scatter.covariances
    differences, margins = votes_of(rng, 2, 3, 60)
    users = np.zeros(60, int)
    plain = filtered(scatter, users, margins, differences, 1, passes=1)
    kept = filtered(scatter, users, margins, differences, 1, decay=1 - 1e-12, prior=prior)
    assert_same(plain, kept, rtol=1e-6, atol=1e-7)
    whole = filtered(scatter, users, margins, differences, 1, decay=0.5, prior=prior)
    late = filtered(scatter, users[:40], margins[:, 20:], differences[20:], 1, decay=0.5, prior=prior)
    np.testing.assert_allclose(whole.means, late.means, atol=1e-5)
    np.testing.assert_allclose(whole.evidence, late.evidence, atol=1e-5)


@given(SEEDS, st.floats(0.05, 0.95))
def test_decay_moves_natural_parameters_towards_the_prior(seed, decay):
    rng = np.random.default_rng(seed)
    scatter = scatter_of(rng, 1, 3, 3)
    differences, margins = votes_of(rng, 1, 3, 5)
    beliefs = filtered(scatter, np.zeros(5, int), margins, differences, 1)
    means, covariances = discounted(beliefs.means, beliefs.covariances, decay, scatter.covariances)
    prior, before = np.linalg.inv(scatter.covariances[0]), np.linalg.inv(beliefs.covariances[0, 0])
    wanted = np.linalg.inv(decay * before + (1 - decay) * prior)
    np.testing.assert_allclose(covariances[0, 0], wanted, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(means[0, 0], wanted @ (decay * before @ beliefs.means[0, 0]), rtol=1e-6, atol=1e-8)


def test_decay_needs_the_prior():
    scatter = Scatter.none(1, 2)
    with pytest.raises(ValueError, match="expected the covariances of the prior"):
        filtered(scatter, np.zeros(1, int), np.zeros((1, 1)), np.zeros((1, 2)), 1, decay=0.5)


def test_without_scatter_evidence_is_that_of_heads():
    rng = np.random.default_rng(0)
    users = rng.integers(0, 5, 30)
    differences, margins = votes_of(rng, 2, 4, 30)
    beliefs = filtered(Scatter.none(2, 4), users, margins, differences, 5)
    for k in range(2):
        wanted = np.bincount(users, weights=log_sigmoid(margins[k]), minlength=5)
        np.testing.assert_allclose(beliefs.evidence[k], wanted, rtol=1e-12)


def test_shrunken_margins_know_users_and_the_population():
    rng = np.random.default_rng(0)
    scatter = scatter_of(rng, 2, 4, 3)
    differences, margins = votes_of(rng, 2, 4, 9000)  # more rows than are gathered at once
    beliefs = filtered(scatter, np.arange(9000) % 3, margins, differences, 3)
    z, outside = scatter.coordinates(differences)
    variance = scatter.residual[:, None] * outside
    index = rng.integers(-1, 3, 9000)
    found = shrunken_margins(beliefs, index, margins, z, variance, scatter)
    for i in (*range(50), 8999):
        for k in range(2):
            known = index[i] >= 0
            mean = beliefs.means[k, index[i]] @ z[i] if known else 0.0
            covariance = beliefs.covariances[k, index[i]] if known else scatter.covariances[k]
            wanted = expected_log_odds(margins[k, i] + mean, z[i] @ covariance @ z[i] + variance[k, i])
            np.testing.assert_allclose(found[k, i], wanted, rtol=1e-9)
    with pytest.raises(ValueError, match="expected the scatter"):
        shrunken_margins(beliefs, index, margins, z, variance)


@settings(max_examples=10)
@given(SEEDS)
def test_variance_outside_the_basis_is_what_the_basis_lacks(seed):
    rng = np.random.default_rng(seed)
    full = Scatter(np.eye(5), np.eye(5)[None] * 2.0, np.zeros(1))
    basis = np.linalg.qr(rng.normal(size=(5, 5)))[0][:, :2]
    part = Scatter(basis, np.eye(2)[None] * 2.0, np.full(1, 2.0))
    differences = rng.normal(size=(8, 5))
    wanted = full.prior_variance(*full.coordinates(differences))
    np.testing.assert_allclose(part.prior_variance(*part.coordinates(differences)), wanted, rtol=1e-12)
