"""HTTPEncoder: embeddings from a server, through the interface that vLLM, TEI, Ollama and others share."""

from __future__ import annotations

import inspect
import math
import os
import re
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any, Self
from urllib.parse import urldefrag

import numpy as np

from micropref._support.cached import cached_property
from micropref.datasets._text import is_blank
from micropref.embed._embedding_api import Answer, EmbeddingServerError, Retries, ask, endpoint_of
from micropref.embed._model_encoder import named
from micropref.embed._texts import check_texts
from micropref.embed._unit_length import of_unit_length

__all__ = ["EmbeddingServerError", "HTTPEncoder"]

_FORMATS = ("float", "base64")


class HTTPEncoder:
    """Embed texts on a server that answers ``POST /v1/embeddings`` as OpenAI's does: vLLM, TEI, Ollama, llama.cpp.

    Nothing is asked on construction. A string says the same: ``encoder="http://127.0.0.1:8080/v1#BAAI/bge-m3"``.

    Parameters
    ----------
    url : str
        Address of the server: ``"http://127.0.0.1:8080/v1"``, also without ``/v1`` or with ``/embeddings``.
    model : str
        Name of the model, as the server knows it.
    dimensions : int, optional
        Ask for vectors of this width, of a model that can shorten them. Any other width is an error.
    prompt : str, optional
        Text put before every text, such as ``"query: "``.
    max_characters : int, optional
        Characters of a text that are sent, the prompt not counted; the rest is cut, and counted. By default all are
        sent, and the server may refuse a text that is too long for its model.
    normalize : bool, default=False
        Scale vectors to length 1.
    batch_size : int, default=64
        Texts in one question. A server may have a limit of its own, such as TEI's ``--max-client-batch-size`` of 32.
    encoding_format : {"float", "base64"}, default="float"
        How vectors are asked for. An answer may come in either; base64 has a quarter of the bytes.
    timeout : float, default=60.0
        Seconds of silence after which a try has failed.
    max_retries : int, default=5
        Further tries where the server is busy or fails for a moment (status 408, 425, 429, 500, 502, 503, 504; an
        answer that ends early or is late), after 0.5, 1, 2, … seconds with random factors, and not before its own
        ``Retry-After``. A server that is not there is asked again only if it has answered before.
    api_key_env : str, optional, default="MICROPREF_API_KEY"
        Environment variable that holds the key, sent as a bearer token where the variable is set; None sends none. The
        key itself is in no attribute, representation, fingerprint or file.

    Attributes
    ----------
    n_truncated_ : int
        Texts of the last `encode` that were cut to `max_characters`.
    n_truncated_total_ : int
        The same, over all calls.

    Notes
    -----
    The fingerprint has the model, the dimension and what is done to texts, and not the address, so that a store and a
    saved model can follow a server that moves. A server that answers under another model's name than the one asked for
    has this name in it too. What it cannot know is whether the weights behind a name are the same as before: name the
    revision in the model's name where the server allows it.

    Examples
    --------
    >>> from micropref.embed import HTTPEncoder
    >>> HTTPEncoder("http://127.0.0.1:8080/v1", "BAAI/bge-m3")
    HTTPEncoder('http://127.0.0.1:8080/v1', 'BAAI/bge-m3')
    """

    url: str
    model: str
    dimensions: int | None
    prompt: str | None
    max_characters: int | None
    normalize: bool
    batch_size: int
    encoding_format: str
    timeout: float
    max_retries: int
    api_key_env: str | None
    n_truncated_: int
    n_truncated_total_: int

    def __init__(
        self,
        url: str,
        model: str,
        *,
        dimensions: int | None = None,
        prompt: str | None = None,
        max_characters: int | None = None,
        normalize: bool = False,
        batch_size: int = 64,
        encoding_format: str = "float",
        timeout: float = 60.0,
        max_retries: int = 5,
        api_key_env: str | None = "MICROPREF_API_KEY",
    ):
        self._endpoint = endpoint_of(url)
        if not isinstance(model, str) or is_blank(model):
            raise ValueError(f"model: expected the name of a model, got {model!r}")
        _check_numbers(dimensions, max_characters, batch_size, max_retries, timeout)
        if not (prompt is None or isinstance(prompt, str)) or not isinstance(normalize, bool):
            raise ValueError(
                f"expected text or None as prompt, and True or False as normalize, got {prompt!r} and {normalize!r}"
            )
        if encoding_format not in _FORMATS:
            formats = ", ".join(map(repr, _FORMATS))
            raise ValueError(f"encoding_format: expected one of {formats}, got {encoding_format!r}")
        is_name = isinstance(api_key_env, str) and re.fullmatch(r"[A-Za-z_]\w*", api_key_env)
        if api_key_env is not None and not is_name:
            # A key that was given instead of its variable's name must not be shown.
            raise ValueError("api_key_env: expected the name of an environment variable or None, got something else")
        self.url = url
        self.model = model
        self.dimensions = None if dimensions is None else int(dimensions)
        self.prompt = prompt
        self.max_characters = None if max_characters is None else int(max_characters)
        self.normalize = normalize
        self.batch_size = int(batch_size)
        self.encoding_format = encoding_format
        self.timeout = timeout
        self.max_retries = int(max_retries)
        self.api_key_env = api_key_env
        self.n_truncated_ = 0
        self.n_truncated_total_ = 0

    @classmethod
    def from_string(cls, text: str) -> Self:
        """Create the encoder that ``"http://host:8080/v1#model"`` names.

        Parameters
        ----------
        text : str
            Address and model, with ``#`` between them.

        Returns
        -------
        HTTPEncoder
        """
        url, model = urldefrag(text)
        if is_blank(model):
            raise ValueError(
                f"expected an address and a model, such as 'http://127.0.0.1:8080/v1#BAAI/bge-m3', got no model "
                f"behind {endpoint_of(url)}"
            )
        return cls(url, model)

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Vectors of the texts.

        Parameters
        ----------
        texts : sequence of n str
            A blank one is a vector of zeros; servers refuse them.

        Returns
        -------
        vectors : ndarray of shape (n, n_dimensions), dtype float32

        Raises
        ------
        EmbeddingServerError
            If the server cannot be reached or refuses, also after further tries; if it gives too few or too many
            vectors, other widths, numbers that are not finite, or no vectors at all. The message is one sentence.
        TypeError, ValueError
            If a text is not a string, or cannot be written as UTF-8; the message has its index. If the variable of the
            key holds what is no key.
        """
        texts = check_texts(texts, allow_blank=True)
        asked = [number for number, text in enumerate(texts) if not is_blank(text)]
        self.n_truncated_ = self._n_cut(texts)
        parts = []
        for start in range(0, len(asked), self.batch_size):
            parts.append(self._ask([texts[number] for number in asked[start : start + self.batch_size]]))
        vectors = np.zeros((len(texts), self._dimension if not parts else parts[0].shape[1]), dtype=np.float32)
        if parts:
            vectors[asked] = np.concatenate(parts)
        self.n_truncated_total_ += self.n_truncated_
        if self.normalize:
            vectors = of_unit_length(vectors)
        return vectors

    def count_truncated(self, texts: Sequence[str]) -> int:
        """Number of texts with more than `max_characters`; no request is sent, and the server may read less.

        Parameters
        ----------
        texts : sequence of n str

        Returns
        -------
        n_truncated : int
        """
        return self._n_cut(check_texts(texts, allow_blank=True))

    @cached_property
    def fingerprint(self) -> str:
        """Names the model, its dimension and what is done to texts. Asks the server, unless it has answered before."""
        parts: dict[str, Any] = {"model": self.model}
        if self._served != self.model:
            parts["served"] = self._served
        return named(
            "http",
            {
                **parts,
                "dimension": self._dimension,
                "prompt": self.prompt,
                "max_characters": self.max_characters,
                "normalize": self.normalize,
            },
        )

    def get_params(self) -> dict[str, Any]:
        """The arguments of the constructor.

        Returns
        -------
        parameters : dict of str to object
            The name of the variable that holds the key, never the key.
        """
        names = list(inspect.signature(type(self).__init__).parameters)[1:]
        return {name: getattr(self, name) for name in names}

    def _n_cut(self, texts: list[str]) -> int:
        most = self.max_characters
        return 0 if most is None else sum(len(text) > most for text in texts)

    def _ask(self, texts: list[str]) -> np.ndarray:
        """Vectors of some texts, which are not blank, before they are normalised."""
        prompt = self.prompt or ""
        body = {
            "model": self.model,
            "input": [prompt + text[: self.max_characters] for text in texts],
            "encoding_format": self.encoding_format,
            **({} if self.dimensions is None else {"dimensions": self.dimensions}),
        }
        known = self.__dict__.get("_known")
        retries = Retries(self.max_retries, float(self.timeout), hopeful=known is not None)
        found = ask(self._endpoint, body, n_texts=len(texts), key=_key_in(self.api_key_env), retries=retries)
        self._check(found, known)
        return found.matrix

    def _check(self, found: Answer, known: tuple[int, str] | None) -> None:
        """An error unless an answer is of the width and the model of those before; the first one says what they are."""
        width, served = found.matrix.shape[1], found.served or self.model
        expected = self.dimensions if known is None else known[0]
        if expected is not None and width != expected:
            raise EmbeddingServerError(f"{self._endpoint}: expected vectors of width {expected}, got width {width}")
        if known is not None and served != known[1]:
            raise EmbeddingServerError(
                f"{self._endpoint}: expected vectors of the model {known[1]!r}, as before, got those of {served[:80]!r}"
            )
        self._known = (width, served)

    @property
    def _dimension(self) -> int:
        return self._what_is_served[0]

    @property
    def _served(self) -> str:
        return self._what_is_served[1]

    @property
    def _what_is_served(self) -> tuple[int, str]:
        """Width of the vectors and the model's name on the server, which is asked if it has not said so yet."""
        if "_known" not in self.__dict__:
            self._ask(["dimension"])
        return self._known

    def __sklearn_clone__(self) -> Self:
        # Nothing is learned, so that the folds of a cross-validation ask about the server once.
        return self

    def __getstate__(self) -> dict[str, Any]:
        state = self.get_params() | {"_endpoint": self._endpoint}
        state |= {"n_truncated_": self.n_truncated_, "n_truncated_total_": self.n_truncated_total_}
        return state | ({"_known": self._known} if "_known" in self.__dict__ else {})

    def __repr__(self) -> str:
        parameters = self.get_params()
        url, model = parameters.pop("url"), parameters.pop("model")
        defaults = type(self).__init__.__kwdefaults__ or {}
        changed = [f", {name}={value!r}" for name, value in parameters.items() if value != defaults[name]]
        return f"HTTPEncoder({url!r}, {model!r}{''.join(changed)})"


def _key_in(variable: str | None) -> str | None:
    """The key in an environment variable; an error that does not show it where no header can hold it."""
    key = "" if variable is None else os.environ.get(variable, "").strip()
    if re.search(r"[^!-~]", key):
        raise ValueError(f"{variable}: expected a key of printable ASCII characters without blanks, got something else")
    return key or None


def _check_numbers(dimensions: Any, max_characters: Any, batch_size: Any, max_retries: Any, timeout: Any) -> None:
    """A ValueError for the first number that is not usable."""
    for name, value, least, optional in (
        ("dimensions", dimensions, 1, True),
        ("max_characters", max_characters, 1, True),
        ("batch_size", batch_size, 1, False),
        ("max_retries", max_retries, 0, False),
    ):
        is_integer = isinstance(value, Integral) and not isinstance(value, bool)
        if not (value is None and optional) and not (is_integer and int(value) >= least):
            raise ValueError(f"{name}: expected an integer of at least {least}{' or None' * optional}, got {value!r}")
    if isinstance(timeout, bool) or not isinstance(timeout, Real) or not 0.0 < float(timeout) < math.inf:
        raise ValueError(f"timeout: expected a positive number of seconds, got {timeout!r}")
