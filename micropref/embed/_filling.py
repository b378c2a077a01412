"""How a store is filled: what is missing of a stream is computed shard by shard while the last one is written."""

from __future__ import annotations

import reprlib
import time
from collections.abc import Iterable, Iterator, Sized
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from typing import Any

import numpy as np

from micropref.embed._folder import ShardFolder
from micropref.embed._progress import EmbeddingProgress, Interruption
from micropref.embed._shards import key_table, text_keys
from micropref.embed.protocol import Encoder, check_texts

_WINDOW_SHARDS = 4
# Texts given to the encoder at once: few enough that Ctrl-C and the bar need not wait long; more where it is quick,
# since it can overlap tokenising and computing inside one call only.
_BATCHES_AT_ONCE = 16
_BATCH_SIZE = 32
_QUICK_SECONDS = 0.5
_NONE = object()


def fill(
    folder: ShardFolder,
    encoder: Encoder | None,
    texts: Iterable[str],
    *,
    shard_size: int,
    dtype: np.dtype,
    part: tuple[int, int] = (0, 1),
    shown: bool | None = None,
) -> int:
    """Embed and keep what is missing; `EmbeddingStore.add` says what that means. Number of texts embedded."""
    if isinstance(texts, str):
        raise TypeError(f"found one string, {reprlib.repr(texts)}, wanted many")
    which, n_parts = part
    if not 0 <= which < n_parts:
        raise ValueError(f"part must be (i, n) with 0 <= i < n; got {part!r}")
    folder.refresh()
    n_total = len(texts) if isinstance(texts, Sized) else None
    source, writing = iter(texts), _Writing()
    waiting: dict[bytes, str] = {}
    with (
        _without_its_own_bar(encoder),
        EmbeddingProgress(n_total, shown) as progress,
        Interruption("\nKeeping what was computed; Ctrl-C again to stop at once.") as interruption,
        ThreadPoolExecutor(1, thread_name_prefix="micropref-store") as writer,
    ):
        n_read = 0
        while True:
            window = check_texts(list(islice(source, _WINDOW_SHARDS * shard_size)), allow_blank=True, start=n_read)
            n_read += len(window)
            keys = dict(zip(text_keys(folder.fingerprint or "", window), window, strict=True))
            new = [
                key
                for key in keys
                if key not in waiting and key not in writing.keys and int.from_bytes(key[:8], "big") % n_parts == which
            ]
            absent = {key: keys[key] for key, gone in zip(new, folder.missing(new), strict=True) if gone}
            waiting |= absent
            progress.looked_at(len(window), len(absent), sum(map(len, absent.values())))
            while len(waiting) >= shard_size or (waiting and not window):
                # The longest first: what does not fit into memory fails at once, not at the end.
                longest = sorted(waiting, key=lambda key: -len(waiting[key]))[:shard_size]
                shard = _Shard(folder, longest, [waiting.pop(key) for key in longest], dtype)
                try:
                    shard.compute(encoder, progress, interruption)
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
            f"stopped after {progress.n_embedded} texts, which are kept in {folder.path}; "
            "the same call goes on from there"
        )
    return progress.n_embedded


@contextmanager
def _without_its_own_bar(encoder: Encoder | None) -> Iterator[None]:
    """The bar of the store is enough."""
    before = getattr(encoder, "show_progress", _NONE)
    if before is not _NONE:
        encoder.show_progress = False  # type: ignore[union-attr]
    try:
        yield
    finally:
        if before is not _NONE:
            encoder.show_progress = before  # type: ignore[union-attr]


class _Shard:
    """A shard that is being computed: some texts, and the vectors of the first `n_done` of them."""

    def __init__(self, folder: ShardFolder, keys: list[bytes], texts: list[str], dtype: np.dtype):
        self.folder = folder
        self.keys = keys
        self.texts = texts
        self.dtype = dtype
        self.vectors: np.ndarray | None = None
        self.n_done = 0
        self.n_truncated = 0

    def compute(self, encoder: Encoder | None, progress: EmbeddingProgress, interruption: Interruption) -> None:
        """Embed the texts, some batches at a time, until all are done or somebody wishes to stop."""
        if encoder is None:
            raise ValueError(f"{len(self.texts)} texts are missing, and the store was opened without an encoder")
        if not self.folder.writable:
            raise PermissionError(f"{len(self.texts)} texts are missing, and {self.folder.path} cannot be written to")
        size = _BATCHES_AT_ONCE * getattr(encoder, "batch_size", _BATCH_SIZE)
        start = time.monotonic()
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
            last, start = start, time.monotonic()
            if start - last < _QUICK_SECONDS:
                size *= 2

    def _checked(self, found: Any, texts: list[str]) -> np.ndarray:
        vectors, name, width = np.asarray(found), self.folder.fingerprint, self.folder.width
        if vectors.ndim != 2 or len(vectors) != len(texts) or vectors.dtype.kind != "f":
            raise ValueError(
                f"the encoder {name} gave {vectors.dtype} of shape {vectors.shape} for {len(texts)} texts; "
                "wanted floating numbers, a row for each"
            )
        width = self.vectors.shape[1] if self.vectors is not None else width
        if width is not None and vectors.shape[1] != width:
            raise ValueError(f"the encoder gave vectors of width {vectors.shape[1]}; the store holds {width}")
        with np.errstate(over="ignore"):
            stored = vectors.astype(self.dtype, copy=False)
        bad = ~np.isfinite(stored).all(axis=1)
        if bad.any():
            raise ValueError(
                f"the vector of {texts[int(np.argmax(bad))]!r} is not finite in {self.dtype}; it was not kept"
            )
        return stored

    def write(self) -> None:
        assert self.vectors is not None
        self.folder.append(key_table(self.keys[: self.n_done]), self.vectors[: self.n_done], self.n_truncated)


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
