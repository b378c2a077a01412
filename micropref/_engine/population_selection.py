"""Which population the votes support: candidates compared by the evidence of users who did not teach them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from micropref._engine.held_out_factors import Factors, likeliest_factors
from micropref._engine.new_users import answering_like
from micropref._engine.population import Population, Shape, evidence, evidence_of_first_votes
from micropref._engine.population_fit import Settings, fit_heads, fit_scatter, without_dead_heads
from micropref._engine.priors import head_penalty
from micropref._engine.user_votes import UserVotes

__all__ = ["Candidate", "Choices", "Tried", "choose", "records_of"]

Floats = NDArray[np.float64]

# Users are cut into so many parts, up to so many votes and beyond.
_FOLDS, _FOLDS_OF_MANY, _MANY_VOTES = 5, 2, 20_000
# In nats per row, what one candidate has to be better than another.
_GAIN = 2e-4
# Numbers of heads that gain nothing over fewer, after which no larger one is tried.
_PATIENCE = 2
_STARTS_TRIED = 2
# In nats per row, up to which populations predict the first vote of a user equally well.
_LOSS = 1e-3
# Steps of the size of the last, in which heads alone could still come level with the best candidate.
_WITHIN_REACH = 3.0


@dataclass(frozen=True)
class Candidate:
    """A kind of population: K, the penalty of heads or the prior deviation s of their margins, and the scatter."""

    n_components: int
    alpha: float | None
    prior_scale: float | None
    shape: Shape | None

    def penalty(self, votes: UserVotes) -> float:
        """Penalty of the heads, against the mean log-likelihood in nats."""
        if self.alpha is not None:
            return self.alpha
        assert self.prior_scale is not None
        return head_penalty("auto", votes.norm, votes.mass, self.prior_scale)

    def describe(self) -> dict[str, Any]:
        """What is printed, and what `selection_` says of it."""
        shape = self.shape
        return {
            "n_components": self.n_components,
            "prior_scale": self.prior_scale,
            "scatter": shape is not None,
            "rank": 0 if shape is None else shape.rank,
            "shrinkage": None if shape is None else shape.shrinkage,
        }


@dataclass(frozen=True)
class Choices:
    """What to choose between: numbers of heads and prior deviations of margins, both rising; ways to scatter, or None.

    The last of the deviations is the usual one. `new_users_first` is for models that serve users who have not voted:
    their predictions then decide before the size of a population does, its mean is where one reward is, and no other
    deviation is tried, since votes held out are about pairs that others judged: they say little of other pairs.
    """

    n_components: tuple[int, ...]
    alpha: float | None
    prior_scales: tuple[float, ...]
    shapes: tuple[Shape | None, ...]
    new_users_first: bool = False

    @property
    def scales(self) -> tuple[float | None, ...]:
        """The deviations that are tried."""
        if self.alpha is not None:
            return (None,)
        return self.prior_scales[-1:] if self.new_users_first else self.prior_scales

    @property
    def only(self) -> Candidate | None:
        """The one candidate, where there is one."""
        scales = self.scales
        if len(self.n_components) * len(scales) * len(self.shapes) > 1:
            return None
        return Candidate(self.n_components[0], self.alpha, scales[0], self.shapes[0])


@dataclass(frozen=True)
class Tried:
    """A candidate, and what a fit to others says of every user.

    Attributes
    ----------
    candidate : Candidate
    evidence : ndarray of shape (n_users,)
        ℓ_u.
    first : ndarray of shape (n_users,)
        Log-likelihood of the same votes, each as if it were the first of its user.
    size : int
        Numbers of a user's state.
    populations : list of Population
        The fits, one for every fold.
    """

    candidate: Candidate
    evidence: Floats
    first: Floats
    size: int
    populations: list[Population]


def choose(
    votes: UserVotes, choices: Choices, settings: Settings, seed: int, report: Callable[[str], None] | None = None
) -> tuple[Candidate, Factors, list[Tried]]:
    """The smallest candidate within a standard error of the best, what corrects its fit, and all that were tried.

    Every user is held out once. The error is that of the difference between two candidates, paired by user. With
    `new_users_first`, none is chosen that predicts users who have not voted worse than one head does, whatever later
    votes gain, and of two that are level the one that predicts them better is chosen.
    """
    only = choices.only
    if only is not None:
        return only, Factors(), []
    folds = _folds(votes, seed)
    if not folds:  # one user alone
        scale = choices.prior_scales[-1] if choices.alpha is None else None
        return Candidate(choices.n_components[0], choices.alpha, scale, choices.shapes[-1]), Factors(), []
    search = _Search(votes, folds, choices, settings, seed, report)
    search.run()
    allowed = [one for one in search.tried if one.candidate.shape in choices.shapes]
    if choices.new_users_first and None in choices.shapes:
        allowed = [one for one in allowed if not _fails_new_users(votes, one, search.tried)]
    best = max(allowed, key=search.total)
    near = [one for one in allowed if not search.is_better(best, one)]
    if choices.new_users_first:
        near = [one for one in near if not any(_serves_new_users_better(votes, other, one) for other in near)]
    chosen = min(near, key=lambda one: (one.size, -search.total(one)))
    return chosen.candidate, search.factors(chosen), search.tried


def _difference(votes: UserVotes, one: Tried, other: Tried) -> tuple[float, float]:
    """By how much the first has more evidence, and the standard error of that, both in nats of all users."""
    return _sum_and_error(votes, one.evidence - other.evidence)


def _sum_and_error(votes: UserVotes, each: Floats) -> tuple[float, float]:
    """The sum over users, and its standard error."""
    gain = float(votes.outer @ each)
    return gain, math.sqrt(float(votes.outer @ np.square(each - gain / votes.outer.sum())))


def _serves_new_users_better(votes: UserVotes, one: Tried, other: Tried) -> bool:
    """Whether the first predicts first votes better, beyond the paired standard error and beyond a trifle."""
    gain, error = _sum_and_error(votes, one.first - other.first)
    return gain > max(error, _LOSS * votes.mass)


def _fails_new_users(votes: UserVotes, one: Tried, tried: list[Tried]) -> bool:
    """Whether first votes are predicted worse than by one head on which all users sit, where that was tried."""
    heads = (other for other in tried if other.candidate.n_components == 1 and other.candidate.shape is None)
    single = next(heads, None)
    return single is not None and _serves_new_users_better(votes, single, one)


class _Search:
    """The ladder of candidates, from few heads to many."""

    def __init__(
        self,
        votes: UserVotes,
        folds: list[tuple[UserVotes, UserVotes, NDArray[np.intp]]],
        choices: Choices,
        settings: Settings,
        seed: int,
        report: Callable[[str], None] | None,
    ):
        self.votes, self.folds, self.choices = votes, folds, choices
        # To choose by, a fit need not be as close, and votes need not be judged twice.
        self.settings = replace(
            settings,
            tol=5 * settings.tol,
            max_iter=min(settings.max_iter, 40),
            heads_tol=1e-4,
            heads_max_iter=100,
            passes=1,
        )
        self.seed, self.report = seed, report
        self.tried: list[Tried] = []
        #: One reward of every fold, which answers users who have not voted.
        self.single: list[Population] = []
        # One head may have nothing to say where two have; what two ask for serves more of them, too.
        self.scales = choices.scales

    def total(self, one: Tried) -> float:
        """Evidence of all users."""
        return float(self.votes.outer @ one.evidence)

    def is_better(self, one: Tried, other: Tried) -> bool:
        """Whether the first has more evidence than the second beyond the paired standard error, and beyond a trifle."""
        gain, error = _difference(self.votes, one, other)
        return gain > max(error, _GAIN * self.votes.mass)

    def run(self) -> None:
        patience, best = _PATIENCE, None
        fewer: Tried | None = None
        scattering = [shape for shape in self.choices.shapes if shape is not None]
        for k in self.choices.n_components:
            heads, populations = self._heads(k)
            found = [heads] if None in self.choices.shapes else []
            # More heads than the votes support without scatter: none is needed with it.
            supported = fewer is None or self.total(heads) > self.total(fewer)
            if supported or not found:
                found += [self._scattered(heads.candidate, populations, shape) for shape in scattering]
            if best is None and scattering:
                # The shapes differ in what a user needs to say; the best for one head serves more of them, too.
                scattering = self._narrowed(found)
            gained = False
            for one in found:
                gained = gained or best is None or self.is_better(one, best)
                best = one if best is None or self.total(one) > self.total(best) else best
            assert best is not None
            if fewer is not None and None in self.choices.shapes:
                step = self.total(heads) - self.total(fewer)
                catching_up = self.total(best) - self.total(heads) < _WITHIN_REACH * step
                gained = gained or (catching_up and self.is_better(heads, fewer))
            patience = _PATIENCE if gained else patience - 1
            if not patience:
                return
            fewer = heads if supported else fewer

    def factors(self, chosen: Tried) -> Factors:
        """What makes fits to the others most likely to users held out.

        Where τ is given, or is all there is to learn of a scatter and few features say it, nothing has to be corrected.
        """
        shape = chosen.candidate.shape
        if shape is None or shape.tau is not None:
            return Factors()
        if not shape.rank and self.settings.n_directions >= self.votes.rows.reader.n_features:
            return Factors()
        compiled = self.settings.compiled(self.votes, chosen.candidate.n_components)

        def total(factors: Factors) -> float:
            return sum(
                float(held.outer @ evidence(held, factors.applied(population), compiled, self.settings.passes))
                for (_, held, _), population in zip(self.folds, chosen.populations, strict=True)
            )

        return likeliest_factors(total, len(self.folds))

    def _narrowed(self, found: list[Tried]) -> list[Shape]:
        best = max((one for one in found if one.candidate.shape is not None), key=self.total)
        assert best.candidate.shape is not None
        return [best.candidate.shape]

    def _heads(self, k: int) -> tuple[Tried, list[Population]]:
        """Heads of the likeliest prior, and the populations of all folds."""
        found: dict[int, tuple[Tried, list[Population]]] = {}
        starts: list[Population | None] = [None] * len(self.folds)

        def total(place: int) -> float:
            if not 0 <= place < len(self.scales):
                return -math.inf
            if place not in found:
                found[place] = self._heads_under(k, self.scales[place], starts)
            return self.total(found[place][0])

        place = usual = len(self.scales) - 1
        while total(place - 1) > total(place):
            place -= 1
        # Another prior than the usual one needs a reason.
        place = place if self.is_better(found[place][0], found[usual][0]) else usual
        best = found[place]
        self.tried.append(best[0])
        if k > 1:
            self.scales = (self.scales[place],)
        return best

    def _heads_under(
        self, k: int, scale: float | None, starts: list[Population | None]
    ) -> tuple[Tried, list[Population]]:
        """Heads of one prior, from those of another where these are known."""
        candidate = Candidate(k, self.choices.alpha, scale, None)
        populations = []
        for i, (train, _, _) in enumerate(self.folds):
            population = fit_heads(
                train,
                k,
                candidate.penalty(train),
                self.settings,
                start=starts[i],
                random=np.random.RandomState(self.seed),
                n_starts=_STARTS_TRIED,
            )[0]
            starts[i] = starts[i] or population
            populations.append(without_dead_heads(train, population))
        if k == 1 and self.choices.new_users_first:
            self.single = populations
        return self._judge(candidate, populations), populations

    def _scattered(self, heads: Candidate, populations: list[Population], shape: Shape) -> Tried:
        candidate = Candidate(heads.n_components, heads.alpha, heads.prior_scale, shape)
        found = [
            fit_scatter(train, population, shape, heads.penalty(train), self.settings).population
            for (train, _, _), population in zip(self.folds, populations, strict=True)
        ]
        tried = self._judge(candidate, found)
        self.tried.append(tried)
        return tried

    def _judge(self, candidate: Candidate, populations: list[Population]) -> Tried:
        if self.single:
            triples = zip(self.folds, populations, self.single, strict=True)
            populations = [answering_like(train, population, single) for (train, _, _), population, single in triples]
        each, first = np.empty((2, self.votes.n_users))
        for (_, held, users), population in zip(self.folds, populations, strict=True):
            compiled = self.settings.compiled(self.votes, candidate.n_components)
            each[users] = evidence(held, population, compiled, self.settings.passes)
            first[users] = evidence_of_first_votes(held, population)
        q = populations[0].scatter.n_directions
        live = max(population.n_components for population in populations)
        tried = Tried(candidate, each, first, live * (1 + q + q * (q + 1) // 2), populations)
        if self.report is not None:
            said = ", ".join(f"{name}={value}" for name, value in candidate.describe().items())
            self.report(f"{said}: {self.total(tried) / self.votes.mass:.5f} nats per row")
        return tried


def _folds(votes: UserVotes, seed: int) -> list[tuple[UserVotes, UserVotes, NDArray[np.intp]]]:
    """Votes to learn from, votes to judge by, and the users of the latter; every user is held out once."""
    n_folds = min(_FOLDS if votes.n_votes <= _MANY_VOTES else _FOLDS_OF_MANY, votes.n_users)
    if n_folds < 2:
        return []
    fold = votes.drawn_parts(n_folds, seed)
    if (np.bincount(fold, minlength=n_folds) == 0).any():  # a handful of rows, by chance in fewer parts
        return []
    return list(_cut(votes, fold, n_folds))


def _cut(
    votes: UserVotes, fold: NDArray[np.intp], n_folds: int
) -> Iterator[tuple[UserVotes, UserVotes, NDArray[np.intp]]]:
    for f in range(n_folds):
        train = votes.part(fold != f)
        held = UserVotes(votes.rows.part(np.flatnonzero(fold[votes.index] == f)), train.norm)
        yield train, held, np.flatnonzero(fold == f)


def records_of(votes: UserVotes, chosen: Candidate, tried: list[Tried]) -> list[dict[str, Any]]:
    """What was tried, in nats per row, as an estimator shows it."""
    best = max((float(votes.outer @ one.evidence) for one in tried), default=0.0)
    top = next((one for one in tried if float(votes.outer @ one.evidence) == best), None)
    found = []
    for one in tried:
        assert top is not None
        found.append(
            {
                **one.candidate.describe(),
                "numbers_per_user": one.size,
                "nats_per_row": float(votes.outer @ one.evidence) / votes.mass,
                "nats_of_first_votes": float(votes.outer @ one.first) / votes.mass,
                "standard_error": _difference(votes, top, one)[1] / votes.mass,
                "fails_new_users": _fails_new_users(votes, one, tried),
                "chosen": one.candidate == chosen,
            }
        )
    return found
