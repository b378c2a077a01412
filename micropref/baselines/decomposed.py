"""DecomposedRewards (DRMs): principal directions of preferences as reward heads, weighted by a few labels."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.linalg import eigh
from sklearn.utils import check_random_state

from micropref._estimator.parameters import check_choice, check_integer, check_real
from micropref._estimator.saved import COUNT, listed
from micropref._rows.comparisons import Comparisons
from micropref.baselines._heads import ReweightedHeads, oriented, scaled_to_margin, uniform
from micropref.kernels._pointwise import log_sigmoid, log_softmax

__all__ = ["DecomposedRewards"]

_BASES = ("pca", "random")
_PRIORS = ("population", "uniform")
# Share of the largest variance below which a direction holds rounding errors, which no scale may blow up.
_NEGLIGIBLE = 1e-10


class DecomposedRewards(ReweightedHeads):
    r"""Principal directions of the differences chosen − rejected as reward heads, both ways each.

    Decomposed reward models (DRMs; Luo et al., 2025). With z_i = s_i d_i, the features of the chosen less those of the
    rejected response, and μ = (1/Ω) Σ_i ω_i z_i, the eigenvectors of

    .. math::

        C = \frac{1}{\Omega} \sum_i \omega_i (z_i - \mu)(z_i - \mu)^\top
          = \frac{1}{\Omega} \sum_i \omega_i\, d_i d_i^\top - \mu \mu^\top

    with the largest eigenvalues are a basis v_1, ..., v_n of orthogonal reward heads. Each is taken with both signs, as
    in the authors' code: what one user seeks, another avoids. A user's votes weight the 2n heads as HyRe does,

    .. math::

        \pi_{uk} \propto \pi_k \exp\Bigl( \frac{1}{\tau} \sum_{i \in u} \omega_i \log \sigma(s_i w_k^\top d_i) \Bigr),
            \qquad
        \text{reward of } u = \sum_k \pi_{uk}\, w_k^\top \varphi.

    **Centring.** Features of pairs are never centred in this package, because a shift introduces a position bias.
    μ is another matter: z_i is oriented by the label and not by the order, so that swapping a pair
    leaves z_i, μ and C as they are. The second equation shows what centring does: the labels enter the basis only by
    μμᵀ, which takes the direction of general agreement out of it. ``center=False`` gives the principal directions of
    the differences whatever the labels.

    Differences from the paper: heads are scaled over the training rows, where the paper standardises the rewards over
    the few adaptation examples, whose spread is then not a user's own; the reward head of the language model, which the
    paper adds to the basis, does not exist for frozen embeddings; and the prior of the weights, see `prior`.

    Parameters
    ----------
    n_components : int, default=20
        Number n of directions; fewer are kept where the rows vary in fewer.
    n_context_features : int, default=0
        Number of leading columns of X that describe the context, which this method does not read.
    basis : {"pca", "random"}, default="pca"
        "random": random orthogonal directions instead, the paper's control.
    center : bool, default=True
        Subtract μ, as the authors' code does.
    margin : float, default=1.4142135623730951
        Root mean square of every head's margins over the training rows, in nats. √2 is the size that the paper's
        rewards of unit variance give to differences of two.
    temperature : float, default=1.0
        τ.
    prior : {"population", "uniform"}, default="population"
        π_k ∝ exp((1/τΩ) Σ_i ω_i log σ(s_i w_kᵀ d_i)) over the training rows, as much as one vote says; or equal, as in
        the paper, where every user has labels: without any, the two signs of each direction cancel and all
        probabilities are ½.
    average : {"rewards", "probabilities"}, default="rewards"
        Predict by the weighted mean of the rewards, as the paper does, or of the heads' probabilities.
    random_state : int, RandomState instance or None, default=None
        Seed of the random basis.

    Attributes
    ----------
    coef_ : ndarray of shape (2 n, n_features)
        Heads: the directions in order of their eigenvalues, each signed as the training rows prefer it on average, then
        their negatives in the same order.
    explained_variance_ : ndarray of shape (n,)
        Variance of z along each direction, about μ if centred.
    n_components_ : int
        Directions kept.
    weights_ : ndarray of shape (2 n,)
        π_k.
    classes_ : ndarray of shape (2,)
    n_features_in_ : int

    References
    ----------
    Luo et al., "Rethinking Diverse Human Preference Learning through Principal Component Analysis", 2025,
    arXiv:2502.13131.

    Examples
    --------
    Responses differ most in their first feature, which half of the annotators like.

    >>> import numpy as np
    >>> from micropref.baselines import DecomposedRewards
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(400, 3)) * [3, 1, 1]
    >>> y = (X[:, 0] * np.where(np.arange(400) % 2, 1, -1) > 0).astype(int)
    >>> model = DecomposedRewards(2).fit(X, y)
    >>> np.abs(model.coef_).argmax(axis=1)[0].item(), model.coef_.shape
    (0, (4, 3))
    >>> model = model.partial_fit(X[1:11:2], y[1:11:2], groups=["ann"] * 5)
    >>> model.score(X[101::2], y[101::2], groups=["ann"] * 150) > 0.8
    True
    """

    _SHAPE = ("n_context_features", "n_components", "basis", "center", "prior")
    _STATE_ARRAYS = listed(coef_="KD", explained_variance_="N", weights_="K", _log_prior="K")
    _STATE_VALUES = listed(n_components_=COUNT)

    def __init__(
        self,
        n_components: int = 20,
        *,
        n_context_features: int = 0,
        basis: str = "pca",
        center: bool = True,
        margin: float = 2**0.5,
        temperature: float = 1.0,
        prior: str = "population",
        average: str = "rewards",
        random_state: Any = None,
    ):
        self.n_components = n_components
        self.n_context_features = n_context_features
        self.basis = basis
        self.center = center
        self.margin = margin
        self.temperature = temperature
        self.prior = prior
        self.average = average
        self.random_state = random_state

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_integer(self, "n_components", 1)
        check_choice(self, "basis", _BASES)
        check_choice(self, "prior", _PRIORS)
        check_real(self, "margin", 0.0, above_minimum=True)

    def _learn(self, rows: Comparisons) -> None:
        difference = rows.difference.astype(np.float64, copy=False)
        share = rows.dense_weight / rows.total_weight
        mean = (share * rows.dense_signs) @ difference
        size = float(np.sqrt(share @ np.einsum("nd,nd->n", difference, difference)))
        # A root of C: no more than these rows is ever held, which matters where features outnumber them.
        root = rows.dense_signs[:, None] * difference - mean if self.center else difference.copy()
        root *= np.sqrt(share)[:, None]
        if np.vdot(root, root) <= _NEGLIGIBLE * size**2:
            root = difference * np.sqrt(share)[:, None]  # all chose the same difference: it is all there is to say
        directions = self._directions(root)
        self.explained_variance_ = np.einsum("nm,nm->n", directions @ root.T, directions @ root.T)
        directions = scaled_to_margin(oriented(directions, mean, size), rows, self.margin)
        n = self.n_components_ = len(directions)
        self.coef_ = np.concatenate([directions, -directions])
        self._log_prior = uniform(2 * n)
        if self.prior == "population":
            margins = self._represent(rows.context, difference) * rows.dense_signs[:, None]
            self._log_prior = log_softmax((share @ log_sigmoid(margins))[:, None] / self.temperature)[:, 0]
        self.weights_ = np.exp(self._log_prior)

    def _directions(self, root: np.ndarray) -> np.ndarray:
        """Orthogonal unit vectors (n, d), from a root (n_rows, d) of C."""
        n_rows, width = root.shape
        n = min(self.n_components, width)
        if self.basis == "random":
            random = check_random_state(self.random_state)
            drawn: np.ndarray = np.linalg.qr(random.normal(size=(width, n)))[0].T
            return drawn
        if n_rows < width:
            _, deviation, axes = np.linalg.svd(root, full_matrices=False)
            variance, axes = deviation[:n] ** 2, axes[:n]
        else:
            variance, axes = eigh(root.T @ root, subset_by_index=(width - n, width - 1))
            variance, axes = variance[::-1], axes.T[::-1]
        found: np.ndarray = axes[variance > _NEGLIGIBLE * variance[0]]
        return found

    def _mean_reward(self, values: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        # Two signs of equal weights cancel exactly, in whatever order sums are taken.
        n, weights = self.n_components_, np.exp(numbers)
        rewards: np.ndarray = np.einsum("nk,nk->n", weights[:, :n] - weights[:, n:], values[:, :n])
        return rewards

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        # Equal weights of both signs are a coin until a user votes, and random directions may miss what matters.
        tags.classifier_tags.poor_score = self.prior == "uniform" or self.basis == "random"
        return tags
