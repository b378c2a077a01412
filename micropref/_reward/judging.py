"""JudgingModel: rewards of responses, and log-odds of comparisons, of a model of texts."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from micropref._estimator.fitting import predicting
from micropref._reward.base import TextModel
from micropref._reward.evaluation import scores_by_stage
from micropref._reward.rewards import filled, rewards_of
from micropref._reward.routing import check_asked
from micropref._reward.served import ids_of_rows, served
from micropref.datasets._asked import Asked, read_asked
from micropref.datasets.readers import read_preferences
from micropref.embed import EncoderMismatchError
from micropref.kernels._pointwise import sigmoid

__all__ = ["JudgingModel"]


class JudgingModel(TextModel):
    """Rewards and log-odds of texts: a base of `PreferenceModel`."""

    @predicting
    def reward(
        self,
        prompts: Sequence[Any] | None,
        responses: Sequence[Any],
        contexts: Sequence[Any] | str | None = None,
        users: Sequence[Hashable] | Hashable | None = None,
        *,
        return_std: bool = False,
        empty: float | None = None,
    ) -> Any:
        """Rewards of single responses, Σ_k f_k(c) w_kᵀ φ, where φ depends on c too if contexts act.

        Parameters
        ----------
        prompts, responses : sequence of n texts or conversations
            A conversation is a list of chat messages, as in `read_preferences`; messages of the prompt are removed from
            a response. Strings are used as they are. Prompts may be None if the model does not read them.
        contexts : sequence of n texts or conversations, or one str for all rows, optional
            Stated criteria or user profiles; blank or None for a row without one. By default no row has one.
        users : sequence of n ids, or one str or int for all rows, optional
            Users to serve; for an unknown user or None, only the context matters.
        return_std : bool, default=False
            Also return standard deviations.
        empty : float, optional
            Reward of an empty response: None, blank text, or a conversation whose last message is blank. By default it
            is an error.

        Returns
        -------
        rewards : ndarray of shape (n,)
            Log-odds, in nats: for a user whose head is known, σ of the difference between two responses to the same
            prompt is the probability that the first is preferred. The zero is arbitrary.
        std : ndarray of shape (n,)
            Only if `return_std`: posterior standard deviation of the user's reward, in nats. After
            `estimate_uncertainty`, it includes the sampling error of the heads; with a single head, this call is
            required. NaN for empty responses.

        Raises
        ------
        TypeError
            If a single text is passed instead of a list.
        ValueError
            If the lists have different lengths, an entry is neither text nor messages, or a response is empty.

        Examples
        --------
        >>> from micropref import PreferenceModel, load_demo
        >>> model = PreferenceModel.fit(load_demo().train, n_components=1)
        >>> question, answer = {"role": "user", "content": "Tea?"}, {"role": "assistant", "content": "Yes, please."}
        >>> bool(model.reward([[question]], [[answer]]) == model.reward(["Tea?"], ["Yes, please."]))
        True
        """
        asked = read_asked(prompts, responses, contexts)
        ids = ids_of_rows(users, len(asked.responses))
        rows = asked.present
        if len(rows) == len(asked.responses):
            return self._answer(asked, ids, return_std=return_std)
        if empty is None:
            first = next(row for row, text in enumerate(asked.responses) if not text)
            raise ValueError(
                f"response {first}: expected text, got an empty response; pass empty=NUMBER to reward empty responses"
            )
        ids = None if ids is None else [list(ids)[row] for row in rows]
        return filled(self._answer(asked.of(rows), ids, return_std=return_std), rows, len(asked.responses), empty)

    @predicting
    def reward_features(
        self,
        features: NDArray[Any],
        fingerprint: str,
        prompts: Sequence[str] | None = None,
        contexts: Sequence[str] | None = None,
        users: Sequence[Hashable] | None = None,
        *,
        lengths: Sequence[int] | None = None,
    ) -> NDArray[Any]:
        """Rewards of responses whose vectors were computed elsewhere.

        Parameters
        ----------
        features : ndarray of shape (n, vector_width)
            Vectors as the encoder gives them.
        fingerprint : str
            Fingerprint of the encoder that computed them.
        prompts, contexts, users
            As in `reward`; prompts may be left out if neither a gate nor interactions read them.
        lengths : sequence of n int, optional
            Numbers of characters of the responses, if the length is a feature.

        Returns
        -------
        rewards : ndarray of shape (n,)

        Raises
        ------
        EncoderMismatchError
            If the vectors come from an encoder other than this model's.
        ValueError
            If prompts or lengths are left out and the model reads them.
        """
        expected = self.encoder.encoder_.fingerprint
        if fingerprint != expected:
            raise EncoderMismatchError(f"expected features of the encoder {expected}, got features of {fingerprint}")
        if prompts is None and "prompt" in self._parts():
            raise ValueError("expected prompts, since the weights of this model's heads depend on them, got none")
        known = self._acting(contexts, len(features))
        encoded = self.encoder.encode_features(features, prompts, known, lengths)
        return np.asarray(self._reward(encoded, prompts, contexts, users))

    @predicting
    def log_odds(
        self,
        data: Any,
        *,
        routed: bool = True,
        history: bool = True,
        users: Sequence[Hashable] | Hashable | None = None,
        contexts: Sequence[Any] | str | None = None,
    ) -> NDArray[Any]:
        """Log-odds that the chosen response of every comparison is preferred to the rejected one.

        Parameters
        ----------
        data : table of n comparisons
        routed : bool, default=True
            Use the router, if there is one; otherwise the weights of the mixture.
        history : bool, default=True
            Use the history of the users.
        users : sequence of n ids, or one str or int for all rows, optional
            Users to serve, instead of the groups of the table.
        contexts : sequence of n texts or conversations, or one str for all rows, optional
            Instead of those of the table.

        Returns
        -------
        log_odds : ndarray of shape (n,)
            In nats.

        Raises
        ------
        ValueError
            If the model was routed by contexts, and there are neither contexts nor users; or if users are given, but
            `history` or `routed` is False.
        """
        if users is not None and not (history and routed):
            raise ValueError("expected history=True and routed=True, since users are given, got False for one of them")
        table = served(read_preferences(data), users, contexts)
        if not routed or self.router is None:
            return np.asarray(self.mixture.decision_function(self._pairs(table, self._parts_of_mixture())))
        check_asked(self._parts(), table.context, table.group)
        known = table.group if history else None
        return np.asarray(self.router.decision_function(self._pairs(table, self._parts()), groups=known))

    @predicting
    def predict_proba(
        self,
        data: Any,
        *,
        users: Sequence[Hashable] | Hashable | None = None,
        contexts: Sequence[Any] | str | None = None,
    ) -> NDArray[np.float64]:
        """Probability of each response of every comparison being preferred, as for a classifier with classes 0 and 1.

        Parameters
        ----------
        data : table of n comparisons
        users, contexts
            As in `log_odds`.

        Returns
        -------
        probabilities : ndarray of shape (n, 2)
            Probability that the rejected response is preferred, and that the chosen response is: σ of the `log_odds`.
        """
        odds = self.log_odds(data, users=users, contexts=contexts).astype(np.float64)
        return np.column_stack([sigmoid(-odds), sigmoid(odds)])

    @predicting
    def stage_one_rows(self, data: Any) -> tuple[NDArray[Any], NDArray[Any] | None, NDArray[Any] | None]:
        """Arrays of comparisons for the mixture of stage 1, for `micropref.theory`, figures and tests.

        Parameters
        ----------
        data : table of n comparisons

        Returns
        -------
        X : ndarray of shape (n, n_features_in_)
            The chosen response first.
        groups : ndarray of object of shape (n,), or None
            Annotators, if the table names them.
        sample_weight : ndarray of shape (n,), or None
        """
        table = read_preferences(data)
        weight = None if table.weight is None else np.asarray(table.weight)
        return self._pairs(table, self._parts_of_mixture()), table.group, weight

    @predicting
    def evaluate(self, data: Any, *, by: str | None = None, random_state: int = 0) -> list[dict[str, Any]]:
        """Measure accuracy and log-loss on comparisons, for every stage that the model and the data support.

        Parameters
        ----------
        data : table of comparisons
        by : str, optional
            Also report results for every value of this column: "context", "group", "prompt", or any extra column.
        random_state : int, default=0
            Seed of the bootstrap.

        Returns
        -------
        rows : list of dict
            Keys method ("mixture", "routed", "history"), subset ("all" or a value of `by`), n (rows with weight), and
            for accuracy and log_loss (nats) the mean and a 95 % interval, `…_low` and `…_high`: percentile bootstrap
            over whole users, and over whole prompts of rows without one; None where there is only one.
        """
        return scores_by_stage(self, read_preferences(data), by, random_state)

    def _acting(self, contexts: Sequence[str] | None, n: int) -> Sequence[str] | None:
        """The contexts of n responses, blank where none were given; None where they do not act."""
        if not self.encoder.reads_contexts_:
            return None
        return [""] * n if contexts is None else contexts

    def _answer(self, asked: Asked, users: Any, *, return_std: bool) -> Any:
        """Rewards of responses none of which is empty."""
        acting = self._acting(asked.contexts, len(asked.responses))
        features = self.encoder.encode_responses(asked.prompts, asked.responses, acting)
        return self._reward(features, asked.prompts, asked.contexts, users, return_std=return_std)

    def _reward(
        self,
        features: NDArray[Any],
        prompts: Sequence[str] | None,
        contexts: Sequence[str] | None,
        users: Any,
        *,
        return_std: bool = False,
    ) -> Any:
        parts = self._parts()
        if self.router is not None:
            check_asked(parts, contexts, users)
        contexts = [""] * len(features) if contexts is None else contexts
        context = self.encoder.encode_context(prompts, contexts, parts)
        return rewards_of(self.mixture, self.router, features, context, users, return_std=return_std)
