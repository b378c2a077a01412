"""The endpoints, as a FastAPI application."""

# Annotations are evaluated where they stand, since FastAPI reads them and is imported inside of functions.
import json
import math
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict
from functools import partial
from importlib.resources import files
from typing import Any

import numpy as np

from micropref._reward.serving import Rows, Vote
from micropref._support.optional import require
from micropref.serve._batches import BusyError
from micropref.serve._bodies import BodyReader, path_user
from micropref.serve._database import StorageError
from micropref.serve._documents import documentation, page_of
from micropref.serve._guard import FAILED, Guard
from micropref.serve._logs import Log
from micropref.serve._metrics import Metrics
from micropref.serve._schemas import (
    About,
    Examples,
    Forgotten,
    Health,
    Problem,
    RankRequest,
    RankResponse,
    ScoreRequest,
    ScoreResponse,
    Suggestion,
    SuggestRequest,
    SuggestResponse,
    Topic,
    VoteRequest,
    VoteResponse,
)
from micropref.serve._service import BadInputError, ConflictError, Forget, KeyedVote, Service
from micropref.serve._settings import Settings

__all__ = ["create_application"]

_ONE_REWARD = "this model has one reward for all users: the vote is kept, and changes no reward"
_STATUS: dict[type[Exception], int] = {BadInputError: 422, ConflictError: 409, StorageError: 503, BusyError: 503}


def create_application(service: Service, settings: Settings, log: Log) -> Any:
    """The ASGI application of a service.

    Parameters
    ----------
    service : Service
    settings : Settings
    log : Log
    """
    fastapi = require("fastapi", "Serving a model")
    metrics = Metrics()
    endpoints = Endpoints(service, BodyReader(settings.limits), metrics)

    @asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[None]:
        service.start()
        yield
        service.close()

    app = fastapi.FastAPI(
        title="micropref", version=_version(), summary=_SUMMARY, docs_url=None, redoc_url=None, lifespan=lifespan
    )
    app.router.redirect_slashes = False
    for path, method, endpoint, request, answer in endpoints.table():
        extra = None if request is None else {"requestBody": _described(request, fastapi)}
        app.add_api_route(
            path,
            _route(endpoint, fastapi.Request, fastapi.Response),
            methods=[method],
            name=endpoint.__name__,
            summary=str(endpoint.__doc__).splitlines()[0],
            openapi_extra=extra,
            response_class=fastapi.Response,
            responses={
                200: {"model": answer} if answer else {"description": "Text."},
                **{status: {"model": Problem} for status in _PROBLEMS.get(path, ())},
            },
        )
    _pages(app, fastapi)
    for kind, status in {404: 404, 405: 405}.items():
        app.add_exception_handler(kind, partial(_unknown, fastapi, status))
    app.add_exception_handler(Exception, partial(_failed, fastapi))
    return Guard(app, settings, metrics, log)


_SUMMARY = "Rewards of responses for a context and a user, and users that are learned from their votes."
_PROBLEMS = {
    "/score": (413, 422, 503),
    "/rank": (413, 422, 503),
    "/votes": (409, 413, 422, 503),
    "/suggest": (413, 422, 503),
    "/users/{id:path}": (404, 422, 503),
}


class Endpoints:
    """What is answered, as (status, content).

    Parameters
    ----------
    service : Service
    reader : BodyReader
    metrics : Metrics
    """

    def __init__(self, service: Service, reader: BodyReader, metrics: Metrics):
        self.service, self.reader, self.metrics = service, reader, metrics

    def table(self) -> list[tuple[str, str, Callable[..., Awaitable[Any]], Any, Any]]:
        """Path, method, endpoint, and the dataclasses of body and answer."""
        return [
            ("/score", "POST", self.score, ScoreRequest, ScoreResponse),
            ("/rank", "POST", self.rank, RankRequest, RankResponse),
            ("/votes", "POST", self.vote, VoteRequest, VoteResponse),
            ("/suggest", "POST", self.suggest, SuggestRequest, SuggestResponse),
            ("/users/{id:path}", "GET", self.about, None, About),
            ("/users/{id:path}", "DELETE", self.forget, None, Forgotten),
            ("/examples", "GET", self.examples, None, Examples),
            ("/healthz", "GET", self.health, None, Health),
            ("/metrics", "GET", self.measure, None, None),
        ]

    async def score(self, request: Any) -> Any:
        """Rewards of responses."""
        body = self.reader.read(await request.body(), ScoreRequest)
        self.reader.count("items", len(body.items))
        rows = Rows(
            [item.prompt for item in body.items],
            [item.response for item in body.items],
            [item.context for item in body.items],
            [self.reader.user(item.user) for item in body.items],
        )
        self.reader.texts("items.prompt", rows.prompts)
        self.reader.texts("items.response", rows.responses, blank=False)
        self.reader.texts("items.context", rows.contexts)
        return {"rewards": await self.service.scoring.do(rows)}

    async def rank(self, request: Any) -> Any:
        """Order of responses to one prompt, the best first."""
        body = self.reader.read(await request.body(), RankRequest)
        n = len(body.responses)
        self.reader.count("responses", n)
        self.reader.texts("responses", body.responses, blank=False)
        self.reader.texts("prompt and context", [body.prompt, body.context])
        user = self.reader.user(body.user)
        if body.explain:
            explain = partial(self.service.explain, body.prompt, body.responses, body.context, user)
            found = await self.service.asking.do(explain)
            more = {"weights": found.weights.tolist(), "heads": found.heads.tolist()}
            return {**_ranked(found.rewards), **more}
        rows = Rows([body.prompt] * n, body.responses, [body.context] * n, [user] * n)
        return _ranked(np.array(await self.service.scoring.do(rows)))

    async def vote(self, request: Any) -> Any:
        """Learn that a user preferred one response to another; the answer comes when the vote is on the disk."""
        body = self.reader.read(await request.body(), VoteRequest)
        user = self.reader.known_user(body.user)
        self.reader.texts("chosen and rejected", [body.chosen, body.rejected], blank=False)
        self.reader.texts("prompt and context", [body.prompt, body.context])
        self.reader.pair(body.chosen, body.rejected, ("chosen", "rejected"))
        vote = Vote(user, body.prompt, body.chosen, body.rejected, body.context)
        key = self.reader.key(body.key, lambda: uuid.uuid4().hex)
        counted = await self.service.writing.do(KeyedVote(vote, key))
        note = {} if self.service.served.is_personal else {"note": _ONE_REWARD}
        return {"votes": counted.n_votes, "new": counted.is_new, **note}

    async def suggest(self, request: Any) -> Any:
        """The pairs whose answers say most of a user."""
        body = self.reader.read(await request.body(), SuggestRequest)
        user = self.reader.user(body.user)
        self.reader.texts("context", [body.context])
        self.reader.count("n", body.n)
        own = self.service.questions
        prompts, first, second = own.prompts, own.first, own.second
        given = None
        if body.pairs is not None:
            self.reader.count("pairs", len(body.pairs))
            prompts, first, second = (
                [getattr(pair, name) for pair in body.pairs] for name in ("prompt", "first", "second")
            )
            self.reader.texts("pairs.prompt", prompts)
            for name, texts in (("pairs.first", first), ("pairs.second", second)):
                self.reader.texts(name, texts, blank=False)
            for pair in body.pairs:
                self.reader.pair(pair.first, pair.second, ("first", "second"))
            given = prompts, first, second
        found = await self.service.asking.do(partial(self.service.suggest, given, body.n, body.context, user))
        return {
            "suggestions": [asdict(Suggestion(row, prompts[row], first[row], second[row], nats)) for row, nats in found]
        }

    async def about(self, request: Any) -> Any:
        """How often a user has voted, and the weights of the heads for them."""
        user = self.reader.known_user(request.path_params["id"])
        context = request.query_params.get("context", "")
        self.reader.texts("context", [context])
        found = await self.service.asking.do(partial(self.service.about, user, context))
        if found is None:
            return 404, _UNKNOWN_USER
        return {"user": path_user(user), "votes": found[0], "weights": found[1].tolist()}

    async def forget(self, request: Any) -> Any:
        """Delete a user with all votes and everything that was learned from them."""
        user = self.reader.known_user(request.path_params["id"])
        n_votes = await self.service.writing.do(Forget(user))
        return (404, _UNKNOWN_USER) if n_votes is None else {"user": path_user(user), "votes": n_votes}

    async def examples(self, request: Any) -> Any:
        """What the page offers to pick."""
        own, served = self.service.questions, self.service.served
        topics = [Topic(prompt, responses) for prompt, responses in own.topics]
        return asdict(Examples(own.wishes, topics, served.n_heads, served.is_personal))

    async def health(self, request: Any) -> Any:
        """That the server answers, and which model it serves."""
        return asdict(Health("ok", self.service.name[:12], self.service.n_users))

    async def measure(self, request: Any) -> Any:
        """Metrics in the text format of Prometheus."""
        service = self.service
        return self.metrics.text(
            {
                "micropref_users": ("gauge", "Users known.", service.n_users),
                "micropref_votes": ("gauge", "Votes stored.", service.n_votes),
                "micropref_scoring_waiting": ("gauge", "Requests that wait to be scored.", len(service.scoring)),
                "micropref_votes_waiting": ("gauge", "Votes that wait to be stored.", len(service.writing)),
                "micropref_reloads_total": ("counter", "Models that replaced another.", service.n_reloads),
                "micropref_failed_reloads_total": ("counter", "Reloads that failed.", service.n_failed_reloads),
            }
        )


_UNKNOWN_USER = "expected a user who has voted, got an unknown one"


def _ranked(rewards: Any) -> dict[str, Any]:
    return {"order": np.argsort(-rewards, kind="stable").tolist(), "rewards": rewards.tolist()}


def _route(endpoint: Callable[..., Awaitable[Any]], request_class: Any, response_class: Any) -> Any:
    """An endpoint as FastAPI calls it: JSON of what it gives, and a sentence where it refuses."""

    async def respond(request: request_class) -> response_class:
        status = 200
        try:
            content = await endpoint(request)
        except tuple(_STATUS) as error:
            status = next(code for kind, code in _STATUS.items() if isinstance(error, kind))
            content = str(error)
        if isinstance(content, tuple):
            status, content = content
        if status == 200 and isinstance(content, str):
            return response_class(content, media_type="text/plain; version=0.0.4")
        answer = content if status == 200 else {"detail": content}
        headers = {"retry-after": "1"} if status == 503 else None
        return response_class(_json(answer), status, headers=headers, media_type="application/json")

    return respond


def _json(content: Any) -> bytes:
    try:
        return json.dumps(content, allow_nan=False, separators=(",", ":")).encode()
    except ValueError:
        return json.dumps(_finite(content)).encode()


def _finite(content: Any) -> Any:
    """Numbers that JSON has."""
    if isinstance(content, dict):
        return {name: _finite(value) for name, value in content.items()}
    if isinstance(content, list):
        return [_finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def _described(kind: type, fastapi: Any) -> dict[str, Any]:
    """A body, for the description of the server."""
    schema = require("pydantic", "Serving a model").TypeAdapter(kind).json_schema()
    return {"required": True, "content": {"application/json": {"schema": _inlined(schema, schema.pop("$defs", {}))}}}


def _inlined(schema: Any, definitions: dict[str, Any]) -> Any:
    """A schema in which nothing is referred to by name."""
    if isinstance(schema, dict):
        if "$ref" in schema:
            return _inlined(definitions[schema["$ref"].rpartition("/")[2]], definitions)
        return {name: _inlined(value, definitions) for name, value in schema.items()}
    return [_inlined(value, definitions) for value in schema] if isinstance(schema, list) else schema


def _pages(app: Any, fastapi: Any) -> None:
    """The two pages for people."""
    page, policy = page_of(files("micropref.serve").joinpath("page.html").read_text(encoding="utf-8"))
    headers = {"content-security-policy": policy}

    async def show_page() -> fastapi.Response:
        return fastapi.Response(page, headers=headers, media_type="text/html; charset=utf-8")

    async def show_documentation() -> fastapi.Response:
        text, own_policy = page_of(documentation(app.openapi()))
        own = {"content-security-policy": own_policy}
        return fastapi.Response(text, headers=own, media_type="text/html; charset=utf-8")

    for path, show in (("/", show_page), ("/docs", show_documentation)):
        app.add_api_route(path, show, methods=["GET"], include_in_schema=False, response_class=fastapi.Response)


async def _unknown(fastapi: Any, status: int, request: Any, error: Exception) -> Any:
    what = "a path that /docs lists" if status == 404 else "a method that /docs lists for this path"
    content = _json({"detail": f"expected {what}, got another"})
    headers = dict(getattr(error, "headers", None) or {})  # where the method is wrong: those that are allowed
    if "GET" in headers.get("Allow", ""):
        headers["Allow"] += ", HEAD"  # which the guard answers
    return fastapi.Response(content, status, headers=headers, media_type="application/json")


async def _failed(fastapi: Any, request: Any, error: Exception) -> Any:
    """What is said of an error that was not foreseen, which the guard logs."""
    return fastapi.Response(_json({"detail": FAILED}), 500, media_type="application/json")


def _version() -> str:
    from micropref import __version__

    return __version__
