"""SentenceTransformerEncoder: any sentence-transformers model, by name or path, in torch or as an ONNX graph."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from micropref._support.cached import cached_property
from micropref._support.optional import require
from micropref.embed._forward import count_cut, forward, is_padded_transformer
from micropref.embed._model_encoder import PURPOSE, ModelEncoder, named
from micropref.embed._onnx import OnnxModel

__all__ = ["SentenceTransformerEncoder"]

_BACKENDS = ("torch", "onnx")


class SentenceTransformerEncoder(ModelEncoder):
    """Embed texts with a sentence-transformers model; needs ``pip install 'micropref[embed]'``.

    The model is loaded when it is first needed, never on construction. With ``backend="onnx"``, onnxruntime runs the
    transformer from the ONNX graph that many models bring, without torch: ``pip install 'micropref[embed-light]'``. A
    string says the same: ``encoder="onnx:sentence-transformers/all-MiniLM-L6-v2"``.

    Parameters
    ----------
    model_name_or_path : str
        A name on the Hugging Face hub or a folder.
    revision : str, optional
        Branch, tag or commit on the hub. Without it the newest one is taken; the fingerprint has its commit.
    prompt : str, optional
        Text put before every text, such as ``"query: "``. By default the model's own default prompt, if it has one;
        ``""`` is none.
    prompt_name : str, optional
        Name of one of the model's own prompts, instead of `prompt`.
    truncate_dim : int, optional
        Keep only the first so many dimensions, for models trained for that.
    max_length : int, optional
        Tokens of a text that are read, the special ones included; the rest is cut. By default the model's own limit.
    normalize : bool, default=False
        Scale vectors to length 1, after `truncate_dim`.
    device : str, optional
        Such as ``"cpu"`` or ``"cuda:1"``; by default a GPU where there is one.
    batch_size : int, default=32
        Texts in one pass. Texts are sorted by tokens first, so that a batch holds little padding.
    trust_remote_code : bool, default=False
        Whether code that comes with the model may run. Without it, a model that needs such code is an error.
    dtype : {"float32", "float16", "bfloat16"}, default="float32"
        Precision of the computation; vectors are float32 in any case.
    show_progress : bool, optional
        Whether `encode` shows a bar when standard error is a terminal. By default for 2 000 texts or more.
    backend : {"torch", "onnx"}, default="torch"
        What runs the transformer. Behind an ONNX graph there may be one pooling (mean, cls, max, lasttoken) and scaling
        to length 1; a model with other modules is an error.
    file_name : str, optional
        The ONNX graph within the model, such as ``"onnx/model_qint8_avx512.onnx"``; by default ``onnx/model.onnx`` or
        ``model.onnx``.

    Attributes
    ----------
    n_truncated_ : int
        Texts of the last `encode` that were longer than the model reads.
    n_truncated_total_ : int
        The same, over all calls.

    Notes
    -----
    Vectors are those of ``SentenceTransformer.encode``, up to rounding. A vector depends on the batch in which it was
    computed by rounding only: about 1e-6 of its length in float32, 1e-2 in half precision.

    Weights are read from safetensors where a model has them. Others are pickles, of which torch reads nothing but
    tensors (``weights_only=True``): no code in them runs.
    """

    prompt: str | None
    prompt_name: str | None
    backend: str
    file_name: str | None

    def __init__(
        self,
        model_name_or_path: str,
        *,
        revision: str | None = None,
        prompt: str | None = None,
        prompt_name: str | None = None,
        truncate_dim: int | None = None,
        max_length: int | None = None,
        normalize: bool = False,
        device: str | None = None,
        batch_size: int = 32,
        trust_remote_code: bool = False,
        dtype: str = "float32",
        show_progress: bool | None = None,
        backend: str = "torch",
        file_name: str | None = None,
    ):
        _check_backend(backend, file_name, dtype, trust_remote_code)
        if prompt is not None and prompt_name is not None:
            raise ValueError(
                f"expected prompt or prompt_name, got both: prompt={prompt!r}, prompt_name={prompt_name!r}"
            )
        self._set(
            model_name_or_path=model_name_or_path,
            revision=revision,
            prompt=prompt,
            prompt_name=prompt_name,
            truncate_dim=truncate_dim,
            max_length=max_length,
            normalize=normalize,
            device=device,
            batch_size=batch_size,
            trust_remote_code=trust_remote_code,
            dtype=dtype,
            show_progress=show_progress,
            backend=backend,
            file_name=file_name,
        )

    @cached_property
    def fingerprint(self) -> str:
        """Names the model by content or commit, and every parameter that changes vectors. Loads the model."""
        if self.backend == "onnx":
            return self._fingerprint_of_graph()
        return named(
            "sentence-transformers",
            {
                "model": self._identity,
                "modules": "+".join(type(module).__name__ for module in self._model),
                "pooling": "+".join(_pooling_modes(self._model)) or None,
                "prompt": self._prompt,
                "max_length": self._max_length,
                "dtype": self.dtype,
                "normalize": self.normalize,
                "dimension": self._dimension,
            },
        )

    def _fingerprint_of_graph(self) -> str:
        model: OnnxModel = self._model
        return named(
            "onnx",
            {
                "model": model.identity,
                "pooling": model.pooling,
                "prompt": self._prompt,
                "max_length": model.max_length,
                "normalize": self.normalize or model.normalizes,
                "dimension": self._dimension,
            },
        )

    @cached_property
    def _model(self) -> Any:
        if self.backend == "torch":
            return self._loaded_model()
        return OnnxModel(
            self.model_name_or_path,
            revision=self.revision,
            file_name=self.file_name,
            max_length=self.max_length,
            device=self.device,
        )

    def _load(self, sentence_transformers: Any) -> Any:
        torch = require("torch", PURPOSE)
        return sentence_transformers.SentenceTransformer(
            self.model_name_or_path,
            device=self.device,
            truncate_dim=self.truncate_dim,
            model_kwargs={"dtype": getattr(torch, self.dtype)},
            **self._hub,
        )

    @property
    def _prompt(self) -> str | None:
        if self.prompt is not None:
            return self.prompt
        prompts = self._model.prompts
        if self.prompt_name is not None and self.prompt_name not in prompts:
            raise ValueError(f"prompt_name: expected one of {', '.join(map(repr, prompts))}, got {self.prompt_name!r}")
        prompt: str | None = prompts.get(self.prompt_name or self._model.default_prompt_name)
        return prompt

    def _embed(self, texts: list[str], advance: Callable[[int], object]) -> tuple[np.ndarray, int]:
        model, prompt = self._model, self._prompt
        if isinstance(model, OnnxModel):
            vectors, n_cut = model.embed([(prompt or "") + text for text in texts], self.batch_size, advance)
            return self._shortened(vectors), n_cut
        if is_padded_transformer(model):
            return forward(model, texts, partial(model.preprocess, prompt=prompt), self.batch_size, advance)
        if not texts:
            return np.empty((0, self._dimension), dtype=np.float32), 0
        vectors = model.encode(texts, prompt=prompt, batch_size=self.batch_size, show_progress_bar=False)
        advance(len(texts))
        return np.array(vectors, dtype=np.float32), self._n_longer(texts)

    def _count_truncated(self, texts: list[str]) -> int:
        model = self._model
        if isinstance(model, OnnxModel):
            return model.count_cut([(self._prompt or "") + text for text in texts])
        if is_padded_transformer(model):
            return count_cut(texts, partial(model.preprocess, prompt=self._prompt))
        return self._n_longer(texts)

    def _shortened(self, vectors: np.ndarray) -> np.ndarray:
        """The first `truncate_dim` dimensions; the model in torch shortens them itself."""
        if self.truncate_dim is not None and vectors.shape[1] < self.truncate_dim:
            width = vectors.shape[1]
            raise ValueError(
                f"truncate_dim: expected at most {width}, the dimensions of the model, got {self.truncate_dim}"
            )
        return vectors[:, : self.truncate_dim].copy()

    def _n_longer(self, texts: list[str]) -> int:
        limit, prompt = self._model.max_seq_length, self._prompt or ""
        if limit is None or limit == float("inf") or not texts:
            return 0
        tokens = self._model.tokenizer([prompt + text for text in texts], truncation=False, verbose=False)["input_ids"]
        return sum(len(row) > limit for row in tokens)


def _pooling_modes(model: Any) -> list[str]:
    modes: list[str] = []
    for module in model:
        found = getattr(module, "pooling_mode", ())
        modes += [found] if isinstance(found, str) else list(found)
    return modes


def _check_backend(backend: str, file_name: str | None, dtype: str, trust_remote_code: bool) -> None:
    """A ValueError for parameters that one of the backends does not have."""
    if backend not in _BACKENDS:
        raise ValueError(f"backend: expected one of {', '.join(map(repr, _BACKENDS))}, got {backend!r}")
    if backend == "torch" and file_name is not None:
        raise ValueError(f"file_name: expected None with backend='torch', got {file_name!r}")
    if backend == "onnx" and (dtype != "float32" or trust_remote_code):
        raise ValueError(
            "expected dtype='float32' and trust_remote_code=False with backend='onnx', whose file has precision and "
            f"code, got dtype={dtype!r}, trust_remote_code={trust_remote_code!r}"
        )
