"""Files in the layouts that people have are read as they are meant."""

from __future__ import annotations

import pytest
from layout_cases import BY_NAME, CASES

from micropref.datasets import read_preferences


@pytest.mark.parametrize("name", BY_NAME)
def test_a_layout_is_read_as_it_is_meant(name, tmp_path):
    case = BY_NAME[name]
    table = read_preferences(case.write(tmp_path), **case.options)
    users = [None] * len(table) if table.group is None else table.group.tolist()
    assert list(zip(table.prompt, table.chosen, table.rejected, users, strict=True)) == case.rows
    if case.said:
        assert str(table.report) == case.said


def test_names_are_those_of_different_files():
    assert len({case.file for case in CASES}) == len(BY_NAME) == len(CASES)
