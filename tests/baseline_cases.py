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
    MultiObjectiveRewards,
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


def ratings_for(width: int):
    """Responses of that many features, with a score for each of them and one against it: any reward is a mean."""
    rng = np.random.default_rng(width)
    features = rng.normal(size=(40, width))
    scores = features + 0.1 * rng.normal(size=features.shape)
    return features, np.hstack([scores, -scores])


class Rated(MultiObjectiveRewards):
    """Brings ratings to every fit, for tests and checks that have none to give."""

    def fit(self, X, y=None, sample_weight=None, groups=None):
        shape = X.shape if hasattr(X, "shape") else np.asarray(X).shape
        width = max(shape[1] - self.n_context_features, 1) if len(shape) == 2 else 1
        return super().fit(X, y, sample_weight, groups, ratings=ratings_for(width))

    def partial_fit(self, X, y=None, classes=None, sample_weight=None, groups=None):
        if not hasattr(self, "classes_"):
            return self.fit(X, y, sample_weight, groups)
        return super().partial_fit(X, y, classes, sample_weight, groups)

    def __reduce_ex__(self, protocol):
        return MultiObjectiveRewards, (), self.__getstate__()


# Saved and loaded as what it is.
Rated.__name__ = Rated.__qualname__ = MultiObjectiveRewards.__name__
Rated.__module__ = MultiObjectiveRewards.__module__


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
        "MultiObjectiveRewards": Rated(**kind),
        "RewardFactorization": RewardFactorization(2, **kind),
        "RewardFactorization, refined": RewardFactorization(2, init="svd", refine=True, user_prior="none", **kind),
        "SharedBaseEnsemble": SharedBaseEnsemble(3, random_state=0, **kind),
        "UserRewards": UserRewards(**kind),
    }


RIVALS = rivals()
each = pytest.mark.parametrize("name", RIVALS)
