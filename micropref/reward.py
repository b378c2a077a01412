"""Text in, numbers out: encoder, heads and router as one model that can be saved, asked for rewards, and evaluated."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, Self

import numpy as np
from sklearn.base import clone

from micropref._estimator.fitting import frozen, learning, twin
from micropref._estimator.gated_heads import GatedHeads
from micropref._reward.asking import AskingModel
from micropref._reward.choosing import ChoosingModel
from micropref._reward.forgetting import without_user
from micropref._reward.keeping import KeptModel
from micropref._reward.rewards import with_uncertainty
from micropref._reward.routing import (
    labelled_and_voted,
    owned,
    parts_read,
    set_parameters_for_votes,
    warn_of_unclaimed,
)
from micropref._reward.stated import with_stated_contexts
from micropref._reward.users import UserChoice, check_users, fit_first_stage
from micropref._support.renamed import moved
from micropref.datasets.readers import read_preferences
from micropref.datasets.table import PreferenceTable
from micropref.distributed import active_communicator
from micropref.embed import PairEncoder
from micropref.embed.protocol import Encoder
from micropref.features.interactions import ContextInteractions
from micropref.router import ContextRouter

__all__ = ["PreferenceModel"]

__getattr__ = moved(__name__)

# Entries of X up to which it is fitted in double precision (64 MB). In single, the order of the sums leads the solver
# to heads that differ by some 1e-3; in double, heads are the same however the rows are spread over processes. Beyond,
# a copy of X in double precision would be most of the memory that a fit needs.
_DOUBLE_ENTRIES = 1 << 23


class PreferenceModel(ChoosingModel, AskingModel, KeptModel):
    """Rewards of texts, for a context and a user.

    A model holds a `PairEncoder`, which turns texts into features; a `MixtureBradleyTerry` or
    `HierarchicalBradleyTerry`, whose heads are the rewards on which people disagree; and, after `route`, a
    `ContextRouter`, which chooses among the heads.

    The model copies the fitted state of all three: if you refit the objects that you passed, or change their
    parameters, the model does not change. The encoder of texts and its store are shared.

    Parameters
    ----------
    encoder : PairEncoder
        Fitted on the comparisons of the mixture.
    mixture : MixtureBradleyTerry or HierarchicalBradleyTerry
        Fitted.
    router : ContextRouter, optional
        Fitted on that mixture.

    Attributes
    ----------
    choice : UserChoice or None
        After ``fit(users="auto")``: the `chosen` first stage and the `reason`, with the `log_likelihood` of each
        candidate on held-out annotators.

    Examples
    --------
    >>> from micropref import PreferenceModel, load_demo
    >>> world = load_demo()
    >>> model = PreferenceModel.fit(world.train, random_state=0).route(world.labelled)
    >>> short = "Same bedtime every night. Phone out of the room."
    >>> long = (
    ...     "First, keep the same bedtime every night, since habit helps. "
    ...     "Then leave the phone in another room. Finally, read."
    ... )
    >>> wish = "Keep it short, please, just the essentials."
    >>> model.rank("How do I fall asleep?", [long, short], context=wish)
    array([1, 0])
    """

    def __init__(self, encoder: PairEncoder, mixture: GatedHeads, router: ContextRouter | None = None):
        self.encoder = owned(encoder)
        self.mixture: GatedHeads = frozen(mixture)
        self.choice: UserChoice | None = None
        self.router = None if router is None else router._forked()
        if self.router is not None and not np.array_equal(self.router.mixture_.coef_, self.mixture.coef_):
            raise ValueError("router: expected one that was fitted on this mixture, got one with other heads")

    # ------------------------------------------------------------------------------------------------------- learning

    @classmethod
    def fit(
        cls,
        data: Any,
        *,
        encoder: str | Encoder | PairEncoder = "hashing",
        prompt_gate: bool = False,
        interactions: bool | ContextInteractions | None = None,
        users: str = "heads",
        mixture: GatedHeads | None = None,
        n_components: int | str | None = None,
        **parameters: Any,
    ) -> Self:
        """Learn the heads from comparisons (stage 1).

        The heads are fitted in double precision, up to 2²³ entries of X. In a `micropref.distributed.distributed_fit`,
        each rank passes its own rows, and all ranks get the model of all rows.

        Parameters
        ----------
        data : table of comparisons
            Anything that `read_preferences` takes. Its groups name the annotators.
        encoder : str, Encoder or PairEncoder, default="hashing"
            Name of an encoder, an encoder, or an unfitted `PairEncoder` with other settings.
        prompt_gate : bool, default=False
            Let the weights of the heads depend on the prompt.
        interactions : bool or ContextInteractions, optional
            Let contexts act on the responses, as in `PairEncoder`. This is the default if the rows have contexts; a
            `UserWarning` then says so. False leaves contexts to `route`, and to the `clauses` of a `PairEncoder` that
            has them.
        users : {"heads", "one", "hierarchical", "auto"}, default="heads"
            Model of the annotators. "heads": each has one of K rewards (`MixtureBradleyTerry`). "one": all share one
            reward. "hierarchical": each has a reward near one of K (`HierarchicalBradleyTerry`). "auto": the model that
            predicts held-out annotators best; `choice` then holds the choice and its reason.
        mixture : MixtureBradleyTerry or HierarchicalBradleyTerry, optional
            Unfitted estimator with your own settings, instead of `users`.
        n_components : int or "auto", optional
            Number of heads. "auto" is the default unless a mixture is given: `select_n_components` chooses it on the
            annotators of the data. It is 1 if fewer than ten annotators answer more than once, because any split of the
            population into heads would then fit equally well.
        **parameters
            Other parameters of the first stage, such as `random_state`.

        Returns
        -------
        PreferenceModel

        Raises
        ------
        ValueError
            If `users` is "hierarchical" or "auto", and the rows are divided among several processes.
        """
        ranks = active_communicator()
        check_users(users, mixture, ranks.world_size)
        table = ranks.together(lambda: read_preferences(data))
        pair_encoder = clone(encoder) if isinstance(encoder, PairEncoder) else PairEncoder(encoder)
        if not pair_encoder.context:
            pair_encoder.set_params(context="auto")
        rows = with_stated_contexts(pair_encoder, table, interactions, ranks)
        X = pair_encoder.fit_pairs(rows, parts=("prompt",) if prompt_gate else ())
        width = pair_encoder.n_prompt_features_ if prompt_gate else 0
        if n_components is not None:
            parameters["n_components"] = n_components
        if sum(ranks.exchange(X.size)) <= _DOUBLE_ENTRIES:
            X = ranks.together(lambda: X.astype(np.float64))
        stage, choice = fit_first_stage(users, mixture, parameters, width, (X, table.weight, table.group))
        model = cls(pair_encoder, stage)
        model.choice = choice
        return model

    @learning
    def route(self, data: Any, **parameters: Any) -> Self:
        """Learn which head applies (stage 2).

        Rows without a group teach the router how contexts choose heads. Rows with a group are votes of that user,
        oldest first, and are added to the user's history. If there are votes, a row that has neither a group nor a
        context is left out with a UserWarning.

        Parameters
        ----------
        data : table of comparisons
            Whatever `read_preferences` takes.
        **parameters
            Parameters of the `ContextRouter`, such as `temperature` or `history_decay`. Parameters of an earlier call
            are kept unless you pass them again.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If there are only votes, and a parameter would change what was learned from labelled contexts.
        """
        table = read_preferences(data)
        labelled, voted = labelled_and_voted(table)
        warn_of_unclaimed(labelled | voted)
        router = None if self.router is None else self.router._forked()
        if labelled.any():
            router = self._routed_by_contexts(table[labelled], parameters)
        if voted.any():
            router = self._with_votes(router, table[voted], parameters, only_votes=not labelled.any())
        self.router = router
        return self

    def _routed_by_contexts(self, labelled: PreferenceTable, parameters: dict[str, Any]) -> ContextRouter:
        """A router that has learned from labelled contexts, and knows the users of the one before."""
        ContextRouter(self.mixture, **parameters).check_parameters()  # before the encoder learns anything
        if labelled.context is not None and "context" not in self.encoder.context_parts_:
            self.encoder = twin(self.encoder).fit_context(labelled)
        router = self._new_router(parameters)
        router.fit(self._pairs(labelled, tuple(self.encoder.context_parts_)), sample_weight=labelled.weight)
        if self.router is not None:  # what users voted says how the heads fit them, whatever the contexts say
            router.history_ = self.router.history_.copy()
        return router

    def _with_votes(
        self, router: ContextRouter | None, votes: PreferenceTable, parameters: dict[str, Any], *, only_votes: bool
    ) -> ContextRouter:
        """The router, or a new one, after votes of known users."""
        if router is None:
            router = self._new_router(parameters)
            parts = self._parts_of_mixture()
        else:
            parts = parts_read(router, self.encoder)
        if only_votes:
            set_parameters_for_votes(router, parameters)
        router.partial_fit(self._pairs(votes, parts), sample_weight=votes.weight, groups=votes.group)
        return router

    @learning
    def estimate_uncertainty(self, data: Any, **parameters: Any) -> Self:
        """Estimate the sampling error of the heads, for ``reward(..., return_std=True)``; rewards do not change.

        Parameters
        ----------
        data : table of comparisons
            The comparisons to which the heads were fitted.
        **parameters
            Of `MixtureBradleyTerry.estimate_uncertainty`: `kind`, `n_resamples`, `random_state`.

        Returns
        -------
        self
        """
        self.mixture, self.router = with_uncertainty(self.mixture, self.router, self.stage_one_rows(data), parameters)
        return self

    @learning
    def forget(self, user: Hashable) -> Self:
        """Forget one user: remove everything learned from the user's votes, and the list of answered pairs.

        Rewards for this user are then those for a user who has not voted; all other rewards stay the same, to the bit.
        Files that were written before still contain the user; `save` into the same folder replaces them as a whole. The
        heads themselves do not change, even if the user was one of the annotators.

        Parameters
        ----------
        user : id

        Returns
        -------
        self

        Raises
        ------
        KeyError
            If the model has no votes of this user.
        """
        self.router = without_user(self.router, self.mixture, user)
        return self
