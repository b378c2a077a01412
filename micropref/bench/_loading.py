"""Reads the data sets of a suite: folders, files, published sets and planted worlds."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import logit

from micropref.bench._data import BenchData, in_canonical_order
from micropref.bench._specs import DatasetSpec
from micropref.bench._words import counted

if TYPE_CHECKING:
    from micropref.datasets import PreferenceTable


def load_data(spec: DatasetSpec, folder: Path | None) -> BenchData:
    """The rows of a data set.

    Parameters
    ----------
    spec : DatasetSpec
    folder : Path, optional
        To which its path is relative. None: the current one.

    Returns
    -------
    data : BenchData

    Raises
    ------
    ValueError, OSError
        If the data cannot be read, or lack the columns that the protocol needs.
    """
    if spec.kind == "world":
        return _planted(spec)
    path = (Path() if folder is None else folder) / spec.path
    if spec.kind == "orders":
        return _ranked(spec, path)
    given_test = None
    with warnings.catch_warnings():
        # A note of the task says how many.
        warnings.filterwarnings("ignore", message=".*left out", category=UserWarning)
        if spec.kind == "folder":
            from micropref.datasets import load_folder

            embedded = load_folder(path, skip_bad=True)
            assert embedded.train is not None
            table, vectors = embedded.train, _Vectors(embedded.texts, embedded.embeddings)
        elif spec.kind == "file":
            from micropref.datasets import read_preferences

            table = read_preferences(
                path,
                columns=spec.columns or None,
                labels=spec.labels or None,
                format=spec.format or None,
                annotators=spec.annotators or None,
                encoding=spec.encoding or None,
                skip_bad=True,
                rejected_path=os.devnull,
            )
            vectors = _encoded(table, spec.encoder)
        else:
            table, given_test = _from_hub(spec, folder)
            vectors = _encoded(table, spec.encoder)
    return _from_table(spec, table, vectors, given_test)


class _Vectors:
    """Vectors of texts; zeros for a blank text."""

    def __init__(self, texts: Sequence[str], vectors: np.ndarray):
        self.row_of = {text: i for i, text in enumerate(texts)}
        self.table = np.concatenate([np.asarray(vectors, dtype=np.float32), np.zeros((1, vectors.shape[1]), "f4")])

    def look_up(self, texts: Iterable[str]) -> np.ndarray:
        return np.asarray(self.table[[self.row_of.get(text, -1) for text in texts]])


def _encoded(table: PreferenceTable, name: str) -> _Vectors:
    from micropref.embed import resolve_encoder

    columns = [table.prompt, table.chosen, table.rejected, table.context or []]
    texts = list(dict.fromkeys(text for column in columns for text in column if text.strip()))
    return _Vectors(texts, resolve_encoder(name).encode(texts))


def _from_table(
    spec: DatasetSpec, table: PreferenceTable, vectors: _Vectors, given_test: np.ndarray | None
) -> BenchData:
    def responses(texts: list[str]) -> np.ndarray:
        features = vectors.look_up(texts) * np.float32(spec.response_scale)
        if not spec.log_length:
            return features
        return np.hstack([features, np.log1p([len(text) for text in texts])[:, None].astype(np.float32)])

    parts = [np.zeros((len(table), 0), dtype=np.float32)]
    if spec.prompt_scale:
        parts.append(vectors.look_up(table.prompt) * np.float32(spec.prompt_scale))
    if spec.context_scale and table.context is not None:
        parts.append(vectors.look_up(table.context) * np.float32(spec.context_scale))
    unknown = np.full(len(table), -1)
    target: Any = unknown
    if spec.protocol == "contexts":
        target = [cell if cell != "" else None for cell in _column(spec, table, spec.target, "target")]
    user = unknown if table.group is None else table.group
    if spec.protocol != "contexts" and table.group is None:
        raise ValueError(f"{spec.name}: expected a column of users for the protocol {spec.protocol!r}, got none")
    return in_canonical_order(
        np.hstack(parts),
        responses(table.chosen) - responses(table.rejected),
        weight=np.ones(len(table)) if table.weight is None else table.weight,
        user=user,
        target=target,
        unit=_without_shared_pairs(table, _column(spec, table, spec.unit, "unit")),
        given_test=given_test,
        reading=_reading(table),
        width=vectors.table.shape[1] if parts[1:] else 0,
    )


def _reading(table: PreferenceTable) -> str:
    """How many rows of the source were read, how many were left out, and why."""
    report = table.report
    n_rows = len(table) + table.n_rejected if report is None else report.n_rows
    read = f"{counted(n_rows, 'row')} read, {table.n_rejected} left out"
    kinds = ", ".join(f"{n} {kind}" for kind, n in (report.faults if report is not None else {}).items())
    return f"{read} ({kinds})" if kinds else read


def _column(spec: DatasetSpec, table: PreferenceTable, name: str, key: str) -> list[Any]:
    column = getattr(table, name) if name in ("prompt", "context", "group") else table.extra.get(name)
    if column is None:
        names = ["prompt", *(n for n in ("context", "group") if getattr(table, n) is not None), *table.extra]
        raise ValueError(f"{spec.name}: {key}: expected one of the columns {', '.join(names)}, got {name!r}")
    return list(column)


def _without_shared_pairs(table: PreferenceTable, units: list[Any]) -> list[Any]:
    """Units, those with the same two responses to the same prompt being merged, so that no pair is on both sides."""
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


def _from_hub(spec: DatasetSpec, folder: Path | None) -> tuple[PreferenceTable, np.ndarray | None]:
    from micropref import datasets

    loader = getattr(datasets, f"load_{spec.loader}", None)
    if loader is None or spec.loader in ("folder", "demo"):
        known = sorted(
            n[5:] for n in datasets.__all__ if n.startswith("load_") and n not in ("load_folder", "load_demo")
        )
        raise ValueError(f"{spec.name}: loader: expected one of {', '.join(known)}, got {spec.loader!r}")
    settings = dict(spec.loader_settings)
    if isinstance(settings.get("source"), str) and folder is not None and (folder / settings["source"]).exists():
        settings["source"] = str(folder / settings["source"])
    found = loader(**settings, skip_bad=True)
    tables = [table for table in (found.train, found.validation, found.test) if table is not None]
    table = datasets.PreferenceTable.concat(tables)
    if spec.split == "random":
        return table, None
    if found.test is None or len(tables) < 2:
        raise ValueError(f"{spec.name}: split: expected both a training and a test part for 'given', got one alone")
    return table, np.arange(len(table)) >= len(table) - len(found.test)


def _ranked(spec: DatasetSpec, path: Path) -> BenchData:
    """All pairs of items that users ranked, the better one first; an item is a unit vector."""
    orders = np.load(path, allow_pickle=False)
    n_users, n_items = orders.shape if orders.ndim == 2 else (0, 0)
    if n_items < 2 or not (np.sort(orders, axis=1) == np.arange(n_items)).all():
        raise ValueError(
            f"{spec.name}: expected an array of shape (n_users, n_items), each row an order of the items from 0, got "
            f"{orders.dtype} of shape {orders.shape}"
        )
    if spec.protocol == "contexts":
        raise ValueError(f"{spec.name}: protocol: expected users or known_users for rankings, got 'contexts'")
    better, worse = (orders[:, place].astype(int).ravel() for place in np.triu_indices(n_items, 1))
    items = np.eye(n_items, dtype=np.float32)
    n = len(better)
    return in_canonical_order(
        np.zeros((n, 0)),
        items[better] - items[worse],
        weight=np.ones(n),
        user=np.repeat(np.arange(n_users), n // max(n_users, 1)),
        target=np.full(n, -1),
        unit=np.minimum(better, worse) * n_items + np.maximum(better, worse),
    )


def _planted(spec: DatasetSpec) -> BenchData:
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
    return in_canonical_order(
        world.X[:, :c],
        world.X[:, c:] * sign,
        weight=np.ones(n) if world.sample_weight is None else world.sample_weight,
        user=np.full(n, -1) if world.groups is None else world.groups,
        # Without users all labels belong to one target.
        target=np.zeros(n, dtype=int) if world.groups is None else np.full(n, -1),
        unit=np.cumsum(~second) if world.topic is None else world.topic,
        truth=world.components,
        known=logit(world.known_user_probabilities) * sign[:, 0],
        width=world.X.shape[1] - c if world.topic is not None else 0,
    )
