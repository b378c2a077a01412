"""PairEncoder: a table of compared texts becomes X = [context | difference]."""

from __future__ import annotations

import os
import reprlib
import string
import sys
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, Self

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from micropref._rows.layout import root_mean_square, root_mean_square_norms
from micropref.datasets._text import is_blank
from micropref.datasets.readers import read_preferences
from micropref.datasets.table import PreferenceTable
from micropref.distributed import active_communicator
from micropref.embed.encoders import EncoderMismatchError, encoder_config, encoder_from_config, resolve_encoder
from micropref.embed.protocol import Encoder, check_texts
from micropref.embed.store import EmbeddingStore
from micropref.pairs import make_pairs

# The prompt comes first: a mixture gated by the prompt sees the first columns, and its router adds the others.
_CONTEXT_COLUMNS = ("prompt", "context")
_DEFAULT_NORMS = {"response": 3.0, "prompt": 0.3, "context": 1.5}
_CONFIG_KEYS = frozenset(
    ["encoder", "fingerprint", "template", "context", "norms", "scale", "context_parts", "feature_width", "n_truncated"]
)
_BATCH_TEXTS = 1_024
_PROGRESS_FROM = 2_000


class TruncationWarning(UserWarning):
    """Some texts were longer than the encoder reads, and their ends were ignored."""


class Store(Protocol):
    """Keeps the vectors of one encoder."""

    @property
    def encoder(self) -> Encoder | None:
        """The encoder whose vectors are kept."""

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Vectors of the texts, computed only where they are missing."""


class PairEncoder(TransformerMixin, BaseEstimator):
    """Turn a table of comparisons into ``X = [prompt | context | φ(chosen) − φ(rejected)]``.

    Every distinct text is embedded once. Each of the parts is scaled by one number, learned in `fit`, so that the
    default penalties of the estimators fit embeddings of any size; nothing is centred.

    Tables are whatever `micropref.datasets.read_preferences` takes: a `PreferenceTable`, a DataFrame, a list of dicts,
    a dict of columns, a file.

    Parameters
    ----------
    encoder : str or Encoder, default="hashing"
        ``"hashing"``, the name or path of a sentence-transformers model, or any object with `encode` and `fingerprint`.
    store : EmbeddingStore or path, optional
        Where vectors are kept; it must belong to the same encoder. A folder that is not there is made.
    template : str, default="{response}"
        Text that stands for a response; ``{prompt}`` and ``{response}`` are filled in.
    context : {"auto"} or tuple of str, default=()
        Columns that become context features, out of ``("prompt", "context")`` and in this order. ``"auto"`` takes the
        prompt, and the context where the table has that column. With any, what follows in a pipeline has to be told how
        wide they are (`n_context_features_`): taken for differences, they would say that the first response is better.
    norms : dict, optional
        Root mean square Euclidean norm of each part after scaling, blank cells left out. Missing keys have the
        defaults ``{"response": 3.0, "prompt": 0.3, "context": 1.5}``, where ``"response"`` is the difference.
    verbose : int, default=0
        1 reports on standard error how many texts were embedded and how long that took.

    Attributes
    ----------
    encoder_ : Encoder
        The encoder in use.
    fingerprint_ : str
        Fingerprint of the encoder, and the template.
    feature_width_ : int
        Number of columns of the difference.
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
    feature_width_: int
    context_parts_: dict[str, int]
    scale_: dict[str, float]
    n_truncated_: int

    def __init__(
        self,
        encoder: str | Encoder = "hashing",
        *,
        store: Store | str | os.PathLike[str] | None = None,
        template: str = "{response}",
        context: str | Sequence[str] = (),
        norms: Mapping[str, float] | None = None,
        verbose: int = 0,
    ):
        self.encoder = encoder
        self.store = store
        self.template = template
        self.context = context
        self.norms = norms
        self.verbose = verbose

    def fit(self, X: Any, y: object = None) -> Self:
        """Learn the widths and scales of the parts.

        Parameters
        ----------
        X : table of n comparisons
        y : ignored

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If a parameter or the table is not usable, or the store belongs to another encoder.
        """
        self._fit(active_communicator().together(lambda: _as_table(X)))
        return self

    def fit_transform(self, X: Any, y: object = None) -> np.ndarray:
        """Fit and transform, embedding every text only once.

        Parameters
        ----------
        X : table of n comparisons
        y : ignored

        Returns
        -------
        X : ndarray of shape (n, n_context_features_ + feature_width_), dtype float32
        """
        ranks = active_communicator()
        table = ranks.together(lambda: _as_table(X))
        vectors = self._fit(table)
        return ranks.together(lambda: self._assemble(table, tuple(self.context_parts_), vectors))

    def fit_context(self, X: Any) -> Self:
        """Learn the context part afterwards, from a table that has contexts; all else stays as it is.

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
        if self.context != "auto" and "context" not in self.context:
            raise ValueError(f"context={self.context!r} leaves contexts out; use context='auto' to add them later")
        texts = _column(_as_table(X), "context")
        vectors, n_truncated = self._embed(texts, self.feature_width_)
        self.n_truncated_ += n_truncated
        norm = float(root_mean_square_norms(vectors.of(_not_blank(texts)), 0)[1])
        self.scale_ = {**self.scale_, "context": self._scale_of("context", norm)}
        self.context_parts_ = {**self.context_parts_, "context": self.feature_width_}
        return self

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
        table = _as_table(X)
        vectors, _ = self._embed(self._texts(table, parts), self.feature_width_)
        return self._assemble(table, parts, vectors)

    def texts(self, X: Any) -> list[str]:
        """The distinct texts that are embedded for a table, in order of their first appearance; nothing is embedded.

        Parameters
        ----------
        X : table of n comparisons

        Returns
        -------
        texts : list of str
            Responses in the template, and the columns that the parameter `context` names.

        Raises
        ------
        ValueError
            If a parameter or the table is not usable.
        """
        self._resolve()
        table = _as_table(X)
        found = dict.fromkeys(self._texts(table, self._context_columns(table)))
        return [text for text in found if not is_blank(text)]

    def encode_responses(self, prompts: Sequence[str] | None, responses: Sequence[str]) -> np.ndarray:
        """Scaled features φ of single responses; their differences are the last columns of X.

        Parameters
        ----------
        prompts : sequence of n str, or None
            Needed only if the template has ``{prompt}``.
        responses : sequence of n str

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
        if prompts is not None:
            prompts = check_texts(prompts, "prompt", allow_blank=True)
            if len(prompts) != len(responses):
                raise ValueError(f"found {len(prompts)} prompts and {len(responses)} responses, wanted as many")
        texts = self._fill_template(prompts, responses)
        vectors, _ = self._embed(texts, self.feature_width_)
        return vectors.of(texts) * np.float32(self.scale_["response"])

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
            wanted = " and ".join(f"{part}s" for part in parts) or "prompts or contexts"
            raise ValueError(f"found no {' and no '.join(missing) or 'texts'}, wanted {wanted}")
        lengths = {name: len(texts) for name, texts in given.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"found {lengths['prompt']} prompts and {lengths['context']} contexts, wanted as many")
        texts_of = {part: given[part] for part in parts}
        vectors, _ = self._embed((text for texts in texts_of.values() for text in texts), self.feature_width_)
        return self._context(texts_of, vectors, max(lengths.values()))

    @property
    def n_context_features_(self) -> int:
        return sum(self.context_parts_.values())

    @property
    def n_prompt_features_(self) -> int:
        return self.context_parts_.get("prompt", 0)

    def get_feature_names_out(self, input_features: object = None) -> np.ndarray:
        """Names of the columns of X: the part and a number.

        Parameters
        ----------
        input_features : ignored

        Returns
        -------
        names : ndarray of str objects
        """
        check_is_fitted(self)
        widths = {**self.context_parts_, "response": self.feature_width_}
        return np.array([f"{part}_{i}" for part, width in widths.items() for i in range(width)], dtype=object)

    def to_config(self) -> dict[str, Any]:
        """What JSON can say about this fitted transformer; `from_config` restores it.

        Returns
        -------
        dict
        """
        check_is_fitted(self)
        return {
            "encoder": encoder_config(self.encoder_),
            "fingerprint": self.fingerprint_,
            "template": self.template,
            "context": self.context if isinstance(self.context, str) else list(self.context),
            "norms": self._check_norms(),
            "scale": dict(self.scale_),
            "context_parts": dict(self.context_parts_),
            "feature_width": self.feature_width_,
            "n_truncated": self.n_truncated_,
        }

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
        missing = sorted(_CONFIG_KEYS - config.keys())
        if missing:
            raise ValueError(f"found no {', '.join(missing)} in the description of a PairEncoder")
        context = config["context"]
        restored = cls(
            encoder_from_config(config["encoder"]) if encoder is None else encoder,
            store=store,
            template=config["template"],
            context=context if isinstance(context, str) else tuple(context),
            norms=dict(config["norms"]),
        )
        restored._resolve()
        if restored.fingerprint_ != config["fingerprint"]:
            raise EncoderMismatchError(
                f"fitted with the encoder {config['fingerprint']}, but found the encoder {restored.fingerprint_}"
            )
        restored.scale_ = dict(config["scale"])
        restored.context_parts_ = dict(config["context_parts"])
        restored.feature_width_ = config["feature_width"]
        restored.n_truncated_ = config["n_truncated"]
        return restored

    def _fit(self, table: PreferenceTable) -> _Vectors:
        ranks = active_communicator()
        vectors, measured = ranks.together(lambda: self._measure(table))
        everywhere = ranks.exchange(measured)
        for rank, other in enumerate(everywhere):
            if other.kind != everywhere[0].kind:
                raise ValueError(f"found {everywhere[0].kind} on rank 0 and {other.kind} on rank {rank}, wanted one")
        self.n_truncated_ = sum(one.n_truncated for one in everywhere)
        self.feature_width_ = vectors.width
        self.context_parts_ = {part: vectors.width for part in measured.norms if part != "response"}
        self.scale_ = {}
        for part in measured.norms:
            norms, n_rows = np.transpose([one.norms[part] for one in everywhere])
            self.scale_[part] = self._scale_of(part, root_mean_square(norms, n_rows))
        return vectors

    def _measure(self, table: PreferenceTable) -> tuple[_Vectors, _Measured]:
        """Vectors of all texts of a table, and what they say about scales."""
        self._check_norms()
        self._resolve()
        parts = self._context_columns(table)
        vectors, n_truncated = self._embed(self._texts(table, parts), stacklevel=7)
        chosen, rejected = self._responses(table)
        features = {part: vectors.of(_not_blank(_column(table, part))) for part in parts}
        features["response"] = vectors.of(chosen) - vectors.of(rejected)
        norms = {part: (float(root_mean_square_norms(of, 0)[1]), len(of)) for part, of in features.items()}
        kind = f"{self.fingerprint_} of width {vectors.width} with the parts {', '.join(norms)}"
        return vectors, _Measured(kind, norms, n_truncated)

    def _resolve(self) -> None:
        """Set the encoder and its fingerprint, after checking that template and store go with it."""
        fields = [field for _, field, _, _ in string.Formatter().parse(self.template) if field is not None]
        if "response" not in fields or not set(fields) <= {"prompt", "response"}:
            raise ValueError(
                f"template must have {{response}}, may have {{prompt}}, nothing else; got {self.template!r}"
            )
        encoder = resolve_encoder(self.encoder)
        self._store = EmbeddingStore(self.store, encoder) if isinstance(self.store, str | os.PathLike) else self.store
        if self._store is not None:
            stored = getattr(self._store, "fingerprint", "") or getattr(self._store.encoder, "fingerprint", None)
            if stored != encoder.fingerprint:
                raise EncoderMismatchError(
                    f"the store keeps vectors of the encoder {stored}, but the encoder is {encoder.fingerprint}"
                )
        self.encoder_ = encoder
        self.fingerprint_ = f"{encoder.fingerprint} template={self.template!r}"

    def _check_norms(self) -> dict[str, float]:
        norms = {**_DEFAULT_NORMS, **(self.norms or {})}
        if len(norms) > len(_DEFAULT_NORMS):
            raise ValueError(f"norms may have the keys {', '.join(_DEFAULT_NORMS)}; got {', '.join(map(repr, norms))}")
        for part, norm in norms.items():
            if not (np.isfinite(norm) and norm > 0):
                raise ValueError(f"norms[{part!r}] must be positive and finite; got {norm!r}")
        return norms

    def _context_columns(self, table: PreferenceTable) -> tuple[str, ...]:
        if isinstance(self.context, str) and self.context == "auto":
            return _CONTEXT_COLUMNS if table.context is not None else ("prompt",)
        if not _in_order(self.context):
            raise ValueError(
                f"context must be 'auto' or a part of {_CONTEXT_COLUMNS}, in this order; got {self.context!r}"
            )
        return tuple(self.context)

    def _check_parts(self, parts: Sequence[str] | None) -> tuple[str, ...]:
        if parts is None:
            return tuple(self.context_parts_)
        if not _in_order(parts):
            raise ValueError(f"parts must be a part of {_CONTEXT_COLUMNS}, in this order; got {parts!r}")
        for part in parts:
            if part not in self.context_parts_:
                hint = "; fit_context learns it" if part == "context" else ""
                raise ValueError(f"the part {part!r} was not seen in fitting{hint}")
        return tuple(parts)

    def _scale_of(self, part: str, norm: float) -> float:
        return self._check_norms()[part] / norm if norm > 0 else 1.0

    def _responses(self, table: PreferenceTable) -> tuple[list[str], list[str]]:
        return self._fill_template(table.prompt, table.chosen), self._fill_template(table.prompt, table.rejected)

    def _fill_template(self, prompts: list[str] | None, responses: list[str]) -> list[str]:
        if self.template == "{response}":
            return responses
        if prompts is None:
            if "{prompt}" in self.template:
                raise ValueError(f"found no prompts, wanted one for each response, for the template {self.template!r}")
            prompts = [""] * len(responses)
        return [
            self.template.format(prompt=prompt, response=response)
            for prompt, response in zip(prompts, responses, strict=True)
        ]

    def _texts(self, table: PreferenceTable, parts: Iterable[str]) -> Iterator[str]:
        for column in (*self._responses(table), *(_column(table, part) for part in parts)):
            yield from column

    def _assemble(self, table: PreferenceTable, parts: tuple[str, ...], vectors: _Vectors) -> np.ndarray:
        scale = np.float32(self.scale_["response"])
        # Each side is scaled before the difference is taken, exactly as encode_responses does.
        first, second = (vectors.of(texts) * scale for texts in self._responses(table))
        texts_of = {part: _column(table, part) for part in parts}
        return make_pairs(first, second, context=self._context(texts_of, vectors, len(table)))

    def _context(self, texts_of: Mapping[str, list[str]], vectors: _Vectors, n_rows: int) -> np.ndarray:
        blocks = [vectors.of(texts) * np.float32(self.scale_[part]) for part, texts in texts_of.items()]
        return np.hstack([np.empty((n_rows, 0), dtype=np.float32), *blocks])

    def _embed(self, texts: Iterable[str], width: int | None = None, stacklevel: int = 4) -> tuple[_Vectors, int]:
        """Vectors of the distinct texts, and how many of these were cut."""
        distinct = [text for text in dict.fromkeys(texts) if not is_blank(text)]
        before, start = getattr(self.encoder_, "n_truncated_total_", 0), time.perf_counter()
        row_of: dict[str, int] = {}
        blocks: list[np.ndarray] = []
        # A store sorts its work, and shows its progress, by itself.
        source, batches = (self.encoder_, _batches(distinct)) if self._store is None else (self._store, [distinct])
        for batch in batches:
            block = _check_vectors(source, batch, source.encode(batch), width)
            row_of.update((text, row) for row, text in enumerate(batch, start=len(row_of)))
            blocks.append(block)
            width = block.shape[1]
        n_truncated = getattr(self.encoder_, "n_truncated_total_", 0) - before
        if n_truncated:
            warnings.warn(
                f"{n_truncated} of {len(distinct)} distinct texts are longer than the encoder reads; "
                "what goes beyond is ignored",
                TruncationWarning,
                stacklevel=stacklevel,
            )
        if self.verbose:
            seconds = time.perf_counter() - start
            print(f"[PairEncoder] embedded {len(distinct)} distinct texts in {seconds:.1f} s", file=sys.stderr)
        return _Vectors(row_of, np.concatenate([*blocks, np.zeros((1, width or 0), dtype=np.float32)])), n_truncated

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "scale_")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.dict = True
        return tags


class _Vectors:
    """Vectors of distinct texts; the last row, of zeros, stands for blank ones."""

    def __init__(self, row_of: dict[str, int], vectors: np.ndarray):
        self.row_of = row_of
        self.vectors = vectors

    @property
    def width(self) -> int:
        return self.vectors.shape[1]

    def of(self, texts: Sequence[str]) -> np.ndarray:
        return self.vectors[[self.row_of.get(text, -1) for text in texts]]


class _Measured(NamedTuple):
    """What the texts of one rank add to the scales: the kind of vectors, norm and rows of each part, texts cut."""

    kind: str
    norms: dict[str, tuple[float, int]]
    n_truncated: int


def _as_table(source: Any) -> PreferenceTable:
    table = read_preferences(source)
    if not len(table):
        raise ValueError("found no comparisons, wanted at least one")
    rows_are_known = not isinstance(source, str | os.PathLike | Mapping)
    if rows_are_known and len(source) != len(table):
        raise ValueError(
            f"found ties: {len(source)} rows became {len(table)}, wanted one for each; "
            "turn the data into a table with read_preferences before it goes into an estimator"
        )
    return table


def _column(table: PreferenceTable, part: str) -> list[str]:
    texts: list[str] | None = getattr(table, part)
    if texts is None:
        raise ValueError(
            f"found no column {part!r} in the table, wanted it as a part of X; without it, "
            "encode_pairs(table, parts=('prompt',)) gives the other columns"
        )
    return texts


def _not_blank(texts: Iterable[str]) -> list[str]:
    return [text for text in texts if not is_blank(text)]


def _in_order(parts: Any) -> bool:
    return not isinstance(parts, str) and list(parts) == [part for part in _CONTEXT_COLUMNS if part in parts]


def _batches(texts: list[str]) -> Iterable[list[str]]:
    """The texts in batches, long ones first, behind a progress bar if that takes long and a person is watching."""
    by_length = sorted(texts, key=len, reverse=True)
    batches = [by_length[start : start + _BATCH_TEXTS] for start in range(0, len(by_length), _BATCH_TEXTS)]
    if len(texts) < _PROGRESS_FROM or not sys.stderr.isatty():
        return batches
    from rich.console import Console
    from rich.progress import track

    return track(batches, description="Embedding", console=Console(file=sys.stderr), transient=True)


def _check_vectors(source: object, texts: list[str], vectors: Any, width: int | None) -> np.ndarray:
    # Too large for float32 is infinite, and an error below.
    with np.errstate(over="ignore"):
        vectors = np.asarray(vectors, dtype=np.float32)
    name = type(source).__name__
    if vectors.ndim != 2 or vectors.shape[0] != len(texts) or vectors.shape[1] != (width or vectors.shape[1]):
        wanted = f"({len(texts)}, {'n_dimensions' if width is None else width})"
        raise ValueError(f"{name}.encode returned shape {vectors.shape}, wanted {wanted}")
    finite = np.isfinite(vectors).all(axis=1)
    if not finite.all():
        raise ValueError(f"{name}.encode returned NaN or infinity for {reprlib.repr(texts[int(np.argmin(finite))])}")
    return vectors
