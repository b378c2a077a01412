"""The first stage of a model of texts: one reward, heads, or users around heads, whichever predicts people held out."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.utils import check_random_state

from micropref._components import fit_components
from micropref._estimator.parameters import AUTO
from micropref._rows.groups import Groups, check_groups
from micropref._rows.units import number_units
from micropref.hierarchical import HierarchicalBradleyTerry
from micropref.mixture import MixtureBradleyTerry

__all__ = ["USERS", "UserChoice", "check_users", "fit_first_stage"]

#: Names of the first stages, the simplest first.
USERS = ("one", "heads", "hierarchical")

_N_FOLDS = 3
# Parts into which the people held out are cut, for the standard error of a difference.
_N_PARTS = 20
# With fewer, nothing can be said of people held out.
_LEAST_PEOPLE = 20


@dataclass(frozen=True)
class UserChoice:
    """Which first stage was chosen, and why.

    Attributes
    ----------
    chosen : {"one", "heads", "hierarchical"}
    log_likelihood : dict of str to float
        Of each candidate on people held out, in nats per comparison, all answers of a person together.
    gain : float
        How far the chosen one is above one reward.
    standard_error : float
        Of that gain, paired over people.
    n_people : int
        Annotators, and comparisons without one.
    reason : str
        The same in a sentence.
    """

    chosen: str
    log_likelihood: dict[str, float]
    gain: float
    standard_error: float
    n_people: int
    reason: str

    def to_config(self) -> dict[str, Any]:
        """What JSON can hold."""
        return asdict(self)


def check_users(users: str, mixture: Any, n_processes: int) -> None:
    """A ValueError where `users` is no kind, or cannot be fitted like this."""
    if users not in (*USERS, "auto"):
        raise ValueError(f"users: expected one of {', '.join(map(repr, (*USERS, 'auto')))}, got {users!r}")
    if mixture is not None and users != "heads":
        raise ValueError(f"users: expected the default beside a mixture of your own, got {users!r}")
    if n_processes > 1 and users in ("hierarchical", "auto"):
        raise ValueError(f"users: expected 'heads' or 'one' in a fit of several processes, got {users!r}")


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
    if users == "auto":
        known = None if weight is None else np.asarray(weight, dtype=np.float64)
        return _choose(parameters, n_context_features, X, known, groups)
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


def _choose(
    parameters: dict[str, Any],
    n_context_features: int,
    X: NDArray[Any],
    weight: NDArray[np.float64] | None,
    groups: Any,
) -> tuple[Any, UserChoice]:
    """The first stage that predicts people held out best, fitted to all rows.

    Every candidate is fitted three times, each time without a third of the people, whose answers it then has to
    predict, all answers of a person together. The simplest candidate that is within one standard error of the best is
    chosen; the error is that of the difference, paired over people.
    """
    known = check_groups(groups, len(X))
    person, n_people = number_units(known, len(X))
    kinds, why_not = _kinds_worth_trying(known, n_people, n_context_features)
    candidates = {kind: _first_stage(kind, _own(kind, parameters), n_context_features) for kind in kinds}
    if len(kinds) == 1:
        choice = UserChoice("one", {}, 0.0, 0.0, n_people, f"one reward, since {why_not}")
        return candidates["one"].fit(X, sample_weight=weight, groups=groups), choice
    if "heads" in kinds and parameters.get("n_components", AUTO) == AUTO:
        chosen = fit_components(clone(candidates["heads"]), X, groups, weight, AUTO)
        candidates["heads"].set_params(n_components=len(chosen.coef_))
    part = _parts(person, n_people, check_random_state(0))
    held_out = {kind: _held_out(each, X, weight, groups, part) for kind, each in candidates.items()}
    mass = np.bincount(part, weights=weight, minlength=_N_PARTS).astype(np.float64)
    choice = _choice(held_out, mass, n_people, why_not)
    return candidates[choice.chosen].fit(X, sample_weight=weight, groups=groups), choice


def _own(kind: str, parameters: dict[str, Any]) -> dict[str, Any]:
    """The parameters that the first stage of this kind has."""
    names = {kind: set(_first_stage(kind, {}, 0).get_params(deep=False)) for kind in USERS}
    unknown = set(parameters) - set().union(*names.values())
    if unknown:
        raise TypeError(f"expected parameters of the first stage, got {', '.join(sorted(unknown))}")
    return {name: value for name, value in parameters.items() if name in names[kind]}


def _kinds_worth_trying(groups: Groups | None, n_people: int, n_context_features: int) -> tuple[tuple[str, ...], str]:
    """Candidates, and why the others are none."""
    if n_people < _LEAST_PEOPLE:
        return ("one",), f"{n_people} people are too few to hold some out"
    repeated = groups is not None and np.bincount(groups.index[groups.index >= 0], minlength=1).max() > 1
    if repeated:
        return USERS, ""
    if n_context_features:
        return ("one", "heads"), "no annotator answers twice"
    return ("one",), "no annotator answers twice, which alone can tell people apart"


def _parts(person: NDArray[Any], n_people: int, random: np.random.RandomState) -> NDArray[np.intp]:
    """A part for every row, the same for all rows of a person, with about equally many people in each."""
    part = np.empty(n_people, dtype=np.intp)
    part[random.permutation(n_people)] = np.arange(n_people) % _N_PARTS
    return np.asarray(part[person])


def _held_out(
    candidate: Any, X: NDArray[Any], weight: NDArray[np.float64] | None, groups: Any, part: NDArray[np.intp]
) -> NDArray[np.float64]:
    """Log-likelihood of every part, in nats, under a fit to the folds of which it is no part."""
    found = np.zeros(_N_PARTS)
    who = None if groups is None else np.asarray(groups, dtype=object)

    def some(rows: NDArray[np.bool_]) -> dict[str, Any]:
        return {
            "X": X[rows],
            "sample_weight": None if weight is None else weight[rows],
            "groups": None if who is None else who[rows],
        }

    for fold in range(_N_FOLDS):
        model = clone(candidate).fit(**some(part % _N_FOLDS != fold))
        for each in range(fold, _N_PARTS, _N_FOLDS):
            rows = part == each
            mass = float(rows.sum() if weight is None else weight[rows].sum())
            if mass:
                found[each] = mass * model.log_likelihood(**some(rows))
    return found


def _choice(
    held_out: dict[str, NDArray[np.float64]], mass: NDArray[np.float64], n_people: int, why_not: str
) -> UserChoice:
    """The simplest candidate within one standard error of the best."""
    total = mass.sum()
    mean = {kind: float(parts.sum() / total) for kind, parts in held_out.items()}
    best = max(mean, key=lambda kind: mean[kind])

    def difference(kind: str, other: str) -> tuple[float, float]:
        """Mean difference per comparison, and its standard error as a ratio over the parts."""
        parts = held_out[kind] - held_out[other]
        gap = float(parts.sum() / total)
        n = len(parts)
        return gap, float(np.sqrt(((parts - gap * mass) ** 2).sum() * n / (n - 1)) / total)

    def is_close(kind: str) -> bool:
        gap, error = difference(best, kind)
        return gap <= error

    chosen = next(kind for kind in held_out if kind == best or is_close(kind))
    gain, error = difference(chosen, "one")
    return UserChoice(chosen, mean, gain, error, n_people, _reason(chosen, mean, (gain, error), n_people, why_not))


def _reason(chosen: str, mean: dict[str, float], gain: tuple[float, float], n_people: int, why_not: str) -> str:
    words = {"one": "one reward", "heads": "heads", "hierarchical": "users who scatter around heads"}
    scores = ", ".join(f"{words[kind]} {value:.4f}" for kind, value in mean.items())
    text = f"{words[chosen]}, by the log-likelihood in nats per comparison of {n_people} people held out: {scores}"
    if chosen == "one":
        text += "; nothing is better by more than its standard error"
    else:
        text += f"; better than one reward by {gain[0]:.4f} ± {gain[1]:.4f}"
    return text + (f" ({why_not})" if why_not else "")
