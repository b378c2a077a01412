"""The daily commands: ``nox -l`` lists them, ``nox -s tests -- tests/test_router.py`` passes arguments on.

Sessions run in the active environment, made once by ``pip install -e '.[dev]'``: an environment for each session would
install torch five times. The gate, ``bash .ci/run``, makes a fresh one, and it decides.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import nox

nox.options.default_venv_backend = "none"
nox.options.sessions = ["lint", "types", "tests"]

# Test processes share the cores; threads of BLAS would wait for each other.
ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


@nox.session
def tests(session: nox.Session) -> None:
    """Run the fast tests, or those that are named: nox -s tests -- tests/test_router.py -k history."""
    session.run("python", "-m", "pytest", *(session.posargs or ["-n", "2"]), env=ONE_THREAD)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and format; with `-- --fix` repair what can be repaired."""
    fix = "--fix" in session.posargs
    session.run("ruff", "check", *(["--fix"] if fix else []), ".")
    session.run("ruff", "format", *([] if fix else ["--check"]), ".")


@nox.session
def types(session: nox.Session) -> None:
    """Check types."""
    session.run("mypy", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """Build the pages into docs/_build/html; with `-- --fast` without running the gallery's lessons."""
    # Without the lessons their figures are missing, which is a warning; so warnings are errors in a full build only.
    options = ["-D", "plot_gallery=0"] if "--fast" in session.posargs else ["-W", "--keep-going"]
    session.run("sphinx-build", *options, "-q", "-b", "html", "docs", "docs/_build/html", env=ONE_THREAD)


@nox.session
def bench(session: nox.Session) -> None:
    """Run the quick benchmark suite into build/bench; arguments go to `micropref bench`."""
    suite = "benchmarks/suite_quick.toml"
    session.run("python", "-m", "micropref", "bench", suite, "-o", "build/bench", *session.posargs)


@nox.session
def build(session: nox.Session) -> None:
    """Build the distributions and check what they hold and how their page will look."""
    shutil.rmtree("dist", ignore_errors=True)
    session.run("python", "-m", "build")
    session.run("python", ".ci/check_wheel.py", *map(str, Path("dist").glob("*.whl")))
    session.run("twine", "check", "--strict", *map(str, Path("dist").iterdir()))


@nox.session
def gate(session: nox.Session) -> None:
    """Run the gate in a fresh clone and a fresh environment; it takes about half an hour."""
    session.run("bash", ".ci/run", external=True)
