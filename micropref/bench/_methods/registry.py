"""The function that runs each kind of method; the only module that knows all of them."""

from __future__ import annotations

from functools import partial

from micropref.baselines.categorical import CategoricalRewards
from micropref.baselines.decomposed import DecomposedRewards
from micropref.baselines.hard_mixture import HardMixture
from micropref.baselines.low_rank import LowRankRewards
from micropref.baselines.mean_variance import MeanVarianceRewards
from micropref.baselines.neighbors import ContextNeighbors
from micropref.baselines.reward_factorization import RewardFactorization
from micropref.baselines.user_rewards import UserRewards
from micropref.bench._methods.ensemble import fit_ensemble, run_ensemble
from micropref.bench._methods.hierarchical import run_auto, run_hierarchical, run_hierarchical_permuted
from micropref.bench._methods.hyre import run_hyre
from micropref.bench._methods.interactions import run_interactions, run_interactions_permuted
from micropref.bench._methods.mixture import fit_mixture, run_best_head, run_single, run_static
from micropref.bench._methods.oracle import run_oracle, run_planted
from micropref.bench._methods.rated import run_multi_objective
from micropref.bench._methods.rivals import run_rival
from micropref.bench._methods.router import run_context, run_history
from micropref.bench._methods.steps import Run

# What a result depends on is read from these entries: the modules of a function and of the functions and classes that
# are bound to it, and the values that are bound to it.
RUNNERS: dict[str, Run] = {
    "single": run_single,
    "static": run_static,
    "best_head": partial(run_best_head, fit_mixture),
    "micro_context": run_context,
    "micro_history": run_history,
    "hierarchical": run_hierarchical,
    "hierarchical_permuted": run_hierarchical_permuted,
    "auto": run_auto,
    "micro_permuted": run_history,
    "interactions": run_interactions,
    "interactions_permuted": run_interactions_permuted,
    "hyre": partial(run_hyre, fit_ensemble),
    "hyre_micro": partial(run_hyre, fit_mixture),
    "hyre_random": partial(run_hyre, None),
    "ensemble": run_ensemble,
    "ensemble_best": partial(run_best_head, fit_ensemble),
    "drm": partial(run_rival, DecomposedRewards),
    "drm_random": partial(run_rival, DecomposedRewards, basis="random"),
    "lore": partial(run_rival, LowRankRewards),
    "reward_factorization": partial(run_rival, RewardFactorization),
    "hard_em": partial(run_rival, HardMixture),
    "user_rewards": partial(run_rival, UserRewards),
    "mean_variance": partial(run_rival, MeanVarianceRewards),
    "categorical": partial(run_rival, CategoricalRewards),
    "multi_objective": run_multi_objective,
    "neighbors": partial(run_rival, ContextNeighbors, contexts=True),
    "oracle": run_oracle,
    "planted": run_planted,
}
