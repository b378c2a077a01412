"""RPR: two criteria for every pair, and each prefers the other response."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from micropref.datasets.hub._open import open_splits
from micropref.datasets.hub._rows import Comparison, Reading, text_of
from micropref.datasets.preference_set import PreferenceSet

__all__ = ["load_rpr"]

_COLUMNS = (
    *("prompt", "response_a", "response_b", "criteria_x", "criteria_y"),
    *("category_x", "category_y", "scenario_x", "scenario_y", "id"),
)


def load_rpr(
    source: Any = None, *, context: str = "criteria", revision: str | None = None, skip_bad: bool = False
) -> PreferenceSet:
    """Load Reasonable Preference Reversal: synthetic pairs in which two contexts prefer two different responses.

    Each record gives two adjacent rows: under criterion x ``response_a`` is chosen, under criterion y ``response_b``.
    Without the context every pair is even, so that no single reward can be right about more than half of the rows.
    Published are 10 167 records for training and 1 000 for testing.

    Licence: CDLA-Permissive-2.0. Citation: Silviu Pitis, Ziang Xiao, Nicolas Le Roux and Alessandro Sordoni (2024),
    "Improving Context-Aware Preference Modeling for Language Models", arXiv:2407.14916.

    Parameters
    ----------
    source : None, str, path, datasets.Dataset, datasets.DatasetDict, or list of dict, optional
        By default ``microsoft/rpr`` on the hub. Rows in no named split become `train`.
    context : {"criteria", "scenario"}, default="criteria"
        The context of a row: the criterion itself, or a scenario in which a person would apply it.
    revision : str, optional
        Commit, tag or branch on the hub.
    skip_bad : bool, default=False
        Leave bad records out with a UserWarning, instead of stopping at the first.

    Returns
    -------
    PreferenceSet
        With `train` and `test`. Extra columns are ``category``, ``criterion``, ``scenario`` and ``id`` (of the record).

    Raises
    ------
    MalformedRowError
        At the first bad record.
    ImportError
        If `datasets` is needed and not installed.
    """
    if context not in ("criteria", "scenario"):
        raise ValueError(f"expected context to be 'criteria' or 'scenario', got {context!r}")
    opened = open_splits(source, hub_name="microsoft/rpr", columns=_COLUMNS, revision=revision)
    tables = {}
    for split in ("train", "test") if opened.is_named else ("train",):
        reading = Reading(opened.split(split), skip_bad)
        pairs = reading.each(lambda cells: _both_sides(cells, context), _COLUMNS)
        tables[split] = reading.table([one for _, pair in pairs for one in pair], has_context=True)
    return PreferenceSet(
        name="RPR",
        **tables,
        licence="CDLA-Permissive-2.0",
        citation="Pitis, Xiao, Le Roux and Sordoni (2024), Improving Context-Aware Preference Modeling for Language "
        "Models, arXiv:2407.14916",
        source=opened.source,
    )


def _both_sides(cells: Mapping[str, Any], context: str) -> list[Comparison]:
    prompt, first, second = (text_of(cells, name) for name in ("prompt", "response_a", "response_b"))
    return [
        Comparison(
            prompt,
            chosen,
            rejected,
            context=text_of(cells, f"{context}_{side}"),
            extra={
                "category": cells[f"category_{side}"],
                "criterion": cells[f"criteria_{side}"],
                "scenario": cells[f"scenario_{side}"],
                "id": cells["id"],
            },
        )
        for side, chosen, rejected in (("x", first, second), ("y", second, first))
    ]
