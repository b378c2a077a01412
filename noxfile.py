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

# Estimators, saving, readers and metrics, without torch.
LOWEST = [
    *("tests/test_hierarchical.py", "tests/test_saved_rivals.py", "tests/test_strangers.py", "tests/test_any_order.py"),
    *("tests/test_baselines_state.py", "tests/test_determined.py", "tests/test_metrics.py", "tests/test_files.py"),
    *("tests/test_loads_v01.py", "tests/test_reward.py", "tests/test_cli.py", "tests/test_plotting.py"),
]
# Test processes share the cores; threads of BLAS would wait for each other.
ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


@nox.session
def tests(session: nox.Session) -> None:
    """Run the fast tests, or those that are named: nox -s tests -- tests/test_router.py -k history."""
    session.run("python", "-m", "pytest", *(session.posargs or ["-n", "2"]), env=ONE_THREAD)


@nox.session
def lowest(session: nox.Session) -> None:
    """Run core tests under the lowest versions that pyproject.toml allows, in an environment of their own.

    Tests that need torch are left out: its lowest version comes with gigabytes of CUDA libraries. Arguments name other
    tests: nox -s lowest -- tests/test_router.py
    """
    python = "build/lowest/bin/python"
    session.run("uv", "venv", "--clear", "--python", "3.11", "build/lowest", external=True)
    tools = ("hypothesis>=6.100", "pytest>=8", "pyyaml>=6", "statsmodels>=0.14", "polars>=1.0")
    lowest = ("uv", "pip", "install", "--python", python, "--resolution", "lowest-direct")
    session.run(*lowest, "-e", ".[numba,faiss,plot,data]", *tools, external=True)
    session.run(python, "-m", "pytest", *(session.posargs or LOWEST), env=ONE_THREAD, external=True)


@nox.session
def audit(session: nox.Session) -> None:
    """Look up known vulnerabilities of the versions that tests use; one that cannot be looked up is an error, too."""
    session.run(
        "pip-audit", "--strict", "--requirement", "constraints.txt", "--no-deps", "--disable-pip", *session.posargs
    )


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
    if "--fast" not in session.posargs:
        session.run("python", ".ci/check_docs.py", "docs")
        session.run("python", ".ci/check_pages.py", "docs/_build/html")


@nox.session
def screenshots(session: nox.Session) -> None:
    """Photograph ten of the built pages, wide and narrow, into build/screenshots; needs Chromium and its driver."""
    pages = session.posargs
    session.run("python", ".ci/screenshots.py", "docs/_build/html", "build/screenshots", *pages)


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
