"""What surrounds the package: workflow, templates, hooks, citation and daily commands, read as their tools do."""

from __future__ import annotations

import ast
import re
import tomllib
from typing import Any

import pytest
import yaml
from _package import ROOT

YAML_FILES = sorted(
    path for pattern in (".github/**/*.yml", ".pre-commit-config.yaml", "CITATION.cff") for path in ROOT.glob(pattern)
)
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def content(name: str) -> Any:
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", YAML_FILES, ids=lambda path: path.name)
def test_yaml_is_a_mapping_without_repeated_keys(path):
    """A repeated key is no error for the usual loader: the last one wins, silently."""

    class Strict(yaml.SafeLoader):
        pass

    def mapping(loader, node):
        keys = [loader.construct_object(key) for key, _ in node.value]
        assert len(keys) == len(set(keys)), f"{path.name}: a key is repeated in {keys}"
        return dict(loader.construct_pairs(node, deep=True))

    Strict.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, mapping)
    assert isinstance(yaml.load(path.read_text(encoding="utf-8"), Strict), dict)
    assert not re.search(r"\t", path.read_text(encoding="utf-8"))


def test_the_files_are_there():
    assert {path.name for path in YAML_FILES} >= {"gate.yml", "bug.yml", "feature.yml", "config.yml", "CITATION.cff"}


def test_the_workflow_runs_the_gate_on_every_python():
    workflow = content(".github/workflows/gate.yml")
    job = workflow["jobs"]["gate"]
    promised = [line.rpartition(" ")[2] for line in PYPROJECT["project"]["classifiers"] if re.search(r":: 3\.\d", line)]
    assert job["strategy"]["matrix"]["python"] == promised
    assert promised[0] == PYPROJECT["project"]["requires-python"].removeprefix(">=")
    assert [step["run"] for step in job["steps"] if "run" in step] == ["bash .ci/run"]
    triggers = workflow.get("on", workflow.get(True))  # YAML 1.1 reads the key `on` as a boolean
    assert {"push", "pull_request"} <= triggers.keys()
    assert workflow["permissions"] == {"contents": "read"}
    systems = [line for line in PYPROJECT["project"]["classifiers"] if line.startswith("Operating System")]
    assert (job["runs-on"], systems) == ("ubuntu-latest", ["Operating System :: POSIX :: Linux"])


@pytest.mark.parametrize("name", ["bug", "feature"])
def test_issue_forms_have_what_github_asks_for(name):
    form = content(f".github/ISSUE_TEMPLATE/{name}.yml")
    assert form["name"]
    assert form["description"]
    ids = [part["id"] for part in form["body"] if part["type"] != "markdown"]
    assert len(ids) == len(set(ids)) > 0
    assert all(part["attributes"] for part in form["body"])


def test_the_citation_is_complete_and_leaves_the_version_to_the_package():
    citation = content("CITATION.cff")
    assert citation.keys() >= {"cff-version", "message", "title", "authors", "license"}
    assert citation["license"] == PYPROJECT["project"]["license"]
    assert "version" not in citation
    assert [author["name"] for author in citation["authors"]] == [a["name"] for a in PYPROJECT["project"]["authors"]]


def test_hooks_and_targets_run_what_the_gate_runs():
    gate = (ROOT / ".ci/run").read_text(encoding="utf-8")
    local = [repo for repo in content(".pre-commit-config.yaml")["repos"] if repo["repo"] == "local"]
    assert [hook["id"] for hook in local[0]["hooks"]] == ["ruff-check", "ruff-format", "mypy"]
    targets = (ROOT / "noxfile.py").read_text(encoding="utf-8")
    for command in ("ruff check", "ruff format", "mypy", "sphinx-build -W"):
        assert command in gate
        program, *rest = command.split()
        assert f'"{program}"' in targets
        assert all(f'"{word}"' in targets for word in rest)


def test_every_target_is_explained():
    """In its docstring, which nox lists, and in CONTRIBUTING."""
    tree = ast.parse((ROOT / "noxfile.py").read_text(encoding="utf-8"))
    sessions = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.decorator_list]
    assert {"tests", "lint", "types", "docs", "bench", "gate"} <= {session.name for session in sessions}
    contributing = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for session in sessions:
        assert ast.get_docstring(session)
        assert f"`nox -s {session.name}" in contributing


def test_addresses_of_the_project_are_those_that_it_gives_elsewhere():
    citation = content("CITATION.cff")["references"][0]
    assert set(PYPROJECT["project"]["urls"].values()) == {citation["url"], f"https://doi.org/{citation['doi']}"}


def test_both_distributions_are_built_and_checked():
    gate = (ROOT / ".ci/run").read_text(encoding="utf-8")
    assert re.search(r"^python -m build --outdir", gate, re.M)
    assert re.search(r"^twine check --strict", gate, re.M)
    assert "micropref doctor" in gate
    assert any(one.startswith("twine") for one in PYPROJECT["project"]["optional-dependencies"]["test"])


def test_the_release_is_dated():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    heads = re.findall(r"^## \[(.+?)\](?: - (\d{4}-\d\d-\d\d))?$", text, re.M)
    assert ("0.2.0", "2026-11-26") in heads


def test_the_first_screen_of_the_readme():
    """A picture that is there, and the two commands, before any other heading; all of it short."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    first = text.partition("\n## ")[0]
    (picture,) = re.findall(r"!\[[^\]]{40,}\]\(([^)]+)\)", first)
    assert (ROOT / picture).is_file()
    assert re.findall(r"<!-- command: (\w+) -->", first) == ["demo", "tests"]
    assert len(first.splitlines()) <= 40
    assert len(text.splitlines()) < 200
    titles = re.findall(r"^## (.*)$", text, re.M)
    assert titles[:3] == ["Your own data, in ten lines", "Ask a new user, in three", "Serve it, in one"]
    assert titles[3].startswith("Results")
    blocks = re.findall(r"```\w+\n(.*?)```", text, re.DOTALL)
    own, _, ask, serve = blocks[2:6]
    lengths = [len([line for line in block.splitlines() if line.strip()]) for block in (own, ask, serve)]
    assert all(n <= most for n, most in zip(lengths, (10, 3, 1), strict=True)), lengths
