"""Encoders by name, and their descriptions in a saved model."""

from __future__ import annotations

from collections.abc import Mapping
from inspect import getattr_static
from typing import Any

from micropref.embed.hashing import HashingEncoder
from micropref.embed.last_token import LastTokenEncoder
from micropref.embed.protocol import Encoder
from micropref.embed.sentence import SentenceTransformerEncoder

__all__ = ["EncoderMismatchError", "encoder_config", "encoder_from_config", "resolve_encoder"]

_CLASS_OF: dict[str, type[HashingEncoder] | type[SentenceTransformerEncoder] | type[LastTokenEncoder]] = {
    "hashing": HashingEncoder,
    "sentence-transformers": SentenceTransformerEncoder,
    "last-token": LastTokenEncoder,
}
# Where it ran, and whether it showed its progress, are no properties of a model.
_CIRCUMSTANCES = ("device", "show_progress")


class EncoderMismatchError(ValueError):
    """Vectors of one encoder were about to be used as if they were another's."""


def resolve_encoder(encoder: str | Encoder) -> Encoder:
    """The encoder that a user means.

    Parameters
    ----------
    encoder : str or Encoder
        ``"hashing"``, the name or path of a sentence-transformers model, or an object with `encode` and `fingerprint`.

    Returns
    -------
    Encoder

    Raises
    ------
    ValueError
        If the name is blank.
    TypeError
        If it is neither a name nor an encoder.

    Examples
    --------
    >>> from micropref.embed import resolve_encoder
    >>> resolve_encoder("sentence-transformers/all-MiniLM-L6-v2")
    SentenceTransformerEncoder('sentence-transformers/all-MiniLM-L6-v2')
    """
    if isinstance(encoder, str):
        if not encoder.strip():
            raise ValueError("expected 'hashing' or a sentence-transformers model, got an empty encoder name")
        return HashingEncoder() if encoder == "hashing" else SentenceTransformerEncoder(encoder)
    # Reading a fingerprint may load a model, so that it is only looked for.
    missing = [name for name in ("encode", "fingerprint") if getattr_static(encoder, name, None) is None]
    if missing or isinstance(encoder, type):
        what = f"the class {encoder.__name__}" if isinstance(encoder, type) else f"a {type(encoder).__name__}"
        lacking = f" without {' and '.join(missing)}" if missing else ""
        raise TypeError(
            "expected 'hashing', the name or path of a sentence-transformers model, "
            f"or an object with encode(texts) and fingerprint, got {what}{lacking}"
        )
    return encoder


def encoder_config(encoder: Encoder) -> dict[str, Any]:
    """What JSON can say about an encoder; `encoder_from_config` builds it again.

    Parameters
    ----------
    encoder : Encoder

    Returns
    -------
    dict
        ``kind``, ``fingerprint`` and the constructor's arguments. An encoder that is not micropref's own has the
        kind ``"custom"`` and no arguments.
    """
    for kind, cls in _CLASS_OF.items():
        if type(encoder) is cls:
            params = {name: value for name, value in encoder.get_params().items() if name not in _CIRCUMSTANCES}
            return {"kind": kind, "fingerprint": encoder.fingerprint, "params": params}
    return {"kind": "custom", "fingerprint": encoder.fingerprint}


def encoder_from_config(config: Mapping[str, Any]) -> Encoder:
    """Build the encoder that `encoder_config` described. Its fingerprint is not compared with the recorded one.

    Parameters
    ----------
    config : mapping
        As from `encoder_config`, directly or through JSON.

    Returns
    -------
    Encoder

    Raises
    ------
    ValueError
        If the encoder was the user's own, is of a kind that this version does not know, or runs code that comes with
        its model.
    """
    kind = config.get("kind")
    if kind == "custom":
        raise ValueError(
            f"expected an encoder of micropref's, got {config.get('fingerprint')!r}, which cannot be rebuilt from its "
            "description; pass it as encoder="
        )
    if kind not in _CLASS_OF:
        raise ValueError(f"expected an encoder of the kind {' or '.join(_CLASS_OF)}, got {kind!r}")
    params = dict(config["params"])
    if params.get("trust_remote_code"):
        raise ValueError(
            f"expected an encoder that a description alone may start, got {config.get('fingerprint')!r}, which runs "
            "code that comes with its model; pass it as encoder="
        )
    return _CLASS_OF[kind](**params)
