"""Folders of models to and from the Hub, by the mixin of huggingface_hub, whose failures become one sentence each."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from micropref._estimator.errors import ModelFileError
from micropref._support.optional import require

__all__ = ["downloaded", "pushed", "saved"]

_PURPOSE = "Sharing a model on the Hugging Face Hub"
_DESCRIPTION, _TENSORS = "model.json", re.compile(r"tensors-[0-9a-f]{16}\.safetensors")
_OF_MODEL = [_DESCRIPTION, "tensors-*.safetensors"]
_LOG_IN = "pass token=, set HF_TOKEN, or run `hf auth login`"

Write = Callable[[Path], None]


def saved(folder: Path, write: Write, card: str, config: Mapping[str, Any]) -> None:
    """Write a model, its card and its config.json into a folder."""
    _on_hub(write, card, config).save_pretrained(folder)


def pushed(repo_id: str, write: Write, card: str, config: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    """Upload a model, its card and its config.json as one commit, whose address is returned."""
    with _one_sentence(repo_id, settings.get("branch"), settings.get("token")):
        # A lock is there only while the folder is written; tensors of an earlier model go.
        return str(
            _on_hub(write, card, config).push_to_hub(
                repo_id, delete_patterns=["tensors-*.safetensors"], ignore_patterns=["*.lock"], **settings
            )
        )


def downloaded(repo_id: str, load: Callable[[Path], Any], settings: Mapping[str, Any]) -> Any:
    """What `load` makes of the folder of a model of the Hub."""
    with _one_sentence(repo_id, settings.get("revision"), settings.get("token")):
        return _class().from_pretrained(repo_id, load=load, **settings).loaded


@cache
def _class() -> Any:
    """The class that the Hub's mixin makes able to travel; made when first needed, since its base is optional."""
    hub = require("huggingface_hub", _PURPOSE)

    class OnHub(hub.ModelHubMixin):  # type: ignore[name-defined,misc]
        """A model on its way: what writes it and its card, or what was loaded."""

        write: Write
        card: str
        described: Mapping[str, Any]
        loaded: Any

        def __init__(self) -> None:
            """Without parameters: the mixin would fill them with what a config.json says."""

        def _save_pretrained(self, save_directory: Path) -> None:
            self.write(save_directory)
            (save_directory / "config.json").write_text(json.dumps(dict(self.described), indent=1), encoding="utf-8")

        def generate_model_card(self, *args: Any, **kwargs: Any) -> Any:
            return hub.ModelCard(self.card)

        @classmethod
        def _from_pretrained(
            cls,
            *,
            model_id: str,
            revision: str | None,
            cache_dir: str | Path | None,
            force_download: bool,
            local_files_only: bool,
            token: str | bool | None,
            load: Callable[[Path], Any],
        ) -> Any:
            snapshot = hub.snapshot_download(
                model_id,
                revision=revision,
                cache_dir=cache_dir,
                force_download=force_download,
                local_files_only=local_files_only,
                token=token,
                allow_patterns=_OF_MODEL,
                library_name="micropref",
            )
            travelled = cls()
            travelled.loaded = _from_snapshot(Path(snapshot), model_id, load)
            return travelled

    return OnHub


def _on_hub(write: Write, card: str, config: Mapping[str, Any]) -> Any:
    travelling = _class()()
    travelling.write, travelling.card, travelling.described = write, card, config
    return travelling


def _from_snapshot(snapshot: Path, repo_id: str, load: Callable[[Path], Any]) -> Any:
    """What `load` makes of a copy of a snapshot: the cache holds links, which are not followed in a model's folder."""
    names = [path.name for path in snapshot.iterdir()] if snapshot.is_dir() else []
    if _DESCRIPTION not in names:
        raise FileNotFoundError(f"{repo_id}: expected a model of micropref, got a repository without {_DESCRIPTION}")
    with TemporaryDirectory() as folder:
        for name in names:
            if name == _DESCRIPTION or _TENSORS.fullmatch(name):
                _put(Path(os.path.realpath(snapshot / name)), Path(folder, name))
        try:
            return load(Path(folder))
        except ModelFileError as error:  # the copy's name says nothing to the user
            raise ModelFileError(str(error).replace(folder, repo_id)) from None


def _put(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without hard links
        shutil.copyfile(source, target)


@contextmanager
def _one_sentence(repo_id: str, revision: str | None, token: str | bool | None) -> Iterator[None]:
    """Failures of the client, which are paragraphs, as one sentence of the kind of OSError that they are."""
    errors: Any = require("huggingface_hub.errors", _PURPOSE)
    known = (errors.HTTPError, errors.LocalEntryNotFoundError, errors.EntryNotFoundError, errors.OfflineModeIsEnabled)
    try:
        yield
    except errors.HFValidationError:
        raise ValueError(f"expected a folder, or a repository as 'owner/name', got {repo_id!r}") from None
    except errors.LocalTokenNotFoundError:
        raise PermissionError(f"{repo_id}: expected a token of the Hub, got none; {_LOG_IN}") from None
    except known as error:
        raise _plain(error, errors, repo_id, revision, token) from error
    except RuntimeError as error:  # an upload that ended; its cause says why
        cause = error.__cause__
        if not isinstance(cause, known):
            raise
        raise _plain(cause, errors, repo_id, revision, token) from error


def _plain(error: Any, errors: Any, repo_id: str, revision: str | None, token: str | bool | None) -> OSError:
    """The one error that says what happened."""
    where = repo_id if revision is None else f"{repo_id} at {revision!r}"
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, errors.RevisionNotFoundError):
        return FileNotFoundError(
            f"{repo_id}: expected a branch, tag or commit, got {revision or 'main'!r}, none of them"
        )
    if isinstance(error, errors.GatedRepoError):
        return PermissionError(f"{where}: expected access to this gated repository, got none; ask for it on its page")
    if isinstance(error, errors.RepositoryNotFoundError) or status in (401, 403):
        return _refused(error, where, status, token)
    if isinstance(error, errors.LocalEntryNotFoundError | errors.OfflineModeIsEnabled):
        return _not_cached(error, errors, where)
    if isinstance(error, errors.EntryNotFoundError):
        return FileNotFoundError(f"{where}: expected the files of a model of micropref, got a repository without them")
    if status is not None:
        said = " ".join(str(getattr(error, "server_message", None) or "").split())[:200]
        return OSError(f"{where}: expected the Hub to answer, got status {status}{f' ({said})' if said else ''}")
    return ConnectionError(
        f"{where}: expected an answer of the Hub at {_endpoint()}, got none ({type(error).__name__})"
    )


def _refused(error: Any, where: str, status: int | None, token: str | bool | None) -> OSError:
    """A repository that is not there, or not for this token: the Hub does not say which."""
    try:
        sent = bool(error.response.request.headers.get("authorization"))
    except (AttributeError, RuntimeError):  # an answer without its question
        sent = bool(token)
    if status == 404:
        return FileNotFoundError(f"{where}: expected a repository of the Hub, got none of this name")
    if not sent:
        return PermissionError(
            f"{where}: expected a repository that is public, or a token for it, got status {status} and no token; "
            f"if it exists, {_LOG_IN}"
        )
    return PermissionError(
        f"{where}: expected a token that may do this, got status {status}; the repository is not there, or not for "
        "this token"
    )


def _not_cached(error: Any, errors: Any, where: str) -> OSError:
    cause = error.__cause__
    if (
        cause is None
        or isinstance(cause, errors.OfflineModeIsEnabled)
        or isinstance(error, errors.OfflineModeIsEnabled)
    ):
        return FileNotFoundError(
            f"{where}: expected the model in the cache, since no network is asked, got none; load it with one first"
        )
    status = getattr(getattr(cause, "response", None), "status_code", None)
    why = type(cause).__name__ if status is None else f"status {status}"
    return ConnectionError(
        f"{where}: expected an answer of the Hub at {_endpoint()}, got none ({why}), and the cache has no such model"
    )


def _endpoint() -> str:
    endpoint: str = require("huggingface_hub.constants", _PURPOSE).ENDPOINT
    return endpoint
