"""One question to a server of embeddings, as OpenAI's API has it: sent, sent again where that may help, and checked."""

from __future__ import annotations

import base64
import binascii
import json
import random
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http.client import HTTPException, HTTPMessage
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, OpenerDirector, Request, build_opener

import numpy as np

__all__ = ["Answer", "EmbeddingServerError", "Retries", "ask", "endpoint_of"]

# A server that is busy, restarts, or was reached through a proxy that lost it; all else stays as it is.
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.5, 30.0
# What a server may ask for by Retry-After. A longer wait is the user's decision.
_MOST_PATIENCE_S = 300.0
# A hundred vectors of 16 384 numbers, written as decimals, have 40 MB.
_MOST_BYTES = 1 << 28
_SHOWN = 120


class EmbeddingServerError(OSError):
    """An embedding server cannot be reached, refuses a request, or does not return the vectors of the texts."""


class _NoRedirects(HTTPRedirectHandler):
    """A redirect would carry texts and key to an address that the user did not give."""

    def redirect_request(
        self, req: Request, fp: Any, code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> Request | None:
        return None


_OPENER: OpenerDirector = build_opener(_NoRedirects)


@dataclass(frozen=True)
class Retries:
    """How often a question is sent again, and how long one may take.

    Attributes
    ----------
    most : int
        Tries after the first one.
    timeout : float
        Seconds of silence after which a server is taken to have failed.
    hopeful : bool
        Whether a server that is not there is asked again: one that has answered before may come back.
    """

    most: int
    timeout: float
    hopeful: bool


@dataclass(frozen=True)
class Answer:
    """What a server gave: vectors of shape (n_texts, n_dimensions), and the model that it says they come from."""

    matrix: np.ndarray
    served: str | None


class _Failure(Exception):
    """A try that failed; `again` says whether another one may help, `wait` how long the server asks to wait."""

    def __init__(self, problem: str, *, again: bool = False, wait: float | None = None):
        super().__init__(problem)
        self.again = again
        self.wait = wait


def endpoint_of(url: str) -> str:
    """The address that questions are sent to: of ``http://host:8080``, ``…/v1`` or ``…/v1/embeddings``.

    Raises
    ------
    ValueError
        If it is no address of a server, or holds a password or a query, which would be saved and logged.
    """
    parts = urlsplit(url) if isinstance(url, str) else None
    try:
        valid = parts is not None and parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        valid = valid and parts is not None and parts.path.isascii() and bool((parts.hostname or "").encode("idna"))
    except ValueError:  # a port that is no number, or a host that is no name
        valid = False
    if parts is None or not valid or re.search(r"[\s\x00-\x1f\x7f]", url):
        shown = _without_secrets(url) if isinstance(url, str) else repr(url)
        raise ValueError(f"url: expected the address of a server, such as 'http://127.0.0.1:8080/v1', got {shown}")
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise ValueError(
            "url: expected an address without user, password, query or fragment, got one that has them; "
            "put the key into an environment variable, which api_key_env names"
        )
    path = parts.path.rstrip("/") or "/v1"
    path = path if path.endswith("/embeddings") else f"{path}/embeddings"
    return f"{parts.scheme}://{parts.netloc}{path}"


def _without_secrets(url: str) -> str:
    """An address as errors may show it: neither who logs in nor a query."""
    return repr(re.sub(r"//[^/]*@", "//", url.split("?", 1)[0])[:_SHOWN])


def ask(
    endpoint: str,
    body: Mapping[str, Any],
    *,
    n_texts: int,
    key: str | None,
    retries: Retries,
    sleep: Callable[[float], object] = time.sleep,
) -> Answer:
    """Vectors of the texts of one question, in their order.

    A try that fails for a reason that passes is repeated after 0.5, 1, 2, … seconds, each times a random factor from
    0.5 to 1, so that many clients do not come back at once, and never before the server's own Retry-After is over.

    Raises
    ------
    EmbeddingServerError
        If the server cannot be reached, refuses, or answers with anything else; in one sentence.
    """
    request = Request(endpoint, json.dumps(body).encode(), _headers(key), method="POST")
    for attempt in range(retries.most + 1):
        try:
            return _vectors(_answer(request, retries, key), n_texts)
        except _Failure as failure:
            fault, wait = str(failure), failure.wait
            if not failure.again:
                raise EmbeddingServerError(f"{endpoint}: {fault}") from None
        if wait is not None and wait > _MOST_PATIENCE_S:
            raise EmbeddingServerError(f"{endpoint}: {fault}; it asks to wait for {wait:.0f} s")
        if attempt < retries.most:
            own = min(_FIRST_WAIT_S * 2.0**attempt, _LONGEST_WAIT_S) * random.uniform(0.5, 1.0)
            sleep(max(own, wait or 0.0))
    tries = "" if not retries.most else f", {retries.most + 1} times"
    raise EmbeddingServerError(f"{endpoint}: {fault}{tries}")


def _headers(key: str | None) -> dict[str, str]:
    headers = {"Content-Type": "application/json", "Accept": "application/json", "User-Agent": "micropref"}
    return headers if key is None else {**headers, "Authorization": f"Bearer {key}"}


def _answer(request: Request, retries: Retries, key: str | None) -> bytes:
    """The body of an answer; a _Failure for a server that gives none."""
    try:
        with _OPENER.open(request, timeout=retries.timeout) as response:
            content: bytes = response.read(_MOST_BYTES + 1)
            announced = str(response.headers.get("Content-Length", ""))
    except HTTPError as error:
        raise _refusal(error, key) from None
    except TimeoutError:
        raise _Failure(f"expected an answer within {retries.timeout:g} s, got none", again=True) from None
    except URLError as error:
        if isinstance(error.reason, TimeoutError):
            raise _Failure(f"expected an answer within {retries.timeout:g} s, got none", again=True) from None
        again = retries.hopeful or isinstance(error.reason, ConnectionResetError)
        reason = getattr(error.reason, "strerror", None) or error.reason
        raise _Failure(f"expected a server of embeddings, got no connection ({_line(reason)})", again=again) from None
    except (HTTPException, ConnectionError) as error:
        raise _Failure(f"expected an answer, got a connection that ended ({_line(error)})", again=True) from None
    if announced.isdigit() and len(content) < min(int(announced), _MOST_BYTES):  # reading up to a limit does not say so
        raise _Failure(f"expected an answer of {announced} bytes, got {len(content)} of them", again=True)
    if len(content) > _MOST_BYTES:
        raise _Failure(f"expected an answer of at most {_MOST_BYTES} bytes, got a longer one")
    return content


def _refusal(error: HTTPError, key: str | None) -> _Failure:
    """What a server's refusal says, in a sentence that never holds the key."""
    try:
        said = _message_of(error.read(1 << 16))
    except (OSError, HTTPException):
        said = ""
    said = _line(said.replace(key, "***") if key else said)
    because = f" ({said})" if said else ""
    if error.code in (401, 403):
        needed = "a key that it takes" if key else "a key, in an environment variable that api_key_env names"
        return _Failure(f"expected vectors, got status {error.code}: the server wants {needed}{because}")
    if 300 <= error.code < 400:
        place = _without_secrets(str(error.headers.get("Location", "")))
        return _Failure(f"expected vectors, got a redirect to {place}; pass the address that answers directly")
    if error.code == 404:
        return _Failure(f"expected vectors, got status 404: no such path or no such model{because}")
    again = error.code in _PASSING
    return _Failure(f"expected vectors, got status {error.code}{because}", again=again, wait=_retry_after(error))


def _retry_after(error: HTTPError) -> float | None:
    """Seconds that a server asks to wait, in either spelling; None where it does not say, or says what is no time."""
    value = str(error.headers.get("Retry-After", "")).strip()
    if re.fullmatch(r"\d{1,9}(\.\d+)?", value):
        return float(value)
    try:
        then = parsedate_to_datetime(value)
    except (TypeError, ValueError):
        return None
    then = then if then.tzinfo is not None else then.replace(tzinfo=UTC)
    return max((then - datetime.now(UTC)).total_seconds(), 0.0)


def _message_of(content: bytes) -> str:
    """What an error's body says: OpenAI's and vLLM's {"error": {"message": …}}, TEI's {"error": …}, or its text."""
    text = content.decode("utf-8", errors="replace")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return "" if text.lstrip().startswith("<") else text
    for name in ("error", "message", "detail"):
        if isinstance(found, dict) and found.get(name):
            found = found[name]
    return found if isinstance(found, str) else json.dumps(found)


def _line(text: object) -> str:
    line = " ".join(str(text).split())
    return line if len(line) <= _SHOWN else f"{line[:_SHOWN]}…"


def _vectors(content: bytes, n_texts: int) -> Answer:
    """The vectors of an answer, in the order of the texts; a _Failure for what is no answer."""
    try:
        answer = json.loads(content)
    except (ValueError, RecursionError):
        begin = _line(content[:_SHOWN].decode("utf-8", errors="replace"))
        raise _Failure(f"expected vectors as JSON, got {begin[:60]!r}") from None
    rows = answer.get("data") if isinstance(answer, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) and "embedding" in row for row in rows):
        raise _Failure(f"expected JSON with a list of embeddings in 'data', got {_line(json.dumps(answer))[:60]}")
    if len(rows) != n_texts:
        raise _Failure(f"expected {n_texts} vectors, one of every text, got {len(rows)}")
    if any("index" in row for row in rows):
        places = [row.get("index") for row in rows]
        if any(type(place) is not int for place in places) or sorted(places) != list(range(n_texts)):
            raise _Failure(f"expected every index from 0 to {n_texts - 1} once, got {_line(places)}")
        rows = sorted(rows, key=lambda row: int(row["index"]))
    vectors = [_vector(row["embedding"]) for row in rows]
    widths = {len(vector) for vector in vectors}
    if len(widths) != 1 or 0 in widths:
        raise _Failure(f"expected vectors of one width, got widths {', '.join(map(str, sorted(widths)))}")
    matrix = np.stack(vectors)
    if not np.isfinite(matrix).all():
        raise _Failure("expected finite numbers, got NaN or infinity")
    served = answer.get("model")
    return Answer(matrix, served if isinstance(served, str) and served else None)


def _vector(embedding: Any) -> np.ndarray:
    """One vector, of decimal numbers or of base64 over little-endian float32."""
    if isinstance(embedding, str):
        try:
            return np.frombuffer(base64.b64decode(embedding, validate=True), dtype="<f4").astype(np.float32)
        except (binascii.Error, ValueError):
            raise _Failure("expected vectors as numbers or as base64 of float32, got other text") from None
    if not isinstance(embedding, list) or not all(type(number) in (int, float) for number in embedding):
        raise _Failure(f"expected a vector of numbers, got {_line(json.dumps(embedding))[:60]}")
    with np.errstate(over="ignore"):  # infinite, and an error, where float32 cannot hold it
        try:
            return np.array(embedding, dtype=np.float64).astype(np.float32)
        except OverflowError:
            raise _Failure("expected finite numbers, got an integer that no float holds") from None
