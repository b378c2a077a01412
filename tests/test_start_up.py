"""What the command and the package import before they have anything to do."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = {
    *("numpy", "scipy", "sklearn", "torch", "numba", "pandas", "pyarrow", "sqlite3", "transformers", "matplotlib"),
    "pydantic",  # which typer imports to convert what is given to a command
}
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "COLUMNS": "100"}


def imported(*arguments: str) -> set[str]:
    """Packages that a run of Python imports."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *arguments], env=ENVIRONMENT, capture_output=True, text=True, check=True
    )
    lines = [line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")]
    return {name.partition(".")[0] for name in lines}


@pytest.mark.parametrize(
    "command",
    [
        (),
        *[
            "fit",
            "route",
            "score",
            "evaluate",
            "info",
            "ask",
            "embed",
            "demo",
            "theory",
            "bench",
            "serve",
            "doctor",
            "reproduce",
        ],
    ],
    ids=str,
)
def test_help_imports_nothing_that_computes(command):
    found = imported("-m", "micropref", *([command] if command else []), "--help")
    assert {"micropref", "typer", "rich"} <= found
    assert not found & HEAVY


def test_the_package_imports_nothing_until_it_is_used():
    assert not imported("-c", "import micropref; micropref.__version__; dir(micropref)") & HEAVY
    assert {"numpy", "sklearn"} <= imported("-c", "import micropref; micropref.MixtureBradleyTerry")


def test_all_commands_are_tried_here():
    from micropref.cli import app

    tried = next(mark for mark in test_help_imports_nothing_that_computes.pytestmark).args[1]
    names = {command.name or command.callback.__name__ for command in app.registered_commands}
    assert names == set(tried[1:])
