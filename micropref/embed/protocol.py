"""What turns texts into vectors, and what keeps them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from micropref._support.renamed import moved

__all__ = ["Encoder", "Store"]

__getattr__ = moved(__name__)


@runtime_checkable
class Encoder(Protocol):
    """Protocol of an encoder: any object with these two members turns texts into vectors.

    An encoder may also have ``n_truncated_total_``, the number of texts so far that were longer than it reads;
    ``count_truncated(texts)``, how many of some texts are; and ``batch_size``, how many it embeds together.
    """

    @property
    def fingerprint(self) -> str:
        """Text that names everything the vectors depend on; encoders with the same fingerprint give the same vectors.

        That is the model and its revision or content, pooling, prompt, maximum length, dtype, normalisation, dimension.
        """

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Vectors of the texts.

        Parameters
        ----------
        texts : sequence of n str
            `PairEncoder` never asks for a blank one. An `EmbeddingStore` does where it was given one: it wants a
            vector, zeros for instance, or an error that names the text.

        Returns
        -------
        vectors : ndarray of shape (n, n_dimensions), dtype float32
        """


class Store(Protocol):
    """Keeps the vectors of one encoder."""

    @property
    def encoder(self) -> Encoder | None:
        """The encoder whose vectors are kept."""

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Vectors of the texts, computed only where they are missing.

        Parameters
        ----------
        texts : sequence of n str

        Returns
        -------
        vectors : ndarray of shape (n, n_dimensions), dtype float32
        """
