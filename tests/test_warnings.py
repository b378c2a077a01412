"""Every warning points at the user's line, however deep in the library it arose."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from _package import modules, place, tree
from hub_cases import helpsteer2_rows
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from test_pair_encoder import CountingEncoder
from test_store import Counting, filled, shards

from micropref import ContextRouter, MixtureBradleyTerry, PairEncoder, PreferenceModel, load_demo, read_preferences
from micropref.baselines import SharedBaseEnsemble
from micropref.datasets import PreferenceTable, load_helpsteer2
from micropref.embed import EmbeddingStore, HashingEncoder
from micropref.metrics import reward_bench_score
from micropref.persistence import load

MIXED_USERS = Path(__file__).parent / "fixtures" / "v01" / "router_mixed_users"
D = np.random.default_rng(0).normal(size=(60, 4))
Y = (D @ [2.0, 1.0, -1.0, 0.5] + np.random.default_rng(1).logistic(size=60) > 0).astype(int)
NAMED = np.where(Y, "yes", "no")
ROW = {"prompt": "p", "chosen": "a b", "rejected": "c"}
ROWS = [ROW | {"rejected": f"c {i}"} for i in range(20)]


def mixture(**parameters: Any) -> MixtureBradleyTerry:
    return MixtureBradleyTerry(2, n_init=1, random_state=0, **parameters)


def direct_fit(folder: Path) -> None:
    mixture(max_iter=1).fit(D, Y)


def fit_in_a_pipeline(folder: Path) -> None:
    make_pipeline(FunctionTransformer(), mixture(max_iter=1)).fit(D, Y)


def fit_of_a_model(folder: Path) -> None:
    PreferenceModel.fit(
        load_demo(n_annotators=20).train, encoder=HashingEncoder(16), n_components=4, n_init=1, max_iter=1
    )


def fit_of_a_rival(folder: Path) -> None:
    SharedBaseEnsemble(2, max_iter=1).fit(D, Y)


def label_order(folder: Path) -> None:
    mixture().fit(D, NAMED)


def label_order_in_a_router(folder: Path) -> None:
    ContextRouter(mixture().fit(D, Y == 1)).fit(D, NAMED)


def label_order_in_a_pipeline(folder: Path) -> None:
    make_pipeline(FunctionTransformer(), mixture()).fit(D, NAMED)


def merged_users(folder: Path) -> None:
    load(MIXED_USERS)


def rejected_rows(folder: Path) -> None:
    read_preferences([ROW, ROW | {"chosen": 7}], skip_bad=True)


def rejected_rows_of_the_hub(folder: Path) -> None:
    first, second = helpsteer2_rows("one", *((4, 0, 1, 2, 2), (0, 4, 1, 2, 2)))
    load_helpsteer2([first, {**second, "verbosity": 9}, first, second], skip_bad=True)


def two_columns_of_users(folder: Path) -> None:
    read_preferences([ROW | {"user": 1, "worker": 2}])


def two_columns_of_users_in_a_fit(folder: Path) -> None:
    PairEncoder(HashingEncoder(16)).fit([row | {"user": 1, "worker": 2} for row in ROWS])


def cut_texts(folder: Path) -> None:
    PairEncoder(CountingEncoder(reads=2)).fit(ROWS)


def damaged_shard(folder: Path) -> None:
    filled(folder / "store").close()
    shards(folder / "store")[0].unlink()
    EmbeddingStore(folder / "store", Counting())


def part_of_a_benchmark(folder: Path) -> None:
    table = PreferenceTable(["p"], ["a b"], ["c"], extra={"subset": ["donotanswer"], "id": [1]})
    reward_bench_score(lambda prompts, responses: [len(response) for response in responses], table)


KINDS: dict[Callable[[Path], None], str] = {
    direct_fit: "L-BFGS stopped",
    fit_in_a_pipeline: "L-BFGS stopped",
    fit_of_a_model: "L-BFGS stopped",
    fit_of_a_rival: "L-BFGS stopped",
    label_order: "'yes' was read as 'first preferred'",
    label_order_in_a_router: "'yes' was read as 'first preferred'",
    label_order_in_a_pipeline: "'yes' was read as 'first preferred'",
    merged_users: "known under several ids",
    rejected_rows: "1 of 2 rows are left out",
    rejected_rows_of_the_hub: "2 of 4 rows are left out",
    two_columns_of_users: "may be the group",
    two_columns_of_users_in_a_fit: "may be the group",
    cut_texts: "longer than the encoder reads",
    damaged_shard: "1 shard of the store",
    part_of_a_benchmark: "the table has no rows of Chat, Chat Hard, Reasoning",
}


@pytest.mark.parametrize("warn", KINDS, ids=lambda warn: warn.__name__)
def test_a_warning_points_at_the_line_of_the_user(warn, tmp_path):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn(tmp_path)
    places = [(one.filename, one.lineno) for one in caught if KINDS[warn] in str(one.message)]
    lines = range(warn.__code__.co_firstlineno, warn.__code__.co_firstlineno + 5)
    assert places
    assert all(file == __file__ and line in lines for file, line in places), places


def test_no_warning_counts_its_frames():
    """Fixed levels are right for one way into the library only."""
    fixed = [
        place(module, keyword.value.lineno)
        for module in modules()
        for node in ast.walk(tree(module))
        if isinstance(node, ast.Call)
        for keyword in node.keywords
        if keyword.arg == "stacklevel" and isinstance(keyword.value, ast.Constant)
    ]
    assert fixed == []
