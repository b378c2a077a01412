"""Every rival, small and quick, and comparisons for them."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.frozen import FrozenEstimator

from micropref import MixtureBradleyTerry
from micropref.baselines import (
    CategoricalRewards,
    ContextNeighbors,
    DecomposedRewards,
    GroupRewards,
    HardMixture,
    HypothesisReweighting,
    LowRankRewards,
    MeanVarianceRewards,
    RewardFactorization,
    SharedBaseEnsemble,
    UserRewards,
)
from micropref.baselines._base import PersonalRewards

C, D, N = 2, 4, 96


def rows(n: int = N, width: int = D, seed: int = 0):
    """Comparisons with context, labels, annotators: some of all rows are nobody's."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, C + width))
    annotator = np.where(rng.random(n) < 0.2, -1, np.arange(n) // 6)
    y = (X[:, C] * np.where(annotator % 2, 2, -2) + X[:, C + 1] + rng.logistic(size=n) > 0).astype(int)
    return X, y, annotator


def _mixture() -> MixtureBradleyTerry:
    X, y, annotator = rows()
    return MixtureBradleyTerry(2, n_init=1, random_state=0).fit(X[:, C:], y, groups=annotator)


def rivals() -> dict[str, PersonalRewards]:
    kind = {"n_context_features": C}
    return {
        "CategoricalRewards": CategoricalRewards(2, **kind),
        "ContextNeighbors": ContextNeighbors(7, **kind),
        "ContextNeighbors, no context": ContextNeighbors(7),
        "DecomposedRewards": DecomposedRewards(3, **kind),
        "GroupRewards": GroupRewards(1e-2, **kind),
        "GroupRewards, pooled": GroupRewards(1e-2, pooling=2.0, **kind),
        "HardMixture": HardMixture(2, n_init=2, random_state=0, **kind),
        "HypothesisReweighting": HypothesisReweighting(n_components=3, random_state=0, **kind),
        "HypothesisReweighting, given": HypothesisReweighting(FrozenEstimator(_mixture()), prior="heads", **kind),
        "LowRankRewards": LowRankRewards(2, random_state=0, **kind),
        "MeanVarianceRewards": MeanVarianceRewards(1, random_state=0, **kind),
        "RewardFactorization": RewardFactorization(2, **kind),
        "RewardFactorization, refined": RewardFactorization(2, init="svd", refine=True, user_prior="none", **kind),
        "SharedBaseEnsemble": SharedBaseEnsemble(3, random_state=0, **kind),
        "UserRewards": UserRewards(**kind),
    }


RIVALS = rivals()
each = pytest.mark.parametrize("name", RIVALS)
