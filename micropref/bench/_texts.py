"""Vectors of the texts of a data set: hashed on the spot, or from a store that every encoder fills once."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from micropref._support.text import counted
from micropref.bench._cells import key_of
from micropref.bench._specs import DatasetSpec

if TYPE_CHECKING:
    from micropref.datasets import PreferenceTable
    from micropref.embed import EmbeddingStore, Encoder
    from micropref.embed._template import Template

# Folder of the stores, beside the data.
_STORES = "embeddings"
# Parameters that change vectors by rounding alone, or say where a server is.
_NO_PART_OF_A_NAME = ("batch_size", "url")
_BLOCK = 1 << 14


class Vectors:
    """Vectors of texts; zeros for a blank text.

    Parameters
    ----------
    texts : sequence of n str
    vectors : ndarray of shape (n, width)
    source : str, optional
        What they come from, for the tables.
    """

    def __init__(self, texts: Sequence[str], vectors: np.ndarray, source: str = ""):
        self.row_of = {text: i for i, text in enumerate(texts)}
        self.table = np.concatenate([np.asarray(vectors, dtype=np.float32), np.zeros((1, vectors.shape[1]), "f4")])
        self.source = source

    def look_up(self, texts: Iterable[str]) -> np.ndarray:
        return np.asarray(self.table[[self.row_of.get(text, -1) for text in texts]])


@dataclass(frozen=True)
class Texts:
    """What of a table is embedded.

    Attributes
    ----------
    chosen, rejected : list of str
        Responses in the template.
    others : list of list of str
        Columns of prompts and contexts, as far as they are features.
    """

    chosen: list[str]
    rejected: list[str]
    others: tuple[list[str], ...] = ()

    def distinct(self) -> list[str]:
        """Those that are not blank, each once."""
        columns = (*self.others, self.chosen, self.rejected)
        return list(dict.fromkeys(text for column in columns for text in column if text.strip()))


def responses_only(table: PreferenceTable) -> Texts:
    """The texts of a table whose vectors came with it."""
    return Texts(table.chosen, table.rejected)


def texts_of(spec: DatasetSpec, table: PreferenceTable) -> Texts:
    """The texts of a table that an encoder reads."""
    template = _template(spec, _encoder(spec))
    others = [table.prompt] if spec.prompt_scale else []
    others += [table.context] if spec.context_scale and table.context is not None else []
    chosen, rejected = (template.fill(table.prompt, texts) for texts in (table.chosen, table.rejected))
    return Texts(chosen, rejected, tuple(others))


def check_encoder(spec: DatasetSpec) -> None:
    """A ValueError for an encoder or a template that is none, before hours are spent on other data sets."""
    if spec.kind in ("file", "hub"):
        _template(spec, _encoder(spec))


def uses_store(spec: DatasetSpec) -> bool:
    """Whether vectors of a data set are kept: hashing is as fast as reading."""
    from micropref.embed import HashingEncoder

    return spec.kind in ("file", "hub") and not isinstance(_encoder(spec), HashingEncoder)


def vectors_of(spec: DatasetSpec, texts: Texts, stores: Path) -> Vectors:
    """Vectors of the texts; those that a store lacks are computed.

    Parameters
    ----------
    spec : DatasetSpec
    texts : Texts
    stores : Path
        Folder of the stores, one for each encoder.

    Returns
    -------
    Vectors
    """
    distinct = texts.distinct()
    if not uses_store(spec):
        return Vectors(distinct, _encoder(spec).encode(distinct))
    store = _complete(spec, stores, distinct)
    if store is None:
        store = _filling(spec, stores)
        store.add(distinct)
    rows = store.locate(distinct)
    table = np.empty((len(distinct), store.n_dimensions or 0), dtype=np.float32)
    for start in range(0, len(rows), _BLOCK):
        table[start : start + _BLOCK] = store.gather(rows[start : start + _BLOCK])
    cut = store.info()["n_truncated"]
    said = f"; {counted(cut, 'text')} of the store longer than it reads" if cut else ""
    found = Vectors(distinct, table, f"texts embedded by {store.fingerprint}{said}")
    store.close()
    return found


def fill_store(spec: DatasetSpec, texts: Texts, stores: Path, part: tuple[int, int]) -> int:
    """Compute this process's part of the vectors that a store lacks; an interrupted one resumes. How many they were.

    Parameters
    ----------
    spec : DatasetSpec
    texts : Texts
    stores : Path
    part : tuple of two int
        As in `EmbeddingStore.add`.

    Returns
    -------
    n_new : int
    """
    distinct = texts.distinct()
    if (store := _complete(spec, stores, distinct)) is not None:
        store.close()
        return 0
    with _filling(spec, stores) as store:
        return store.add(distinct, part=part)


def folder_of_stores(spec: DatasetSpec, data: Path | None, asked: Path | None) -> Path:
    """Where the stores of a data set are: as it says, else as asked for, else beside the data."""
    beside = Path() if data is None else data
    return beside / spec.store if spec.store else beside / _STORES if asked is None else asked


def _complete(spec: DatasetSpec, stores: Path, texts: list[str]) -> EmbeddingStore | None:
    """The store if it has all the texts; no model is loaded for it."""
    from micropref.embed import EmbeddingStore
    from micropref.embed._indexed import is_store

    folder = stores / _name(spec)
    if not is_store(folder):
        return None
    store = EmbeddingStore(folder)
    if not store.missing(texts):
        return store
    store.close()
    return None


def _filling(spec: DatasetSpec, stores: Path) -> EmbeddingStore:
    from micropref.embed import EmbeddingStore
    from micropref.embed._devices import on_own_device

    return EmbeddingStore(stores / _name(spec), on_own_device(_encoder(spec)))


def _encoder(spec: DatasetSpec) -> Encoder:
    from micropref.embed import resolve_encoder

    try:
        return resolve_encoder(spec.encoder)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{spec.name}: encoder: {error}") from None


def _template(spec: DatasetSpec, encoder: Encoder) -> Template:
    from micropref.embed import EXCHANGE_TEMPLATE, LastTokenEncoder
    from micropref.embed._template import Template

    is_chat = isinstance(encoder, LastTokenEncoder) and encoder.chat
    try:
        return Template(spec.template or (EXCHANGE_TEMPLATE if is_chat else "{response}"))
    except ValueError as error:
        raise ValueError(f"{spec.name}: template: {error}") from None


def _name(spec: DatasetSpec) -> str:
    """Folder of the store of an encoder: readable, and another one for other parameters or another model folder."""
    from micropref.embed.encoders import encoder_parameters

    described = encoder_parameters(_encoder(spec))
    if described is None:
        raise ValueError(f"{spec.name}: encoder: expected a name or a table, got {spec.encoder!r}")
    params = {name: value for name, value in described["params"].items() if name not in _NO_PART_OF_A_NAME}
    model = str(params.get("model_name_or_path", params.get("model", "")))
    if Path(model).is_dir():
        # A folder may be moved, and another model put into its place.
        params["model_name_or_path"] = _content(model)
    short = re.sub(r"[^A-Za-z0-9]+", "-", model.rstrip("/").rpartition("/")[2]).strip("-")[:40]
    return f"{described['kind']}-{short}-{key_of([described['kind'], params])[:12]}"


@cache
def _content(folder: str) -> str:
    from micropref.embed._model_encoder import content_hash

    return content_hash(Path(folder))
