"""Guard: what every request passes before and after its endpoint, and the only place where one can fail unforeseen."""

from __future__ import annotations

import asyncio
import hmac
import json
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from micropref.serve._logs import Log
from micropref.serve._metrics import Metrics
from micropref.serve._settings import Settings

__all__ = ["FAILED", "Guard"]

#: The answer where an error was not foreseen.
FAILED = "expected an answer, got an error in the server, which its log describes"

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

# What needs no token: the life sign, and pages that hold nothing of anyone.
_OPEN = {"/", "/healthz", "/docs", "/openapi.json"}
_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
    (b"x-frame-options", b"DENY"),
]
_CSP = b"content-security-policy"
_DEFAULT_CSP = (_CSP, b"default-src 'none'; frame-ancestors 'none'")
# A body that is too large is read to its end, up to here, so that its sender hears the answer.
_DRAINED_BYTES, _DRAINED_S = 1 << 26, 5.0


class _RefusedError(Exception):
    """A request that is answered at once."""

    def __init__(self, detail: str, status: int, *headers: tuple[bytes, bytes]):
        super().__init__(detail)
        self.status, self.detail, self.headers = status, detail, list(headers)


class Guard:
    """Checks host, token, type and size of a request; logs and counts it; lets no error out but in words.

    Parameters
    ----------
    app : ASGI application
    settings : Settings
    metrics : Metrics
    log : Log
    """

    def __init__(self, app: App, settings: Settings, metrics: Metrics, log: Log):
        self._app, self._settings, self._metrics, self._log = app, settings, metrics, log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            else:
                await send({"type": "websocket.close", "code": 1003})
            return
        start = time.perf_counter()
        status = 0
        body = b""
        is_head = scope["method"] == "HEAD"
        # HEAD is answered as GET is, status and headers alike, and the body stays here.
        routed = {**scope, "method": "GET"} if is_head else scope

        async def answer(message: Message) -> None:
            nonlocal status
            if is_head and message["type"] == "http.response.body":
                message = {**message, "body": b""}
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = list(message.get("headers", ())) + _HEADERS
                message["headers"] = headers if any(n == _CSP for n, _ in headers) else [*headers, _DEFAULT_CSP]
            await send(message)

        try:
            body = await self._checked(scope, receive)
            await self._app(routed, _replayed(body, receive), answer)
        except _RefusedError as refused:
            await _say(answer, refused.status, refused.detail, refused.headers)
        except Exception as error:
            self._log.failure("error", error, path=_route(routed))
            if not status:
                await _say(answer, 500, FAILED, [])
        finally:
            routed["method"] = scope["method"]
            self._note(routed, status, time.perf_counter() - start, body)

    def _note(self, scope: Scope, status: int, seconds: float, body: bytes) -> None:
        path = _route(scope)
        self._metrics.add(_method(scope), path, status, seconds)
        more: dict[str, Any] = {}
        if self._settings.log_content:
            more = {"target": scope["path"], "body": body.decode("utf-8", "replace")}
        self._log.write("request", method=_method(scope), path=path, status=status, ms=round(seconds * 1e3, 2), **more)

    async def _checked(self, scope: Scope, receive: Receive) -> bytes:
        """The body of a request that may pass."""
        headers: dict[bytes, bytes] = dict(scope["headers"])
        settings = self._settings
        if settings.hosts is not None and _host(headers.get(b"host", b"")) not in settings.hosts:
            raise _RefusedError("Host: expected a name of this server, got another; name it with --allow-host", 421)
        if settings.token is not None and scope["path"] not in _OPEN:
            scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
            if scheme.lower() != b"bearer" or not hmac.compare_digest(given.strip(), settings.token):
                detail = "Authorization: expected the bearer token of this server, got none or another"
                raise _RefusedError(detail, 401, (b"www-authenticate", b"Bearer"))
        body = await self._body(headers, receive)
        if scope["method"] == "POST":
            kind = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
            if kind != b"application/json":
                # A page of another site can send other types without asking first.
                raise _RefusedError("Content-Type: expected application/json, got another or none", 415)
        return body

    async def _body(self, headers: dict[bytes, bytes], receive: Receive) -> bytes:
        limits = self._settings.limits
        declared = headers.get(b"content-length", b"0")
        size = int(declared) if declared.isdigit() else 0
        too_large = f"expected a body of at most {limits.body} bytes, got a larger one"
        if size > limits.body and (size > _DRAINED_BYTES or b"expect" in headers):
            raise _RefusedError(too_large, 413, (b"connection", b"close"))
        try:
            body = await asyncio.wait_for(_collected(receive, limits.body), limits.body_seconds)
        except TimeoutError:
            detail = f"expected a body within {limits.body_seconds:g} s, got a part of one"
            raise _RefusedError(detail, 408, (b"connection", b"close")) from None
        if body is None:
            raise _RefusedError(too_large, 413, (b"connection", b"close"))
        return body


async def _collected(receive: Receive, most: int) -> bytes | None:
    """All bytes of a body; None where they are more than these."""
    parts: list[bytes] = []
    n, start = 0, time.monotonic()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return b"".join(parts) if n <= most else None
        part = message.get("body", b"")
        n += len(part)
        if n <= most:
            parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts) if n <= most else None
        if n > _DRAINED_BYTES or (n > most and time.monotonic() - start > _DRAINED_S):
            return None


def _replayed(body: bytes, receive: Receive) -> Receive:
    """The receiving end of a body that has been read."""
    is_given = False

    async def again() -> Message:
        nonlocal is_given
        if is_given:
            return await receive()
        is_given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


async def _say(send: Send, status: int, detail: str, headers: list[tuple[bytes, bytes]]) -> None:
    content = json.dumps({"detail": detail}).encode()
    kinds = [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": kinds + headers})
    await send({"type": "http.response.body", "body": content})


def _route(scope: Scope) -> str:
    """The path of the route, in which an id is {id}."""
    return str(getattr(scope.get("route"), "path_format", _known(scope["path"])))


def _known(path: str) -> str:
    """A path as it may be logged before it was routed."""
    if path.startswith("/users/"):
        return "/users/{id}"
    return path if path in _PATHS else "other"


def _method(scope: Scope) -> str:
    return scope["method"] if scope["method"] in ("GET", "POST", "DELETE", "HEAD", "OPTIONS") else "other"


def _host(header: bytes) -> str:
    """The name in a Host header, without its port."""
    text = header.decode("latin-1").lower()
    return text[: text.rfind("]") + 1] if text.startswith("[") else text.partition(":")[0]


_PATHS = _OPEN | {"/score", "/rank", "/votes", "/suggest", "/metrics", "/examples"}
