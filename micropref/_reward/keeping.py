"""KeptModel: models of texts in folders and on the Hugging Face Hub."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from micropref._estimator.fitting import predicting
from micropref._reward.base import TextModel
from micropref._reward.card import CardNotes, card_of
from micropref._reward.folder import read_model, write_model
from micropref._reward.forgetting import without_users
from micropref._reward.hub_client import downloaded, pushed, saved
from micropref._reward.users import UserChoice
from micropref.embed import EmbeddingStore
from micropref.embed.protocol import Encoder

__all__ = ["KeptModel"]


class KeptModel(TextModel):
    """How a model of texts is saved and shared: the base of `PreferenceModel`."""

    choice: UserChoice | None

    @predicting
    def save(self, path: str | os.PathLike[str]) -> None:
        """Save as a folder of safetensors and JSON with the encoder's fingerprint.

        Parameters
        ----------
        path : path
        """
        estimator = self.mixture if self.router is None else self.router
        write_model(path, self.encoder, estimator, self.choice)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        encoder: str | Encoder | None = None,
        *,
        store: EmbeddingStore | str | os.PathLike[str] | None = None,
    ) -> Self:
        """Load a model that `save` wrote.

        The folder is checked as by `micropref.load`, whose documentation says what checksums do not show. An encoder
        that the folder names is downloaded and run, so pass your own `encoder` unless you trust the source.

        Parameters
        ----------
        path : path
        encoder : str or Encoder, optional
            Used instead of the one that is described; it must have the same fingerprint.
        store : EmbeddingStore or path, optional
            Where vectors are read, and kept.

        Returns
        -------
        PreferenceModel

        Raises
        ------
        FileNotFoundError, ModelFileError
            If the model is missing, incomplete, altered, of a later version, or has entries that no model has.
        EncoderMismatchError
            If the encoder is not the encoder of the fit.
        """
        pair_encoder, mixture, router, choice = read_model(path, encoder, store)
        model = cls(pair_encoder, mixture, router)  # type: ignore[call-arg]
        model.choice = choice
        return model

    @predicting
    def save_pretrained(
        self,
        save_directory: str | os.PathLike[str],
        *,
        include_users: bool = False,
        data: str | None = None,
        metrics: Sequence[Mapping[str, Any]] | None = None,
        license: str | None = None,
        encoder_license: str | None = None,
    ) -> None:
        """Save as a folder for the Hub: the files of `save`, a model card, and a ``config.json`` to count downloads.

        Parameters
        ----------
        save_directory : path
            An existing ``README.md`` is replaced if `save_pretrained` wrote it; your own file is kept.
        include_users : bool, default=False
            Whether to write the ids of users and what their votes reveal. Without them, the model treats every user as
            a user who has not voted.
        data : str, optional
            For the card: the comparisons to which the model was fitted, their annotators and their licence.
        metrics : list of dict, optional
            For the card: the result of `evaluate`. Rows of subsets are left out, because a subset may be a single user.
        license : str, optional
            Licence of the heads, such as ``"apache-2.0"``.
        encoder_license : str, optional
            Licence of the encoder. By default the licence in its own card, if that card is on this machine; otherwise
            "unknown, check".

        Raises
        ------
        ImportError
            If huggingface_hub is not installed.
        """
        notes = CardNotes(data, metrics, license, encoder_license)
        saved(Path(save_directory), *self._for_hub(notes, include_users, None))

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str],
        encoder: str | Encoder | None = None,
        *,
        store: EmbeddingStore | str | os.PathLike[str] | None = None,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        local_files_only: bool = False,
        force_download: bool = False,
    ) -> Self:
        """Load a model from the Hub or from a folder.

        All files come from one commit, and are checked as by `load`. No code of the repository runs. If the encoder
        sends texts to another machine, you must pass it as `encoder`.

        Parameters
        ----------
        pretrained_model_name_or_path : str or path
            ``"owner/name"`` of a repository, or a folder that `save` or `save_pretrained` wrote.
        encoder : str or Encoder, optional
            Used instead of the one that is described; it must have the same fingerprint.
        store : EmbeddingStore or path, optional
            Where vectors are read, and kept.
        revision : str, optional
            Branch, tag or commit; by default the newest commit. Pass a commit to make sure that you always get the same
            model.
        token : str or bool, optional
            Token of the Hub. By default the token that ``hf auth login`` stored, or the variable ``HF_TOKEN``.
        cache_dir : path, optional
            Where the client keeps what it downloads.
        local_files_only : bool, default=False
            Do not use the network; the model must be in the cache.
        force_download : bool, default=False
            Download files again, even if they are in the cache.

        Returns
        -------
        PreferenceModel

        Raises
        ------
        FileNotFoundError
            If there is no such repository, revision or model; or, without the network, if it is not in the cache.
        PermissionError
            If the token may not read the repository.
        ConnectionError
            If the Hub cannot be reached, and the cache has no such model.
        ModelFileError
            If the model is damaged, altered, of a later version, or has entries that no model has.
        """
        place: Any = pretrained_model_name_or_path
        if Path(place).is_dir():
            return cls.load(place, encoder, store=store)
        settings = {
            "revision": revision,
            "token": token,
            "cache_dir": cache_dir,
            "local_files_only": local_files_only,
            "force_download": force_download,
        }
        model: Self = downloaded(str(place), lambda folder: cls.load(folder, encoder, store=store), settings)
        return model

    @predicting
    def push_to_hub(
        self,
        repo_id: str,
        *,
        include_users: bool = False,
        private: bool | None = None,
        token: str | None = None,
        branch: str | None = None,
        create_pr: bool | None = None,
        commit_message: str = "Push a model of micropref",
        data: str | None = None,
        metrics: Sequence[Mapping[str, Any]] | None = None,
        license: str | None = None,
        encoder_license: str | None = None,
    ) -> str:
        """Upload to the Hub, with a model card; the repository is created if it does not exist.

        Tensors of an earlier model are removed from the branch. The Hub keeps its history: users who were once
        published stay in older commits.

        Parameters
        ----------
        repo_id : str
            ``"owner/name"``.
        include_users : bool, default=False
            Whether to upload the ids of users and what their votes reveal.
        private : bool, optional
            Whether a new repository is private.
        token : str, optional
            By default the one that ``hf auth login`` stored, or the variable ``HF_TOKEN``.
        branch : str, optional
            A branch that exists; by default ``main``.
        create_pr : bool, optional
            Open a pull request instead of writing to the branch.
        commit_message : str
        data, metrics, license, encoder_license
            For the card, as in `save_pretrained`.

        Returns
        -------
        url : str
            Of the commit.

        Raises
        ------
        PermissionError
            If the token is missing, or may not write there.
        FileNotFoundError
            If there is no such branch.
        ConnectionError
            If the Hub cannot be reached.
        """
        notes = CardNotes(data, metrics, license, encoder_license)
        settings = {
            "private": private,
            "token": token,
            "branch": branch,
            "create_pr": create_pr,
            "commit_message": commit_message,
        }
        return pushed(repo_id, *self._for_hub(notes, include_users, repo_id), settings)

    def _for_hub(self, notes: CardNotes, include_users: bool, repo_id: str | None) -> tuple[Any, str, dict[str, Any]]:
        """What writes the model into a folder, its card, and what counts and finds it on the Hub."""
        router = self.router if include_users or self.router is None else without_users(self.router)
        estimator = self.mixture if router is None else router
        n_users = 0 if router is None else len(router.history_)
        config = {
            "library_name": "micropref",
            "model_type": type(self).__name__,
            "n_components": len(self.mixture.coef_),
            "encoder": self.encoder.fingerprint_,
        }
        card = card_of(self, notes, repo_id=repo_id, n_users=n_users)
        return lambda folder: write_model(folder, self.encoder, estimator, self.choice), card, config
