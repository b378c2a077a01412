"""SentenceTransformerEncoder: any sentence-transformers model, by name or path."""

from __future__ import annotations

import hashlib
import sys
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from numbers import Integral
from pathlib import Path
from typing import Any, Self

import numpy as np

from micropref._optional import require
from micropref.embed.protocol import check_texts

_DTYPES = ("float32", "float16", "bfloat16")
# What a vector depends on; a README beside it may be edited.
_MODEL_FILES = frozenset({".json", ".txt", ".model", ".jinja", ".py", ".safetensors", ".bin", ".pt"})
_PROGRESS_FROM = 2_000
_TOKENIZE_ROWS = 1_024


class SentenceTransformerEncoder:
    """Embed texts with a sentence-transformers model; needs ``pip install 'micropref[embed]'``.

    The model is loaded when it is first needed, never on construction.

    Parameters
    ----------
    model_name_or_path : str
        A name on the Hugging Face hub or a folder.
    revision : str, optional
        Branch, tag or commit on the hub. Without it the newest one is taken; the fingerprint has its commit.
    prompt : str, optional
        Text put before every text, such as ``"query: "``. By default the model's own default prompt, if it has one.
    truncate_dim : int, optional
        Keep only the first so many dimensions, for models trained for that.
    max_length : int, optional
        Tokens of a text that are read, the special ones included; the rest is cut. By default the model's own limit.
    normalize : bool, default=False
        Scale vectors to length 1.
    device : str, optional
        Such as ``"cpu"`` or ``"cuda:1"``; by default a GPU where there is one.
    batch_size : int, default=32
        Texts in one pass. Texts are sorted by length first, so that a batch holds little padding.
    trust_remote_code : bool, default=False
        Whether code that comes with the model may run.
    dtype : {"float32", "float16", "bfloat16"}, default="float32"
        Precision of the computation; vectors are float32 in any case.

    Attributes
    ----------
    n_truncated_ : int
        Texts of the last `encode` that were longer than the model reads.
    n_truncated_total_ : int
        The same, over all calls.

    Notes
    -----
    A vector depends on the batch in which it was computed by rounding only: about 1e-6 of its length in float32, 1e-2
    in half precision.
    """

    def __init__(
        self,
        model_name_or_path: str,
        *,
        revision: str | None = None,
        prompt: str | None = None,
        truncate_dim: int | None = None,
        max_length: int | None = None,
        normalize: bool = False,
        device: str | None = None,
        batch_size: int = 32,
        trust_remote_code: bool = False,
        dtype: str = "float32",
    ):
        for name, size in (("truncate_dim", truncate_dim), ("max_length", max_length), ("batch_size", batch_size)):
            optional = name != "batch_size"
            if not (size is None and optional) and not (isinstance(size, Integral) and size >= 1):
                raise ValueError(f"{name} must be an integer of at least 1{' or None' * optional}; got {size!r}")
        if dtype not in _DTYPES:
            raise ValueError(f"dtype must be one of {', '.join(_DTYPES)}; got {dtype!r}")
        # A folder is found again from another working directory.
        folder = Path(model_name_or_path).expanduser()
        self.model_name_or_path = str(folder.resolve() if folder.is_dir() else model_name_or_path)
        self.revision = revision
        self.prompt = prompt
        self.truncate_dim = truncate_dim
        self.max_length = max_length
        self.normalize = normalize
        self.device = device
        self.batch_size = batch_size
        self.trust_remote_code = trust_remote_code
        self.dtype = dtype
        self.n_truncated_ = 0
        self.n_truncated_total_ = 0

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Vectors of the texts.

        A progress bar is shown for long work when standard error is a terminal.

        Parameters
        ----------
        texts : sequence of n str
            None of them blank.

        Returns
        -------
        vectors : ndarray of shape (n, n_dimensions), dtype float32

        Raises
        ------
        TypeError, ValueError
            If a text is not a string, or blank; the message has its index.
        ImportError
            If sentence-transformers is not installed.
        """
        texts = check_texts(texts)
        self.n_truncated_ = self._count_truncated(texts)
        self.n_truncated_total_ += self.n_truncated_
        if not texts:
            return np.empty((0, self._dimension), dtype=np.float32)
        return self._embed(texts, show_progress=len(texts) >= _PROGRESS_FROM and sys.stderr.isatty())

    @cached_property
    def fingerprint(self) -> str:
        """Names the model by content or commit, and every parameter that changes vectors. Loads the model."""
        parts = {
            "model": self._identity,
            "modules": "+".join(type(module).__name__ for module in self._model),
            "pooling": "+".join(_pooling_modes(self._model)) or None,
            "prompt": self._prompt,
            "max_length": self._max_length,
            "dtype": self.dtype,
            "normalize": self.normalize,
            "dimension": self._dimension,
        }
        return f"sentence-transformers({', '.join(f'{name}={value!r}' for name, value in parts.items())})"

    def get_params(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        return {
            "model_name_or_path": self.model_name_or_path,
            "revision": self.revision,
            "prompt": self.prompt,
            "truncate_dim": self.truncate_dim,
            "max_length": self.max_length,
            "normalize": self.normalize,
            "device": self.device,
            "batch_size": self.batch_size,
            "trust_remote_code": self.trust_remote_code,
            "dtype": self.dtype,
        }

    @cached_property
    def _model(self) -> Any:
        sentence_transformers = require("sentence_transformers", "Embedding texts with a sentence-transformers model")
        torch = require("torch", "Embedding texts with a sentence-transformers model")
        name = self.model_name_or_path
        if name.startswith((".", "~", "/")) and not Path(name).is_dir():
            raise FileNotFoundError(f"found no folder {name}, wanted one that holds a sentence-transformers model")
        with _silent_in_a_pipe():
            model = sentence_transformers.SentenceTransformer(
                name,
                revision=self.revision,
                device=self.device,
                trust_remote_code=self.trust_remote_code,
                truncate_dim=self.truncate_dim,
            )
        model.to(getattr(torch, self.dtype))
        if self.max_length is not None:
            _check_positions(model, self.max_length)
            model.max_seq_length = self.max_length
        return model

    @property
    def _prompt(self) -> str | None:
        if self.prompt is not None:
            return self.prompt
        return self._model.prompts.get(self._model.default_prompt_name)

    @property
    def _max_length(self) -> float | None:
        return self._model.max_seq_length

    @cached_property
    def _dimension(self) -> int:
        return self._embed(["dimension"], show_progress=False).shape[1]

    @cached_property
    def _identity(self) -> str:
        folder = Path(self.model_name_or_path)
        if folder.is_dir():
            return f"sha256:{_content_hash(folder)}"
        commit = getattr(_transformers_config(self._model), "_commit_hash", None)
        return f"{self.model_name_or_path}@{commit or self.revision}"

    def _embed(self, texts: list[str], *, show_progress: bool) -> np.ndarray:
        vectors = self._model.encode(
            texts,
            prompt=self._prompt,
            batch_size=self.batch_size,
            normalize_embeddings=self.normalize,
            show_progress_bar=show_progress,
        )
        return np.asarray(vectors, dtype=np.float32)

    def _count_truncated(self, texts: list[str]) -> int:
        limit = self._max_length
        if limit is None or limit == float("inf"):
            return 0
        tokenizer, prompt = self._model.tokenizer, self._prompt or ""
        # A token stands for at least one byte of the fully decomposed text, but for the special ones and the mark of
        # a first word: most texts cannot be too long and need not be tokenised twice.
        room = limit - tokenizer.num_special_tokens_to_add() - 1
        candidates = [prompt + text for text in texts if _n_bytes(prompt + text) > room]
        n_truncated = 0
        for start in range(0, len(candidates), _TOKENIZE_ROWS):
            tokens = tokenizer(candidates[start : start + _TOKENIZE_ROWS], truncation=False, verbose=False)["input_ids"]
            n_truncated += sum(len(row) > limit for row in tokens)
        return n_truncated

    def __sklearn_clone__(self) -> Self:
        # Nothing is learned, so that the folds of a cross-validation can share one loaded model.
        return self

    def __getstate__(self) -> dict[str, Any]:
        return self.get_params() | {"n_truncated_": self.n_truncated_, "n_truncated_total_": self.n_truncated_total_}

    def __repr__(self) -> str:
        parameters = self.get_params()
        name = parameters.pop("model_name_or_path")
        defaults = SentenceTransformerEncoder.__init__.__kwdefaults__ or {}
        changed = [f", {key}={value!r}" for key, value in parameters.items() if value != defaults[key]]
        return f"SentenceTransformerEncoder({name!r}{''.join(changed)})"


@contextmanager
def _silent_in_a_pipe() -> Iterator[None]:
    """Keep transformers from drawing its bar for the weights where nobody watches."""
    logging = require("transformers.utils.logging", "Embedding texts with a sentence-transformers model")
    silence = logging.is_progress_bar_enabled() and not sys.stderr.isatty()
    if silence:
        logging.disable_progress_bar()
    try:
        yield
    finally:
        if silence:
            logging.enable_progress_bar()


def _n_bytes(text: str) -> int:
    return len(text) if text.isascii() else len(unicodedata.normalize("NFKD", text).encode())


def _pooling_modes(model: Any) -> list[str]:
    modes: list[str] = []
    for module in model:
        found = getattr(module, "pooling_mode", ())
        modes += [found] if isinstance(found, str) else list(found)
    return modes


def _transformers_config(model: Any) -> Any:
    # A model of static word vectors has no transformer, and no configuration.
    return getattr(getattr(model[0], "auto_model", None), "config", None)


def _check_positions(model: Any, max_length: int) -> None:
    n_positions = getattr(_transformers_config(model), "max_position_embeddings", None)
    if n_positions is not None and max_length > n_positions:
        raise ValueError(f"max_length={max_length}, but the model has positions for {n_positions} tokens only")


def _content_hash(folder: Path) -> str:
    """One hash over names and contents of all files that a model is made of."""
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.suffix in _MODEL_FILES and path.is_file():
            with path.open("rb") as file:
                content = hashlib.file_digest(file, "sha256").hexdigest()
            total.update(f"{path.relative_to(folder).as_posix()}\n{content}\n".encode())
    return total.hexdigest()
