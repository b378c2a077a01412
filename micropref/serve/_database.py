"""Votes and users in SQLite: a vote, its key and what it made of its user are one transaction."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Hashable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from micropref._reward.serving import Vote
from micropref._rows.ids import restored_id, storable_id
from micropref._support.files import briefly_locked
from micropref._support.locks import Lock

__all__ = ["StorageError", "StoredVote", "UserDatabase"]

_APPLICATION = 0x6D707266  # "mprf", in the header of the file
_FORMAT = 1
# AUTOINCREMENT: the number of a vote that was deleted is never given again.
_SCHEMA = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE users (row INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, n_votes INTEGER NOT NULL, state BLOB NOT NULL);
CREATE TABLE votes (
    number INTEGER PRIMARY KEY AUTOINCREMENT, user INTEGER NOT NULL, key TEXT NOT NULL, prompt TEXT NOT NULL,
    chosen TEXT NOT NULL, rejected TEXT NOT NULL, context TEXT NOT NULL, pair INTEGER NOT NULL
);
CREATE UNIQUE INDEX votes_by_key ON votes (user, key);
"""
_BUSY_MS = 2000


class StorageError(OSError):
    """The users file cannot be read or written now: its disk is full, or another program has locked it."""


class StoredVote(NamedTuple):
    """A vote with its number in the file, and the key of its pair."""

    number: int
    vote: Vote
    pair: int


class UserDatabase:
    """The users file of one server, which no other server may use at the same time.

    One thread writes; others may read.

    Parameters
    ----------
    path : Path
        Made where it does not exist, for the owner's eyes only.

    Raises
    ------
    ValueError
        If another server has the file, or it is not one of users.
    """

    def __init__(self, path: Path):
        self.path = path
        if not path.parent.is_dir():
            raise ValueError(f"expected a users file in a folder that exists, got {path}")
        with ExitStack() as opened:
            try:
                opened.enter_context(briefly_locked(path.with_name(f"{path.name}.lock"), 0.0))
            except TimeoutError:
                raise ValueError(
                    f"expected a users file that no other server uses, got {path}, which another server has locked; "
                    "end that server, or name another file with --users"
                ) from None
            with suppress(FileExistsError):
                os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
            with _storage(f"opening {path}"):
                self._writing, self._reading = (opened.enter_context(_connection(path)) for _ in range(2))
            self._prepare()
            self._open = opened.pop_all()
        self._lock = Lock()  # of the reading connection

    def _prepare(self) -> None:
        """Tables, and that everything which was answered is on the disk."""
        connection = self._writing
        with _storage(f"opening {self.path}"):
            try:
                connection.execute("PRAGMA secure_delete = ON")
                is_new = not connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
            except sqlite3.DatabaseError as error:
                if isinstance(error, sqlite3.OperationalError):
                    raise
                raise ValueError(f"expected a users file of micropref serve, got {self.path}: {error}") from error
            application, version = (
                connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")
            )
            if not is_new and application != _APPLICATION:
                raise ValueError(f"expected a users file of micropref serve, got {self.path}, another SQLite file")
            if not is_new and version != _FORMAT:
                raise ValueError(f"{self.path}: expected users in format {_FORMAT}, got format {version}")
            mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
            if mode != "wal":
                raise ValueError(
                    f"{self.path}: expected a disk on which SQLite can keep a write-ahead log, got the mode {mode!r}; "
                    "use a local disk"
                )
            connection.execute("PRAGMA synchronous = FULL")
            if is_new:
                for statement in (*_SCHEMA.split(";"), f"PRAGMA application_id = {_APPLICATION}"):
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {_FORMAT}")

    # ------------------------------------------------------------------------------------------------- the one writer

    def stored(self, user: Hashable, key: str) -> Vote | None:
        """The vote that a user has sent under a key."""
        with _storage("reading a vote"):
            found = self._writing.execute(
                "SELECT prompt, chosen, rejected, context FROM votes JOIN users ON users.row = votes.user "
                "WHERE users.id = ? AND key = ?",
                (_text(user), key),
            ).fetchone()
        return None if found is None else Vote(user, *found)

    def add(
        self, votes: Sequence[tuple[Vote, str, int]], users: Sequence[Hashable], states: NDArray[np.float32]
    ) -> dict[Hashable, int]:
        """Write votes with their keys and pairs, and what they made of their users: all of it, or nothing.

        Returns
        -------
        n_votes : dict
            Of each user, these included.
        """
        place = {}
        with self._transaction():
            for user, state in zip(users, states, strict=True):
                place[user] = self._writing.execute(
                    "INSERT INTO users (id, n_votes, state) VALUES (?, 0, ?) "
                    "ON CONFLICT (id) DO UPDATE SET state = excluded.state RETURNING row",
                    (_text(user), state.tobytes()),
                ).fetchone()[0]
            self._writing.executemany(
                "INSERT INTO votes (user, key, prompt, chosen, rejected, context, pair) VALUES (?, ?, ?, ?, ?, ?, ?)",
                [
                    (place[vote.user], key, vote.prompt, vote.chosen, vote.rejected, vote.context, pair)
                    for vote, key, pair in votes
                ],
            )
            self._writing.executemany(
                "UPDATE users SET n_votes = n_votes + 1 WHERE row = ?", [(place[vote.user],) for vote, _, _ in votes]
            )
            return {
                user: self._writing.execute("SELECT n_votes FROM users WHERE row = ?", (row,)).fetchone()[0]
                for user, row in place.items()
            }

    def forget(self, user: Hashable) -> int | None:
        """Delete a user; how many votes there were, None without the user. The log holds traces until `fold`."""
        with self._transaction():
            found = self._writing.execute("SELECT row, n_votes FROM users WHERE id = ?", (_text(user),)).fetchone()
            if found is not None:
                self._writing.execute("DELETE FROM votes WHERE user = ?", found[:1])
                self._writing.execute("DELETE FROM users WHERE row = ?", found[:1])
        return None if found is None else int(found[1])

    def fold(self) -> bool:
        """Move the log into the file and empty it; False where another program is reading."""
        with self._lock, _storage("emptying the log"):
            return not self._writing.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]

    def replace_states(self, model: str, users: Sequence[Hashable], states: NDArray[np.float32]) -> None:
        """Write what all users are under another model, which has this name."""
        with self._transaction():
            self._writing.execute("UPDATE users SET state = x''")
            self._writing.executemany(
                "INSERT INTO users (id, n_votes, state) VALUES (?, 0, ?) "
                "ON CONFLICT (id) DO UPDATE SET state = excluded.state",
                ((_text(user), state.tobytes()) for user, state in zip(users, states, strict=True)),
            )
            # Users whom only the model before knew.
            self._writing.execute("DELETE FROM users WHERE n_votes = 0 AND state = x''")
            self._writing.execute("INSERT OR REPLACE INTO meta VALUES ('model', ?)", (model,))

    def replace_pairs(self, pairs: Sequence[tuple[int, int]]) -> None:
        """Write the keys of pairs, each with the number of its vote, as another model has them."""
        with self._transaction():
            self._writing.executemany(
                "UPDATE votes SET pair = ? WHERE number = ?", ((pair, number) for number, pair in pairs)
            )

    # -------------------------------------------------------------------------------------------------------- reading

    def model(self) -> str | None:
        """The name of the model under which the states were written."""
        found = self._read("SELECT value FROM meta WHERE name = 'model'")
        return found[0][0] if found else None

    def users(self) -> tuple[list[Hashable], list[int], list[bytes]]:
        """All users: ids, rows, and states."""
        found = self._read("SELECT id, row, state FROM users ORDER BY row")
        return [_id(text) for text, _, _ in found], [row for _, row, _ in found], [state for _, _, state in found]

    def latest_pairs(self, n: int) -> list[tuple[int, int]]:
        """Row of the user and key of the pair of the last votes, oldest first."""
        return self._read("SELECT user, pair FROM votes ORDER BY number DESC LIMIT ?", (n,))[::-1]

    def votes(self, after: int, n: int) -> list[StoredVote]:
        """The first votes after a number, oldest first."""
        found = self._read(
            "SELECT number, users.id, prompt, chosen, rejected, context, pair FROM votes "
            "JOIN users ON users.row = votes.user WHERE number > ? ORDER BY number LIMIT ?",
            (after, n),
        )
        return [StoredVote(number, Vote(_id(id), *texts), pair) for number, id, *texts, pair in found]

    def votes_of(self, user: Hashable) -> list[StoredVote]:
        """All votes of a user, oldest first."""
        found = self._read(
            "SELECT number, prompt, chosen, rejected, context, pair FROM votes "
            "WHERE user = (SELECT row FROM users WHERE id = ?) ORDER BY number",
            (_text(user),),
        )
        return [StoredVote(number, Vote(user, *texts), pair) for number, *texts, pair in found]

    def state(self, user: Hashable) -> bytes | None:
        """What is stored of a user; None where there is no such user."""
        found = self._read("SELECT state FROM users WHERE id = ?", (_text(user),))
        return found[0][0] if found else None

    def n_votes(self, user: Hashable) -> int | None:
        """How often a user has voted; None where there is no such user."""
        found = self._read("SELECT n_votes FROM users WHERE id = ?", (_text(user),))
        return found[0][0] if found else None

    def counts(self) -> tuple[int, int]:
        """How many users there are, and how many votes."""
        return self._read("SELECT count(*), coalesce(sum(n_votes), 0) FROM users")[0]

    def close(self) -> None:
        """Close the file, with an empty log, and let another server have it."""
        with suppress(StorageError):
            self.fold()
        self._open.close()

    # ------------------------------------------------------------------------------------------------------ internals

    def _read(self, statement: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        with self._lock, _storage("reading users"):
            return self._reading.execute(statement, values).fetchall()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with _storage("writing users"):
            try:
                self._writing.execute("BEGIN IMMEDIATE")
                yield
                self._writing.execute("COMMIT")
            except BaseException:
                if self._writing.in_transaction:
                    with suppress(sqlite3.Error):
                        self._writing.execute("ROLLBACK")
                raise


@contextmanager
def _connection(path: Path) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(path, timeout=_BUSY_MS / 1000, isolation_level=None, check_same_thread=False)
    try:
        yield connection
    finally:
        connection.close()


@contextmanager
def _storage(purpose: str) -> Iterator[None]:
    """A StorageError in place of SQLite's, which says what was tried and why it failed, and holds no texts."""
    try:
        yield
    except sqlite3.Error as error:
        raise StorageError(f"{purpose}: expected a users file that can be used now, got: {error}") from error


def _text(user: Hashable) -> str:
    """An id as the file has it: JSON, in which the integer 12 and text differ."""
    return json.dumps(storable_id(user), ensure_ascii=False)


def _id(text: str) -> Hashable:
    if text[0] == '"' and "\\" not in text:  # text without escapes, as nearly all of many users are
        return text[1:-1]
    return restored_id(json.loads(text))
