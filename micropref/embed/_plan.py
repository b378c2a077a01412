"""What embedding a corpus would take, before it is begun."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from micropref.embed._texts import check_texts
from micropref.embed.protocol import Encoder
from micropref.embed.store import EmbeddingStore

_SAMPLE = 64


@dataclass(frozen=True)
class EmbeddingPlan:
    """Result of `plan_embedding`.

    Attributes
    ----------
    n_distinct : int
        Distinct texts of the input.
    n_cached, n_missing : int
        Distinct texts whose vectors are kept already, and those that would be computed.
    n_truncated : int or None
        Missing texts that are longer than the encoder reads; None for an encoder that cannot tell.
    seconds : float
        Estimated time: the time of a sample of missing texts, by characters.
    n_sampled : int
        Texts in that sample.
    """

    n_distinct: int
    n_cached: int
    n_missing: int
    n_truncated: int | None
    seconds: float
    n_sampled: int


def plan_embedding(
    encoder: Encoder, texts: Iterable[str], store: EmbeddingStore | None = None, *, random_state: int = 0
) -> EmbeddingPlan:
    """Count what would be embedded and estimate how long that takes; nothing is kept.

    Parameters
    ----------
    encoder : Encoder
    texts : iterable of str
    store : EmbeddingStore, optional
        Where vectors may be kept already.
    random_state : int, default=0
        Seed of the sample of 64 missing texts that is embedded twice: once to warm up, once for the time.

    Returns
    -------
    plan : EmbeddingPlan
    """
    distinct = list(dict.fromkeys(check_texts(list(texts), allow_blank=True)))
    missing = distinct if store is None else store.missing(distinct)
    seconds, sample = 0.0, []
    if missing:
        drawn = np.random.default_rng(random_state).permutation(len(missing))[:_SAMPLE]
        sample = sorted((missing[i] for i in drawn), key=len)
        encoder.encode(sample)
        start = time.perf_counter()
        encoder.encode(sample)
        share = max(sum(map(len, sample)), 1) / max(sum(map(len, missing)), 1)
        seconds = (time.perf_counter() - start) / share
    count = getattr(encoder, "count_truncated", None)
    return EmbeddingPlan(
        n_distinct=len(distinct),
        n_cached=len(distinct) - len(missing),
        n_missing=len(missing),
        n_truncated=None if count is None else count(missing),
        seconds=seconds,
        n_sampled=len(sample),
    )
