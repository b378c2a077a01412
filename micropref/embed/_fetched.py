"""The folder of a model by its name, for what is read without sentence-transformers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from micropref._support.hub import hub_faults
from micropref._support.optional import require

__all__ = ["Fetched", "fetch", "read_json"]


class Fetched:
    """A model's folder.

    Parameters
    ----------
    folder : Path
    name : str, optional
        ``"name@commit"`` of a model of the Hub; None for a folder of the user's own.
    """

    def __init__(self, folder: Path, name: str | None = None):
        self.folder = folder
        self.name = name

    def identity(self, files: Iterable[Path]) -> str:
        """Names the model by its commit, or by the content of the files that vectors depend on."""
        if self.name is not None:
            return self.name
        total = hashlib.sha256()
        for path in sorted(set(files)):
            with path.open("rb") as file:
                content = hashlib.file_digest(file, "sha256").hexdigest()
            total.update(f"{path.relative_to(self.folder).as_posix()}\n{content}\n".encode())
        return f"sha256:{total.hexdigest()}"


def fetch(name_or_path: str, revision: str | None, patterns: Sequence[str], purpose: str) -> Fetched:
    """The folder of a model; one of the Hub is downloaded as far as its files match the patterns.

    Raises
    ------
    FileNotFoundError
        If a path is meant, and no folder is there.
    """
    folder = Path(name_or_path)
    if folder.is_dir():
        return Fetched(folder)
    if name_or_path.startswith((".", "~", "/")):
        raise FileNotFoundError(f"expected a folder that holds a model, got {name_or_path}, which is not there")
    hub = require("huggingface_hub", purpose)
    with hub_faults(name_or_path, "models", "give the folder of a copy as model"):
        found = Path(hub.snapshot_download(name_or_path, revision=revision, allow_patterns=list(patterns)))
    return Fetched(found, f"{name_or_path}@{found.name}")


def read_json(path: Path) -> dict[str, Any]:
    """What a model's description says; nothing where there is none."""
    if not path.is_file():
        return {}
    found = json.loads(path.read_text(encoding="utf-8"))
    return found if isinstance(found, dict) else {}
