"""What a store has on disk: shards, and an index that is a cache of what they say. It knows keys and no texts.

A shard holds the key of every vector and is named by its checksum. So whatever the index says is checked against the
shard, and the shard against its name, before a vector is returned; and an index that is lost, damaged or behind is made
anew from the shards. A folder may therefore be copied, merged with another by copying files, and killed at any instant.
"""

from __future__ import annotations

import threading
import warnings
from collections import Counter, OrderedDict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from micropref._support.files import file_state
from micropref._support.warnings import level_of_caller
from micropref.embed._index import MISSING, Index, row_of, shard_of
from micropref.embed._index_faults import DamagedIndexError
from micropref.embed._indexed import IndexedFolder
from micropref.embed._shards import (
    DamagedShardError,
    Shard,
    check_same_encoder,
    check_same_kind,
    check_shard,
    holds_any,
    map_shard,
    set_aside,
    shard_names,
    write_shard,
)

# Mapped at the same time; each holds a file descriptor, of which a process often has no more than 1 024.
_OPEN_SHARDS = 256
# Threads that compare checksums; hashing lets go of the interpreter.
_READERS = 4
# Of a shard that is gone: shards are put together whole, so that few keys say whether this one was.
_SAMPLED_KEYS = 16


class ShardFolder(IndexedFolder):
    """Shards and their index in one folder.

    Parameters
    ----------
    path : Path
        An existing folder.
    fingerprint : str, optional
        Of the encoder; None takes that of the vectors that are there.
    read_only : bool, default=False
        Change nothing, not even what is damaged. So it is, too, where the files cannot be written to.

    Attributes
    ----------
    width : int or None
        Of the vectors; None while there are none.
    dtype : dtype or None

    Raises
    ------
    EncoderMismatchError
        If a shard holds vectors of another encoder; both are named.
    """

    def __init__(self, path: Path, fingerprint: str | None = None, *, read_only: bool = False):
        super().__init__(path, read_only=read_only)
        self.fingerprint = fingerprint
        self.width: int | None = None
        self.dtype: np.dtype | None = None
        # Of what is known of shards: readers may be several threads.
        self._guard = threading.RLock()
        self._open: OrderedDict[int, Shard] = OrderedDict()
        self._sound: dict[int, tuple[int, ...]] = {}
        self._names: dict[int, str] = {}
        # Files that are no shards of this store, with the state in which they were read.
        self._foreign: dict[str, tuple[int, ...]] = {}
        self._is_compared = False
        self._connect()

    def close(self) -> None:
        """Let go of the index and of all files."""
        super().close()
        with self._guard:
            self._open.clear()

    # --------------------------------------------------------------------------------------------------------- reading

    def __len__(self) -> int:
        return self._asked(lambda: len(self._index))

    @property
    def n_truncated(self) -> int:
        return self._asked(lambda: self._index.n_truncated)

    def names(self) -> list[str]:
        """Names of the shards that the index knows."""
        return list(self._shards())

    def find(self, keys: Sequence[bytes]) -> np.ndarray:
        """Position of every key, int64; MISSING where there is none."""
        return self._asked(lambda: self._index.find(keys))

    def read(self, keys: np.ndarray, positions: np.ndarray, out: np.ndarray) -> None:
        """Copy vectors at their positions into `out`, row by row, after comparing the keys beside them.

        Where they are not there, as after another process has put shards together, the keys are looked up again.

        Raises
        ------
        DamagedShardError
            If a shard is not what was written.
        KeyError
            If there is no vector of a key.
        """
        if self._copied(keys, positions, out):
            return
        again = [key.tobytes() for key in keys]
        for last_resort in (self.refresh, self.rebuild):
            last_resort()
            found = self.find(again)
            if (found == MISSING).any():
                n_missing = int((found == MISSING).sum())
                raise KeyError(f"{self.path}: expected vectors of {len(keys)} rows, got none of {n_missing} among them")
            if self._copied(keys, found, out):
                return
        raise DamagedShardError(f"{self.path}: expected an index that agrees with the shards, got one that does not")

    def _copied(self, keys: np.ndarray, positions: np.ndarray, out: np.ndarray) -> bool:
        """Copy vectors; False where some are not at their positions."""
        numbers, rows = shard_of(positions), row_of(positions)
        wanted = np.unique(numbers)
        self.check(wanted)
        if any(int(number) not in self._names for number in wanted):
            return False
        order = np.argsort(positions, kind="stable")
        starts = np.flatnonzero(np.diff(numbers[order], prepend=MISSING))
        for where in np.split(order, starts[1:]) if len(order) else []:
            try:
                shard = self.shard(int(numbers[where[0]]))
            except DamagedShardError:
                if (self.path / self._names[int(numbers[where[0]])]).exists():
                    raise
                return False
            part = rows[where]
            if part.max() >= len(shard.keys) or not np.array_equal(shard.keys[part], keys[where]):
                return False
            out[where] = shard.vectors[part]
        return True

    def check(self, numbers: np.ndarray) -> list[int]:
        """Compare shards that have not been read yet with their checksums, several at a time; those that are damaged.

        `shard` tells what is wrong with one of them.
        """
        with self._guard:
            self._know_names(numbers)
            states = {int(n): file_state(self.path / self._names[int(n)]) for n in numbers if int(n) in self._names}
            unread = [number for number, state in states.items() if self._sound.get(number) != state]
            names = dict(self._names)

        def is_sound(number: int) -> bool:
            try:
                check_shard(self.path / names[number])
            except DamagedShardError:
                return False
            return True

        if unread:
            with ThreadPoolExecutor(min(_READERS, len(unread))) as readers:
                results = list(readers.map(is_sound, unread))
            with self._guard:
                for number, sound in zip(unread, results, strict=True):
                    self._open.pop(number, None)
                    if sound:
                        self._sound[number] = states[number]
                    else:
                        self._sound.pop(number, None)
        return [int(n) for n in numbers if int(n) not in states or int(n) not in self._sound]

    def _know_names(self, numbers: np.ndarray) -> None:
        if any(int(number) not in self._names for number in numbers):
            self._names = {number: name for name, number in self._shards().items()}

    def numbers(self) -> list[int]:
        """Numbers of the shards that the index knows."""
        return list(self._shards().values())

    def _shards(self) -> dict[str, int]:
        return self._asked(lambda: self._index.shards())

    def shard(self, number: int) -> Shard:
        """An open shard; its bytes are compared with its checksum when it is first opened, and whenever it changes.

        Raises
        ------
        DamagedShardError
            If it is not what was written.
        """
        with self._guard:
            self._know_names(np.array([number]))
            if number not in self._names:
                raise DamagedShardError(f"{self.path}: expected a shard that the index knows, got number {number}")
            path = self.path / self._names[number]
            state = file_state(path)
            if self._sound.get(number) != state:
                self._open.pop(number, None)
                check_shard(path)
                self._sound[number] = state
            shard = self._open.get(number)
            if shard is None:
                shard = map_shard(path)
                self._take(shard)
                self._open[number] = shard
                while len(self._open) > _OPEN_SHARDS:
                    self._open.popitem(last=False)
            self._open.move_to_end(number)
            return shard

    def _take(self, shard: Shard) -> None:
        """Compare a shard with the others, of which the first one says what all are."""
        if self.fingerprint is None:
            self.fingerprint = shard.fingerprint
        self._check_kind(shard, self.path)
        self.width, self.dtype = shard.vectors.shape[1], shard.vectors.dtype

    def _check_kind(self, shard: Shard, place: Path) -> None:
        check_same_encoder(place, shard.fingerprint, self.fingerprint or shard.fingerprint)
        check_same_kind(place, shard.vectors, self.width, self.dtype)

    def shards(self) -> Iterator[Shard]:
        """All shards that the index knows, one after the other."""
        for number in self._shards().values():
            yield self.shard(number)

    def find_shard(self, name: str) -> Shard | None:
        """An open shard; None if the index does not know its name any more, or it is damaged."""
        number = self._shards().get(name)
        try:
            return None if number is None else self.shard(number)
        except DamagedShardError:
            return None

    def referenced(self, shard: Shard) -> np.ndarray:
        """Which rows of a shard the index points to; the others are vectors that another shard holds, too."""
        number = self._shards().get(shard.name)
        found = self.find([key.tobytes() for key in shard.keys])
        points_here: np.ndarray = (shard_of(found) == number) & (row_of(found) == np.arange(len(found)))
        return points_here

    def faults(self) -> list[str]:
        """What is wrong with the index and with each damaged or missing shard, after reading all of them again."""
        found, n_entries = [], 0
        fault = self._fault_of_index()
        for name, number in self._shards().items():
            try:
                check_shard(self.path / name)
                is_entered = self._entries(map_shard(self.path / name), number)
            except DamagedShardError as error:
                found.append(str(error))
                with self._guard:
                    self._open.pop(number, None)
                    self._sound.pop(number, None)
                continue
            if (is_entered == MISSING).any():
                fault = fault or f"it lacks the places of some vectors of {name}"
            n_entries += int((is_entered == number).sum())
        if fault is None and not found and n_entries != len(self):
            fault = f"it has {len(self)} entries of {n_entries} vectors"
        if fault is not None:
            anew = "; it was rebuilt from the shards" if self.writable else ""
            found.insert(0, f"{self.path / 'index.sqlite'} is damaged: {fault}{anew}")
            self.rebuild()
        return found

    def _fault_of_index(self) -> str | None:
        try:
            return self._index.fault()
        except DamagedIndexError as error:
            return str(error)

    def _entries(self, shard: Shard, number: int) -> np.ndarray:
        """Number of the shard in which the index finds each key of a shard; MISSING where it finds another key."""
        positions = self.find([key.tobytes() for key in shard.keys])
        shards, is_here = shard_of(positions), shard_of(positions) == number
        shards[is_here & (row_of(positions) != np.arange(len(positions)))] = MISSING
        shards[~np.isin(shards, self.numbers())] = MISSING
        return shards

    # --------------------------------------------------------------------------------------------------------- writing

    def append(self, keys: np.ndarray, vectors: np.ndarray, n_truncated: int, replacing: Sequence[str] = ()) -> str:
        """Write a shard and enter it; it takes the place of those that it replaces, whose files stay. Its name."""
        assert self.fingerprint is not None
        with self.locked():
            if self.width is None:  # another process may have begun the store in another way
                self._asked(self._reconcile)
            check_same_kind(self.path, vectors, self.width, self.dtype)
            name = write_shard(self.path, self.fingerprint, keys, vectors, n_truncated)
            entered = [key.tobytes() for key in keys]
            self._asked(lambda: self._index.add(name, entered, n_truncated, replacing))
        self.width, self.dtype = vectors.shape[1], vectors.dtype
        return name

    def damaged(self, keys: Sequence[bytes]) -> list[int]:
        """Numbers of the damaged shards among those that the index names for the keys."""
        positions = self.find(keys)
        return self.check(np.unique(shard_of(positions[positions != MISSING])))

    def missing(self, keys: Sequence[bytes]) -> np.ndarray:
        """Which keys have no sound vector."""
        positions = self.find(keys)
        if not self._is_compared:
            nowhere = (positions == MISSING) | ~np.isin(shard_of(positions), self.numbers())
            self._is_compared = bool(nowhere.any())
            if self.overlooks([key for key, is_nowhere in zip(keys, nowhere, strict=True) if is_nowhere]):
                self.rebuild()
                positions = self.find(keys)
        damaged = self.check(np.unique(shard_of(positions[positions != MISSING])))
        absent: np.ndarray = (positions == MISSING) | np.isin(shard_of(positions), damaged)
        return absent

    def overlooks(self, keys: Sequence[bytes]) -> bool:
        """Whether a shard holds one of the keys, so that an index that finds none of them is damaged."""
        return bool(keys) and holds_any((self.path / name for name in self._shards()), keys)

    def set_aside(self, numbers: Sequence[int]) -> None:
        """Forget damaged shards, so that what they held is missing; their files stay under another name."""
        named = {number: self._names[number] for number in numbers if number in self._names}
        with self.locked():
            lost, current = 0, self._shards()
            for number, name in named.items():
                if name not in current:  # another process has put it together with others
                    continue
                try:
                    check_shard(self.path / name)
                except DamagedShardError:
                    lost += 1
                    with self._guard:
                        self._names.pop(number, None)
                        self._open.pop(number, None)
                    self._asked(lambda name=name: self._index.forget(name))  # type: ignore[misc]
                    set_aside(self.path, name)
        self._warn(lost)

    def drop(self, names: Sequence[str]) -> None:
        """Remove the files of shards that the index does not need any more."""
        with self.locked():
            for name in names:
                self._asked(lambda name=name: self._index.forget(name))  # type: ignore[misc]
                (self.path / name).unlink(missing_ok=True)

    def refresh(self) -> None:
        """Take in what other processes wrote, or a user copied here; forget what is gone."""
        if not self.writable:
            if not self._is_current(self._index):
                self._connect()
            return
        with self.locked():
            self._asked(self._reconcile)

    # ------------------------------------------------------------------------------------------------------- internals

    def _forget(self) -> None:
        with self._guard:
            self._n_numbers = max([self._n_numbers, *self._names])
            self._names, self._is_compared = {}, False
            self._open.clear()
            self._sound.clear()

    def _is_current(self, index: Index) -> bool:
        known, present = set(index.shards()), shard_names(self.path)
        return known <= present and all(self._is_foreign_file(name) for name in present - known)

    def _reconcile(self) -> None:
        """Bring the index in line with the files that are there."""
        known, present = set(self._index.shards()), shard_names(self.path)
        gone = {name: self._index.some_keys(name, _SAMPLED_KEYS) for name in known - present}
        for name in gone:
            self._index.forget(name)
        self._learn()  # the store says what it keeps, not a shard that was copied here
        lost = self._adopt(sorted(name for name in present - known if not self._is_foreign_file(name)))
        # What is gone under one name may be there under another: shards were put together, or the name was damaged.
        lost += sum(bool((self._index.find(keys) == MISSING).any()) for keys in gone.values())
        self._learn()
        self._warn(lost)

    def _is_foreign_file(self, name: str) -> bool:
        return self._foreign.get(name) == file_state(self.path / name)

    def _adopt(self, names: Sequence[str]) -> int:
        """Take in shards that killed processes had written and not entered, or a user copied; how many are damaged."""
        sound, kinds, refused = [], Counter[tuple[str, int, np.dtype]](), {}
        for name in names:
            self.alive()
            try:
                check_shard(self.path / name)
            except DamagedShardError:
                if self.writable:
                    set_aside(self.path, name)
                continue
            sound.append(name)
            try:
                shard = map_shard(self.path / name)
                kinds[shard.fingerprint, shard.vectors.shape[1], shard.vectors.dtype] += len(shard.keys)
            except DamagedShardError as error:  # it has its checksum, so that another program wrote it
                refused[name] = str(error)
        if self.width is None and kinds:
            own = Counter({kind: n for kind, n in kinds.items() if kind[0] == self.fingerprint}) or kinds
            (fingerprint, self.width, self.dtype), _ = own.most_common(1)[0]
            check_same_encoder(self.path, fingerprint, self.fingerprint or fingerprint)
            self.fingerprint = fingerprint
        for name in sound:
            if name in refused:
                continue
            self.alive()
            shard = map_shard(self.path / name)
            try:
                self._check_kind(shard, self.path / name)
            except ValueError as error:
                refused[name] = str(error)
            else:
                self._index.add(name, [key.tobytes() for key in shard.keys], shard.n_truncated)
        self._leave_out(refused)
        return len(names) - len(sound)

    def _leave_out(self, refused: dict[str, str]) -> None:
        """Say which files are no shards of this store; they stay where they are, and are not read again."""
        for name, reason in refused.items():
            self._foreign[name] = file_state(self.path / name)
            warnings.warn(
                f"the store {self.path} leaves out a file that is no shard of it: {reason}",
                UserWarning,
                stacklevel=level_of_caller(),
            )

    def _warn(self, n_lost: int) -> None:
        if n_lost:
            shards = "1 shard" if n_lost == 1 else f"{n_lost} shards"
            warnings.warn(
                f"{shards} of the store {self.path} {'is' if n_lost == 1 else 'are'} damaged or missing; "
                "the texts there will be embedded again when they are needed",
                UserWarning,
                stacklevel=level_of_caller(),
            )

    def _learn(self) -> None:
        with self._guard:
            self._names = {number: name for name, number in self._index.shards().items()}
        for number in self._names:
            if self.width is not None:
                return
            try:
                self.shard(number)
            except DamagedShardError:
                continue
