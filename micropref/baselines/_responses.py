"""Single responses, whose rewards are asked for, read as rows of X are."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from micropref._arrays.backend import Array, to_numpy
from micropref._estimator.fitting import twin
from micropref._rows.comparisons import Comparisons
from micropref._rows.masks import refuse_masked
from micropref.baselines._base import PersonalRewards

__all__ = ["response_rows"]


def response_rows(
    estimator: PersonalRewards, features: Array, context: ArrayLike | None
) -> tuple[np.ndarray, np.ndarray]:
    """Contexts (n_responses, n_context_features), zeros if not given, and features (n_responses, n_features).

    Raises
    ------
    ValueError
        If one is not of the width seen in `fit`, or an entry is not finite or out of range.
    """
    # These are not the columns whose number and names an estimator knows.
    reader = twin(estimator)
    reader.__dict__.pop("feature_names_in_", None)
    values = Comparisons.read(reader, features, first=True, n_context_features=0, host=True).difference
    width = estimator.n_context_features
    wanted = estimator.n_features_in_ - width
    if values.shape[1] != wanted:
        raise ValueError(
            f"expected features of shape (n_responses, {wanted}), those of single responses without context, "
            f"got {tuple(values.shape)}"
        )
    if context is None:
        return np.zeros((len(values), width), dtype=values.dtype), values
    refuse_masked(context, "context")
    contexts = np.asarray(to_numpy(context))
    if contexts.shape != (len(values), width):
        raise ValueError(f"expected context of shape {(len(values), width)}, got {tuple(contexts.shape)}")
    rows = Comparisons.read(reader, np.hstack([contexts, values]), first=True, n_context_features=width, host=True)
    return rows.context, rows.difference
