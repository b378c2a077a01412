"""A task: what every method is given for one data set and seed, and what its predictions are scored by."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from micropref._rows.layout import root_mean_square_norms
from micropref.bench._data import BenchData, Ratings
from micropref.bench._splits import Split, random_ranks, split_rows
from micropref.bench._streams import Stream, generator
from micropref.bench._words import counted
from micropref.pairs import make_pairs

if TYPE_CHECKING:
    # The values of a specification are part of the key of a result; the code of its class decides no result.
    from micropref.bench._specs import DatasetSpec


@dataclass(frozen=True, eq=False)
class BenchRows:
    """Comparisons as a method receives them, in an order of the two responses that is independent of the label.

    Attributes
    ----------
    context : ndarray of shape (n, n_context_features)
    difference : ndarray of shape (n, n_features)
        Features of the first less those of the second response.
    y : ndarray of int of shape (n,), or None
        1: first preferred, 0: second preferred. None: withheld.
    weight : ndarray of shape (n,)
    """

    context: np.ndarray
    difference: np.ndarray
    y: np.ndarray | None
    weight: np.ndarray

    def __len__(self) -> int:
        return len(self.weight)

    def select(self, rows: np.ndarray) -> BenchRows:
        """Rows by their indices."""
        y = None if self.y is None else self.y[rows]
        return BenchRows(self.context[rows], self.difference[rows], y, self.weight[rows])

    def pairs(self, n_context: int | None = None) -> np.ndarray:
        """X with the context columns first: all of them, or the first `n_context`."""
        return np.asarray(make_pairs(self.difference, np.zeros_like(self.difference), self.context[:, :n_context]))


@dataclass(frozen=True, eq=False)
class MethodInputs:
    """All that a method is given; the labels of the test rows are not part of it.

    Ids of annotators and of targets are integers, and no annotator has the id of a target.

    Attributes
    ----------
    train : BenchRows
    annotators : ndarray of int of shape (n_train,)
        -1 where unknown.
    truth, test_truth : ndarray of int of shape (n_train,) and (n_test,), or None
        True populations, for the ceiling alone.
    test_known : ndarray of shape (n_test,), or None
        Log-odds of the first response for one who knows the user's planted weights, for the ceiling alone.
    width : int
        Number of features of each block of the context, which lies in the space of the first features of responses; 0:
        contexts and responses are not of one space.
    n_prompt : int
        Number of leading context columns that describe the prompt.
    ratings : Ratings, or None
        Of responses to prompts that no test row has, on the scale of the differences; for methods that need them.
    pool : BenchRows
        From which labels are drawn.
    pool_target : ndarray of int of shape (n_pool,)
        The context or user that each label belongs to.
    ranks : ndarray of int of shape (n_draws, n_pool)
        Position of each row among those of its target in each draw: a budget of b takes the ranks below b.
    test : BenchRows
        Without labels.
    test_target : ndarray of int of shape (n_test,)
    budgets : tuple of int
    seed : int
    asked : str
        Strategy by which methods that have a rule for it choose the rows to label, as in `budget_curve`; "": the ranks
        do.
    """

    train: BenchRows
    annotators: np.ndarray
    truth: np.ndarray | None
    pool: BenchRows
    pool_target: np.ndarray
    ranks: np.ndarray
    test: BenchRows
    test_target: np.ndarray
    test_truth: np.ndarray | None
    budgets: tuple[int, ...]
    seed: int
    test_known: np.ndarray | None = None
    width: int = 0
    n_prompt: int = 0
    ratings: Ratings | None = None
    asked: str = ""

    @property
    def has_contexts(self) -> bool:
        return bool(self.train.context.shape[1] > 0)

    @property
    def has_annotators(self) -> bool:
        return bool((self.annotators >= 0).any())

    def steps(self, draw: int) -> Iterator[np.ndarray]:
        """For every budget, the rows of the pool that it adds to the budget before."""
        low = 0
        for budget in self.budgets:
            yield np.flatnonzero((self.ranks[draw] >= low) & (self.ranks[draw] < budget))
            low = budget

    def with_permuted_annotators(self) -> MethodInputs:
        """The same with the annotators of the training rows permuted."""
        random = generator(self.seed, Stream.CONTROLS)
        return replace(self, annotators=random.permutation(self.annotators))

    def with_permuted_labels(self) -> Iterator[MethodInputs]:
        """One for every draw: every target has as many labels as before, of random other targets."""
        random = generator(self.seed, Stream.CONTROLS)
        for ranks in self.ranks:
            yield replace(self, pool=self.pool.select(random.permutation(len(self.pool))), ranks=ranks[None])


@dataclass(frozen=True, eq=False)
class Task:
    """The inputs of the methods for one data set and seed, and what predictions are scored by.

    Attributes
    ----------
    inputs : MethodInputs
    test_sign : ndarray of shape (n_test,)
        +1 where the first response of the test row is preferred, else −1.
    cluster, target, weight : ndarray of shape (n_test,)
        What is resampled as a whole; the context or user of the row; its weight.
    mean_labels : ndarray of shape (n_budgets,)
        Mean number of labels of a target: below the budget where a target has fewer.
    notes : tuple of str
    reading : str
        How many rows of the data were read and left out.
    split_hash : str
    target_names : tuple of str
        What the contexts are called, by their numbers.
    """

    inputs: MethodInputs
    test_sign: np.ndarray
    cluster: np.ndarray
    target: np.ndarray
    weight: np.ndarray
    mean_labels: np.ndarray
    notes: tuple[str, ...]
    reading: str
    split_hash: str
    target_names: tuple[str, ...] = ()


def make_task(
    data: BenchData, spec: DatasetSpec, *, seed: int, budgets: Sequence[int], n_draws: int, order_seed: int = 0
) -> Task:
    """Split a data set by its protocol and draw labels.

    Parameters
    ----------
    data : BenchData
    spec : DatasetSpec
    seed : int
    budgets : sequence of int, ascending
    n_draws : int
    order_seed : int, default=0
        Another order of the two responses of every row; results depend on it by rounding errors only.

    Returns
    -------
    task : Task

    Raises
    ------
    ValueError
        If there is nothing to learn from or nothing to test.
    """
    split = split_rows(data, spec, seed)
    train, pool, test = (np.flatnonzero(rows) for rows in (split.train, split.pool, split.test))
    features = _Features.scaled(data, spec, train, generator(seed, Stream.ORDER, order_seed))
    random = generator(seed, Stream.LABELS)
    ranks = np.stack([random_ranks(split.target[pool], random) for _ in range(n_draws)])
    tested = np.unique(split.target[test])
    available = np.bincount(split.target[pool], minlength=split.target.max() + 1)[tested]
    first_target = int(split.annotator.max(initial=-1)) + 1
    inputs = MethodInputs(
        train=features.rows(train),
        annotators=split.annotator[train],
        truth=None if split.truth is None else split.truth[train],
        pool=features.rows(pool),
        pool_target=split.target[pool] + first_target,
        ranks=ranks,
        test=replace(features.rows(test), y=None),
        test_target=split.target[test] + first_target,
        test_truth=None if split.truth is None else split.truth[test],
        budgets=tuple(budgets),
        seed=seed,
        test_known=None if data.known is None else data.known[test] * features.sign[test],
        width=data.width,
        n_prompt=data.n_prompt,
        ratings=features.ratings(test),
    )
    return Task(
        inputs=inputs,
        test_sign=features.sign[test],
        cluster=split.cluster[test],
        target=split.target[test],
        weight=data.weight[test],
        mean_labels=np.array([np.minimum(available, budget).mean() for budget in budgets]),
        notes=_notes(data, split, available),
        reading=data.reading,
        split_hash=_digest(train, pool, test, inputs.annotators, ranks),
        target_names=data.target_names,
    )


def describe_task(task: Task) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """What the tables need to know of a task: arrays and values."""
    arrays = {"cluster": task.cluster, "target": task.target, "weight": task.weight, "mean_labels": task.mean_labels}
    return arrays, {
        "notes": list(task.notes),
        "reading": task.reading,
        "split_hash": task.split_hash,
        "n_train": len(task.inputs.train),
        "n_test": len(task.inputs.test),
        "n_targets": len(np.unique(task.target)),
        "has_annotators": task.inputs.has_annotators,
        "target_names": list(task.target_names),
    }


@dataclass(frozen=True, eq=False)
class _Features:
    """Rows of a data set with their scale, and a random order of the two responses of each row.

    Attributes
    ----------
    data : BenchData
    sign : ndarray of shape (n,)
        +1 where the preferred response is put first, else −1.
    context_factor, difference_factor : float
    """

    data: BenchData
    sign: np.ndarray
    context_factor: float
    difference_factor: float

    @classmethod
    def scaled(cls, data: BenchData, spec: DatasetSpec, train: np.ndarray, random: np.random.Generator) -> _Features:
        """Scaled to the norms of the specification over the training rows."""
        weight = data.weight[train]
        return cls(
            data,
            np.where(random.random(len(data.weight)) < 0.5, -1, 1),
            _factor(data.context[train], weight, spec.context_norm),
            _factor(data.difference[train], weight, spec.difference_norm),
        )

    def rows(self, which: np.ndarray) -> BenchRows:
        sign = self.sign[which]
        return BenchRows(
            self.data.context[which] * np.float32(self.context_factor),
            self.data.difference[which] * (sign[:, None] * self.difference_factor).astype(np.float32),
            (sign + 1) // 2,
            self.data.weight[which],
        )

    def ratings(self, test: np.ndarray) -> Ratings | None:
        """Ratings of responses to other prompts than those of the test rows."""
        if self.data.ratings is None:
            return None
        rated = self.data.ratings
        if self.data.prompt is not None:
            rated = rated.away_from(self.data.prompt[test])
        return replace(rated, features=rated.features * np.float32(self.difference_factor))


def _factor(features: np.ndarray, weight: np.ndarray, norm: float) -> float:
    """What scales training rows to a root mean square norm, as `PairScaler` does; 1 for a norm of 0."""
    size = root_mean_square_norms(features, 0, weight)[1] if norm else 0.0
    return float(norm / size) if size else 1.0


def _notes(data: BenchData, split: Split, available: np.ndarray) -> tuple[str, ...]:
    """What a reader of the tables should know of the split; `available` are the labels of each tested target."""
    present = split.target[(split.target >= 0) & (split.pool | split.test)]
    n_present, n_tested = len(np.unique(present)), len(available)
    n_untested, n_unlabelled = n_present - n_tested, int((available == 0).sum())
    n_ties = int((data.is_tie & ~split.train).sum())
    notes = []
    if n_untested:
        verbs = ("has", "is") if n_untested == 1 else ("have", "are")
        targets = counted(n_present, split.target_name)
        notes.append(f"{n_untested} of {targets} {verbs[0]} no test rows and {verbs[1]} left out")
    if n_unlabelled:
        verb = "has" if n_unlabelled == 1 else "have"
        targets = counted(n_tested, split.target_name)
        notes.append(f"{n_unlabelled} of {targets} {verb} no labels: predicted like an unknown user or context")
    if n_ties:
        notes.append(f"{counted(n_ties, 'tied row')} used neither as labels nor as test rows")
    return tuple(notes)


def _digest(*parts: np.ndarray) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(np.ascontiguousarray(part, dtype=np.int64).tobytes())
    return digest.hexdigest()
