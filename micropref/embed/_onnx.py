"""A sentence-transformers model whose transformer is an ONNX graph: tokenizer, graph and pooling, without torch."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from micropref._support.optional import require
from micropref.embed._fetched import fetch, read_json
from micropref.embed._unit_length import of_unit_length

__all__ = ["OnnxModel"]

_PURPOSE = "Embedding texts with an ONNX model"
_GRAPHS = ("onnx/model.onnx", "model.onnx")
# Texts that are tokenised, and sorted, together.
_CHUNK_TEXTS = 1_024
_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
_POOLINGS = ("mean", "cls", "max", "lasttoken", "mean_sqrt_len_tokens")
_OLD_NAMES = {"cls_token": "cls", "mean_tokens": "mean", "max_tokens": "max"}


class OnnxModel:
    """The parts of a sentence-transformers model, its transformer run by onnxruntime.

    Parameters
    ----------
    name_or_path : str
    revision : str, optional
    file_name : str, optional
        The graph, within the model; by default ``onnx/model.onnx`` or ``model.onnx``.
    max_length : int, optional
        Tokens that are read; by default the model's own limit.
    device : str, optional
        ``"cpu"``, the default, or ``"cuda"``.

    Raises
    ------
    FileNotFoundError, ValueError
        If a part is missing, or is one that is not understood; it is named.
    """

    def __init__(
        self,
        name_or_path: str,
        *,
        revision: str | None = None,
        file_name: str | None = None,
        max_length: int | None = None,
        device: str | None = None,
    ):
        runtime, tokenizers = require("onnxruntime", _PURPOSE), require("tokenizers", _PURPOSE)
        graphs = _GRAPHS if file_name is None else (file_name,)
        files = ["*.json", *graphs, *(f"{name}_data" for name in graphs)]
        self._fetched = fetch(name_or_path, revision, files, _PURPOSE)
        folder = self._fetched.folder
        self._graph = _found(folder, graphs, "an ONNX graph")
        self._tokenizer_file = _found(folder, ("tokenizer.json",), "a fast tokenizer")
        self.pooling, self.normalizes = _modules(folder)
        settings = read_json(folder / "config_sentence_transformers.json")
        self.prompts: dict[str, str] = dict(settings.get("prompts") or {})
        self.default_prompt_name: str | None = settings.get("default_prompt_name")
        self.max_length = _limit(folder, max_length)
        self._tokenizer = tokenizers.Tokenizer.from_file(str(self._tokenizer_file))
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        if self.max_length is not None:
            self._tokenizer.enable_truncation(self.max_length)
        self._session = runtime.InferenceSession(str(self._graph), providers=_providers(runtime, device))
        self._inputs = [one.name for one in self._session.get_inputs()]
        if unknown := sorted(set(self._inputs) - set(_INPUTS)):
            raise ValueError(f"{self._graph}: expected a graph of {', '.join(_INPUTS)}, got one of {unknown}")
        outputs = [one.name for one in self._session.get_outputs()]
        self._is_pooled = "sentence_embedding" in outputs
        self._output = "sentence_embedding" if self._is_pooled else outputs[0]

    @property
    def identity(self) -> str:
        """Names the model by its commit and graph, or by the content of the files that are read."""
        data = [path for path in self._graph.parent.glob("*.onnx_data*") if path.is_file()]
        described = [path for path in self._fetched.folder.rglob("*.json") if path.is_file()]
        found = self._fetched.identity([self._graph, self._tokenizer_file, *data, *described])
        return f"{found}#{self._graph.relative_to(self._fetched.folder).as_posix()}"

    def embed(
        self, texts: Sequence[str], batch_size: int, advance: Callable[[int], object]
    ) -> tuple[NDArray[np.float32], int]:
        """Vectors of the texts, of shape (n, n_dimensions), and how many of these were cut.

        A text without any token is a vector of zeros.
        """
        order = sorted(range(len(texts)), key=lambda index: len(texts[index]), reverse=True)
        n_cut, rows, parts = 0, [], []
        for start in range(0, len(order), _CHUNK_TEXTS):
            chunk = order[start : start + _CHUNK_TEXTS]
            encodings = self._tokenizer.encode_batch([texts[index] for index in chunk])
            n_cut += sum(bool(one.overflowing) for one in encodings)
            full = sorted((n for n, one in enumerate(encodings) if one.ids), key=lambda n: -len(encodings[n].ids))
            for begin in range(0, len(full), batch_size):
                batch = full[begin : begin + batch_size]
                parts.append(self._forward([encodings[n] for n in batch]))
                rows += [chunk[n] for n in batch]
                advance(len(batch))
        width = parts[0].shape[1] if parts else self._forward(self._tokenizer.encode_batch(["dimension"])).shape[1]
        vectors = np.zeros((len(texts), width), dtype=np.float32)
        if parts:
            vectors[rows] = np.concatenate(parts)
        return vectors, n_cut

    def count_cut(self, texts: Sequence[str]) -> int:
        """Number of texts that `embed` would cut."""
        chunks = (list(texts[start : start + _CHUNK_TEXTS]) for start in range(0, len(texts), _CHUNK_TEXTS))
        return sum(bool(one.overflowing) for chunk in chunks for one in self._tokenizer.encode_batch(chunk))

    def _forward(self, encodings: Sequence[Any]) -> NDArray[np.float32]:
        """Vectors of texts that have tokens, padded to the longest one."""
        length = max(len(one.ids) for one in encodings)
        columns = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}
        padded = {name: np.zeros((len(encodings), length), dtype=np.int64) for name in columns}
        for name, attribute in columns.items():
            for row, one in enumerate(encodings):
                values = getattr(one, attribute)
                padded[name][row, : len(values)] = values
        found = self._session.run([self._output], {name: padded[name] for name in self._inputs})[0]
        vectors = np.asarray(found, dtype=np.float32)
        if not self._is_pooled:
            if vectors.ndim != 3:
                raise ValueError(f"{self._graph}: expected states of tokens, got an output of shape {vectors.shape}")
            vectors = _pooled(vectors, padded["attention_mask"], self.pooling)
        if self.normalizes:
            vectors = of_unit_length(vectors)
        return vectors


def _found(folder: Path, names: Sequence[str], what: str) -> Path:
    for name in names:
        path = folder / name
        if path.is_file():
            return path
    raise FileNotFoundError(f"{folder}: expected {what}, {' or '.join(names)}, in the model, got none")


def _providers(runtime: Any, device: str | None) -> list[str]:
    kind = (device or "cpu").split(":", 1)[0]
    wanted = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}.get(kind)
    available = runtime.get_available_providers()
    if wanted is None or wanted not in available:
        raise ValueError(f"device: expected one that onnxruntime provides ({', '.join(available)}), got {device!r}")
    return [wanted]


def _modules(folder: Path) -> tuple[str, bool]:
    """How states of tokens become a vector, and whether it is scaled to length 1; mean where the model says nothing."""
    path = folder / "modules.json"
    if not path.is_file():
        return "mean", False
    pooling, normalizes = "mean", False
    for module in json.loads(path.read_text(encoding="utf-8")):
        kind = str(module.get("type", "")).rsplit(".", 1)[-1]
        if kind == "Pooling":
            pooling = _pooling(folder / str(module.get("path", "")) / "config.json")
        elif kind == "Normalize":
            normalizes = True
        elif kind != "Transformer":
            raise ValueError(f"{folder}: expected Transformer, Pooling and Normalize in an ONNX model, got {kind!r}")
    return pooling, normalizes


def _pooling(path: Path) -> str:
    config = read_json(path)
    named = config.get("pooling_mode")
    modes = [named] if isinstance(named, str) else list(named or ())
    modes = modes or [
        name.removeprefix("pooling_mode_")
        for name, value in config.items()
        if name.startswith("pooling_mode_") and value is True
    ]
    modes = [_OLD_NAMES.get(mode, mode) for mode in modes]
    if len(modes) != 1 or modes[0] not in _POOLINGS or config.get("include_prompt") is False:
        raise ValueError(f"{path}: expected one pooling of {', '.join(_POOLINGS)}, prompts included, got {config}")
    return str(modes[0])


def _limit(folder: Path, asked: int | None) -> int | None:
    """Tokens that are read: as asked, or as the model says, and never more than it has positions."""
    own = read_json(folder / "sentence_bert_config.json").get("max_seq_length")
    own = own or read_json(folder / "tokenizer_config.json").get("model_max_length")
    positions = read_json(folder / "config.json").get("max_position_embeddings")
    if asked is not None and isinstance(positions, int) and asked > positions:
        raise ValueError(f"max_length: expected at most the {positions} positions of the model, got {asked}")
    known = [int(limit) for limit in (asked or own, positions) if isinstance(limit, int) and limit < 1 << 20]
    return min(known, default=None)


def _pooled(states: NDArray[np.float32], mask: NDArray[np.int64], how: str) -> NDArray[np.float32]:
    """Vectors (n, width) of states of tokens (n, length, width); padding, which stands behind, does not count."""
    counts = mask.sum(axis=1)
    if how == "cls":
        return np.ascontiguousarray(states[:, 0])
    if how == "lasttoken":
        return np.ascontiguousarray(states[np.arange(len(states)), counts - 1])
    if how == "max":
        return np.asarray(np.where(mask[:, :, None] > 0, states, -np.inf).max(axis=1), dtype=np.float32)
    sums = np.einsum("nlw,nl->nw", states, mask.astype(np.float32))
    divisor = np.sqrt(counts) if how == "mean_sqrt_len_tokens" else counts
    return np.asarray(sums / divisor[:, None], dtype=np.float32)
