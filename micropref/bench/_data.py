"""Comparisons as arrays, in an order that neither names nor the order of a file has a part in."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from micropref.bench._config import DatasetSpec
    from micropref.datasets import PreferenceTable


@dataclass(frozen=True, eq=False)
class Comparisons:
    """All rows of a data set; the chosen response comes first.

    Attributes
    ----------
    context : ndarray of shape (n, n_context_features), float32
    difference : ndarray of shape (n, n_features), float32
        Features of the chosen less those of the rejected response.
    weight : ndarray of shape (n,)
    user, target, unit : ndarray of int of shape (n,)
        Who compared (-1: unknown), the stated context (-1: none), and what is split between training and test.
    truth : ndarray of int of shape (n,), or None
        True population of each row, where it is known.
    given_test : ndarray of bool of shape (n,), or None
        The publisher's own test part.
    is_tie : ndarray of bool of shape (n,)
        Rows whose mirror image is also there, from the same user in the same context: nothing was preferred.
    hash : str
        Of everything above.
    n_left_out : int
        Rows that could not be read.
    """

    context: np.ndarray
    difference: np.ndarray
    weight: np.ndarray
    user: np.ndarray
    target: np.ndarray
    unit: np.ndarray
    truth: np.ndarray | None
    given_test: np.ndarray | None
    is_tie: np.ndarray
    hash: str
    n_left_out: int


def load_comparisons(spec: DatasetSpec, data: Path | None) -> Comparisons:
    """The rows of a data set.

    Parameters
    ----------
    spec : DatasetSpec
    data : Path, optional
        Folder to which its path is relative.

    Raises
    ------
    ValueError, OSError
        If the data cannot be read, or lacks what the protocol needs.
    """
    if spec.kind == "world":
        return _planted(spec)
    path = (Path() if data is None else data) / spec.path
    given_test = None
    with warnings.catch_warnings():
        # The tables say how many.
        warnings.filterwarnings("ignore", message=".*left out", category=UserWarning)
        if spec.kind == "folder":
            from micropref.datasets import load_folder

            folder = load_folder(path, skip_bad=True)
            assert folder.train is not None
            table, vectors = folder.train, _Vectors(folder.texts, folder.embeddings)
        elif spec.kind == "file":
            from micropref.datasets import read_preferences

            table = read_preferences(path, skip_bad=True, rejected_path=os.devnull)
            vectors = _encoded(table, spec.encoder)
        else:
            table, given_test = _from_hub(spec, data)
            vectors = _encoded(table, spec.encoder)
    return _from_table(spec, table, vectors, given_test)


def arranged(
    context: np.ndarray,
    difference: np.ndarray,
    *,
    weight: np.ndarray,
    user: Sequence[Any] | np.ndarray,
    target: Sequence[Any] | np.ndarray,
    unit: Sequence[Any] | np.ndarray,
    truth: np.ndarray | None = None,
    given_test: np.ndarray | None = None,
    n_left_out: int = 0,
) -> Comparisons:
    """Put rows into an order that follows from what they hold alone, and number users, contexts and units by it.

    Rows are sorted by their features, then by what else their user, context and unit have. So neither other names nor
    another order of the rows changes anything that follows; those that cannot be told apart can be exchanged. Nor does
    it matter which response was chosen: the order, and with it every split and draw, knows a pair and not its label,
    but for users, contexts and units that nothing else tells apart.
    """
    context = np.ascontiguousarray(context, dtype=np.float32)
    difference = np.ascontiguousarray(difference, dtype=np.float32) + np.float32(0)  # no -0.0, which has other bytes
    pairs = _digests(context, _unsigned(difference), weight)
    rows = _digests(context, difference, weight)
    indices = [_index(values) for values in (user, target, unit)]
    labels = [
        keys if index.max(initial=-1) < 0 else _profiles(keys, index)
        for keys in (rows, pairs)
        for index in indices[::-1]
    ]
    order = np.lexsort((rows, *labels, pairs))
    numbered = [_renumbered(index[order]) for index in indices]
    # Equal rows of users who are alike are in the order of the numbers that their users got.
    again = np.lexsort((rows[order], *numbered[::-1], pairs[order]))
    order, numbered = order[again], [index[again] for index in numbered]
    mirror = _digests(context, -difference + np.float32(0), weight)[order]
    key = rows[order]
    numbers = np.stack(numbered, axis=1)
    here = {(k, *n) for k, n in zip(key.tolist(), map(tuple, numbers.tolist()), strict=True)}
    is_tie = np.array(
        [(m, *n) in here for m, n in zip(mirror.tolist(), map(tuple, numbers.tolist()), strict=True)], dtype=bool
    )
    # Two texts with the same vector are their own mirror image.
    is_tie &= difference[order].any(axis=1) | (np.asarray(weight)[order] < 1)
    truth, given_test = (None if part is None else np.asarray(part)[order] for part in (truth, given_test))
    digest = hashlib.sha256()
    for part in (key, numbers, truth, given_test):
        if part is not None:
            digest.update(np.ascontiguousarray(part).tobytes())
    return Comparisons(
        context[order],
        difference[order],
        np.asarray(weight, dtype=np.float64)[order],
        user=numbered[0],
        target=numbered[1],
        unit=numbered[2],
        truth=truth,
        given_test=given_test,
        is_tie=is_tie,
        hash=digest.hexdigest(),
        n_left_out=n_left_out,
    )


def _unsigned(difference: np.ndarray) -> np.ndarray:
    """Differences with the sign for which the first entry that is not zero is positive."""
    first = np.argmax(difference != 0, axis=1)
    lead = difference[np.arange(len(difference)), first]
    return np.where(lead[:, None] < 0, -difference, difference) + np.float32(0)


def _digests(context: np.ndarray, difference: np.ndarray, weight: np.ndarray) -> np.ndarray:
    rows = (hashlib.blake2b(c.tobytes() + d.tobytes() + w.tobytes(), digest_size=8).digest()
            for c, d, w in zip(context, difference, np.asarray(weight, dtype=np.float64), strict=True))  # fmt: skip
    return np.frombuffer(b"".join(rows), dtype=np.uint64)


def _index(values: Sequence[Any] | np.ndarray) -> np.ndarray:
    """Numbers of ids in order of appearance, -1 for None and for -1."""
    position: dict[Any, int] = {}
    cells = values.tolist() if isinstance(values, np.ndarray) else values
    return np.array([-1 if v is None or v == -1 else position.setdefault(v, len(position)) for v in cells], dtype=int)


def _profiles(keys: np.ndarray, index: np.ndarray) -> np.ndarray:
    """A digest of all rows of each row's group."""
    order = np.lexsort((keys, index))
    digest_of: dict[int, int] = {}
    starts = np.flatnonzero(np.diff(index[order], prepend=-2))
    for rows in np.split(order, starts[1:]):
        digest = hashlib.blake2b(keys[rows].tobytes(), digest_size=8).digest()
        digest_of[int(index[rows[0]])] = int.from_bytes(digest, "little")
    return np.array([digest_of[i] if i >= 0 else 0 for i in index.tolist()], dtype=np.uint64)


def _renumbered(index: np.ndarray) -> np.ndarray:
    present, first = np.unique(index, return_index=True)
    order = first[present >= 0].argsort()
    number = np.full(index.max(initial=-1) + 2, -1)
    number[present[present >= 0][order]] = np.arange(len(order))
    return number[index]


class _Vectors:
    """Vectors of texts; of a blank text zeros."""

    def __init__(self, texts: Sequence[str], vectors: np.ndarray):
        self.row_of = {text: i for i, text in enumerate(texts)}
        self.table = np.concatenate([np.asarray(vectors, dtype=np.float32), np.zeros((1, vectors.shape[1]), "f4")])

    def of(self, texts: Iterable[str]) -> np.ndarray:
        return self.table[[self.row_of.get(text, -1) for text in texts]]


def _encoded(table: PreferenceTable, name: str) -> _Vectors:
    from micropref.embed import resolve_encoder

    columns = [table.prompt, table.chosen, table.rejected, table.context or []]
    texts = list(dict.fromkeys(text for column in columns for text in column if text.strip()))
    return _Vectors(texts, resolve_encoder(name).encode(texts))


def _from_table(
    spec: DatasetSpec, table: PreferenceTable, vectors: _Vectors, given_test: np.ndarray | None
) -> Comparisons:
    def responses(texts: list[str]) -> np.ndarray:
        features = vectors.of(texts) * np.float32(spec.response_scale)
        if not spec.log_length:
            return features
        return np.hstack([features, np.log1p([len(text) for text in texts])[:, None].astype(np.float32)])

    parts = [np.zeros((len(table), 0), dtype=np.float32)]
    if spec.prompt_scale:
        parts.append(vectors.of(table.prompt) * np.float32(spec.prompt_scale))
    if spec.context_scale and table.context is not None:
        parts.append(vectors.of(table.context) * np.float32(spec.context_scale))
    nobody = np.full(len(table), -1)
    target: Any = nobody
    if spec.protocol == "contexts":
        target = [cell if cell != "" else None for cell in _column(spec, table, spec.target, "target")]
    user = nobody if table.group is None else table.group
    if spec.protocol == "users" and table.group is None:
        raise ValueError(f"{spec.name}: found no column of users, wanted one for the protocol 'users'")
    return arranged(
        np.hstack(parts),
        responses(table.chosen) - responses(table.rejected),
        weight=np.ones(len(table)) if table.weight is None else table.weight,
        user=user,
        target=target,
        unit=_without_shared_pairs(table, _column(spec, table, spec.unit, "unit")),
        given_test=given_test,
        n_left_out=table.n_rejected,
    )


def _column(spec: DatasetSpec, table: PreferenceTable, name: str, key: str) -> list[Any]:
    column = getattr(table, name) if name in ("prompt", "context", "group") else table.extra.get(name)
    if column is None:
        names = ["prompt", *(n for n in ("context", "group") if getattr(table, n) is not None), *table.extra]
        raise ValueError(f"{spec.name}: {key}: found no column {name!r}, wanted one of {', '.join(names)}")
    return list(column)


def _without_shared_pairs(table: PreferenceTable, units: list[Any]) -> list[Any]:
    """Units, of which those that hold the same two responses to the same prompt are one: a pair is on one side only."""
    parent: dict[Any, Any] = {}

    def root(unit: Any) -> Any:
        while parent.setdefault(unit, unit) != unit:
            parent[unit] = unit = parent[parent[unit]]
        return unit

    unit_of: dict[tuple[str, str, str], Any] = {}
    for prompt, chosen, rejected, unit in zip(table.prompt, table.chosen, table.rejected, units, strict=True):
        pair = (prompt, min(chosen, rejected), max(chosen, rejected))
        parent[root(unit)] = root(unit_of.setdefault(pair, unit))
    return [root(unit) for unit in units]


def _from_hub(spec: DatasetSpec, data: Path | None) -> tuple[PreferenceTable, np.ndarray | None]:
    from micropref import datasets

    loader = getattr(datasets, f"load_{spec.loader}", None)
    if loader is None or spec.loader in ("folder", "demo"):
        known = sorted(
            n[5:] for n in datasets.__all__ if n.startswith("load_") and n not in ("load_folder", "load_demo")
        )
        raise ValueError(f"{spec.name}: loader: found {spec.loader!r}, wanted one of {', '.join(known)}")
    settings = dict(spec.loader_settings)
    if isinstance(settings.get("source"), str) and data is not None and (data / settings["source"]).exists():
        settings["source"] = str(data / settings["source"])
    found = loader(**settings, skip_bad=True)
    tables = [table for table in (found.train, found.validation, found.test) if table is not None]
    table = datasets.PreferenceTable.concat(tables)
    if spec.split == "random":
        return table, None
    if found.test is None or len(tables) < 2:
        raise ValueError(f"{spec.name}: split: found no training and test parts, wanted both for 'given'")
    return table, np.arange(len(table)) >= len(table) - len(found.test)


def _planted(spec: DatasetSpec) -> Comparisons:
    from micropref.datasets.simulate import make_preferences
    from micropref.datasets.worlds import WORLDS

    settings = dict(WORLDS[spec.world])
    if spec.pairs_per_group:
        settings["pairs_per_group"] = spec.pairs_per_group
    world = make_preferences(spec.n_samples, **settings, random_state=spec.world_seed)
    c = world.n_context_features
    sign = np.where(world.y == 1, 1.0, -1.0)[:, None]
    n = len(world.y)
    # The two rows of a tie belong together.
    second = np.zeros(n, dtype=bool)
    if world.sample_weight is not None:
        half = world.sample_weight < 1
        second[1:] = half[1:] & (np.cumsum(half)[1:] % 2 == 0)
    return arranged(
        world.X[:, :c],
        world.X[:, c:] * sign,
        weight=np.ones(n) if world.sample_weight is None else world.sample_weight,
        user=np.full(n, -1) if world.groups is None else world.groups,
        # Without annotators there is nobody to know better: labels are everybody's.
        target=np.zeros(n, dtype=int) if world.groups is None else np.full(n, -1),
        unit=np.cumsum(~second),
        truth=world.components,
    )
