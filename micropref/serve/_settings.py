"""Settings of a server: where it listens, what it takes, and what it says."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["TOKEN_VARIABLE", "Limits", "Settings", "token_of"]

#: The environment variable that holds the bearer token.
TOKEN_VARIABLE = "MICROPREF_TOKEN"


@dataclass(frozen=True)
class Limits:
    """Limits on the size of requests.

    Attributes
    ----------
    head : int
        Bytes of what comes before a body; beyond, 431.
    body : int
        Bytes of a body; beyond, 413.
    text : int
        Characters of a text; beyond, 422.
    items : int
        Responses to be scored or ranked, and pairs to be chosen from, in one request; beyond, 422.
    id : int
        Characters of a user's id and of a key.
    body_seconds : float
        Time in which a head, and then a body, must have come; beyond, 408.
    """

    head: int = 1 << 16
    body: int = 1 << 20
    text: int = 1 << 15
    items: int = 256
    id: int = 256
    body_seconds: float = 20.0


@dataclass(frozen=True)
class Settings:
    """How a server behaves.

    Attributes
    ----------
    limits : Limits
    token : bytes or None
        What requests must bear; None: nothing.
    hosts : frozenset of str or None
        Names by which it may be called; None: any.
    log_content : bool
        Whether the log holds bodies and the paths of users.
    """

    limits: Limits = Limits()
    token: bytes | None = None
    hosts: frozenset[str] | None = None
    log_content: bool = False


def token_of(environment: Mapping[str, str] = os.environ) -> bytes | None:
    """The bearer token of the environment, None without one.

    Raises
    ------
    ValueError
        If the variable is there and empty: its server would be open to all.
    """
    found = environment.get(TOKEN_VARIABLE)
    if found is None:
        return None
    if not found.strip():
        raise ValueError(f"{TOKEN_VARIABLE}: expected a token, got an empty one; unset the variable to need no token")
    return found.strip().encode("utf-8", "surrogateescape")
