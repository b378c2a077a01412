"""Provenance of the numbers: versions, hardware, commit."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

from micropref import __version__

_PACKAGES = ("numpy", "scipy", "scikit-learn")


def provenance() -> dict[str, str]:
    """Columns of the CSV file that are the same in all rows of a run."""
    return {
        "micropref": __version__,
        "commit": commit(),
        "python": platform.python_version(),
        **{package: version(package) for package in _PACKAGES},
        "hardware": f"{processor()}, {os.cpu_count()} cores",
    }


def processor() -> str:
    """Name of the processor."""
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def commit() -> str:
    """Short hash of the commit of the checkout that contains the package, with a plus if files differ; else empty."""
    root = Path(__file__).parents[2]

    def git(*arguments: str) -> str:
        try:
            done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False)
        except OSError:
            return ""
        return done.stdout.strip() if done.returncode == 0 else ""

    # An installed package may lie inside the checkout of another project.
    if git("ls-files", "--", "micropref/__init__.py") != "micropref/__init__.py":
        return ""
    return git("rev-parse", "--short", "HEAD") + ("+" if git("status", "--porcelain", "--", "micropref") else "")
