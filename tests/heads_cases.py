"""Rivals made of linear heads, data for them, and how they are compared in planted worlds."""

from __future__ import annotations

import numpy as np
from scipy.special import expit
from sklearn.base import clone

from micropref._rows.comparisons import Comparisons
from micropref._rows.groups import check_groups
from micropref._rows.layout import PairReader
from micropref.baselines import DecomposedRewards, HypothesisReweighting, LowRankRewards, SharedBaseEnsemble
from micropref.baselines._base import PersonalRewards
from micropref.mixture import MixtureBradleyTerry


def models(seed: int = 0, n_context_features: int = 0) -> list[PersonalRewards]:
    kind = {"random_state": seed, "n_context_features": n_context_features}
    return [
        SharedBaseEnsemble(5, **kind),
        SharedBaseEnsemble(5, average="probabilities", **kind),
        HypothesisReweighting(n_components=3, **kind),
        HypothesisReweighting("random", n_components=6, **kind),
        DecomposedRewards(3, **kind),
        DecomposedRewards(3, basis="random", prior="uniform", **kind),
        LowRankRewards(2, n_init=1, tol=1e-8, max_iter=5000, **kind),
        LowRankRewards(1, **kind),
    ]


def identify(model: PersonalRewards) -> str:
    return repr(model).replace("\n", "")[:60]


def rows(seed: int = 0, n_users: int = 30, n_each: int = 6, d: int = 4):
    """Users between two tastes, with a user more whose label is a coin."""
    rng = np.random.default_rng(seed)
    D = 1.5 * rng.normal(size=(n_users * n_each, d))
    users = np.repeat(np.arange(n_users), n_each)
    share = rng.random(n_users)[users]
    y = (rng.random(len(D)) < expit(2 * share * D[:, 0] + 2 * (1 - share) * D[:, 1])).astype(int)
    return D, y, users


def training_rows(seed: int = 0, **kind) -> Comparisons:
    D, y, users = rows(seed, **kind)
    rng = np.random.default_rng(seed)
    users = np.where(rng.random(len(users)) < 0.2, -1, users)
    return Comparisons(
        PairReader(D, 0), (2 * y - 1).astype(np.int8), rng.uniform(0.2, 2, len(D)), check_groups(users, len(D))
    )


def drawn_labels(rng, margins):
    return (rng.random(len(margins)) < expit(margins)).astype(int)


def quality(model, X, margins, groups):
    """Expected accuracy and log-likelihood of new labels."""
    p, odds = expit(margins), model.decision_function(X, groups=groups)
    return np.array(
        [
            np.where(odds > 0, p, 1 - p).mean(),
            -(p * np.logaddexp(0, -odds) + (1 - p) * np.logaddexp(0, odds)).mean(),
        ]
    )


def compare(seed, n_votes, heads, draw, candidates, n_new=100, n_test=50):
    """Qualities of fitted candidates for new users of these heads (n_new, d), each after `n_votes` votes."""
    rng = np.random.default_rng(seed + 1000)
    users, asked = np.repeat(np.arange(n_new), n_votes), np.repeat(np.arange(n_new), n_test)
    votes, X = draw(rng, len(users)), draw(rng, len(asked))
    y = drawn_labels(rng, np.einsum("nd,nd->n", votes, heads[users]))
    margins = np.einsum("nd,nd->n", X, heads[asked])
    names, who = users + 5000, asked + 5000
    return {
        name: quality(model.partial_fit(votes, y, groups=names), X, margins, who) for name, model in candidates.items()
    }


def standard(seed, X, y, users=None, n_components=3):
    mixture = MixtureBradleyTerry(n_components, alpha=1e-3, n_init=2, random_state=seed).fit(X, y, groups=users)
    return {
        "single": LowRankRewards(1).fit(X, y),
        "shared": SharedBaseEnsemble(32, alpha=1e-3, prior_margin=1.0, random_state=seed).fit(X, y),
        "random": HypothesisReweighting("random", n_components=32, random_state=seed).fit(X, y),
        "hyre": HypothesisReweighting(mixture).fit(X, y),
        "drm": DecomposedRewards(random_state=seed).fit(X, y),
        "lore": LowRankRewards(n_components, alpha=1e-3, weight_penalty=3.0, max_iter=2000, random_state=seed).fit(
            X, y, groups=users
        ),
    }


def assert_best(found, winner, accuracy, nats):
    for name, quality in found.items():
        if name != winner:
            ahead = found[winner] - quality
            assert ahead[0] > accuracy, (name, found)
            assert ahead[1] > nats, (name, found)


def normal(d):
    return lambda rng, n: rng.normal(size=(n, d))


def adapted(model, X, y, users, weight=None):
    """Fitted on all rows but the last 20, which are votes of a new user, of a known one and of everybody."""
    part = (lambda w: None if w is None else w[:-20]), (lambda w: None if w is None else w[-20:])
    model = clone(model).fit(X[:-20], y[:-20], sample_weight=part[0](weight), groups=users[:-20])
    return model.partial_fit(X[-20:], y[-20:], sample_weight=part[1](weight), groups=users[-20:])


def votes_world(seed):
    D, y, users = rows(seed)
    names = users.astype(object)
    names[-20:] = ["new"] * 8 + [0] * 8 + [None] * 4
    return D, y, names
