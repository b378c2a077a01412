"""What fits come to on small fixed data, as numbers: an objective or its minimum that moves is seen here.

Every setting that matters is written out, so that new defaults change nothing. Objectives are also computed again from
the fitted parameters by the equations of the class docstrings, in plain NumPy: a pinned number cannot be a mistake of
the code that it is to guard.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from baseline_cases import Rated
from sklearn.base import clone

import micropref.baselines
from micropref import ContextRouter, MixtureBradleyTerry
from micropref.baselines import (
    CategoricalRewards,
    ContextNeighbors,
    DecomposedRewards,
    GroupRewards,
    HardMixture,
    HypothesisReweighting,
    LowRankRewards,
    MeanVarianceRewards,
    RewardFactorization,
    SharedBaseEnsemble,
    UserRewards,
)

N, TRAIN, C, D, K = 900, 600, 3, 5, 3


def world() -> dict[str, np.ndarray]:
    """Three tastes in three contexts, six answers by every annotator, weights between 0.2 and 2."""
    rng = np.random.default_rng(102)
    tastes = 2.0 * rng.normal(size=(K, D))
    context, difference = rng.normal(size=(N, C)), rng.normal(size=(N, D))
    annotator = np.arange(N) // 6
    taste = np.repeat((2.0 * context[::6] + rng.gumbel(size=(N // 6, C))).argmax(axis=1), 6)
    noise = rng.logistic(size=N)
    return {
        "context": context,
        "difference": difference,
        "X": np.hstack([context, difference]),
        "y": ((difference * tastes[taste]).sum(axis=1) + noise > 0).astype(int),
        "annotator": annotator,
        "weight": rng.uniform(0.2, 2.0, size=N),
    }


WORLD = world()
FIRST = {name: column[:TRAIN] for name, column in WORLD.items()}
REST = {name: column[TRAIN:] for name, column in WORLD.items()}


def test_the_world_varies():
    assert 0.3 < WORLD["y"].mean() < 0.7
    assert all(len(np.unique(WORLD[name])) > N // 10 for name in ("difference", "context", "weight", "annotator"))


# ----------------------------------------------------------------------------------------------- equations, plain NumPy


def log_sum_exp(values: np.ndarray) -> np.ndarray:
    return np.logaddexp.reduce(values, axis=1, keepdims=True)


def log_gate(parameters: list[np.ndarray], context: np.ndarray) -> np.ndarray:
    """Logits (n, K) of a static, a linear or an "mlp" gate."""
    if len(parameters) == 4:
        into, into_bias, out, out_bias = parameters
        return np.maximum(context @ into.T + into_bias, 0.0) @ out.T + out_bias
    *weights, offsets = parameters
    return context @ weights[0].T + offsets if weights else np.tile(offsets, (len(context), 1))


def squares(arrays: list[np.ndarray]) -> float:
    """Sum of squares of weight matrices; offsets are vectors and free."""
    return sum(float((array**2).sum()) for array in arrays if array.ndim == 2)


def mixture_objective(
    model: MixtureBradleyTerry,
    rows: dict[str, np.ndarray],
    *,
    alpha: float,
    gate_alpha: float,
    balance: float = 0.0,
    weighted: bool = False,
    grouped: bool = False,
) -> float:
    """J of `MixtureBradleyTerry`, unit by unit."""
    X = rows["X"][:, C - model.n_context_features :].astype(float)
    context, difference = X[:, : model.n_context_features], X[:, model.n_context_features :]
    weight = rows["weight"] if weighted else np.ones(len(X))
    margins = np.where(rows["y"] == 1, 1.0, -1.0)[:, None] * (difference @ model.coef_.T)
    evidence = -np.logaddexp(0.0, -margins)
    outer = mass = weight
    if grouped:
        members = [rows["annotator"] == one for one in np.unique(rows["annotator"])]
        evidence = np.array([weight[mine] @ evidence[mine] for mine in members])
        context = np.array([np.average(context[mine], axis=0, weights=weight[mine]) for mine in members])
        outer, mass = np.ones(len(members)), np.array([weight[mine].sum() for mine in members])
    logits = log_gate(model.gate_parameters_, context) if model.gate_parameters_ else np.zeros((len(context), 1))
    log_weights = logits - log_sum_exp(logits)
    likelihood = log_sum_exp(log_weights + evidence)[:, 0]
    entropy = (np.exp(log_weights) * log_weights).sum(axis=1)
    loss = (-outer @ likelihood + balance * (mass @ entropy)) / weight.sum()
    return float(loss + 0.5 * alpha * (model.coef_**2).sum() + 0.5 * gate_alpha * squares(model.gate_parameters_))


def router_objective(router: ContextRouter, heads: MixtureBradleyTerry, *, temperature: float, alpha: float) -> float:
    """J_τ of `ContextRouter` over static heads, on the first hundred rows."""
    rows = {name: column[:100] for name, column in FIRST.items()}
    margins = np.where(rows["y"] == 1, 1.0, -1.0)[:, None] * (rows["difference"] @ heads.coef_.T)
    logits = np.log(heads.weights_) + log_gate(router.gate_parameters_, rows["context"])
    joint = logits - log_sum_exp(logits) - np.logaddexp(0.0, -margins) / temperature
    return float(-log_sum_exp(joint).mean() + 0.5 * alpha * squares(router.gate_parameters_))


# ------------------------------------------------------------------------------------------------------------ mixtures

SOLVER = {"max_iter": 2000, "tol": 1e-8, "warm_start": False, "device": None, "verbose": 0}
STATIC: dict[str, Any] = {
    "n_context_features": 0,
    "alpha": 2e-3,
    "gate_alpha": 5e-3,
    "balance": 0.0,
    "gate": "linear",
    "hidden_units": 4,
    "n_init": 4,
    "random_state": 0,
    **SOLVER,
}
MLP = {"n_components": K, "n_context_features": C, "gate": "mlp", "alpha": 1e-3, "gate_alpha": 5e-3, "tol": 1e-7}

# Name: parameters other than STATIC's, whether weights and groups are given, J.
MIXTURES: dict[str, tuple[dict[str, Any], bool, bool, float]] = {
    "one head": ({"n_components": 1}, False, False, 0.574688793),
    "one head, weights": ({"n_components": 1}, True, False, 0.581289580),
    "static": ({"n_components": K}, False, False, 0.557762241),
    "static, groups": ({"n_components": K}, False, True, 0.424452018),
    "static, groups, weights": ({"n_components": K}, True, True, 0.415126997),
    "static, groups, balance": ({"n_components": K, "balance": 0.3}, False, True, 0.096409094),
    "linear gate": ({"n_components": K, "n_context_features": C, "gate_alpha": 1e-3}, False, False, 0.546384837),
    "linear gate, weights": ({"n_components": K, "n_context_features": C}, True, False, 0.546672073),
    "linear gate, groups": ({"n_components": K, "n_context_features": C}, False, True, 0.412977910),
    "linear gate, weights, balance": (
        {"n_components": K, "n_context_features": C, "balance": 0.5},
        True,
        False,
        0.016111337,
    ),
    "linear gate, groups, weights, balance": (
        {"n_components": K, "n_context_features": C, "balance": 0.1},
        True,
        True,
        0.298234924,
    ),
    "mlp gate": (MLP, False, False, 0.541504346),
    "mlp gate, groups": (MLP, False, True, 0.392787303),
}


def fit_mixture(parameters: dict[str, Any], weighted: bool, grouped: bool, dtype: type = np.float64):
    model = MixtureBradleyTerry(**{**STATIC, **parameters})
    X = FIRST["X"][:, C - model.n_context_features :].astype(dtype)
    weight, groups = FIRST["weight"] if weighted else None, FIRST["annotator"] if grouped else None
    return model.fit(X, FIRST["y"], sample_weight=weight, groups=groups)


def penalties(parameters: dict[str, Any]) -> dict[str, float]:
    settings = {**STATIC, **parameters}
    return {name: settings[name] for name in ("alpha", "gate_alpha", "balance")}


@pytest.mark.parametrize("name", MIXTURES)
def test_a_mixture_ends_at_the_pinned_objective(name):
    parameters, weighted, grouped, pinned = MIXTURES[name]
    model = fit_mixture(parameters, weighted, grouped)
    again = mixture_objective(model, FIRST, **penalties(parameters), weighted=weighted, grouped=grouped)
    assert model.objective_ == pytest.approx(again, abs=1e-9)
    assert model.objective_ == pytest.approx(pinned, abs=1e-6)


@pytest.mark.parametrize("name", ["one head", "static, groups", "linear gate", "linear gate, groups"])
def test_single_precision_ends_at_the_same_objective(name):
    parameters, weighted, grouped, pinned = MIXTURES[name]
    model = fit_mixture({**parameters, "tol": 1e-6}, weighted, grouped, np.float32)
    assert model.objective_ == pytest.approx(pinned, abs=1e-6)
    single = {**FIRST, "X": FIRST["X"].astype(np.float32)}
    again = mixture_objective(model, single, **penalties(parameters), weighted=weighted, grouped=grouped)
    assert model.objective_ == pytest.approx(again, abs=1e-6)


def test_the_log_likelihood_is_the_objective_without_penalties():
    model = fit_mixture({"n_components": K, "n_context_features": C}, False, True)
    for grouped in (False, True):
        again = -mixture_objective(model, REST, alpha=0.0, gate_alpha=0.0, grouped=grouped)
        groups = REST["annotator"] if grouped else None
        assert model.log_likelihood(REST["X"], REST["y"], groups=groups) == pytest.approx(again, abs=1e-9)


# ------------------------------------------------------------------------------------------------------------- routers

ROUTER: dict[str, Any] = {
    "n_context_features": C,
    "history_temperature": 1.0,
    "history_decay": 1.0,
    "hidden_units": 4,
    "n_iter": 400,
    "alpha": 1e-2,
    "n_neighbors": None,
    "prefit": True,
    "device": None,
    "random_state": 0,
}
# (gate, solver, τ): J_τ.
ROUTERS = {
    ("linear", "direct", 1.0): 0.501370063,
    ("linear", "direct", 0.1): 1.934876419,
    ("linear", "hedge", 1.0): 0.501370064,
    ("linear", "hedge", 0.1): 1.934876419,
    ("mlp", "direct", 1.0): 0.478427399,
    ("mlp", "direct", 0.1): 1.910690783,
}


@pytest.fixture(scope="module")
def heads() -> MixtureBradleyTerry:
    return fit_mixture({"n_components": K}, False, True)


@pytest.mark.parametrize(("gate", "solver", "temperature"), ROUTERS)
def test_a_router_ends_at_the_pinned_objective(heads, gate, solver, temperature):
    router = ContextRouter(heads, **{**ROUTER, "gate": gate, "solver": solver, "temperature": temperature})
    router.fit(FIRST["X"][:100], FIRST["y"][:100])
    again = router_objective(router, heads, temperature=temperature, alpha=1e-2)
    assert router.objective_ == pytest.approx(again, abs=1e-9)
    assert router.objective_ == pytest.approx(ROUTERS[gate, solver, temperature], abs=1e-6)


# -------------------------------------------------------------------------------------------------------------- rivals

RIVAL_SOLVER = {"max_iter": 1000, "tol": 1e-8}
# An estimator; its J, or None; its log-likelihood on held-out rows without a user, and for new annotators after three
# votes each on other held-out rows.
RIVALS: dict[str, tuple[Any, float | None, float, float]] = {
    "categorical": (
        CategoricalRewards(4, n_context_features=C, largest=6.0, alpha=1e-2, user_alpha=1.0, **RIVAL_SOLVER),
        0.586019490,
        -0.575259409,
        -0.608586955,
    ),
    "multi-objective": (
        Rated(n_context_features=C, score_alpha=1e-2, gate_alpha=1e-2, **RIVAL_SOLVER),
        0.554662220,
        -0.605650963,
        -0.603137422,
    ),
    "neighbours": (
        ContextNeighbors(30, n_context_features=C, local_alpha=5.0, alpha=1e-2, **RIVAL_SOLVER),
        None,
        -0.584269986,
        -0.556758549,
    ),
    "decomposed": (
        DecomposedRewards(
            3,
            n_context_features=C,
            basis="pca",
            center=True,
            margin=1.5,
            temperature=1.0,
            prior="population",
            average="rewards",
            random_state=0,
        ),
        None,
        -0.688400617,
        -0.641579642,
    ),
    "groups": (GroupRewards(1e-2, n_context_features=C, pooling=2.0, **RIVAL_SOLVER), None, -0.580972435, -0.533599658),
    "hard mixture": (
        HardMixture(K, n_context_features=C, alpha=1e-2, max_iter=100, tol=1e-8, n_init=4, random_state=0),
        0.356293609,
        -1.003100801,
        -0.533485846,
    ),
    "reweighting": (
        HypothesisReweighting(
            "random",
            n_components=16,
            n_context_features=C,
            temperature=1.0,
            prior="uniform",
            average="probabilities",
            prefit=True,
            random_state=0,
        ),
        None,
        -0.684995166,
        -0.636375221,
    ),
    "low rank": (
        LowRankRewards(
            K, n_context_features=C, alpha=1e-2, weight_penalty=2.0, n_init=4, random_state=0, **RIVAL_SOLVER
        ),
        0.459092865,
        -0.593830820,
        -0.483435374,
    ),
    "mean and variance": (
        MeanVarianceRewards(0, n_context_features=C, alpha=1e-2, variance_alpha=1e-3, random_state=0, **RIVAL_SOLVER),
        0.581651165,
        -0.566574946,
        -0.519875900,
    ),
    "mean and variance, rank 1": (
        MeanVarianceRewards(1, n_context_features=C, alpha=1e-2, variance_alpha=1e-3, random_state=0, **RIVAL_SOLVER),
        0.574943298,
        -0.568536086,
        -0.479465940,
    ),
    "factors": (
        RewardFactorization(3, n_context_features=C, init="votes", refine=True, alpha=1e-2, max_iter=5000, tol=1e-9),
        None,
        -0.621789040,
        -0.508841269,
    ),
    "factors as they start": (
        RewardFactorization(
            3, n_context_features=C, init="votes", refine=False, user_prior="none", alpha=1e-2, tol=1e-9
        ),
        None,
        -0.617609273,
        -0.907231592,
    ),
    "shared base": (
        SharedBaseEnsemble(
            8,
            n_context_features=C,
            alpha=1e-2,
            prior_margin=1.0,
            temperature=1.0,
            average="rewards",
            random_state=0,
            **RIVAL_SOLVER,
        ),
        0.591299745,
        -0.579937302,
        -0.579882292,
    ),
    "users": (
        UserRewards(2.0, n_context_features=C, alpha=1e-2, **RIVAL_SOLVER),
        0.418026470,
        -0.585889271,
        -0.539572046,
    ),
}


@pytest.mark.parametrize("name", RIVALS)
def test_a_rival_predicts_as_pinned(name):
    unfitted, objective, without_user, of_users = RIVALS[name]
    rival = clone(unfitted)
    rival.fit(FIRST["X"], FIRST["y"], sample_weight=FIRST["weight"], groups=FIRST["annotator"])
    assert (objective is None) == (not hasattr(rival, "objective_"))
    if objective is not None:
        assert rival.objective_ == pytest.approx(objective, abs=1e-6)
    early = np.arange(N - TRAIN) % 6 < 3
    votes, asked = ({name: column[rows] for name, column in REST.items()} for rows in (early, ~early))
    assert rival.log_likelihood(asked["X"], asked["y"]) == pytest.approx(without_user, abs=1e-6)
    rival.partial_fit(votes["X"], votes["y"], groups=votes["annotator"])
    found = rival.log_likelihood(asked["X"], asked["y"], groups=asked["annotator"])
    assert found == pytest.approx(of_users, abs=1e-6)


def test_every_rival_is_pinned():
    assert {type(rival).__name__ for rival, *_ in RIVALS.values()} >= set(micropref.baselines.__all__)
