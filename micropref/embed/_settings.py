"""What a fit makes of the parameters of a PairEncoder, once; whatever comes after it reads no parameter."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from micropref.datasets.table import PreferenceTable
from micropref.embed._clauses import all_clauses
from micropref.embed._columns import CONTEXT_PARTS, are_context_parts, context_texts
from micropref.embed._responses import Stated
from micropref.embed._scales import checked_norms
from micropref.embed._template import Template
from micropref.embed._vectors import Vectors, embed_texts
from micropref.embed.encoders import EncoderMismatchError, resolve_encoder
from micropref.embed.protocol import Encoder, Store
from micropref.embed.store import EmbeddingStore
from micropref.features.interactions import ContextInteractions


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
    interactions : ContextInteractions or None
        Unfitted, with the factors and axes that were asked for.
    clauses, length : bool
    """

    encoder: Encoder
    store: Store | None
    template: Template
    context: Literal["auto"] | tuple[str, ...]
    norms: dict[str, float]
    interactions: ContextInteractions | None = None
    clauses: bool = False
    length: bool = False

    @staticmethod
    def of(
        encoder: str | Encoder,
        store: Store | str | os.PathLike[str] | None,
        template: str,
        context: str | Sequence[str],
        norms: Mapping[str, float] | None,
        *,
        interactions: bool | ContextInteractions | None = None,
        clauses: bool = False,
        length: bool = False,
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
            interactions=_checked_interactions(interactions),
            clauses=_checked_flag("clauses", clauses),
            length=_checked_flag("length", length),
        )

    @property
    def fingerprint(self) -> str:
        """Names everything that the vector of a response depends on."""
        return f"{self.encoder.fingerprint} template={self.template.text!r}"

    @property
    def is_plain(self) -> bool:
        """Whether the difference is all that follows the context."""
        return not self.acts and not self.length

    @property
    def acts(self) -> bool:
        """Whether columns that follow the difference depend on prompts and contexts."""
        return self.interactions is not None or self.clauses

    def parts_of(self, table: PreferenceTable) -> tuple[str, ...]:
        """The context parts of X that a table gives."""
        if self.context == "auto":
            return CONTEXT_PARTS if table.context is not None else ("prompt",)
        return self.context

    def responses(self, table: PreferenceTable) -> tuple[list[str], list[str]]:
        """The first and the second response of each row, in the template."""
        return self.template.fill(table.prompt, table.chosen), self.template.fill(table.prompt, table.rejected)

    def stated(self, table: PreferenceTable) -> Stated | None:
        """What acts on the responses of each row; None if nothing does; a ValueError if the table has no contexts."""
        if not self.acts:
            return None
        if table.context is None:
            raise ValueError(
                "expected a column 'context' in the table, which interactions and clauses read, got none; fill it with "
                "blanks in rows that state nothing, or pass interactions=None, clauses=False"
            )
        return Stated(table.prompt, table.context)

    def texts(self, table: PreferenceTable, parts: Iterable[str]) -> Iterator[str]:
        """All texts that the rows of a table need."""
        stated = self.stated(table)
        for column in self.responses(table):
            yield from column
        for part in parts:
            yield from context_texts(table, part)
        if stated is not None:
            yield from self.texts_stated(stated)

    def texts_stated(self, stated: Stated) -> Iterator[str]:
        """The texts that act, and the clauses of contexts where these do."""
        if self.interactions is not None:
            yield from stated.contexts
        yield from stated.prompts
        if self.clauses:
            yield from all_clauses(stated.contexts)

    def embed(self, texts: Iterable[str], *, width: int | None = None, verbose: int = 0) -> Vectors:
        """Vectors of texts, from the store where there is one."""
        return embed_texts(texts, self.encoder, self.store, width=width, verbose=verbose)


def _checked_context(context: str | Sequence[str]) -> Literal["auto"] | tuple[str, ...]:
    if context == "auto":
        return "auto"
    if not are_context_parts(context):
        raise ValueError(f"context: expected 'auto' or a part of {CONTEXT_PARTS}, in this order, got {context!r}")
    return tuple(context)


def _checked_interactions(interactions: bool | ContextInteractions | None) -> ContextInteractions | None:
    if interactions is None or interactions is False:
        return None
    if interactions is True:
        return ContextInteractions(0)
    if not isinstance(interactions, ContextInteractions):
        raise ValueError(f"interactions: expected None, True, or a ContextInteractions, got {interactions!r}")
    return interactions


def _checked_flag(name: str, value: bool) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{name}: expected True or False, got {value!r}")
    return value


def _opened_store(store: Store | str | os.PathLike[str] | None, encoder: Encoder) -> Store | None:
    opened = EmbeddingStore(store, encoder) if isinstance(store, str | os.PathLike) else store
    if opened is not None:
        stored = getattr(opened, "fingerprint", "") or getattr(opened.encoder, "fingerprint", None)
        if stored != encoder.fingerprint:
            raise EncoderMismatchError(
                f"expected a store of the encoder {encoder.fingerprint}, got one that keeps vectors of {stored}"
            )
    return opened
