"""How many heads a model of texts gets, where nothing was said: by annotators held out."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import clone

from micropref._arrays.backend import Array
from micropref._engine.dead_heads import dead_heads
from micropref._estimator.dead_heads import candidate_fits
from micropref._estimator.parameters import AUTO
from micropref._rows.groups import check_groups
from micropref._support.progress import say
from micropref.distributed import active_communicator
from micropref.mixture import MixtureBradleyTerry
from micropref.selection import select_n_components

__all__ = ["fit_components"]

# Every process holds out a fifth of its annotators.
_N_FOLDS = 5
# Annotators who answer twice, from which on some can be held out.
_LEAST_TO_CHOOSE = 10
# Which number is best shows long before heads have settled.
_STARTS_TO_CHOOSE, _TOL_TO_CHOOSE = 2, 1e-3


def fit_components(
    mixture: MixtureBradleyTerry,
    X: Array,
    groups: Any,
    sample_weight: ArrayLike | None,
    n_components: int | str,
) -> MixtureBradleyTerry:
    """Fit a mixture whose number of heads may be "auto"; all ranks of a distributed fit call this.

    Parameters
    ----------
    mixture : MixtureBradleyTerry
        Unfitted.
    X : array of shape (n_samples, n_columns)
        The first response is preferred in every row.
    groups, sample_weight : array-like of shape (n_samples,), optional
    n_components : int or "auto"
        "auto": chosen by `select_n_components`; one where fewer than ten annotators answer twice.
    """
    rows: dict[str, Any] = {"sample_weight": sample_weight, "groups": groups}
    if n_components != AUTO:
        mixture.set_params(n_components=n_components)
        return mixture.fit(X, **rows)
    ranks = active_communicator()
    known = ranks.together(lambda: check_groups(groups, len(X)))
    answers = np.zeros(0) if known is None else np.bincount(known.index[known.index >= 0])
    several = ranks.exchange(int((answers > 1).sum()))
    if sum(several) < _LEAST_TO_CHOOSE or min(several) < _N_FOLDS:
        why = f"{sum(several)} annotators who answer more than once are too few to distinguish heads"
        mixture.set_params(n_components=1)
        fitted = mixture.fit(X, **rows)
    else:
        # The heads themselves come from all starts, and from the tolerance of the mixture.
        quick = clone(mixture).set_params(
            n_init=min(mixture.n_init, _STARTS_TO_CHOOSE), tol=max(mixture.tol, _TOL_TO_CHOOSE)
        )
        found = select_n_components(quick, X, **rows)
        why = f"of {', '.join(map(str, found.candidates))}, chosen on held-out annotators"
        mixture.set_params(n_components=found.n_components)
        with candidate_fits(last=True):
            fitted = mixture.fit(X, **rows)
            while (dead := dead_heads(fitted.weights_)).any():  # in the fit to all rows, which no fold has seen
                mixture.set_params(n_components=int((~dead).sum()))
                fitted = mixture.fit(X, **rows)
    say(mixture.verbose if ranks.rank == 0 else 0, f"n_components={len(fitted.coef_)}: {why}")
    return fitted
