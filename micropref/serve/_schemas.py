"""Requests and answers: plain dataclasses, from which the server checks bodies and describes itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

__all__ = [
    "About",
    "Examples",
    "Forgotten",
    "Health",
    "Pair",
    "Problem",
    "RankRequest",
    "RankResponse",
    "ScoreItem",
    "ScoreRequest",
    "ScoreResponse",
    "SuggestRequest",
    "SuggestResponse",
    "Suggestion",
    "Topic",
    "VoteRequest",
    "VoteResponse",
]

# Nothing is converted, and an unknown field is an error rather than a wish that is not heard.
_STRICT: dict[str, Any] = {"strict": True, "extra": "forbid"}
UserId = str | int | float | None


@dataclass
class ScoreItem:
    """A response to a prompt, in a context and for a user."""

    __pydantic_config__: ClassVar[Any] = _STRICT
    prompt: str
    response: str
    context: str = ""
    user: UserId = None


@dataclass
class ScoreRequest:
    """Responses to be rewarded."""

    __pydantic_config__: ClassVar[Any] = _STRICT
    items: list[ScoreItem]


@dataclass
class ScoreResponse:
    """Rewards in nats of log-odds, one of each item; only differences between responses to one prompt say anything."""

    rewards: list[float]


@dataclass
class RankRequest:
    """Responses to one prompt."""

    __pydantic_config__: ClassVar[Any] = _STRICT
    prompt: str
    responses: list[str]
    context: str = ""
    user: UserId = None
    explain: bool = False


@dataclass
class RankResponse:
    """Positions of the responses, the best first, and their rewards.

    With `explain` also the weights of the heads, and the rewards under each head.
    """

    order: list[int]
    rewards: list[float]
    weights: list[float] | None = None
    heads: list[list[float]] | None = None


@dataclass
class VoteRequest:
    """A user preferred one response to another; with a key, a vote that is sent again counts once."""

    __pydantic_config__: ClassVar[Any] = _STRICT
    user: UserId
    prompt: str
    chosen: str
    rejected: str
    context: str = ""
    key: str | None = None


@dataclass
class VoteResponse:
    """The vote is on the disk: how often its user has voted, and whether it is new.

    A note says where the model cannot learn from votes.
    """

    votes: int
    new: bool
    note: str | None = None


@dataclass
class Pair:
    """Two responses to a prompt."""

    __pydantic_config__: ClassVar[Any] = _STRICT
    prompt: str
    first: str
    second: str


@dataclass
class SuggestRequest:
    """Which pairs to ask a user about next: of these, or of the server's own."""

    __pydantic_config__: ClassVar[Any] = _STRICT
    user: UserId = None
    context: str = ""
    n: int = 1
    pairs: list[Pair] | None = None


@dataclass
class Suggestion:
    """A pair, its position among those given (or the server's), and the information of its answer in nats."""

    index: int
    prompt: str
    first: str
    second: str
    information: float


@dataclass
class SuggestResponse:
    """The most informative pair first; empty where the user has answered all."""

    suggestions: list[Suggestion] = field(default_factory=list)


@dataclass
class About:
    """What is known of a user."""

    user: str | int
    votes: int
    weights: list[float]


@dataclass
class Forgotten:
    """A user was deleted, with so many votes."""

    user: str | int
    votes: int


@dataclass
class Topic:
    """A prompt with responses to be ranked."""

    prompt: str
    responses: list[str]


@dataclass
class Examples:
    """What the page offers: wishes, prompts with responses, and the number of heads."""

    wishes: list[str]
    topics: list[Topic]
    heads: int
    personal: bool


@dataclass
class Health:
    """The server answers."""

    status: str
    model: str
    users: int


@dataclass
class Problem:
    """What was expected, and what came."""

    detail: str
