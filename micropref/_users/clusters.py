"""Contexts that repeat with variations: clusters with a gap around them, or none."""

from __future__ import annotations

import hashlib
import sys
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster, linkage

__all__ = ["ContextClusters", "distinct_contexts", "find_clusters"]

Floats = NDArray[np.float64]

# Distinct contexts whose pairwise distances are computed; clusters that none of them belongs to are not found.
_SAMPLE = 2000
_BINS = 512
# Density of the distances around the cut, as a share of a uniform one, up to which there is a gap.
_LARGEST_DENSITY = 0.1
# The window in which that density is measured, as a share of the range of the distances: at least the first number, and
# the second over the number of contexts. Gaps are common among few distances, wide ones are not.
_WINDOW, _WINDOW_OF_FEW = 0.1, 3.0
# Each cut leaves the distances below it, among which the next is looked for: clusters that are many leave few short
# distances, which the first cut does not see.
_DEEPEST = 6
# Least share of the contexts that repeat, and of those that do so outside of the largest cluster.
_LEAST_REPEATED, _LEAST_OUTSIDE = 0.5, 0.05
# Distances, as shares of the contexts' scale and of the cut, that are equal: rounding must not decide between them.
_EQUAL = 2.0**-30
_TOLERANCE = 1e-7
# Steps, as shares of that scale, of the numbers by which contexts are ordered.
_ORDER_STEP = 2.0**-20
# Entries of a table of distances from contexts to centres that are computed at once.
_BLOCK = 1 << 22


@dataclass(frozen=True, eq=False)
class ContextClusters:
    """Clusters of contexts, none nearer to another than the cut on average.

    A context belongs to the cluster to whose members its mean squared distance is smallest, if that is below the cut;
    of two that are equally near, to the first.

    Attributes
    ----------
    centers : ndarray of float64 of shape (n_clusters, n_context_features)
        Means of the members.
    spread : ndarray of float64 of shape (n_clusters,)
        Mean squared distance of the members to their centre.
    cut : float
        Squared Euclidean distance between the two modes of the pairwise distances.
    density : float
        Density of the pairwise distances around the cut, as a share of what it would be if they were uniform.
    """

    centers: Floats
    spread: Floats
    cut: float
    density: float

    def __len__(self) -> int:
        return len(self.centers)

    def of(self, contexts: NDArray[np.floating]) -> NDArray[np.intp]:
        """Cluster of every context (n, n_context_features); -1 for one that is near to none."""
        found = np.full(len(contexts), -1, dtype=np.intp)
        size = max(1, _BLOCK // max(1, len(self)))
        origin = self.centers.mean(axis=0)  # around which numbers are small, and their differences exact
        for first in range(0, len(contexts), size):
            rows = slice(first, first + size)
            distance = _squared_distances(contexts[rows] - origin, self.centers - origin) + self.spread
            least = distance.min(axis=1)
            nearest = (distance <= least[:, None] + _TOLERANCE * self.cut).argmax(axis=1)
            found[rows] = np.where(self.within(least), nearest, -1)
        return found

    def within(self, distance: Floats) -> NDArray[np.bool_]:
        """Whether squared distances are no larger than the cut, whichever way those that equal it were rounded."""
        return distance <= self.cut * (1 + _TOLERANCE)

    def with_clusters(self, centers: Floats) -> ContextClusters:
        """These clusters, and one around each of the new centres (n, n_context_features)."""
        spread = np.concatenate([self.spread, np.zeros(len(centers))])
        return replace(self, centers=np.concatenate([self.centers, centers]), spread=spread)


class DistinctContexts(NamedTuple):
    """Contexts without repetitions, in an order that is as good as random.

    It depends on nothing but their numbers, and not on the unit of these.

    Attributes
    ----------
    contexts : ndarray of float64 of shape (n_distinct, n_context_features)
    which : ndarray of int of shape (n,)
        Which of them each context was.
    """

    contexts: Floats
    which: NDArray[np.intp]


def distinct_contexts(contexts: NDArray[np.floating]) -> DistinctContexts:
    """Find the distinct ones of some contexts (n, n_context_features)."""
    contexts = np.asarray(contexts, dtype=np.float64) + 0.0  # -0.0 is 0.0
    _, first, index = np.unique(_digests(contexts), return_index=True, return_inverse=True)
    distinct = contexts[first]
    # A digest of the bits is another one in other units; that of a rounded place along some direction is not.
    place = _centred(distinct)[0] @ np.random.RandomState(0).normal(size=distinct.shape[1])
    order = np.lexsort((place, _digests(np.floor(place / _ORDER_STEP)[:, None])))
    rank = np.empty(len(order), dtype=np.intp)
    rank[order] = np.arange(len(order))
    return DistinctContexts(distinct[order], rank[index])


def _digests(rows: Floats) -> NDArray[np.uint64]:
    """Digest of the bits of every row."""
    each = (hashlib.blake2b(row.tobytes(), digest_size=8).digest() for row in rows)
    return np.frombuffer(b"".join(each), dtype=">u8").astype(np.uint64)


def _centred(contexts: Floats) -> tuple[Floats, float]:
    """Contexts around their mean, with a median size of 1, and what they were divided by."""
    if not contexts.size:
        return contexts, 1.0
    # Differences of numbers that are nearly equal lose digits; around their mean, contexts are as small as can be.
    with np.errstate(over="ignore", invalid="ignore"):
        centred = contexts - contexts.mean(axis=0)
        size = np.abs(centred).max(axis=1)
        scale = float(np.median(size[size > 0])) if size.any() else 1.0
        return np.nan_to_num(centred / scale), scale


def find_clusters(contexts: NDArray[np.floating], weight: Floats) -> tuple[ContextClusters, ...]:
    """Clusters of contexts with a gap between them, large ones before those inside of them; none where there is no gap.

    The pairwise squared distances are cut by Otsu's rule, which makes the variance between the two classes

        v(t) = p(t) (1 − p(t)) (μ₁(t) − μ₀(t))²

    largest: p(t) is the share of the distances below t, μ₀ and μ₁ are the means below and above. Between the two means,
    the cut is then where the density of the distances is lowest. If that is less than a tenth of a uniform density,
    contexts are merged by average linkage up to the cut. Then the distances below are cut in the same way, up to six
    times, as long as at least half of the contexts have another one below the cut: of many clusters, few pairs are
    inside of one, and clusters may consist of clusters.

    A context of weight w is w contexts: w (w − 1) / 2 of its pairs have distance 0. At most 2 000 distinct contexts are
    used, chosen by a hash of their places, so that neither the order of the rows nor the unit of their numbers changes
    anything. Distances are compared in units of the contexts' own scale, and those that rounding alone tells apart are
    equal: what the contexts are multiplied by decides nothing.

    Parameters
    ----------
    contexts : ndarray of shape (n, n_context_features)
    weight : ndarray of shape (n,)
        How often each was seen, above 0.

    Returns
    -------
    clusters : tuple of ContextClusters

    References
    ----------
    Otsu, "A threshold selection method from gray-level histograms", IEEE Transactions on Systems, Man, and Cybernetics
    9(1), 1979.
    """
    distinct, index = distinct_contexts(contexts)
    sample = distinct[:_SAMPLE]
    count: Floats = np.bincount(index, weight, len(distinct))[: len(sample)].astype(np.float64)
    if len(sample) < 2 or not sample.shape[1]:
        return ()
    centred, scale = _centred(sample)
    unit = scale * scale
    if not sys.float_info.min < unit < sys.float_info.max:  # squared distances that no number can hold
        return ()
    table = _squared_distances(centred, centred)
    table = np.round(table / _EQUAL) * _EQUAL
    first, second = np.triu_indices(len(sample), 1)
    distance = table[first, second]
    n_equal = float(np.maximum(count * (count - 1) / 2, 0).sum())
    pairs = _Distances(distance, count[first] * count[second], n_equal)
    np.fill_diagonal(table, np.where(count > 1, 0.0, np.inf))
    nearest = table.min(axis=1)
    tree = None
    levels: list[ContextClusters] = []
    for _ in range(_DEEPEST):
        found = pairs.cut()
        if found is None or count[nearest < found.at].sum() < _LEAST_REPEATED * count.sum():
            break
        if found.density < _LARGEST_DENSITY:
            tree = linkage(distance, "average") if tree is None else tree
            label = np.unique(fcluster(tree, found.at, "distance"), return_inverse=True)[1]
            size = np.bincount(label, count)
            outside = size[size > 1].sum() - size.max()
            is_new = not levels or len(size) > len(levels[-1])
            if is_new and outside >= _LEAST_OUTSIDE * count.sum():
                levels.append(_described(sample, count, label, _Cut(found.at * unit, found.density)))
        pairs = pairs.below(found.at)
    return tuple(levels)


class _Cut(NamedTuple):
    at: float
    density: float


class _Distances(NamedTuple):
    """Pairwise squared distances, the number of pairs of each, and the number of further pairs of distance 0."""

    distance: Floats
    n_pairs: Floats
    n_equal: float

    def below(self, cut: float) -> _Distances:
        kept = self.distance < cut
        return _Distances(self.distance[kept], self.n_pairs[kept], self.n_equal)

    def cut(self) -> _Cut | None:
        """Where Otsu's rule and then the lowest density cut; None where all distances are equal or there are none."""
        if not len(self.distance):
            return None
        low, high = 0.0 if self.n_equal else float(self.distance.min()), float(self.distance.max())
        if not low < high:
            return None
        edges = np.linspace(low, high, _BINS + 1)
        count = np.histogram(self.distance, edges, weights=self.n_pairs)[0]
        total = np.histogram(self.distance, edges, weights=self.n_pairs * self.distance)[0]
        count[0] += self.n_equal
        n_pairs = count.sum()
        below, moment = np.cumsum(count)[:-1], np.cumsum(total)[:-1]
        above = n_pairs - below
        apart = np.flatnonzero((below > 0) & (above > 0))
        below, above, moment = below[apart], above[apart], moment[apart]
        lower, upper = moment / below, (total.sum() - moment) / above
        variance = below * above * (upper - lower) ** 2
        # In a gap all cuts are equally good; the rule stands for the one in the middle.
        best = np.flatnonzero(variance >= variance.max() * (1 - 1e-9))
        middle = best[len(best) // 2]
        at = edges[1:-1][apart]
        between = np.flatnonzero((at > lower[middle]) & (at < upper[middle]))
        between = np.union1d(between, [middle])
        share = max(_WINDOW, _WINDOW_OF_FEW / np.sqrt(2 * n_pairs))
        density = _density(np.concatenate([[0.0], np.cumsum(count)]), at[between], edges, share)
        order = np.lexsort((np.abs(at[between] - at[middle]), density))
        return _Cut(self._gap_around(float(at[between[order[0]]])), float(density[order[0]]))

    def _gap_around(self, cut: float) -> float:
        """The middle between the two distances next to a cut."""
        below = self.distance < cut
        least = float(self.distance[below].max()) if below.any() else 0.0
        return 0.5 * (least + float(self.distance[~below].min()))


def _density(cumulated: Floats, at: Floats, edges: Floats, share: float) -> Floats:
    """Density in a window around every cut, as a share of a uniform one; `share` is the window's width."""
    half = share * (edges[-1] - edges[0]) / 2
    inside = np.interp(at + half, edges, cumulated) - np.interp(at - half, edges, cumulated)
    return np.asarray(inside / (cumulated[-1] * share))


def _described(sample: Floats, count: Floats, label: NDArray[np.intp], found: _Cut) -> ContextClusters:
    """Centres and spreads of the clusters."""
    size = np.bincount(label, count)
    centers = np.zeros((len(size), sample.shape[1]))
    np.add.at(centers, label, count[:, None] * sample)
    centers /= size[:, None]
    spread = np.bincount(label, count * ((sample - centers[label]) ** 2).sum(axis=1)) / size
    return ContextClusters(centers, spread, found.at, found.density)


def _squared_distances(contexts: NDArray[np.floating], centers: Floats) -> Floats:
    """Squared Euclidean distances (n_contexts, n_centers); infinite where a context is too large to say."""
    contexts = np.asarray(contexts, dtype=np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        of_contexts, of_centers = (np.einsum("ij,ij->i", each, each) for each in (contexts, centers))
        table = of_contexts[:, None] + of_centers - 2 * (contexts @ centers.T)
    return np.asarray(np.maximum(np.nan_to_num(table, nan=np.inf, posinf=np.inf), 0.0))
