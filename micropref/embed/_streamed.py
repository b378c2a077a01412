"""X of a table without the vectors of all its texts: each is embedded once, added to its rows, and forgotten."""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from micropref._rows.layout import measure, root_mean_square
from micropref._rows.ranges import check_range
from micropref._support.text import counted
from micropref._support.warnings import level_of_caller
from micropref.datasets._text import is_blank
from micropref.datasets.table import PreferenceTable
from micropref.distributed import active_communicator
from micropref.embed._columns import CONTEXT_PARTS, context_texts
from micropref.embed._learned import Learned
from micropref.embed._scales import Measured, agree, common_scales, mean_norm
from micropref.embed._settings import Settings
from micropref.embed._vectors import TruncationWarning, batches, checked

__all__ = ["Streamed", "learn_streamed", "stream"]

_BLANK = -1
# Rows of X that are measured or scaled together.
_BLOCK_ROWS = 4_096


class Streamed(NamedTuple):
    """Rows of X that are not scaled yet, and what their texts say about scales.

    Attributes
    ----------
    X : ndarray of shape (n, width of the parts + vector_width), dtype float32
    vector_width : int
    norms : dict of str to (float, int)
        Root mean square norm and number of rows of each part that was measured, and of ``"response"``.
    n_truncated : int
    """

    X: np.ndarray
    vector_width: int
    norms: dict[str, tuple[float, int]]
    n_truncated: int

    def scaled(self, parts: Sequence[str], scale: dict[str, float]) -> np.ndarray:
        """X with its parts and its difference scaled in place."""
        names = (*parts, "response")
        for start in range(0, len(self.X), _BLOCK_ROWS):
            rows = self.X[start : start + _BLOCK_ROWS]
            for place, name in enumerate(names):
                rows[:, place * self.vector_width : (place + 1) * self.vector_width] *= np.float32(scale[name])
        return self.X


class _Texts(NamedTuple):
    """Distinct texts, and where each column of the table has which of them; -1 for a blank one."""

    distinct: list[str]
    index_of: dict[str, np.ndarray]


class _Rows(NamedTuple):
    """The rows of one column by text: those of text i are ``order[starts[i]:starts[i + 1]]``."""

    order: np.ndarray
    starts: np.ndarray

    @classmethod
    def of(cls, index: np.ndarray, n_texts: int) -> _Rows:
        order = np.argsort(index, kind="stable")
        return cls(order, np.searchsorted(index[order], np.arange(n_texts + 1)))

    def holding(self, texts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rows that have one of these texts, and the place of that text among these."""
        counts = self.starts[texts + 1] - self.starts[texts]
        places = np.repeat(np.arange(len(texts)), counts)
        offsets = np.arange(len(places)) - np.repeat(np.cumsum(counts) - counts, counts)
        return self.order[self.starts[texts][places] + offsets], places


def stream(
    settings: Settings,
    table: PreferenceTable,
    parts: Sequence[str],
    measured: Sequence[str] = (),
    *,
    width: int | None = None,
    verbose: int = 0,
) -> Streamed:
    """X of a table, a block of texts at a time.

    Parameters
    ----------
    settings : Settings
    table : PreferenceTable
    parts : sequence of str
        Context parts that are columns of X.
    measured : sequence of str
        Context parts whose norms are measured, whether they are columns of X or not.
    width : int, optional
        Dimension that the vectors must have.
    verbose : int, default=0
        1 reports on standard error.

    Returns
    -------
    Streamed

    Raises
    ------
    ValueError
        If vectors have another shape, or are not finite or beyond the range of the computation.
    """
    start = time.perf_counter()
    first, second = settings.responses(table)
    columns = {part: context_texts(table, part) for part in dict.fromkeys((*parts, *measured))}
    texts = _indexed({"first": first, "second": second, **columns})
    rows_of = {name: _Rows.of(index, len(texts.distinct)) for name, index in texts.index_of.items()}
    before = getattr(settings.encoder, "n_truncated_total_", 0)
    sums: dict[str, list[tuple[float, int]]] = {part: [] for part in measured}
    X: np.ndarray | None = None
    for numbers, vectors in _blocks(settings, texts.distinct, width):
        if X is None:
            width = vectors.shape[1]
            X = np.zeros((len(table), width * (len(parts) + 1)), dtype=np.float32)
        for name, rows in rows_of.items():
            members, places = rows.holding(numbers)
            if name in sums:
                sums[name].append(_norm_of(vectors, np.bincount(places, minlength=len(vectors))))
            if name in parts or name in ("first", "second"):
                place = list(parts).index(name) if name in parts else len(parts)
                _add(X[:, place * vectors.shape[1] : (place + 1) * vectors.shape[1]], members, vectors, places, name)
    assert X is not None
    norms = {part: _joined(of) for part, of in sums.items()}
    norms["response"] = mean_norm(X[:, -(width or 0) :]), len(table)
    n_truncated = int(getattr(settings.encoder, "n_truncated_total_", 0) - before)
    _report(len(texts.distinct), n_truncated, time.perf_counter() - start, verbose)
    return Streamed(X, int(width or 0), norms, n_truncated)


def learn_streamed(
    settings: Callable[[], Settings],
    table: PreferenceTable,
    orientation: str,
    parts: Sequence[str] | None,
    verbose: int,
) -> tuple[Learned, np.ndarray]:
    """As `learn`, with X, of which no vector of a text is kept.

    Parameters
    ----------
    settings : callable
        Checks the parameters. An error in it is one on all ranks.
    table : PreferenceTable
        Rows of this rank.
    orientation : {"chosen-first", "as-given"}
    parts : sequence of str, or None
        Context parts that are columns of X; None: all that are learned.
    verbose : int

    Returns
    -------
    learned : Learned
    X : ndarray of shape (n, width of the parts + vector_width), dtype float32
    """

    def measured() -> tuple[Settings, tuple[str, ...], Streamed, Measured]:
        checked = settings()
        learned_parts = checked.parts_of(table)
        shown = learned_parts if parts is None else tuple(part for part in learned_parts if part in parts)
        found = stream(checked, table, shown, learned_parts, verbose=verbose)
        names = ", ".join(found.norms)
        kind = f"{checked.fingerprint} of width {found.vector_width} with the parts {names}, rows {orientation},"
        return checked, shown, found, Measured(kind, found.norms, found.n_truncated)

    ranks = active_communicator()
    checked, shown, found, here = ranks.together(measured)
    everywhere = agree(ranks, here)
    learned = Learned(
        settings=checked,
        orientation=orientation,
        context_parts={part: found.vector_width for part in here.norms if part in CONTEXT_PARTS},
        vector_width=found.vector_width,
        scale=common_scales(everywhere, checked.norms),
        n_truncated=sum(one.n_truncated for one in everywhere),
    )
    return learned, found.scaled(shown, learned.scale)


def _indexed(columns: dict[str, list[str]]) -> _Texts:
    row_of: dict[str, int] = {}
    index_of = {
        name: np.fromiter(
            (_BLANK if is_blank(text) else row_of.setdefault(text, len(row_of)) for text in texts),
            dtype=np.int64,
            count=len(texts),
        )
        for name, texts in columns.items()
    }
    return _Texts(list(row_of), index_of)


def _blocks(settings: Settings, texts: list[str], width: int | None) -> Iterable[tuple[np.ndarray, np.ndarray]]:
    """Numbers and vectors of the texts, block by block."""
    source = settings.encoder if settings.store is None else settings.store
    add: Callable[[list[str]], object] | None = getattr(settings.store, "add", None)
    if add is not None:
        add(texts)  # sorts its work, and shows its progress, by itself
    for numbers in batches(texts):
        block = [texts[number] for number in numbers]
        vectors = checked(source, block, source.encode(block), width)
        width = vectors.shape[1]
        yield numbers, vectors


def _add(X: np.ndarray, rows: np.ndarray, vectors: np.ndarray, places: np.ndarray, name: str) -> None:
    """Add the vector of its text to each row, or subtract it from the row of a second response."""
    for start in range(0, len(rows), _BLOCK_ROWS):
        part = slice(start, start + _BLOCK_ROWS)
        if name == "second":
            X[rows[part]] -= vectors[places[part]]
        else:
            X[rows[part]] += vectors[places[part]]


def _norm_of(vectors: np.ndarray, counts: np.ndarray) -> tuple[float, int]:
    """Root mean square norm of a block of texts that occur so often, and how many rows that are."""
    used = counts > 0
    if not used.any():
        return 0.0, 0
    sizes = measure(vectors[used], 0, counts[used].astype(np.float64))
    check_range(vectors[used], 0, sizes)
    return float(sizes.norms[1]), int(counts.sum())


def _joined(of_blocks: list[tuple[float, int]]) -> tuple[float, int]:
    norms, counts = np.transpose([one for one in of_blocks if one[1]] or [(0.0, 0)])
    return root_mean_square(norms, counts), int(counts.sum())


def _report(n_texts: int, n_truncated: int, seconds: float, verbose: int) -> None:
    if n_truncated:
        warnings.warn(
            f"{n_truncated} of {n_texts} distinct texts are longer than the encoder reads; the excess is ignored",
            TruncationWarning,
            stacklevel=level_of_caller(),
        )
    if verbose:
        print(f"[PairEncoder] embedded {counted(n_texts, 'distinct text')} in {seconds:.1f} s", file=sys.stderr)
