"""Comparisons of texts: tables, readers, published sets, simulated preferences and the demo world."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from micropref.datasets._faults import MalformedRowError
from micropref.datasets._report import ReadReport
from micropref.datasets.readers import read_preferences
from micropref.datasets.table import PreferenceTable

if TYPE_CHECKING:
    from micropref.datasets.demo import load_demo
    from micropref.datasets.folder import EmbeddedPreferences, load_folder
    from micropref.datasets.hub.helpsteer2 import load_helpsteer2, load_helpsteer2_ratings
    from micropref.datasets.hub.hh_rlhf import load_hh_rlhf
    from micropref.datasets.hub.personal_reward_bench import load_personal_reward_bench
    from micropref.datasets.hub.prism import load_prism
    from micropref.datasets.hub.reward_bench import load_reward_bench
    from micropref.datasets.hub.rpr import load_rpr
    from micropref.datasets.hub.ultrafeedback import load_ultrafeedback, load_ultrafeedback_ratings
    from micropref.datasets.preference_set import PreferenceSet
    from micropref.datasets.rating_table import RatingTable
    from micropref.datasets.simulate import make_preferences
    from micropref.datasets.worlds import make_world

# Reading a file should not pay for the simulators, the demo's texts and the published sets.
_LAZY_HOME = {
    "EmbeddedPreferences": "folder",
    "PreferenceSet": "preference_set",
    "RatingTable": "rating_table",
    "load_demo": "demo",
    "load_folder": "folder",
    "load_helpsteer2": "hub.helpsteer2",
    "load_helpsteer2_ratings": "hub.helpsteer2",
    "load_hh_rlhf": "hub.hh_rlhf",
    "load_personal_reward_bench": "hub.personal_reward_bench",
    "load_prism": "hub.prism",
    "load_reward_bench": "hub.reward_bench",
    "load_rpr": "hub.rpr",
    "load_ultrafeedback": "hub.ultrafeedback",
    "load_ultrafeedback_ratings": "hub.ultrafeedback",
    "make_preferences": "simulate",
    "make_world": "worlds",
}

__all__ = [
    "EmbeddedPreferences",
    "MalformedRowError",
    "PreferenceSet",
    "PreferenceTable",
    "RatingTable",
    "ReadReport",
    "load_demo",
    "load_folder",
    "load_helpsteer2",
    "load_helpsteer2_ratings",
    "load_hh_rlhf",
    "load_personal_reward_bench",
    "load_prism",
    "load_reward_bench",
    "load_rpr",
    "load_ultrafeedback",
    "load_ultrafeedback_ratings",
    "make_preferences",
    "make_world",
    "read_preferences",
]


def __getattr__(name: str) -> object:
    if name not in _LAZY_HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LAZY_HOME[name]}"), name)
