"""Many texts through a transformer: tokenised once and ahead of the computation, and padded as little as possible.

A batch costs what its longest text does, and characters say little about tokens: on arguments of web users, batches
of 32 sorted by characters hold a third more tokens than their texts do, sorted by tokens a twentieth.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from micropref._support.optional import require

# Texts that are tokenised, and sorted, together. More would be sorted better and overlap less.
_CHUNK_TEXTS = 1_024


def is_padded_transformer(model: Any) -> bool:
    """Whether a sentence-transformers model begins with a transformer that reads padded batches of text only.

    Others are static word vectors, models of pictures, code that came with a model, and flash attention, which reads
    texts end to end.
    """
    modules = require("sentence_transformers.sentence_transformer.modules", "Embedding texts")
    first = model[0]
    fast = isinstance(first, modules.Transformer) and getattr(first.processor, "is_fast", False)
    return fast and not first.can_flatten_inputs


def forward(
    model: Any,
    texts: Sequence[str],
    tokenize: Callable[[list[str]], Any],
    batch_size: int,
    advance: Callable[[int], object],
) -> tuple[np.ndarray, int]:
    """Vectors of the texts, and how many of these were cut.

    Parameters
    ----------
    model : SentenceTransformer
        `is_padded_transformer` of it.
    texts : sequence of n str
    tokenize : callable
        Turns some texts into padded features, as the model's `preprocess` does. Called in another thread.
    batch_size : int
    advance : callable
        Called with the number of texts of each batch that is done.

    Returns
    -------
    vectors : ndarray of shape (n, n_dimensions), dtype float32
        A text without any token, as an empty one may be, is a vector of zeros.
    n_truncated : int
    """
    torch = require("torch", "Embedding texts")
    # Long texts first: memory that does not suffice is known at once.
    order = sorted(range(len(texts)), key=lambda index: len(texts[index]), reverse=True)
    chunks = [order[start : start + _CHUNK_TEXTS] for start in range(0, len(order), _CHUNK_TEXTS)]
    width = model.get_embedding_dimension()
    vectors = np.zeros((len(texts), width), dtype=np.float32)
    n_truncated = 0
    for chunk, features in zip(chunks, _ahead(tokenize, ([texts[i] for i in chunk] for chunk in chunks)), strict=True):
        n_truncated += _n_cut(features)
        rows_of, parts = [], []
        with torch.inference_mode():
            for rows, batch in _batches(features, batch_size):
                batch = {
                    name: value.to(model.device) if torch.is_tensor(value) else value for name, value in batch.items()
                }
                parts.append(model(batch)["sentence_embedding"][:, :width].float())
                rows_of.append(rows)
                advance(len(rows))
            if parts:
                # Once a chunk, since a copy waits for the device.
                vectors[np.asarray(chunk)[torch.cat(rows_of).numpy()]] = torch.cat(parts).cpu().numpy()
    return vectors, n_truncated


def count_cut(texts: Sequence[str], tokenize: Callable[[list[str]], Any]) -> int:
    """Number of texts that `forward` would cut; nothing is computed but tokens."""
    chunks = (list(texts[start : start + _CHUNK_TEXTS]) for start in range(0, len(texts), _CHUNK_TEXTS))
    return sum(_n_cut(tokenize(chunk)) for chunk in chunks)


def _n_cut(features: Any) -> int:
    return sum(bool(encoding.overflowing) for encoding in features.encodings)


def _ahead(function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
    """Results of the function in order; each is computed in another thread while the one before is in use."""
    with ThreadPoolExecutor(1, thread_name_prefix="micropref-tokens") as thread:
        coming: Future[Any] | None = None
        for item in items:
            following = thread.submit(function, item)
            if coming is not None:
                yield coming.result()
            coming = following
        if coming is not None:
            yield coming.result()


def _batches(features: Any, batch_size: int) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Row numbers of texts of about the same number of tokens, and their features without needless padding."""
    mask = features["attention_mask"]
    lengths = mask.sum(dim=1)
    order = lengths.argsort(descending=True, stable=True)[: int((lengths > 0).sum())]
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        columns = mask[rows].any(dim=0)
        yield (
            rows,
            {
                name: value[rows][:, columns] if getattr(value, "shape", None) == mask.shape else value
                for name, value in features.items()
            },
        )
