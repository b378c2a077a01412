"""A server for one model: rewards, rankings, votes that survive a killed process, and a page to try it."""

from __future__ import annotations

from micropref.serve._server import serve
from micropref.serve._settings import Limits

__all__ = ["Limits", "serve"]
