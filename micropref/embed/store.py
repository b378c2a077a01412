"""Vectors on disk, computed once: never lost, never another model's, never silently wrong."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any, Self

import numpy as np

from micropref._support.renamed import moved
from micropref.embed._filling import fill
from micropref.embed._folder import ShardFolder
from micropref.embed._index import MISSING
from micropref.embed._indexed import is_store
from micropref.embed._lookup import ROW, check_out, find_rows, gather, locate, stacked
from micropref.embed._shards import DamagedShardError, damaged_names, text_keys
from micropref.embed._texts import check_texts
from micropref.embed._upkeep import Compaction, check_target, compact, export_keys, export_vectors, merge, size_of
from micropref.embed.protocol import Encoder
from micropref.pairs import make_pairs

__all__ = ["EmbeddingStore"]
__getattr__ = moved(__name__)

_DTYPES = ("float16", "float32")
_BLOCK_ROWS = 8192
_TRIES = 3


class EmbeddingStore:
    """Keep the vectors of one encoder in a folder, and compute only those that are missing.

    The key of a vector is made from the encoder's fingerprint and the exact text, and a shard stores the key beside
    every vector. Before anything is returned, the index is checked against the shard, and the shard against the
    checksum in its name. So the index may be lost or damaged at any time; it is rebuilt from the shards.

    Several processes may use the same store: one writes at a time, the others wait or read. Nothing is ever unpickled.

    Parameters
    ----------
    path : path
        Folder of the store; created if it does not exist and an encoder is given.
    encoder : Encoder, optional
        Any object with ``encode(texts)`` and ``fingerprint``. None: only stored vectors can be read.
    shard_size : int, default=16384
        Texts per file. A process that is killed loses at most two shards of work: the one being computed and the one
        being written.
    dtype : {"float16", "float32"}, optional
        Type of the stored vectors. None: as in the existing store, or float16 in a new one.
    progress : bool, optional
        Whether to show a bar with rate, remaining time and truncations; None: if standard error is a terminal.
    read_only : bool, default=False
        Change nothing in the folder, not even damaged files. This is also the case if the folder cannot be written to.

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
        If the stored vectors have a dtype other than `dtype`.

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
        read_only: bool = False,
    ):
        if isinstance(shard_size, bool) or not isinstance(shard_size, int) or shard_size < 1:
            raise ValueError(f"shard_size: expected an integer of at least 1, got {shard_size!r}")
        if dtype is not None and dtype not in _DTYPES:
            raise ValueError(f"dtype: expected None or one of {', '.join(map(repr, _DTYPES))}, got {dtype!r}")
        if encoder is not None and not (isinstance(encoder.fingerprint, str) and encoder.fingerprint):
            raise TypeError(f"fingerprint: expected a string that names the encoder, got {encoder.fingerprint!r}")
        self.path = Path(path).absolute()
        self.encoder = encoder
        self.shard_size = shard_size
        self.progress = progress
        self.read_only = read_only
        self._asked_dtype = dtype
        if self.path.exists() and not self.path.is_dir():
            raise NotADirectoryError(f"expected the folder of a store, got the file {path}")
        if not is_store(self.path) and (encoder is None or (read_only and not self.path.is_dir())):
            lacking = "without an encoder" if encoder is None else "with read_only=True"
            raise FileNotFoundError(f"{path}: expected a store, got none there, and none is made {lacking}")
        self.path.mkdir(parents=True, exist_ok=True)
        self._folder = ShardFolder(self.path, None if encoder is None else encoder.fingerprint, read_only=read_only)
        found = self._folder.dtype
        if found is not None and dtype is not None and found != np.dtype(dtype):
            raise ValueError(f"dtype: expected {found}, in which the store {path} keeps vectors, got {dtype!r}")

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the encoder whose vectors are stored; empty while there are none.

        Returns
        -------
        fingerprint : str
        """
        return self._folder.fingerprint or ""

    @property
    def dtype(self) -> np.dtype:
        """Type in which vectors are stored."""
        found = self._folder.dtype
        return np.dtype(self._asked_dtype or "float16") if found is None else found

    @property
    def n_dimensions(self) -> int | None:
        """Width of the vectors; None while there are none."""
        return self._folder.width

    def __len__(self) -> int:
        """Number of texts whose vectors are kept."""
        return len(self._folder)

    def __contains__(self, text: str) -> bool:
        """Whether the vector of a text is kept."""
        return bool(find_rows(self._folder, [text])["position"][0] != MISSING)

    def encode(self, texts: Sequence[str], out: np.ndarray | None = None) -> np.ndarray:
        """Vectors of the texts, in order; missing ones are computed once and stored.

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
        check_out(out, (len(texts), self.n_dimensions))
        for _ in range(_TRIES):
            rows = find_rows(self._folder, texts)
            if (rows["position"] != MISSING).all():
                with suppress(DamagedShardError, KeyError):
                    return self.gather(rows, out)
            self.add(texts)
        # Whatever other processes do to the folder meanwhile, they do not do it every time.
        return self.gather(self.locate(texts), out)

    def lookup(self, texts: Sequence[str], out: np.ndarray | None = None) -> np.ndarray:
        """Stored vectors of texts; nothing is computed.

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
        return self.gather(self.locate(texts), out)

    def locate(self, texts: Sequence[str]) -> np.ndarray:
        """Rows of the vectors of texts: look them up once, and gather the vectors as often as needed.

        Parameters
        ----------
        texts : sequence of n str

        Returns
        -------
        rows : structured array of shape (n,)
            With the fields ``position`` and ``key``, 24 bytes each; may be sliced, shuffled and saved like any array.

        Raises
        ------
        KeyError
            For a text that is not there.
        """
        return locate(self._folder, check_texts(texts, allow_blank=True))

    def gather(self, rows: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Vectors at rows that `locate` found, read from memory-mapped files.

        Parameters
        ----------
        rows : structured array of shape (n,)
        out : array of shape (n, n_dimensions), optional

        Returns
        -------
        vectors : ndarray of shape (n, n_dimensions)
            `out`, or an array in the dtype of the store.

        Raises
        ------
        DamagedShardError
            If a shard is not what was written.
        KeyError
            If the vector of a row no longer exists, or the rows come from another store.
        """
        return gather(self._folder, rows, out, self.dtype)

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
        absent = self._folder.missing(text_keys(self.fingerprint, distinct))
        return [text for text, is_missing in zip(distinct, absent, strict=True) if is_missing]

    def blocks(self, texts: Iterable[str] | np.ndarray, block_size: int = _BLOCK_ROWS) -> Iterator[np.ndarray]:
        """Vectors of a stream of texts, block by block; all must be in the store.

        Parameters
        ----------
        texts : iterable of str, or rows that `locate` found
        block_size : int, default=8192
            Rows of a block; the last one may have fewer.

        Yields
        ------
        vectors : ndarray of shape (n_rows, n_dimensions)
        """
        if isinstance(block_size, bool) or not isinstance(block_size, int) or block_size < 1:
            raise ValueError(f"block_size: expected an integer of at least 1, got {block_size!r}")
        if isinstance(texts, np.ndarray) and texts.dtype == ROW:
            for start in range(0, len(texts), block_size):
                yield self.gather(texts[start : start + block_size])
            return
        source = iter(texts)
        while block := list(islice(source, block_size)):
            yield self.lookup(block)

    def make_pairs(
        self,
        first: Sequence[str] | np.ndarray,
        second: Sequence[str] | np.ndarray,
        context: Sequence[str] | np.ndarray | None = None,
        *,
        out: np.ndarray | None = None,
    ) -> np.ndarray:
        """Build X of comparisons from the vectors of their texts, holding only one block of the store at a time.

        Parameters
        ----------
        first, second : sequence of n str, or rows that `locate` found
            Responses.
        context : sequence of n str or rows, optional
            Prompts, or other contexts.
        out : array of shape (n, n_context_features + n_dimensions), optional
            Where to write X, a memory-mapped file for instance.

        Returns
        -------
        X : ndarray of shape (n, n_context_features + n_dimensions)
            ``[context | first − second]``; the difference is taken in float32. `out`, or an array in float32.
        """
        return stacked(self.pair_blocks(first, second, context), len(first), out, self.n_dimensions or 0)

    def pair_blocks(
        self,
        first: Sequence[str] | np.ndarray,
        second: Sequence[str] | np.ndarray,
        context: Sequence[str] | np.ndarray | None = None,
        *,
        block_size: int = _BLOCK_ROWS,
    ) -> Iterator[np.ndarray]:
        """Build X of comparisons block by block, as input of `partial_fit`.

        Parameters
        ----------
        first, second, context
            As in `make_pairs`.
        block_size : int, default=8192
            Rows of a block; the last one may have fewer.

        Yields
        ------
        X : ndarray of float32 of shape (n_rows, n_context_features + n_dimensions)

        Examples
        --------
        >>> import tempfile
        >>> from micropref import MixtureBradleyTerry
        >>> from micropref.embed import EmbeddingStore, HashingEncoder
        >>> short, long = ["Short.", "Brief."] * 4, ["Long, long.", "It goes on, and on."] * 4
        >>> model = MixtureBradleyTerry(n_components=1)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     store = EmbeddingStore(folder, HashingEncoder(n_features=64))
        ...     n_new = store.add(short + long)
        ...     for X in store.pair_blocks(short, long, block_size=4):
        ...         model = model.partial_fit(X)
        >>> n_new, model.coef_.shape
        (4, (1, 64))
        """
        columns = [first, second] if context is None else [first, second, context]
        lengths = [len(column) for column in columns]
        if len(set(lengths)) > 1:
            raise ValueError(f"expected as many first as second responses and contexts, got {lengths}")
        for vectors in zip(*(self.blocks(column, block_size) for column in columns), strict=True):
            yield make_pairs(*(part.astype(np.float32) for part in vectors))

    def info(self) -> dict[str, Any]:
        """Counts of texts, shards and bytes in the store.

        Returns
        -------
        info : dict
            With the keys n_texts, n_shards, n_bytes, n_truncated (texts longer than the encoder reads; one that two
            processes embedded counts for both), n_damaged (shards that were set aside), encoder (its fingerprint),
            dtype, and n_dimensions (None while empty).
        """
        n_shards, n_bytes = size_of(self._folder)
        return {
            "n_texts": len(self),
            "n_shards": n_shards,
            "n_bytes": n_bytes,
            "n_truncated": self._folder.n_truncated,
            "n_damaged": len(damaged_names(self.path)),
            "encoder": self.fingerprint,
            "dtype": str(self.dtype),
            "n_dimensions": self.n_dimensions,
        }

    def add(self, texts: Iterable[str], *, part: tuple[int, int] = (0, 1)) -> int:
        """Compute and store the missing vectors of a stream of texts of any length.

        Memory is bounded by the shard, not by the stream. Texts of about the same length are embedded together. The
        first Ctrl-C keeps what was computed and ends with a KeyboardInterrupt that says how to resume.

        Parameters
        ----------
        texts : iterable of str
        part : tuple of two int, default=(0, 1)
            ``(i, n)``: embed only the i-th of n parts, into which texts fall by their keys. Processes with different
            parts share the work for one store.

        Returns
        -------
        n_new : int
            Texts that were embedded.
        """
        return fill(
            self._folder,
            self.encoder,
            texts,
            shard_size=self.shard_size,
            dtype=self.dtype,
            part=part,
            shown=self.progress,
        )

    def verify(self) -> list[str]:
        """Read and compare the index and every shard; a damaged index is rebuilt.

        Returns
        -------
        damaged : list of str
            A description of the damage of the index, and of each damaged or missing shard; empty if there is none.
        """
        return self._folder.faults()

    def compact(self) -> Compaction:
        """Merge small shards, and drop duplicate vectors. Damaged shards are set aside.

        At every instant, every vector is in a shard that the index knows or would add. Memory is bounded by two shards;
        other processes may continue to read, write and compact.

        Returns
        -------
        compaction : Compaction
            ``n_shards_before``, ``n_shards_after`` and ``n_bytes_freed``.
        """
        return compact(self._folder, self.shard_size)

    def merge(self, other: str | os.PathLike[str]) -> int:
        """Copy the shards of another store of the same encoder, for example from another machine.

        Parameters
        ----------
        other : path
            Folder of the other store.

        Returns
        -------
        n_new : int
            Number of texts that this store did not have.

        Raises
        ------
        EncoderMismatchError
            If the other store has vectors of another encoder; both are named.
        DamagedShardError
            If one of its shards is damaged; the shards before it have been copied.
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
        check_target(target, ".safetensors" if texts is None else ".npy", self.path)
        if texts is None:
            export_keys(self._folder, target)
        else:
            rows = self.locate(texts)
            export_vectors(target, self.blocks(rows), (len(rows), self.n_dimensions or 0), self.dtype)

    def close(self) -> None:
        """Close the files. The store cannot be used afterwards."""
        self._folder.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

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
            "read_only": self.read_only,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state.pop("path"), state.pop("encoder"), **state)  # type: ignore[misc]

    def __repr__(self) -> str:
        return f"EmbeddingStore({str(self.path)!r}, {len(self)} texts of {self.fingerprint or 'no encoder'})"
