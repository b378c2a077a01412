"""Every public module lists its names, and every public name says what it takes and what it returns."""

from __future__ import annotations

import pytest
from _docstrings import documented, faults, public_modules, public_names, sections


def test_the_walk_finds_modules_names_and_methods():
    """A walk that found little would make the tests below empty."""
    assert {"micropref", "micropref.cli", "micropref.datasets.hub.prism", "micropref.theory"} <= set(public_modules())
    assert not [name for name in public_modules() if "._" in name]
    names = public_names()
    assert {
        "micropref.MixtureBradleyTerry",
        "micropref.MixtureBradleyTerry.predict_proba",
        "micropref.theory.sweep_error",
        "micropref.theory.IrreducibleErrorBounds.theorem_3_2_slack",
        "micropref.baselines.LowRankRewards.log_likelihood",  # of a private base
        "micropref.kernels.mixture_nll",
    } <= set(names)
    assert len(names) > 300


@pytest.mark.parametrize("name", public_modules())
def test_every_public_module_lists_its_names(name):
    module = public_modules()[name]
    listed = getattr(module, "__all__", None)
    assert isinstance(listed, list), f"{name} has no __all__"
    assert len(set(listed)) == len(listed)
    assert [each for each in listed if not hasattr(module, each)] == []
    assert [each for each in listed if each.startswith("_") and each != "__version__"] == []


@pytest.mark.parametrize("name", public_names())
def test_every_public_name_is_documented(name):
    assert faults(public_names()[name]) == []


# ---------------------------------------------------------------------------------------------------- the check itself


def complete(x: int, *, y: int = 0, **more: int) -> int:
    """Add numbers.

    Parameters
    ----------
    x, y : int
        Of it.
    **more
        Of more.

    Returns
    -------
    z : int
    """
    return x + y + sum(more.values())


def without_result(x: int) -> int:
    """Is x taken?

    Parameters
    ----------
    x : int
    """
    return x


def with_result(x: int) -> None:
    """Take x.

    Parameters
    ----------
    x : int

    Returns
    -------
    y : int
    """


def without_parameter(x: int, y: int) -> None:
    """Take both.

    Parameters
    ----------
    z, y : int
    """


def without_sentence() -> None:
    """Nothing"""


class Titled:
    """A class.

    Parameters
    ----------
    x : int

    Attributes
    ----------
    y : int
    """

    def __init__(self, x: int, y: int) -> None:
        self.x, self.y = x, y

    @property
    def bare(self) -> int:
        return self.x


class Heir(Titled):
    pass


class Refusal(ValueError):
    """An error."""


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (complete, []),
        (Titled, []),
        (Refusal, []),
        (without_result, ["does not document its result"]),
        (with_result, ["documents a result, but returns none"]),
        (without_parameter, ["does not document x", "documents z, which it does not take"]),
        (without_sentence, ["the first line is no sentence"]),
        (Titled.bare, ["no docstring"]),
        (Heir, ["no docstring"]),
        (lambda: None, ["no docstring"]),
    ],
)
def test_faults_are_found(value, found):
    assert faults(value) == found


def test_sections_are_told_apart():
    text = "Title.\n\nParameters\n----------\nx, y : int\n    Of it.\n**more\n    Of more.\n\nReturns\n-------\nz : int"
    assert documented(text) == {"x", "y", "more"}
    assert documented(text, "Returns") == {"z"}
    assert documented(text, "Yields") == set()
    assert sections(text) == ["Parameters", "Returns"]
