"""Fits on several ranks: the heads of one process, the same bits on every rank, and errors that reach all of them."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rank_cases import on_ranks
from sklearn.base import clone
from sklearn.pipeline import make_pipeline

from micropref import MixtureBradleyTerry, PairEncoder, PreferenceModel, load_demo
from micropref._engine.gates import Gate
from micropref._engine.mixture_objective import MixtureObjective, Penalties
from micropref._rows.comparisons import Comparisons
from micropref._rows.groups import check_groups
from micropref._rows.ids import user_id
from micropref._rows.labels import distinct_labels
from micropref._rows.layout import PairReader, root_mean_square
from micropref.cli import main
from micropref.cli._models import _share
from micropref.datasets import PreferenceTable
from micropref.distributed import (
    Communicator,
    RankError,
    TorchCommunicator,
    _communicator,
    _launch,
    active_communicator,
    check_groups_not_split,
    distributed_fit,
    shard_rows,
    torchrun,
)
from micropref.distributed._agreement import common_classes
from micropref.distributed._communicator import ALONE
from micropref.distributed._groups import hash_ids
from micropref.embed import HashingEncoder
from micropref.pairs import PairScaler

ROOT = Path(__file__).parents[1]


def fits(model, shares):
    """One fitted copy of the model per rank; `shares` has the arguments of `fit` for each of them."""
    results, errors = on_ranks(len(shares), lambda ranks: clone(model).fit(**shares[ranks.rank]))
    for error in errors:
        if error is not None:
            raise error
    return results


def planted(n=400, width=4, context=0, seed=0, dtype=np.float64):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, context + width)).astype(dtype)
    groups = np.arange(n) // 5
    heads = rng.normal(size=(2, width)) * 2
    margins = np.einsum("ij,ij->i", X[:, context:], heads[rng.integers(0, 2, size=n // 5 + 1)[groups]])
    y = (rng.random(n) < 1 / (1 + np.exp(-margins))).astype(int)
    return {"X": X, "y": y, "groups": groups, "sample_weight": rng.uniform(0.5, 2, size=n)}


def split(data, world_size):
    n = len(data["X"])
    rows = [shard_rows(n, data.get("groups"), rank, world_size) for rank in range(world_size)]
    return [{name: values[one] for name, values in data.items()} for one in rows]


def parameters(model):
    return [model.coef_, model.weights_, *model.gate_parameters_, np.array([model.objective_])]


def assert_same_fit(models, alone, tolerance=1e-6):
    for model in models:
        assert model.n_iter_ == models[0].n_iter_
        np.testing.assert_array_equal(model.classes_, alone.classes_)
        for mine, first, whole in zip(parameters(model), parameters(models[0]), parameters(alone), strict=True):
            np.testing.assert_array_equal(mine, first)
            np.testing.assert_allclose(mine, whole, rtol=0, atol=tolerance)


# ----------------------------------------------------------------------------------------------------------- the fit

SETTINGS = {
    "static": {},
    "one head": {"n_components": 1},
    "linear gate": {"n_context_features": 3, "n_init": 1},
    "mlp gate": {"n_context_features": 3, "gate": "mlp", "hidden_units": 4, "n_init": 1, "gate_alpha": 0.03},
    "balance": {"n_context_features": 3, "balance": 0.3, "n_init": 1},
}


def model_of(**settings):
    return MixtureBradleyTerry(
        **{"n_components": 2, "alpha": 0.05, "tol": 1e-9, "n_init": 2, "random_state": 3, **settings}
    )


@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("grouped", [False, True], ids=["rows", "groups"])
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_ranks_find_what_one_process_finds(settings, grouped, weighted):
    data = planted(context=settings.get("n_context_features", 0))
    for name, wanted in (("groups", grouped), ("sample_weight", weighted)):
        if not wanted:
            del data[name]
    if not settings and not grouped:  # one component alone would explain such rows, with an offset that has no end
        settings = {"balance": 0.3}
    model = model_of(**settings)
    assert_same_fit(fits(model, split(data, 3)), model.fit(**data))


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_half_and_single_precision(dtype):
    data = planted(dtype=dtype)
    model = model_of(tol=1e-6)
    assert_same_fit(fits(model, split(data, 2)), model.fit(**data), tolerance=2e-3)


@given(st.integers(0, 2**32 - 1), st.integers(2, 4), st.booleans())
def test_the_sum_of_the_shares_is_the_whole(seed, world_size, grouped):
    """Loss and gradient at a random start: one iteration from it, whatever the rows and the ranks."""
    rng = np.random.default_rng(seed)
    n, context = int(rng.integers(2, 40)), int(rng.integers(0, 3))
    data = planted(n, context=context, seed=seed)
    # Norms of shares differ by orders of magnitude.
    data["X"] *= 10.0 ** rng.integers(-3, 3)
    data["groups"] = rng.integers(-1, 4, size=n) if grouped else np.full(n, -1)
    model = model_of(n_context_features=context, max_iter=1, n_init=1, tol=1e9, random_state=seed % 1000)
    shares = split(data, world_size)
    assert sum(len(share["X"]) for share in shares) == n
    models = fits(model, shares)
    alone = model.fit(**data)
    scale = np.abs(alone.coef_).max()
    assert_same_fit(models, alone, tolerance=1e-9 * max(1.0, scale))


def test_one_reduction_per_evaluation():
    data = planted(20)
    gate = Gate.create("linear", 0, 2, 1)
    whole = MixtureObjective(Comparisons(PairReader(data["X"], 0)), gate, Penalties(0.5))
    vector = np.random.default_rng(0).normal(size=whole.stiffness.size)

    def work(ranks):
        rows = shard_rows(20, None, ranks.rank, 2)
        part = MixtureObjective(
            Comparisons(PairReader(data["X"][rows], 0)),
            gate,
            Penalties(0.5),
            communicator=ranks,
            total_weight=whole.total_weight,
        )
        return *part.value_and_gradient(vector), ranks.n_reductions

    results, errors = on_ranks(2, work)
    assert errors == [None, None]
    for value, gradient, n_reductions in results:
        assert n_reductions == 1
        assert value == pytest.approx(whole.value_and_gradient(vector)[0], rel=1e-13)
        np.testing.assert_allclose(gradient, whole.value_and_gradient(vector)[1], rtol=1e-12, atol=1e-15)


def test_ranks_without_rows():
    data = planted(context=2)
    model = model_of(n_context_features=2)
    empty = {name: values[:0] for name, values in data.items()}
    assert_same_fit(fits(model, [empty, *split(data, 2)]), model.fit(**data))
    plain = {"X": data["X"][:, 2:], "y": data["y"], "groups": data["groups"]}
    nothing = {"X": np.empty((0, 4)), "y": [], "groups": None}
    model = model_of()
    assert_same_fit(fits(model, [plain, nothing]), model.fit(**plain))


def test_tensors_without_rows():
    data = planted(60)
    whole = {"X": torch.tensor(data["X"]), "y": data["y"]}
    model = model_of(balance=0.3)
    empty = {"X": whole["X"][:0], "y": whole["y"][:0]}
    assert_same_fit(fits(model, [empty, whole]), model.fit(**whole))


def test_a_rank_without_weight():
    data = planted()
    data["sample_weight"][shard_rows(400, data["groups"], 0, 2)] = 0
    model = model_of()
    assert_same_fit(fits(model, split(data, 2)), model.fit(**data))


@pytest.mark.parametrize(
    ("first", "second", "classes"),
    [
        ([1, 1, 1], [0, 1, 0], [0, 1]),
        ([1, 1, 1], [-1, -1, -1], [-1, 1]),
        ([True] * 3, [False] * 3, [False, True]),
        (["no", "no", "no"], ["yes", "yes", "yes"], ["no", "yes"]),
        (["yes", "no", "no"], ["no", "no", "no"], ["no", "yes"]),
        ([2.0, 2.0, 2.0], [5.0, 2.0, 5.0], [2.0, 5.0]),
        ([1, 1, 1], [1, 1, 1], [0, 1]),
        (None, None, [0, 1]),
    ],
)
def test_ranks_that_see_one_label(first, second, classes):
    X = np.random.default_rng(0).normal(size=(6, 2))
    alone = model_of(n_components=1).fit(X, None if first is None else first + second)
    models = fits(model_of(n_components=1), [{"X": X[:3], "y": first}, {"X": X[3:], "y": second}])
    assert models[0].classes_.tolist() == models[1].classes_.tolist() == alone.classes_.tolist() == classes
    assert_same_fit(models, alone)


@pytest.mark.parametrize("seed", [None, np.random.RandomState(5)])
def test_starts_are_those_of_rank_0(seed):
    """Generators of their own would start every rank elsewhere, which is an error."""
    data = planted(40)

    def work(ranks):
        own = seed if seed is None else np.random.RandomState(5 + ranks.rank)
        return model_of(random_state=own, max_iter=1, tol=1e9).fit(**split(data, 2)[ranks.rank])

    (one, other), errors = on_ranks(2, work)
    assert errors == [None, None]
    np.testing.assert_array_equal(one.coef_, other.coef_)
    if seed is not None:
        whole = model_of(random_state=np.random.RandomState(5), max_iter=1, tol=1e9).fit(**data)
        np.testing.assert_allclose(one.coef_, whole.coef_, atol=1e-12)


def test_a_start_from_an_earlier_fit():
    data = planted()
    model = model_of(warm_start=True).fit(**data)

    def work(ranks):
        warm = model_of(warm_start=True)
        if ranks.rank or not half:
            warm.__dict__.update({name: value for name, value in vars(model).items() if name.endswith("_")})
        return warm.fit(**split(data, 2)[ranks.rank])

    half = False
    results, errors = on_ranks(2, work)
    assert errors == [None, None]
    np.testing.assert_allclose(results[0].coef_, model.coef_, atol=1e-6)
    half = True
    for error in on_ranks(2, work)[1]:
        assert re.search(
            "expected the same start from an earlier fit on all ranks, got False on rank 0 and True on rank 1",
            str(error),
        )


def test_only_rank_0_shows_progress(capsys):
    data = planted(40)
    fits(model_of(verbose=1, n_init=1, max_iter=1, tol=1e9), split(data, 2))
    assert capsys.readouterr().out.count("start 1 of 1") == 1


def test_nothing_is_spread_unasked():
    assert active_communicator() is ALONE
    seen = []
    with distributed_fit(Communicator()) as ranks:
        assert active_communicator() is ranks
        thread = threading.Thread(target=lambda: seen.append(active_communicator()))
        thread.start()
        thread.join()
    assert seen == [ALONE]
    assert active_communicator() is ALONE
    with pytest.raises(
        RuntimeError, match=r"expected torch\.distributed to be initialised, got no group; call .*init_process_group"
    ):
        TorchCommunicator()
    with pytest.raises(RuntimeError, match="to be initialised"), distributed_fit():
        pass


# ------------------------------------------------------------------------------------------------------------ errors


def errors_of(shares, **settings):
    errors = on_ranks(len(shares), lambda ranks: model_of(**settings).fit(**shares[ranks.rank]))[1]
    assert None not in errors
    return errors


def test_an_error_in_the_rows_of_one_rank_reaches_all():
    shares = split(planted(), 3)
    shares[1]["X"][7, 2] = np.nan
    first, second, third = errors_of(shares)
    assert str(second) == "X contains NaN or infinity: NaN in row 7, column 2"
    assert second.__notes__ == ["on rank 1 of 3"]
    for other in (first, third):
        assert isinstance(other, RankError)
        assert other.rank == 1
        assert str(other) == "rank 1 failed: ValueError: X contains NaN or infinity: NaN in row 7, column 2"


def test_an_error_in_the_midst_of_a_fit_reaches_all(monkeypatch):
    """In the sum itself: the evaluation of one rank fails after a few that worked."""
    original = MixtureObjective._stacked
    calls = Counter()

    def failing(self, vectors):
        rank = self.communicator.rank
        calls[rank] += 1
        if rank == 1 and calls[rank] == 4:
            raise MemoryError("no room")
        return original(self, vectors)

    monkeypatch.setattr(MixtureObjective, "_stacked", failing)
    first, second = errors_of(split(planted(), 2))
    assert isinstance(second, MemoryError)
    assert str(first) == "rank 1 failed: MemoryError: no room"
    assert calls == {0: 4, 1: 4}


@pytest.mark.parametrize("heavy", [0, 1])
def test_ranks_whose_rows_are_read_in_different_ways(heavy, monkeypatch):
    """On one of them an annotator has so many rows that evidence and gradient take two reads."""
    shares, settings = split(planted(), 2), {"n_init": 3, "random_state": 0}
    together, errors = on_ranks(2, lambda ranks: model_of(**settings).fit(**shares[ranks.rank]))
    assert errors == [None, None]
    original = MixtureObjective._in_one_read
    monkeypatch.setattr(
        MixtureObjective, "_in_one_read", lambda self: self.communicator.rank != heavy and original(self)
    )
    found, errors = on_ranks(2, lambda ranks: model_of(**settings).fit(**shares[ranks.rank]))
    assert errors == [None, None]
    for one, other in zip(found, together, strict=True):
        np.testing.assert_allclose(one.coef_, other.coef_, atol=1e-4)
    np.testing.assert_array_equal(found[0].coef_, found[1].coef_)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda share: share.update(X=share["X"][:, 1:]),
            r"expected the same number of columns on all ranks, got 4 on rank 0 and 3 on",
        ),
        (lambda share: share.update(y=share["y"] + 5), "got 4 different labels"),
        (lambda share: share.update(y=np.where(share["y"] == 1, 1, -1)), "got 3 different labels"),
        (
            lambda share: share.update(groups=share["groups"] - 40),
            r"expected all rows of a group on one rank, got rows of the group \d+ on ranks 0 and 1",
        ),
    ],
)
def test_shares_that_do_not_go_together(change, message):
    shares = split(planted(), 2)
    change(shares[1])
    for error in errors_of(shares):
        assert isinstance(error, ValueError)
        assert re.search(message, str(error)), error


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda share: share["X"].fill(0), "every difference is zero"),
        (lambda share: share["sample_weight"].fill(0), "got zero in every row of every rank"),
        (lambda share: share.update({name: values[:1] for name, values in share.items()}), "got n_samples=2"),
    ],
)
def test_what_only_the_whole_can_tell(change, message):
    shares = split(planted(), 2)
    for share in shares:
        change(share)
    first, second = errors_of(shares, n_components=3)
    assert str(first) == str(second)
    assert re.search(message, str(first))
    change = planted()
    shares = [split(change, 2)[0], shares[1]]
    if "fewer" not in message:
        fits(model_of(max_iter=1, tol=1e9), shares)


def test_settings_must_be_the_same():
    data = planted()

    def work(ranks):
        return model_of(alpha=0.1 + ranks.rank).fit(**split(data, 2)[ranks.rank])

    for error in on_ranks(2, work)[1]:
        assert re.search(r"expected the same alpha on all ranks, got 0\.1 on rank 0 and 1\.1 on rank 1", str(error))


def test_ranks_that_part_notice():
    """As where processors round differently: an error at once, instead of a wait for ever."""

    def work(ranks):
        return ranks.sum(lambda: np.ones(2), 2, np.array([1.0 + 1e-16 * ranks.rank, 2.0 + 1e-15 * (ranks.rank == 1)]))

    for error in on_ranks(3, work)[1]:
        assert re.search("expected all ranks to evaluate the same parameters", str(error))
    results, _ = on_ranks(3, lambda ranks: ranks.sum(lambda: np.full(2, float(ranks.rank)), 2, np.arange(5.0)))
    assert [result.tolist() for result in results] == [[3.0, 3.0]] * 3


# ------------------------------------------------------------------------------------------------------------ groups


@given(
    st.lists(st.integers(-1, 12) | st.none() | st.sampled_from(["ann", "7"]), max_size=60),
    st.integers(1, 7),
)
def test_shards_are_a_partition_that_keeps_groups_whole(ids, world_size):
    n = len(ids)
    groups = np.empty(n, dtype=object)
    groups[:] = ids
    users = [user_id(one) for one in ids]
    shards = [shard_rows(n, groups, rank, world_size) for rank in range(world_size)]
    assert sorted(np.concatenate(shards)) == list(range(n))
    owners: dict = {}
    for rank, rows in enumerate(shards):
        assert (np.diff(rows) > 0).all()
        for row in rows:
            if users[row] is not None:
                assert owners.setdefault(users[row], rank) == rank
    largest = max(Counter(user for user in users if user is not None).values(), default=1)
    for rows in shards:
        assert abs(len(rows) - n / world_size) <= largest


@given(st.integers(0, 100), st.integers(1, 9))
def test_ungrouped_rows_are_dealt_evenly_and_in_order(n, world_size):
    shards = [shard_rows(n, None, rank, world_size) for rank in range(world_size)]
    np.testing.assert_array_equal(np.concatenate(shards), np.arange(n))
    sizes = [len(rows) for rows in shards]
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize(("rank", "world_size"), [(2, 2), (-1, 2), (0, 0)])
def test_a_rank_that_does_not_exist(rank, world_size):
    with pytest.raises(ValueError, match=f"expected 0 <= rank < world_size, got rank={rank}"):
        shard_rows(3, None, rank, world_size)


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ([["ann", "bob"], ["cy", "ann"]], "the group 'ann' on ranks 0 and 1"),
        ([[7, 8], np.array([9.0, 7.0])], "the group 7 on ranks 0 and 1"),
        ([np.array([np.nan, 7.0]), [7]], "the group 7 on ranks 0 and 1"),
        ([["7"], [7]], "the group 7 on ranks 0 and 1"),
        ([[1], ["a", 2], np.array(["a"], dtype=object)], "the group 'a' on ranks 1 and 2"),
        ([[("x", 1)], [("x", 1)]], r"the group \('x', 1\) on ranks 0 and 1"),
        ([[2**70], [2**70]], f"the group {2**70} on ranks"),
    ],
)
def test_split_groups_are_named(groups, message):
    given = [one if isinstance(one, np.ndarray) else listed(one) for one in groups]
    errors = on_ranks(len(given), lambda ranks: check_groups_not_split(given[ranks.rank], ranks))[1]
    for error in errors:
        assert isinstance(error, ValueError)
        assert re.search(message, str(error))


def listed(ids):
    array = np.empty(len(ids), dtype=object)
    array[:] = ids
    return array


@pytest.mark.parametrize(
    "groups",
    [[["ann", None], ["bob", -1]], [["7.0"], [7]], [None, ["ann"]], [[-1, -1], None], [[b"7"], ["7"]]],
)
def test_groups_on_one_rank_each(groups):
    given = [None if one is None else listed(one) for one in groups]
    assert on_ranks(2, lambda ranks: check_groups_not_split(given[ranks.rank], ranks))[1] == [None, None]


def test_ids_whose_hashes_meet_are_compared(monkeypatch):
    monkeypatch.setattr("micropref.distributed._groups.hash_ids", lambda ids: np.zeros(len(ids), dtype=np.uint64))
    assert on_ranks(2, lambda ranks: check_groups_not_split([10 + ranks.rank], ranks))[1] == [None, None]


def test_hashes_do_not_depend_on_how_ids_are_stored():
    stored = [np.array([-3, 5]), np.array([-3.0, 5.0]), listed([-3, 5]), listed([np.int8(-3), 5.0])]
    for ids in stored:
        np.testing.assert_array_equal(hash_ids(check_groups(ids, 2).ids), hash_ids(stored[0]))
    named = [check_groups(ids, 1).ids for ids in (np.array(["ann"]), listed([np.str_("ann")]))]
    np.testing.assert_array_equal(hash_ids(named[0]), hash_ids(named[1]))
    different = check_groups(listed(["7.0", 7, ("7.0",), b"7", "\ud800"]), 5)
    assert len(np.unique(hash_ids(different.ids))) == 5


# ------------------------------------------------------------------------------------------------------ small pieces


@given(
    st.lists(st.tuples(st.just(0.0) | st.floats(1e-3, 1e3), st.floats(0.1, 10)), min_size=1, max_size=5),
    st.sampled_from([1e-200, 1, 1e200]),
)
def test_norms_of_parts_give_the_norm_of_the_whole(parts, size):
    norms, weights = (np.array(one) for one in zip(*parts, strict=True))
    expected = np.sqrt(np.average(norms**2, weights=weights))
    assert root_mean_square(norms * size, weights) == pytest.approx(expected * size, rel=1e-12)


def test_the_labels_of_a_share():
    assert distinct_labels(None, 3) is None
    assert distinct_labels([0, 1, 1], 3).tolist() == [0, 1]
    assert distinct_labels(["b", "b"], 2).tolist() == ["b"]
    assert distinct_labels([], 0).tolist() == []
    with pytest.raises(ValueError, match="expected labels that are finite, got nan in row 1"):
        distinct_labels([2.0, np.nan], 2)
    with pytest.raises(ValueError, match="X has 3 rows, y has 2"):
        distinct_labels([0, 1], 3)
    with pytest.raises(ValueError, match="3 different labels"):
        distinct_labels([3, 4, 5], 3)


def test_labels_of_different_types_are_not_made_equal():
    with pytest.raises(ValueError, match="labels"):
        common_classes([np.array([1, 0]), np.array(["c", "d"])])


# ------------------------------------------------------------------------------------------------------------- texts


def test_scales_of_texts_are_those_of_all_ranks():
    table = load_demo(n_annotators=6).train
    rows = [shard_rows(len(table), table.group, rank, 3) for rank in range(3)]
    alone = PairEncoder(HashingEncoder(64), context=("prompt",)).fit(table)

    def work(ranks):
        encoder = PairEncoder(HashingEncoder(64), context=("prompt",))
        return encoder, encoder.fit_transform(table[rows[ranks.rank]])

    results, errors = on_ranks(3, work)
    assert errors == [None] * 3
    whole = alone.transform(table)
    for rank, (encoder, X) in enumerate(results):
        assert encoder.scale_ == results[0][0].scale_
        assert encoder.scale_ == pytest.approx(alone.scale_, rel=1e-9)
        np.testing.assert_allclose(X, whole[rows[rank]], rtol=1e-6)


def test_a_scaler_before_the_mixture():
    data = planted(context=2)
    del data["sample_weight"]
    data["X"][:100] *= 30  # which the first rank alone sees
    pipeline = make_pipeline(PairScaler(2), model_of(n_context_features=2, n_init=1))
    shares = split(data, 2)

    def fitted(share):
        return clone(pipeline).fit(share["X"], share["y"], mixturebradleyterry__groups=share["groups"])

    alone = fitted(data)
    results, errors = on_ranks(2, lambda ranks: fitted(shares[ranks.rank]))
    assert errors == [None, None]
    for found in results:
        np.testing.assert_allclose(found[0].scale_, alone[0].scale_, rtol=1e-12)
        np.testing.assert_allclose(found[1].coef_, alone[1].coef_, rtol=0, atol=1e-6)


def test_encoders_must_be_the_same():
    table = load_demo(n_annotators=4).train

    def work(ranks):
        PairEncoder(HashingEncoder(64 + 64 * ranks.rank)).fit(table)

    for error in on_ranks(2, work)[1]:
        assert re.search(r"got hashing.* of width 64 .* on rank 0 and hashing.* of width 128", str(error))


def test_a_table_that_cannot_be_read_on_one_rank():
    table = load_demo(n_annotators=4).train

    def work(ranks):
        data = [{"prompt": "a", "chosen": "b"}] if ranks.rank else table
        return PreferenceModel.fit(data, encoder=HashingEncoder(64), n_components=1)

    first, second = on_ranks(2, work)[1]
    assert isinstance(second, ValueError)
    assert str(first).startswith("rank 1 failed: MalformedRowError: ")


# --------------------------------------------------------------------------------------------------------- processes

SCRIPT = """
import sys
import numpy as np
import torch.distributed
from micropref import MixtureBradleyTerry
from micropref.distributed import RankError, TorchCommunicator, distributed_fit, shard_rows, torchrun

rank, folder = int(sys.argv[1]), sys.argv[2]
torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
data = dict(np.load(f"{folder}/data.npz"))
settings = dict(n_components=2, alpha=0.05, tol=1e-9, n_init=2, random_state=3)
with torchrun() as ranks, distributed_fit(ranks):
    assert isinstance(ranks, TorchCommunicator)
    rows = shard_rows(len(data["X"]), data["groups"], ranks.rank, ranks.world_size)
    share = {name: values[rows] for name, values in data.items()}
    for case, more in {"static": {}, "mlp": dict(n_context_features=2, gate="mlp", hidden_units=3)}.items():
        model = MixtureBradleyTerry(**settings, **more).fit(**share)
        found = [model.coef_, model.weights_, *model.gate_parameters_, model.objective_]
        np.savez(f"{folder}/{case}{rank}.npz", *found)
    if rank == 1:
        share["X"][3, 1] = np.inf
    try:
        MixtureBradleyTerry(2).fit(**share)
    except (ValueError, RankError) as error:
        print(type(error).__name__, error)
assert torch.distributed.is_initialized()
torch.distributed.destroy_process_group()
"""


def environment(**more):
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    kept = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE", "MASTER_ADDR")}
    return {**kept, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", **more}


def test_two_processes(tmp_path):
    data = planted(context=2)
    np.savez(tmp_path / "data.npz", **data)
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(rank), str(tmp_path)],
            env=environment(RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="localhost"),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    (out, err), (out_1, err_1) = (rank.communicate(timeout=120) for rank in ranks)
    assert [rank.returncode for rank in ranks] == [0, 0], err + err_1
    assert out == "RankError rank 1 failed: ValueError: X contains NaN or infinity: infinity in row 3, column 1\n"
    assert out_1 == "ValueError X contains NaN or infinity: infinity in row 3, column 1\n"
    for case, more in {"static": {}, "mlp": {"n_context_features": 2, "gate": "mlp", "hidden_units": 3}}.items():
        alone = parameters(model_of(**more).fit(**data))
        found, other = (np.load(tmp_path / f"{case}{rank}.npz") for rank in (0, 1))
        for name, whole in zip(found.files, alone, strict=True):
            np.testing.assert_array_equal(found[name], other[name])
            np.testing.assert_allclose(found[name], whole.reshape(found[name].shape), rtol=0, atol=1e-6)


def test_the_command_under_torchrun(tmp_path):
    table = load_demo(n_annotators=12).train
    table.to_jsonl(tmp_path / "train.jsonl")
    with open(tmp_path / "train.jsonl", "a", encoding="utf-8") as file:
        file.write('{"prompt": "a", "chosen": "", "rejected": "b"}\n')
    (tmp_path / "run.py").write_text("from micropref.cli import main\nmain()\n")
    arguments = ["run.py", "fit", "train.jsonl", "two", "-k", "2", "--restarts", "1", "--skip-bad", "--json"]
    options = {"cwd": tmp_path, "capture_output": True, "text": True, "timeout": 120, "check": False}
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run([*launch, *arguments], env=environment(), **options)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 1
    assert done.stderr.count("train.jsonl.rejected.jsonl") == 1
    assert (tmp_path / "train.jsonl.rejected.jsonl").exists()
    alone = PreferenceModel.fit(table, n_components=2, n_init=1, random_state=0)
    found = PreferenceModel.load(tmp_path / "two")
    assert json.loads(done.stdout)["n_comparisons"] == len(table)
    np.testing.assert_allclose(found.mixture.coef_, alone.mixture.coef_, rtol=0, atol=1e-6)
    np.testing.assert_allclose(found.mixture.weights_, alone.mixture.weights_, rtol=0, atol=1e-6)
    assert found.encoder.scale_ == pytest.approx(alone.encoder.scale_, rel=1e-9)


LOST = """
import os, signal, sys
import micropref.cli._models as commands
from micropref.cli import main

if os.environ["RANK"] == sys.argv[1]:
    commands._share = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
main(sys.argv[2:])
"""


@pytest.mark.parametrize("lost", [0, 1])
def test_a_rank_that_dies_is_a_plain_message_on_the_others(tmp_path, lost):
    load_demo(n_annotators=12).train.to_jsonl(tmp_path / "train.jsonl")
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    # The store of torch.distributed, through which ranks meet, is not one of the ranks: torchrun holds it.
    meeting = torch.distributed.TCPStore("localhost", int(port), None, is_master=True, wait_for_workers=False)
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", LOST, str(lost), "fit", "train.jsonl", "model", "-k", "2"],
            env=environment(
                RANK=str(rank),
                WORLD_SIZE="2",
                MASTER_ADDR="localhost",
                MASTER_PORT=port,
                TORCHELASTIC_USE_AGENT_STORE="True",
            ),
            cwd=tmp_path,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    said = [rank.communicate(timeout=120)[1] for rank in ranks]
    del meeting
    assert ranks[lost].returncode == -signal.SIGKILL
    assert ranks[1 - lost].returncode == 1
    (line,) = [line for line in said[1 - lost].splitlines() if line.startswith("micropref: ")]
    assert line.startswith("micropref: error: another rank has ended: it was killed, ran out of memory, or its machine")
    assert "Traceback" not in said[1 - lost]
    assert not (tmp_path / "model").exists()


def test_outside_of_torchrun_a_process_is_alone(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR"):
        monkeypatch.delenv(name, raising=False)
    with torchrun() as ranks:
        assert ranks is ALONE
    monkeypatch.setenv("WORLD_SIZE", "2")  # as some schedulers set it
    with torchrun() as ranks:
        assert ranks is ALONE


def test_a_process_group_that_is_there_is_used_and_kept(tmp_path, monkeypatch):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/meeting", rank=0, world_size=1)
    try:
        for name, value in (("RANK", "0"), ("WORLD_SIZE", "2"), ("MASTER_ADDR", "localhost")):
            monkeypatch.setenv(name, value)
        with torchrun() as ranks:
            assert (ranks.rank, ranks.world_size) == (0, 1)
            assert ranks.exchange({"a": 1}) == [{"a": 1}]
            values = np.random.default_rng(0).normal(size=5)
            np.testing.assert_array_equal(ranks.reduce(values), values)
        assert torch.distributed.is_initialized()
    finally:
        torch.distributed.destroy_process_group()
    np.testing.assert_array_equal(ALONE.reduce(values), values)


def test_torchrun_makes_a_group_and_destroys_it(monkeypatch):
    """With torch.distributed replaced: which calls are made, and with which backend sums travel where."""
    calls = []

    class Fake:
        backend = "gloo"

        def __getattr__(self, name):
            return {
                "is_available": lambda: True,
                "is_initialized": lambda: bool(calls),
                "get_rank": lambda group: 0,
                "get_world_size": lambda group: 2,
                "get_backend": lambda group: self.backend,
                "init_process_group": lambda *arguments, **options: calls.append(("init", *arguments)),
                "destroy_process_group": lambda: calls.append(("destroy",)),
            }[name]

    fake = Fake()
    original = _launch.require
    for module in (_communicator, _launch):
        monkeypatch.setattr(
            module, "require", lambda name, why: fake if name == "torch.distributed" else original(name, why)
        )
    for name, value in (("RANK", "0"), ("WORLD_SIZE", "2"), ("MASTER_ADDR", "localhost")):
        monkeypatch.setenv(name, value)
    with torchrun() as ranks:
        assert ranks._device() == "cpu"
        fake.backend = "nccl"
        assert ranks._device() == "cuda"
    assert calls == [("init", "gloo"), ("destroy",)]
    calls.clear()
    with pytest.raises(KeyError, match="inside"), torchrun():
        raise KeyError("inside")
    assert calls == [("init", "gloo"), ("destroy",)]


def test_the_command_refuses_processes_without_rows():
    table = PreferenceTable(["p"] * 3, ["a"] * 3, ["b"] * 3, group=["ann", "ann", "ann"])
    assert _share(table, 0, 1) is table
    for rank in (0, 1):
        message = r"expected comparisons for each of 2 processes, got none for process 0, .* start at most 1 process$"
        with pytest.raises(ValueError, match=message):
            _share(table, rank, 2)
    ungrouped = PreferenceTable(["p"] * 3, ["a"] * 3, ["b", "c", "d"])
    assert [_share(ungrouped, rank, 2).rejected for rank in (0, 1)] == [["b"], ["c", "d"]]


@pytest.mark.parametrize(("rank", "shown"), [("0", "micropref: error: rank 1 failed: OSError: full\n"), ("2", "")])
def test_the_command_tells_of_another_process_once(rank, shown, monkeypatch, capsys):
    def fail(*_, **__):
        raise RankError(1, "OSError: full")

    monkeypatch.setenv("RANK", rank)
    monkeypatch.setattr("micropref.cli.app", fail)
    with pytest.raises(SystemExit) as leaving:
        main([])
    assert leaving.value.code == 1
    assert capsys.readouterr().err == shown
