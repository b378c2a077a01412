"""StaticEncoder: means of static token vectors, in NumPy."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from numbers import Integral
from pathlib import Path
from typing import Any, Self

import numpy as np

from micropref._support.cached import cached_property
from micropref._support.optional import require
from micropref.embed._fetched import Fetched, fetch
from micropref.embed._model_encoder import named
from micropref.embed._texts import check_texts
from micropref.embed._unit_length import of_unit_length

__all__ = ["StaticEncoder"]

_PURPOSE = "Embedding texts with a model2vec model"
_FILES = ("*.json", "*.safetensors", "0_StaticEmbedding/*", "README.md")
# What vectors depend on.
_MODEL_FILES = frozenset({".json", ".safetensors"})
_BATCH_TEXTS = 1_024


class StaticEncoder:
    """Embed texts with a model2vec model, such as ``minishlab/potion-base-8M``; needs ``micropref[embed-light]``.

    A vector is the mean of the vectors of a text's tokens: no transformer, no torch, thousands of texts per second on
    one core. A string says the same: ``encoder="model2vec:minishlab/potion-base-8M"``. No text is ever cut, whatever
    length the model was distilled with.

    Parameters
    ----------
    model_name_or_path : str
        A name on the Hugging Face hub or a folder.
    revision : str, optional
        Branch, tag or commit on the hub. Without it the newest one is taken; the fingerprint has its commit.
    truncate_dim : int, optional
        Keep only the first so many dimensions; model2vec orders them by how much they say.
    normalize : bool, optional
        Whether vectors are scaled to length 1, after `truncate_dim`. By default as the model says.
    """

    def __init__(
        self,
        model_name_or_path: str,
        *,
        revision: str | None = None,
        truncate_dim: int | None = None,
        normalize: bool | None = None,
    ):
        if truncate_dim is not None and not (isinstance(truncate_dim, Integral) and int(truncate_dim) >= 1):
            raise ValueError(f"truncate_dim: expected an integer of at least 1 or None, got {truncate_dim!r}")
        folder = Path(model_name_or_path).expanduser()
        # A folder is found again from another working directory.
        self.model_name_or_path = str(folder.resolve() if folder.is_dir() else model_name_or_path)
        self.revision = revision
        self.truncate_dim = truncate_dim
        self.normalize = normalize

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Vectors of the texts.

        Parameters
        ----------
        texts : sequence of n str
            One in which the model finds no token is a vector of zeros.

        Returns
        -------
        vectors : ndarray of shape (n, n_dimensions), dtype float32

        Raises
        ------
        TypeError, ValueError
            If a text is not a string, or cannot be written as UTF-8; the message has its index.
        ImportError
            If model2vec is not installed.
        """
        texts = check_texts(texts, allow_blank=True)
        if not texts:
            return np.empty((0, self._dimension), dtype=np.float32)
        found = self._model.encode(
            texts, max_length=None, normalize=False, batch_size=_BATCH_TEXTS, use_multiprocessing=False
        )
        vectors = np.array(found[:, : self._dimension], dtype=np.float32)
        if self._normalizes:
            vectors = of_unit_length(vectors)
        return vectors

    def count_truncated(self, texts: Sequence[str]) -> int:
        """Always 0, because this encoder reads texts of any length.

        Parameters
        ----------
        texts : sequence of n str

        Returns
        -------
        n_truncated : int
        """
        return 0

    @cached_property
    def fingerprint(self) -> str:
        """Names the model by content or commit, and every parameter that changes vectors."""
        files = [path for path in self._fetched.folder.rglob("*") if path.suffix in _MODEL_FILES and path.is_file()]
        return named(
            "model2vec",
            {
                "model": self._fetched.identity(files),
                "max_length": None,
                "normalize": self._normalizes,
                "dimension": self._dimension,
            },
        )

    def get_params(self) -> dict[str, Any]:
        """The arguments of the constructor.

        Returns
        -------
        parameters : dict of str to object
        """
        return {name: getattr(self, name) for name in list(inspect.signature(type(self).__init__).parameters)[1:]}

    @cached_property
    def _fetched(self) -> Fetched:
        return fetch(self.model_name_or_path, self.revision, _FILES, _PURPOSE)

    @cached_property
    def _model(self) -> Any:
        model2vec = require("model2vec", _PURPOSE)
        try:
            model = model2vec.StaticModel.from_pretrained(self._fetched.folder)
        except ValueError as error:
            raise ValueError(f"{self.model_name_or_path}: expected a model2vec model, got none: {error}") from None
        if self.truncate_dim is not None and model.dim < self.truncate_dim:
            raise ValueError(
                f"truncate_dim: expected at most {model.dim}, the dimensions of the model, got {self.truncate_dim}"
            )
        return model

    @property
    def _dimension(self) -> int:
        return int(self.truncate_dim or self._model.dim)

    @property
    def _normalizes(self) -> bool:
        return bool(self._model.normalize if self.normalize is None else self.normalize)

    def __sklearn_clone__(self) -> Self:
        # Nothing is learned, so that the folds of a cross-validation can share one loaded model.
        return self

    def __getstate__(self) -> dict[str, Any]:
        return self.get_params()

    def __repr__(self) -> str:
        parameters = self.get_params()
        name = parameters.pop("model_name_or_path")
        changed = [f", {key}={value!r}" for key, value in parameters.items() if value is not None]
        return f"StaticEncoder({name!r}{''.join(changed)})"
