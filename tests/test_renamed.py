"""Every public name of 0.1 is still there; one that is elsewhere now warns and says where."""

from __future__ import annotations

import importlib
import warnings
from pathlib import Path

import pytest

from micropref._support.renamed import MOVED
from micropref.datasets import PreferenceTable

OLD = (Path(__file__).parent / "fixtures/v01/public_names.txt").read_text(encoding="utf-8").split()
MOVES = [(module, name, place) for module, names in MOVED.items() for name, place in names.items()]


def test_the_list_of_old_names_is_long():
    assert len(OLD) > 400
    assert {"micropref.pairs:PairReader", "micropref.datasets.sources:Record", "micropref:make_pairs"} <= set(OLD)


@pytest.mark.parametrize("old", OLD)
def test_an_old_name_is_there_or_warns(old):
    module_name, _, name = old.partition(":")
    module = importlib.import_module(module_name)
    if not name:
        return
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        getattr(module, name)
    is_moved = name in MOVED.get(module_name, {})
    assert [warning.category for warning in caught] == [FutureWarning] * is_moved


def test_only_old_names_move():
    assert {f"{module}:{name}" for module, name, _ in MOVES} <= set(OLD)


@pytest.mark.parametrize(("module", "name", "place"), MOVES)
def test_a_moved_name_says_where_it_is(module, name, place):
    home, _, new_name = place.partition(":")
    said = f"it is internal now .{home}.{new_name}." if "._" in place or ":_" in place else f"{new_name} from {home}$"
    with pytest.warns(FutureWarning, match=rf"{module}.{name} will be removed in micropref 0.3: .*{said}") as caught:
        found = getattr(importlib.import_module(module), name)
    assert caught[0].filename == __file__
    assert found is getattr(importlib.import_module(home), new_name)
    assert name not in vars(importlib.import_module(module))


def test_an_import_warns_once_where_it_stands(tmp_path):
    """As Python shows warnings by default; a package asks for the name twice."""
    script = tmp_path / "old.py"
    script.write_text("from micropref.distributed import ALONE\nfrom micropref.pairs import PairReader\n")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        exec(compile(script.read_text(), script, "exec"), {"__name__": "old"})
    assert [(warning.filename, warning.lineno) for warning in caught] == [(str(script), 1), (str(script), 2)]


@pytest.mark.parametrize("module", MOVED)
def test_an_unknown_name_is_an_attribute_error(module):
    with pytest.raises(AttributeError, match=f"module '{module}' has no attribute 'nothing'"):
        importlib.import_module(module).nothing  # noqa: B018


def test_the_number_of_rejected_rows_by_position_warns():
    columns = (["q"], ["a"], ["b"], None, None, None, None)
    with pytest.warns(FutureWarning, match="pass n_rejected by name") as caught:
        table = PreferenceTable(*columns, 3)
    assert caught[0].filename == __file__
    assert table.n_rejected == 3
    assert PreferenceTable(*columns, n_rejected=3) == table
    with pytest.raises(TypeError, match="expected at most 8 arguments by position, got 9"):
        PreferenceTable(*columns, 3, 4)
