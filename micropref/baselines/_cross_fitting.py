"""What "auto" means for the penalties of users: the value under which some of a user's votes best tell the others.

The users who are asked have no part in what the method learned (cross-fitting): a penalty that was judged on the users
who taught it would trust votes too much, since what was learned follows them already.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from micropref._rows.comparisons import Comparisons
from micropref.baselines._base import PersonalRewards
from micropref.baselines._rowspace import deviations, row_basis
from micropref.baselines._voters import N_TRIALS, HeldOut
from micropref.baselines._votes import Votes
from micropref.kernels._pointwise import log_sigmoid
from micropref.kernels._threads import blas_threads

__all__ = ["adapted_losses", "most_cautious", "shrunk_losses"]


def most_cautious(losses: np.ndarray) -> int:
    """Position of the first value that is as good as the best, to within a standard error of the difference over users.

    Parameters
    ----------
    losses : ndarray of shape (n_values, n_users)
        Those under the most cautious value first.
    """
    above = losses - losses[int(np.argmin(losses.sum(axis=1)))]
    error = np.sqrt(losses.shape[1] * above.var(axis=1))
    return int(np.argmax(above.sum(axis=1) <= error))


def adapted_losses(
    model: PersonalRewards, name: str, values: Sequence[Any], rows: Comparisons, part: HeldOut
) -> np.ndarray:
    """Loss in nats (n_values, n_users) of held-out users' votes, with the parameter `name` of adaptation at each value.

    `model` has learned from `part.teachers`; it is left with the last value.
    """
    needed, position = np.unique(np.concatenate([np.concatenate(trial) for trial in part.trials]), return_inverse=True)
    some = rows.part(needed)
    votes = Votes(model._represent(some.context, some.difference), some.dense_signs, some.dense_weight)
    lengths = np.cumsum([len(one) for trial in part.trials for one in trial])[:-1]
    places = np.split(position, lengths)
    trials = [(votes.of(places[i]), votes.of(places[i + 1])) for i in range(0, len(places), 2)]
    losses = np.zeros((len(values), len(trials)))
    for i, value in enumerate(values):
        setattr(model, name, value)
        start = model._start()
        for j, (known, asked) in enumerate(trials):
            numbers = model._adapt(known, start)
            odds = model._log_odds(asked.values, np.broadcast_to(numbers, (len(asked), len(numbers))))
            losses[i, j] = -float(asked.weight @ log_sigmoid(asked.signs * odds))
    return _of_users(losses)


def shrunk_losses(common: np.ndarray, penalties: np.ndarray, rows: Comparisons, part: HeldOut) -> np.ndarray:
    """Loss in nats (n_penalties, n_users) of held-out users' votes under rewards N(common, I / penalty).

    All penalties λ of one user are one batch: with z' = √λ z every problem has the penalty 1.
    """
    losses, size = np.zeros((len(penalties), len(part.trials))), 1 / np.sqrt(penalties)
    signs, weight = rows.dense_signs, rows.dense_weight
    with blas_threads(False):
        for j, (known, asked) in enumerate(part.trials):
            D = np.asarray(rows.difference[known], dtype=np.float64)
            basis, root = row_basis(D[None])
            base = np.broadcast_to(D @ common, (len(size), len(known)))
            said, counts = (np.broadcast_to(each[known], base.shape) for each in (signs, weight))
            found = deviations(size[:, None, None] * root, base, said, counts, 1.0)
            E = np.asarray(rows.difference[asked], dtype=np.float64)
            margins = E @ common + (size[:, None] * found.variables) @ (E @ basis[0]).T
            losses[:, j] = -log_sigmoid(signs[asked] * margins) @ weight[asked]
    return _of_users(losses)


def _of_users(losses: np.ndarray) -> np.ndarray:
    """Sums (n_values, n_users) over the trials of every user."""
    total: np.ndarray = losses.reshape(len(losses), -1, N_TRIALS).sum(axis=2)
    return total
