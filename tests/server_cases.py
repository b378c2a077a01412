"""Servers on 127.0.0.1 that stand in for others: one of embeddings as OpenAI's API has it, and the Hub."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np

from micropref.embed import HashingEncoder

COMMIT_LENGTH = 40


class Handler(BaseHTTPRequestHandler):
    """One connection, whose requests go to the method `answer` of the server."""

    protocol_version = "HTTP/1.1"

    def handle_all(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        self.server.answer(self, self.rfile.read(length))

    do_GET = do_POST = do_PUT = do_HEAD = handle_all

    def reply(self, content: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": len(data), **(headers or {})}.items():
            self.send_header(name, str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *args: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def root(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def answer(self, request: Handler, body: bytes) -> None:
        raise NotImplementedError

    def handle_error(self, *args: object) -> None:
        """A client that went away is no news."""


@contextmanager
def running(server: Server) -> Iterator[Any]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


# ------------------------------------------------------------------------------------------------------- embeddings


class EmbeddingServer(Server):
    """Vectors of hashed words, in a shuffled order, with the API of vLLM and TEI.

    Parameters
    ----------
    width : int
    key : str, optional
        Bearer token without which the answer is 401.
    model : str, optional
        The name under which it answers; by default the one that was asked for.
    """

    def __init__(self, width: int = 16, key: str | None = None, model: str | None = None) -> None:
        super().__init__()
        self.encoder = HashingEncoder(width, n_hashes=1 << 12)
        self.key = key
        self.model = model
        self.asked: list[dict[str, Any]] = []
        self.authorizations: list[str | None] = []
        #: Called before an answer: what it returns, unless None, is (content, status, headers) instead.
        self.instead: list[Callable[[dict[str, Any]], Any]] = []

    @property
    def url(self) -> str:
        return f"{self.root}/v1"

    def vectors(self, texts: list[str], width: int | None = None) -> np.ndarray:
        return self.encoder.encode(texts)[:, :width]

    def answer(self, request: Handler, body: bytes) -> None:
        question = json.loads(body or b"{}")
        self.asked.append(question)
        self.authorizations.append(request.headers.get("Authorization"))
        if self.instead:
            other = self.instead.pop(0)(question)
            if other is not None:
                return request.reply(*other)
        if request.path != "/v1/embeddings":
            return request.reply({"error": "no such path"}, 404)
        if self.key is not None and request.headers.get("Authorization") != f"Bearer {self.key}":
            sent = request.headers.get("Authorization", "").removeprefix("Bearer ")
            return request.reply({"error": {"message": f"Incorrect API key provided: {sent}."}}, 401)
        vectors = self.vectors(question["input"], question.get("dimensions"))
        rows = [{"object": "embedding", "index": i, "embedding": written(v, question)} for i, v in enumerate(vectors)]
        model = self.model or question["model"]
        return request.reply({"object": "list", "model": model, "data": rows[::-1], "usage": {"total_tokens": 1}})


def written(vector: np.ndarray, question: dict[str, Any]) -> Any:
    if question.get("encoding_format") == "base64":
        return base64.b64encode(vector.astype("<f4").tobytes()).decode()
    return vector.tolist()


# -------------------------------------------------------------------------------------------------------------- Hub


class HubServer(Server):
    """Repositories of models with branches, tags and commits, by the endpoints that huggingface_hub 2.4 asks.

    Parameters
    ----------
    large : bool
        Whether tensors are uploaded as LFS objects, as the Hub wants it, or within the commit.
    """

    def __init__(self, *, large: bool = False, token: str = "hf_secret") -> None:
        super().__init__()
        self.large = large
        self.token = token
        self.repos: dict[str, dict[str, Any]] = {}
        self.objects: dict[str, bytes] = {}
        self.log: list[tuple[str, str]] = []
        self.status: int | None = None

    # What the tests look at.

    def files(self, repo: str, revision: str = "main") -> dict[str, bytes]:
        found = self.repos[repo]
        return found["commits"][found["refs"].get(revision, revision)]

    def tag(self, repo: str, name: str, commit: str | None = None) -> str:
        refs = self.repos[repo]["refs"]
        refs[name] = refs["main"] if commit is None else commit
        return refs[name]

    # What the client asks.

    def answer(self, request: Handler, body: bytes) -> None:
        path = unquote(urlsplit(request.path).path)
        self.log.append((request.command, path))
        if self.status is not None:
            return request.reply({"error": "the Hub is down"}, self.status)
        parts = path.strip("/").split("/")
        if path == "/api/validate-yaml":
            return request.reply({"errors": [], "warnings": []})
        if path == "/api/repos/create":
            return self.create(request, json.loads(body))
        if parts[0] == "lfs":
            self.objects[parts[1]] = body or self.objects.get(parts[1], b"")
            return request.reply({} if request.command != "GET" else self.objects[parts[1]])
        is_api = parts[:2] == ["api", "models"]
        repo = "/".join(parts[2:4] if is_api else parts[:2]).removesuffix(".git")
        found = self.repos.get(repo)
        if found is None or (found["private"] and not self.authorized(request)):
            return request.reply(
                {"error": "Repository not found"},
                404 if self.authorized(request) else 401,
                {"X-Error-Code": "RepoNotFound"},
            )
        return self.in_repo(request, body, repo, parts[4:] if is_api else parts[2:], is_api=is_api)

    def authorized(self, request: Handler) -> bool:
        return request.headers.get("Authorization") == f"Bearer {self.token}"

    def create(self, request: Handler, asked: dict[str, Any]) -> None:
        if not self.authorized(request):
            return request.reply({"error": "Invalid username or password."}, 401)
        repo = f"{asked['organization']}/{asked['name']}"
        there = repo in self.repos
        private = asked.get("visibility") == "private" or bool(asked.get("private"))
        first = hashlib.sha1(repo.encode()).hexdigest()
        self.repos.setdefault(
            repo, {"private": private, "refs": {"main": first}, "commits": {first: {}}, "head": first}
        )
        return request.reply({"url": f"{self.root}/{repo}", "name": repo, "id": repo}, 409 if there else 200)

    def in_repo(self, request: Handler, body: bytes, repo: str, rest: list[str], *, is_api: bool) -> None:
        if is_api and rest[:1] == ["preupload"]:
            return self.preupload(request, json.loads(body))
        if rest[:1] == ["info"]:
            return self.batch(request, json.loads(body))
        refs, commits = self.repos[repo]["refs"], self.repos[repo]["commits"]
        revision = rest[1] if len(rest) > 1 else "main"
        commit = refs.get(revision, revision)
        if commit not in commits:
            return request.reply({"error": "Invalid rev id"}, 404, {"X-Error-Code": "RevisionNotFound"})
        if is_api and rest[:1] == ["commit"]:
            return self.commit(request, body, repo, revision)
        if is_api and rest[:1] == ["tree"]:
            files = commits[commit]
            return request.reply([self.described(name, content) for name, content in files.items()])
        if is_api:
            files = [{"rfilename": name} for name in commits[commit]]
            return request.reply({"id": repo, "sha": commit, "private": self.repos[repo]["private"], "siblings": files})
        return self.resolve(request, commits[commit], commit, "/".join(rest[2:]))

    def preupload(self, request: Handler, asked: dict[str, Any]) -> None:
        modes = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if self.large and file["path"].endswith(".safetensors") else "regular",
                "shouldIgnore": False,
            }
            for file in asked["files"]
        ]
        request.reply({"files": modes})

    def batch(self, request: Handler, asked: dict[str, Any]) -> None:
        actions = [
            {**one, "actions": {"upload": {"href": f"{self.root}/lfs/{one['oid']}", "header": {}}}}
            for one in asked["objects"]
        ]
        request.reply({"transfer": "basic", "objects": actions})

    def commit(self, request: Handler, body: bytes, repo: str, revision: str) -> None:
        if not self.authorized(request):
            return request.reply({"error": "You have read access only."}, 403)
        found = self.repos[repo]
        files = dict(found["commits"][found["refs"][revision]])
        for line in body.splitlines():
            one = json.loads(line)
            value = one["value"]
            if one["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif one["key"] == "lfsFile":
                files[value["path"]] = self.objects[value["oid"]]
            elif one["key"] == "deletedFile":
                del files[value["path"]]
        oid = hashlib.sha1(body + found["refs"][revision].encode()).hexdigest()
        found["commits"][oid] = files
        found["refs"][revision] = oid
        return request.reply({"commitUrl": f"{self.root}/{repo}/commit/{oid}", "commitOid": oid, "success": True})

    def described(self, name: str, content: bytes) -> dict[str, Any]:
        oid = hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()
        described = {"type": "file", "path": name, "size": len(content), "oid": oid}
        if self.large and name.endswith(".safetensors"):
            sha = hashlib.sha256(content).hexdigest()
            described["lfs"] = {"oid": sha, "size": len(content), "pointerSize": 130}
        return described

    def resolve(self, request: Handler, files: dict[str, bytes], commit: str, name: str) -> None:
        headers = {"X-Repo-Commit": commit}
        if name not in files:
            return request.reply({"error": "Entry not found"}, 404, {**headers, "X-Error-Code": "EntryNotFound"})
        content = files[name]
        described = self.described(name, content)
        if "lfs" not in described:
            return request.reply(content, 200, {**headers, "ETag": f'"{described["oid"]}"'})
        sha = described["lfs"]["oid"]
        self.objects[sha] = content
        # Another host, as the Hub's store of large files is one: within a host the client follows at once.
        place = f"{self.root.replace('127.0.0.1', 'localhost')}/lfs/{sha}"
        headers |= {"X-Linked-Etag": f'"{sha}"', "X-Linked-Size": str(len(content)), "Location": place}
        return request.reply(b"", 302, headers)


def point_client_to(root: str, token: str, monkeypatch: Any, folder: Path) -> None:
    """What HF_ENDPOINT, HF_HUB_CACHE, HF_TOKEN_PATH and HF_TOKEN do before huggingface_hub is imported."""
    from huggingface_hub import constants

    template = constants.HUGGINGFACE_CO_URL_TEMPLATE
    monkeypatch.setattr(constants, "ENDPOINT", root)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", root + template[template.index("/{repo_id}") :])
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder / "cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(folder / "no-token"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", token)
