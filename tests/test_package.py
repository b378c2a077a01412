"""The package as a whole: a free import, extras with their pip command, and arrows one way."""

from __future__ import annotations

import ast
import importlib
import json
import re
import subprocess
import sys
import tomllib

import pytest
import yaml
from _package import PACKAGE, ROOT, imports, modules, part_of

import micropref
from micropref._installation.packages import REQUIRED
from micropref._support.optional import EXTRA_OF, require

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))

HEAVY = {
    *("torch", "sentence_transformers", "transformers", "pandas", "pyarrow", "datasets", "matplotlib", "faiss"),
    *("triton", "numba"),
    *("fastapi", "starlette", "uvicorn", "httptools"),  # pydantic is imported by typer
}

# What stands above what: a module imports from its own layer and from those below it. docs/architecture.md has the map.
LAYERS = [
    {"__main__"},
    {"cli"},
    {"bench", "serve"},
    {"plotting"},
    {"_installation"},
    {"integrations"},
    {"demo", "reward"},
    {"_reward"},
    {"embed", "persistence", "selection", "_components"},
    {"heads"},
    {"datasets", "metrics", "theory"},
    {"hierarchical", "mixture", "router", "baselines"},
    {"pairs"},
    {"features"},
    {"_estimator"},
    {"_users"},
    {"_engine"},
    {"distributed"},
    {"_rows"},
    {"kernels"},
    {"_arrays"},
    {"_support"},
    {""},
]


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout


# ------------------------------------------------------------------------------------------------------------ import


def test_import_is_free():
    code = """
import json, os, sys, warnings
before = set(sys.modules)
state = (dict(os.environ), list(warnings.filters), sys.getrecursionlimit())
import micropref
after = set(sys.modules) - before
dir(micropref)
assert state == (dict(os.environ), list(warnings.filters), sys.getrecursionlimit())
print(json.dumps(sorted(name for name in after if name.split(".")[0] not in sys.stdlib_module_names)))
"""
    assert json.loads(run(code)) == ["micropref"]


@pytest.mark.parametrize("name", [name for name in micropref.__all__ if name != "__version__"])
def test_every_name_is_there(name):
    value = getattr(micropref, name)
    assert value.__name__ == name
    assert value.__module__.startswith("micropref.")
    assert name in dir(micropref)


def test_names_are_those_of_the_lazy_table():
    assert sorted(micropref.__all__) == sorted(["__version__", *micropref._HOME]) == dir(micropref)


def test_names_bring_nothing_heavy():
    """The whole library without an extra, and the command's module."""
    names = ", ".join(name for name in modules() if not name.startswith("micropref.kernels."))
    code = f"""
import sys
import sklearn.utils.validation  # which brings pandas where it is installed
before = set(sys.modules)
import {names}
from micropref import *
print(sorted({HEAVY} & set(sys.modules) - before))
"""
    assert run(code) == "[]\n"


@pytest.mark.parametrize(("name", "brings"), [("make_pairs", []), ("MixtureBradleyTerry", ["sklearn"])])
def test_a_name_brings_its_own_module_only(name, brings):
    code = f"""
import sys, micropref
micropref.{name}
print([name for name in ("typer", "micropref.cli", "micropref.embed", "micropref.reward") if name in sys.modules])
assert all(name in sys.modules for name in {brings})
"""
    assert run(code) == "[]\n"


def test_an_unknown_name():
    with pytest.raises(AttributeError, match="module 'micropref' has no attribute 'BradleyTerry'"):
        micropref.BradleyTerry  # noqa: B018
    assert not hasattr(micropref, "__wrapped__")
    with pytest.raises(ImportError, match="cannot import name 'BradleyTerry'"):
        from micropref import BradleyTerry  # noqa: F401


def test_an_error_inside_a_module_is_not_hidden(monkeypatch):
    """A KeyError while importing is not an unknown name."""

    def broken(name):
        raise KeyError("a bug in the module")

    monkeypatch.setattr(micropref, "import_module", broken)
    with pytest.raises(KeyError, match="a bug in the module"):
        micropref.PairScaler  # noqa: B018


def test_the_version_is_in_one_place():
    assert "version" in PYPROJECT["project"]["dynamic"]
    assert PYPROJECT["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "micropref.__version__"}
    assert re.fullmatch(r"\d+\.\d+\.\d+(\.dev\d+|rc\d+)?", micropref.__version__)
    again = [
        name
        for name in ("pyproject.toml", "setup.cfg", "CITATION.cff", "README.md", "docs/conf.py", "docs/index.rst")
        if micropref.__version__ in (ROOT / name).read_text(encoding="utf-8")
    ]
    assert again == []
    assert (PACKAGE / "py.typed").exists()


def test_the_changelog_knows_the_version():
    """A development version has a section for what is not released; a release has one of its own."""
    heads = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.M)
    assert heads[0] == ("Unreleased" if "dev" in micropref.__version__ else micropref.__version__)


def test_the_command_is_that_of_the_project():
    module, _, function = PYPROJECT["project"]["scripts"]["micropref"].partition(":")
    assert callable(getattr(importlib.import_module(module), function))


@pytest.mark.parametrize("arguments", [["--help"], ["fit", "--help"], ["--version"], ["nope"]])
def test_the_help_of_the_command_is_light(arguments):
    """Run as ``python -m micropref``; -X importtime lists every module that was imported."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "micropref", *arguments],
        capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time")}
    assert done.returncode == (2 if arguments == ["nope"] else 0)
    assert ("micropref" in done.stdout) == ("--help" in arguments)
    assert "micropref.cli" in imported
    assert not {name.split(".")[0] for name in imported} & {"sklearn", "scipy", "numpy", *HEAVY}


# ------------------------------------------------------------------------------------------------------------ extras


@pytest.mark.parametrize("package", sorted(EXTRA_OF))
def test_a_missing_package_is_an_error_with_its_command(package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError) as error:
        require(package, "Doing this")
    assert str(error.value) == (
        f"Doing this needs {package}, which is not installed. "
        f"Install it with: pip install 'micropref[{EXTRA_OF[package]}]'"
    )
    assert error.value.__cause__ is not None


@pytest.mark.parametrize(
    "line",
    [
        "raise ImportError('libcublas.so.12: cannot open shared object file')",
        "raise ImportError('Numba needs NumPy 2.3 or less. Got NumPy 2.4.', name='faiss')",
        "raise ModuleNotFoundError('its own words')",
        "import a_package_that_is_nowhere",
        "import faiss.a_part_that_is_nowhere",
    ],
)
def test_a_broken_package_is_an_error_with_its_cause(line, tmp_path, monkeypatch):
    """No command installs what is installed, so none is advised."""
    (tmp_path / "faiss").mkdir()
    (tmp_path / "faiss" / "__init__.py").write_text(line)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "faiss", raising=False)
    with pytest.raises(ImportError) as error:
        require("faiss", "Doing this")
    cause = error.value.__cause__
    assert isinstance(cause, ImportError)
    assert str(error.value) == f"Doing this needs faiss, which is installed but cannot be imported: {cause}"


def test_a_missing_part_of_a_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    expected = r"Drawing needs matplotlib, which is installed but cannot be imported: .*matplotlib\.figure"
    with pytest.raises(ImportError, match=expected):
        require("matplotlib.figure", "Drawing")


def test_what_is_there_is_returned():
    assert require("json", "Nothing") is json


def test_every_extra_exists_and_brings_its_package():
    extras = PYPROJECT["project"]["optional-dependencies"]
    # Some packages come along with another one.
    provided_by = {"sentence_transformers": "sentence-transformers", "transformers": "sentence-transformers"}
    provided_by["triton"] = "torch"
    for package, extra in EXTRA_OF.items():
        wanted = provided_by.get(package, package)
        assert any(re.match(rf"{wanted}\b", requirement) for requirement in extras.get(extra, [])), package


WORKING_COPY = {"test", "docs", "dev"}


def test_extras_pyproject_and_the_page_agree():
    """An extra brings a package that the library asks for; `all` brings all of them, and the page lists every extra."""
    extras = PYPROJECT["project"]["optional-dependencies"]
    for_users = extras.keys() - WORKING_COPY - {"all"}
    assert for_users - {"faiss-gpu"} == {*EXTRA_OF.values()}
    assert extras["all"] == [f"micropref[{','.join(name for name in extras if name in for_users - {'faiss-gpu'})}]"]
    page = (ROOT / "docs/install.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `([\w-]+)` \|", page.partition("## All extras")[2].partition("\n## ")[0], re.M)
    assert sorted(listed) == sorted(extras)
    assert [name for name in for_users if f"`{name}`" not in (ROOT / "README.md").read_text(encoding="utf-8")] == []


def test_the_extra_for_cards_brings_the_same_module_where_its_wheels_are():
    extras = PYPROJECT["project"]["optional-dependencies"]
    (requirement,) = extras["faiss-gpu"]
    assert re.match(r"faiss-gpu\b", requirement)
    assert "platform_system == 'Linux' and platform_machine == 'x86_64'" in requirement


def test_required_packages_are_those_of_the_project_and_of_the_recipe():
    import_name = {"scikit-learn": "sklearn", "array-api-compat": "array_api_compat"}
    bounds = dict(re.fullmatch(r"([\w-]+)>=([\w.]+)", one).groups() for one in PYPROJECT["project"]["dependencies"])
    assert [import_name.get(name, name) for name in bounds] == list(REQUIRED)
    recipe = yaml.safe_load((ROOT / "conda/recipe.yaml").read_text(encoding="utf-8"))
    python, *run_time = recipe["requirements"]["run"]
    assert python == "python >=${{ python_min }}"
    assert {tuple(one.split(" >=")) for one in run_time} == set(bounds.items())
    assert len(run_time) == len(bounds)
    assert f">={recipe['context']['python_min']}" == PYPROJECT["project"]["requires-python"]
    assert recipe["context"]["version"] == micropref.__version__
    assert recipe["about"]["license"] == PYPROJECT["project"]["license"]
    (command,) = recipe["build"]["python"]["entry_points"]
    assert command.split(" = ") == [*next(iter(PYPROJECT["project"]["scripts"].items()))]
    (build,) = PYPROJECT["build-system"]["requires"]
    assert build.replace(">=", " >=") in recipe["requirements"]["host"]


def test_every_optional_package_that_is_required_has_an_extra():
    asked = set()
    for path in modules().values():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            is_call = isinstance(node, ast.Call) and ast.unparse(node.func) == "require"
            if is_call and isinstance(node.args[0], ast.Constant):
                asked.add(node.args[0].value.split(".")[0])
    assert asked
    assert asked <= EXTRA_OF.keys()


# ------------------------------------------------------------------------------------------------------------ arrows


def layer_of(module: str) -> int:
    layers = [i for i, parts in enumerate(LAYERS) if part_of(module) in parts]
    assert len(layers) == 1, f"{module} needs a place in LAYERS"
    return layers[0]


@pytest.mark.parametrize("module", modules())
def test_arrows_point_down(module):
    for imported in imports(module, at_import_time=False):
        if part_of(imported) != part_of(module) and imported in modules():
            assert layer_of(imported) >= layer_of(module), f"{module} imports {imported}, which stands above it"


def test_no_circles():
    """Modules of one layer may build on one another, but not around."""
    arrows = {module: imports(module, at_import_time=True) & set(modules()) - {module} for module in modules()}
    done: set[str] = set()
    while ready := {module for module, imported in arrows.items() if module not in done and imported <= done}:
        done |= ready
    assert not arrows.keys() - done


@pytest.mark.parametrize(
    ("part", "forbidden"),
    [
        ("_arrays", {"kernels", "_rows", "_engine"}),
        ("_engine", {"mixture", "router", "baselines", "_users"}),
        ("datasets", {"mixture", "router", "embed"}),
        ("mixture", {"datasets", "embed", "router"}),
    ],
)
def test_what_a_part_must_not_know(part, forbidden):
    inside = [module for module in modules() if part_of(module) == part]
    assert inside
    for module in inside:
        assert not {part_of(imported) for imported in imports(module, at_import_time=False)} & forbidden


def test_nothing_imports_the_command():
    importers = {module for module in modules() if "micropref.cli" in imports(module, at_import_time=False)}
    assert importers <= {"micropref.__main__"}  # python -m micropref


@pytest.mark.parametrize("module", modules())
def test_heavy_packages_are_imported_where_they_are_needed(module):
    names = {name.split(".")[0] for name in imports(module, at_import_time=True)}
    if not module.startswith("micropref.kernels."):  # which are chosen, and only then imported, by what there is
        assert not names & HEAVY
    assert "typer" not in names or part_of(module) == "cli"
    assert not imports(module, at_import_time=False) & {"pickle", "joblib", "shelve", "dill"}


# ------------------------------------------------------------------------------------------------------- all modules


@pytest.mark.parametrize("module", modules())
def test_every_module_says_what_it_is(module):
    docstring = ast.get_docstring(ast.parse(modules()[module].read_text(encoding="utf-8")))
    assert docstring
    assert docstring.splitlines()[0].endswith((".", "?"))


@pytest.mark.parametrize("module", modules())
def test_nothing_is_left_to_do(module):
    text = modules()[module].read_text(encoding="utf-8")
    assert not re.search(r"TODO|FIXME|NotImplementedError|pragma: no cover", text)
