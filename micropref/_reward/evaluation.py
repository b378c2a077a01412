"""Accuracy and log-loss of a model of texts, for every stage that the model and the data allow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from micropref.datasets.table import PreferenceTable
from micropref.metrics._subsets import clusters_of, rows_by_value, score_subsets

__all__ = ["scores_by_stage"]


def scores_by_stage(model: Any, table: PreferenceTable, by: str | None, random_state: int) -> list[dict[str, Any]]:
    """Rows of `PreferenceModel.evaluate`."""
    if table.weight is not None:
        table = table[table.weight > 0]
    if not len(table):
        raise ValueError("expected at least one comparison with weight, got none")
    return score_subsets(
        _log_odds_by_stage(model, table),
        rows_by_value(None if by is None else _column(table, by), len(table)),
        clusters=clusters_of(table.group, table.prompt),
        weight=table.weight,
        random_state=random_state,
    )


def _log_odds_by_stage(model: Any, table: PreferenceTable) -> dict[str, NDArray[Any]]:
    found = {"mixture": model.log_odds(table, routed=False)}
    if model.router is not None:
        found["routed"] = model.log_odds(table, history=False)
        if table.group is not None and any(user in model.router.history_ for user in table.group):
            found["history"] = model.log_odds(table)
    return found


def _own_name(table: PreferenceTable, name: str) -> str:
    """The name in the table of a column that the source calls otherwise, such as "group" of "judge"."""
    if name in table.extra or table.report is None:
        return name
    roles = [role for role, column in table.report.columns.items() if name in (role, column)]
    return "group" if "user" in roles else (roles[0] if roles else name)


def _column(table: PreferenceTable, name: str) -> Sequence[Any]:
    own = _own_name(table, name)
    column = getattr(table, own, None) if own in ("prompt", "context", "group") else table.extra.get(name)
    if column is None:
        present = ["prompt", *(n for n in ("context", "group") if getattr(table, n) is not None), *table.extra]
        raise ValueError(f"expected one of the columns {', '.join(map(repr, present))}, got {name!r}")
    return list(column)
