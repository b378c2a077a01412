"""micropref: pluralistic preference learning on frozen embeddings, with scikit-learn's API.

The names below are imported on first use, so that ``import micropref`` stays free.
"""

from __future__ import annotations

from importlib import import_module

# Not that of `typing`, whose import takes as long as all else here.
TYPE_CHECKING = False

__version__ = "0.2.0"

_HOME = {
    "MixtureBradleyTerry": "mixture",
    "ContextRouter": "router",
    "ContextInteractions": "features",
    "HierarchicalBradleyTerry": "hierarchical",
    "PairScaler": "pairs",
    "make_pairs": "pairs",
    "swap_pairs": "pairs",
    "split_pairs": "pairs",
    "PairEncoder": "embed",
    "EmbeddingStore": "embed",
    "read_preferences": "datasets",
    "make_preferences": "datasets",
    "load_demo": "datasets",
    "PreferenceModel": "reward",
    "suggest_annotations": "heads",
    "save": "persistence",
    "load": "persistence",
}

__all__ = [
    "ContextInteractions",
    "ContextRouter",
    "EmbeddingStore",
    "HierarchicalBradleyTerry",
    "MixtureBradleyTerry",
    "PairEncoder",
    "PairScaler",
    "PreferenceModel",
    "__version__",
    "load",
    "load_demo",
    "make_pairs",
    "make_preferences",
    "read_preferences",
    "save",
    "split_pairs",
    "suggest_annotations",
    "swap_pairs",
]

if TYPE_CHECKING:
    from micropref.datasets import load_demo, make_preferences, read_preferences
    from micropref.embed import EmbeddingStore, PairEncoder
    from micropref.features import ContextInteractions
    from micropref.heads import suggest_annotations
    from micropref.hierarchical import HierarchicalBradleyTerry
    from micropref.mixture import MixtureBradleyTerry
    from micropref.pairs import PairScaler, make_pairs, split_pairs, swap_pairs
    from micropref.persistence import load, save
    from micropref.reward import PreferenceModel
    from micropref.router import ContextRouter


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
