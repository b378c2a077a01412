"""Reads a suite from a TOML file and checks every key of it."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from micropref.bench._specs import KINDS, DatasetSpec, MethodSpec, Suite, check_common_settings, check_settings

_DATASET_KINDS = ("folder", "file", "hub", "orders", "world")
_PROTOCOLS = ("contexts", "users", "known_users")
_SPLITS = ("random", "given", "folds")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
# Keys that only data sets of these kinds have.
_ONLY = {
    "path": ("folder", "file", "orders"),
    "encoder": ("file", "hub"),
    "template": ("file", "hub"),
    "store": ("file", "hub"),
    "targets": ("file", "hub"),
    "n_units": ("file", "hub"),
    "columns": ("file",),
    "labels": ("file",),
    "format": ("file",),
    "annotators": ("file",),
    "encoding": ("file",),
    "loader": ("hub",),
    "loader_settings": ("hub",),
    "revision": ("hub",),
    "stand_in": ("hub",),
    "ratings": ("hub",),
    "world": ("world",),
    "n_samples": ("world",),
    "pairs_per_group": ("world",),
    "world_seed": ("world",),
}


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
        raise ValueError(f"{path}: expected a TOML file, got one that cannot be read: {error}") from None
    return _suite(content, str(path))


def _suite(content: Mapping[str, Any], where: str) -> Suite:
    known = {one.name for one in fields(Suite)}
    _refuse_unknown(content, known, where)
    name = _text(content, "name", where)
    seeds = _integers(content.get("seeds", [0, 1, 2, 3, 4]), f"{where}: seeds")
    budgets = _budgets(content.get("budgets", [0, 1, 2, 5, 10, 20, 50]), where)
    n_draws = _integers([content.get("n_draws", 1)], f"{where}: n_draws", 1)[0]
    n_resamples = _integers([content.get("n_resamples", 2000)], f"{where}: n_resamples", 1)[0]
    level = content.get("level", 0.95)
    if not isinstance(level, float) or not 0 < level < 1:
        raise ValueError(f"{where}: level: expected a number between 0 and 1, got {level!r}")
    datasets = _taught([_dataset(one, at) for one, at in _tables(content, "datasets", where)], where)
    methods = tuple(_method(one, at) for one, at in _tables(content, "methods", where))
    names = [one.name for one in methods]
    for dataset in datasets:
        for pattern in dataset.methods:
            if not any(fnmatchcase(name, pattern) for name in names):
                at = f"{where}: datasets.{dataset.name}: methods"
                raise ValueError(f"{at}: expected names among {', '.join(names)}, got {pattern!r}")
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
        raise ValueError(f"{where}: {key}: expected at least one [[{key}]], got {_short(tables)}")
    names = [_text(one, "name", f"{where}: {key}[{i}]") for i, one in enumerate(tables)]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{where}: {key}: expected every name once, got {name!r} twice")
        if not _NAME.fullmatch(name):
            raise ValueError(
                f"{where}: {key}: expected a name of letters, digits, '.', '_' and '-', for file names, got {name!r}"
            )
    return [(one, f"{where}: {key}.{name}") for one, name in zip(tables, names, strict=True)]


def _taught(datasets: Sequence[DatasetSpec], where: str) -> tuple[DatasetSpec, ...]:
    """The data sets, each with the one that teaches it, if another does."""
    by_name = {one.name: one for one in datasets}
    found = []
    for one in datasets:
        teacher = one.teacher
        if one.taught_by:
            at = f"{where}: datasets.{one.name}: taught_by"
            if teacher is None and (one.taught_by == one.name or one.taught_by not in by_name):
                names = ", ".join(name for name in by_name if name != one.name) or "none"
                raise ValueError(f"{at}: expected another data set, one of {names}, got {one.taught_by!r}")
            teacher = teacher or by_name[one.taught_by]
            if one.protocol != "contexts" or teacher.protocol != "contexts":
                raise ValueError(f"{at}: expected the protocol 'contexts' of both, got {one.protocol!r}")
            if teacher.taught_by:
                raise ValueError(
                    f"{at}: expected a data set that is not itself taught by another, got {teacher.name!r}"
                )
        found.append(replace(one, teacher=teacher))
    return tuple(found)


def _dataset(content: Mapping[str, Any], where: str) -> DatasetSpec:
    _refuse_unknown(content, {one.name for one in fields(DatasetSpec)} - {"teacher"}, where)
    _choice(content, "kind", _DATASET_KINDS, where)
    kind = content["kind"]
    for key, kinds in _ONLY.items():
        if key in content and kind not in kinds:
            raise ValueError(f"{where}: {key}: expected only for the kinds {', '.join(kinds)}, got kind {kind!r}")
    for key, of in (("path", ("folder", "file", "orders")), ("loader", ("hub",)), ("world", ("world",))):
        if kind in of:
            _text(content, key, where)
    example = DatasetSpec(name="", kind="")
    lists: dict[str, Any] = {}
    if "budgets" in content:
        lists["budgets"] = _budgets(content["budgets"], where)
    for key in ("methods", "targets", "ratings"):
        if key in content:
            lists[key] = _texts(content[key], f"{where}: {key}")
    if isinstance(content.get("taught_by"), Mapping):
        lists["teacher"] = _dataset(content["taught_by"], f"{where}: taught_by")
        lists["taught_by"] = lists["teacher"].name
    if isinstance(content.get("encoder"), Mapping):
        lists["encoder"] = content["encoder"]
    for key, value in ((key, value) for key, value in content.items() if key not in lists):
        expected = type(getattr(example, key))
        fits = isinstance(value, Mapping) if expected is dict else isinstance(value, expected)
        if expected is float:
            fits = isinstance(value, int | float) and value >= 0
        if expected is int:
            fits = isinstance(value, int) and value >= 0
        if not fits or (isinstance(value, bool) and expected is not bool):
            raise ValueError(f"{where}: {key}: expected {_MEANING[expected]}, got {value!r}")
    spec = DatasetSpec(**{**content, **lists})
    _choice({"protocol": spec.protocol}, "protocol", _PROTOCOLS, where)
    _choice({"split": spec.split}, "split", _SPLITS, where)
    if spec.split == "given" and kind != "hub":
        raise ValueError(f"{where}: split: expected 'given' only for the kind hub, got kind {kind!r}")
    if spec.targets and spec.protocol != "contexts":
        raise ValueError(f"{where}: targets: expected only for the protocol 'contexts', got {spec.protocol!r}")
    if kind == "world":
        from micropref.datasets.worlds import WORLDS

        _choice({"world": spec.world}, "world", tuple(WORLDS), where)
    try:
        check_common_settings(spec.parameters)
    except ValueError as error:
        raise ValueError(f"{where}: parameters.{error}") from None
    for key, low, high in (("test_units", 0, None), ("new_users", 0, 1), ("n_samples", 0, None)):
        value = getattr(spec, key)
        if value <= low or (high is not None and value > high):
            most = "" if high is None else f" and at most {high}"
            raise ValueError(f"{where}: {key}: expected a number above {low}{most}, got {value!r}")
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
            raise ValueError(f"{where}: expected keys among {', '.join(sorted(known))}, got {key!r}")


def _text(content: Mapping[str, Any], key: str, where: str) -> str:
    value = content.get(key)
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{where}: {key}: expected text, got {_short(value)}")
    return value


def _choice(content: Mapping[str, Any], key: str, among: tuple[str, ...], where: str) -> None:
    if content.get(key) not in among:
        raise ValueError(f"{where}: {key}: expected one of {', '.join(among)}, got {_short(content.get(key))}")


def _integers(values: Any, where: str, least: int = 0) -> tuple[int, ...]:
    fine = isinstance(values, list | tuple) and bool(values)
    if not fine or not all(isinstance(v, int) and not isinstance(v, bool) and v >= least for v in values):
        raise ValueError(f"{where}: expected whole numbers of at least {least}, got {values!r}")
    if len(set(values)) < len(values):
        raise ValueError(f"{where}: expected each number once, got {values!r}")
    return tuple(values)


def _budgets(values: Any, where: str) -> tuple[int, ...]:
    budgets = _integers(values, f"{where}: budgets")
    if list(budgets) != sorted(budgets):
        raise ValueError(f"{where}: budgets: expected ascending order, got {list(budgets)}")
    return budgets


def _texts(values: Any, where: str) -> tuple[str, ...]:
    if not isinstance(values, list | tuple) or not values or not all(isinstance(v, str) and v for v in values):
        raise ValueError(f"{where}: expected a list of names, got {values!r}")
    for name in values:
        if values.count(name) > 1:
            raise ValueError(f"{where}: expected every name once, got {name!r} twice")
    return tuple(values)


def _short(value: Any) -> str:
    return "nothing" if value is None else repr(value)
