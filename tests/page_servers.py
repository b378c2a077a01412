"""Servers that pages of the documentation talk to, on addresses that are free."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from server_cases import EmbeddingServer, HubServer, point_client_to, running


@contextmanager
def page_with_servers(page: Path, monkeypatch, tmp_path: Path) -> Iterator[str]:
    """The text of a page, whose servers run meanwhile."""
    text = page.read_text(encoding="utf-8")
    if page.name == "embeddings.md":
        monkeypatch.setenv("EMBEDDINGS_KEY", "a-key")
        with running(EmbeddingServer(64)) as server:
            yield text.replace("http://127.0.0.1:8080", server.root)
    elif page.name == "hub.md":
        with running(HubServer()) as server:
            point_client_to(server.root, server.token, monkeypatch, tmp_path)
            yield text
    else:
        yield text
