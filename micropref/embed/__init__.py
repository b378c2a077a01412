"""Encoders of texts, and the transformer from tables of comparisons to X."""

from __future__ import annotations

from micropref.embed._plan import EmbeddingPlan, plan_embedding
from micropref.embed._shards import DamagedShardError
from micropref.embed._upkeep import Compaction
from micropref.embed.encoders import EncoderMismatchError, encoder_config, encoder_from_config, resolve_encoder
from micropref.embed.hashing import HashingEncoder
from micropref.embed.http import EmbeddingServerError, HTTPEncoder
from micropref.embed.last_token import EXCHANGE_TEMPLATE, LastTokenEncoder
from micropref.embed.loaded import LoadedEncoder
from micropref.embed.pair_encoder import PairEncoder, TruncationWarning
from micropref.embed.protocol import Encoder
from micropref.embed.sentence import SentenceTransformerEncoder
from micropref.embed.static import StaticEncoder
from micropref.embed.store import EmbeddingStore

__all__ = [
    "EXCHANGE_TEMPLATE",
    "Compaction",
    "DamagedShardError",
    "EmbeddingPlan",
    "EmbeddingServerError",
    "EmbeddingStore",
    "Encoder",
    "EncoderMismatchError",
    "HTTPEncoder",
    "HashingEncoder",
    "LastTokenEncoder",
    "LoadedEncoder",
    "PairEncoder",
    "SentenceTransformerEncoder",
    "StaticEncoder",
    "TruncationWarning",
    "encoder_config",
    "encoder_from_config",
    "plan_embedding",
    "resolve_encoder",
]
