"""Connections: how long, and for how much, the head of a request is waited for."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from micropref._support.optional import require
from micropref.serve._settings import Limits

__all__ = ["connection_class"]

# Before a request is whole, no check of it can run: what is kept of its head must be bounded here.
_LINES = {400: "Bad Request", 408: "Request Timeout", 431: "Request Header Fields Too Large"}


def connection_class(limits: Limits) -> type:
    """uvicorn's connection, which ends where a head is too long or does not come.

    Parameters
    ----------
    limits : Limits
    """
    require("httptools", "Serving a model")
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

    class Connection(HttpToolsProtocol):
        """One client."""

        _timer: asyncio.TimerHandle | None = None
        _is_in_head, _n_heads, _n_bytes = True, 0, 0

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._wait()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_waiting()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            was_in_head, n_heads = self._is_in_head, self._n_heads
            super().data_received(data)
            if was_in_head and n_heads == self._n_heads and not self.transport.is_closing():
                self._n_bytes += len(data)
                if self._n_bytes > limits.head:
                    self._refuse(431, f"expected a head of at most {limits.head} bytes, got a larger one")
                elif self._timer is None:
                    self._wait()

        def on_headers_complete(self) -> None:
            self._stop_waiting()
            self._is_in_head, self._n_bytes = False, 0
            self._n_heads += 1
            super().on_headers_complete()

        def on_message_complete(self) -> None:
            self._is_in_head = True
            super().on_message_complete()

        def send_400_response(self, msg: str) -> None:
            self._refuse(400, "expected a request of HTTP/1.1, got bytes that are none")

        def _wait(self) -> None:
            self._timer = self.loop.call_later(limits.body_seconds, self._time_out)

        def _stop_waiting(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

        def _time_out(self) -> None:
            self._refuse(408, f"expected a request within {limits.body_seconds:g} s, got none or a part of one")

        def _refuse(self, status: int, detail: str) -> None:
            """Say why, where no answer is on its way that this would break, and hang up."""
            self._stop_waiting()
            if self.cycle is None or self.cycle.response_complete:
                self.transport.write(_answer(status, detail))
            self.transport.close()

    return Connection


def _answer(status: int, detail: str) -> bytes:
    content = json.dumps({"detail": detail}).encode()
    head = f"HTTP/1.1 {status} {_LINES[status]}\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(content)}\r\nconnection: close\r\n\r\n".encode() + content
