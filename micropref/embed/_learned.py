"""What a PairEncoder learns from a table, and its description in JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from sklearn.base import clone

from micropref._estimator.errors import ModelFileError
from micropref._estimator.saved import COUNT, FLAG, REAL, TEXT, Kind, check_entries, check_keys, one_of, refused
from micropref.datasets.table import PreferenceTable
from micropref.distributed import active_communicator
from micropref.embed._columns import CONTEXT_PARTS, context_texts, pair_columns
from micropref.embed._config import describe_interactions, restored_interactions
from micropref.embed._orientation import AS_GIVEN, CHOSEN_FIRST
from micropref.embed._responses import (
    Stated,
    clauses_in,
    interacting_rows,
    interactions_of,
    log_lengths,
    names_of,
    prepared,
)
from micropref.embed._scales import Measured, agree, common_scales, mean_norm
from micropref.embed._settings import Settings
from micropref.embed._vectors import Vectors, not_blank
from micropref.embed.encoders import EncoderMismatchError, encoder_config
from micropref.features.interactions import ContextInteractions

# What 0.1 wrote; the orientation came later.
_KEYS = frozenset(
    ["encoder", "fingerprint", "template", "context", "norms", "scale", "context_parts", "feature_width", "n_truncated"]
)
_KINDS = {
    "fingerprint": TEXT,
    "template": TEXT,
    "feature_width": COUNT,
    "n_truncated": COUNT,
    **{name: Kind("an object", lambda value: type(value) is dict) for name in ("norms", "scale", "context_parts")},
}
_SINCE = {"orientation": one_of(CHOSEN_FIRST, AS_GIVEN), "vector_width": COUNT, "clauses": FLAG, "length": FLAG}
_PARTS = ("prompt", "context", "response", "length", "clauses")
_MOST_HASHES = 1 << 26
# Rows of X whose columns are computed together.
_BLOCK_ROWS = 4_096
# Chat templates are long.
_LONG_TEXT = Kind("a text", lambda value: type(value) is str and len(value) <= 1 << 20)


class Learned(NamedTuple):
    """All that a fit leaves behind; a `PairEncoder` documents the fields as attributes."""

    settings: Settings
    orientation: str
    context_parts: dict[str, int]
    vector_width: int
    scale: dict[str, float]
    n_truncated: int
    interactions: ContextInteractions | None = None

    @property
    def feature_width(self) -> int:
        """Number of columns that follow the context."""
        return sum(self.response_widths().values())

    def response_widths(self) -> dict[str, int]:
        """Number of columns of each block that follows the context, in their order."""
        fitted = self.interactions
        widths = {
            "response": self.vector_width,
            "length": int(self.settings.length),
            "interactions": 0 if fitted is None else len(fitted.get_feature_names_out()) - fitted.n_features_in_,
            "clauses": self.vector_width * self.settings.clauses,
        }
        return {name: width for name, width in widths.items() if width}

    def response_names(self) -> list[str]:
        """Names of the columns that follow the context."""
        names: list[str] = []
        for block, width in self.response_widths().items():
            if block == "interactions" and self.interactions is not None:
                names += names_of(self.interactions)
            else:
                names += [block] if block == "length" else [f"{block}_{i}" for i in range(width)]
        return names

    def rows(self, table: PreferenceTable, parts: Sequence[str], vectors: Vectors) -> np.ndarray:
        """X of a table, with a choice of the context parts.

        Parameters
        ----------
        table : PreferenceTable
        parts : sequence of str
        vectors : Vectors
            Of all texts of the table.

        Returns
        -------
        X : ndarray of shape (n, width of the parts + feature_width), dtype float32
        """
        settings, texts_of = self.settings, {part: context_texts(table, part) for part in parts}
        first, second = settings.responses(table)
        stated = settings.stated(table)
        lengths = log_lengths(table.chosen) - log_lengths(table.rejected)
        X = np.empty((len(table), self.vector_width * len(parts) + self.feature_width), dtype=np.float32)
        for start in range(0, len(table), _BLOCK_ROWS):
            rows = slice(start, start + _BLOCK_ROWS)
            texts_of_rows = {part: texts[rows] for part, texts in texts_of.items()}
            pairs = pair_columns((first[rows], second[rows]), texts_of_rows, vectors, self.scale)
            context, d = np.split(pairs, [pairs.shape[1] - self.vector_width], axis=1)
            about = None if stated is None else stated.of(rows)
            columns = self.response_columns(d, lengths[rows], about, vectors)
            np.concatenate([context, *columns], axis=1, out=X[rows])
        return X

    def response_columns(
        self, d: np.ndarray, lengths: np.ndarray, stated: Stated | None, vectors: Vectors
    ) -> list[np.ndarray]:
        """The blocks that follow the context, of differences or of single responses.

        Parameters
        ----------
        d : ndarray of shape (n, vector_width)
            Scaled.
        lengths : ndarray of shape (n, 1)
            Log lengths, or their differences.
        stated : Stated or None
            None where the settings let nothing act.
        vectors : Vectors
            Of all texts that are stated.

        Returns
        -------
        columns : list of ndarray of float32
            With feature_width columns together.
        """
        columns = [d]
        if self.settings.length:
            columns.append((lengths * self.scale["length"]).astype(np.float32))
        if self.interactions is not None:
            assert stated is not None
            columns.append(interactions_of(stated, d, vectors, self.interactions))
        if self.settings.clauses:
            assert stated is not None
            factor = self.scale["clauses"] / self.scale["response"]
            columns.append(clauses_in(stated, d, vectors) * np.float32(factor))
        return columns


def learn(
    settings: Callable[[], Settings], table: PreferenceTable, orientation: str, verbose: int
) -> tuple[Learned, Vectors]:
    """Widths and scales of the parts of a table, the same on all ranks, and the vectors of its texts.

    Parameters
    ----------
    settings : callable
        Checks the parameters. An error in it is one on all ranks.
    table : PreferenceTable
        Rows of this rank.
    orientation : {"chosen-first", "as-given"}
    verbose : int

    Returns
    -------
    learned : Learned
    vectors : Vectors
    """
    ranks = active_communicator()
    checked, vectors, measured = ranks.together(lambda: _measure(settings(), table, orientation, verbose))
    everywhere = agree(ranks, measured)
    learned = Learned(
        settings=checked,
        orientation=orientation,
        context_parts={part: vectors.width for part in measured.norms if part in CONTEXT_PARTS},
        vector_width=vectors.width,
        scale=common_scales(everywhere, checked.norms),
        n_truncated=sum(one.n_truncated for one in everywhere),
    )
    if checked.interactions is not None:
        transformer = prepared(checked.interactions, vectors.width)
        rows = ranks.together(lambda: _interacting(learned, table, vectors))
        learned = learned._replace(interactions=transformer.fit(rows))
    return learned, vectors


def _interacting(learned: Learned, table: PreferenceTable, vectors: Vectors) -> np.ndarray:
    """Rows from which interactions are learned."""
    stated = learned.settings.stated(table)
    assert stated is not None
    first, second = learned.settings.responses(table)
    found = np.empty((len(table), 3 * vectors.width), dtype=np.float32)
    for start in range(0, len(table), _BLOCK_ROWS):
        rows = slice(start, start + _BLOCK_ROWS)
        d = (vectors.of(first[rows]) - vectors.of(second[rows])) * np.float32(learned.scale["response"])
        found[rows] = interacting_rows(stated.of(rows), d, vectors)
    return found


def _measure(
    settings: Settings, table: PreferenceTable, orientation: str, verbose: int
) -> tuple[Settings, Vectors, Measured]:
    """Vectors of all texts of a table, and what they say about scales."""
    parts = settings.parts_of(table)
    vectors = settings.embed(settings.texts(table, parts), verbose=verbose)
    first, second = settings.responses(table)
    norms = {part: _norm_of(vectors.of(not_blank(context_texts(table, part)))) for part in parts}
    difference = vectors.of(first)
    difference -= vectors.of(second)
    norms["response"] = _norm_of(difference)
    if settings.length:
        norms["length"] = _norm_of((log_lengths(table.chosen) - log_lengths(table.rejected)).astype(np.float32))
    stated = settings.stated(table)
    if settings.clauses and stated is not None:
        norms["clauses"] = _norm_of(clauses_in(stated, difference, vectors))
    kind = f"{settings.fingerprint} of width {vectors.width} with the parts {', '.join(norms)}, rows {orientation},"
    return settings, vectors, Measured(kind, norms, vectors.n_truncated)


def _norm_of(features: np.ndarray) -> tuple[float, int]:
    """Root mean square norm, and number of rows."""
    return mean_norm(features), len(features)


def describe(learned: Learned) -> dict[str, Any]:
    """A description that JSON can hold; `restore` reads it."""
    settings = learned.settings
    return {
        "encoder": encoder_config(settings.encoder),
        "fingerprint": settings.fingerprint,
        "template": settings.template.text,
        "context": "auto" if settings.context == "auto" else list(settings.context),
        "norms": dict(settings.norms),
        "orientation": learned.orientation,
        "scale": dict(learned.scale),
        "context_parts": dict(learned.context_parts),
        "feature_width": learned.feature_width,
        "vector_width": learned.vector_width,
        "n_truncated": learned.n_truncated,
        "clauses": settings.clauses,
        "length": settings.length,
        "interactions": None if learned.interactions is None else describe_interactions(learned.interactions),
    }


def acting_parameters(config: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of a description that say which columns follow the difference; 0.1 had none of them."""
    fitted = restored_interactions(config.get("interactions"))
    return {
        "interactions": None if fitted is None else clone(fitted),
        "clauses": config.get("clauses", False),
        "length": config.get("length", False),
    }


def check_description(config: Mapping[str, Any]) -> None:
    """A ModelFileError that names an entry of a description that is missing, odd, or not of its kind."""
    missing = sorted(_KEYS - config.keys())
    if missing:
        raise ModelFileError(f"expected {', '.join(missing)} in the description of a PairEncoder, got none")
    config = dict(config)
    check_keys("encoder", config, _KEYS, (*_SINCE, "interactions"))
    context = config["context"]
    check_entries(
        "encoder",
        {name: value for name, value in config.items() if name not in ("encoder", "context", "interactions")},
        {**_KINDS, **_SINCE},
    )
    if context != "auto" and not (isinstance(context, list | tuple) and all(map(TEXT.accepts, context))):
        raise refused("encoder.context", "'auto' or a list of parts", context)
    for name in ("norms", "scale", "context_parts"):
        kind = COUNT if name == "context_parts" else REAL
        check_entries(f"encoder.{name}", config[name], dict.fromkeys(_PARTS, kind))
    if not {*config["context_parts"]} <= {*CONTEXT_PARTS} or "response" not in config["scale"]:
        raise refused("encoder.context_parts", f"widths of {', '.join(CONTEXT_PARTS)}, and a scale of each", context)
    width = config.get("vector_width", config["feature_width"])
    for part, columns in config["context_parts"].items():
        if part not in config["scale"] or columns != width:
            raise refused(f"encoder.context_parts.{part}", f"{width} columns, and a scale,", columns)
    for part in ("length", "clauses"):
        if config.get(part) and part not in config["scale"]:
            raise ModelFileError(f"encoder.scale: expected a factor of {part} in a saved model, got none")
    _check_encoder(config["encoder"], width)


def _check_encoder(described: Any, width: int) -> None:
    """A ModelFileError unless an encoder's description is of kinds that JSON has for its parameters."""
    check_keys("encoder.encoder", described, ("kind", "fingerprint"), ("params",))
    for name in ("kind", "fingerprint"):
        if not TEXT.accepts(described[name]):
            raise refused(f"encoder.encoder.{name}", TEXT.words, described[name])
    params = described.get("params", {})
    check_keys("encoder.encoder.params", params, (), params if type(params) is dict else ())
    for name, value in params.items():
        numbers = isinstance(value, list | tuple) and all(type(one) is int and 0 <= one <= 64 for one in value)
        few = numbers and len(value) <= 2
        if not few and not (value is None or type(value) in (bool, int) or _LONG_TEXT.accepts(value)):
            raise refused(f"encoder.encoder.params.{name}", "a parameter of an encoder", value)
    if described["kind"] == "hashing":
        # What it would take memory for, before a text is read.
        n_features, n_hashes = params.get("n_features", width), params.get("n_hashes", 1)
        if type(n_features) is not int or n_features != width:
            raise refused("encoder.encoder.params.n_features", f"{width}, the width of its vectors,", n_features)
        if type(n_hashes) is not int or not 1 <= n_hashes <= _MOST_HASHES:
            raise refused("encoder.encoder.params.n_hashes", f"an integer of at most {_MOST_HASHES}", n_hashes)


def restore(config: Mapping[str, Any], settings: Settings) -> Learned:
    """What was described, for settings with the encoder of the fit; an EncoderMismatchError for another one."""
    if settings.fingerprint != config["fingerprint"]:
        raise EncoderMismatchError(
            f"expected the encoder of the fit, {config['fingerprint']}, got the encoder {settings.fingerprint}"
        )
    width = config.get("vector_width", config["feature_width"])
    interactions = restored_interactions(config.get("interactions"))
    if interactions is not None:
        columns = prepared(interactions, width).n_context_features + width
        if interactions.n_features_in_ != columns or interactions.width_ != width:
            raise refused("encoder.interactions", f"columns of vectors of width {width}", interactions.n_features_in_)
    return Learned(
        settings=settings,
        orientation=config.get("orientation", CHOSEN_FIRST),
        context_parts=dict(config["context_parts"]),
        vector_width=width,
        scale=dict(config["scale"]),
        n_truncated=config["n_truncated"],
        interactions=interactions,
    )
