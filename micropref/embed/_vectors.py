"""Vectors of distinct texts: each embedded once, behind a progress bar, with a warning for what was cut."""

from __future__ import annotations

import reprlib
import sys
import time
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from micropref._support.text import counted
from micropref._support.warnings import level_of_caller
from micropref.datasets._text import is_blank
from micropref.embed.protocol import Encoder, Store

_BATCH_TEXTS = 1_024
_PROGRESS_FROM = 2_000


class TruncationWarning(UserWarning):
    """Some texts were too long for the encoder, so their ends were ignored."""


@dataclass(frozen=True)
class Vectors:
    """Vectors of distinct texts.

    Attributes
    ----------
    row_of : dict of str to int
        Row of each text.
    matrix : ndarray of shape (n_texts + 1, n_dimensions), dtype float32
        The last row, of zeros, stands for blank texts.
    n_truncated : int
        How many of the texts were longer than the encoder reads.
    """

    row_of: dict[str, int]
    matrix: np.ndarray
    n_truncated: int

    @property
    def width(self) -> int:
        return int(self.matrix.shape[1])

    def of(self, texts: Sequence[str]) -> np.ndarray:
        """Vectors of texts in their order, of shape (n_texts, n_dimensions)."""
        return self.matrix[[self.row_of.get(text, -1) for text in texts]]


def not_blank(texts: Iterable[str]) -> list[str]:
    """The texts in which there is something to read."""
    return [text for text in texts if not is_blank(text)]


def embed_texts(
    texts: Iterable[str], encoder: Encoder, store: Store | None, *, width: int | None = None, verbose: int = 0
) -> Vectors:
    """Embed the distinct texts that are not blank.

    Parameters
    ----------
    texts : iterable of str
    encoder : Encoder
    store : Store or None
        Asked instead of the encoder, where there is one.
    width : int, optional
        Dimension that the vectors must have.
    verbose : int, default=0
        1 reports on standard error.

    Returns
    -------
    Vectors

    Raises
    ------
    ValueError
        If the vectors have another shape, or one of them is not finite.
    """
    distinct = list(dict.fromkeys(not_blank(texts)))
    before, start = getattr(encoder, "n_truncated_total_", 0), time.perf_counter()
    row_of: dict[str, int] = {}
    blocks: list[np.ndarray] = []
    # A store sorts its work, and shows its progress, by itself.
    source, numbered = (encoder, batches(distinct)) if store is None else (store, [np.arange(len(distinct))])
    for numbers in numbered:
        batch = [distinct[number] for number in numbers]
        block = checked(source, batch, source.encode(batch), width)
        row_of.update((text, row) for row, text in enumerate(batch, start=len(row_of)))
        blocks.append(block)
        width = block.shape[1]
    n_truncated = int(getattr(encoder, "n_truncated_total_", 0) - before)
    if n_truncated:
        warnings.warn(
            f"{n_truncated} of {len(distinct)} distinct texts are longer than the encoder reads; the excess is ignored",
            TruncationWarning,
            stacklevel=level_of_caller(),
        )
    if verbose:
        seconds = time.perf_counter() - start
        print(f"[PairEncoder] embedded {counted(len(distinct), 'distinct text')} in {seconds:.1f} s", file=sys.stderr)
    return Vectors(row_of, np.concatenate([*blocks, np.zeros((1, width or 0), dtype=np.float32)]), n_truncated)


def batches(texts: Sequence[str]) -> Iterable[NDArray[np.int64]]:
    """Numbers of the texts in batches, long ones first, behind a progress bar if that takes long and one watches."""
    lengths = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))
    by_length = np.argsort(-lengths, kind="stable")
    found = [by_length[start : start + _BATCH_TEXTS] for start in range(0, len(by_length), _BATCH_TEXTS)]
    if len(texts) < _PROGRESS_FROM or not sys.stderr.isatty():
        return found
    from rich.console import Console
    from rich.progress import track

    return track(found, description="Embedding", console=Console(file=sys.stderr), transient=True)


def checked(source: object, texts: list[str], found: Any, width: int | None) -> np.ndarray:
    """What a source gave for texts, as float32; a ValueError if it has another shape or is not finite."""
    # Too large for float32 is infinite, and an error below.
    with np.errstate(over="ignore"):
        vectors = np.asarray(found, dtype=np.float32)
    name = type(source).__name__
    if vectors.ndim != 2 or vectors.shape[0] != len(texts) or vectors.shape[1] != (width or vectors.shape[1]):
        expected = f"({len(texts)}, {'n_dimensions' if width is None else width})"
        raise ValueError(f"{name}.encode: expected vectors of shape {expected}, got {vectors.shape}")
    finite = np.isfinite(vectors).all(axis=1)
    if not finite.all():
        text = reprlib.repr(texts[int(np.argmin(finite))])
        raise ValueError(f"{name}.encode: expected finite numbers, got NaN or infinity for {text}")
    return vectors
