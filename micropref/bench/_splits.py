"""The role of every row of a data set for one seed: training, label or test; by contexts or by users."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from micropref.bench._data import BenchData
from micropref.bench._streams import Stream, generator

if TYPE_CHECKING:
    # The values of a specification are part of the key of a result; the code of its class decides no result.
    from micropref.bench._specs import DatasetSpec


@dataclass(frozen=True, eq=False)
class Split:
    """Roles of the rows of a data set.

    Attributes
    ----------
    train, pool, test : ndarray of bool of shape (n,)
        Rows to learn from before any label; rows from which labels are drawn; rows to predict. A row of the pool may
        also be a training row, a test row is neither.
    annotator : ndarray of int of shape (n,)
        Who compared, as training shows it; -1: unknown.
    target : ndarray of int of shape (n,)
        The context or user that a label or a test row belongs to; -1: none.
    cluster : ndarray of int of shape (n,)
        What is resampled as a whole for intervals.
    truth : ndarray of int of shape (n,), or None
        True population of each row, for the ceiling alone.
    target_name : {"context", "new user", "known user"}
    """

    train: np.ndarray
    pool: np.ndarray
    test: np.ndarray
    annotator: np.ndarray
    target: np.ndarray
    cluster: np.ndarray
    truth: np.ndarray | None
    target_name: str


def split_rows(data: BenchData, spec: DatasetSpec, seed: int) -> Split:
    """Split a data set by its protocol.

    Parameters
    ----------
    data : BenchData
    spec : DatasetSpec
    seed : int

    Returns
    -------
    split : Split

    Raises
    ------
    ValueError
        If there is nothing to learn from or nothing to test.
    """
    if data.is_tie.all():
        raise ValueError(
            f"{spec.name}: expected comparisons with a preference, got ties only in {len(data.weight)} rows"
        )
    split = _PROTOCOLS[spec.protocol](data, spec, seed)
    for rows, name in ((split.train, "training"), (split.test, "test")):
        if not rows.any():
            raise ValueError(f"{spec.name}: expected at least one {name} row for seed {seed}, got none")
    return split


def _split_contexts(data: BenchData, spec: DatasetSpec, seed: int) -> Split:
    """Test rows are those of units that training does not contain; labels are training rows of their context."""
    in_test = _test_units(data, spec, seed, generator(seed, Stream.SPLIT))
    decided = _decided(data)
    own, train = np.ones(len(decided), dtype=bool), ~in_test
    if data.teaches is not None:
        own, train = ~data.teaches, data.teaches
    labelled = decided & own & (data.target >= 0)
    annotator = data.user
    if spec.pairs_per_annotator:
        random = generator(seed, Stream.ANNOTATORS)
        annotator = _synthetic_annotators(data.target, train & decided, spec.pairs_per_annotator, random)
    return Split(
        train=train,
        pool=~in_test & labelled,
        test=in_test & labelled,
        annotator=annotator,
        target=data.target,
        cluster=data.unit,
        truth=data.target if data.truth is None else data.truth,
        target_name="context",
    )


def _split_users(data: BenchData, spec: DatasetSpec, seed: int) -> Split:
    """Test rows are those of new users on units of the test part; labels are the new users' rows on other units."""
    random = generator(seed, Stream.SPLIT)
    in_test = np.zeros(len(data.weight), dtype=bool) if spec.test_rows else _test_units(data, spec, seed, random)
    decided = _decided(data)
    eligible = _eligible(data, spec, decided)
    chosen = random.permutation(eligible)
    present = np.ones(len(data.weight), dtype=bool)
    if spec.n_users:
        chosen = chosen[: spec.n_users]
        present = np.isin(data.user, chosen)
    new = chosen[: max(1, round(spec.new_users * len(chosen)))]
    is_new = np.isin(data.user, new)
    train = present & ~in_test & ~is_new
    if spec.test_rows:
        in_test = is_new & decided
        in_test[in_test] = random_ranks(data.user[in_test], random) < spec.test_rows
    return Split(
        train=train,
        pool=~in_test & is_new & decided,
        test=in_test & is_new & decided,
        annotator=data.user,
        target=data.user,
        cluster=data.user,
        truth=data.truth,
        target_name="new user",
    )


def _split_known_users(data: BenchData, spec: DatasetSpec, seed: int) -> Split:
    """Test rows are those of users on units of the test part; labels are the users' other rows, of training."""
    random = generator(seed, Stream.SPLIT)
    in_test, decided = _test_units(data, spec, seed, random), _decided(data)
    tested = _eligible(data, spec, decided)
    present = np.ones(len(data.weight), dtype=bool)
    if spec.n_users:
        tested = random.permutation(tested)[: spec.n_users]
        present = np.isin(data.user, tested)
    is_tested = np.isin(data.user, tested)
    return Split(
        train=present & ~in_test,
        pool=~in_test & is_tested & decided,
        test=in_test & is_tested & decided,
        annotator=data.user,
        target=data.user,
        cluster=data.user,
        truth=data.truth,
        target_name="known user",
    )


def _eligible(data: BenchData, spec: DatasetSpec, decided: np.ndarray) -> np.ndarray:
    """Users with enough votes."""
    votes = np.bincount(data.user[decided & (data.user >= 0)], minlength=data.user.max() + 1)
    eligible = np.flatnonzero(votes >= max(1, spec.min_votes))
    if not len(eligible):
        raise ValueError(
            f"{spec.name}: expected users with {spec.min_votes} votes or more, got at most {votes.max(initial=0)}"
        )
    return eligible


def random_ranks(target: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Random positions of rows among those of their target, from 0."""
    order = np.lexsort((random.random(len(target)), target))
    rank = np.empty(len(target), dtype=int)
    start = np.searchsorted(target[order], target[order])
    rank[order] = np.arange(len(target)) - start
    return rank


def _decided(data: BenchData) -> np.ndarray:
    """Rows that say which response was preferred, and count."""
    return ~data.is_tie & (data.weight > 0)


def _test_units(data: BenchData, spec: DatasetSpec, seed: int, random: np.random.Generator) -> np.ndarray:
    if data.given_test is not None:
        return data.given_test
    units = np.unique(data.unit if data.teaches is None else data.unit[~data.teaches])
    n_units = len(units)
    n_test = int(spec.test_units) if spec.test_units >= 1 else max(1, round(spec.test_units * n_units))
    if n_test >= n_units:
        raise ValueError(
            f"{spec.name}: test_units: expected fewer than the {n_units} units that there are, got {n_test}"
        )
    if spec.split == "folds":
        # The same order for all seeds, each of which takes another part of it.
        n_folds = max(2, round(n_units / n_test))
        order = generator(0, Stream.SPLIT).permutation(n_units)
        return np.isin(data.unit, units[order[seed % n_folds :: n_folds]])
    return np.isin(data.unit, units[random.permutation(n_units)[:n_test]])


def _synthetic_annotators(target: np.ndarray, rows: np.ndarray, size: int, random: np.random.Generator) -> np.ndarray:
    """Assign the rows of each context, in random order, to annotators of `size` rows each."""
    annotator, first = np.full(len(target), -1), 0
    for name in range(int(target.max()) + 1):
        of_target = random.permutation(np.flatnonzero(rows & (target == name)))
        annotator[of_target] = first + np.arange(len(of_target)) // size
        first += -(-len(of_target) // size)
    return annotator


_PROTOCOLS = {"contexts": _split_contexts, "users": _split_users, "known_users": _split_known_users}
