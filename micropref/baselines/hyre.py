"""HypothesisReweighting (HyRe): a few labels say which heads of an ensemble to believe."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, Self

import numpy as np
from sklearn.base import MetaEstimatorMixin, clone
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from micropref._estimator.errors import ModelFileError
from micropref._estimator.fitting import frozen
from micropref._estimator.parameters import check_choice, check_integer
from micropref._estimator.saveable import arrays_with_prefix, pack, unpack
from micropref._estimator.saved import REAL, listed
from micropref._estimator.state import Arrays
from micropref._rows.comparisons import Comparisons
from micropref.baselines._asking import AskingRewards, Disagreement
from micropref.baselines._heads import ReweightedHeads, diversity, scaled_to_margin, uniform
from micropref.baselines.shared_base import SharedBaseEnsemble

__all__ = ["HypothesisReweighting"]

_PRIORS = ("uniform", "heads")


class HypothesisReweighting(MetaEstimatorMixin, AskingRewards, ReweightedHeads):  # type: ignore[misc]
    r"""Reweight the heads of any ensemble by a few labels.

    HyRe (Lee et al., 2024). From heads w_k with prior weights π_k, and with the loss
    L_ik = −log σ(s_i w_kᵀ d_i) of a vote in nats,

    .. math::

        \pi_{uk} = \frac{\pi_k \exp\bigl(-\sum_{i \in u} \omega_i L_{ik} / \tau\bigr)}
            {\sum_j \pi_j \exp\bigl(-\sum_{i \in u} \omega_i L_{ij} / \tau\bigr)}, \qquad
        \text{reward of } u = \sum_k \pi_{uk}\, w_k^\top \varphi.

    The paper has equal π_k and τ = 1, for which the weights are Bayes' posterior of "one of the heads is this user's".

    `partial_fit` learns votes: rows with a group are that user's, rows without one the population's. `fit` learns the
    heads, or, where they are given, only looks at the shape of X; given heads need no `fit` before `partial_fit`.

    **Questions.** `query_scores` and `suggest` ask where the heads disagree, by the information in the answer about the
    head, I = H(Σ_k π_uk p_k) − Σ_k π_uk H(p_k) in nats, p_k = σ(w_kᵀd / τ).

    Differences from the paper: votes may have weights; a temperature; prior weights; heads from any source. Heads are
    linear on frozen features.

    Parameters
    ----------
    heads : estimator, "random" or None, default=None
        None: a `SharedBaseEnsemble`, fitted on the rows of `fit`. An estimator with `coef_` (K, d) after its fit, such
        as a `MixtureBradleyTerry` ("MiCRo heads"). "random": random directions that no data moved, of margins with root
        mean square 1 nat over the rows of `fit`, what a trained ensemble has to beat.
    n_components : int, default=100
        Number K of heads where they are not given, as in the paper.
    n_context_features : int, default=0
        Number of leading columns of X that describe the context; a given estimator that is fitted here gets the first
        of them, as many as its own `n_context_features` says.
    temperature : float, default=1.0
        τ; larger values trust votes less.
    prior : {"uniform", "heads"}, default="uniform"
        π_k are equal, or the `weights_` of the given estimator.
    average : {"rewards", "probabilities"}, default="rewards"
        Predict by the weighted mean of the rewards, as the paper does, or of the heads' probabilities.
    prefit : bool, default=True
        Use a given estimator as it is. False clones it and fits it on the rows of `fit`.
    random_state : int, RandomState instance or None, default=None
        Seed of heads that are not given, and with ``prefit=False`` of an estimator that has none.

    Attributes
    ----------
    heads_ : estimator or None
        The fitted source of the heads; None for random ones.
    coef_ : ndarray of shape (n_components, n_features)
    weights_ : ndarray of shape (n_components,)
        π_k.
    diversity_ : float
        One less the mean correlation, about zero, of the margins of two heads over the rows of `fit`: near 0 all heads
        are one, and no vote changes a prediction.
    classes_ : ndarray of shape (2,)
    n_features_in_ : int

    References
    ----------
    Lee et al., "Test-Time Alignment via Hypothesis Reweighting", 2024, arXiv:2412.08812.

    Examples
    --------
    One annotator out of two likes the first feature, the other dislikes it.

    >>> import numpy as np
    >>> from micropref import MixtureBradleyTerry
    >>> from micropref.baselines import HypothesisReweighting
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(800, 2))
    >>> annotator = np.arange(800) // 4
    >>> y = (X[:, 0] * np.where(annotator % 2 == 0, -3, 3) > 0).astype(int)
    >>> mixture = MixtureBradleyTerry(2, random_state=0).fit(X, y, groups=annotator)
    >>> model = HypothesisReweighting(mixture).partial_fit(X[:4], y[:4], groups=["ann"] * 4)
    >>> model.mixture_weights(X[:2], groups=["ann", "bob"]).max(axis=1).round(1)
    array([1. , 0.5])
    >>> bool(model.score(X[:400], X[:400, 0] < 0, groups=["ann"] * 400) > 0.9)
    True
    """

    _SHAPE = ("n_context_features", "heads", "n_components", "prior", "prefit")
    _STATE_ARRAYS = listed(coef_="KD", weights_="K", _log_prior="K")
    _STATE_VALUES = listed(diversity_=REAL)
    _SAVED_ENTRIES, _SAVED_SINCE = ("users", "heads"), ("given",)
    _SAVED_TENSORS = rf"{ReweightedHeads._SAVED_TENSORS}|heads\..+"

    def __init__(
        self,
        heads: Any = None,
        *,
        n_components: int = 100,
        n_context_features: int = 0,
        temperature: float = 1.0,
        prior: str = "uniform",
        average: str = "rewards",
        prefit: bool = True,
        random_state: Any = None,
    ):
        self.heads = heads
        self.n_components = n_components
        self.n_context_features = n_context_features
        self.temperature = temperature
        self.prior = prior
        self.average = average
        self.prefit = prefit
        self.random_state = random_state

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_integer(self, "n_components", 1)
        check_choice(self, "prior", _PRIORS)
        if isinstance(self.heads, str):
            check_choice(self, "heads", ("random",))
        elif self.heads is not None and not hasattr(self.heads, "fit"):
            raise ValueError(f'expected an estimator, "random" or None as heads, got {self.heads!r}')
        if self.prior == "heads" and not self._given():
            raise ValueError(f'expected an estimator whose weights prior="heads" can take, got heads={self.heads!r}')

    def _given(self) -> bool:
        return self.heads is not None and not isinstance(self.heads, str)

    def _learns_first_rows(self) -> bool:
        return not (self._given() and self._is_prefit())

    def _is_prefit(self) -> bool:
        """Whether given heads are used as they are; frozen ones never learn."""
        return self.prefit or isinstance(self.heads, FrozenEstimator)

    def _learn(self, rows: Comparisons) -> None:
        width = rows.difference.shape[1]
        if isinstance(self.heads, str):
            random = check_random_state(self.random_state)
            self.heads_ = None
            coef = scaled_to_margin(random.normal(size=(self.n_components, width)), rows, 1.0)
        else:
            self.heads_ = self._fitted_heads() if not self._learns_first_rows() else self._fit_heads(rows)
            coef = np.array(self.heads_.coef_, dtype=np.float64)
            if coef.ndim != 2 or coef.shape[1] != width:
                raise ValueError(
                    f"expected heads with coef_ of shape (n_components, {width}), the columns of X beside "
                    f"n_context_features={self.n_context_features}, got {coef.shape}"
                )
        log_prior = uniform(len(coef))
        if self.prior == "heads":
            weights = np.asarray(self.heads_.weights_, dtype=np.float64)  # type: ignore[union-attr]
            log_prior = np.log(np.maximum(weights, np.finfo(np.float64).tiny))
        self.coef_, self._log_prior = coef, log_prior
        self.weights_ = np.exp(log_prior)
        self.diversity_ = diversity(coef, rows)

    def _fitted_heads(self) -> Any:
        try:
            check_is_fitted(self.heads, "coef_")
        except NotFittedError:
            raise NotFittedError(
                "The heads of this HypothesisReweighting are not fitted, or were cloned and lost their fit. Fit them "
                "first, wrap them in sklearn.frozen.FrozenEstimator so that clones keep them, or use prefit=False"
            ) from None
        return frozen(self.heads)

    def _fit_heads(self, rows: Comparisons) -> Any:
        if self.heads is None:
            heads, own = SharedBaseEnsemble(self.n_components, random_state=self.random_state), 0
        else:
            heads = clone(self.heads)
            own = getattr(heads, "n_context_features", 0)
            # One seed makes both stages repeatable.
            if heads.get_params(deep=False).get("random_state", self) is None:
                heads.set_params(random_state=self.random_state)
        if own > self.n_context_features:
            raise ValueError(
                f"expected heads that read at most the first {self.n_context_features} context column(s), as "
                f"n_context_features says, got {own}"
            )
        X = rows.difference if own == 0 else np.hstack([rows.context[:, :own], rows.difference])
        # Not every estimator with heads knows what annotators are.
        annotators = {} if rows.groups is None else {"groups": rows.groups.index}
        return heads.fit(X, rows.dense_signs, sample_weight=rows.weight, **annotators)

    def _rule(self, user: Hashable | None) -> Disagreement:
        return Disagreement(self._describe(user), self.temperature)

    def _export(self) -> tuple[Arrays, dict[str, Any]]:
        arrays, description = super()._export()
        description["parameters"]["heads"] = self.heads if isinstance(self.heads, str) else None
        if self.heads_ is None:
            return arrays, {**description, "heads": None}
        of_heads, heads = pack(self.heads_)
        arrays.update({f"heads.{name}": array for name, array in of_heads.items()})
        return arrays, {**description, "heads": heads, "given": self._given()}

    @classmethod
    def _restore(cls, arrays: Arrays, description: dict[str, Any]) -> Self:
        heads = (
            None if description["heads"] is None else unpack(arrays_with_prefix("heads", arrays), description["heads"])
        )
        if heads is not None and description.get("given"):
            # They come fitted, also where they were fitted here.
            parameters = {**description["parameters"], "heads": heads, "prefit": True}
            description = {**description, "parameters": parameters}
        model = super()._restore(arrays, description)
        if heads is not None and np.shape(getattr(heads, "coef_", ())) != model.coef_.shape:
            raise ModelFileError("heads.coef: expected the heads of this model, got others")
        model.heads_ = heads
        return model

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        # Random heads know nothing before a user votes.
        tags.classifier_tags.poor_score = isinstance(self.heads, str)
        return tags
