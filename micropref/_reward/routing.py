"""What a model of texts keeps of its encoder and its router, and which context parts they read."""

from __future__ import annotations

from typing import Any

from micropref._estimator.fitting import twin
from micropref.embed import PairEncoder
from micropref.router import ContextRouter

__all__ = ["check_asked", "owned", "parts_read", "set_parameters_for_votes"]

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
