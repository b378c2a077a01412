"""What a fitted PairEncoder answers: comparisons, single responses and contexts as features, and the names of these."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils.validation import check_is_fitted

from micropref._estimator.fitting import predicting
from micropref._rows.layout import non_finite
from micropref.embed._columns import CONTEXT_PARTS, are_context_parts, context_columns
from micropref.embed._learned import Learned
from micropref.embed._orientation import read_rows
from micropref.embed._responses import ACTING_PARTS, Stated, log_lengths
from micropref.embed._settings import Settings
from micropref.embed._streamed import stream
from micropref.embed._texts import check_texts
from micropref.embed._vectors import Vectors
from micropref.features.interactions import ContextInteractions


class TextFeatures:
    """Base of the transformers of texts: every answer follows from what `Learned` holds.

    A learner sets `_settings` and the attributes that end with an underscore.
    """

    orientation_: str
    feature_width_: int
    vector_width_: int
    interactions_: ContextInteractions | None
    context_parts_: dict[str, int]
    scale_: dict[str, float]
    n_truncated_: int
    verbose: int
    _settings: Settings

    @predicting
    def encode_pairs(self, X: Any, parts: Sequence[str] | None = None) -> np.ndarray:
        """Embed comparisons with a choice of context parts.

        Parameters
        ----------
        X : table of n comparisons
        parts : sequence of str, optional
            Out of ``("prompt", "context")``, in this order; by default those of `transform`.

        Returns
        -------
        X : ndarray of shape (n, width of the parts + feature_width_), dtype float32
        """
        check_is_fitted(self)
        parts = self._check_parts(parts)
        table = read_rows(X, self.orientation_)
        if self._settings.is_plain:
            found = stream(self._settings, table, parts, width=self.vector_width_, verbose=self.verbose)
            return found.scaled(parts, self.scale_)
        vectors = self._embed(self._settings.texts(table, parts))
        return self._learned.rows(table, parts, vectors)

    @predicting
    def encode_responses(
        self, prompts: Sequence[str] | None, responses: Sequence[str], contexts: Sequence[str] | None = None
    ) -> np.ndarray:
        """Scaled features φ of single responses; their differences are the last columns of X.

        Parameters
        ----------
        prompts : sequence of n str, or None
            Needed only if the template has ``{prompt}``, or prompts and contexts act.
        responses : sequence of n str
        contexts : sequence of n str, optional
            Needed only if they act; blank where nothing is stated.

        Returns
        -------
        features : ndarray of shape (n, feature_width_), dtype float32

        Raises
        ------
        ValueError
            If a response is blank, or there are not as many prompts as responses.
        """
        check_is_fitted(self)
        responses = check_texts(responses)
        stated = self._check_stated(len(responses), prompts, contexts)
        texts = self._settings.template.fill(None if prompts is None else list(prompts), responses)
        features = self._embed(texts).of(texts)
        return self._respond(features, log_lengths(responses), stated)

    @predicting
    def encode_features(
        self,
        features: ArrayLike,
        prompts: Sequence[str] | None = None,
        contexts: Sequence[str] | None = None,
        lengths: Sequence[int] | None = None,
    ) -> np.ndarray:
        """Like `encode_responses`, for responses whose vectors were computed elsewhere.

        Parameters
        ----------
        features : array-like of shape (n, vector_width_)
            Vectors as the encoder gives them.
        prompts, contexts : sequence of n str, optional
            Needed only if they act.
        lengths : sequence of n int, optional
            Numbers of characters of the responses; needed only if the length is a feature.

        Returns
        -------
        features : ndarray of shape (n, feature_width_), dtype float32

        Raises
        ------
        ValueError
            If the vectors have another width, or something that is needed is missing.
        """
        check_is_fitted(self)
        with np.errstate(over="ignore"):  # what single precision cannot hold is infinite, and an error of the heads
            vectors = np.asarray(features, dtype=np.float32)
        if vectors.ndim != 2 or vectors.shape[1] != self.vector_width_:
            raise ValueError(
                f"features: expected shape (n_responses, {self.vector_width_}), a vector of each response, got "
                f"{vectors.shape}"
            )
        if not np.isfinite(vectors).all():
            raise non_finite(vectors, slice(0, len(vectors)))
        if self._settings.length and lengths is None:
            raise ValueError("lengths: expected the number of characters of each response, a feature here, got none")
        stated = self._check_stated(len(vectors), prompts, contexts)
        return self._respond(vectors, log_lengths([1] * len(vectors) if lengths is None else lengths), stated)

    def _check_stated(self, n: int, prompts: Sequence[str] | None, contexts: Sequence[str] | None) -> Stated | None:
        """What acts on n responses; a ValueError if it is missing or of another number."""
        given = {
            name: check_texts(texts, name, allow_blank=True)
            for name, texts in (("prompt", prompts), ("context", contexts))
            if texts is not None
        }
        for name, texts in given.items():
            if len(texts) != n:
                raise ValueError(f"expected as many {name}s as responses, got {len(texts)} {name}s and {n} responses")
        if not self._settings.acts:
            return None
        missing = [name for name in ACTING_PARTS if name not in given]
        if missing:
            raise ValueError(
                f"expected {' and '.join(f'{name}s' for name in missing)}, which act on the responses here, got none; "
                "pass a blank text for a response without one"
            )
        return Stated(given["prompt"], given["context"])

    def _respond(self, vectors: np.ndarray, lengths: np.ndarray, stated: Stated | None) -> np.ndarray:
        """Features of single responses from their vectors."""
        with np.errstate(over="ignore"):
            scaled = vectors * np.float32(self.scale_["response"])
        about = self._embed(() if stated is None else self._settings.texts_stated(stated))
        return np.hstack(self._learned.response_columns(scaled, lengths, stated, about))

    @predicting
    def encode_context(
        self,
        prompts: Sequence[str] | None,
        contexts: Sequence[str] | None = None,
        parts: Sequence[str] | None = None,
    ) -> np.ndarray:
        """Scaled context features, the first columns of X.

        Parameters
        ----------
        prompts, contexts : sequence of n str, or None
            Those that the parts name.
        parts : sequence of str, optional
            Out of ``("prompt", "context")``, in this order; by default those of `transform`.

        Returns
        -------
        features : ndarray of shape (n, width of the parts), dtype float32

        Raises
        ------
        ValueError
            If a part is missing, or prompts and contexts differ in number.
        """
        check_is_fitted(self)
        parts = self._check_parts(parts)
        given = {
            name: check_texts(texts, name, allow_blank=True)
            for name, texts in (("prompt", prompts), ("context", contexts))
            if texts is not None
        }
        missing = [part for part in parts if part not in given]
        if missing or not given:
            expected = " and ".join(f"{part}s" for part in parts) or "prompts or contexts"
            raise ValueError(f"expected {expected}, got no {' and no '.join(missing) or 'texts'}")
        lengths = {name: len(texts) for name, texts in given.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(
                "expected as many prompts as contexts, "
                f"got {lengths['prompt']} prompts and {lengths['context']} contexts"
            )
        texts_of = {part: given[part] for part in parts}
        vectors = self._embed(text for texts in texts_of.values() for text in texts)
        return context_columns(texts_of, vectors, self.scale_, max(lengths.values()))

    @property
    def n_context_features_(self) -> int:
        """Number of context features in X.

        Returns
        -------
        n_context_features : int
        """
        return sum(self.context_parts_.values())

    @property
    def n_prompt_features_(self) -> int:
        """Number of context features that come from the prompt, the first columns of X.

        Returns
        -------
        n_prompt_features : int
        """
        return self.context_parts_.get("prompt", 0)

    @property
    def reads_prompts_(self) -> bool:
        """Whether features of a response depend on the prompt, by the template, interactions or clauses.

        Returns
        -------
        reads_prompts : bool
        """
        return self._settings.acts or "{prompt}" in self._settings.template.text

    @property
    def reads_contexts_(self) -> bool:
        """Whether contexts act on the responses, by interactions or clauses.

        Returns
        -------
        reads_contexts : bool
        """
        return self._settings.acts

    def get_feature_names_out(self, input_features: object = None) -> np.ndarray:
        """Names of the columns of X: the part and a number; for interactions, the kind and the axes or the feature.

        Parameters
        ----------
        input_features : ignored

        Returns
        -------
        names : ndarray of str objects
        """
        check_is_fitted(self)
        names = [f"{part}_{i}" for part, width in self.context_parts_.items() for i in range(width)]
        return np.array([*names, *self._learned.response_names()], dtype=object)

    @property
    def _learned(self) -> Learned:
        return Learned(
            settings=self._settings,
            orientation=self.orientation_,
            context_parts=self.context_parts_,
            vector_width=self.vector_width_,
            scale=self.scale_,
            n_truncated=self.n_truncated_,
            interactions=self.interactions_,
        )

    def _check_parts(self, parts: Sequence[str] | None) -> tuple[str, ...]:
        if parts is None:
            return tuple(self.context_parts_)
        if not are_context_parts(parts):
            raise ValueError(f"parts: expected a part of {CONTEXT_PARTS}, in this order, got {parts!r}")
        for part in parts:
            if part not in self.context_parts_:
                hint = "; fit_context learns it" if part == "context" else ""
                seen = ", ".join(self.context_parts_) or "no parts"
                raise ValueError(f"expected parts that were seen in fitting ({seen}), got {part!r}{hint}")
        return tuple(parts)

    def _embed(self, texts: Iterable[str]) -> Vectors:
        return self._settings.embed(texts, width=self.vector_width_, verbose=self.verbose)
