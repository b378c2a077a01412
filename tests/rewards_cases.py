"""Rivals with rewards of their own, and comparisons for them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit
from sklearn.base import clone

from micropref import MixtureBradleyTerry
from micropref._rows.comparisons import Comparisons
from micropref._rows.groups import check_groups
from micropref._rows.layout import PairReader
from micropref.baselines import (
    CategoricalRewards,
    ContextNeighbors,
    GroupRewards,
    HardMixture,
    MeanVarianceRewards,
    RewardFactorization,
    UserRewards,
)

CONTEXT = 2


def methods(**parameters):
    """One of each, well determined by few rows, for data with CONTEXT context columns."""
    common = {"n_context_features": CONTEXT, "tol": 1e-9, "alpha": 0.05} | parameters
    return [
        HardMixture(2, n_init=2, random_state=0, **common),
        UserRewards(2.0, **common),
        MeanVarianceRewards(1, variance_alpha=1e-4, random_state=0, **(common | {"alpha": 0.01})),
        CategoricalRewards(2, **common),
        ContextNeighbors(7, local_alpha=2.0, **common),
        GroupRewards(**common),
        GroupRewards(pooling=2.0, **common),
        RewardFactorization(2, refine=False, **common),
    ]


NAMES = [type(method).__name__ + "_pooled" * bool(getattr(method, "pooling", 0)) for method in methods()]


each = pytest.mark.parametrize("method", methods(), ids=NAMES)


linear = pytest.mark.parametrize(
    "method", [m for m in methods() if hasattr(m, "rewards")], ids=lambda m: type(m).__name__
)


def small(seed=0, n=40, d=3, users=6):
    """Comparisons with context, labels, users (−1: nobody), weights."""
    rng = np.random.default_rng([seed, n, d])
    X = rng.normal(size=(n, CONTEXT + d))
    user = rng.integers(-1, users, size=n)
    taste = np.sign(rng.normal(size=users + 1))[user]
    y = (taste * X[:, CONTEXT] + 0.7 * X[:, CONTEXT + 1] + 0.5 * rng.normal(size=n) > 0).astype(int)
    return X, y, user, rng.exponential(size=n) + 0.1


def votes_of(tastes, n_votes, seed, spread=1.0):
    """Comparisons by users with the tastes (n_users, d), labels, users."""
    rng = np.random.default_rng([seed, 7])
    user = np.repeat(np.arange(len(tastes)), n_votes)
    D = spread * rng.normal(size=(len(user), tastes.shape[1]))
    return D, (rng.random(len(user)) < expit((D * tastes[user]).sum(axis=1))).astype(int), user


def loss(model, X, y, groups=None):
    return -model.log_likelihood(X, y, groups=groups)


def plain(**parameters):
    return MixtureBradleyTerry(1, **parameters)


def calibration_error(p, y, bins=10):
    """Largest distance of the frequency from the mean probability over bins of equally many rows."""
    parts = np.array_split(np.argsort(p, kind="stable"), bins)
    return max(abs(p[part].mean() - y[part].mean()) for part in parts)


def training_rows(seed=0, n=30, d=4):
    X, y, user, weight = small(seed, n=n, d=d)
    return Comparisons(PairReader(X, CONTEXT), (2 * y - 1).astype(np.int8), weight, check_groups(user, n))


SEEDS = pytest.mark.parametrize("seed", [0, 1])


def fitted(method, X, y, weight=None, user=None):
    return clone(method).fit(X, y, weight, user)
