"""How a store is filled: what is missing of a stream is computed shard by shard while the last one is written."""

from __future__ import annotations

import errno
import reprlib
import time
from collections.abc import Iterable, Iterator, Sized
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from typing import Any

import numpy as np

from micropref._arrays.backend import is_torch, to_numpy
from micropref._support.files import is_full
from micropref._support.text import counted
from micropref.embed._folder import ShardFolder
from micropref.embed._progress import EmbeddingProgress, Interruption
from micropref.embed._shards import check_same_encoder, key_table, text_keys
from micropref.embed._texts import check_texts
from micropref.embed.protocol import Encoder

_WINDOW_SHARDS = 4
# Texts given to the encoder at once: few enough that Ctrl-C and the bar need not wait long; more where it is quick,
# since it can overlap tokenising and computing inside one call only.
_BATCHES_AT_ONCE = 16
_BATCH_SIZE = 32
_QUICK_SECONDS = 0.5
_NONE = object()
# Of the texts that are held while they are sorted.
_WINDOW_CHARACTERS = 1 << 25


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
        raise TypeError(f"expected many texts, got one string, {reprlib.repr(texts)}")
    which, n_parts = part
    if not 0 <= which < n_parts:
        raise ValueError(f"part: expected (i, n) with 0 <= i < n, got {part!r}")
    fingerprint = _checked_fingerprint(folder, encoder)
    n_total = len(texts) if isinstance(texts, Sized) else None
    source, writing = iter(texts), _Writing()
    waiting: dict[bytes, str] = {}
    with (
        _without_its_own_bar(encoder),
        EmbeddingProgress(n_total, shown) as progress,
        Interruption("\nKeeping what was computed; Ctrl-C again to stop at once.") as interruption,
        ThreadPoolExecutor(1, thread_name_prefix="micropref-store") as writer,
    ):
        n_read, refreshed = 0, False
        while True:
            window = _window(source, _WINDOW_SHARDS * shard_size, n_read)
            n_read += len(window)
            keys = dict(zip(text_keys(fingerprint, window), window, strict=True))
            new = [
                key
                for key in keys
                if key not in waiting and key not in writing.keys and int.from_bytes(key[:8], "big") % n_parts == which
            ]
            gone, refreshed = _missing(folder, new, refreshed)
            absent = {key: keys[key] for key, is_gone in zip(new, gone, strict=True) if is_gone}
            waiting |= absent
            progress.looked_at(len(window), len(absent), sum(map(len, absent.values())))
            while len(waiting) >= shard_size or (waiting and not window):
                # The longest first: what does not fit into memory fails at once, not at the end.
                longest = sorted(waiting, key=lambda key: -len(waiting[key]))[:shard_size]
                shard = _Shard(folder, longest, [waiting.pop(key) for key in longest], dtype)
                with writing.finished_after_errors(writer, shard):
                    shard.compute(encoder, progress, interruption)
                _checked_fingerprint(folder, encoder)
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
            f"stopped after {counted(progress.n_embedded, 'text')}, kept in {folder.path}; "
            "the same call resumes from there"
        )
    return progress.n_embedded


def _window(source: Iterator[str], n_texts: int, start: int) -> list[str]:
    """The next texts of a stream: so many, or fewer where they are long."""
    window: list[str] = []
    n_characters = 0
    for text in islice(source, n_texts):
        window.append(text)
        n_characters += len(text) if isinstance(text, str) else 0
        if n_characters >= _WINDOW_CHARACTERS:
            break
    return check_texts(window, allow_blank=True, start=start)


def _checked_fingerprint(folder: ShardFolder, encoder: Encoder | None) -> str:
    """The fingerprint of the store, after comparing it with what the encoder says now."""
    if encoder is not None:
        check_same_encoder(folder.path, folder.fingerprint or "", encoder.fingerprint)
    return folder.fingerprint or ""


def _missing(folder: ShardFolder, keys: list[bytes], refreshed: bool) -> tuple[np.ndarray, bool]:
    """Which keys have no sound vector, and whether the folder has been refreshed since it was opened."""
    gone = folder.missing(keys)
    if not gone.any():
        return gone, refreshed
    if not refreshed:  # another process may have computed them
        folder.refresh()
    _make_room(folder, keys)
    return folder.missing(keys), True


def _make_room(folder: ShardFolder, keys: list[bytes]) -> None:
    """Set damaged shards aside, so that what they held can be computed again; an error where nothing can be written."""
    damaged = folder.damaged(keys)
    if damaged and folder.writable:
        folder.set_aside(damaged)
    elif damaged:
        folder.shard(damaged[0])


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
        """Embed the texts, some batches at a time, until all are done or the user asks to stop."""
        if encoder is None:
            raise ValueError(
                f"expected an encoder for {len(self.texts)} missing texts, got a store opened without an encoder"
            )
        self.folder.check_writable(len(self.texts))
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
        name, width = self.folder.fingerprint, self.folder.width
        if is_torch(found) and found.dtype.is_floating_point and found.dtype.itemsize < 4:
            found = found.float()  # NumPy has no bfloat16
        vectors = to_numpy(found)
        if vectors.ndim != 2 or len(vectors) != len(texts) or vectors.dtype.kind != "f" or not vectors.shape[1]:
            raise ValueError(
                f"expected floating numbers of the encoder {name}, a row for each of {len(texts)} texts, "
                f"got {vectors.dtype} of shape {vectors.shape}"
            )
        width = self.vectors.shape[1] if self.vectors is not None else width
        if width is not None and vectors.shape[1] != width:
            raise ValueError(f"expected vectors of width {width}, as the store holds, got width {vectors.shape[1]}")
        with np.errstate(over="ignore"):
            stored = vectors.astype(self.dtype, copy=False)
        for bad, what in (
            (~np.isfinite(stored).all(axis=1), "is not finite"),
            (vectors.any(axis=1) & ~stored.any(axis=1), "is too small to be anything but zero"),
        ):
            if bad.any():
                text = reprlib.repr(texts[int(np.argmax(bad))])
                raise ValueError(
                    f"expected a vector of {text} that can be stored, got one that {what} in {self.dtype}; "
                    "it was not kept"
                )
        return stored

    def write(self) -> None:
        assert self.vectors is not None
        try:
            self.folder.append(key_table(self.keys[: self.n_done]), self.vectors[: self.n_done], self.n_truncated)
        except OSError as error:
            if not is_full(error) or "expected" in str(error):
                raise
            raise OSError(
                errno.ENOSPC,
                f"expected room for {counted(self.n_done, 'vector')} more, got a full disk ({error.strerror}); "
                "what was written before is kept, and the same call resumes from there",
                str(self.folder.path),
            ) from error


class _Writing:
    """The shard that is being written while the next one is computed."""

    def __init__(self) -> None:
        self.keys: set[bytes] = set()
        self._future: Future[None] | None = None

    def begin(self, writer: ThreadPoolExecutor, shard: _Shard) -> None:
        self.keys = set(shard.keys[: shard.n_done])
        self._future = writer.submit(shard.write)

    @contextmanager
    def finished_after_errors(self, writer: ThreadPoolExecutor, shard: _Shard) -> Iterator[None]:
        """After an error of computing, write what there is; the error gets a note where that fails, too."""
        try:
            yield
        except BaseException as error:
            try:
                self.wait()
                if shard.n_done:
                    self.begin(writer, shard)
                    self.wait()
            except Exception as another:
                error.add_note(f"and what was computed before could not be written: {another}")
            raise

    def wait(self) -> None:
        """Until it is written; an error of its writing is raised here."""
        if self._future is not None:
            future, self._future, self.keys = self._future, None, set()
            future.result()
