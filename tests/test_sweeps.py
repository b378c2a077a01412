"""Planted populations along one property: what must move, moves the right way; the rest stays."""

from __future__ import annotations

import numpy as np
import pytest

from micropref.theory import sweep_error


def column(sweep, name):
    return np.array([getattr(terms, name) for terms in sweep.terms])


@pytest.mark.parametrize("parameter", ["diversity", "n_groups", "informativeness"])
def test_terms_add_up_and_bounds_stay_below(parameter):
    sweep = sweep_error(parameter)
    for terms, bounds in zip(sweep.terms, sweep.bounds, strict=True):
        parts = terms.label_noise + terms.group_information + terms.misspecification
        assert terms.cross_entropy == pytest.approx(parts, abs=1e-12)
        assert bounds.information == pytest.approx(terms.group_information, abs=1e-12)
        chain = [bounds.information, bounds.pairwise, bounds.averaged, bounds.theorem_3_2, 0.0]
        assert (np.diff(chain) <= 1e-12).all()


def test_the_more_even_the_groups_the_more_they_hide():
    sweep = sweep_error("diversity", [0.0, 0.1, 0.3, 0.5])
    information = column(sweep, "group_information")
    assert information[0] == pytest.approx(0.0, abs=1e-12)
    assert (np.diff(information) > 0.01).all()
    assert [bounds.diversity for bounds in sweep.bounds] == pytest.approx([0.0, 0.1, 0.3, 0.5])


def test_more_groups_hide_more():
    information = column(sweep_error("n_groups", [1, 2, 4, 6]), "group_information")
    assert information[0] == pytest.approx(0.0, abs=1e-12)
    assert (np.diff(information) > 0.01).all()


def test_contexts_move_what_is_hidden_to_what_a_mixture_finds():
    sweep = sweep_error("informativeness")
    assert (np.diff(column(sweep, "group_information")) < 0).all()
    assert (np.diff(column(sweep, "misspecification")) > 0).all()
    # One reward does not know the context: its error stays nearly what it is.
    error = column(sweep, "cross_entropy")
    assert np.ptp(error) < 0.02 < np.ptp(column(sweep, "group_information"))


def test_pairs_of_an_annotator_tell_the_group():
    sweep = sweep_error("pairs_per_group", [1, 2, 5, 15])
    information = column(sweep, "group_information")
    assert (np.diff(information) < 0).all()
    assert information[-1] < 0.1 * information[0]
    assert column(sweep, "misspecification")[-1] < column(sweep, "misspecification")[0]
    assert sweep.bounds is None


def test_the_same_seed_gives_the_same_numbers():
    first, second, other = (sweep_error("pairs_per_group", [3], random_state=seed) for seed in (1, 1, 2))
    assert first.terms == second.terms != other.terms


@pytest.mark.parametrize(
    ("parameter", "values", "message"),
    [
        ("rho", [1], "parameter: expected one of"),
        ("diversity", [0.6], "between 0 and"),
        ("diversity", [], "sequence of finite"),
        ("diversity", [np.nan], "sequence of finite"),
        ("n_groups", [1.5], "whole numbers"),
        ("pairs_per_group", [0], "whole numbers"),
        ("informativeness", [-1], "not negative"),
    ],
)
def test_bad_values(parameter, values, message):
    with pytest.raises(ValueError, match=message):
        sweep_error(parameter, values)


def test_more_groups_than_directions():
    assert sweep_error("n_groups", [15]).terms[0].group_information > 0.1
