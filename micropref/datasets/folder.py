"""A folder of comparisons whose texts have been embedded already."""

from __future__ import annotations

import gzip
import json
import os
import reprlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from micropref.datasets._faults import MalformedRowError
from micropref.datasets._sources import Record, Source, open_source
from micropref.datasets._text import listed
from micropref.datasets.preference_set import PreferenceSet
from micropref.datasets.readers import read_preferences
from micropref.datasets.table import PreferenceTable

__all__ = ["EmbeddedPreferences", "load_folder"]

_TEXT_FILES = ("texts.jsonl.gz", "texts.jsonl")
_PAIR_FILES = ("pairs.jsonl.gz", "pairs.jsonl")
_VOTE_FILES = ("votes.csv.gz", "votes.csv")
_EMBEDDINGS = "embeddings.npy"
_TEXT_COLUMNS = ("prompt", "chosen", "rejected")


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class EmbeddedPreferences(PreferenceSet):
    """Comparisons with the vector of every text.

    Attributes
    ----------
    name, train, validation, test, licence, citation, source
        As in `PreferenceSet`; all rows are in `train`.
    texts : list of str of length n_texts
        Every text once.
    embeddings : ndarray of shape (n_texts, width)
        Their vectors as they are on disk, read only where they are used.
    """

    texts: list[str]
    embeddings: np.ndarray

    def __post_init__(self) -> None:
        object.__setattr__(self, "_row_of", {text: row for row, text in enumerate(self.texts)})

    def rows(self, texts: Iterable[str]) -> np.ndarray:
        """Rows of `embeddings` that belong to texts.

        Parameters
        ----------
        texts : iterable of n str

        Returns
        -------
        rows : ndarray of shape (n,), dtype intp

        Raises
        ------
        ValueError
            If a text is not in the folder.
        """
        texts = [texts] if isinstance(texts, str) else list(texts)
        row_of: dict[str, int] = self._row_of  # type: ignore[attr-defined]
        rows = np.array([row_of.get(text, -1) for text in texts], dtype=np.intp)
        if (rows < 0).any():
            first = int(np.argmin(rows))
            raise ValueError(f"text {first}: expected a text of {self.source}, got {reprlib.repr(texts[first])}")
        return rows

    def vectors(self, texts: Iterable[str]) -> np.ndarray:
        """Vectors of texts, one row each, in single precision.

        Parameters
        ----------
        texts : iterable of n str
            Columns of a table, for example: ``folder.vectors(folder.train.chosen)``.

        Returns
        -------
        vectors : ndarray of shape (n, width), dtype float32

        Raises
        ------
        ValueError
            If a text is not in the folder.
        """
        return np.asarray(self.embeddings[self.rows(texts)], dtype=np.float32)


def load_folder(path: str | os.PathLike[str], *, skip_bad: bool = False) -> EmbeddedPreferences:
    """Load comparisons and the vectors of their texts from a folder.

    The folder holds

    - ``texts.jsonl``: every distinct text once, one JSON string a line;
    - ``embeddings.npy``: an array of shape (n_texts, width), usually float16, whose row is the text's line;
    - ``pairs.jsonl`` with the texts themselves, as `read_preferences` reads them, **or** ``votes.csv``, whose columns
      prompt, chosen and rejected are rows of texts, counted from 0. Other columns mean what they mean to
      `read_preferences`: ``worker`` is the group, and ``context`` is a text.

    All but the array may end in ``.gz``. Every prompt, response and context that is not blank must be in the texts.

    Parameters
    ----------
    path : path
        The folder.
    skip_bad : bool, default=False
        Leave bad rows out with a UserWarning, instead of stopping at the first.

    Returns
    -------
    EmbeddedPreferences
        With all rows in `train`; licence and citation are unknown.

    Raises
    ------
    FileNotFoundError
        If the folder or one of its files is not there.
    MalformedRowError
        At the first bad row of the comparisons or of the texts.
    ValueError
        If there is not one vector for each text.

    Examples
    --------
    >>> from micropref import make_pairs
    >>> folder = load_folder("data/dsp")  # doctest: +SKIP
    >>> table = folder.train  # doctest: +SKIP
    >>> X = make_pairs(folder.vectors(table.chosen), folder.vectors(table.rejected))  # doctest: +SKIP
    """
    folder = Path(path)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: expected a folder, got none: there is no such folder")
    texts = _read_texts(_find(folder, _TEXT_FILES))
    comparisons = _find(folder, (*_PAIR_FILES, *_VOTE_FILES))
    embeddings = np.load(_find(folder, (_EMBEDDINGS,)), mmap_mode="r", allow_pickle=False)
    if embeddings.ndim != 2 or len(embeddings) != len(texts) or embeddings.dtype.kind != "f":
        raise ValueError(
            f"{folder / _EMBEDDINGS}: expected floats of shape ({len(texts)}, width), a row for each text, "
            f"got shape {embeddings.shape} of {embeddings.dtype}"
        )
    source = replace(open_source(comparisons), path=None)
    if comparisons.name in _VOTE_FILES:
        source = _with_texts(source, texts)
    table = read_preferences(source, skip_bad=skip_bad)
    _check_known(table, set(texts), comparisons)
    return EmbeddedPreferences(
        name=folder.resolve().name, train=table, source=str(folder), texts=texts, embeddings=embeddings
    )


def _find(folder: Path, names: tuple[str, ...]) -> Path:
    found = [folder / name for name in names if (folder / name).is_file()]
    if not found:
        raise FileNotFoundError(f"{folder}: expected one of {listed(names)}, got none")
    if len(found) > 1:
        raise ValueError(
            f"{folder}: expected one file of texts and one of comparisons, got {listed(one.name for one in found)}"
        )
    return found[0]


def _read_texts(path: Path) -> list[str]:
    texts: dict[str, int] = {}
    with gzip.open(path, "rb") if path.suffix == ".gz" else open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            try:
                text = json.loads(line)
            except (ValueError, RecursionError):
                text = line
            if not isinstance(text, str):
                raise MalformedRowError(f"{path}, line {number}: expected one JSON string, got {reprlib.repr(text)}")
            if text in texts:
                raise MalformedRowError(
                    f"{path}, line {number}: expected each text once, got that of line {texts[text]} again"
                )
            texts[text] = number
    return list(texts)


def _with_texts(source: Source, texts: list[str]) -> Source:
    """The votes with texts in place of their rows."""
    return replace(source, records=[_vote_with_texts(record, texts) for record in source.records])


def _vote_with_texts(record: Record, texts: list[str]) -> Record:
    if record.fault:
        return record
    cells = dict(record.cells)
    for column in _TEXT_COLUMNS:
        cell = cells.get(column, "0")
        if not cell.isdecimal() or int(cell) >= len(texts):
            fault = f"expected a row of the {len(texts)} texts, counted from 0, got {cell!r} in column {column!r}"
            return record._replace(fault=fault)
        if column in cells:
            cells[column] = texts[int(cell)]
    return record._replace(cells=cells)


def _check_known(table: PreferenceTable, texts: set[str], path: Path) -> None:
    for column in (*_TEXT_COLUMNS, "context"):
        for row, text in enumerate(getattr(table, column) or ()):
            if text not in texts and text.strip():
                found = f"{reprlib.repr(text)} as the {column} of comparison {row}"
                raise ValueError(f"{path}: expected a text of the folder, got {found}")
