"""Vectors on disk, computed once: never lost, never another model's, never silently wrong."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, Self

import numpy as np

from micropref.embed._index import Index
from micropref.embed._shards import (
    DamagedShardError,
    Shard,
    open_shard,
    shard_names,
    sync_folder,
    text_key,
    write_shard,
)
from micropref.embed.encoders import EncoderMismatchError
from micropref.embed.protocol import Encoder, check_texts

try:
    import fcntl
except ImportError:  # no advisory locks: one writer at a time is then the user's care
    fcntl = None  # type: ignore[assignment]

_DTYPES = {"float16": np.float16, "float32": np.float32}


class EmbeddingStore:
    """Keeps the vectors of one encoder in a folder and computes only those that are missing.

    A vector is found by a key of the encoder's fingerprint and the exact text, and beside every vector its shard keeps
    that key: what the index says is checked against the shard, and the shard against the checksum in its name, before
    anything is returned. So the index may be lost or damaged at any time; it is made anew from the shards.

    Parameters
    ----------
    path : path
        Folder of the store; created where it is missing and an encoder is given.
    encoder : Encoder, optional
        Anything with ``encode(texts)`` and ``fingerprint``. None: only what is there can be read.
    shard_size : int, default=16384
        Texts per file. A process that is killed loses at most two shards of work.
    dtype : {"float16", "float32"}, default="float16"
        How vectors are stored.

    Raises
    ------
    EncoderMismatchError
        If the folder holds vectors of another encoder; both are named.
    FileNotFoundError
        If there is no store and no encoder.

    Examples
    --------
    >>> import tempfile
    >>> from micropref.embed import EmbeddingStore, HashingEncoder
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     store = EmbeddingStore(folder, HashingEncoder(n_features=64))
    ...     vectors = store.encode(["yes", "no", "yes"])
    ...     len(store), vectors.shape
    (2, (3, 64))
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        encoder: Encoder | None = None,
        *,
        shard_size: int = 16384,
        dtype: str = "float16",
    ):
        if isinstance(shard_size, bool) or not isinstance(shard_size, int) or shard_size < 1:
            raise ValueError(f"shard_size must be an integer of at least 1; got {shard_size!r}")
        if dtype not in _DTYPES:
            raise ValueError(f"dtype must be one of {', '.join(map(repr, _DTYPES))}; got {dtype!r}")
        self.path = Path(path)
        self.encoder = encoder
        self.shard_size = shard_size
        self.dtype = dtype
        if not self.path.is_dir():
            if encoder is None:
                raise FileNotFoundError(f"there is no store at {self.path}, and no encoder to make one")
            self.path.mkdir(parents=True, exist_ok=True)
        self.writable = os.access(self.path, os.W_OK)
        self._open: dict[int, Shard] = {}
        self._names: dict[int, str] = {}
        self._width: int | None = None
        self._index: Index
        self._fingerprint: str
        self._connect()

    # --------------------------------------------------------------------------------------------------------- reading

    def __len__(self) -> int:
        """Number of texts whose vectors are kept."""
        return len(self._index)

    def encode(self, texts: Sequence[str], out: np.ndarray | None = None) -> np.ndarray:
        """Vectors of the texts in their order; those that are missing are computed, each once, and kept.

        Parameters
        ----------
        texts : sequence of n str
        out : array of shape (n, n_dimensions), optional
            Where to write them, a memory-mapped file for instance.

        Returns
        -------
        vectors : ndarray of shape (n, n_dimensions)
            `out`, or an array in the dtype of the store.
        """
        texts = check_texts(texts, allow_blank=True)
        self.add(texts)
        return self.lookup(texts, out)

    def lookup(self, texts: Sequence[str], out: np.ndarray | None = None) -> np.ndarray:
        """Vectors that are kept; nothing is computed.

        Parameters
        ----------
        texts : sequence of n str
        out : array of shape (n, n_dimensions), optional

        Returns
        -------
        vectors : ndarray of shape (n, n_dimensions)

        Raises
        ------
        KeyError
            For a text that is not there.
        DamagedShardError
            If a shard is not what was written; `encode` computes its vectors anew.
        """
        keys = [text_key(self._fingerprint, text) for text in texts]
        shards, rows = self._index.find(keys)
        if (shards < 0).any():
            text = texts[int(np.argmax(shards < 0))]
            raise KeyError(
                f"{int((shards < 0).sum())} of {len(keys)} texts are not in the store, the first is {text!r}"
            )
        for shard in np.unique(shards):
            part = self._shard(int(shard))
            where = np.flatnonzero(shards == shard)
            wanted = np.frombuffer(b"".join(keys[i] for i in where), dtype=np.uint8).reshape(len(where), -1)
            if rows[where].max() >= len(part.keys) or not np.array_equal(part.keys[rows[where]], wanted):
                self._rebuild()
                return self.lookup(texts, out)
            if out is None:
                out = np.empty((len(keys), part.vectors.shape[1]), dtype=part.vectors.dtype)
            out[where] = part.vectors[rows[where]]
        return np.empty((0, 0), dtype=_DTYPES[self.dtype]) if out is None else out

    def info(self) -> dict[str, Any]:
        """What the store holds: texts, shards, bytes, encoder and dimension.

        Returns
        -------
        info : dict
            With the keys n_texts, n_shards, n_bytes, encoder (its fingerprint) and n_dimensions (None while empty).
        """
        names = list(shard_names(self.path))
        return {
            "n_texts": len(self),
            "n_shards": len(names),
            "n_bytes": sum((self.path / name).stat().st_size for name in names),
            "encoder": self._fingerprint,
            "n_dimensions": self._width,
        }

    def verify(self) -> list[str]:
        """Read every shard again and compare it with its checksum.

        Returns
        -------
        damaged : list of str
            What is wrong with each damaged or missing shard; empty where all is well.
        """
        wrong = []
        for name in self._index.shards():
            try:
                open_shard(self.path, name)
            except DamagedShardError as error:
                wrong.append(str(error))
        return wrong

    # --------------------------------------------------------------------------------------------------------- writing

    def add(self, texts: Iterable[str]) -> int:
        """Compute and keep the vectors that are missing, of a stream of any length.

        Parameters
        ----------
        texts : iterable of str

        Returns
        -------
        n_new : int
            Texts that were embedded.
        """
        n_new, source = 0, iter(texts)
        waiting: dict[bytes, str] = {}
        with ThreadPoolExecutor(1, thread_name_prefix="micropref-store") as writer:
            written: Future[None] | None = None
            while True:
                window = check_texts(list(islice(source, 4 * self.shard_size)), allow_blank=True)
                keys = {text_key(self._fingerprint, text): text for text in window}
                waiting |= {key: keys[key] for key in self._missing([key for key in keys if key not in waiting])}
                while len(waiting) >= self.shard_size or (waiting and not window):
                    # Texts of about the same length together: a batch costs what its longest text does.
                    order = sorted(waiting, key=lambda key: len(waiting[key]))[: self.shard_size]
                    vectors = self._computed([waiting.pop(key) for key in order])
                    if written is not None:
                        written.result()
                    written = writer.submit(self._append, order, vectors)
                    n_new += len(order)
                if not window:
                    if written is not None:
                        written.result()
                    return n_new

    def _missing(self, keys: list[bytes]) -> list[bytes]:
        """Keys without a sound vector; what a damaged shard held is forgotten and missing from then on."""
        shards, _ = self._index.find(keys)
        for shard in np.unique(shards[shards >= 0]):
            try:
                self._shard(int(shard))
            except DamagedShardError:
                if not self.writable:
                    raise
                self._forget(int(shard))
        shards, _ = self._index.find(keys)
        return [key for key, shard in zip(keys, shards, strict=True) if shard < 0]

    def _computed(self, texts: list[str]) -> np.ndarray:
        if self.encoder is None:
            raise ValueError(f"{len(texts)} texts are missing, and the store was opened without an encoder")
        if not self.writable:
            raise PermissionError(f"{len(texts)} texts are missing, and {self.path} cannot be written to")
        vectors = np.asarray(self.encoder.encode(texts))
        if vectors.ndim != 2 or len(vectors) != len(texts) or vectors.dtype.kind != "f":
            raise ValueError(
                f"the encoder {self._fingerprint} gave {vectors.dtype} of shape {vectors.shape} for {len(texts)} "
                "texts; wanted floating numbers, a row for each"
            )
        if self._width is not None and vectors.shape[1] != self._width:
            raise ValueError(f"the encoder gave vectors of width {vectors.shape[1]}; the store holds {self._width}")
        with np.errstate(over="ignore"):
            stored = vectors.astype(_DTYPES[self.dtype], copy=False)
        bad = ~np.isfinite(stored).all(axis=1)
        if bad.any():
            raise ValueError(
                f"the vector of {texts[int(np.argmax(bad))]!r} is not finite in {self.dtype}; nothing of it was kept"
            )
        return stored

    def _append(self, keys: list[bytes], vectors: np.ndarray) -> None:
        with self._locked():
            name = write_shard(self.path, self._fingerprint, keys, vectors)
            self._index.add(name, keys)
        self._width = vectors.shape[1]

    # ------------------------------------------------------------------------------------------------------- internals

    def _connect(self) -> None:
        with self._locked():
            try:
                self._index = Index(self.path / "index.sqlite", self.writable)
                unsound = self._index.damaged()
                known = {} if unsound else self._index.shards()
            except sqlite3.DatabaseError:
                unsound, known = True, {}
            present = set(shard_names(self.path))
            if unsound and self.writable:
                self._discard_index()
                known = {}
            elif unsound:
                raise DamagedShardError(f"the index of {self.path} is damaged, and the folder cannot be written to")
            if self.writable:
                for stale in self.path.glob("*.tmp"):
                    stale.unlink(missing_ok=True)
                for name in set(known) - present:
                    self._index.forget(name)
                for name in sorted(present - set(known)):
                    self._adopt(name)
        self._names = {number: name for name, number in self._index.shards().items()}
        self._fingerprint = self._checked_fingerprint()

    def _adopt(self, name: str) -> None:
        """Take a shard into the index that a killed process had written and not yet entered."""
        try:
            shard = open_shard(self.path, name)
        except DamagedShardError:
            os.replace(self.path / name, self.path / f"{name}.damaged")
            return
        self._index.add(name, [key.tobytes() for key in shard.keys])

    def _checked_fingerprint(self) -> str:
        own = None if self.encoder is None else self.encoder.fingerprint
        for number in self._names:
            try:
                shard = self._shard(number)
            except DamagedShardError:
                continue
            self._width = shard.vectors.shape[1]
            if own is not None and shard.fingerprint != own:
                raise EncoderMismatchError(
                    f"the store {self.path} keeps vectors of the encoder {shard.fingerprint}, but the encoder is {own}"
                )
            return shard.fingerprint
        return own or ""

    def _shard(self, number: int) -> Shard:
        if number not in self._open:
            if number not in self._names:
                self._names = {n: name for name, n in self._index.shards().items()}
            if number not in self._names:
                raise DamagedShardError(f"the index of {self.path} names shard {number}, which it does not know")
            self._open[number] = open_shard(self.path, self._names[number])
        return self._open[number]

    def _forget(self, number: int) -> None:
        with self._locked():
            name = self._names.pop(number, None)
            self._open.pop(number, None)
            if name is not None:
                self._index.forget(name)
                if (self.path / name).exists():
                    os.replace(self.path / name, self.path / f"{name}.damaged")
                    sync_folder(self.path)

    def _discard_index(self) -> None:
        if hasattr(self, "_index"):
            self._index.close()
        for suffix in ("", "-wal", "-shm"):
            (self.path / f"index.sqlite{suffix}").unlink(missing_ok=True)
        self._index = Index(self.path / "index.sqlite", self.writable)

    def _rebuild(self) -> None:
        """Make the index anew from the shards."""
        if not self.writable:
            raise DamagedShardError(f"the index of {self.path} is wrong, and the folder cannot be written to")
        with self._locked():
            self._discard_index()
            self._open.clear()
            for name in shard_names(self.path):
                self._adopt(name)
            self._names = {number: name for name, number in self._index.shards().items()}

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One writer at a time, of all processes."""
        if not self.writable or fcntl is None:
            yield
            return
        with (self.path / "lock").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def __sklearn_clone__(self) -> Self:
        return self
