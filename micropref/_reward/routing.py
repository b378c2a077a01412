"""What a model of texts keeps of its encoder and its router, and which context parts they read."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from micropref._estimator.fitting import twin
from micropref._support.warnings import level_of_caller
from micropref.datasets.table import PreferenceTable
from micropref.embed import PairEncoder
from micropref.router import ContextRouter

__all__ = ["check_asked", "labelled_and_voted", "owned", "parts_read", "set_parameters_for_votes", "warn_of_unclaimed"]

_HISTORY_PARAMETERS = ("history_temperature", "history_decay")


def owned(encoder: PairEncoder) -> PairEncoder:
    """An encoder whose scales and widths are its own; what embeds texts, and the store, are shared."""
    return twin(encoder, {name: dict(old) if isinstance(old, dict) else old for name, old in vars(encoder).items()})


def parts_read(router: ContextRouter, encoder: PairEncoder) -> tuple[str, ...]:
    """Context parts of an encoder that a router reads, in the order of its columns."""
    parts, width = [], 0
    for part, size in encoder.context_parts_.items():
        if width < router.n_context_features_:
            parts.append(part)
            width += size
    return tuple(parts)


def labelled_and_voted(table: PreferenceTable) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Rows (n,) that teach how contexts or prompts choose heads, and rows that are votes of a user.

    Beside votes, a row without a user and without a context is neither: its user is missing. It may not replace what
    labelled contexts have taught.
    """
    voted = np.zeros(len(table), dtype=bool)
    if table.group is not None:
        voted = np.array([group is not None for group in table.group], dtype=bool)
    labelled = ~voted
    if voted.any():
        stated = [False] * len(table) if table.context is None else [bool(text.strip()) for text in table.context]
        labelled &= np.array(stated, dtype=bool)
    return labelled, voted


def warn_of_unclaimed(used: NDArray[np.bool_]) -> None:
    """A UserWarning where some rows are neither labelled contexts nor votes."""
    if not used.all():
        warnings.warn(
            f"expected a user or a context in every row beside votes, got neither in {np.sum(~used)} of {len(used)} "
            f"rows, the first of them row {np.argmin(used)}; they are left out",
            UserWarning,
            stacklevel=level_of_caller(),
        )


def set_parameters_for_votes(router: ContextRouter, parameters: dict[str, Any]) -> None:
    """Set the parameters that concern votes; a ValueError for one that would change what contexts have taught."""
    current = router.get_params(deep=False)
    for name, value in parameters.items():
        if name in current and name not in _HISTORY_PARAMETERS and value != current[name]:
            raise ValueError(
                f"{name}: expected {current[name]!r}, as when the labelled contexts were learned, got {value!r} "
                "with votes only; pass the labelled contexts again"
            )
    router.set_params(**parameters)


def check_asked(parts: tuple[str, ...], contexts: Any, users: Any) -> None:
    """A ValueError where a router that reads contexts is given neither contexts nor users."""
    if "context" in parts and contexts is None and users is None:
        raise ValueError(
            "expected contexts or users, since this model was routed by contexts, got neither; "
            "pass a context for every row (empty if it has none), or the users"
        )
