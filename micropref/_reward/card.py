"""The model card of a model of texts: what it was made from, what it holds, and what it must not be used for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from micropref import __version__
from micropref._support.optional import require
from micropref.embed import HashingEncoder, HTTPEncoder, LoadedEncoder, PairEncoder
from micropref.router import ContextRouter

__all__ = ["CardNotes", "card_of", "encoder_license"]

_UNKNOWN = "unknown, check"
_PURPOSE = "Sharing a model on the Hugging Face Hub"
_COLUMNS = ("accuracy", "log_loss")

_USES = """\
The rewards rank responses to the same prompt, for a stated context or a user. Use them to choose among candidates, to
label pairs for training, or to see where annotators disagree. Differences are log-odds in nats; the zero is arbitrary,
so do not compare rewards of responses to different prompts.
"""
_MISUSES = """\
The heads must not be used

- to decide about people, or to infer from a weight of a head what a person believes, is, or suffers from;
- as a measure of truth, safety, law or quality: they reflect the preferences of the annotators, and repeat their
  biases, for example for length;
- with vectors of any encoder other than the encoder below, which is identified by its fingerprint;
- for users, languages or topics that the data do not cover, unless you measure how well they do there;
- as the only reward of a policy that is trained for long: it will learn to exploit what they overrate.
"""


@dataclass(frozen=True)
class CardNotes:
    """What only the maker of a model can say.

    Attributes
    ----------
    data : str, optional
        Which comparisons it was fitted on: name, version, who answered, licence.
    metrics : sequence of dict, optional
        Rows of `PreferenceModel.evaluate`. Those of subsets are left out: a subset may be a user, or a text.
    license : str, optional
        Licence of the heads, by its identifier on the Hub.
    encoder_license : str, optional
        Licence of the encoder, where it cannot be read or is read wrongly.
    """

    data: str | None = None
    metrics: Sequence[Mapping[str, Any]] | None = None
    license: str | None = None
    encoder_license: str | None = None


def card_of(model: Any, notes: CardNotes, *, repo_id: str | None, n_users: int) -> str:
    """The card, YAML and Markdown.

    Parameters
    ----------
    model : PreferenceModel
    notes : CardNotes
    repo_id : str or None
        Where the model is going to be, for the lines that load it.
    n_users : int
        How many users are in the files.
    """
    name = repo_id or "path/or/name"
    encoder = model.encoder
    license_of_encoder = notes.encoder_license or encoder_license(encoder) or _UNKNOWN
    parts = [
        f"# {name.rsplit('/', 1)[-1] if repo_id else 'A preference model'}\n",
        f"{_what(model)} Made with micropref {__version__}.\n",
        f"```python\nfrom micropref import PreferenceModel\n\nmodel = PreferenceModel.from_pretrained({name!r})\n"
        "model.rank(prompt, responses, context=wish)\n```\n",
        f"## Data\n\n{notes.data or 'Not stated by the maker of this model; ask before you rely on it.'}\n",
        f"## Heads\n\n{_heads(model)}",
        f"## Metrics\n\n{_metrics(notes.metrics)}",
        f"## Encoder\n\n| | |\n|---|---|\n| fingerprint | `{encoder.fingerprint_}` |\n"
        f"| width of its vectors | {encoder.vector_width_} |\n| licence | {license_of_encoder} |\n",
        f"## Users\n\n{_users(n_users)}\n",
        f"## What it is for\n\n{_USES}",
        f"## What the heads may not be used for\n\n{_MISUSES}",
        f"## Licence\n\nHeads: {notes.license or 'not stated'}. Encoder, which is not in these files: "
        f"{license_of_encoder}. The terms of the data may bind the heads too.\n",
    ]
    return f"---\n{_metadata(model, notes)}\n---\n\n" + "\n".join(parts)


def encoder_license(encoder: PairEncoder) -> str | None:
    """The licence of what embeds, as far as it can be read without asking a network; None where it is not known."""
    embeds: Any = encoder.encoder_
    if isinstance(embeds, HashingEncoder):
        return "bsd-3-clause (hashing of micropref itself, no model)"
    if isinstance(embeds, LoadedEncoder):
        return _text(getattr(getattr(embeds.model, "model_card_data", None), "license", None))
    name = getattr(embeds, "model_name_or_path", None)
    if isinstance(embeds, HTTPEncoder) or not isinstance(name, str):
        return None
    return _license_of_card(name, getattr(embeds, "revision", None))


def _license_of_card(name: str, revision: str | None) -> str | None:
    """What the card beside a model says: that in its folder, or the one that was downloaded with it."""
    hub = require("huggingface_hub", _PURPOSE)
    path: Any = Path(name) / "README.md"
    if not Path(name).is_dir():
        path = hub.try_to_load_from_cache(name, "README.md", revision=revision)
    if not isinstance(path, str | Path) or not Path(path).is_file():
        return None
    try:
        return _text(hub.ModelCard.load(path, ignore_metadata_errors=True).data.license)
    except (ValueError, OSError):
        return None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value.strip() else None


def _metadata(model: Any, notes: CardNotes) -> str:
    hub = require("huggingface_hub", _PURPOSE)
    embeds: Any = model.encoder.encoder_
    name = getattr(embeds, "model_name_or_path", None)
    is_public = isinstance(name, str) and not isinstance(embeds, LoadedEncoder) and not Path(name).is_absolute()
    described: str = hub.ModelCardData(
        library_name="micropref",
        tags=["micropref", "preference-learning", "reward-model", "bradley-terry", "model_hub_mixin"],
        license=notes.license,
        base_model=name if is_public else None,
    ).to_yaml()
    return described.strip()


def _what(model: Any) -> str:
    k = len(model.mixture.coef_)
    what = "One reward" if k == 1 else f"{k} rewards, called heads,"
    routed = "" if model.router is None else " and a router that knows which head applies"
    return f"{what} of Bradley-Terry models over frozen embeddings of texts{routed}."


def _heads(model: Any) -> str:
    mixture = model.mixture
    k = len(mixture.coef_)
    weights = np.asarray(mixture.weights_, dtype=np.float64).ravel()
    rows = [f"| {head + 1} | {weight:.3f} |" for head, weight in enumerate(weights)]
    lines = [f"K = {k}, fitted by `{type(mixture).__name__}`.", ""]
    if isinstance(model.router, ContextRouter) or mixture.n_context_features_:
        lines += ["Weights in the population; a context, a prompt or a user's votes change them.", ""]
    lines += ["| head | weight |", "|---|---|", *rows, ""]
    if getattr(mixture, "scatter_", None) is not None:
        lines += [
            f"Every user has a reward of their own around a head, in {mixture.scatter_.n_directions} directions.",
            "",
        ]
    if model.choice is not None:
        lines += [f"Chosen: {model.choice.reason}.", ""]
    return "\n".join(lines)


def _metrics(rows: Iterable[Mapping[str, Any]] | None) -> str:
    known = [row for row in rows or () if row.get("subset", "all") == "all"]
    if not known:
        return "Not stated.\n"
    lines = ["| method | comparisons | accuracy | log-loss (nats) |", "|---|---|---|---|"]
    for row in known:
        scores = " | ".join(_score(row, column) for column in _COLUMNS)
        lines.append(f"| {row.get('method', '')} | {row.get('n', '')} | {scores} |")
    return "\n".join([*lines, "", "In brackets: 95 % intervals.", ""])


def _score(row: Mapping[str, Any], column: str) -> str:
    low, high = row.get(f"{column}_low"), row.get(f"{column}_high")
    value = row.get(column)
    text = "" if value is None else f"{value:.3f}"
    return text if low is None or high is None else f"{text} [{low:.3f}, {high:.3f}]"


def _users(n_users: int) -> str:
    if not n_users:
        return "These files contain no users: neither their ids nor what their votes reveal."
    return (
        f"These files contain the ids of {n_users} users, and what their votes reveal about them. These are personal "
        "data, which must not be published without their consent."
    )
