"""A gate for few labels: labelled contexts of one cluster share their evidence."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from micropref._users.clusters import ContextClusters, distinct_contexts, find_clusters
from micropref.kernels._pointwise import log_softmax

__all__ = ["N_STRAY", "ClusterGate"]

# Shares of a cluster's rows that do not follow its component, and the logarithms of what is thought of each beforehand.
# With few labels these prior odds decide: without a reason against it, a cluster has one component.
_STRAY = np.array([0.0, 0.1, 0.2, 0.4, 0.7, 1.0])
N_STRAY = len(_STRAY)
_LOG_PRIOR = np.log([0.9, 0.02, 0.02, 0.02, 0.02, 0.02])
# Labelled rows that are kept, where there are no clusters yet, to look for some among more; and known clusters.
_MOST_ROWS = 4096
_MOST_CLUSTERS = 4096

Floats = NDArray[np.float64]


class ClusterGate:
    """Weights of the components by the evidence of all labelled contexts in the same cluster.

    Every cluster C has one component z, drawn from the prior weights, but a share ε of its rows strays and draws a
    component of its own. With the log-likelihoods −L_ik / τ of the labelled rows,

        ℓ_k(C, ε) = Σ_{i∈C} ω_i log((1 − ε) exp(−L_ik / τ) + ε Σ_j f⁰_j(c_i) exp(−L_ij / τ)),
        f(c | ε)  = (1 − ε) softmax_k(log f⁰_k(c) + ℓ_k(C, ε)) + ε f⁰(c)      for c in C,
        f(c)      = Σ_ε p(ε | all labels) f(c | ε),

    where p(ε | all labels) ∝ p(ε) Π_C Σ_k f⁰_k(C) exp ℓ_k(C, ε) is exact: labels that contradict each other inside of
    clusters say that clusters mean nothing. Where all rows stray, ε = 1, weights are those of a linear gate. Where
    clusters consist of clusters, the sum is over their levels, too. A context near no cluster gets the prior weights
    f⁰. Where contexts do not cluster at all, see `find_clusters`, the linear gate is all that there is.

    Clusters are found among the contexts of the first rows; while there are none, they are looked for again whenever
    the number of rows has doubled, up to 4 096. A later labelled context near no cluster begins a new one.

    Parameters
    ----------
    n_context_features, n_components : int
    """

    def __init__(self, n_context_features: int, n_components: int):
        self._seen: _Rows | None = _Rows.none(n_context_features, n_components)
        self._next_try = 1
        self._levels: tuple[_Level, ...] = ()

    @property
    def clusters(self) -> ContextClusters | None:
        """The most likely clusters; None where contexts have none."""
        if not self._levels:
            return None
        return self._levels[int(np.argmax(logsumexp(self._log_shares(), axis=1)))].clusters

    def look_among(self, contexts: NDArray[np.floating]) -> None:
        """Take in contexts without labels (n, n_context_features), in which to look for clusters."""
        if self._seen is not None:
            n, k = len(contexts), self._seen.evidence.shape[1]
            rows = _Rows(np.asarray(contexts), np.zeros((n, k)), np.zeros(n), np.zeros((n, k)))
            self._seen = self._seen.with_rows(rows)

    def add(
        self,
        contexts: NDArray[np.floating],
        evidence: NDArray[np.floating],
        weight: Floats,
        log_prior: NDArray[np.floating],
    ) -> None:
        """Take in labelled pairs.

        Parameters
        ----------
        contexts : ndarray of shape (n, n_context_features)
        evidence : ndarray of shape (n_components, n)
            −L/τ, in nats.
        weight : ndarray of shape (n,)
            Above 0.
        log_prior : ndarray of shape (n_components, n)
            log f⁰.
        """
        rows = _Rows(
            np.asarray(contexts), evidence.T.astype(np.float64), np.asarray(weight), log_prior.T.astype(np.float64)
        )
        if self._seen is not None:
            rows = self._seen = self._seen.with_rows(rows)
            if len(rows.contexts) >= self._next_try:
                self._next_try = 2 * len(rows.contexts)
                found = find_clusters(rows.contexts, np.where(rows.weight > 0, rows.weight, 1.0))
                self._levels = tuple(_Level(each, _Table.empty(rows.evidence.shape[1])) for each in found)
            if self._levels or len(rows.contexts) > _MOST_ROWS:
                self._seen = None
        self._levels = tuple(level.with_rows(rows.labelled()) for level in self._levels)

    def log_weights(
        self, contexts: NDArray[np.floating], log_prior: NDArray[np.floating], log_linear: NDArray[np.floating]
    ) -> NDArray[np.floating]:
        """Log-weights in every context.

        Parameters
        ----------
        contexts : ndarray of shape (n_queries, n_context_features)
        log_prior, log_linear : ndarray of shape (n_components, n_queries)
            Logarithms of the prior weights f⁰, and of those of the linear gate.

        Returns
        -------
        log_weights : ndarray of shape (n_components, n_queries)
        """
        if not self._levels:
            return log_linear
        total = np.full(log_prior.shape, -np.inf)
        near = np.zeros(len(contexts), dtype=bool)
        for level, log_shares in zip(self._levels, self._log_shares(), strict=True):
            index = level.clusters.of(contexts)
            near |= index >= 0
            answers = level.table.log_weights(index, log_shares, log_prior, log_linear)
            total = np.logaddexp(total, answers)
        return np.where(near, log_softmax(total), log_prior)

    def _log_shares(self) -> Floats:
        """log p(level, ε | all labels), (n_levels, n_stray)."""
        joint = np.array([_LOG_PRIOR + level.table.log_evidence() for level in self._levels])
        return np.asarray(joint - logsumexp(joint))

    def export(self) -> dict[str, np.ndarray]:
        """What was learned, as arrays, for saving."""
        arrays: dict[str, np.ndarray] = {}
        for i, (clusters, table) in enumerate(self._levels):
            arrays |= {f"{i}.centers": clusters.centers, f"{i}.spread": clusters.spread}
            arrays |= {f"{i}.cut": np.array([clusters.cut, clusters.density])}
            arrays |= {f"{i}.{name}": array for name, array in table._asdict().items()}
        if self._seen is not None:
            arrays |= {f"seen.{name}": array for name, array in self._seen._asdict().items()}
            arrays["next_try"] = np.array([self._next_try])
        return arrays

    def restore(self, arrays: dict[str, np.ndarray]) -> None:
        """Take back what `export` gave."""
        levels: list[_Level] = []
        while f"{len(levels)}.centers" in arrays:
            of = {name: arrays[f"{len(levels)}.{name}"] for name in ("centers", "spread", "cut", *_Table._fields)}
            clusters = ContextClusters(of["centers"], of["spread"], *of["cut"].tolist())
            levels.append(_Level(clusters, _Table(of["votes"], of["prior"])))
        self._levels, self._seen = tuple(levels), None
        if "next_try" in arrays:
            self._seen = _Rows(*(arrays[f"seen.{name}"] for name in _Rows._fields))
            self._next_try = int(arrays["next_try"][0])


class _Rows(NamedTuple):
    """Contexts (n, c), and of each its evidence and log-prior (n, K) and its weight (n,), 0 without a label."""

    contexts: NDArray[np.floating]
    evidence: Floats
    weight: Floats
    log_prior: Floats

    @classmethod
    def none(cls, n_context_features: int, n_components: int) -> _Rows:
        nothing = np.empty((0, n_components))
        return cls(np.empty((0, n_context_features), dtype=np.float32), nothing, np.empty(0), nothing)

    def with_rows(self, other: _Rows) -> _Rows:
        if not len(self.contexts):
            return other
        contexts, evidence, weight, log_prior = (np.concatenate(pair) for pair in zip(self, other, strict=True))
        return _Rows(contexts, evidence, weight, log_prior)

    def labelled(self) -> _Rows:
        kept = self.weight > 0
        return _Rows(self.contexts[kept], self.evidence[kept], self.weight[kept], self.log_prior[kept])


class _Table(NamedTuple):
    """What the labels say of every cluster.

    Attributes
    ----------
    votes : ndarray of shape (n_stray, n_clusters, n_components)
        ℓ_k(C, ε).
    prior : ndarray of shape (n_clusters, n_components)
        Σ_i ω_i f⁰(c_i).
    """

    votes: Floats
    prior: Floats

    @classmethod
    def empty(cls, n_components: int) -> _Table:
        return cls(np.zeros((len(_STRAY), 0, n_components)), np.zeros((0, n_components)))

    def widened(self, n_clusters: int) -> _Table:
        """With room for new clusters, of which nothing is known."""
        more = n_clusters - len(self.prior)
        return _Table(np.pad(self.votes, ((0, 0), (0, more), (0, 0))), np.pad(self.prior, ((0, more), (0, 0))))

    def with_rows(self, rows: _Rows, index: NDArray[np.intp]) -> _Table:
        known = index >= 0
        (_, evidence, weight, log_prior), index = (each[known] for each in rows), index[known]
        any_component = logsumexp(log_prior + evidence, axis=1)[:, None]
        votes, prior = self.votes.copy(), self.prior.copy()
        for of_share, share in zip(votes, _STRAY, strict=True):
            with np.errstate(divide="ignore"):
                each = np.logaddexp(np.log1p(-share) + evidence, np.log(share) + any_component)
            np.add.at(of_share, index, weight[:, None] * each)
        np.add.at(prior, index, weight[:, None] * np.exp(log_prior))
        return _Table(votes, prior)

    def log_evidence(self) -> Floats:
        """log Π_C Σ_k f⁰_k(C) exp ℓ_k(C, ε), (n_stray,)."""
        labelled = self.prior.sum(axis=1) > 0
        with np.errstate(divide="ignore"):
            log_prior = np.log(self.prior[labelled])
        log_prior -= logsumexp(log_prior, axis=1, keepdims=True)
        return np.asarray(logsumexp(log_prior + self.votes[:, labelled], axis=2).sum(axis=1))

    def log_weights(
        self,
        index: NDArray[np.intp],
        log_shares: Floats,
        log_prior: NDArray[np.floating],
        log_linear: NDArray[np.floating],
    ) -> Floats:
        """log Σ_ε p_ε f(c | ε), (n_components, n_queries), with the prior weights for a query in no cluster (-1)."""
        inside = np.flatnonzero(index >= 0)
        total = log_prior + logsumexp(log_shares)
        if not len(inside):
            return np.asarray(total)
        log_prior, log_linear, index = log_prior[:, inside], log_linear[:, inside], index[inside]
        answers = []
        for share, log_share, votes in zip(_STRAY, log_shares, self.votes, strict=True):
            followed = log_softmax(log_prior + votes[index].T)
            with np.errstate(divide="ignore"):
                stray = np.log(share) + (log_linear if share == 1 else log_prior)
                answers.append(log_share + np.logaddexp(np.log1p(-share) + followed, stray))
        total[:, inside] = np.logaddexp.reduce(answers)
        return np.asarray(total)


class _Level(NamedTuple):
    """Clusters, and what the labels say of them."""

    clusters: ContextClusters
    table: _Table

    def with_rows(self, rows: _Rows) -> _Level:
        """With the evidence of labelled rows, in new clusters where they are near to none."""
        if not len(rows.contexts):
            return self
        clusters, index = _with_new_clusters(self.clusters, rows.contexts, self.clusters.of(rows.contexts))
        return _Level(clusters, self.table.widened(len(clusters)).with_rows(rows, index))


def _with_new_clusters(
    clusters: ContextClusters, contexts: NDArray[np.floating], index: NDArray[np.intp]
) -> tuple[ContextClusters, NDArray[np.intp]]:
    """Clusters around labelled contexts that are near to none, and the cluster of every context."""
    far = np.flatnonzero(index < 0)
    if not len(far):
        return clusters, index
    distinct, which = distinct_contexts(contexts[far])
    label = np.full(len(distinct), -1, dtype=np.intp)
    new: list[Any] = []
    while (label < 0).any() and len(clusters) + len(new) < _MOST_CLUSTERS:
        left = np.flatnonzero(label < 0)
        center = distinct[left[0]]
        with np.errstate(over="ignore"):
            near = clusters.within(((distinct[left] - center) ** 2).sum(axis=1))
        near[0] = True
        label[left[near]] = len(clusters) + len(new)
        new.append(center)
    index = index.copy()
    index[far] = label[which]
    return clusters.with_clusters(np.array(new).reshape(len(new), contexts.shape[1])), index
