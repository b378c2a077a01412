"""What a suite consists of: data sets, methods and settings, as plain values that need no data and no estimator."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from micropref.bench._streams import ASKED, DRAWN, EPIG

# What a method may use beside the comparisons of training, in the order of the tables.
ANNOTATORS, TRAINING_CONTEXTS, CONTEXTS, TARGETS, RATINGS, TRUTH = INFORMATION = (
    "annotators",
    "training contexts",
    "contexts",
    "label owners",
    "ratings",
    "true groups",
)


@dataclass(frozen=True, kw_only=True)
class DatasetSpec:
    """One data set of a suite and its splits; every field is a key of ``[[datasets]]``.

    Attributes
    ----------
    name : str
        In tables and file names.
    kind : {"folder", "file", "hub", "orders", "world"}
        `load_folder`, `read_preferences`, a loader of `micropref.datasets`, rankings, or a planted world of
        `make_world`. Rankings are an array of NumPy's format, (n_users, n_items), of the items from 0 in the order of
        each user, best first: all pairs of items are comparisons, and every item has a feature of its own.
    protocol : {"contexts", "users", "known_users"}
        What has labels of its own: the contexts (criteria, attributes) of the comparisons, new users, or users whose
        other comparisons are in training; the labels of the last are these comparisons.
    path : str
        Of a folder or file, relative to the folder of the data.
    columns, labels : dict
        Kind "file": names of columns and meanings of labels, as in `read_preferences`.
    format, encoding : str
        Kind "file": its layout or kind, and the encoding of its text, where they are not found by themselves.
    annotators : str
        Kind "file": columns with the labels of one annotator each, separated by commas.
    loader, loader_settings : str, dict
        Kind "hub": name of the loader without ``load_``, and its arguments (`source` among them). Without a source, a
        copy in the folder of the data that is named after the loader is read before the hub is asked.
    revision : str
        Kind "hub": commit, tag or branch of the set on the hub.
    stand_in : int
        Kind "hub": so many made-up records of `micropref.datasets.stand_ins` in place of the set, to rehearse a suite;
        0: the set itself.
    encoder : str or dict
        Kinds "file" and "hub": whatever `micropref.embed.resolve_encoder` takes, a name or a table with ``kind``,
        ``model`` and arguments. The vectors of all but "hashing" are computed once and kept in an `EmbeddingStore`.
    template : str
        Text that stands for a response; ``{prompt}`` and ``{response}`` are filled in. By default the response, and for
        encoders that read chats, the exchange of prompt and response.
    store : str
        Folder of the vectors, relative to the folder of the data, with a store for each encoder. By default the one
        that `run_suite` is given.
    response_scale, prompt_scale, context_scale : float
        Factors of the vectors of responses, and of prompts and contexts among the context columns; 0 omits them.
    difference_norm, context_norm : float
        Root mean square norm over the training rows to which differences and contexts are then scaled, as by
        `PairScaler`; 0: not scaled.
    log_length : bool
        Whether the log of a response's number of characters is a feature.
    unit : str
        Column whose values are split between training and test: "prompt" or an extra column.
    target : str
        Column that names the context of a row: "context" or an extra column. Protocol "contexts".
    targets : tuple of str
        Protocol "contexts", kinds "file" and "hub": only rows of these targets are kept; none: all. Published sets have
        long tails of rare ones.
    n_units : int
        Kinds "file" and "hub": only so many units, drawn once; 0: all. A row has two vectors and a difference in
        memory, and the largest sets have a million rows.
    split : {"random", "given", "folds"}
        "given": the publisher's own test part is the test part. "folds": one seed after the other tests another part,
        so that every unit is tested once by 1 / `test_units` seeds.
    test_units : float
        Number of units in the test part (1 or more), or their share.
    pairs_per_annotator : int
        Protocol "contexts": rows of each synthetic annotator, all in one context. 0: the users of the data are
        the annotators, if there are any.
    min_votes : int
        Protocol "users": only users with at least this many votes can be new.
    new_users : float
        Protocol "users": the share of these users that is new.
    n_users : int
        Protocols of users: only this many users, others for each seed; 0: all.
    test_rows : int
        Protocol "users": this many rows of each new user are the test, whatever their unit, and all rows of other users
        are in training; 0: split by units.
    budgets : tuple of int
        Labels per context or user, if others than the suite's.
    methods : tuple of str
        Names of methods of the suite, with ``*`` for anything, that are run on this data set; none: all.
    n_draws : int
        Draws of the labels for each seed; 0: as many as the suite has. Few contexts need several draws: a result that
        rests on one or two labels for each context varies with the labels drawn.
    ratings : tuple of str
        Kind "hub": sets whose ratings of single responses are read, of "helpsteer2" and "ultrafeedback", for methods
        that need them; attributes of several sets stand side by side.
    taught_by : str
        Protocol "contexts": another data set of the suite, whose rows are the training, while labels and tests are
        rows of this one. Both need vectors of the same width.
    teacher : DatasetSpec, or None
        That data set; no key.
    world, n_samples, pairs_per_group, world_seed : str, int, int, int
        Name of the world, its rows, rows of each annotator (0: as the world has), and the seed it is drawn with.
    parameters : dict
        Settings of all methods on this data set that have them (``alpha``, ``n_components``).
    """

    name: str
    kind: str
    protocol: str = "users"
    path: str = ""
    columns: Mapping[str, Any] = field(default_factory=dict)
    labels: Mapping[str, Any] = field(default_factory=dict)
    format: str = ""
    annotators: str = ""
    encoding: str = ""
    loader: str = ""
    loader_settings: Mapping[str, Any] = field(default_factory=dict)
    revision: str = ""
    stand_in: int = 0
    encoder: str | Mapping[str, Any] = "hashing"
    template: str = ""
    store: str = ""
    response_scale: float = 10.0
    prompt_scale: float = 2.0
    context_scale: float = 5.0
    difference_norm: float = 0.0
    context_norm: float = 0.0
    log_length: bool = False
    unit: str = "prompt"
    target: str = "context"
    targets: tuple[str, ...] = ()
    n_units: int = 0
    split: str = "random"
    test_units: float = 0.2
    pairs_per_annotator: int = 5
    min_votes: int = 2
    new_users: float = 0.5
    n_users: int = 0
    test_rows: int = 0
    budgets: tuple[int, ...] = ()
    methods: tuple[str, ...] = ()
    n_draws: int = 0
    ratings: tuple[str, ...] = ()
    taught_by: str = ""
    teacher: DatasetSpec | None = None
    world: str = ""
    n_samples: int = 4000
    pairs_per_group: int = 0
    world_seed: int = 0
    parameters: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class MethodSpec:
    """One row of the tables: a kind of method with its settings.

    Attributes
    ----------
    name, kind : str
    settings : dict
    n_draws : int
        Only the first `n_draws` draws of the labels are used, for a slow method; 0: all.
    """

    name: str
    kind: str
    settings: Mapping[str, Any]
    n_draws: int = 0


@dataclass(frozen=True, kw_only=True)
class Suite:
    """A suite of data sets, methods, budgets and seeds, for `run_suite`.

    Attributes
    ----------
    name : str
    seeds : tuple of int
    budgets : tuple of int
        Labels per context or new user, ascending.
    n_draws : int
        Draws of the labels for each seed; a larger budget of a draw contains the smaller ones.
    level : float
        Of the intervals.
    n_resamples : int
        Of the bootstrap.
    datasets : tuple of DatasetSpec
    methods : tuple of MethodSpec
    """

    name: str
    seeds: tuple[int, ...]
    budgets: tuple[int, ...]
    n_draws: int
    level: float
    n_resamples: int
    datasets: tuple[DatasetSpec, ...]
    methods: tuple[MethodSpec, ...]

    def budgets_of(self, dataset: DatasetSpec) -> tuple[int, ...]:
        """Labels per context or user on a data set.

        Parameters
        ----------
        dataset : DatasetSpec

        Returns
        -------
        budgets : tuple of int
        """
        return dataset.budgets or self.budgets


@dataclass(frozen=True)
class MethodKind:
    """A kind of method.

    Attributes
    ----------
    settings : dict of str to default
        Written out, so that a suite means the same when an estimator's default changes.
    information : frozenset of str
        What it uses beside the comparisons of training, with numbers for all settings.
    family : {"micro", "rival", "control", "ceiling"}
        Only methods of the first two families are compared.
    label : str
    has_own_size : bool
        Whether `n_components` is not a number of populations, so that a data set's own number does not apply.
    asks_annotators : frozenset of str
        Settings that "auto" chooses by the votes of annotators held out.
    """

    settings: Mapping[str, Any]
    information: frozenset[str]
    family: str
    label: str
    has_own_size: bool = False
    asks_annotators: frozenset[str] = frozenset()

    def information_with(self, settings: Mapping[str, Any]) -> frozenset[str]:
        """What it uses beside the comparisons of training, with these settings."""
        used = self.information
        if settings.get("prompts"):
            used -= {ANNOTATORS}
        if settings.get("training_contexts"):
            used = (used - {ANNOTATORS}) | {TRAINING_CONTEXTS, CONTEXTS}
        if settings.get("history") is True:
            used |= {TARGETS}
        if any(settings.get(name) == "auto" for name in self.asks_annotators):
            used |= {ANNOTATORS}
        return used


_LABELS_OF = {"labels": DRAWN}

_HEADS = {"n_components": 4, "alpha": "auto"}
# With `prompts`, the gate of the heads reads the prompt alone, as published.
_GATED = {**_HEADS, "training_contexts": False, "prompts": False}
_HISTORY = {**_GATED, "history_temperature": "auto", "permute": "", "labels": DRAWN}
_ROUTED = {**_GATED, "gate": "linear", "gate_alpha": "auto", "history": False, "history_temperature": "auto"}
_REWEIGHTED = {"temperature": 1.0, "average": "rewards"}
_DECOMPOSED = {"n_components": 20, "margin": math.sqrt(2), "prior": "population", **_REWEIGHTED}

# Settings that are a number, or "auto" where the estimator chooses.
_AUTOMATIC = {
    *("alpha", "gate_alpha", "user_alpha", "local_alpha", "variance_alpha", "score_alpha"),
    *("weight_penalty", "history_temperature"),
}
_SIZES = {"n_components", "rank"}

_NOTHING: frozenset[str] = frozenset()
_LABELS = frozenset({TARGETS})
_USERS = frozenset({ANNOTATORS, TARGETS})

KINDS: dict[str, MethodKind] = {
    "single": MethodKind({"alpha": "auto"}, _NOTHING, "rival", "one Bradley-Terry reward"),
    "static": MethodKind(_GATED, frozenset({ANNOTATORS}), "micro", "heads, no adaptation"),
    "best_head": MethodKind(_GATED, _USERS, "micro", "the best head of each context or user by its labels"),
    "micro_context": MethodKind(
        _ROUTED, frozenset({ANNOTATORS, CONTEXTS}), "micro", "MiCRo, labels train the gate of contexts"
    ),
    "micro_history": MethodKind(_HISTORY, _USERS, "micro", "MiCRo, labels are history"),
    "hierarchical": MethodKind(
        {"n_components": "auto", "rank": "auto", **_LABELS_OF},
        _USERS,
        "micro",
        "users around heads, labels are history",
        has_own_size=True,
    ),
    "hierarchical_permuted": MethodKind(
        {"n_components": "auto", "rank": "auto"},
        _USERS,
        "control",
        "users around heads, label owners permuted",
        has_own_size=True,
    ),
    "auto": MethodKind(
        {"n_components": "auto", **_LABELS_OF},
        _USERS,
        "micro",
        "one reward, heads or users around heads, by evidence",
        has_own_size=True,
    ),
    "micro_permuted": MethodKind(
        {**_HISTORY, "permute": "annotators"}, _USERS, "control", "MiCRo, annotators permuted"
    ),
    "interactions": MethodKind(
        {"n_components": 1, "alpha": "auto"},
        frozenset({TRAINING_CONTEXTS, CONTEXTS}),
        "micro",
        "contexts times responses, one reward",
        has_own_size=True,
    ),
    "interactions_permuted": MethodKind(
        {"n_components": 1, "alpha": "auto"},
        frozenset({TRAINING_CONTEXTS, CONTEXTS}),
        "control",
        "contexts times responses, test contexts permuted",
        has_own_size=True,
    ),
    "hyre": MethodKind(
        {"n_components": 100, "prior_margin": 3.0, **_REWEIGHTED, "alpha": "auto", **_LABELS_OF},
        _LABELS,
        "rival",
        "HyRe on a shared-base ensemble",
        has_own_size=True,
        asks_annotators=frozenset({"alpha"}),
    ),
    "hyre_micro": MethodKind({**_HEADS, **_REWEIGHTED, **_LABELS_OF}, _USERS, "rival", "HyRe on MiCRo heads"),
    "hyre_random": MethodKind(
        {"n_components": 100, **_REWEIGHTED}, _LABELS, "control", "HyRe on random heads", has_own_size=True
    ),
    "ensemble": MethodKind(
        {"n_components": 100, "prior_margin": 3.0, "alpha": "auto"},
        _NOTHING,
        "rival",
        "shared-base ensemble, uniform",
        has_own_size=True,
        asks_annotators=frozenset({"alpha"}),
    ),
    "ensemble_best": MethodKind(
        {"n_components": 100, "prior_margin": 3.0, "alpha": "auto"},
        _LABELS,
        "rival",
        "shared-base ensemble, the best head of each context or user by its labels",
        has_own_size=True,
        asks_annotators=frozenset({"alpha"}),
    ),
    "drm": MethodKind(_DECOMPOSED, _LABELS, "rival", "decomposed rewards (PCA)", has_own_size=True),
    "drm_random": MethodKind(_DECOMPOSED, _LABELS, "control", "decomposed rewards, random basis", has_own_size=True),
    "lore": MethodKind(
        {"n_components": 4, "alpha": "auto", "weight_penalty": "auto", "n_init": 1, **_LABELS_OF},
        _USERS,
        "rival",
        "low-rank rewards (LoRe)",
    ),
    "reward_factorization": MethodKind(
        {
            "n_components": 6,
            "init": "auto",
            "refine": "auto",
            "user_prior": "population",
            "alpha": "auto",
            **_LABELS_OF,
        },
        _USERS,
        "rival",
        "reward factorization (PReF)",
        has_own_size=True,
    ),
    "hard_em": MethodKind({**_HEADS, "n_init": 4}, _USERS, "rival", "hard EM (MaxMin)"),
    "user_rewards": MethodKind(
        {"user_alpha": "auto", "alpha": "auto", **_LABELS_OF}, _USERS, "rival", "user rewards with shrinkage"
    ),
    "mean_variance": MethodKind(
        {"rank": 0, "alpha": "auto", "variance_alpha": "auto"}, _LABELS, "rival", "mean-variance rewards (DPL)"
    ),
    "categorical": MethodKind(
        {"n_atoms": 4, "alpha": "auto", "user_alpha": "auto"},
        _LABELS,
        "rival",
        "categorical rewards (DPL)",
        asks_annotators=frozenset({"user_alpha"}),
    ),
    "multi_objective": MethodKind(
        {"score_alpha": "auto", "gate_alpha": "auto", "user_precision": 1.0},
        frozenset({TRAINING_CONTEXTS, CONTEXTS, TARGETS, RATINGS}),
        "rival",
        "heads of rated attributes behind a gate of the context (ArmoRM)",
    ),
    "neighbors": MethodKind(
        {"n_neighbors": 50, "local_alpha": "auto", "alpha": "auto"},
        frozenset({TRAINING_CONTEXTS, CONTEXTS, TARGETS}),
        "rival",
        "nearest neighbours in context",
    ),
    "oracle": MethodKind({"alpha": "auto"}, frozenset({TRUTH}), "ceiling", "one reward per true group"),
    "planted": MethodKind({}, frozenset({TRUTH}), "ceiling", "the planted weights of every user"),
}


def resolve_settings(kind: str, own: Mapping[str, Any], common: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a method on a data set: its own, then those of the data set, then the defaults of its kind."""
    known = KINDS[kind].settings
    shared = {key for key in known if key != "n_components" or not KINDS[kind].has_own_size}
    return {**known, **{key: value for key, value in common.items() if key in shared}, **own}


def check_settings(kind: str, settings: Mapping[str, Any]) -> None:
    """A ValueError for a setting that the kind does not have, or that is of another type."""
    known = KINDS[kind].settings
    for key, value in settings.items():
        if key not in known:
            names = ", ".join(sorted(known)) or "none"
            raise ValueError(f"{key}: expected a setting of the kind {kind!r} ({names}), got {key!r}")
        if key == "labels":
            rules = (DRAWN, ASKED, EPIG) if KINDS[kind].family == "micro" else (DRAWN, ASKED)
            if value not in rules:
                raise ValueError(f"labels: expected one of {', '.join(map(repr, rules))}, got {value!r}")
        if value == "auto" and (key in _AUTOMATIC or known[key] == "auto"):
            continue
        kinds: Any = type(known[key])
        if key in _AUTOMATIC or isinstance(known[key], float):
            kinds = (int, float)
        elif key in _SIZES:
            kinds = int
        if not isinstance(value, kinds) or isinstance(value, bool) != isinstance(known[key], bool):
            raise ValueError(f"{key}: expected a value like {known[key]!r}, got {value!r}")


def check_common_settings(common: Mapping[str, Any]) -> None:
    """A ValueError for a setting that no kind has."""
    for key in common:
        if not any(key in kind.settings for kind in KINDS.values()):
            raise ValueError(f"{key}: expected a setting that a kind of method has, got {key!r}")
