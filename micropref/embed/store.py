"""Vectors on disk, computed once: never lost, never another model's, never silently wrong."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence, Sized
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any, Self

import numpy as np

from micropref.embed._folder import ShardFolder
from micropref.embed._index import MISSING, shard_of
from micropref.embed._progress import EmbeddingProgress, Interruption
from micropref.embed._shards import DamagedShardError, key_table, text_keys
from micropref.embed._upkeep import Compaction, compact, export_keys, export_vectors, merge
from micropref.embed.protocol import Encoder, check_texts
from micropref.pairs import make_pairs

_DTYPES = ("float16", "float32")
_WINDOW_SHARDS = 4
_BATCHES_AT_ONCE = 16
_BATCH_SIZE = 32
_BLOCK_ROWS = 8192


class EmbeddingStore:
    """Keeps the vectors of one encoder in a folder and computes only those that are missing.

    A vector is found by a key of the encoder's fingerprint and the exact text, and beside every vector its shard keeps
    that key: what the index says is checked against the shard, and the shard against the checksum in its name, before
    anything is returned. So the index may be lost or damaged at any time; it is made anew from the shards.

    Several processes may use one store: one writes at a time, the others wait or read. Nothing is ever unpickled.

    Parameters
    ----------
    path : path
        Folder of the store; created where it is missing and an encoder is given.
    encoder : Encoder, optional
        Anything with ``encode(texts)`` and ``fingerprint``. None: only what is there can be read.
    shard_size : int, default=16384
        Texts per file. A process that is killed loses at most two shards of work: one that is computed, one that is
        written.
    dtype : {"float16", "float32"}, optional
        How vectors are stored. None: as those that are there, and float16 in a new store.
    progress : bool, optional
        Whether to show a bar with rate, remaining time and truncations; None: where standard error is a terminal.

    Attributes
    ----------
    path : Path
    encoder : Encoder or None
    fingerprint : str
        Of the encoder whose vectors are kept; "" while there are none and no encoder.

    Raises
    ------
    EncoderMismatchError
        If the folder holds vectors of another encoder; both are named.
    FileNotFoundError
        If there is no store and no encoder.
    ValueError
        If the vectors that are there have another dtype than the one asked for.

    See Also
    --------
    PairEncoder : Tables of texts to X, with ``store=`` for the vectors.

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
        dtype: str | None = None,
        progress: bool | None = None,
    ):
        if isinstance(shard_size, bool) or not isinstance(shard_size, int) or shard_size < 1:
            raise ValueError(f"shard_size must be an integer of at least 1; got {shard_size!r}")
        if dtype is not None and dtype not in _DTYPES:
            raise ValueError(f"dtype must be None or one of {', '.join(map(repr, _DTYPES))}; got {dtype!r}")
        self.path = Path(path).absolute()
        self.encoder = encoder
        self.shard_size = shard_size
        self.progress = progress
        self._asked_dtype = dtype
        if not self.path.is_dir():
            if encoder is None:
                raise FileNotFoundError(f"there is no store at {path}, and no encoder to make one")
            self.path.mkdir(parents=True, exist_ok=True)
        self._folder = ShardFolder(self.path, None if encoder is None else encoder.fingerprint)
        found = self._folder.dtype
        if found is not None and dtype is not None and found != np.dtype(dtype):
            raise ValueError(f"the store {path} keeps vectors in {found}, but dtype is {dtype!r}")

    @property
    def fingerprint(self) -> str:
        return self._folder.fingerprint or ""

    @property
    def dtype(self) -> np.dtype:
        """In which vectors are stored."""
        found = self._folder.dtype
        return np.dtype(self._asked_dtype or "float16") if found is None else found

    @property
    def n_dimensions(self) -> int | None:
        """Width of the vectors; None while there are none."""
        return self._folder.width

    # --------------------------------------------------------------------------------------------------------- reading

    def __len__(self) -> int:
        """Number of texts whose vectors are kept."""
        return len(self._folder)

    def __contains__(self, text: str) -> bool:
        """Whether the vector of a text is kept."""
        return bool(self._folder.find(self._keys([text]))[0] != MISSING)

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

        Raises
        ------
        ValueError
            If the encoder returns anything else than a finite row for every text; what it computed before is kept.
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
        texts = check_texts(texts, allow_blank=True)
        keys = self._keys(texts)
        positions = self._found(texts, keys)
        if len(positions) and self.n_dimensions is None:  # another process has begun the store since it was opened
            self._folder.refresh()
            self._folder.shard(int(shard_of(positions[0])))
        if out is None:
            out = np.empty((len(keys), self.n_dimensions or 0), dtype=self.dtype)
        elif out.shape != (len(keys), self.n_dimensions or out.shape[-1]):
            raise ValueError(f"out has shape {out.shape}, wanted ({len(keys)}, {self.n_dimensions})")
        try:
            self._folder.read(keys, positions, out)
        except DamagedShardError:
            # Another process may have put its vectors into other shards since they were found.
            self._folder.refresh()
            moved = self._found(texts, keys)
            if np.array_equal(moved, positions):
                raise
            self._folder.read(keys, moved, out)
        return out

    def missing(self, texts: Iterable[str]) -> list[str]:
        """Distinct texts without a vector, in order of their first appearance.

        Parameters
        ----------
        texts : iterable of str

        Returns
        -------
        list of str
        """
        distinct = list(dict.fromkeys(check_texts(list(texts), allow_blank=True)))
        absent = self._folder.missing(self._keys(distinct))
        return [text for text, is_missing in zip(distinct, absent, strict=True) if is_missing]

    def blocks(self, texts: Iterable[str], block_size: int = _BLOCK_ROWS) -> Iterator[np.ndarray]:
        """Vectors of a stream of texts, block by block, as `partial_fit` takes them; all must be there.

        Parameters
        ----------
        texts : iterable of str
        block_size : int, default=8192
            Rows of a block; the last one may have fewer.

        Yields
        ------
        vectors : ndarray of shape (n_rows, n_dimensions)
        """
        _check_block_size(block_size)
        source = iter(texts)
        while block := list(islice(source, block_size)):
            yield self.lookup(block)

    def make_pairs(
        self,
        first: Sequence[str],
        second: Sequence[str],
        context: Sequence[str] | None = None,
        *,
        out: np.ndarray | None = None,
    ) -> np.ndarray:
        """X of comparisons from the vectors of their texts, without ever holding more than a block of the store.

        Parameters
        ----------
        first, second : sequence of n str
            Responses.
        context : sequence of n str, optional
            Prompts, or other contexts.
        out : array of shape (n, n_context_features + n_dimensions), optional
            Where to write X, a memory-mapped file for instance.

        Returns
        -------
        X : ndarray of shape (n, n_context_features + n_dimensions)
            ``[context | first − second]``; the difference is taken in float32. `out`, or an array in float32.
        """
        lengths = {len(first), len(second), len(first if context is None else context)}
        if len(lengths) > 1:
            raise ValueError(f"first, second and context must have the same length; got {sorted(lengths)}")
        width = (self.n_dimensions or 0) * (1 if context is None else 2)
        if out is None:
            out = np.empty((len(first), width), dtype=np.float32)
        elif out.shape != (len(first), width):
            raise ValueError(f"out has shape {out.shape}, wanted ({len(first)}, {width})")
        start = 0
        columns = (first, second) if context is None else (first, second, context)
        for X in self.pair_blocks(zip(*columns, strict=True)):
            out[start : start + len(X)] = X
            start += len(X)
        return out

    def pair_blocks(self, pairs: Iterable[Sequence[str]], block_size: int = _BLOCK_ROWS) -> Iterator[np.ndarray]:
        """X of a stream of comparisons, block by block, as `partial_fit` takes them; all texts must be there.

        Parameters
        ----------
        pairs : iterable of (first, second) or (first, second, context)
        block_size : int, default=8192

        Yields
        ------
        X : ndarray of float32 of shape (n_rows, n_context_features + n_dimensions)

        Examples
        --------
        >>> import tempfile
        >>> from micropref import MixtureBradleyTerry
        >>> from micropref.embed import EmbeddingStore, HashingEncoder
        >>> pairs = [("Short.", "Long, long."), ("Brief.", "It goes on, and on.")] * 4
        >>> model = MixtureBradleyTerry(n_components=1)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     store = EmbeddingStore(folder, HashingEncoder(n_features=64))
        ...     _ = store.add(text for pair in pairs for text in pair)
        ...     for X in store.pair_blocks(pairs, block_size=4):
        ...         _ = model.partial_fit(X)
        >>> model.coef_.shape
        (1, 64)
        """
        _check_block_size(block_size)
        source = iter(pairs)
        while block := list(islice(source, block_size)):
            first, second, *context = (self.lookup(texts).astype(np.float32) for texts in zip(*block, strict=True))
            yield make_pairs(first, second, *context)

    def info(self) -> dict[str, Any]:
        """What the store holds.

        Returns
        -------
        info : dict
            With the keys n_texts, n_shards, n_bytes, n_truncated (texts longer than the encoder reads), encoder (its
            fingerprint), dtype, and n_dimensions (None while empty).
        """
        names = self._folder.names()
        return {
            "n_texts": len(self),
            "n_shards": len(names),
            "n_bytes": sum((self.path / name).stat().st_size for name in names),
            "n_truncated": self._folder.n_truncated,
            "encoder": self.fingerprint,
            "dtype": str(self.dtype),
            "n_dimensions": self.n_dimensions,
        }

    # --------------------------------------------------------------------------------------------------------- writing

    def add(self, texts: Iterable[str], *, part: tuple[int, int] = (0, 1)) -> int:
        """Compute and keep the vectors that are missing, of a stream of any length.

        Memory is bounded by the shard, not by the stream. Texts of about the same length are embedded together. The
        first Ctrl-C keeps what was computed and ends with a KeyboardInterrupt that says how to go on.

        Parameters
        ----------
        texts : iterable of str
        part : tuple of two int, default=(0, 1)
            ``(i, n)``: embed only the i-th of n parts, into which texts fall by their keys. Processes that are each
            given another part share the work of one store.

        Returns
        -------
        n_new : int
            Texts that were embedded.
        """
        which, n_parts = part
        if not 0 <= which < n_parts:
            raise ValueError(f"part must be (i, n) with 0 <= i < n; got {part!r}")
        self._folder.refresh()
        n_total = len(texts) if isinstance(texts, Sized) else None
        source, writing = iter(texts), _Writing()
        waiting: dict[bytes, str] = {}
        notice = "\nKeeping what was computed; Ctrl-C again to stop at once."
        with (
            EmbeddingProgress(n_total, self.progress) as progress,
            Interruption(notice) as interruption,
            ThreadPoolExecutor(1, thread_name_prefix="micropref-store") as writer,
        ):
            while True:
                window = check_texts(list(islice(source, _WINDOW_SHARDS * self.shard_size)), allow_blank=True)
                new = self._new_texts(window, which, n_parts, waiting.keys() | writing.keys)
                waiting |= new
                progress.looked_at(len(window), len(new), sum(map(len, new.values())))
                while len(waiting) >= self.shard_size or (waiting and not window):
                    # The longest first: what does not fit into memory fails at once, not at the end.
                    keys = sorted(waiting, key=lambda key: -len(waiting[key]))[: self.shard_size]
                    shard = _Shard(self, keys, [waiting.pop(key) for key in keys])
                    try:
                        shard.compute(progress, interruption)
                    finally:  # an encoder that fails, or Ctrl-C, loses no more than what it was just computing
                        writing.wait()
                        if shard.n_done:
                            writing.begin(writer, shard)
                    if interruption.wished:
                        break
                if interruption.wished or not window:
                    writing.wait()
                    break
        if interruption.wished:
            raise KeyboardInterrupt(
                f"stopped after {progress.n_embedded} texts, which are kept in {self.path}; "
                "the same call goes on from there"
            )
        return progress.n_embedded

    def _new_texts(self, window: list[str], which: int, n_parts: int, known: set[bytes]) -> dict[bytes, str]:
        """Texts of a window by their keys: those of one part that are neither kept nor known to be under way."""
        texts = dict(zip(self._keys(window), window, strict=True))
        keys = [key for key in texts if key not in known and int.from_bytes(key[:8], "big") % n_parts == which]
        absent = self._folder.missing(keys)
        return {key: texts[key] for key, is_missing in zip(keys, absent, strict=True) if is_missing}

    # ---------------------------------------------------------------------------------------------------------- upkeep

    def verify(self) -> list[str]:
        """Read the index and every shard again, and compare each with its checksum.

        Returns
        -------
        damaged : list of str
            What is wrong with the index, and with each damaged or missing shard; empty where all is well.
        """
        return self._folder.faults()

    def compact(self) -> Compaction:
        """Put small shards together, drop vectors that are there twice, and remove damaged files that were set aside.

        At every instant every vector is in a shard that the index knows or would take in. Memory is bounded by a
        shard; other processes may go on reading.

        Returns
        -------
        compaction : Compaction
            ``n_shards_before``, ``n_shards_after`` and ``n_bytes_freed``.
        """
        self._folder.refresh()
        return compact(self._folder, self.shard_size)

    def merge(self, other: str | os.PathLike[str]) -> int:
        """Take in the shards of another store of the same encoder, as of another machine. They are copied.

        Parameters
        ----------
        other : path
            Folder of the other store.

        Returns
        -------
        n_new : int
            Texts that were not there.

        Raises
        ------
        EncoderMismatchError
            If it keeps vectors of another encoder; both are named.
        DamagedShardError
            If one of its shards is not what was written; those before it have been taken in.
        """
        return merge(self._folder, Path(other))

    def export(self, path: str | os.PathLike[str], texts: Sequence[str] | None = None) -> None:
        """Write vectors to one file for other programs, block by block.

        Parameters
        ----------
        path : path
            With ``texts``: a .npy file, a row for every text. Without: a .safetensors file of all ``vectors`` and their
            ``keys`` (16 bytes of BLAKE2b over the fingerprint, a zero byte and the text).
        texts : sequence of n str, optional
            Which vectors, in which order; all must be there.

        Raises
        ------
        ValueError
            If the name of the file does not end as it should.
        KeyError
            For a text that is not there.
        """
        target = Path(path)
        wanted = ".safetensors" if texts is None else ".npy"
        if target.suffix != wanted:
            raise ValueError(f"found the file {target.name}, wanted a name that ends in {wanted}")
        if texts is None:
            export_keys(self._folder, target)
        else:
            self._found(texts, self._keys(check_texts(texts, allow_blank=True)))
            export_vectors(target, self.blocks(texts), (len(texts), self.n_dimensions or 0), self.dtype)

    def close(self) -> None:
        """Let go of the files. The store cannot be used any more."""
        self._folder.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    # ------------------------------------------------------------------------------------------------------- internals

    def _keys(self, texts: Iterable[str]) -> list[bytes]:
        return text_keys(self.fingerprint, texts)

    def _found(self, texts: Sequence[str], keys: Sequence[bytes]) -> np.ndarray:
        positions = self._folder.find(keys)
        absent = shard_of(positions) < 0
        if absent.any():
            raise KeyError(
                f"{int(absent.sum())} of {len(keys)} texts are not in the store, the first is "
                f"{texts[int(np.argmax(absent))]!r}"
            )
        return positions

    def __sklearn_clone__(self) -> Self:
        # Nothing is learned: the folds of a cross-validation share one store.
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {
            "path": self.path,
            "encoder": self.encoder,
            "shard_size": self.shard_size,
            "dtype": self._asked_dtype,
            "progress": self.progress,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state.pop("path"), state.pop("encoder"), **state)  # type: ignore[misc]

    def __repr__(self) -> str:
        return f"EmbeddingStore({str(self.path)!r}, {len(self)} texts of {self.fingerprint or 'no encoder'})"


class _Shard:
    """A shard that is being computed: some texts, and the vectors of the first `n_done` of them."""

    def __init__(self, store: EmbeddingStore, keys: list[bytes], texts: list[str]):
        self.store = store
        self.keys = keys
        self.texts = texts
        self.vectors: np.ndarray | None = None
        self.n_done = 0
        self.n_truncated = 0

    def compute(self, progress: EmbeddingProgress, interruption: Interruption) -> None:
        """Embed the texts, some batches at a time, until all are done or somebody wishes to stop."""
        encoder, folder = self.store.encoder, self.store._folder
        if encoder is None:
            raise ValueError(f"{len(self.texts)} texts are missing, and the store was opened without an encoder")
        if not folder.writable:
            raise PermissionError(f"{len(self.texts)} texts are missing, and {folder.path} cannot be written to")
        size = _BATCHES_AT_ONCE * getattr(encoder, "batch_size", _BATCH_SIZE)
        while self.n_done < len(self.texts) and not interruption.wished:
            texts = self.texts[self.n_done : self.n_done + size]
            before = getattr(encoder, "n_truncated_total_", 0)
            vectors = self._checked(encoder.encode(texts), texts)
            if self.vectors is None:
                self.vectors = np.empty((len(self.texts), vectors.shape[1]), dtype=vectors.dtype)
            self.vectors[self.n_done : self.n_done + len(texts)] = vectors
            n_truncated = getattr(encoder, "n_truncated_total_", 0) - before
            self.n_done += len(texts)
            self.n_truncated += n_truncated
            progress.embedded(len(texts), sum(map(len, texts)), n_truncated)

    def _checked(self, found: Any, texts: list[str]) -> np.ndarray:
        vectors, name, width = np.asarray(found), self.store.fingerprint, self.store.n_dimensions
        if vectors.ndim != 2 or len(vectors) != len(texts) or vectors.dtype.kind != "f":
            raise ValueError(
                f"the encoder {name} gave {vectors.dtype} of shape {vectors.shape} for {len(texts)} texts; "
                "wanted floating numbers, a row for each"
            )
        width = self.vectors.shape[1] if self.vectors is not None else width
        if width is not None and vectors.shape[1] != width:
            raise ValueError(f"the encoder gave vectors of width {vectors.shape[1]}; the store holds {width}")
        with np.errstate(over="ignore"):
            stored = vectors.astype(self.store.dtype, copy=False)
        bad = ~np.isfinite(stored).all(axis=1)
        if bad.any():
            raise ValueError(
                f"the vector of {texts[int(np.argmax(bad))]!r} is not finite in {self.store.dtype}; it was not kept"
            )
        return stored

    def write(self) -> None:
        assert self.vectors is not None
        self.store._folder.append(key_table(self.keys[: self.n_done]), self.vectors[: self.n_done], self.n_truncated)


class _Writing:
    """The shard that is being written while the next one is computed."""

    def __init__(self) -> None:
        self.keys: set[bytes] = set()
        self._future: Future[None] | None = None

    def begin(self, writer: ThreadPoolExecutor, shard: _Shard) -> None:
        self.keys = set(shard.keys[: shard.n_done])
        self._future = writer.submit(shard.write)

    def wait(self) -> None:
        """Until it is written; an error of its writing is raised here."""
        if self._future is not None:
            future, self._future, self.keys = self._future, None, set()
            future.result()


def _check_block_size(block_size: int) -> None:
    if isinstance(block_size, bool) or not isinstance(block_size, int) or block_size < 1:
        raise ValueError(f"block_size must be an integer of at least 1; got {block_size!r}")
