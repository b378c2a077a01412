"""ContextInteractions: a stated criterion acts on the responses, through columns that are linear in the difference."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

import micropref.features.interactions
from micropref import ContextInteractions, ContextRouter, MixtureBradleyTerry, PairScaler, load, save, swap_pairs
from micropref.baselines import (
    GroupRewards,
    HardMixture,
    LowRankRewards,
    MeanVarianceRewards,
    SharedBaseEnsemble,
    UserRewards,
)
from micropref.distributed import Communicator
from micropref.features import interactions

WIDTH, REST = 4, 1


def rows(n=40, n_blocks=2, seed=0, *, rest=REST, dtype=np.float64):
    """Contexts of some blocks, differences of WIDTH features and `rest` more."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, n_blocks * WIDTH + WIDTH + rest)) + 0.3
    return X.astype(dtype)


def transformer(n_blocks=2, **parameters):
    return ContextInteractions(n_blocks * WIDTH, **{"width": WIDTH, "given": 0, "n_axes": (2, 3), **parameters})


def by_definition(model, X):
    """The new columns, row by row, as the documentation defines them; the slow twin of `transform`."""
    n_context, found = model.n_context_features, []
    for row in np.asarray(X, dtype=np.float64):
        c = row[:n_context].reshape(-1, WIDTH)
        d = row[n_context : n_context + WIDTH]
        c = np.array([block / (np.linalg.norm(block) or 1.0) for block in c])
        r = c.copy()
        if model.given is not None:
            for j in set(range(len(c))) - {model.given}:
                r[j] = c[j] - (c[j] @ c[model.given]) * c[model.given]
                r[j] /= np.linalg.norm(r[j]) or 1.0
        columns = [model.scale_["cosine"] * (c @ d)] if model.cosine else []
        relatives = [j for j in range(len(c)) if j != model.given]
        if model.gate:
            columns += [model.scale_["gate"] * r[j] * (c[j] @ d) for j in relatives]
        for j in relatives if model.bilinear else []:
            shifted = (r[j] - model.mean_[j]) * bool(r[j].any())
            shifted /= np.linalg.norm(shifted) or 1.0
            product = np.outer(model.context_axes_[j] @ shifted, model.difference_axes_ @ d)
            columns.append(model.scale_["bilinear"] * product.ravel())
        found.append(np.concatenate([np.ravel(column) for column in columns]))
    return np.array(found)


# ------------------------------------------------------------------------------------------------------- the columns


@pytest.mark.parametrize("given", [None, 0, 1])
@pytest.mark.parametrize("kinds", [(1, 1, 1), (2.0, 0, 0), (0, 0.5, 0), (0, 0, 3.0), (1, 0, 1)])
def test_columns_are_those_of_the_definition(given, kinds):
    X = rows()
    X[3, :WIDTH] = X[5, WIDTH : 2 * WIDTH] = X[7, : 2 * WIDTH] = 0.0
    model = transformer(given=given, **dict(zip(("cosine", "gate", "bilinear"), kinds, strict=True))).fit(X)
    found = model.transform(X)
    np.testing.assert_array_equal(found[:, : X.shape[1]], X)
    np.testing.assert_allclose(found[:, X.shape[1] :], by_definition(model, X), rtol=1e-10, atol=1e-12)


def test_the_number_of_columns_at_the_usual_width():
    """384 columns a vector: two cosines, a gate, and 24 × 48 products of axes join prompt, criterion and difference."""
    rng = np.random.default_rng(0)
    found = ContextInteractions(768, given=0).fit_transform(rng.normal(size=(60, 1152)).astype(np.float32))
    assert found.shape == (60, 1152 + 2 + 384 + 24 * 48)


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1), st.integers(1, 3), st.sampled_from([None, 0]), st.floats(1e-3, 1e3))
def test_new_columns_are_linear_in_the_difference(seed, n_blocks, given_block, size):
    X = rows(30, n_blocks, seed)
    n_context = n_blocks * WIDTH
    model = transformer(n_blocks, given=given_block).fit(X)
    new = model.transform(X)[:, n_context:]
    np.testing.assert_array_equal(model.transform(swap_pairs(X, n_context))[:, n_context:], -new)
    both = X[:15].copy()
    both[:, n_context:] += size * X[15:, n_context:]
    other = X[:15].copy()
    other[:, n_context:] = X[15:, n_context:]
    expected = new[:15] + size * model.transform(other)[:, n_context:]
    np.testing.assert_allclose(model.transform(both)[:, n_context:], expected, rtol=1e-9, atol=1e-9 * (1 + size))


@settings(max_examples=20)
@given(st.integers(0, 2**32 - 1), st.floats(1e-12, 1e12), st.floats(1e-12, 1e12))
def test_the_size_of_contexts_does_not_matter_and_that_of_d_passes_through(seed, of_context, of_difference):
    X = rows(30, seed=seed)
    scaled = X * np.repeat([of_context, of_difference], [2 * WIDTH, WIDTH + REST])
    one, other = (transformer().fit_transform(each)[:, 2 * WIDTH :] for each in (X, scaled))
    np.testing.assert_allclose(other / of_difference, one, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("n_blocks", [2, 3])
def test_each_kind_has_the_norm_of_the_differences_times_its_factor(n_blocks):
    X = rows(200, n_blocks)
    model = transformer(n_blocks, cosine=0.5, gate=2.0, bilinear=3.0).fit(X)
    new = model.transform(X)[:, X.shape[1] :]
    norm = np.sqrt((X[:, n_blocks * WIDTH : (n_blocks + 1) * WIDTH] ** 2).sum(axis=1).mean())
    ends = np.cumsum([n_blocks, (n_blocks - 1) * WIDTH, (n_blocks - 1) * 6])
    assert list(model.scale_) == ["cosine", "gate", "bilinear"]
    assert new.shape[1] == ends[-1]
    for kind, factor in zip(np.split(new, ends[:-1], axis=1), (0.5, 2.0, 3.0), strict=True):
        np.testing.assert_allclose(np.sqrt((kind**2).sum(axis=1).mean()), factor * norm, rtol=1e-10)


def test_a_single_block_that_is_given_has_its_cosine_only():
    X = rows(n_blocks=1)
    assert transformer(1).fit_transform(X).shape[1] == X.shape[1] + 1
    assert transformer(1, given=None).fit_transform(X).shape[1] == X.shape[1] + 1 + WIDTH + 6


def test_an_empty_context_gives_zeros():
    X = rows()
    model = transformer().fit(X)
    empty = X.copy()
    empty[:, : 2 * WIDTH] = 0.0
    np.testing.assert_array_equal(model.transform(empty)[:, X.shape[1] :], 0.0)
    empty[:, :WIDTH] = X[:, :WIDTH]  # a prompt without a criterion: its own columns stay
    new = model.transform(empty)[:, X.shape[1] :]
    names = model.get_feature_names_out()[X.shape[1] :]
    of_criterion = np.array([name.startswith(("cosine_1", "gate_1", "bilinear_1")) for name in names])
    np.testing.assert_array_equal(new[:, of_criterion], 0.0)
    assert (np.abs(new[:, ~of_criterion]).max(axis=0) > 0).all()


def test_rows_without_contexts_in_training_give_zeros_later():
    X = rows()
    blind = X.copy()
    blind[:, : 2 * WIDTH] = 0.0
    np.testing.assert_array_equal(transformer().fit(blind).transform(X)[:, X.shape[1] :], 0.0)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_a_criterion_that_repeats_the_prompt_says_nothing_more(dtype):
    """What is left of it is rounding, which unit length would blow up."""
    X = rows(dtype=dtype)
    X[:5, WIDTH : 2 * WIDTH] = dtype(3.0) * X[:5, :WIDTH]
    model = transformer(cosine=0.0).fit(X)
    new = model.transform(X)[:, X.shape[1] :]
    assert (new[:5] == 0).all()
    assert (new[5:] != 0).any()


def test_columns_beyond_the_width_pass_through_alone():
    X = rows()
    model = transformer().fit(X)
    other = X.copy()
    other[:, -REST:] *= 7.0
    np.testing.assert_array_equal(model.transform(other)[:, X.shape[1] :], model.transform(X)[:, X.shape[1] :])
    np.testing.assert_array_equal(transformer().fit(other).transform(X), model.transform(X))


# ------------------------------------------------------------------------------------------------------------ the fit


@settings(max_examples=20)
@given(st.integers(0, 2**32 - 1))
def test_the_fit_reads_neither_labels_nor_the_order_of_responses_nor_of_rows(seed):
    X, other = rows(60, seed=seed), rows(60, seed=seed + 1)
    flip = np.random.default_rng(seed).random(60) < 0.5
    turned = np.where(flip[:, None], swap_pairs(X, 2 * WIDTH), X)
    one = transformer().fit(X, np.zeros(60)).transform(other)
    np.testing.assert_array_equal(transformer().fit(turned, np.ones(60)).transform(other), one)
    np.testing.assert_allclose(transformer().fit(X[::-1]).transform(other), one, rtol=1e-7, atol=1e-9)


@settings(max_examples=20)
@given(st.integers(0, 2**32 - 1))
def test_a_row_repeated_equals_weight_two_and_weight_zero_no_row(seed):
    X = rows(60, seed=seed)
    weight = np.random.default_rng(seed).integers(0, 4, size=60)
    weight[:5] = 2
    weighted = transformer().fit(X, sample_weight=weight)
    repeated = transformer().fit(X.repeat(weight, axis=0))
    np.testing.assert_allclose(weighted.transform(X), repeated.transform(X), rtol=1e-7, atol=1e-9)
    assert np.abs(weighted.transform(X) - transformer().fit(X).transform(X)).max() > 1e-3


def test_prediction_reads_what_was_fitted():
    X = rows()
    model = transformer().fit(X)
    before = model.transform(X)
    model.set_params(n_context_features=4, given=None, gate=0.0, n_axes=(1, 1), width=1)
    np.testing.assert_array_equal(model.transform(X), before)
    with pytest.raises(ValueError, match="given"):
        model.set_params(given=99).fit(X)
    np.testing.assert_array_equal(model.transform(X), before)


def test_axes_without_variance_are_zero():
    X = rows(3, rest=0)
    model = ContextInteractions(2 * WIDTH, given=0, n_axes=(24, 48)).fit(X)
    assert model.context_axes_.shape == (2, WIDTH, WIDTH)  # at most the width
    assert (np.abs(model.difference_axes_).sum(axis=1) > 0).sum() == 3  # three rows
    assert np.isfinite(model.transform(rows(9, rest=0))).all()


def test_blocks_of_rows_change_nothing(monkeypatch):
    X = rows(400)
    at_once = transformer().fit(X).transform(X)
    monkeypatch.setattr("micropref._arrays.blocks._BLOCK_BYTES", 1)
    np.testing.assert_allclose(transformer().fit(X).transform(X), at_once, rtol=1e-9, atol=1e-11)


class Rank(Communicator):
    """One of two ranks that hold the same rows."""

    rank, world_size = 0, 2

    def exchange(self, value):
        return [value, value]

    def reduce(self, values):
        return 2 * values

    def together(self, work):
        return work()


def test_ranks_fit_the_rows_of_all(monkeypatch):
    X = rows()
    alone = transformer().fit(X.repeat(2, axis=0)).transform(X)
    monkeypatch.setattr(interactions, "active_communicator", Rank)
    np.testing.assert_allclose(transformer().fit(X).transform(X), alone, rtol=1e-9, atol=1e-11)


# ------------------------------------------------------------------------------------------------------- kinds of X


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_types_of_numbers(dtype, tmp_path):
    X = rows(dtype=dtype)
    truth = transformer().fit_transform(X.astype(np.float64))
    found = transformer().fit_transform(X)
    assert found.dtype == (np.float64 if dtype == np.float64 else np.float32)
    np.testing.assert_allclose(found, truth, rtol=1e-4, atol=1e-4)
    mapped = np.memmap(tmp_path / "X", dtype=dtype, mode="w+", shape=X.shape)
    mapped[:] = X
    np.testing.assert_array_equal(transformer().fit(mapped).transform(mapped), found)
    tensor = transformer().fit(torch.from_numpy(X)).transform(torch.from_numpy(X))
    assert isinstance(tensor, torch.Tensor)
    assert tensor.dtype == (torch.float64 if dtype == np.float64 else torch.float32)
    np.testing.assert_allclose(tensor.numpy(), found, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(
        transformer().fit(X[:, ::1][::2]).transform(X[::2].copy()).shape, (20, found.shape[1])
    )


def test_names_of_the_columns_and_containers():
    X = rows(n_blocks=2)
    model = transformer(n_axes=(1, 2)).fit(X)
    names = model.get_feature_names_out()
    assert names[:2].tolist() == ["x0", "x1"]
    assert names[X.shape[1] :].tolist() == [
        "cosine_0", "cosine_1", "gate_1_0", "gate_1_1", "gate_1_2", "gate_1_3", "bilinear_1_0_0", "bilinear_1_0_1",
    ]  # fmt: skip
    assert len(set(names)) == model.transform(X).shape[1]
    own = [f"column {i}" for i in range(X.shape[1])]
    assert model.get_feature_names_out(own)[: X.shape[1]].tolist() == own
    with pytest.raises(ValueError, match="input_features should have length"):
        model.get_feature_names_out(own[1:])
    frame = model.set_output(transform="pandas").transform(X)
    assert frame.columns.tolist() == names.tolist()


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        (
            {"n_context_features": 7},
            r"n_context_features: expected a positive multiple of the width of a block, 4, got 7",
        ),
        ({"n_context_features": 0}, r"n_context_features: expected a positive multiple"),
        ({"n_context_features": 13}, "at least one column for the difference"),
        ({"n_context_features": -4}, "n_context_features: expected an integer of at least 0"),
        ({"width": None}, r"multiple of the width of a block, 5, got 8; pass width="),
        ({"width": 6}, r"width: expected an integer between 1 and 5, .* got 6"),
        ({"width": 0}, "width: expected an integer between 1 and 5"),
        ({"width": 2.0}, "width: expected an integer"),
        ({"width": True}, "width: expected an integer"),
        ({"given": 2}, r"given: expected None or the index of one of 2 block\(s\) of the context, from 0, got 2"),
        ({"given": -1}, "given: expected None"),
        ({"given": "prompt"}, "given: expected None"),
        ({"cosine": -1.0}, "cosine: expected a number"),
        ({"gate": np.nan}, "gate: expected a number"),
        ({"bilinear": "yes"}, "bilinear: expected a number"),
        ({"n_axes": 24}, "n_axes: expected two integers of at least 1"),
        ({"n_axes": (24,)}, "n_axes: expected two integers of at least 1"),
        ({"n_axes": (0, 48)}, "n_axes: expected two integers of at least 1"),
        ({"n_axes": (2.5, 48)}, "n_axes: expected two integers of at least 1"),
    ],
)
def test_parameters_that_are_refused(parameters, message):
    model = transformer().set_params(**parameters)
    with pytest.raises(ValueError, match=message):
        model.fit(rows())
    assert not hasattr(model, "scale_")
    assert not hasattr(model, "n_features_in_")


@pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor])
@pytest.mark.parametrize(("value", "name"), [(np.nan, "NaN"), (np.inf, "infinity")])
def test_entries_that_are_no_numbers(kind, value, name):
    X = rows()
    model = transformer().fit(X)
    X[4, 3] = value
    for method in (model.fit, model.transform):
        with pytest.raises(ValueError, match=f"{name} in row 4, column 3"):
            method(kind(X))


def test_rows_of_another_width_and_an_overflow():
    model = transformer().fit(rows())
    with pytest.raises(ValueError, match="features"):
        model.transform(rows(n_blocks=3))
    large = rows(dtype=np.float32)
    large[2, 2 * WIDTH :] = 3e38
    with pytest.raises(ValueError, match="beyond the largest number of float32: row 2"):
        transformer(cosine=100.0).fit(rows()).transform(large)


# --------------------------------------------------------------------------------------------------- what may follow


def avoiding(n=600, seed=0, width=8):
    """A criterion wants or avoids a thing: its first feature says which, the others say what."""
    rng = np.random.default_rng(seed)
    thing = rng.normal(size=(n, width - 1))
    wants = rng.choice([-1.0, 1.0], size=n)
    criterion = np.column_stack([2.0 * wants, thing])
    d = rng.normal(size=(n, width))
    margin = 2.0 * wants * (d[:, 1:] * thing).sum(axis=1) / np.linalg.norm(thing, axis=1)
    y = (rng.random(n) < 1 / (1 + np.exp(-margin))).astype(int)
    return np.hstack([rng.normal(size=(n, width)), criterion, d]), y, np.arange(n) // 6


FOLLOWERS = {
    "one reward": lambda: MixtureBradleyTerry(1, n_context_features=16),
    "mixture": lambda: MixtureBradleyTerry(2, n_init=1, random_state=0, n_context_features=16),
    "router": lambda: ContextRouter(
        MixtureBradleyTerry(2, n_init=1, random_state=0), n_context_features=16, prefit=False, random_state=0
    ),
    "shared base": lambda: SharedBaseEnsemble(2, random_state=0, n_context_features=16),
    "hard mixture": lambda: HardMixture(1, random_state=0, n_context_features=16),
    "users": lambda: UserRewards(n_context_features=16),
    "groups": lambda: GroupRewards(n_context_features=16),
    "low rank": lambda: LowRankRewards(n_context_features=16, random_state=0),
    "mean and variance": lambda: MeanVarianceRewards(n_context_features=16),
}


@pytest.mark.parametrize("name", FOLLOWERS)
def test_every_estimator_can_follow(name):
    X, y, annotator = avoiding()
    pipeline = make_pipeline(ContextInteractions(16, given=0), FOLLOWERS[name]())
    step = pipeline.steps[-1][0]
    grouped = name in ("users", "groups", "low rank")
    pipeline.fit(X[:500], y[:500], **({f"{step}__groups": annotator[:500]} if grouped else {}))
    odds = pipeline.decision_function(X[500:])
    np.testing.assert_array_equal(pipeline.decision_function(swap_pairs(X[500:], 16)), -odds)
    assert ((odds > 0) == y[500:]).mean() > 0.58


def test_heads_without_interactions_cannot_say_it():
    X, y, _ = avoiding(3000)
    plain = MixtureBradleyTerry(2, n_context_features=16, random_state=0).fit(X[:2000], y[:2000])
    acting = make_pipeline(ContextInteractions(16, given=0), MixtureBradleyTerry(1, n_context_features=16))
    assert plain.score(X[2000:], y[2000:]) < 0.56
    assert acting.fit(X[:2000], y[:2000]).score(X[2000:], y[2000:]) > 0.7


def test_a_mixture_behind_keeps_its_gate():
    """Two groups, told by the context, of which one wants the opposite: the gate reads the same context columns."""
    X, y, _ = avoiding()
    wide = ContextInteractions(16, given=0).fit(X).transform(X)
    gated = MixtureBradleyTerry(2, n_context_features=16, random_state=0).fit(wide, y)
    weights = gated.mixture_weights(wide)
    assert weights.std(axis=0).max() > 0.01
    np.testing.assert_array_equal(gated.mixture_weights(np.hstack([wide[:, :16], 0 * wide[:, 16:]])), weights)


@pytest.mark.parametrize("first", ["scaler", "interactions"])
def test_before_and_behind_a_scaler(first):
    X, y, _ = avoiding()
    steps = [PairScaler(16), ContextInteractions(16, given=0)]
    pipeline = make_pipeline(*(steps if first == "scaler" else steps[::-1]), LogisticRegression(fit_intercept=False))
    assert pipeline.fit(X[:500], y[:500]).score(X[500:], y[500:]) > 0.65


def test_copies_pickles_and_saved_ones_are_the_same(tmp_path):
    X = rows()
    model = transformer(n_axes=[2, 3], cosine=np.float64(0.5)).fit(X)
    expected = model.transform(X)
    unfitted = clone(model)
    assert not hasattr(unfitted, "scale_")
    assert unfitted.get_params() == model.get_params()
    save(model, tmp_path)
    for other in (pickle.loads(pickle.dumps(model)), load(tmp_path), unfitted.fit(X)):
        np.testing.assert_array_equal(other.transform(X), expected)
        assert other.get_feature_names_out().tolist() == model.get_feature_names_out().tolist()
    assert load(tmp_path).n_axes == (2, 3)
    assert load(tmp_path).scale_ == model.scale_


def test_examples_in_the_documentation():
    import doctest

    found = doctest.testmod(micropref.features.interactions)
    assert found.attempted >= 3
    assert found.failed == 0
