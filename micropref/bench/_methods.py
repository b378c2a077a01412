"""Every method of a suite: what it is told, how it is learned, and what it makes of the test rows at each budget."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Hashable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np

from micropref import baselines
from micropref.bench._tasks import Material
from micropref.mixture import MixtureBradleyTerry
from micropref.router import ContextRouter

# What a method may be told beside the comparisons of training.
ANNOTATORS, TRAINING_CONTEXTS, CONTEXTS, TARGETS, TRUTH = (
    "annotators",
    "training contexts",
    "contexts",
    "label owners",
    "true groups",
)


class NotApplicable(Exception):
    """The data set lacks what the method is about."""


class Stages:
    """What several methods of one task share, fitted once each; and the time that it took."""

    def __init__(self) -> None:
        self._fitted: dict[Hashable, tuple[Any, float]] = {}
        self.seconds = 0.0

    def get(self, key: Hashable, fit: Callable[[], Any]) -> Any:
        """The fit of that key. Whoever asks pays for it, in `seconds`, as if alone."""
        if key not in self._fitted:
            start = time.perf_counter()
            self._fitted[key] = (fit(), time.perf_counter() - start)
            self.seconds -= self._fitted[key][1]
        self.seconds += self._fitted[key][1]
        return self._fitted[key][0]


# Log-odds (n_draws, n_budgets, n_test) that the first response is preferred.
Run = Callable[[Material, Mapping[str, Any], Stages], np.ndarray]


@dataclass(frozen=True)
class Kind:
    """A kind of method.

    Attributes
    ----------
    run : callable
    settings : dict of str to default
    information : function of the settings, to a frozenset
        What it is told.
    family : str
        "micro", "rival", "control" or "ceiling"; only the first two are compared.
    label : str
    own_size : bool
        Whether `n_components` is no number of populations, so that the data set has no say in it.
    """

    run: Run
    settings: Mapping[str, Any]
    information: Callable[[Mapping[str, Any]], frozenset[str]]
    family: str
    label: str
    own_size: bool = False


def check_settings(kind: str, settings: Mapping[str, Any]) -> None:
    """A ValueError for a setting that the kind does not have, or that is of another type."""
    known = KINDS[kind].settings
    for key, value in settings.items():
        if key not in known:
            wanted = ", ".join(sorted(known)) or "none"
            raise ValueError(f"{key}: unknown setting of the kind {kind!r}; wanted one of {wanted}")
        kinds = (int, float) if isinstance(known[key], float) else type(known[key])
        if not isinstance(value, kinds) or isinstance(value, bool) != isinstance(known[key], bool):
            raise ValueError(f"{key}: found {value!r}, wanted a value like {known[key]!r}")


def effective(kind: str, own: Mapping[str, Any], common: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a method on a data set: defaults, what is common to the data set, what the method itself says."""
    known = KINDS[kind].settings
    taken = {key for key in known if key != "n_components" or not KINDS[kind].own_size}
    return {**known, **{key: value for key, value in common.items() if key in taken}, **own}


def check_common(common: Mapping[str, Any]) -> None:
    """A ValueError for a setting that no kind has."""
    for key in common:
        if not any(key in kind.settings for kind in KINDS.values()):
            raise ValueError(f"{key}: unknown setting; wanted one that a method has")


# ---------------------------------------------------------------------------------------------------------- the steps


def _mixture(material: Material, settings: Mapping[str, Any], stages: Stages, n_components: int | None = None) -> Any:
    """Heads of all training rows, with their annotators unless there is one head alone."""
    k = settings["n_components"] if n_components is None else n_components
    gated = bool(settings.get("training_contexts")) and k > 1
    if gated and not material.has_contexts:
        raise NotApplicable("no contexts")
    grouped = k > 1 and not gated
    groups = material.annotators if grouped and material.has_annotators else None
    width = material.train.context.shape[1] if gated else 0
    key = ("mixture", k, settings["alpha"], gated, None if groups is None else groups.tobytes())

    def fit() -> MixtureBradleyTerry:
        model = MixtureBradleyTerry(
            n_components=k, n_context_features=width, alpha=settings["alpha"], random_state=material.seed
        )
        X = material.train.pairs() if gated else material.train.difference
        return model.fit(X, material.train.y, sample_weight=material.train.weight, groups=groups)

    return stages.get(key, fit)


def _constant(material: Material, odds: np.ndarray) -> np.ndarray:
    """The same whatever the labels."""
    return np.broadcast_to(odds, (len(material.ranks), len(material.budgets), len(odds)))


def _adapting(
    material: Material, start: Callable[[], Any], *, contexts: bool = False, unknown: np.ndarray | None = None
) -> np.ndarray:
    """Predictions of a model that takes in more and more votes of each target.

    `unknown` are its predictions before the first, of a model that has none of its own.
    """
    test = material.test.pairs() if contexts else material.test.difference
    found = []
    for draw in range(len(material.ranks)):
        model, voted = start(), False
        for step in material.steps(draw):
            if len(step):
                voted = True
                votes = material.pool.of(step)
                X = votes.pairs() if contexts else votes.difference
                model.partial_fit(X, votes.y, sample_weight=votes.weight, groups=material.pool_target[step])
            if unknown is not None and not voted:
                found.append(unknown)
            else:
                found.append(model.decision_function(test, groups=material.test_target))
    return np.reshape(found, (len(material.ranks), len(material.budgets), len(test)))


# ------------------------------------------------------------------------------------------------------------- MiCRo


def _single(material: Material, settings: Mapping[str, Any], stages: Stages) -> np.ndarray:
    return _constant(material, _mixture(material, settings, stages, 1).decision_function(material.test.difference))


def _static(material: Material, settings: Mapping[str, Any], stages: Stages) -> np.ndarray:
    heads = _mixture(material, settings, stages)
    X = material.test.pairs() if heads.n_context_features else material.test.difference
    return _constant(material, heads.decision_function(X))


def _routed(material: Material, settings: Mapping[str, Any], stages: Stages) -> np.ndarray:
    """Labels teach a gate of the context; with `history` they are also votes of their owner."""
    if not material.has_contexts:
        raise NotApplicable("no contexts")
    heads = _mixture(material, settings, stages)
    test = material.test.pairs()
    own = test if heads.n_context_features else material.test.difference
    found = []
    for ranks in material.ranks:
        for budget in material.budgets:
            labelled = np.flatnonzero(ranks < budget)
            if not len(labelled):
                found.append(heads.decision_function(own))
                continue
            labels = material.pool.of(labelled)
            X = labels.pairs()
            router = ContextRouter(
                heads,
                gate=settings["gate"],
                alpha=settings["gate_alpha"],
                history_temperature=settings["history_temperature"],
                random_state=material.seed,
            ).fit(X, labels.y, sample_weight=labels.weight)
            groups = None
            if settings["history"]:
                owners = material.pool_target[labelled]
                router.partial_fit(X, labels.y, sample_weight=labels.weight, groups=owners)
                groups = material.test_target
            found.append(router.decision_function(test, groups=groups))
    return np.reshape(found, (len(material.ranks), len(material.budgets), len(test)))


def _history(material: Material, settings: Mapping[str, Any], stages: Stages) -> np.ndarray:
    """Labels are votes of their owner."""
    if settings["permute"] == "annotators":
        if not material.has_annotators:
            raise NotApplicable("no annotators to permute")
        material = material.with_permuted_annotators()
    elif settings["permute"] == "labels":
        plain = {**settings, "permute": ""}
        return np.concatenate([_history(one, plain, stages) for one in material.with_permuted_labels()])
    elif settings["permute"]:
        raise ValueError(f"permute: found {settings['permute']!r}, wanted 'annotators', 'labels' or ''")
    heads = _mixture(material, settings, stages)
    contexts = bool(heads.n_context_features)

    def start() -> ContextRouter:
        return ContextRouter(heads, history_temperature=settings["history_temperature"], random_state=material.seed)

    test = material.test.pairs() if contexts else material.test.difference
    return _adapting(material, start, contexts=contexts, unknown=heads.decision_function(test))


# ------------------------------------------------------------------------------------------------------------- rivals


def _fitted(material: Material, model: Any, key: Hashable, stages: Stages, *, contexts: bool = False) -> Any:
    X = material.train.pairs() if contexts else material.train.difference
    groups = material.annotators if material.has_annotators else None
    return stages.get(key, lambda: model.fit(X, material.train.y, sample_weight=material.train.weight, groups=groups))


def _rival(cls: type, *, contexts: bool = False) -> Run:
    """A method that is learned with the annotators and takes in the votes of each target."""

    def run(material: Material, settings: Mapping[str, Any], stages: Stages) -> np.ndarray:
        if contexts and not material.has_contexts:
            raise NotApplicable("no contexts")
        seeded = {"random_state": material.seed} if "random_state" in inspect.signature(cls).parameters else {}
        width = {"n_context_features": material.train.context.shape[1]} if contexts else {}
        model = cls(**settings, **seeded, **width)
        fitted = _fitted(material, model, (cls.__name__, *sorted(settings.items())), stages, contexts=contexts)
        return _adapting(material, lambda: deepcopy(fitted), contexts=contexts)

    return run


def _ensemble(material: Material, settings: Mapping[str, Any], stages: Stages) -> Any:
    chosen = {name: settings[name] for name in ("n_components", "alpha")}
    model = baselines.SharedBaseEnsemble(**chosen, random_state=material.seed)
    return _fitted(material, model, ("ensemble", *sorted(chosen.items())), stages)


def _uniform(material: Material, settings: Mapping[str, Any], stages: Stages) -> np.ndarray:
    ensemble = _ensemble(material, settings, stages)
    return _constant(material, ensemble.decision_function(material.test.difference))


def _hyre(heads: str) -> Run:
    def run(material: Material, settings: Mapping[str, Any], stages: Stages) -> np.ndarray:
        source: Any = heads
        if heads == "ensemble":
            source = _ensemble(material, settings, stages)
        elif heads == "micro":
            source = _mixture(material, settings, stages)
        chosen = {name: settings[name] for name in ("temperature", "average")}
        count = {"n_components": settings["n_components"]} if heads == "random" else {}
        model = baselines.HypothesisReweighting(source, **chosen, **count, random_state=material.seed)
        fitted = _fitted(material, model, ("hyre", heads, *sorted(settings.items())), stages)
        return _adapting(material, lambda: deepcopy(fitted))

    return run


def _oracle(material: Material, settings: Mapping[str, Any], stages: Stages) -> np.ndarray:
    if material.truth is None or material.test_truth is None:
        raise NotApplicable("true groups unknown")
    truth = material.truth
    model = stages.get(
        ("oracle", settings["alpha"]),
        lambda: baselines.GroupRewards(settings["alpha"]).fit(
            material.train.difference, material.train.y, sample_weight=material.train.weight, groups=truth
        ),
    )
    return _constant(material, model.decision_function(material.test.difference, groups=material.test_truth))


# ------------------------------------------------------------------------------------------------------- the register


def _defaults(cls: type, *names: str) -> dict[str, Any]:
    parameters = inspect.signature(cls).parameters
    return {name: parameters[name].default for name in names}


def _told(*what: str) -> Callable[[Mapping[str, Any]], frozenset[str]]:
    def information(settings: Mapping[str, Any]) -> frozenset[str]:
        told = set(what)
        if settings.get("training_contexts"):
            told = (told - {ANNOTATORS}) | {TRAINING_CONTEXTS, CONTEXTS}
        if settings.get("history") is True:
            told |= {TARGETS}
        return frozenset(told)

    return information


_HEADS = {"n_components": 4, "alpha": 1e-3}
_GATED = {**_HEADS, "training_contexts": False}
_HISTORY = {**_GATED, "history_temperature": 1.0, "permute": ""}
_ROUTED = {**_GATED, "gate": "linear", "gate_alpha": 1e-3, "history": False, "history_temperature": 1.0}
_OF = baselines

KINDS: dict[str, Kind] = {
    "single": Kind(_single, {"alpha": 1e-3}, _told(), "rival", "one Bradley-Terry reward"),
    "static": Kind(_static, _GATED, _told(ANNOTATORS), "micro", "static mixture: heads, no adaptation"),
    "micro_context": Kind(_routed, _ROUTED, _told(ANNOTATORS, CONTEXTS), "micro", "MiCRo, labels teach contexts"),
    "micro_history": Kind(_history, _HISTORY, _told(ANNOTATORS, TARGETS), "micro", "MiCRo, labels are history"),
    "micro_permuted": Kind(
        _history, {**_HISTORY, "permute": "annotators"}, _told(ANNOTATORS, TARGETS), "control", "MiCRo, users permuted"
    ),
    "hyre": Kind(
        _hyre("ensemble"),
        {**_defaults(_OF.HypothesisReweighting, "n_components", "temperature", "average"), "alpha": 1e-3},
        _told(TARGETS),
        "rival",
        "HyRe on a shared-base ensemble",
        own_size=True,
    ),
    "hyre_micro": Kind(
        _hyre("micro"),
        {**_HEADS, **_defaults(_OF.HypothesisReweighting, "temperature", "average")},
        _told(ANNOTATORS, TARGETS),
        "rival",
        "HyRe on MiCRo heads",
    ),
    "hyre_random": Kind(
        _hyre("random"),
        _defaults(_OF.HypothesisReweighting, "n_components", "temperature", "average"),
        _told(TARGETS),
        "control",
        "HyRe on random heads",
        own_size=True,
    ),
    "ensemble": Kind(
        _uniform,
        {**_defaults(_OF.SharedBaseEnsemble, "n_components"), "alpha": 1e-3},
        _told(),
        "rival",
        "shared-base ensemble, uniform",
        own_size=True,
    ),
    "drm": Kind(
        _rival(_OF.DecomposedRewards),
        _defaults(_OF.DecomposedRewards, "n_components", "margin", "temperature", "prior", "average"),
        _told(TARGETS),
        "rival",
        "decomposed rewards (PCA)",
        own_size=True,
    ),
    "drm_random": Kind(
        lambda material, settings, stages: _rival(_OF.DecomposedRewards)(
            material, {**settings, "basis": "random"}, stages
        ),
        _defaults(_OF.DecomposedRewards, "n_components", "margin", "temperature", "prior", "average"),
        _told(TARGETS),
        "control",
        "decomposed rewards, random basis",
        own_size=True,
    ),
    "lore": Kind(
        _rival(_OF.LowRankRewards),
        _defaults(_OF.LowRankRewards, "n_components", "alpha", "weight_penalty", "n_init"),
        _told(ANNOTATORS, TARGETS),
        "rival",
        "low-rank rewards (LoRe)",
    ),
    "hard_em": Kind(
        _rival(_OF.HardMixture),
        _defaults(_OF.HardMixture, "n_components", "alpha", "n_init"),
        _told(ANNOTATORS, TARGETS),
        "rival",
        "hard EM (MaxMin)",
    ),
    "user_rewards": Kind(
        _rival(_OF.UserRewards),
        _defaults(_OF.UserRewards, "user_alpha", "alpha"),
        _told(ANNOTATORS, TARGETS),
        "rival",
        "user rewards with shrinkage",
    ),
    "mean_variance": Kind(
        _rival(_OF.MeanVarianceRewards),
        _defaults(_OF.MeanVarianceRewards, "rank", "alpha", "variance_alpha"),
        _told(TARGETS),
        "rival",
        "mean-variance rewards (DPL)",
    ),
    "categorical": Kind(
        _rival(_OF.CategoricalRewards),
        _defaults(_OF.CategoricalRewards, "n_atoms", "alpha", "user_alpha"),
        _told(TARGETS),
        "rival",
        "categorical rewards (DPL)",
    ),
    "neighbors": Kind(
        _rival(_OF.ContextNeighbors, contexts=True),
        _defaults(_OF.ContextNeighbors, "n_neighbors", "local_alpha", "alpha"),
        _told(TRAINING_CONTEXTS, CONTEXTS, TARGETS),
        "rival",
        "nearest neighbours in context",
    ),
    "oracle": Kind(_oracle, {"alpha": 1e-3}, _told(TRUTH), "ceiling", "per-group rewards, told the groups"),
}
