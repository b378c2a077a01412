"""Public names of 0.1 that are elsewhere now: each works for one release and warns; 0.3 removes this module."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from importlib import import_module
from typing import Any

from micropref._support.warnings import level_of_caller

__all__ = ["MOVED", "moved"]


def _in(module: str, *names: str) -> dict[str, str]:
    """Names that a module holds, with the place of each."""
    return {name: f"{module}:{name}" for name in names}


_LAYOUT = "micropref._rows.layout"
_SPEECH = ("Speech", "read_cell", "read_speech", "render")
_SPLIT = ("split_explicit", "split_implicit")
_NORMS = _in(_LAYOUT, "root_mean_square_norms")
_USER_ID = {"group_id": "micropref._rows.ids:user_id"}
_OF_RANKS = {
    "ALONE": "micropref.distributed._communicator:ALONE",
    **_in("micropref.distributed._groups", "hash_ids", "refuse_split_groups"),
}

# Old module: name: "module:name" where it is now, or the nearest to it.
MOVED: dict[str, dict[str, str]] = {
    "micropref.baselines.categorical": _NORMS,
    "micropref.baselines.hard_mixture": _NORMS,
    "micropref.baselines.mean_variance": {"Taste": "micropref.baselines.mean_variance:_Taste", **_NORMS},
    "micropref.baselines.user_rewards": _NORMS,
    "micropref.cli": _in("micropref.distributed", "RankError"),
    "micropref.datasets.chat": {
        **_in("micropref.datasets._chat", "Message", *_SPEECH),
        **_in("micropref.datasets._prompts", *_SPLIT),
        **_in("micropref.datasets._text", "is_blank", "is_unicode"),
    },
    "micropref.datasets.readers": {
        **_in("micropref.datasets", "MalformedRowError"),
        **_in("micropref.datasets._sources", "Record", "Source", "open_source"),
        **_in("micropref.datasets._chat", *_SPEECH),
        **_in("micropref.datasets._prompts", *_SPLIT),
        **_in("micropref.datasets._text", "is_blank", "listed"),
        **_USER_ID,
    },
    "micropref.datasets.responses": {
        **_USER_ID,
        **_in("micropref.datasets._chat", "read_cell"),
        **_in("micropref.datasets._prompts", "split_explicit"),
        **_in("micropref.datasets._text", "is_blank"),
    },
    "micropref.datasets.sources": {
        **_in("micropref.datasets", "MalformedRowError"),
        **_in("micropref.datasets._sources", "Record", "Source", "open_source"),
        **_in("micropref.datasets._text", "is_unicode", "listed"),
    },
    "micropref.datasets.table": _USER_ID,
    "micropref.distributed": _OF_RANKS,
    "micropref.embed.pair_encoder": {
        **_in("micropref.embed", "EmbeddingStore", "EncoderMismatchError", "encoder_config", "resolve_encoder"),
        **_in("micropref.embed.encoders", "encoder_from_config"),
        **_in("micropref.datasets", "PreferenceTable", "read_preferences"),
        **_in("micropref.datasets._text", "is_blank"),
        **_in("micropref.embed._texts", "check_texts"),
        **_in("micropref.pairs", "make_pairs"),
        **_in(_LAYOUT, "root_mean_square", "root_mean_square_norms"),
    },
    "micropref.embed.protocol": {
        **_in("micropref.embed._texts", "check_texts"),
        **_in("micropref.datasets._text", "is_blank", "is_unicode"),
    },
    "micropref.embed.store": _in("micropref.embed._shards", "KEY_BYTES"),
    "micropref.mixture": {
        **_OF_RANKS,
        **_in(_LAYOUT, "PairReader", "root_mean_square_norms"),
        **_in("micropref.pairs", "split_pairs"),
    },
    "micropref.pairs": {
        **_in(_LAYOUT, "PairBlock", "PairReader", "narrow_context", "non_finite", "root_mean_square"),
        **_in("micropref.distributed", "active_communicator"),
        **_NORMS,
    },
    "micropref.persistence": {
        "Arrays": "micropref._estimator.model_folder:Arrays",
        **_in("micropref", "ContextRouter", "MixtureBradleyTerry"),
    },
    "micropref.reward": {
        **_in("micropref", "MixtureBradleyTerry"),
        **_in("micropref.embed", "EmbeddingStore", "EncoderMismatchError"),
        **_in("micropref.metrics", "mean_interval"),
        **_in("micropref.persistence", "ModelFileError"),
        **_in("micropref._estimator.model_folder", "read_folder", "write_folder"),
        **_in("micropref._estimator.saveable", "pack", "unpack"),
    },
    "micropref.router": {
        **_in("micropref._engine.gates", "GATES"),
        **_in(_LAYOUT, "PairReader", "root_mean_square_norms"),
    },
}


def moved(module: str) -> Callable[[str], Any]:
    """The `__getattr__` of a module, which finds what has moved away from it and warns.

    Parameters
    ----------
    module : str
        Its name, a key of `MOVED`.

    Returns
    -------
    find : callable
        From a name to what it stands for, with a FutureWarning; an AttributeError for a name that never was there.
    """
    places = MOVED[module]

    def find(name: str) -> Any:
        if name not in places:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        home, _, new_name = places[name].partition(":")
        is_internal = any(part.startswith("_") for part in (*home.split("."), new_name))
        advice = f"it is internal now ({home}.{new_name})" if is_internal else f"import {new_name} from {home}"
        warnings.warn(
            f"{module}.{name} will be removed in micropref 0.3: {advice}", FutureWarning, stacklevel=level_of_caller()
        )
        return getattr(import_module(home), new_name)

    return find
