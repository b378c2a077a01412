"""What a fit makes of the parameters of a PairEncoder, once; whatever comes after it reads no parameter."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from micropref.datasets.table import PreferenceTable
from micropref.embed._columns import CONTEXT_PARTS, are_context_parts, context_texts
from micropref.embed._scales import checked_norms
from micropref.embed._template import Template
from micropref.embed._vectors import Vectors, embed_texts
from micropref.embed.encoders import EncoderMismatchError, resolve_encoder
from micropref.embed.protocol import Encoder, Store
from micropref.embed.store import EmbeddingStore


@dataclass(frozen=True)
class Settings:
    """Checked parameters.

    Attributes
    ----------
    encoder : Encoder
    store : Store or None
        Of the same encoder.
    template : Template
    context : "auto" or tuple of str
    norms : dict of str to float
        Of every part.
    """

    encoder: Encoder
    store: Store | None
    template: Template
    context: Literal["auto"] | tuple[str, ...]
    norms: dict[str, float]

    @staticmethod
    def of(
        encoder: str | Encoder,
        store: Store | str | os.PathLike[str] | None,
        template: str,
        context: str | Sequence[str],
        norms: Mapping[str, float] | None,
    ) -> Settings:
        """Check the parameters of a `PairEncoder`, and open its store.

        Raises
        ------
        ValueError
            If one of them is not usable, or the store belongs to another encoder.
        """
        resolved = resolve_encoder(encoder)
        return Settings(
            encoder=resolved,
            norms=checked_norms(norms),
            template=Template(template),
            context=_checked_context(context),
            store=_opened_store(store, resolved),
        )

    @property
    def fingerprint(self) -> str:
        """Names everything that the vector of a response depends on."""
        return f"{self.encoder.fingerprint} template={self.template.text!r}"

    def parts_of(self, table: PreferenceTable) -> tuple[str, ...]:
        """The context parts of X that a table gives."""
        if self.context == "auto":
            return CONTEXT_PARTS if table.context is not None else ("prompt",)
        return self.context

    def responses(self, table: PreferenceTable) -> tuple[list[str], list[str]]:
        """The first and the second response of each row, in the template."""
        return self.template.fill(table.prompt, table.chosen), self.template.fill(table.prompt, table.rejected)

    def texts(self, table: PreferenceTable, parts: Iterable[str]) -> Iterator[str]:
        """All texts that the rows of a table need."""
        for column in (*self.responses(table), *(context_texts(table, part) for part in parts)):
            yield from column

    def embed(self, texts: Iterable[str], *, width: int | None = None, verbose: int = 0) -> Vectors:
        """Vectors of texts, from the store where there is one."""
        return embed_texts(texts, self.encoder, self.store, width=width, verbose=verbose)


def _checked_context(context: str | Sequence[str]) -> Literal["auto"] | tuple[str, ...]:
    if context == "auto":
        return "auto"
    if not are_context_parts(context):
        raise ValueError(f"context: expected 'auto' or a part of {CONTEXT_PARTS}, in this order, got {context!r}")
    return tuple(context)


def _opened_store(store: Store | str | os.PathLike[str] | None, encoder: Encoder) -> Store | None:
    opened = EmbeddingStore(store, encoder) if isinstance(store, str | os.PathLike) else store
    if opened is not None:
        stored = getattr(opened, "fingerprint", "") or getattr(opened.encoder, "fingerprint", None)
        if stored != encoder.fingerprint:
            raise EncoderMismatchError(
                f"expected a store of the encoder {encoder.fingerprint}, got one that keeps vectors of {stored}"
            )
    return opened
