"""What encoders share that load a model: the model's name and content, texts in, counted truncations, quiet loading."""

from __future__ import annotations

import hashlib
import inspect
import logging
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from numbers import Integral
from pathlib import Path
from typing import Any, Self

import numpy as np

from micropref._support.cached import cached_property
from micropref._support.hub import hub_faults
from micropref._support.optional import require
from micropref.embed._texts import check_texts
from micropref.embed._unit_length import of_unit_length

DTYPES = ("float32", "float16", "bfloat16")
PURPOSE = "Embedding texts with a sentence-transformers model"
# What a vector depends on; a README beside it may be edited.
_MODEL_FILES = frozenset({".json", ".txt", ".model", ".jinja", ".py", ".safetensors", ".bin", ".pt"})
_PROGRESS_FROM = 2_000
# Older ones run the code that lies in a model's folder without being asked to.
_LEAST_VERSION = 6


class ModelEncoder(ABC):
    """An encoder whose model is loaded when it is first needed, never on construction."""

    model_name_or_path: str
    revision: str | None
    truncate_dim: int | None
    max_length: int | None
    normalize: bool
    device: str | None
    batch_size: int
    trust_remote_code: bool
    dtype: str
    show_progress: bool | None

    def _set(self, **parameters: Any) -> None:
        """Check the arguments of the constructor and make them attributes."""
        for name in ("truncate_dim", "max_length", "batch_size"):
            size, optional = parameters[name], name != "batch_size"
            if not (size is None and optional) and not (isinstance(size, Integral) and int(size) >= 1):
                raise ValueError(f"{name}: expected an integer of at least 1{' or None' * optional}, got {size!r}")
        if parameters["dtype"] not in DTYPES:
            raise ValueError(f"dtype: expected one of {', '.join(DTYPES)}, got {parameters['dtype']!r}")
        # A folder is found again from another working directory.
        name = parameters["model_name_or_path"]
        folder = Path(name).expanduser()
        parameters["model_name_or_path"] = str(folder.resolve() if folder.is_dir() else name)
        self.__dict__.update(parameters)
        self.n_truncated_ = 0
        self.n_truncated_total_ = 0

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Vectors of the texts.

        Parameters
        ----------
        texts : sequence of n str
            They may be blank. One in which the model finds no token is a vector of zeros.

        Returns
        -------
        vectors : ndarray of shape (n, n_dimensions), dtype float32

        Raises
        ------
        TypeError, ValueError
            If a text is not a string, or cannot be written as UTF-8; the message has its index.
        ImportError
            If sentence-transformers is not installed, or too old.
        """
        texts = check_texts(texts, allow_blank=True)
        wished = len(texts) >= _PROGRESS_FROM if self.show_progress is None else self.show_progress
        with _progress(len(texts), wished and sys.stderr.isatty()) as advance:
            vectors, self.n_truncated_ = self._embed(texts, advance)
        self.n_truncated_total_ += self.n_truncated_
        if self.normalize:
            vectors = of_unit_length(vectors)
        return vectors

    def count_truncated(self, texts: Sequence[str]) -> int:
        """Number of texts that are too long for the model; they are tokenised but not embedded.

        Parameters
        ----------
        texts : sequence of n str

        Returns
        -------
        n_truncated : int
        """
        return self._count_truncated(check_texts(texts, allow_blank=True))

    @cached_property
    @abstractmethod
    def fingerprint(self) -> str:
        """Names the model by content or commit, and every parameter that changes vectors. Loads the model."""

    @abstractmethod
    def _load(self, sentence_transformers: Any) -> Any:
        """The SentenceTransformer."""

    @abstractmethod
    def _embed(self, texts: list[str], advance: Callable[[int], object]) -> tuple[np.ndarray, int]:
        """Vectors before they are normalised, and the number of texts that were cut."""

    @abstractmethod
    def _count_truncated(self, texts: list[str]) -> int:
        """Number of texts that `_embed` would cut."""

    def get_params(self) -> dict[str, Any]:
        """The arguments of the constructor.

        Returns
        -------
        parameters : dict of str to object
        """
        names = list(inspect.signature(type(self).__init__).parameters)[1:]
        return {name: getattr(self, name) for name in names}

    @cached_property
    def _model(self) -> Any:
        return self._loaded_model()

    def _loaded_model(self) -> Any:
        """The SentenceTransformer, on its device and with the limits asked for."""
        sentence_transformers = require("sentence_transformers", PURPOSE)
        if int(sentence_transformers.__version__.split(".")[0]) < _LEAST_VERSION:
            raise ImportError(
                f"expected sentence-transformers {_LEAST_VERSION}.0 or newer, got {sentence_transformers.__version__}: "
                "older ones run code in a model's folder without being asked to. "
                f"Install it with: pip install 'sentence-transformers>={_LEAST_VERSION}'"
            )
        torch = require("torch", PURPOSE)
        name = self.model_name_or_path
        if name.startswith((".", "~", "/")) and not Path(name).is_dir():
            raise FileNotFoundError(f"expected a folder that holds a model, got {name}, which is not there")
        with _no_bar_in_a_pipe(), hub_faults(name, "models", "give the folder of a copy as model"):
            model = self._load(sentence_transformers).to(getattr(torch, self.dtype)).eval()
        if self.max_length is not None:
            _check_positions(model, self.max_length)
            model.max_seq_length = self.max_length
        width = model.get_embedding_dimension()
        if self.truncate_dim is not None and width is not None and width < self.truncate_dim:
            raise ValueError(
                f"truncate_dim: expected at most {width}, the dimensions of the model, got {self.truncate_dim}"
            )
        return model

    @property
    def _hub(self) -> dict[str, Any]:
        """Where a model comes from, and whether its code may run: for everything that loads a part of it."""
        return {"revision": self.revision, "trust_remote_code": self.trust_remote_code}

    @property
    def _max_length(self) -> float | None:
        limit: float | None = self._model.max_seq_length
        return limit

    @cached_property
    def _dimension(self) -> int:
        return int(self._embed(["dimension"], _ignore)[0].shape[1])

    @cached_property
    def _identity(self) -> str:
        folder = Path(self.model_name_or_path)
        if folder.is_dir():
            return f"sha256:{content_hash(folder)}"
        commit = getattr(_transformers_config(self._model), "_commit_hash", None)
        return f"{self.model_name_or_path}@{commit or self.revision}"

    def __sklearn_clone__(self) -> Self:
        # Nothing is learned, so that the folds of a cross-validation can share one loaded model.
        return self

    def __getstate__(self) -> dict[str, Any]:
        return self.get_params() | {"n_truncated_": self.n_truncated_, "n_truncated_total_": self.n_truncated_total_}

    def __repr__(self) -> str:
        parameters = self.get_params()
        name = parameters.pop("model_name_or_path")
        defaults = type(self).__init__.__kwdefaults__ or {}
        changed = [f", {key}={value!r}" for key, value in parameters.items() if value != defaults[key]]
        return f"{type(self).__name__}({name!r}{''.join(changed)})"


def named(kind: str, parts: dict[str, Any]) -> str:
    """A fingerprint."""
    return f"{kind}({', '.join(f'{name}={value!r}' for name, value in parts.items())})"


def content_hash(folder: Path) -> str:
    """One hash over names and contents of all files that a model is made of."""
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.suffix in _MODEL_FILES and path.is_file():
            with path.open("rb") as file:
                content = hashlib.file_digest(file, "sha256").hexdigest()
            total.update(f"{path.relative_to(folder).as_posix()}\n{content}\n".encode())
    return total.hexdigest()


@contextmanager
def only_bad_news(name: str) -> Iterator[None]:
    """Load a part of a checkpoint: weights left over are no news, and weights that it lacks are an error."""
    reports: list[str] = []

    def kept_back(record: logging.LogRecord) -> bool:
        report = record.getMessage()
        is_report = "MISSING" in report or "UNEXPECTED" in report
        reports.extend([report] * is_report)
        return not is_report

    # The one logger reports the weights; the others warn of what is no business of the user's.
    levels = {"transformers": logging.ERROR, "transformers.modeling_utils": logging.WARNING}
    before = {logger: logging.getLogger(logger).level for logger in levels}
    for logger, level in levels.items():
        logging.getLogger(logger).setLevel(level)
    logging.getLogger("transformers.modeling_utils").addFilter(kept_back)
    try:
        yield
    finally:
        logging.getLogger("transformers.modeling_utils").removeFilter(kept_back)
        for logger, level in before.items():
            logging.getLogger(logger).setLevel(level)
    for report in reports:
        if "MISSING" in report:
            raise ValueError(f"expected all weights of the transformer of {name}, got only some:\n{report}")


def _ignore(_: int) -> None:
    pass


@contextmanager
def _progress(n_texts: int, shown: bool) -> Iterator[Callable[[int], object]]:
    if not shown:
        yield _ignore
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(file=sys.stderr), transient=True) as bar:
        task = bar.add_task("Embedding", total=n_texts)
        yield lambda n_done: bar.update(task, advance=n_done)


@contextmanager
def _no_bar_in_a_pipe() -> Iterator[None]:
    """Keep transformers from drawing its bar for the weights where standard error is no terminal."""
    logging = require("transformers.utils.logging", PURPOSE)
    silence = logging.is_progress_bar_enabled() and not sys.stderr.isatty()
    if silence:
        logging.disable_progress_bar()
    try:
        yield
    finally:
        if silence:
            logging.enable_progress_bar()


def _transformers_config(model: Any) -> Any:
    # A model of static word vectors has no transformer, and no configuration.
    return getattr(getattr(model[0], "auto_model", None), "config", None)


def _check_positions(model: Any, max_length: int) -> None:
    n_positions = getattr(_transformers_config(model), "max_position_embeddings", None)
    if n_positions is not None and max_length > n_positions:
        raise ValueError(f"max_length: expected at most the {n_positions} positions of the model, got {max_length}")
