"""DecomposedRewards: principal directions, their signs, where they must win."""

from __future__ import annotations

import numpy as np
import pytest
from heads_cases import assert_best, compare, drawn_labels, rows, standard

from micropref.baselines import DecomposedRewards


@pytest.mark.parametrize("center", [False, True])
def test_directions_are_principal_components(center):
    D, y, _ = rows()
    model = DecomposedRewards(3, center=center, margin=1.5).fit(D, y)
    Z = (2 * y - 1)[:, None] * D
    if center:
        Z = Z - Z.mean(axis=0)
    _, singular, components = np.linalg.svd(Z, full_matrices=False)
    np.testing.assert_allclose(model.explained_variance_, singular[:3] ** 2 / len(D), rtol=1e-10)
    units = model.coef_[:3] / np.linalg.norm(model.coef_[:3], axis=1, keepdims=True)
    np.testing.assert_allclose(np.abs(np.einsum("nd,nd->n", units, components[:3])), 1, rtol=1e-10)
    np.testing.assert_array_equal(model.coef_[3:], -model.coef_[:3])
    np.testing.assert_allclose(np.sqrt((model.component_scores(D) ** 2).mean(axis=0)), 1.5, rtol=1e-10)
    assert (((2 * y - 1) @ D) @ model.coef_[:3].T > 0).all()  # signed as the rows prefer


def test_only_centring_lets_labels_into_the_basis():
    D, y, _ = rows()
    other = np.random.default_rng(1).integers(0, 2, len(D))

    def basis(labels, **kind):
        coef = DecomposedRewards(2, prior="uniform", **kind).fit(D, labels).coef_[:2]
        return coef * np.sign(coef[:, :1])

    np.testing.assert_allclose(basis(y, center=False), basis(other, center=False), rtol=1e-12)
    assert np.abs(basis(y) - basis(other)).max() > 0.01
    # What everybody agrees on is taken out of the directions in which they are said to differ.
    agreement = DecomposedRewards(4).fit(D, D[:, 2] > 0)
    assert np.abs(agreement.coef_[3]).argmax() == 2


def test_opposite_heads_of_equal_weight_say_nothing_at_all():
    D, y, _ = rows()
    model = DecomposedRewards(3, prior="uniform").fit(D, y)
    assert (model.decision_function(D) == 0).all()
    assert (model.rewards(D) == 0).all()
    model.partial_fit(D[:5], y[:5], groups=["ann"] * 5)
    assert (model.decision_function(D, groups=["ann"] * len(D)) != 0).all()


def test_directions_without_variance_are_dropped():
    rng = np.random.default_rng(0)
    D = rng.normal(size=(50, 2)) @ rng.normal(size=(2, 6))
    model = DecomposedRewards(6).fit(D, D[:, 0] > 0)
    assert model.n_components_ == 2
    assert model.coef_.shape == (4, 6)
    one = DecomposedRewards(6).fit(D[:1], [1])  # nothing varies about the mean
    assert one.n_components_ == 1
    assert one.predict(D[:1]) == [1]
    tied = DecomposedRewards(2).fit(np.vstack([D, -D]), np.ones(100), sample_weight=np.full(100, 0.5))
    assert (np.take_along_axis(tied.coef_[:2], np.abs(tied.coef_[:2]).argmax(axis=1)[:, None], axis=1) > 0).all()


@pytest.mark.parametrize("seed", range(3))
def test_decomposed_rewards_win_where_users_differ_in_what_varies_most(seed):
    rng = np.random.default_rng(seed)
    axes = np.linalg.qr(rng.normal(size=(40, 40)))[0]
    size = np.r_[np.full(4, 3.0), np.full(36, 0.3)]

    def draw(rng, n):
        return (rng.normal(size=(n, 40)) * size) @ axes.T

    def heads(n):
        return axes.T[rng.integers(0, 4, n)] * rng.choice([-1, 1], n)[:, None]

    X = draw(rng, 2000)  # 2 000 annotators of one vote: nothing tells them apart
    y = drawn_labels(rng, np.einsum("nd,nd->n", X, heads(2000)))
    candidates = standard(seed, X, y)
    candidates |= {
        "drm": DecomposedRewards(4).fit(X, y),
        "drm, random": DecomposedRewards(4, basis="random", random_state=seed).fit(X, y),
    }
    found = compare(seed, 8, heads(100), draw, candidates)
    assert_best(found, "drm", accuracy=0.0, nats=0.015)
    assert found["drm"][0] > found["single"][0] + 0.15
    assert found["drm"][0] > found["drm, random"][0] + 0.03
