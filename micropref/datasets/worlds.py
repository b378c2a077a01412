"""Planted worlds by name, each with one difficulty, so that results on them can be compared."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from micropref.datasets.simulate import PlantedPreferences, make_preferences

__all__ = ["WORLDS", "make_world"]

_GROUPS = {"n_features": 32, "n_components": 3, "n_context_features": 0, "pairs_per_group": 10}
_USERS = {**_GROUPS, "pairs_per_group": 40, "scale": 2.0}

#: Settings of `make_preferences` by the name of the world.
WORLDS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "groups": MappingProxyType(_GROUPS),
        "contexts": MappingProxyType({"n_features": 32, "n_components": 3, "n_context_features": 16}),
        "noisy": MappingProxyType({**_GROUPS, "noise": 0.2}),
        "ties": MappingProxyType({**_GROUPS, "tie_rate": 0.3}),
        "drift": MappingProxyType({**_GROUPS, "pairs_per_group": 40, "drift": 0.05}),
        "length_bias": MappingProxyType({**_GROUPS, "length_bias": 1.0}),
        "continuous": MappingProxyType({**_USERS, "n_components": 1, "spread": 1.5, "rank": 3, "rank_spread": 2.0}),
        "discrete": MappingProxyType({**_USERS, "scale": 3.0}),
        "mixed": MappingProxyType({**_USERS, "scale": 2.5, "spread": 1.0, "rank": 2, "rank_spread": 1.5}),
        "profiles": MappingProxyType(
            {**_USERS, "n_context_features": 8, "shared_context": True, "scale": 2.5, "spread": 1.0}
        ),
        "stated": MappingProxyType(
            {"n_features": 32, "n_components": 1, "n_context_features": 0, "scale": 1.0, "criterion_scale": 2.5}
        ),
    }
)


def make_world(
    name: str, *, n_samples: int = 10_000, random_state: int | np.random.RandomState | None = None
) -> PlantedPreferences:
    """Draw a named world with `make_preferences`.

    All worlds have 32 features, and 3 components if not said otherwise.

    =============  ====================================================================================
    name           what it has
    =============  ====================================================================================
    "groups"       annotators of 10 comparisons each, no contexts
    "contexts"     contexts of 16 features that decide among the components, no groups
    "noisy"        "groups", and every fifth label is flipped
    "ties"         "groups", and three comparisons in ten are ties
    "drift"        annotators of 40 comparisons each, who draw their component anew every 20 in the mean
    "length_bias"  "groups", and all overvalue length by 1 nat per standard deviation
    "discrete"     annotators of 40 comparisons each, who want what their component wants
    "continuous"   the same, but scattered around one head, in all directions and along three of their own
    "mixed"        the same, scattered around each of three heads, along two directions of each head's own
    "profiles"     the same, scattered around heads that 8 features of each annotator decide among
    "stated"       a criterion in the context of every comparison, "I look for X" or "I avoid X"; one head
    =============  ====================================================================================

    Parameters
    ----------
    name : {"groups", "contexts", "noisy", "ties", "drift", "length_bias", "discrete", "continuous", "mixed", \
"profiles", "stated"}
    n_samples : int, default=10_000
        Number of comparisons.
    random_state : int, RandomState or None
        Seed of every draw.

    Returns
    -------
    PlantedPreferences
        Settings are those of ``micropref.datasets.worlds.WORLDS[name]``.

    Raises
    ------
    ValueError
        If there is no world of that name.

    Examples
    --------
    >>> world = make_world("groups", n_samples=500, random_state=0)
    >>> world.X.shape, len(set(world.groups))
    ((500, 32), 50)
    """
    if name not in WORLDS:
        raise ValueError(f"expected name to be one of {', '.join(map(repr, WORLDS))}, got {name!r}")
    return make_preferences(n_samples, **WORLDS[name], random_state=random_state)
