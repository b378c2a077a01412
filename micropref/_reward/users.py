"""The first stage of a model of texts: one reward, heads, or users around heads, whichever predicts people held out."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone

from micropref._components import fit_components
from micropref._estimator.parameters import AUTO
from micropref._rows.groups import check_groups
from micropref.hierarchical import HierarchicalBradleyTerry
from micropref.mixture import MixtureBradleyTerry

__all__ = ["USERS", "UserChoice", "check_users", "fit_first_stage"]

#: Names of the first stages, the simplest first.
USERS = ("one", "heads", "hierarchical")

_WORDS = {"one": "one reward", "heads": "heads", "hierarchical": "users around heads"}
# Of the hierarchical model, which the mixture that takes its place has too.
_SHARED = ("alpha", "gate_alpha", "gate", "hidden_units", "n_init", "random_state", "n_context_features")


@dataclass(frozen=True)
class UserChoice:
    """Which first stage was chosen, and why.

    Attributes
    ----------
    chosen : {"one", "heads", "hierarchical"}
    log_likelihood : dict of str to float
        Of the best candidate of each kind on people held out, in nats per comparison, all answers of a person together.
    gain : float
        How far the chosen kind is above one reward.
    reason : str
        The same in a sentence.
    """

    chosen: str
    log_likelihood: dict[str, float]
    gain: float
    reason: str

    def to_config(self) -> dict[str, Any]:
        """What JSON can hold."""
        return asdict(self)


def check_users(users: str, mixture: Any, n_processes: int) -> None:
    """A ValueError where `users` is no kind, or cannot be fitted like this."""
    if users not in (*USERS, AUTO):
        raise ValueError(f"users: expected one of {', '.join(map(repr, (*USERS, AUTO)))}, got {users!r}")
    if mixture is not None and users != "heads":
        raise ValueError(f"users: expected the default together with mixture=, got {users!r}")
    if n_processes > 1 and users in ("hierarchical", AUTO):
        raise ValueError(f"users: expected 'heads' or 'one' in a fit on several processes, got {users!r}")


def fit_first_stage(
    users: str,
    mixture: Any,
    parameters: dict[str, Any],
    n_context_features: int,
    data: tuple[NDArray[Any], Any, Any],
) -> tuple[Any, UserChoice | None]:
    """The fitted first stage, and why it was chosen where it was.

    Parameters
    ----------
    users : {"one", "heads", "hierarchical", "auto"}
    mixture : estimator or None
        Unfitted, instead of `users`.
    parameters : dict
        Parameters of the estimator.
    n_context_features : int
    data : tuple
        X with the preferred response first, weights or None, annotators or None.
    """
    X, weight, groups = data
    if users == AUTO:
        return _chosen({**parameters, "n_context_features": n_context_features}, data)
    if mixture is None:
        stage = _first_stage(users, parameters, n_context_features)
    else:
        stage = clone(mixture).set_params(**parameters, n_context_features=n_context_features)
    if mixture is None and users == "heads" and parameters.get("n_components", AUTO) == AUTO:
        return fit_components(stage, X, groups, weight, AUTO), None
    return stage.fit(X, sample_weight=weight, groups=groups), None


def _first_stage(kind: str, parameters: dict[str, Any], n_context_features: int) -> Any:
    """The unfitted first stage of this kind."""
    if kind == "hierarchical":
        return HierarchicalBradleyTerry(**parameters, n_context_features=n_context_features)
    if kind == "one":
        parameters = {**parameters, "n_components": 1}
    if kind == "heads" and parameters.get("n_components") == AUTO:
        parameters = {name: value for name, value in parameters.items() if name != "n_components"}
    return MixtureBradleyTerry(**parameters, n_context_features=n_context_features)


def _chosen(parameters: dict[str, Any], data: tuple[NDArray[Any], Any, Any]) -> tuple[Any, UserChoice]:
    """The first stage that predicts people held out best.

    One reward, heads, and users around heads are what a `HierarchicalBradleyTerry` chooses from, by the evidence of
    people held out: the simplest unless another is better by more than the standard error. None is chosen that serves
    users without votes worse than one reward does, and of those that are level the one that serves them best. Without
    scatter it is a mixture, which then is fitted as one. The centre of all heads is where one reward is, see
    `micropref._engine.new_users`, and users who have not voted are answered by that reward, `new_user_coef_`.

    Where no annotator answers twice, nothing is chosen: rows held out may share prompts with those that teach, and say
    little of people.
    """
    X, weight, groups = data
    unknown = set(parameters) - set(HierarchicalBradleyTerry().get_params(deep=False))
    if unknown:
        raise TypeError(f"expected parameters of the HierarchicalBradleyTerry, got {', '.join(sorted(unknown))}")
    shared = {name: parameters[name] for name in _SHARED if name in parameters}
    n_context_features = parameters["n_context_features"]
    if not _answers_repeat(groups, len(X)):
        k = parameters.get("n_components", AUTO)
        heads = MixtureBradleyTerry(1 if k == AUTO else k, **shared)
        return heads.fit(X, sample_weight=weight, groups=groups), _without_choice(len(heads.coef_))
    found = HierarchicalBradleyTerry(**parameters)
    found._NEW_USERS_FIRST = True
    found.fit(X, sample_weight=weight, groups=groups)
    choice = _choice(found)
    if choice.chosen == "hierarchical":
        return found, choice
    heads = MixtureBradleyTerry(found.n_components_, **{**shared, "alpha": found.alpha_})
    heads.fit(X, sample_weight=weight, groups=groups)
    if choice.chosen == "heads" and not n_context_features:
        # Users who have not voted are answered by one reward, and others from around it, as `found` does.
        heads.new_user_coef_ = found.new_user_coef_
        heads.coef_ += found.weights_ @ found.coef_ - heads.weights_ @ heads.coef_
    return heads, choice


def _answers_repeat(groups: Any, n_samples: int) -> bool:
    """Whether any annotator answered twice."""
    known = check_groups(groups, n_samples)
    return known is not None and bool(np.bincount(known.index[known.index >= 0], minlength=1).max() > 1)


def _without_choice(n_components: int) -> UserChoice:
    """Heads where nothing tells users apart."""
    chosen = _kind(n_components, scatter=False)
    return UserChoice(chosen, {}, 0.0, f"{_words(chosen, n_components)}, since no annotator answers twice")


def _choice(found: HierarchicalBradleyTerry) -> UserChoice:
    """What was chosen, from what was tried."""
    chosen = _kind(found.n_components_, found.scatter_ is not None)
    nats: dict[str, float] = {}
    for one in found.selection_:
        kind = _kind(one["n_components"], one["scatter"])
        nats[kind] = max(nats.get(kind, -np.inf), one["nats_per_row"])
    nats = {kind: nats[kind] for kind in USERS if kind in nats}
    gain = nats[chosen] - nats["one"] if {chosen, "one"} <= set(nats) else 0.0
    return UserChoice(chosen, nats, gain, _reason(chosen, nats, found))


def _kind(n_components: int, scatter: bool) -> str:
    return "hierarchical" if scatter else "heads" if n_components > 1 else "one"


def _words(kind: str, n_components: int) -> str:
    return f"{_WORDS[kind]} ({n_components} of them)" if kind == "heads" else _WORDS[kind]


def _reason(chosen: str, nats: dict[str, float], found: HierarchicalBradleyTerry) -> str:
    scores = ", ".join(f"{_WORDS[kind]} {value:.4f}" for kind, value in nats.items())
    text = _words(chosen, found.n_components_)
    if scores:
        text += f", since nats per comparison of held-out annotators are {scores}"
    best = max(nats, key=lambda kind: nats[kind], default=chosen)
    if best == chosen:
        return text
    top = max(found.selection_, key=lambda one: float(one["nats_per_row"]))
    if top["fails_new_users"]:
        return text + f"; {_WORDS[best]} are worse for users who have not voted"
    return text + f"; {_WORDS[best]} are not better by more than the standard error"
