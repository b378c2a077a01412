"""A task: which rows of a data set are learned, labelled and tested for one seed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from micropref._rows.layout import root_mean_square_norms
from micropref.pairs import make_pairs

if TYPE_CHECKING:
    from micropref.bench._config import DatasetSpec
    from micropref.bench._data import Comparisons

# Streams of random numbers of a seed: what one draws moves none of the others.
_SPLIT, _ANNOTATORS, _ORDER, _LABELS, _CONTROLS = range(5)


@dataclass(frozen=True, eq=False)
class Rows:
    """Comparisons as a method sees them, in an order of the two responses that says nothing.

    Attributes
    ----------
    context, difference : ndarray of shape (n, c) and (n, d)
    y : ndarray of int of shape (n,), or None
        1: first preferred. None: nobody says.
    weight : ndarray of shape (n,)
    """

    context: np.ndarray
    difference: np.ndarray
    y: np.ndarray | None
    weight: np.ndarray

    def __len__(self) -> int:
        return len(self.weight)

    def of(self, rows: np.ndarray) -> Rows:
        y = None if self.y is None else self.y[rows]
        return Rows(self.context[rows], self.difference[rows], y, self.weight[rows])

    def pairs(self) -> np.ndarray:
        """X with the context in front."""
        return make_pairs(self.difference, np.zeros_like(self.difference), self.context)


@dataclass(frozen=True, eq=False)
class Material:
    """All that a method is given; the labels of the test rows are not among it.

    Ids of annotators and targets are integers that do not overlap.

    Attributes
    ----------
    train : Rows
    annotators : ndarray of int of shape (n_train,)
        -1 where unknown.
    truth, test_truth : ndarray of int, or None
        True populations, for the ceiling alone.
    pool : Rows
        From which labels are drawn.
    pool_target : ndarray of int of shape (n_pool,)
        The context or user to whom each belongs.
    ranks : ndarray of int of shape (n_draws, n_pool)
        Place of each row among those of its target in each draw: a budget of b takes those below b.
    test : Rows
        Without labels.
    test_target : ndarray of int of shape (n_test,)
    budgets : tuple of int
    seed : int
    """

    train: Rows
    annotators: np.ndarray
    truth: np.ndarray | None
    pool: Rows
    pool_target: np.ndarray
    ranks: np.ndarray
    test: Rows
    test_target: np.ndarray
    test_truth: np.ndarray | None
    budgets: tuple[int, ...]
    seed: int

    @property
    def has_contexts(self) -> bool:
        return self.train.context.shape[1] > 0

    @property
    def has_annotators(self) -> bool:
        return bool((self.annotators >= 0).any())

    def steps(self, draw: int) -> Iterator[np.ndarray]:
        """For every budget the rows of the pool that it adds to the smaller ones."""
        low = 0
        for budget in self.budgets:
            yield np.flatnonzero((self.ranks[draw] >= low) & (self.ranks[draw] < budget))
            low = budget

    def with_permuted_annotators(self) -> Material:
        """Every training row is somebody else's."""
        return replace(self, annotators=stream(self.seed, _CONTROLS).permutation(self.annotators))

    def with_permuted_labels(self) -> Iterator[Material]:
        """For every draw, one of its own: every target gets as many labels as before, of anybody."""
        random = stream(self.seed, _CONTROLS)
        for ranks in self.ranks:
            yield replace(self, pool=self.pool.of(random.permutation(len(self.pool))), ranks=ranks[None])


@dataclass(frozen=True, eq=False)
class Task:
    """The material of one data set and seed, and what its predictions are judged by.

    Attributes
    ----------
    material : Material
    test_sign : ndarray of shape (n_test,)
        +1 where the first response of the test row is preferred, else −1.
    cluster, target, weight : ndarray of shape (n_test,)
        What is resampled; whose row it is; its weight.
    mean_labels : ndarray of shape (n_budgets,)
        Labels that a target really had: fewer than the budget where there are no more.
    notes : tuple of str
    split_hash : str
    """

    material: Material
    test_sign: np.ndarray
    cluster: np.ndarray
    target: np.ndarray
    weight: np.ndarray
    mean_labels: np.ndarray
    notes: tuple[str, ...]
    split_hash: str


def stream(seed: int, which: int) -> np.random.Generator:
    return np.random.default_rng([seed, which])


def make_task(
    data: Comparisons, spec: DatasetSpec, *, seed: int, budgets: Sequence[int], n_draws: int, order_seed: int = 0
) -> Task:
    """Cut a data set by its protocol.

    Parameters
    ----------
    data : Comparisons
    spec : DatasetSpec
    seed : int
    budgets : sequence of int, ascending
    n_draws : int
    order_seed : int, default=0
        Another order of the two responses of every row; results depend on it by rounding errors only.

    Raises
    ------
    ValueError
        If nothing is left to learn from or to test.
    """
    if data.is_tie.all():
        raise ValueError(f"{spec.name}: found ties only, {len(data.weight)} rows, wanted comparisons with a preference")
    rng = stream(seed, _SPLIT)
    in_test = _test_units(data, spec, rng)
    decided = ~data.is_tie & (data.weight > 0)
    if spec.protocol == "contexts":
        target, cluster = data.target, data.unit
        in_train, in_pool = ~in_test, ~in_test & decided & (target >= 0)
        tested = in_test & decided & (target >= 0)
        annotators = data.user
        if spec.pairs_per_annotator:
            annotators = _annotators(target, ~in_test & decided, spec.pairs_per_annotator, stream(seed, _ANNOTATORS))
        what = "contexts"
    else:
        target, cluster = data.user, data.user
        votes = np.bincount(target[decided & (target >= 0)], minlength=target.max() + 1)
        able = np.flatnonzero(votes >= max(1, spec.min_votes))
        if not len(able):
            raise ValueError(f"{spec.name}: found nobody with {spec.min_votes} votes, at most {votes.max(initial=0)}")
        new = rng.permutation(able)[: max(1, round(spec.new_users * len(able)))]
        is_new = np.isin(target, new)
        in_train, in_pool, tested = ~in_test & ~is_new, ~in_test & is_new & decided, in_test & is_new & decided
        annotators = data.user
        what = "new users"
    for rows, name in ((in_train, "training"), (tested, "test")):
        if not rows.any():
            raise ValueError(f"{spec.name}: found no {name} rows for seed {seed}, wanted at least one")
    return _cut(
        data, spec, in_train, in_pool, tested, annotators, target, cluster, what, seed, budgets, n_draws, order_seed
    )


def _cut(
    data: Comparisons,
    spec: DatasetSpec,
    in_train: np.ndarray,
    in_pool: np.ndarray,
    tested: np.ndarray,
    annotators: np.ndarray,
    target: np.ndarray,
    cluster: np.ndarray,
    what: str,
    seed: int,
    budgets: Sequence[int],
    n_draws: int,
    order_seed: int,
) -> Task:
    train, pool, test = (np.flatnonzero(rows) for rows in (in_train, in_pool, tested))
    flipped = np.random.default_rng([seed, _ORDER, order_seed]).random(len(target)) < 0.5
    sign = np.where(flipped, -1, 1)

    factors = [
        _factor(part[train], data.weight[train], norm)
        for part, norm in ((data.context, spec.context_norm), (data.difference, spec.difference_norm))
    ]

    def rows(which: np.ndarray, labelled: bool) -> Rows:
        difference = data.difference[which] * (sign[which, None] * factors[1]).astype(np.float32)
        y = (sign[which] + 1) // 2 if labelled else None
        return Rows(data.context[which] * np.float32(factors[0]), difference, y, data.weight[which])

    random = stream(seed, _LABELS)
    ranks = np.stack([_ranks(target[pool], random) for _ in range(n_draws)])
    shown = np.unique(target[test])
    available = np.bincount(target[pool], minlength=target.max() + 1)[shown]
    notes = []
    present = np.unique(target[(target >= 0) & (in_pool | tested)])
    untested = len(np.setdiff1d(present, shown))
    if untested:
        notes.append(f"{untested} of {len(present)} {what} have no test rows and are left out")
    if (available == 0).any():
        notes.append(f"{(available == 0).sum()} of {len(shown)} {what} have no labels: predicted like anybody")
    ties = int((data.is_tie & ~in_train).sum())
    if ties:
        notes.append(f"{ties} rows of ties are neither labels nor test rows")
    first_target = int(annotators.max(initial=-1)) + 1
    truth = data.truth if data.truth is not None else (data.target if spec.protocol == "contexts" else None)
    digest = hashlib.sha256()
    for part in (train, pool, test, annotators[train], ranks):
        digest.update(np.ascontiguousarray(part, dtype=np.int64).tobytes())
    material = Material(
        train=rows(train, True),
        annotators=annotators[train],
        truth=None if truth is None else truth[train],
        pool=rows(pool, True),
        pool_target=target[pool] + first_target,
        ranks=ranks,
        test=rows(test, False),
        test_target=target[test] + first_target,
        test_truth=None if truth is None else truth[test],
        budgets=tuple(budgets),
        seed=seed,
    )
    return Task(
        material=material,
        test_sign=sign[test],
        cluster=cluster[test],
        target=target[test],
        weight=data.weight[test],
        mean_labels=np.array([np.minimum(available, budget).mean() for budget in budgets]),
        notes=tuple(notes),
        split_hash=digest.hexdigest(),
    )


def _factor(features: np.ndarray, weight: np.ndarray, norm: float) -> float:
    """What scales training rows to a root mean square norm, as `PairScaler` does."""
    size = root_mean_square_norms(features, 0, weight)[1] if norm else 0.0
    return norm / size if size else 1.0


def _test_units(data: Comparisons, spec: DatasetSpec, rng: np.random.Generator) -> np.ndarray:
    if data.given_test is not None:
        return data.given_test
    n_units = int(data.unit.max()) + 1
    n_test = int(spec.test_units) if spec.test_units >= 1 else max(1, round(spec.test_units * n_units))
    if n_test >= n_units:
        raise ValueError(f"{spec.name}: test_units: found {n_test} of {n_units}, wanted some left for training")
    return np.isin(data.unit, rng.permutation(n_units)[:n_test])


def _annotators(target: np.ndarray, rows: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """Deal the rows of each context, in random order, to annotators of that many each."""
    annotators, first = np.full(len(target), -1), 0
    for name in range(int(target.max()) + 1):
        mine = rng.permutation(np.flatnonzero(rows & (target == name)))
        annotators[mine] = first + np.arange(len(mine)) // size
        first += -(-len(mine) // size)
    return annotators


def _ranks(target: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    order = np.lexsort((rng.random(len(target)), target))
    rank = np.empty(len(target), dtype=int)
    start = np.searchsorted(target[order], target[order])
    rank[order] = np.arange(len(target)) - start
    return rank
