"""Service: the model that is served, its users, and the threads that ask it, teach it and replace it."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Sequence
from itertools import chain, groupby
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from micropref._reward.serving import Candidates, Explained, Learned, Rows, ServedModel, Suggested, Vote
from micropref._support.locks import Lock
from micropref.serve._batches import Batches
from micropref.serve._database import StorageError, UserDatabase
from micropref.serve._logs import Log
from micropref.serve._questions import Questions

__all__ = ["BadInputError", "ConflictError", "Counted", "Forget", "KeyedVote", "Service"]

_MOST_SCORED, _MOST_VOTES, _MOST_ASKED = 64, 256, 16
# Responses that the model rewards together: more are no faster, and the rest of a batch would wait for them.
_MOST_ROWS = 512
_REPLAYED = 2000
_REMEMBERED = 1 << 18
_CONTEXTS = 32
# What the library raises where an input is none.
_REFUSALS = (ValueError, TypeError, OverflowError)


class BadInputError(ValueError):
    """An input that the model refuses, in its words."""


class ConflictError(ValueError):
    """A key that its user has used for another vote."""


class KeyedVote(NamedTuple):
    """A vote, and the key under which it counts once."""

    vote: Vote
    key: str


class Counted(NamedTuple):
    """A vote that is on the disk.

    Attributes
    ----------
    n_votes : int
        Of its user.
    is_new : bool
        False where it had been stored before.
    """

    n_votes: int
    is_new: bool


class Forget(NamedTuple):
    """A user to be deleted."""

    user: Hashable


class _Swap(NamedTuple):
    """Another model, which has learned the votes up to a number."""

    served: ServedModel
    name: str
    last: int
    pairs: deque[tuple[int, int]]


class Service:
    """What the endpoints ask.

    Parameters
    ----------
    load : callable
        Gives the model and a name that changes with it.
    database : UserDatabase
    questions : Questions
    log : Log
    """

    def __init__(
        self, load: Callable[[], tuple[Any, str]], database: UserDatabase, questions: Questions, log: Log
    ) -> None:
        self._load, self.database, self.questions, self._log = load, database, questions, log
        self.n_users = self.n_votes = self.n_reloads = self.n_failed_reloads = 0
        self._must_fold = False
        self._doubted: set[Hashable] = set()  # users of whom a failed write may have reached the disk
        self._reloading = threading.Lock()
        self._forgotten: list[Hashable] | None = None  # since a reload began
        self._candidates: OrderedDict[tuple[ServedModel, str], Candidates] = OrderedDict()
        self._candidates_lock = Lock()
        self.served, self.name = self._opened()
        self.n_users, self.n_votes = database.counts()
        self._fold()  # a process that was killed may have left what it had deleted
        self.scoring = Batches(self._score, "scoring", _MOST_SCORED)
        self.writing = Batches(self._write, "writing", _MOST_VOTES)
        self.asking = Batches(self._call, "asking", _MOST_ASKED)

    # ----------------------------------------------------------------------------------------------------------- states

    def _opened(self) -> tuple[ServedModel, str]:
        """The model with its users: as they were stored, and from their votes where that was under another model."""
        start = time.monotonic()
        model, name = self._load()
        served = ServedModel(model)
        if self.database.model() == name and self._restored(empty := served.without_users()):
            self._log.write("users", n_users=len(empty), seconds=round(time.monotonic() - start, 3))
            return empty, name
        last, pairs = self._replay(served, 0)
        self._keep(served, name, pairs)
        self._log.write("replay", n_users=len(served), last=last, seconds=round(time.monotonic() - start, 3))
        return served, name

    def _restored(self, served: ServedModel) -> bool:
        """Whether the stored states are of such a model, which then has them."""
        users, rows, states = self.database.users()
        if any(len(state) != 4 * served.n_numbers for state in states):
            return False
        values = np.frombuffer(b"".join(states), dtype=np.float32).reshape(-1, served.n_numbers)
        latest = np.fromiter(chain.from_iterable(self.database.latest_pairs(_REMEMBERED)), np.int64).reshape(-1, 2)
        served.restore(users, values, np.searchsorted(rows, latest[:, 0]), latest[:, 1])
        return True

    def _replay(self, served: ServedModel, after: int) -> tuple[int, deque[tuple[int, int]]]:
        """Teach a model the votes after a number; the number of the last, and the keys of their pairs."""
        pairs: deque[tuple[int, int]] = deque(maxlen=_REMEMBERED)
        while votes := self.database.votes(after, _REPLAYED):
            learned = self._learned(served, [one.vote for one in votes])
            for some in learned:
                served.adopt(some)
            keys = np.concatenate([some.pairs for some in learned]).view(np.int64).tolist()
            if len(keys) == len(votes):
                pairs.extend(zip((one.number for one in votes), keys, strict=True))
            after = votes[-1].number
        return after, pairs

    def _learned(self, served: ServedModel, votes: Sequence[Vote]) -> list[Learned]:
        """What votes say under another model, which may refuse some that the one before had taken."""
        try:
            return [served.learn(votes)]
        except _REFUSALS:
            if len(votes) == 1:
                self._log.write("refused", level="warning", reason="the model refuses a vote that is stored")
                return [served.learn([])]
            half = len(votes) // 2
            return self._learned(served, votes[:half]) + self._learned(served, votes[half:])

    def _keep(self, served: ServedModel, name: str, pairs: Sequence[tuple[int, int]]) -> None:
        """Write down what all users are under a model: the name last, so that a killed process begins anew."""
        self.database.replace_pairs(pairs)
        self.database.replace_states(name, *served.numbers())

    # ----------------------------------------------------------------------------------------------- asking, in threads

    def _score(self, jobs: list[Rows]) -> list[Any]:
        rows = Rows(*(list(chain.from_iterable(columns)) for columns in zip(*jobs, strict=True)))
        try:
            rewards = self._rewards(rows)
        except _REFUSALS as error:
            if len(jobs) == 1:
                return [BadInputError(str(error))]
            return [self._score([job])[0] for job in jobs]
        ends = np.cumsum([len(job.responses) for job in jobs])
        return [some.tolist() for some in np.split(rewards, ends[:-1])]

    def _rewards(self, rows: Rows) -> NDArray[Any]:
        served, n = self.served, len(rows.responses)
        starts = range(0, n, _MOST_ROWS)
        return np.concatenate([served.reward(rows.part(start, start + _MOST_ROWS)) for start in starts])

    @staticmethod
    def _call(jobs: list[Callable[[], Any]]) -> list[Any]:
        found: list[Any] = []
        for job in jobs:
            try:
                found.append(job())
            except _REFUSALS as error:
                found.append(error if isinstance(error, BadInputError) else BadInputError(str(error)))
        return found

    def explain(self, prompt: str, responses: list[str], context: str, user: Hashable | None) -> Explained:
        """As `ServedModel.explain`."""
        return self.served.explain(prompt, responses, context, user)

    def suggest(
        self, pairs: tuple[list[str], list[str], list[str]] | None, n: int, context: str, user: Hashable | None
    ) -> list[Suggested]:
        """Pairs to ask about, of those given or of the server's own."""
        served = self.served
        if not served.is_personal:
            raise BadInputError(
                "expected a model in which users differ, got a model with one reward for all users, about whom answers "
                "reveal nothing"
            )
        given = self._own_candidates(served, context) if pairs is None else served.candidates(*pairs, context)
        return served.suggest(given, n, user)

    def _own_candidates(self, served: ServedModel, context: str) -> Candidates:
        place = served, context
        with self._candidates_lock:
            if place in self._candidates:
                self._candidates.move_to_end(place)
                return self._candidates[place]
            own = self.questions
            found = served.candidates(own.prompts, own.first, own.second, context)
            self._candidates[place] = found
            while len(self._candidates) > _CONTEXTS:
                self._candidates.popitem(last=False)
            return found

    def about(self, user: Hashable, context: str) -> tuple[int, NDArray[Any]] | None:
        """How often a user has voted, and the weights of the heads for them; None for an unknown user."""
        n_votes = self.database.n_votes(user)
        return None if n_votes is None else (n_votes, self.served.weights(user, context))

    # --------------------------------------------------------------------------------------- the one thread that writes

    def _write(self, jobs: list[Any]) -> list[Any]:
        results: list[Any] = []
        for kind, some in groupby(jobs, type):
            if kind is KeyedVote:
                results += self._count(list(some))
            elif kind is Forget:
                results += [self._forget(job.user) for job in some]
            else:
                results += [self._swap(job) for job in some]
        if self._must_fold:
            self._fold()
        return results

    def _count(self, jobs: list[KeyedVote]) -> list[Any]:
        """Store votes that are new, in one transaction, and let them count; a result or an error for each."""
        try:
            self._settle_doubts()
        except StorageError as error:
            return [error] * len(jobs)
        found: dict[tuple[Hashable, str], Any] = {}
        before: dict[tuple[Hashable, str], Vote] = {}
        fresh: list[KeyedVote] = []
        try:
            for job in jobs:
                place = job.vote.user, job.key
                if place in before:
                    continue
                stored = self.database.stored(*place)
                before[place] = job.vote if stored is None else stored
                if stored is None:
                    fresh.append(job)
                else:
                    found[place] = Counted(self.database.n_votes(job.vote.user) or 0, is_new=False)
        except StorageError as error:
            return [error] * len(jobs)
        found.update(self._stored(fresh))
        results: list[Any] = []
        for job in jobs:
            place = job.vote.user, job.key
            if before[place] != job.vote:
                results.append(ConflictError("key: expected one that this user has not used for another vote, got it"))
                continue
            results.append(found[place])
            if isinstance(found[place], Counted):  # sent again in the same moment
                found[place] = found[place]._replace(is_new=False)
        return results

    def _stored(self, fresh: list[KeyedVote]) -> dict[tuple[Hashable, str], Any]:
        """What became of votes that are new."""
        if not fresh:
            return {}
        try:
            learned = self.served.learn([job.vote for job in fresh])
            pairs = learned.pairs.view(np.int64).tolist()
            rows = [(job.vote, job.key, pair) for job, pair in zip(fresh, pairs, strict=True)]
            counts = self.database.add(rows, learned.users, learned.values)
        except StorageError as error:
            self._doubted.update(job.vote.user for job in fresh)
            return {(job.vote.user, job.key): error for job in fresh}
        except _REFUSALS as error:
            if len(fresh) == 1:
                return {(fresh[0].vote.user, fresh[0].key): BadInputError(str(error))}
            return {place: result for job in fresh for place, result in self._stored([job]).items()}
        self.n_users += sum(user not in self.served for user in learned.users)
        self.n_votes += len(fresh)
        self.served.adopt(learned)
        return {(job.vote.user, job.key): Counted(counts[job.vote.user], is_new=True) for job in fresh}

    def _settle_doubts(self) -> None:
        """Take users as the disk has them, where an error came from a write of which it is not known how far it got."""
        for user in sorted(self._doubted, key=repr):
            state = self.database.state(user)
            if state is not None:
                values = np.frombuffer(state, dtype=np.float32).reshape(1, -1)
                self.served.adopt(Learned([user], values, np.empty(0, dtype=np.int64), np.empty(0, dtype=np.uint64)))
        if self._doubted:
            self.n_users, self.n_votes = self.database.counts()
            self._doubted.clear()

    def _forget(self, user: Hashable) -> Any:
        """How many votes a user had, None for an unknown user, or an error."""
        try:
            n_votes = self.database.forget(user)
        except StorageError as error:
            return error
        if n_votes is None:
            return None
        self.served.forget([user])
        if self._forgotten is not None:
            self._forgotten.append(user)
        self.n_users, self.n_votes, self._must_fold = self.n_users - 1, self.n_votes - n_votes, True
        return n_votes

    def _fold(self) -> None:
        """Empty the log, in which what was deleted still stands."""
        try:
            self._must_fold = not self.database.fold()
        except StorageError as error:
            self._log.write("fold", level="warning", reason=str(error))

    # ---------------------------------------------------------------------------------------------------- another model

    def reload(self) -> None:
        """Load the model again and serve it once it has learned all votes, in a thread of its own."""
        threading.Thread(target=self._reload, name="reloading", daemon=True).start()

    def _reload(self) -> None:
        if not self._reloading.acquire(blocking=False):
            self._log.write("reload", level="warning", reason="expected no reload at work, got one")
            return
        start = time.monotonic()
        try:
            model, name = self._load()
            if name == self.name:
                self._log.write("reload", reason="the model is the same")
                return
            self._forgotten = []
            served = ServedModel(model)
            last, pairs = self._replay(served, 0)
            self.writing.wait_for(_Swap(served, name, last, pairs))
            self._log.write("reload", model=name[:12], seconds=round(time.monotonic() - start, 3))
        except Exception as error:
            self.n_failed_reloads += 1
            self._log.failure("reload", error)
        finally:
            self._forgotten = None
            self._reloading.release()

    def _swap(self, job: _Swap) -> Any:
        try:
            if self._forgotten:
                job.served.forget(self._forgotten)
                for user in dict.fromkeys(self._forgotten):
                    again = [one.vote for one in self.database.votes_of(user) if one.number <= job.last]
                    if again:
                        job.served.adopt(job.served.learn(again))
            job.pairs.extend(self._replay(job.served, job.last)[1])
            self._keep(job.served, job.name, job.pairs)
        except Exception as error:
            return error
        self.served, self.name = job.served, job.name
        with self._candidates_lock:
            self._candidates.clear()
        self.n_reloads += 1
        return None

    # ------------------------------------------------------------------------------------------------------------- life

    def start(self) -> None:
        """Begin to serve, inside of a loop."""
        for batches in (self.scoring, self.writing, self.asking):
            batches.start()

    def close(self) -> None:
        """Finish what waits, if it does not take long, and close the users file."""
        for batches, seconds in ((self.writing, 3.0), (self.scoring, 1.0), (self.asking, 1.0)):
            batches.close(seconds)
        self.database.close()
