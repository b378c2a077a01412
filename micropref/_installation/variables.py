"""Environment variables that decide what is computed where, and which of their values mean nothing."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

__all__ = ["environment", "unusable"]


class _Kind(NamedTuple):
    """Values of one kind: a test, and what passes it."""

    accepts: Callable[[str], bool]
    expected: str


def _positive(value: str) -> bool:
    return re.fullmatch(r"\+?[0-9]+", value.strip()) is not None and int(value) > 0


def _positives(value: str) -> bool:
    """OpenMP takes one number for every level of nesting."""
    return all(map(_positive, value.split(",")))


def _can_be_written(value: str) -> bool:
    """Whether a file can be made there, or a folder on the way there: a cache is made at its first use."""
    folder = Path(value).absolute()
    there = next((one for one in (folder, *folder.parents) if os.path.lexists(one)), folder)
    try:
        # Permissions do not decide it: in /proc they let root write, who cannot.
        with tempfile.TemporaryDirectory(dir=there):
            return True
    except (OSError, ValueError):
        return False


_COUNT = _Kind(_positive, "a positive integer")
_COUNTS = _Kind(_positives, "a positive integer")
_SWITCH = _Kind(lambda value: value in ("0", "1"), "0 or 1")
_WORDED_SWITCH = _Kind(
    lambda value: value.lower() in ("0", "1", "no", "yes", "off", "on", "false", "true", "n", "y", "f", "t"), "0 or 1"
)
_FOLDER = _Kind(os.path.isdir, "a folder that exists")
_CACHE = _Kind(_can_be_written, "a folder that can be written to")

# In the order in which they are shown. None: micropref knows no value to be wrong.
_VARIABLES: dict[str, _Kind | None] = {
    "OMP_NUM_THREADS": _COUNTS,
    "OPENBLAS_NUM_THREADS": _COUNT,
    "MKL_NUM_THREADS": _COUNT,
    "CUDA_VISIBLE_DEVICES": None,
    "NVIDIA_TF32_OVERRIDE": _SWITCH,
    "TRITON_INTERPRET": _SWITCH,
    "TRITON_CACHE_DIR": _CACHE,
    "NUMBA_DISABLE_JIT": _SWITCH,
    "NUMBA_CACHE_DIR": _CACHE,
    "HF_HOME": _CACHE,
    "HF_HUB_OFFLINE": _WORDED_SWITCH,
    "MICROPREF_DATA": _FOLDER,
}


def environment() -> dict[str, str]:
    """Variables that are set and change what is computed where."""
    return {name: os.environ[name] for name in _VARIABLES if name in os.environ}


def unusable(found: Mapping[str, str]) -> list[str]:
    """Sentences about values that their readers ignore or fail at; an empty value is that of a variable not set."""
    return [
        f"{name}: expected {kind.expected}, got {found[name]!r}"
        for name, kind in _VARIABLES.items()
        if kind is not None and found.get(name) and not kind.accepts(found[name])
    ]
