"""What a PairEncoder learns from a table, and its description in JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from micropref.datasets.table import PreferenceTable
from micropref.distributed import active_communicator
from micropref.embed._columns import context_texts
from micropref.embed._orientation import CHOSEN_FIRST
from micropref.embed._scales import Measured, agree, common_scales, mean_norm
from micropref.embed._settings import Settings
from micropref.embed._vectors import Vectors, not_blank
from micropref.embed.encoders import EncoderMismatchError, encoder_config

# What 0.1 wrote; the orientation came later.
_KEYS = frozenset(
    ["encoder", "fingerprint", "template", "context", "norms", "scale", "context_parts", "feature_width", "n_truncated"]
)


class Learned(NamedTuple):
    """All that a fit leaves behind; a `PairEncoder` documents the fields as attributes."""

    settings: Settings
    orientation: str
    context_parts: dict[str, int]
    feature_width: int
    scale: dict[str, float]
    n_truncated: int


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
        context_parts={part: vectors.width for part in measured.norms if part != "response"},
        feature_width=vectors.width,
        scale=common_scales(everywhere, checked.norms),
        n_truncated=sum(one.n_truncated for one in everywhere),
    )
    return learned, vectors


def _measure(
    settings: Settings, table: PreferenceTable, orientation: str, verbose: int
) -> tuple[Settings, Vectors, Measured]:
    """Vectors of all texts of a table, and what they say about scales."""
    parts = settings.parts_of(table)
    vectors = settings.embed(settings.texts(table, parts), verbose=verbose)
    first, second = settings.responses(table)
    features = {part: vectors.of(not_blank(context_texts(table, part))) for part in parts}
    features["response"] = vectors.of(first) - vectors.of(second)
    norms = {part: (mean_norm(of), len(of)) for part, of in features.items()}
    kind = f"{settings.fingerprint} of width {vectors.width} with the parts {', '.join(norms)}, rows {orientation},"
    return settings, vectors, Measured(kind, norms, vectors.n_truncated)


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
        "n_truncated": learned.n_truncated,
    }


def check_description(config: Mapping[str, Any]) -> None:
    """A ValueError that names what is missing in a description."""
    missing = sorted(_KEYS - config.keys())
    if missing:
        raise ValueError(f"expected {', '.join(missing)} in the description of a PairEncoder, got none")


def restore(config: Mapping[str, Any], settings: Settings) -> Learned:
    """What was described, for settings with the encoder of the fit; an EncoderMismatchError for another one."""
    if settings.fingerprint != config["fingerprint"]:
        raise EncoderMismatchError(
            f"expected the encoder of the fit, {config['fingerprint']}, got the encoder {settings.fingerprint}"
        )
    return Learned(
        settings=settings,
        orientation=config.get("orientation", CHOSEN_FIRST),
        context_parts=dict(config["context_parts"]),
        feature_width=config["feature_width"],
        scale=dict(config["scale"]),
        n_truncated=config["n_truncated"],
    )
