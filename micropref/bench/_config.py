"""A suite: which data sets, which methods, how many labels, which seeds; read from one TOML file."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from micropref.bench._methods import KINDS, check_common, check_settings

_KINDS = ("folder", "file", "hub", "world")
_PROTOCOLS = ("contexts", "users")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
# Names that a data set of one kind alone understands.
_ONLY = {
    "path": ("folder", "file"),
    "encoder": ("file", "hub"),
    "loader": ("hub",),
    "loader_settings": ("hub",),
    "world": ("world",),
    "n_samples": ("world",),
    "pairs_per_group": ("world",),
    "world_seed": ("world",),
}


@dataclass(frozen=True, kw_only=True)
class DatasetSpec:
    """One data set of a suite and how it is cut; every field is a key of ``[[datasets]]``.

    Attributes
    ----------
    name : str
        In tables and file names.
    kind : {"folder", "file", "hub", "world"}
        `load_folder`, `read_preferences`, a loader of `micropref.datasets`, or a planted world of `make_world`.
    protocol : {"contexts", "users"}
        What has labels of its own: the contexts (criteria, attributes) of the comparisons, or new users.
    path : str
        Of a folder or file, relative to the folder of the data.
    loader, loader_settings : str, dict
        Name of the loader without ``load_``, and its arguments (`source` among them).
    encoder : str
        For texts without vectors: "hashing", or the name or path of a sentence-transformers model.
    response_scale, prompt_scale, context_scale : float
        Factors of the vectors of responses, and of prompts and contexts among the context columns; 0 leaves out.
    difference_norm, context_norm : float
        Root mean square norm over the training rows to which differences and contexts are scaled then, as by
        `PairScaler`; 0 leaves them as they are.
    log_length : bool
        Whether the log of a response's number of characters is a feature.
    unit : str
        Column whose values are split between training and test: "prompt" or an extra column.
    target : str
        Column that names the context of a row: "context" or an extra column. Protocol "contexts".
    split : {"random", "given"}
        "given": the publisher's own test part is the test.
    test_units : float
        Number of units that are tested (1 or more), or their share.
    pairs_per_annotator : int
        Protocol "contexts": rows that each made-up annotator answers, all in one context. 0: the users of the data
        are the annotators, if there are any.
    min_votes : int
        Protocol "users": only users with so many votes can be new.
    new_users : float
        Protocol "users": share of them that is new.
    n_draws : int
        Draws of the labels for each seed; 0: as many as the suite says. Few contexts need several: one or two labels
        for each say little, and what they say is luck.
    world, n_samples, pairs_per_group, world_seed
        Name of the world, its rows, another number of rows per annotator, and the seed it is drawn with.
    parameters : dict
        Settings of all methods here, where they know them (``alpha``, ``n_components``).
    """

    name: str
    kind: str
    protocol: str = "users"
    path: str = ""
    loader: str = ""
    loader_settings: Mapping[str, Any] = field(default_factory=dict)
    encoder: str = "hashing"
    response_scale: float = 10.0
    prompt_scale: float = 2.0
    context_scale: float = 5.0
    difference_norm: float = 0.0
    context_norm: float = 0.0
    log_length: bool = False
    unit: str = "prompt"
    target: str = "context"
    split: str = "random"
    test_units: float = 0.2
    pairs_per_annotator: int = 5
    min_votes: int = 2
    new_users: float = 0.5
    n_draws: int = 0
    world: str = ""
    n_samples: int = 4000
    pairs_per_group: int = 0
    world_seed: int = 0
    parameters: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class MethodSpec:
    """One row of the tables: a kind of method with its settings.

    Attributes
    ----------
    name, kind : str
    settings : dict
    n_draws : int
        Draws of the labels that a slow method is spared to the first few of; 0: all.
    """

    name: str
    kind: str
    settings: Mapping[str, Any]
    n_draws: int = 0


@dataclass(frozen=True, kw_only=True)
class Suite:
    """What `run_suite` runs.

    Attributes
    ----------
    name : str
    seeds : tuple of int
    budgets : tuple of int
        Labels per context or new user, ascending.
    n_draws : int
        Draws of the labels for each seed; a larger budget of a draw contains the smaller ones.
    level : float
        Of the intervals.
    n_resamples : int
        Of the bootstrap.
    datasets : tuple of DatasetSpec
    methods : tuple of MethodSpec
    """

    name: str
    seeds: tuple[int, ...]
    budgets: tuple[int, ...]
    n_draws: int
    level: float
    n_resamples: int
    datasets: tuple[DatasetSpec, ...]
    methods: tuple[MethodSpec, ...]


def load_suite(source: str | os.PathLike[str] | Mapping[str, Any] | Suite) -> Suite:
    """Read and check a suite.

    Parameters
    ----------
    source : path, mapping or Suite
        A TOML file, or what it holds. A suite is returned as it is.

    Returns
    -------
    suite : Suite

    Raises
    ------
    ValueError
        If the file is not TOML, or for a key that is missing, unknown or out of range; the message names it.
    """
    if isinstance(source, Suite):
        return source
    if isinstance(source, Mapping):
        return _suite(source, "config")
    path = Path(source)
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not a TOML file: {error}") from None
    return _suite(content, str(path))


def _suite(content: Mapping[str, Any], where: str) -> Suite:
    known = {one.name for one in fields(Suite)}
    _refuse_unknown(content, known, where)
    name = _text(content, "name", where)
    seeds = _integers(content.get("seeds", [0, 1, 2, 3, 4]), f"{where}: seeds")
    budgets = _integers(content.get("budgets", [0, 1, 2, 5, 10, 20, 50]), f"{where}: budgets")
    if list(budgets) != sorted(budgets):
        raise ValueError(f"{where}: budgets: found {list(budgets)}, wanted them in ascending order")
    n_draws = _integers([content.get("n_draws", 1)], f"{where}: n_draws", 1)[0]
    n_resamples = _integers([content.get("n_resamples", 2000)], f"{where}: n_resamples", 1)[0]
    level = content.get("level", 0.95)
    if not isinstance(level, float) or not 0 < level < 1:
        raise ValueError(f"{where}: level: found {level!r}, wanted a number between 0 and 1")
    datasets = tuple(_dataset(one, at) for one, at in _tables(content, "datasets", where))
    methods = tuple(_method(one, at) for one, at in _tables(content, "methods", where))
    return Suite(
        name=name,
        seeds=seeds,
        budgets=budgets,
        n_draws=n_draws,
        level=level,
        n_resamples=n_resamples,
        datasets=datasets,
        methods=methods,
    )


def _tables(content: Mapping[str, Any], key: str, where: str) -> list[tuple[Mapping[str, Any], str]]:
    tables = content.get(key)
    if not isinstance(tables, list) or not tables or not all(isinstance(one, Mapping) for one in tables):
        raise ValueError(f"{where}: {key}: found {_short(tables)}, wanted at least one [[{key}]]")
    names = [_text(one, "name", f"{where}: {key}[{i}]") for i, one in enumerate(tables)]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{where}: {key}: found the name {name!r} twice, wanted each once")
        if not _NAME.fullmatch(name):
            raise ValueError(
                f"{where}: {key}: found the name {name!r}, wanted letters, digits, '.', '_' and '-', for file names"
            )
    return [(one, f"{where}: {key}.{name}") for one, name in zip(tables, names, strict=True)]


def _dataset(content: Mapping[str, Any], where: str) -> DatasetSpec:
    _refuse_unknown(content, {one.name for one in fields(DatasetSpec)}, where)
    _choice(content, "kind", _KINDS, where)
    kind = content["kind"]
    for key, kinds in _ONLY.items():
        if key in content and kind not in kinds:
            raise ValueError(f"{where}: {key}: found in a data set of kind {kind!r}, wanted only in {', '.join(kinds)}")
    for key, of in (("path", ("folder", "file")), ("loader", ("hub",)), ("world", ("world",))):
        if kind in of:
            _text(content, key, where)
    example = DatasetSpec(name="", kind="")
    for key, value in content.items():
        wanted = type(getattr(example, key))
        fits = isinstance(value, Mapping) if wanted is dict else isinstance(value, wanted)
        if wanted is float:
            fits = isinstance(value, int | float) and value >= 0
        if wanted is int:
            fits = isinstance(value, int) and value >= 0
        if not fits or (isinstance(value, bool) and wanted is not bool):
            raise ValueError(f"{where}: {key}: found {value!r}, wanted {_MEANING[wanted]}")
    spec = DatasetSpec(**content)
    _choice({"protocol": spec.protocol}, "protocol", _PROTOCOLS, where)
    _choice({"split": spec.split}, "split", ("random", "given"), where)
    if spec.split == "given" and kind != "hub":
        raise ValueError(f"{where}: split: found 'given' in a data set of kind {kind!r}, wanted it only in hub")
    if kind == "world":
        from micropref.datasets.worlds import WORLDS

        _choice({"world": spec.world}, "world", tuple(WORLDS), where)
    try:
        check_common(spec.parameters)
    except ValueError as error:
        raise ValueError(f"{where}: parameters.{error}") from None
    for key, low, high in (("test_units", 0, None), ("new_users", 0, 1), ("n_samples", 0, None)):
        value = getattr(spec, key)
        if value <= low or (high is not None and value > high):
            most = "" if high is None else f" and at most {high}"
            raise ValueError(f"{where}: {key}: found {value!r}, wanted a number above {low}{most}")
    return spec


def _method(content: Mapping[str, Any], where: str) -> MethodSpec:
    _choice(content, "kind", tuple(KINDS), where)
    settings = {key: value for key, value in content.items() if key not in ("name", "kind", "n_draws")}
    n_draws = _integers([content.get("n_draws", 0)], f"{where}: n_draws")[0]
    try:
        check_settings(content["kind"], settings)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    return MethodSpec(name=content["name"], kind=content["kind"], settings=settings, n_draws=n_draws)


_MEANING = {
    str: "text",
    dict: "a table",
    bool: "true or false",
    int: "a whole number of at least 0",
    float: "a number of at least 0",
}


def _refuse_unknown(content: Mapping[str, Any], known: set[str], where: str) -> None:
    for key in content:
        if key not in known:
            raise ValueError(f"{where}: {key}: unknown key; wanted one of {', '.join(sorted(known))}")


def _text(content: Mapping[str, Any], key: str, where: str) -> str:
    value = content.get(key)
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{where}: {key}: found {_short(value)}, wanted text")
    return value


def _choice(content: Mapping[str, Any], key: str, among: tuple[str, ...], where: str) -> None:
    if content.get(key) not in among:
        raise ValueError(f"{where}: {key}: found {_short(content.get(key))}, wanted one of {', '.join(among)}")


def _integers(values: Any, where: str, least: int = 0) -> tuple[int, ...]:
    fine = isinstance(values, list | tuple) and bool(values)
    if not fine or not all(isinstance(v, int) and not isinstance(v, bool) and v >= least for v in values):
        raise ValueError(f"{where}: found {values!r}, wanted whole numbers of at least {least}")
    if len(set(values)) < len(values):
        raise ValueError(f"{where}: found {values!r}, wanted each once")
    return tuple(values)


def _short(value: Any) -> str:
    return "nothing" if value is None else repr(value)
