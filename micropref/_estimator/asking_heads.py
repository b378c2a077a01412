"""AskingHeads: which pair to ask a user next, and which context to label next."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from micropref._arrays.backend import Array, index_like, to_numpy
from micropref._engine.label_design import LabelDesign, LinearLabels
from micropref._engine.logistic_normal import expected_log_odds
from micropref._engine.priors import GATE_DEVIATION
from micropref._engine.question_batches import choose_questions, pick
from micropref._engine.questions import Hypotheses, hypotheses_of_normals, information_of_heads, information_of_normals
from micropref._estimator.fitting import predicting
from micropref._estimator.routed_heads import RoutedHeads
from micropref._rows.groups import Groups, check_groups, ids_array
from micropref._rows.ids import user_of
from micropref._rows.layout import PairReader
from micropref._rows.matrix import check_matrix
from micropref._rows.pair_keys import askable_rows, best_of_each_pair, pair_keys, row_keys
from micropref._users.posteriors import UserPosteriors
from micropref._users.store import Answer, Pairs
from micropref.kernels._pointwise import sigmoid

__all__ = ["AskingHeads"]

_STRATEGIES = ("information", "epig")
# Of the pairs whose answers are asked for, these many are taken.
_MOST_TARGETS, _MOST_CONTEXTS = 128, 512
# Below, a temperature asks which head wins a pair.
_COLDEST = 1e-3


class AskingHeads(RoutedHeads):
    """Heads that know what they do not know of a user: the base of `ContextRouter`."""

    @predicting
    def expected_information(self, X: Array, groups: ArrayLike | None = None) -> NDArray[np.float64]:
        r"""Expected information of each answer about its user: the mutual information of answer and reward.

        .. math::

            I(y; w_u \mid d, \text{history}) = H\bigl(\mathbb{E}_w\, \sigma(w_u^\top d / T)\bigr)
                - \mathbb{E}_w\, H\bigl(\sigma(w_u^\top d / T)\bigr), \qquad T = \mathtt{history\_temperature\_}.

        Over K heads, the expectation is a sum. If users scatter around the heads, it is an integral over the normal
        distribution of the margin in every component, computed by quadrature; variance about which no vote can inform
        counts as noise of the answer.

        Parameters
        ----------
        X : array of shape (n_samples, n_features_in_)
            Pairs that could be asked, in the contexts in which they would be.
        groups : array-like of shape (n_samples,), optional
            As in `decision_function`.

        Returns
        -------
        information : ndarray of shape (n_samples,)
            In nats, from 0 to ln 2. Swapping the two responses changes nothing.

        References
        ----------
        Lindley, "On a measure of the information provided by an experiment", 1956. Houlsby, Huszár, Ghahramani and
        Lengyel, "Bayesian active learning for classification and preference learning", 2011, arXiv:1112.5745.
        """
        check_is_fitted(self, "history_")
        X = check_matrix(self, X, reset=False)
        reader = PairReader(X, self.n_context_features_)
        pairs = self._pairs(reader)
        users = check_groups(groups, X.shape[0])
        return self._information(self._seen(pairs, self._answer_pairs(reader, pairs, users)))

    @predicting
    def suggest(
        self,
        X: Array,
        n_queries: int = 1,
        group: Hashable | None = None,
        strategy: str = "information",
        *,
        target: Array | None = None,
        random_state: Any = 0,
    ) -> NDArray[np.intp]:
        """Choose the pairs to ask a user next.

        Several pairs are chosen jointly: each adds the most information to the answers to the pairs before it, so that
        no two ask about the same thing. No pair is asked twice, in either order, and no pair on which the user's vote
        was among the last 262 144 votes that the router has learned.

        Parameters
        ----------
        X : array of shape (n_samples, n_features_in_)
            Pairs that could be asked, in the contexts in which they would be.
        n_queries : int, default=1
            Number of questions.
        group : hashable, optional
            The user. None or an unknown id means a new user, for whom the router only uses the context.
        strategy : {"information", "epig"}, default="information"
            The quantity about which an answer should be the most informative: the user's reward, as in
            `expected_information`; or the answers to the pairs of `target`, I(y; y_t) on average over them.
        target : array of shape (n_targets, n_features_in_), optional
            Pairs for which the user will be served; with them, either strategy is "epig". Without them, "epig" uses the
            candidates instead. Of more than 128 pairs, a seeded draw of 128 is used. The user's weights are those in
            the candidate's context, also for the answers to the targets; so if the gate alone determines the head in
            the contexts of the targets, the method does not notice that no question is needed.
        random_state : int, RandomState instance or None, default=0
            Seed of the choice among questions that are equally good, and of what is drawn: users around heads from the
            second question on, and answers of batches of more than ten (for "epig", four) questions.

        Returns
        -------
        rows : ndarray of int of shape (n_queries,)
            Positions in X, the first question first.

        Raises
        ------
        ValueError
            If `n_queries` is not between 1 and the number of distinct pairs that the user has not answered, if `group`
            is not an id, or if the strategy is unknown.

        References
        ----------
        Kirsch, van Amersfoort and Gal, "BatchBALD", 2019, arXiv:1906.08158. Bickford Smith et al., "Prediction-Oriented
        Bayesian Active Learning", 2023, arXiv:2304.08151.
        """
        check_is_fitted(self, "history_")
        if strategy not in _STRATEGIES:
            raise ValueError(f"strategy: expected one of {', '.join(map(repr, _STRATEGIES))}, got {strategy!r}")
        random = check_random_state(random_state)
        user = user_of(group, "group")
        X = check_matrix(self, X, reset=False)
        keys = pair_keys(X[:, self.n_context_features_ :])
        rows = askable_rows(keys, n_queries, self.history_.answered_by(user))
        if self.n_context_features_ and len(rows) < len(X):
            # Of a pair that stands in several contexts, the context in which it says most.
            rows = best_of_each_pair(keys, rows, self._information(self._seen_by(X, user)))
        seen = self._seen_by(X if len(rows) == len(X) else X[index_like(rows, X)], user)
        if target is None and strategy == "information":
            gain = self._information(seen)
            if n_queries == 1:
                return rows[[pick(gain, random)]]
            return rows[choose_questions(self._hypotheses(seen, random), n_queries, random, first_gain=gain)]
        targets = seen if target is None else self._seen_by(check_matrix(self, target, reset=False), user)
        if targets.n_pairs > _MOST_TARGETS:
            targets = targets.part(np.sort(random.permutation(targets.n_pairs)[:_MOST_TARGETS]))
        # The same users of both.
        seed = random.randint(2**31 - 1)
        both = (self._hypotheses(one, np.random.RandomState(seed)) for one in (seen, targets))
        hypotheses, of_targets = both
        return rows[choose_questions(hypotheses, n_queries, random, targets=of_targets)]

    @predicting
    def suggest_contexts(
        self,
        X: Array,
        n_queries: int = 1,
        *,
        labelled: Array | None = None,
        target: Array | None = None,
        random_state: Any = 0,
    ) -> NDArray[np.intp]:
        r"""Choose the rows to label next, so that f learns as much as possible about which contexts need which heads.

        A label is informative about the gate's weights if heads disagree on the pair, the gate is undecided between
        them, and no label in a similar context has already given this information. With the gradient a_ik = f_k(c_i)
        (σ_ik − p_i) of the probability p_i = Σ_k f_k σ_ik in the logits of the gate, labels depend on a linear gate
        with the prior of ``alpha="auto"``, s = 5.5, with the covariance

        .. math::

            K_{ij} = s^2 \Bigl(1 + \frac{c_i^\top c_j}{\operatorname{mean} \lVert c \rVert^2}\Bigr)
                \frac{a_i^\top a_j}{\sqrt{p_i q_i p_j q_j}}, \qquad q = 1 - p,

        by Laplace's approximation. Given the existing labels, a row is chosen by the information of its label about the
        labels of the targets t, the mean of I(y_i; y_t) = −½ log(1 − K_it² / ((1 + K_ii)(1 + K_tt))); rows are chosen
        one after the other, also for the other gates.

        Parameters
        ----------
        X : array of shape (n_samples, n_features_in_)
            Pairs in contexts that could be labelled.
        n_queries : int, default=1
        labelled : array of shape (n_labelled, n_features_in_), optional
            Rows that already have labels (the router does not store them). They are not suggested again.
        target : array of shape (n_targets, n_features_in_), optional
            Rows like those for which the router will be used; None: the candidates. Of more than 512 rows, a seeded
            draw is used.
        random_state : int, RandomState instance or None, default=0
            Seed of the choice among rows that are equally good, and of that draw.

        Returns
        -------
        rows : ndarray of int of shape (n_queries,)
            Positions in X, the first row first.

        Raises
        ------
        ValueError
            If `n_queries` is not between 1 and the number of distinct rows that are not labelled.
        """
        check_is_fitted(self, "history_")
        random = check_random_state(random_state)
        X = check_matrix(self, X, reset=False)
        known = None if labelled is None or not len(labelled) else check_matrix(self, labelled, reset=False)
        width = self.n_context_features_
        keys, answered = (None if one is None else row_keys(one[:, :width], one[:, width:]) for one in (X, known))
        assert keys is not None
        rows = askable_rows(keys, n_queries, answered)
        X = X[index_like(rows, X)]
        norm = float(np.sqrt((to_numpy(X[:, :width]).astype(np.float64) ** 2).sum(axis=1).mean()))
        candidates = self._gate_labels(X, norm)
        if target is not None:
            candidates = candidates.with_more(self._gate_labels(check_matrix(self, target, reset=False), norm))
        targets = np.arange(0 if target is None else len(rows), len(candidates))
        targets = np.sort(random.permutation(targets)[:_MOST_CONTEXTS])
        design = LabelDesign(candidates, None if known is None else self._gate_labels(known, norm))
        return rows[design.choose(n_queries, random, targets, len(rows))]

    # ------------------------------------------------------------------------------------------------------ internals

    def _seen_by(self, X: Array, user: Hashable | None) -> _Seen:
        """Pairs, and what is known of a user who is asked about them."""
        reader = PairReader(X, self.n_context_features_)
        pairs = self._pairs(reader)
        return self._seen_of(self._context_log_weights(reader), pairs, user)

    def _seen_of(self, log_weights: Array, pairs: Pairs, user: Hashable | None) -> _Seen:
        """As `_seen_by`, where it is known what the contexts say."""
        n = int(pairs.margins.shape[1])
        groups = None if user is None else Groups(ids_array([user]), np.zeros(n, dtype=np.int32))
        return self._seen(pairs, self._answer_users(log_weights, pairs, groups), user)

    def _seen(self, pairs: Pairs, answer: tuple[Array, Answer], user: Hashable | None = None) -> _Seen:
        log_weights, found = answer
        weights = np.exp(to_numpy(log_weights).astype(np.float64))
        means = to_numpy(found.margins).astype(np.float64)
        return _Seen(user, pairs, weights / weights.sum(axis=0), means, found.variances)

    def _noise(self, pairs: Pairs) -> NDArray[np.float64]:
        """Variances of margins that no vote can teach, (n_components, n_pairs)."""
        scatter = self.history_.scatter
        assert scatter is not None
        assert pairs.outside is not None
        return np.asarray(scatter.residual[:, None] * pairs.outside)

    def _information(self, seen: _Seen) -> NDArray[np.float64]:
        if seen.variances is None:
            return information_of_heads(seen.weights, seen.means, self.history_temperature_)
        noise = self._noise(seen.pairs)
        variances = np.maximum(seen.variances - noise, 0.0)
        return information_of_normals(seen.weights, seen.means, variances, noise, self.history_temperature_)

    def _hypotheses(self, seen: _Seen, random: np.random.RandomState) -> Hypotheses:
        """What may hold of the user: their head; or one of the users drawn around the heads."""
        if seen.variances is None:
            return Hypotheses.of_margins(seen.weights, seen.means / self.history_temperature_)
        assert isinstance(self.history_, UserPosteriors)
        assert seen.pairs.coordinates is not None
        return hypotheses_of_normals(
            seen.weights,
            to_numpy(seen.pairs.margins).astype(np.float64),
            self._noise(seen.pairs),
            seen.pairs.coordinates,
            self.history_.belief(seen.user),
            temperature=self.history_temperature_,
            random=random,
        )

    def _gate_labels(self, X: Array, norm: float) -> LinearLabels:
        """What labels of these rows depend on, in a linear gate."""
        seen = self._seen_by(X, None)
        margins = seen.means if seen.variances is None else expected_log_odds(seen.means, seen.variances)
        first, second = (sigmoid(sign * margins / max(self.temperature, _COLDEST)) for sign in (1, -1))
        p, q = ((seen.weights * one).sum(axis=0) for one in (first, second))
        slopes = seen.weights * (first * q - second * p) / np.sqrt(np.maximum(p * q, np.finfo(float).tiny))
        contexts = to_numpy(X[:, : self.n_context_features_]).astype(np.float64) / (norm if norm > 0 else 1.0)
        inputs = GATE_DEVIATION * np.column_stack([contexts, np.ones(len(contexts))])
        return LinearLabels(slopes.T, inputs)

    def _remember_pairs(self, reader: PairReader, users: Groups, voted: NDArray[np.bool_]) -> None:
        """Remember which pairs users have answered, as far back as anything is remembered."""
        index, X = users.index, reader.X
        if len(index) > 1 or not voted[0]:
            rows = np.flatnonzero(voted)[-self.history_.answered.size :]
            index, X = index[rows], X[index_like(rows, X)]
        self.history_.remember(users.ids.tolist(), index, pair_keys(X[:, reader.n_context_features :]))


class _Seen(NamedTuple):
    """Pairs, with what is known of the user who could answer them.

    Attributes
    ----------
    user : hashable or None
    pairs : Pairs
    weights, means : ndarray of shape (n_components, n_pairs)
    variances : ndarray of shape (n_components, n_pairs) or None
    """

    user: Hashable | None
    pairs: Pairs
    weights: NDArray[np.float64]
    means: NDArray[np.float64]
    variances: NDArray[np.float64] | None

    @property
    def n_pairs(self) -> int:
        return int(self.means.shape[1])

    def part(self, rows: NDArray[np.intp]) -> _Seen:
        variances = None if self.variances is None else self.variances[:, rows]
        return _Seen(self.user, self.pairs.part(rows), self.weights[:, rows], self.means[:, rows], variances)
