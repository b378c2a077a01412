"""Reads the data sets of a suite: folders, files, published sets and planted worlds."""

from __future__ import annotations

import inspect
import os
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import logit

from micropref.bench._data import BenchData, in_canonical_order, taught_by
from micropref.bench._ratings import RatedTexts, read_ratings
from micropref.bench._specs import DatasetSpec
from micropref.bench._texts import (
    Texts,
    Vectors,
    fill_store,
    folder_of_stores,
    responses_only,
    texts_of,
    vectors_of,
)
from micropref.bench._words import counted
from micropref.distributed import Communicator

if TYPE_CHECKING:
    from micropref.datasets import PreferenceTable

# Of the values of a column, in an error.
_SHOWN = 5


# Of other things than published sets of comparisons.
_NO_LOADERS = ("folder", "demo", "helpsteer2_ratings", "ultrafeedback_ratings")


def load_data(spec: DatasetSpec, folder: Path | None, store: Path | None = None) -> BenchData:
    """The rows of a data set.

    Parameters
    ----------
    spec : DatasetSpec
    folder : Path, optional
        To which its path is relative. None: the current one.
    store : Path, optional
        Folder of the vectors of texts, as in `run_suite`. None: ``embeddings`` in `folder`.

    Returns
    -------
    data : BenchData

    Raises
    ------
    ValueError, OSError
        If the data cannot be read, or lack the columns that the protocol needs.
    """
    data = _load(spec, folder, store)
    if spec.teacher is None:
        return data
    return taught_by(data, _load(spec.teacher, folder, store))


def _load(spec: DatasetSpec, folder: Path | None, store: Path | None) -> BenchData:
    if spec.kind == "world":
        return _planted(spec)
    if spec.kind == "orders":
        return _ranked(spec, _place(spec, folder))
    if spec.kind == "folder":
        from micropref.datasets import load_folder

        with _left_out_quietly():
            embedded = load_folder(_place(spec, folder), skip_bad=True)
        assert embedded.train is not None
        vectors = Vectors(embedded.texts, embedded.embeddings)
        return _from_table(spec, embedded.train, responses_only(embedded.train), vectors, None)
    table, given_test = _read(spec, folder)
    rated = _rated(spec, folder)
    texts = texts_of(spec, table, rated)
    vectors = vectors_of(spec, texts, folder_of_stores(spec, folder, store))
    return _from_table(spec, table, texts, vectors, given_test, rated)


def embed_data(spec: DatasetSpec, folder: Path | None, store: Path | None, ranks: Communicator) -> int:
    """Compute the vectors of a data set that are missing; each process its part. How many this one computed.

    Parameters
    ----------
    spec : DatasetSpec
    folder, store : Path, optional
        As in `load_data`.
    ranks : Communicator

    Returns
    -------
    n_new : int
    """
    texts = ranks.together(lambda: texts_of(spec, _read(spec, folder)[0], _rated(spec, folder)))
    stores = folder_of_stores(spec, folder, store)
    n_new = ranks.together(lambda: fill_store(spec, texts, stores, (ranks.rank, ranks.world_size)))
    return n_new + (0 if spec.teacher is None else embed_data(spec.teacher, folder, store, ranks))


def _place(spec: DatasetSpec, folder: Path | None) -> Path:
    return (Path() if folder is None else folder) / spec.path


@contextmanager
def _left_out_quietly() -> Iterator[None]:
    """A block without the warnings of rows that are left out: a note of the task says how many."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*left out", category=UserWarning)
        yield


def _read(spec: DatasetSpec, folder: Path | None) -> tuple[PreferenceTable, np.ndarray | None]:
    """The table of a file or a published set, and which rows are the publisher's test part."""
    with _left_out_quietly():
        table, given_test = _from_hub(spec, folder) if spec.kind == "hub" else (_from_file(spec, folder), None)
    for rows in (_of_targets, _of_some_units):
        kept = rows(spec, table)
        if kept is not None:
            table, given_test = table[kept], None if given_test is None else given_test[kept]
    return table, given_test


def _of_targets(spec: DatasetSpec, table: PreferenceTable) -> np.ndarray | None:
    """Rows of the targets that the data set names; None for all."""
    if not spec.targets:
        return None
    column = _column(spec, table, spec.target, "target")
    for name in spec.targets:
        if name not in column:
            present = ", ".join(repr(one) for one, _ in Counter(column).most_common(_SHOWN))
            raise ValueError(f"{spec.name}: targets: expected values of {spec.target!r} ({present}, …), got {name!r}")
    return np.flatnonzero([name in spec.targets for name in column])


def _of_some_units(spec: DatasetSpec, table: PreferenceTable) -> np.ndarray | None:
    """Rows of as many units as are asked for; None for all."""
    if not spec.n_units:
        return None
    column = _column(spec, table, spec.unit, "unit")
    units = list(dict.fromkeys(column))
    drawn = np.random.RandomState(0).permutation(len(units))[: spec.n_units]
    kept = {units[unit] for unit in drawn}
    return np.flatnonzero([unit in kept for unit in column])


def _from_file(spec: DatasetSpec, folder: Path | None) -> PreferenceTable:
    from micropref.datasets import read_preferences

    return read_preferences(
        _place(spec, folder),
        columns=spec.columns or None,
        labels=spec.labels or None,
        format=spec.format or None,
        annotators=spec.annotators or None,
        encoding=spec.encoding or None,
        skip_bad=True,
        rejected_path=os.devnull,
    )


def _rated(spec: DatasetSpec, folder: Path | None) -> RatedTexts | None:
    """The ratings of single responses that a data set names."""
    with _left_out_quietly():
        return read_ratings(spec, lambda of, name: _loader_settings(of, folder, name))


def _from_table(
    spec: DatasetSpec,
    table: PreferenceTable,
    texts: Texts,
    vectors: Vectors,
    given_test: np.ndarray | None,
    rated: RatedTexts | None = None,
) -> BenchData:
    def responses(embedded: Sequence[str], written: list[str]) -> np.ndarray:
        features = vectors.look_up(embedded) * np.float32(spec.response_scale)
        if not spec.log_length:
            return features
        return np.hstack([features, np.log1p([len(text) for text in written])[:, None].astype(np.float32)])

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
    ratings, prompt = None, None
    if rated is not None:
        ratings, prompt = rated.numbered(responses(texts.rated, rated.response), table.prompt)
    return in_canonical_order(
        np.hstack(parts),
        responses(texts.chosen, table.chosen) - responses(texts.rejected, table.rejected),
        weight=np.ones(len(table)) if table.weight is None else table.weight,
        user=user,
        target=target,
        unit=_without_shared_pairs(table, _column(spec, table, spec.unit, "unit")),
        given_test=given_test,
        reading="; ".join(filter(None, [_reading(spec, table), vectors.source])),
        width=vectors.table.shape[1] if parts[1:] else 0,
        n_prompt=vectors.table.shape[1] if spec.prompt_scale else 0,
        prompt=prompt,
        ratings=ratings,
    )


def _reading(spec: DatasetSpec, table: PreferenceTable) -> str:
    """How many rows of the source were read, how many were left out, and why."""
    report = table.report
    n_rows = len(table) + table.n_rejected if report is None else report.n_rows
    read = f"{counted(n_rows, 'row')} read, {table.n_rejected} left out"
    kinds = ", ".join(f"{n} {kind}" for kind, n in (report.faults if report is not None else {}).items())
    some = [f"{len(spec.targets)} targets"] if spec.targets else []
    some += [f"at most {counted(spec.n_units, 'unit')}"] if spec.n_units else []
    return (f"{read} ({kinds})" if kinds else read) + "".join(f", of {one}" for one in some)


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
    if loader is None or spec.loader in _NO_LOADERS:
        known = sorted(n[5:] for n in datasets.__all__ if n.startswith("load_") and n[5:] not in _NO_LOADERS)
        raise ValueError(f"{spec.name}: loader: expected one of {', '.join(known)}, got {spec.loader!r}")
    # Rows that cannot be read are left out in any case.
    names = [one for one in inspect.signature(loader).parameters if one != "skip_bad"]
    for name in spec.loader_settings:
        if name not in names:
            raise ValueError(f"{spec.name}: loader_settings: expected keys among {', '.join(names)}, got {name!r}")
    found = loader(**_loader_settings(spec, folder), skip_bad=True)
    tables = [table for table in (found.train, found.validation, found.test) if table is not None]
    table = datasets.PreferenceTable.concat(tables)
    if spec.split == "random":
        return table, None
    if found.test is None or len(tables) < 2:
        raise ValueError(f"{spec.name}: split: expected both a training and a test part for 'given', got one alone")
    return table, np.arange(len(table)) >= len(table) - len(found.test)


def _loader_settings(spec: DatasetSpec, folder: Path | None, ratings_of: str = "") -> dict[str, Any]:
    """Arguments of the loader of a data set, or of the ratings of this set or another one."""
    if ratings_of and ratings_of != spec.loader:
        from micropref.datasets.stand_ins import make_stand_in

        if spec.stand_in:
            return {"source": make_stand_in(ratings_of)}
        return _of_copy(ratings_of, folder)
    settings = dict(spec.loader_settings)
    if ratings_of:
        settings = {name: value for name, value in settings.items() if name == "source"}
    if spec.revision:
        settings["revision"] = spec.revision
    if spec.stand_in:
        settings["source"] = _stand_in(spec)
    if isinstance(settings.get("source"), str) and folder is not None and (folder / settings["source"]).exists():
        settings["source"] = str(folder / settings["source"])
    return _of_copy(spec.loader, folder) | settings


def _of_copy(loader: str, folder: Path | None) -> dict[str, Any]:
    """The source of a published set of which a copy lies in the folder of the data, under the name of its loader."""
    copy = None if folder is None else folder / loader
    return {} if copy is None or not copy.exists() else {"source": str(copy)}


def _stand_in(spec: DatasetSpec) -> dict[str, list[dict[str, Any]]]:
    from micropref.datasets.stand_ins import make_stand_in

    if "source" in spec.loader_settings:
        raise ValueError(f"{spec.name}: stand_in: expected no source beside it, got {spec.loader_settings['source']!r}")
    is_first = spec.loader == "reward_bench" and spec.loader_settings.get("version") == 1
    return make_stand_in("reward_bench_v1" if is_first else spec.loader, spec.stand_in)


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
