"""Narrow floats in tables, classes of a mixture, models that own what they hold, sparse rows, overflow, forks."""

from __future__ import annotations

import os
import threading

import datasets
import numpy as np
import pandas as pd
import polars
import pytest
import torch
from scipy import sparse

from micropref import ContextRouter, MixtureBradleyTerry, PairEncoder, PreferenceModel, read_preferences
from micropref._rows.ids import text_id
from micropref._support.locks import Lock
from micropref.pairs import make_pairs, split_pairs, swap_pairs

RNG = np.random.default_rng(0)
D = RNG.normal(size=(200, 2))
FIRST = D[:, 0] > 0
ROWS = [{"prompt": "p", "chosen": f"great {k}", "rejected": f"bad {k}", "group": k % 3} for k in range(8)]


def narrow_tables(tmp_path):
    """One table whose ids are floats of single precision beyond 2**24, in every kind of source that has types."""
    frame = pd.DataFrame([{**row, "group": 2.0**24} for row in ROWS[:2]]).astype({"group": "float32"})
    frame.to_parquet(tmp_path / "t.parquet")
    yield frame
    yield tmp_path / "t.parquet"
    yield {name: frame[name].to_numpy() for name in frame}
    yield datasets.Dataset.from_pandas(frame)
    yield polars.from_pandas(frame)


def test_floats_of_single_precision_in_tables_are_ids_up_to_their_own_limit(tmp_path):
    for table in narrow_tables(tmp_path):
        with pytest.raises(ValueError, match=r"below 2\*\*24"):
            read_preferences(table)


def test_large_floats_in_csv_are_the_integer_or_refused():
    assert text_id("1e+05") == text_id("1.0e+5") == 100_000
    for cell in ("1e+18", "1E+18", "1.2345678901234568e+18"):
        with pytest.raises(ValueError, match=r"2\*\*53"):
            text_id(cell)


@pytest.mark.parametrize("gate", ["linear", "knn"])
def test_a_router_reads_labels_as_its_mixture_does(gate):
    y = (~FIRST).astype(int)  # 0: the first response is preferred
    heads = MixtureBradleyTerry(1, random_state=0)
    for _ in range(30):
        heads.partial_fit(D, y, classes=[1, 0])
    router = ContextRouter(heads, gate=gate).fit(D, y)
    assert router.classes_.tolist() == [1, 0]
    assert router.score(D, y) > 0.95
    with pytest.warns(UserWarning, match="first preferred"):
        other = ContextRouter(heads, gate=gate).fit(D, np.where(FIRST, "yes", "no"))
    assert other.classes_.tolist() == ["no", "yes"]


@pytest.fixture(scope="module")
def parts():
    encoder = PairEncoder("hashing")
    X = encoder.fit_transform(ROWS)
    mixture = MixtureBradleyTerry(2, random_state=0).fit(X, groups=[row["group"] for row in ROWS])
    return encoder, mixture, ContextRouter(mixture).fit(X), X


def test_a_model_owns_what_its_parts_have_learned(parts):
    encoder, mixture, router, X = parts
    model = PreferenceModel(encoder, mixture, router)
    before = model.log_odds(ROWS)
    scale = dict(encoder.scale_)
    encoder.scale_["response"] *= 5
    router.gate_parameters_[-1][:] += 1
    router.mixture_.coef_ *= -1
    mixture.fit(-X)
    np.testing.assert_array_equal(model.log_odds(ROWS), before)
    encoder.scale_.update(scale)
    with pytest.raises(ValueError, match="router: expected one that was fitted on this mixture"):
        PreferenceModel(encoder, MixtureBradleyTerry(2, random_state=5).fit(X[:, ::-1]), router)


def test_a_refused_route_leaves_the_encoder_as_it_was():
    model = PreferenceModel.fit(ROWS, n_components=2, random_state=0)
    parts, scale = dict(model.encoder.context_parts_), dict(model.encoder.scale_)
    with pytest.raises(ValueError, match="weight"):
        model.route([{**row, "group": None, "context": "short", "weight": 0.0} for row in ROWS])
    assert model.encoder.context_parts_ == parts
    assert model.encoder.scale_ == scale
    assert model.router is None


def test_prediction_beside_route_sees_one_model():
    model = PreferenceModel.fit(ROWS, n_components=2, random_state=0)
    labelled = [{**row, "group": None, "context": "short"} for row in ROWS]
    found, errors = [], []

    def ask():
        for _ in range(40):
            try:
                found.append(model.reward(["p"], ["great 1"], ["short"]))
            except Exception as error:
                errors.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    for _ in range(4):
        model.route(labelled)
    thread.join()
    assert not errors
    assert np.isfinite(found).all()


@pytest.mark.parametrize(
    "function", [lambda X: swap_pairs(X, 0), lambda X: split_pairs(X, 0), lambda X: make_pairs(X, X)]
)
@pytest.mark.parametrize("kind", [sparse.csr_matrix, sparse.coo_array, lambda X: torch.tensor(X).to_sparse()])
def test_sparse_rows_are_refused_with_the_line_that_makes_them_dense(function, kind):
    with pytest.raises(ValueError, match=r"expected dense rows, got a sparse .*(to_dense|toarray)\(\)"):
        function(kind(D))


@pytest.mark.parametrize("kind", [np.asarray, torch.tensor])
def test_differences_beyond_the_type_are_refused(kind):
    large = kind(np.full((2, 2), 6e4, dtype=np.float16))
    with pytest.raises(ValueError, match=r"within the range of .*float16, got one beyond it in row 0, column 0"):
        make_pairs(large, -large)
    assert not np.isfinite(np.asarray(make_pairs(kind(np.array([[np.inf]])), kind(np.array([[0.0]]))))).any()


def test_a_lock_is_released_in_a_child_that_was_forked_inside_it():
    lock = Lock()
    with lock:
        child = os.fork()
        if child == 0:
            status = 1
            try:
                lock.__exit__(None, None, None)
                with lock:
                    status = 0
            finally:
                os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_fork_of_a_two_stage_router_leaves_the_stream_of_the_original():
    user = np.arange(200) // 2
    router = ContextRouter(MixtureBradleyTerry(2, random_state=0), prefit=False)
    router.partial_fit(D, FIRST, groups=user)
    before = len(router.mixture_._stream.forked().evidence)
    fork = router._forked()
    for _ in range(3):
        fork.partial_fit(D, FIRST, groups=user + 1000)
    assert len(router.mixture_._stream.forked().evidence) == before
    assert len(fork.mixture_._stream.forked().evidence) == 2 * before


@pytest.mark.parametrize("gate", ["linear", "mlp", "cluster"])
def test_a_fork_of_a_router_leaves_the_stream_of_the_original(gate):
    rng = np.random.default_rng(0)
    user = np.arange(200) // 2
    opposed = np.where(user % 2, FIRST, 1 - FIRST)
    heads = MixtureBradleyTerry(2, random_state=0).fit(D, opposed, groups=user)
    X, y = np.hstack([rng.normal(size=(200, 3)), D]), rng.integers(2, size=200)
    router, alone = (ContextRouter(heads, gate=gate, hidden_units=4, random_state=0) for _ in "ab")
    for one in (router, alone):
        one.partial_fit(X, y)
    router._forked().partial_fit(10 * X[::2], 1 - y[::2])
    for one in (router, alone):
        one.partial_fit(X[:50], y[:50])
    np.testing.assert_array_equal(router.mixture_weights(X), alone.mixture_weights(X))
