"""Encoders by name, and their descriptions in a saved model."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from inspect import getattr_static
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from micropref.embed.hashing import HashingEncoder
from micropref.embed.http import HTTPEncoder
from micropref.embed.last_token import LastTokenEncoder
from micropref.embed.loaded import LoadedEncoder, is_loaded_model
from micropref.embed.protocol import Encoder
from micropref.embed.sentence import SentenceTransformerEncoder
from micropref.embed.static import StaticEncoder

__all__ = [
    "EncoderMismatchError",
    "encoder_config",
    "encoder_from_config",
    "encoder_parameters",
    "named_in_config",
    "resolve_encoder",
]

_Own = HashingEncoder | SentenceTransformerEncoder | LastTokenEncoder | HTTPEncoder | StaticEncoder
_CLASS_OF: dict[str, type[_Own]] = {
    "hashing": HashingEncoder,
    "sentence-transformers": SentenceTransformerEncoder,
    "last-token": LastTokenEncoder,
    "http": HTTPEncoder,
    "model2vec": StaticEncoder,
}
# The short names of a table in a configuration.
_SHORT = {"sentence": "sentence-transformers", "last_token": "last-token", "static": "model2vec"}
# Where it ran, how patiently, by which key, and whether it showed its progress, are no properties of a model.
_CIRCUMSTANCES = ("device", "show_progress", "timeout", "max_retries", "api_key_env")
_STATIC, _ONNX, _LAST_TOKEN, _URL = "model2vec:", "onnx:", "last-token:", ("http://", "https://")
_NAMES = (
    "'hashing', 'model2vec:NAME', 'onnx:NAME', 'last-token:NAME', 'http://HOST:PORT/v1#MODEL', or a "
    "sentence-transformers model"
)


class EncoderMismatchError(ValueError):
    """Vectors of one encoder were about to be used as those of another."""


def resolve_encoder(encoder: str | Encoder | Mapping[str, Any]) -> Encoder:
    """Create the encoder that a name, an address, a table or an object stands for.

    Parameters
    ----------
    encoder : str, Encoder, SentenceTransformer or mapping
        ``"hashing"``; the name or path of a sentence-transformers model; ``"onnx:"`` before one that is run as an ONNX
        graph; ``"model2vec:"`` before the name or path of a model2vec model; ``"last-token:"`` before that of a causal
        reward model, which reads exchanges under its chat template; the address of a server of embeddings and the name
        of its model, ``"http://127.0.0.1:8080/v1#BAAI/bge-m3"``; a loaded `SentenceTransformer`; or an object
        with `encode` and `fingerprint`. A mapping, as a configuration holds it, has a ``kind`` ("hashing", "sentence",
        "last_token", "http" or "static"), the ``model``, and arguments of that encoder's class; ``chat_template`` may
        be true, for the model's own, or false, for plain text.

    Returns
    -------
    Encoder

    Raises
    ------
    ValueError
        If the name is blank, an address has no model, or a mapping names no encoder.
    TypeError
        If it is neither a name nor an encoder.

    Examples
    --------
    >>> from micropref.embed import resolve_encoder
    >>> resolve_encoder("sentence-transformers/all-MiniLM-L6-v2")
    SentenceTransformerEncoder('sentence-transformers/all-MiniLM-L6-v2')
    >>> resolve_encoder("http://127.0.0.1:8080/v1#BAAI/bge-m3")
    HTTPEncoder('http://127.0.0.1:8080/v1', 'BAAI/bge-m3')
    >>> resolve_encoder({"kind": "last_token", "model": "Ray2333/GRM-Llama3.2-3B-rewardmodel-ft", "max_length": 4096})
    LastTokenEncoder('Ray2333/GRM-Llama3.2-3B-rewardmodel-ft', max_length=4096)
    """
    if isinstance(encoder, str):
        return _named(encoder)
    if isinstance(encoder, Mapping):
        return _described(encoder)
    if is_loaded_model(encoder):
        return LoadedEncoder(encoder)
    # Reading a fingerprint may load a model, so that it is only looked for.
    missing = [name for name in ("encode", "fingerprint") if getattr_static(encoder, name, None) is None]
    if missing or isinstance(encoder, type):
        what = f"the class {encoder.__name__}" if isinstance(encoder, type) else f"a {type(encoder).__name__}"
        lacking = f" without {' and '.join(missing)}" if missing else ""
        raise TypeError(
            "expected 'hashing', the name or path of a sentence-transformers model, a loaded SentenceTransformer, "
            f"or an object with encode(texts) and fingerprint, got {what}{lacking}"
        )
    return encoder


def _named(name: str) -> Encoder:
    """The encoder of a name."""
    kind = next((prefix for prefix in (_STATIC, _ONNX, _LAST_TOKEN) if name.startswith(prefix)), "")
    if not name.removeprefix(kind).strip():
        raise ValueError(f"expected {_NAMES}, got {f'{kind!r} without a name' if kind else 'an empty encoder name'}")
    if name.lower().startswith(_URL):
        return HTTPEncoder.from_string(name)
    if kind == _STATIC:
        return StaticEncoder(name.removeprefix(kind))
    if kind == _ONNX:
        return SentenceTransformerEncoder(name.removeprefix(kind), backend="onnx")
    if kind == _LAST_TOKEN:
        return LastTokenEncoder(name.removeprefix(kind))
    return HashingEncoder() if name == "hashing" else SentenceTransformerEncoder(name)


def _described(table: Mapping[str, Any]) -> Encoder:
    """The encoder that a table of a configuration describes."""
    given = dict(table)
    kind = given.pop("kind", None)
    cls = _CLASS_OF.get(_SHORT.get(kind, kind)) if isinstance(kind, str) else None
    if cls is None:
        kinds = ", ".join(map(repr, ("hashing", "http", *_SHORT)))
        raise ValueError(f"kind: expected one of {kinds}, got {'nothing' if kind is None else repr(kind)}")
    parameters = list(inspect.signature(cls).parameters.values())
    names = {"model" if one.name == "model_name_or_path" else one.name for one in parameters}
    for name in given:
        if name not in names:
            raise ValueError(f"expected keys among kind, {', '.join(sorted(names))}, got {name!r}")
    if given.get("trust_remote_code"):
        raise ValueError(
            "trust_remote_code: expected an encoder that a description alone may start, got one that runs code that "
            "comes with its model; pass the encoder as an object"
        )
    if isinstance(given.get("chat_template"), bool):
        if given.get("chat", given["chat_template"]) is not given["chat_template"]:
            raise ValueError(
                f"expected chat_template or chat, got chat_template={given['chat_template']} and chat={given['chat']}"
            )
        given["chat"] = given.pop("chat_template")
    if "model" in given and cls is not HTTPEncoder:
        given["model_name_or_path"] = given.pop("model")
    for one in parameters:
        value = given.get(one.name)
        if one.default is inspect.Parameter.empty and not (isinstance(value, str) and value.strip()):
            raise ValueError(f"{one.name.removesuffix('_name_or_path')}: expected text, got {value!r}")
    return cls(**given)


def encoder_parameters(encoder: Encoder) -> dict[str, Any] | None:
    """Kind and parameters of an encoder of micropref's, without where it runs; None for another. Loads no model.

    Parameters
    ----------
    encoder : Encoder

    Returns
    -------
    dict or None
        With ``kind`` and ``params``.
    """
    for kind, cls in _CLASS_OF.items():
        if type(encoder) is cls:
            params = {name: value for name, value in encoder.get_params().items() if name not in _CIRCUMSTANCES}
            return {"kind": kind, "params": params}
    return None


def encoder_config(encoder: Encoder) -> dict[str, Any]:
    """Describe an encoder in JSON; `encoder_from_config` creates it again.

    Parameters
    ----------
    encoder : Encoder

    Returns
    -------
    dict
        ``kind``, ``fingerprint`` and the constructor's arguments. An encoder that is not micropref's own has the
        kind ``"custom"`` and no arguments, as has a `SentenceTransformer` that was given as an object.
    """
    described = encoder_parameters(encoder)
    if described is None:
        return {"kind": "custom", "fingerprint": encoder.fingerprint}
    return {"kind": described["kind"], "fingerprint": encoder.fingerprint, "params": described["params"]}


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
        If the encoder was the user's own, is of a kind that this version does not know, runs code that comes with
        its model, or sends texts to another machine.
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
    if kind == "http":
        # A description may come from a stranger: it sends texts to no other machine, and no key at all.
        address = HTTPEncoder(**{**params, "api_key_env": None})
        if not _is_this_machine(address.url):
            raise ValueError(
                f"expected an encoder that a description alone may start, got one that sends texts to {address.url}; "
                f"if it may, pass encoder='{address.url}#{address.model}'"
            )
        return address
    return _CLASS_OF[kind](**params)


def named_in_config(config: Mapping[str, Any], encoder: str | Encoder | None) -> Encoder | str:
    """The encoder for what was saved with one: the described one, unless another is given.

    A server's address may be all that is given, ``"http://host:8080/v1#model"``: everything else is as described.

    Parameters
    ----------
    config : mapping
        As from `encoder_config`.
    encoder : str or Encoder, optional

    Returns
    -------
    str or Encoder
    """
    if encoder is None:
        return encoder_from_config(config)
    if config.get("kind") == "http" and isinstance(encoder, str) and encoder.lower().startswith(_URL):
        given = HTTPEncoder.from_string(encoder)
        described = {name: value for name, value in config["params"].items() if name not in _CIRCUMSTANCES}
        return HTTPEncoder(**{**described, "url": given.url, "model": given.model})
    return encoder


def _is_this_machine(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
