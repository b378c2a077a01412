"""PairEncoder: a table of compared texts becomes X = [context | difference]."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from micropref._estimator.fitting import learning, predicting
from micropref._support.renamed import moved
from micropref.datasets._unoriented import read_unoriented
from micropref.distributed import active_communicator
from micropref.embed._columns import context_texts
from micropref.embed._features import TextFeatures
from micropref.embed._learned import Learned, acting_parameters, check_description, describe, learn, restore
from micropref.embed._orientation import read_rows, read_training_rows
from micropref.embed._scales import mean_norm, scale_to
from micropref.embed._settings import Settings
from micropref.embed._streamed import learn_streamed
from micropref.embed._vectors import TruncationWarning, not_blank
from micropref.embed.encoders import named_in_config
from micropref.embed.protocol import Encoder, Store
from micropref.features.interactions import ContextInteractions

__all__ = ["PairEncoder", "Store", "TruncationWarning"]

__getattr__ = moved(__name__)


class PairEncoder(TextFeatures, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Turn a table of comparisons into ``X = [prompt | context | φ(chosen) − φ(rejected)]``.

    Every distinct text is embedded once. Each of the parts is scaled by one number, learned in `fit`, so that the
    default penalties of the estimators fit embeddings of any size; nothing is centred.

    Tables are whatever `micropref.datasets.read_preferences` takes: a `PreferenceTable`, a DataFrame of pandas, Polars
    or Arrow, a list of dicts, a dict of columns, a file.

    A row is oriented once. Without y, the label of a table says which response is the chosen one, and rows are
    ``chosen − rejected``, in `fit` as in `transform`. With y, as in a pipeline that is fitted with y, rows stay as they
    are given: ``response_a − response_b``, or the columns chosen and rejected as they stand. Then y alone says which
    response was preferred, `transform` ignores labels, and tables without labels can be predicted.

    Parameters
    ----------
    encoder : str or Encoder, default="hashing"
        ``"hashing"``, the name or path of a sentence-transformers model, the address of a server of embeddings, a
        loaded `SentenceTransformer`, or any object with `encode` and `fingerprint`: whatever `resolve_encoder` takes.
    store : EmbeddingStore or path, optional
        Where vectors are kept; it must belong to the same encoder. A folder that is not there is made.
    template : str, default="{response}"
        Text that stands for a response; ``{prompt}`` and ``{response}`` are filled in.
    context : {"auto"} or tuple of str, default=()
        Columns that become context features, out of ``("prompt", "context")`` and in this order. ``"auto"`` takes the
        prompt, and the context where the table has that column. With any, what follows in a pipeline needs their width
        (`n_context_features_`): taken for differences, they would say that the first response is better.
    norms : dict, optional
        Root mean square Euclidean norm of each part after scaling, blank cells left out. Missing keys have the
        defaults ``{"response": 3.0, "prompt": 0.3, "context": 1.5, "length": 1.0, "clauses": 3.0}``, where
        ``"response"`` is the difference.
    interactions : bool or ContextInteractions, optional
        Let prompts and contexts act on the responses: `ContextInteractions` between the two and the difference, whose
        columns follow it. True takes its defaults; of one that is given, the factors and `n_axes` count. The table
        needs a column ``context``, whatever `context` makes of it; blank cells state nothing.
    clauses : bool, default=False
        Cut every context at punctuation and at words such as "and", "but", "while", "because", embed each clause once,
        and add Σ_j r_j (r_jᵀ d), where r_j is the vector of a clause without its projection on that of the prompt. The
        table needs a column ``context``.
    length : bool, default=False
        Add the difference of the logarithms of the numbers of characters, one column. Raters prefer long answers; in a
        column of its own this bias can be seen, and removed.
    verbose : int, default=0
        1 reports on standard error how many texts were embedded and how long that took.

    Attributes
    ----------
    encoder_ : Encoder
        The encoder in use.
    fingerprint_ : str
        Fingerprint of the encoder, and the template.
    orientation_ : {"chosen-first", "as-given"}
        Whether the first response of a row is the chosen one, or the one whose column comes first, as after a fit with
        y.
    feature_width_ : int
        Number of columns that follow the context: the difference, and what is linear in it.
    vector_width_ : int
        Number of features of a text.
    interactions_ : ContextInteractions or None
        Fitted, where prompts and contexts act.
    context_parts_ : dict of str to int
        Context columns of X and the number of features of each, in their order in X.
    n_context_features_ : int
        Number of context features in X.
    n_prompt_features_ : int
        Number of them that come from the prompt; they are the first columns.
    scale_ : dict of str to float
        Factor of each part.
    n_truncated_ : int
        Distinct texts, seen in fitting, that were longer than the encoder reads; on several ranks, the sum of theirs.

    Examples
    --------
    >>> from micropref import PairEncoder
    >>> rows = [{"prompt": "Say hello.", "chosen": "Hello!", "rejected": "Go away."}]
    >>> encoder = PairEncoder(context="auto").fit(rows)
    >>> encoder.n_context_features_, encoder.feature_width_, encoder.transform(rows).shape
    (768, 768, (1, 1536))
    """

    encoder_: Encoder
    fingerprint_: str

    def __init__(
        self,
        encoder: str | Encoder = "hashing",
        *,
        store: Store | str | os.PathLike[str] | None = None,
        template: str = "{response}",
        context: str | Sequence[str] = (),
        norms: Mapping[str, float] | None = None,
        interactions: bool | ContextInteractions | None = None,
        clauses: bool = False,
        length: bool = False,
        verbose: int = 0,
    ):
        self.encoder = encoder
        self.store = store
        self.template = template
        self.context = context
        self.norms = norms
        self.interactions = interactions
        self.clauses = clauses
        self.length = length
        self.verbose = verbose

    def fit(self, X: Any, y: Any = None) -> Self:
        """Learn the widths and scales of the parts.

        Parameters
        ----------
        X : table of n comparisons
        y : array-like of n labels, optional
            What the estimator behind learns from: 1 where the first response of a row is preferred. Only its presence
            counts, which keeps the rows as they are given, and its agreement with a label of the table.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If a parameter or the table is not usable, the store belongs to another encoder, or y contradicts a label of
            the table. A fit that is refused leaves the estimator as it was.
        """
        table, orientation = active_communicator().together(lambda: read_training_rows(X, y))
        learned, _ = learn(self._settings_of_parameters, table, orientation, self.verbose)
        self._adopt(learned)
        return self

    def fit_transform(self, X: Any, y: Any = None) -> np.ndarray:
        """Fit and transform, embedding every text only once.

        Parameters
        ----------
        X : table of n comparisons
        y : array-like of n labels, optional
            As in `fit`.

        Returns
        -------
        X : ndarray of shape (n, n_context_features_ + feature_width_), dtype float32
        """
        return self.fit_pairs(X, y)

    def fit_pairs(self, X: Any, y: Any = None, *, parts: Sequence[str] | None = None) -> np.ndarray:
        """Fit, and transform with chosen context parts: `fit` and `encode_pairs` in one read of the texts.

        Unless something acts on the responses, a text is embedded, added to its rows, and forgotten: memory is that of
        the matrix that is returned.

        Parameters
        ----------
        X : table of n comparisons
        y : array-like of n labels, optional
            As in `fit`.
        parts : sequence of str, optional
            Out of ``("prompt", "context")``; by default all that are learned.

        Returns
        -------
        X : ndarray of shape (n, width of the parts + feature_width_), dtype float32
        """
        ranks = active_communicator()
        table, orientation = ranks.together(lambda: read_training_rows(X, y))
        if self.interactions in (None, False) and not self.clauses and not self.length:
            learned, pairs = learn_streamed(self._settings_of_parameters, table, orientation, parts, self.verbose)
        else:
            learned, vectors = learn(self._settings_of_parameters, table, orientation, self.verbose)
            shown = [part for part in learned.context_parts if parts is None or part in parts]
            pairs = ranks.together(lambda: learned.rows(table, shown, vectors))
        self._adopt(learned)
        return pairs

    @learning
    def fit_context(self, X: Any) -> Self:
        """Learn the context part later, from a table with contexts; all other parts stay the same.

        Heads are often trained on comparisons without contexts and routed with a few that have them. From here on
        `transform` wants a context column; ``encode_pairs(X, parts=("prompt",))`` gives what it gave before.

        Parameters
        ----------
        X : table of n comparisons with a context column

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If the table has no contexts, or the parameter `context` leaves them out.
        """
        check_is_fitted(self)
        context = self._settings.context
        if context != "auto" and "context" not in context:
            raise ValueError(
                f"context: expected a choice with contexts, got {context!r}; use context='auto' to add them later"
            )
        texts = context_texts(read_rows(X, self.orientation_), "context")
        vectors = self._embed(texts)
        found = mean_norm(vectors.of(not_blank(texts)))
        self.scale_ = {**self.scale_, "context": scale_to(self._settings.norms["context"], found)}
        self.context_parts_ = {**self.context_parts_, "context": self.vector_width_}
        self.n_truncated_ += vectors.n_truncated
        return self

    @predicting
    def transform(self, X: Any) -> np.ndarray:
        """Embed comparisons.

        Parameters
        ----------
        X : table of n comparisons
            With the context column if there was one in fitting.

        Returns
        -------
        X : ndarray of shape (n, n_context_features_ + feature_width_), dtype float32
            A blank prompt or context is a vector of zeros.

        Raises
        ------
        ValueError
            If the context column is missing, or ties made two rows out of one.
        """
        return self.encode_pairs(X)

    @predicting
    def texts(self, X: Any) -> list[str]:
        """The distinct texts of a table that `transform` would embed, in order of first appearance.

        Parameters
        ----------
        X : table of n comparisons

        Returns
        -------
        texts : list of str
            Responses in the template, and the columns that become context features: by the last fit, or by the
            parameters before the first.

        Raises
        ------
        ValueError
            If a parameter or the table is not usable.
        """
        settings = self._settings if hasattr(self, "_settings") else self._settings_of_parameters()
        table = read_unoriented(X)
        return list(dict.fromkeys(not_blank(settings.texts(table, settings.parts_of(table)))))

    @predicting
    def to_config(self) -> dict[str, Any]:
        """Describe this fitted transformer in JSON; `from_config` restores it.

        Returns
        -------
        dict
        """
        check_is_fitted(self)
        return describe(self._learned)

    @classmethod
    def from_config(
        cls,
        config: Mapping[str, Any],
        encoder: str | Encoder | None = None,
        *,
        store: Store | str | os.PathLike[str] | None = None,
    ) -> Self:
        """Restore a fitted transformer.

        Parameters
        ----------
        config : mapping
            As from `to_config`, directly or through JSON.
        encoder : str or Encoder, optional
            Used instead of the one described; needed if that was the user's own.
        store : EmbeddingStore or path, optional

        Returns
        -------
        PairEncoder

        Raises
        ------
        EncoderMismatchError
            If the encoder is not the one that was fitted with.
        ValueError
            If something is missing in the description, or the encoder cannot be rebuilt.
        """
        check_description(config)
        context = config["context"]
        restored = cls(
            named_in_config(config["encoder"], encoder),
            store=store,
            template=config["template"],
            context=context if isinstance(context, str) else tuple(context),
            norms=dict(config["norms"]),
            **acting_parameters(config),
        )
        restored._adopt(restore(config, restored._settings_of_parameters()))
        return restored

    def _settings_of_parameters(self) -> Settings:
        return Settings.of(
            self.encoder,
            self.store,
            self.template,
            self.context,
            self.norms,
            interactions=self.interactions,
            clauses=self.clauses,
            length=self.length,
        )

    @learning
    def _adopt(self, learned: Learned) -> None:
        self._settings = learned.settings
        self.encoder_ = learned.settings.encoder
        self.fingerprint_ = learned.settings.fingerprint
        self.orientation_ = learned.orientation
        self.context_parts_ = learned.context_parts
        self.feature_width_ = learned.feature_width
        self.vector_width_ = learned.vector_width
        self.interactions_ = learned.interactions
        self.scale_ = learned.scale
        self.n_truncated_ = learned.n_truncated

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "scale_")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.dict = True
        return tags
