"""`micropref info`: what a saved model is."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from micropref._support.text import counted
from micropref.cli._app import Json, Model, app, print_json, print_table


@app.command()
def info(model: Model, as_json: Json = False) -> None:
    """Describe a saved model: its heads and their weights, encoder, penalties, users, and the version that wrote it.

    The encoder is not needed, because nothing is embedded. Single estimators, as saved by
    `micropref.persistence.save`, are described as well.
    """
    from micropref._reward.folder import describe_model

    found = describe_model(model)
    if as_json:
        print_json({"model": str(model), **found})
        return
    shown = Table.grid(padding=(0, 2), expand=False)
    shown.add_column(no_wrap=True)
    shown.add_column(overflow="fold")
    for name, value in _lines(found):
        shown.add_row(name, value)
    print_table(shown)


def _lines(found: dict[str, Any]) -> list[tuple[str, str]]:
    """Name and value of every line; what the model does not have is left out."""
    size = f"{found['n_bytes'] / 1e6:.1f} MB" if found["n_bytes"] >= 1e6 else f"{found['n_bytes'] / 1e3:.0f} kB"
    lines: list[tuple[str, str | None]] = [
        ("estimator", found["estimator"]),
        ("heads", _heads(found)),
        ("weights", _weights(found["weights"])),
        ("features", _features(found)),
        ("penalties", _penalties(found)),
        ("history temperature", _number(found["history_temperature"])),
        ("converged", None if found["converged"] is None else "yes" if found["converged"] else "no"),
        ("chosen", None if found["choice"] is None else found["choice"]["reason"]),
        ("router", _router(found["router"])),
        ("users known", None if found["n_users"] is None else str(found["n_users"])),
        *_encoder(found["encoder"]),
        ("written by", f"micropref {found['micropref']}, format {found['format']}, {size}"),
        ("sha256", found["sha256"]),
    ]
    return [(name, value) for name, value in lines if value is not None]


def _heads(found: dict[str, Any]) -> str | None:
    if found["n_components"] is None:
        return None
    if found["n_directions"] is None:
        return str(found["n_components"])
    return f"{found['n_components']}, around which users scatter in {counted(found['n_directions'], 'direction')}"


def _weights(weights: list[float] | None) -> str | None:
    return None if weights is None else " ".join(f"{weight:.2f}" for weight in weights)


def _features(found: dict[str, Any]) -> str:
    context = found["n_context_features"]
    return str(found["n_features"]) + (f", the first {context} of them context" if context else "")


def _penalties(found: dict[str, Any]) -> str | None:
    given = [(name, found[name]) for name in ("alpha", "gate_alpha")]
    return ", ".join(f"{name} {_number(value)}" for name, value in given if isinstance(value, float) and value) or None


def _number(value: Any) -> str | None:
    return f"{value:.3g}" if isinstance(value, int | float) else None


def _router(router: dict[str, Any] | None) -> str | None:
    if router is None:
        return None
    if not router["n_context_features"]:
        return "votes of users alone"
    alpha = "" if router["alpha"] is None else f", alpha {_number(router['alpha'])}"
    return f"{router['gate']} gate on {counted(router['n_context_features'], 'column')} of context{alpha}"


def _encoder(encoder: dict[str, Any] | None) -> list[tuple[str, str | None]]:
    if encoder is None:
        return []
    acting = [name for name in ("interactions", "clauses", "length") if encoder[name]]
    return [
        ("encoder", encoder["fingerprint"]),
        ("template", encoder["template"]),
        ("further columns", ", ".join(acting) or None),
    ]
