"""Which code a result of `micropref bench` depends on, and that the modules of bench import in one direction."""

from __future__ import annotations

import ast
import inspect
import re
import shutil
from copy import copy
from functools import partial
from pathlib import Path

import pytest

import micropref
from micropref.bench import _jobs as jobs
from micropref.bench import _specs
from micropref.bench._code import Sources, _Module, modules_of, name_of
from micropref.bench._jobs import method_code
from micropref.bench._methods.registry import RUNNERS
from micropref.bench._specs import KINDS, MethodSpec

PACKAGE = Path(micropref.__file__).parent
ALL = {*KINDS, "task"}


@pytest.fixture(scope="module")
def original():
    return Sources(PACKAGE)


def keys(sources):
    """Hash of the code of the task, and of every kind of method."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jobs, "_sources", lambda: sources)
        jobs._code_of.cache_clear()
        jobs._task_code.cache_clear()
        found = {kind: method_code(MethodSpec(name=kind, kind=kind, settings={})) for kind in KINDS}
        found["task"] = jobs._task_code()
    jobs._code_of.cache_clear()
    jobs._task_code.cache_clear()
    return found


def other_keys(original, folder, name, pattern, text):
    """Kinds of methods (and "task") whose key is another one after a file is changed."""
    before = (PACKAGE / name).read_text(encoding="utf-8")
    after = re.sub(pattern, text, before, count=1, flags=re.M)
    assert after != before
    path = folder / Path(name).name
    path.write_text(after, encoding="utf-8")
    module = ".".join(["micropref", *Path(name).with_suffix("").parts]).removesuffix(".__init__")
    changed = copy(original)
    changed._modules = {**original._modules, module: _Module(module, path)}
    old, new = keys(original), keys(changed)
    return {kind for kind in ALL if new[kind] != old[kind]}


def test_the_place_of_the_package_is_no_part_of_a_key(tmp_path, original):
    folder = shutil.copytree(PACKAGE, tmp_path / "micropref", ignore=shutil.ignore_patterns("__pycache__"))
    assert keys(Sources(Path(folder))) == keys(original)


COMMENTS = [
    ("baselines/low_rank.py", r'^"""', '"""Another docstring. '),
    ("baselines/low_rank.py", r'^    r"""', '    r"""Another docstring. '),
    ("baselines/low_rank.py", r"\Z", "\n# Another comment.\n"),
    ("bench/_methods/rivals.py", r'^    """An estimator with .*\n', ""),
    ("mixture.py", r'^    r"""', '    r"""Another docstring. '),
    ("bench/_tasks.py", r"^import hashlib$", "import hashlib  # another comment"),
    ("bench/_methods/rivals.py", r"^    chosen = ", "\n    # Another comment.\n    chosen = "),
    ("bench/_tasks.py", r"^if TYPE_CHECKING:$", "if TYPE_CHECKING:\n    from micropref.reward import PreferenceModel"),
]


@pytest.mark.parametrize(("name", "pattern", "text"), COMMENTS, ids=[name for name, *_ in COMMENTS])
def test_docstrings_comments_and_imports_for_type_checkers_change_no_key(original, tmp_path, name, pattern, text):
    assert other_keys(original, tmp_path, name, pattern, text) == set()


HYRE = {"hyre", "hyre_micro", "hyre_random"}
BEST = {"best_head", "ensemble_best"}
MICRO = {"single", "static", "micro_context", "micro_history", "micro_permuted", "hyre_micro", *BEST}
PRODUCTS = {"interactions", "interactions_permuted"}
OWN = {*PRODUCTS, "hierarchical", "hierarchical_permuted", "auto"}
CODE = [
    ("baselines/low_rank.py", {"lore"}),
    ("baselines/_low_rank_objective.py", {"lore"}),
    ("baselines/hyre.py", HYRE),
    ("baselines/shared_base.py", {*HYRE, "ensemble", "ensemble_best"}),
    ("baselines/multi_objective.py", {"multi_objective"}),
    ("bench/_methods/mixture.py", {*MICRO, *OWN} - PRODUCTS),
    ("mixture.py", {*MICRO, *OWN}),
    ("features/interactions.py", PRODUCTS),
    ("baselines/reward_factorization.py", {"reward_factorization"}),
    ("router.py", {"micro_context", "micro_history", "micro_permuted", *OWN} - PRODUCTS),
    ("bench/_evaluation.py", set(KINDS)),
    ("bench/_splits.py", ALL),
    # What reads cells, what says which cells there are, what reads data (whose content counts), and the rest.
    ("bench/_report.py", set()),
    ("bench/_scores.py", set()),
    ("bench/_specs.py", set()),
    ("bench/_jobs.py", set()),
    ("bench/_methods/registry.py", set()),
    ("bench/_loading.py", set()),
    ("bench/_bootstrap.py", set()),
    ("baselines/__init__.py", set()),
    ("__init__.py", set()),
    ("cli/__init__.py", set()),
    ("plotting/__init__.py", set()),
    ("theory/__init__.py", set()),
    ("datasets/__init__.py", set()),
    ("metrics/__init__.py", set()),
    ("reward.py", set()),
    ("persistence.py", set()),
]


@pytest.mark.parametrize(("name", "changed"), CODE, ids=[name for name, _ in CODE])
def test_code_changes_the_keys_of_what_uses_it_alone(original, tmp_path, name, changed):
    assert other_keys(original, tmp_path, name, r"\Z", "\n_ANOTHER_CONSTANT = 1.5\n") == changed


def test_a_constant_changes_the_key(original, tmp_path):
    default = "n_init: int = "
    assert other_keys(original, tmp_path, "baselines/low_rank.py", f"{default}1", f"{default}2") == {"lore"}


def test_what_is_bound_to_a_function_is_part_of_the_key(monkeypatch):
    runs = [RUNNERS["drm"], RUNNERS["drm_random"], partial(RUNNERS["drm"], basis="pca"), partial(RUNNERS["drm"])]
    assert name_of(runs[0]) == ["run_rival", "DecomposedRewards"] == name_of(runs[3])
    assert len({tuple(name_of(run)) for run in runs}) == 3
    assert modules_of(RUNNERS["hyre_micro"]) == {
        "micropref.bench._methods.hyre",
        "micropref.bench._methods.mixture",
    }
    spec = MethodSpec(name="a", kind="drm", settings={})
    before = method_code(spec)
    monkeypatch.setitem(RUNNERS, "drm", runs[2])
    assert method_code(spec) != before


@pytest.fixture
def small(tmp_path):
    """A package that re-exports names, looks one up when asked, and imports by a computed name."""
    files = {
        "__init__.py": "__version__ = '1'\ndef __getattr__(name):\n    return import_module(f'{__name__}.{name}')\n",
        "a.py": "from small.many import one\nfrom small import __version__\n",
        "b.py": "def f():\n    from small.many import lazy\n",
        "c.py": "import small.many.first\nfrom small.many import defined\n",
        "d.py": "from importlib import import_module\ndef f(x):\n    return import_module(f'small.many.fi{x}')\n",
        "e.py": "if TYPE_CHECKING:\n    from small import a\nelse:\n    from small import b\n",
        "many/__init__.py": "from small.many.first import one\nfrom small.many.second import two\ndefined = 1\n",
        "many/first.py": "one = 1\n",
        "many/second.py": "two = 2\n",
        "many/third.py": "lazy = 3\n",
    }
    for name, text in files.items():
        path = tmp_path / "small" / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text(text)
    return Sources(tmp_path / "small")


MANY = {"small.many", "small.many.first", "small.many.second", "small.many.third"}


@pytest.mark.parametrize(
    ("module", "reached"),
    [
        ("a", {"small.a", "small.many.first", "small"}),
        ("b", {"small.b", *MANY}),
        ("c", {"small.c", *MANY - {"small.many.third"}}),
        ("d", {"small.d", "small.many.first"}),
        ("e", {"small.e", "small.b", *MANY}),
    ],
)
def test_modules_that_a_module_reaches(small, module, reached):
    assert small.reached([f"small.{module}", "numpy"]) == reached


def test_every_import_by_a_computed_name_says_how_it_begins(original):
    """Otherwise the code that it brings would be part of no key."""
    silent = set()
    for name, module in original._modules.items():
        calls = [
            node
            for statement in module._tree.body
            if getattr(statement, "name", "") != "__getattr__"
            for node in ast.walk(statement)
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__"))
        ]
        if calls and not module.computed_imports:
            silent.add(name)
    # Packages that others wrote; old names of public ones; what no cell does: saving, and estimators from layers.
    assert silent == {
        "micropref._support.optional",
        "micropref._support.renamed",
        "micropref._estimator.saveable",
        "micropref.kernels._module",
    }


def test_no_circle_in_bench():
    """Not even by imports inside functions or for type checkers."""
    arrows = {}
    for path in (PACKAGE / "bench").rglob("*.py"):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        arrows[name] = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                arrows[name] |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                arrows[name] |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    inside = {name: arrows[name] & arrows.keys() - {"micropref.bench", "micropref.bench._methods"} for name in arrows}
    assert sum(map(len, inside.values())) > 50
    done = set()
    while ready := {name for name, imported in inside.items() if name not in done and imported <= done}:
        done |= ready
    assert not arrows.keys() - done


def test_specifications_know_no_data_and_no_estimator(original):
    assert original.imported("micropref.bench._specs") <= {"micropref.bench._streams"}
    assert original.reached(["micropref.bench._config"]) <= {
        *("micropref.bench._config", "micropref.bench._specs", "micropref.bench._streams", "micropref.datasets.worlds"),
        *original.reached(["micropref.datasets.worlds"]),
    }


def test_every_kind_has_a_function():
    assert list(RUNNERS) == list(KINDS)


@pytest.mark.parametrize(
    "kind", [kind for kind, run in RUNNERS.items() if isinstance(run, partial) and kind != "best_head"]
)
def test_default_settings_are_those_of_the_estimators(kind):
    """They are written out, so that only a decision changes what a suite means; this test asks for it."""
    classes = [one for one in RUNNERS[kind].args if inspect.isclass(one)]
    estimator = classes[0] if classes else micropref.baselines.HypothesisReweighting
    parameters = inspect.signature(estimator).parameters
    known = {name: value for name, value in _specs.KINDS[kind].settings.items() if name in parameters}
    if kind == "hyre_micro":
        del known["n_components"]
    assert known == {name: parameters[name].default for name in known}
    assert known
