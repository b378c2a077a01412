"""Rankings, known users, folds, rows of new users, budgets and methods of a data set's own; and who wins."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from bench_cases import SPEC, WORLD, cell_of, config, preference_rows, table, write_votes

from micropref.bench import load_suite, run_suite
from micropref.bench._data import in_canonical_order
from micropref.bench._grids import _winner, figure
from micropref.bench._loading import load_data
from micropref.bench._specs import DatasetSpec
from micropref.bench._tasks import make_task
from micropref.datasets import make_world

ORDERS = DatasetSpec(name="rankings", kind="orders", path="orders.npy", new_users=0.5)


@pytest.fixture(autouse=True)
def _no_figures(monkeypatch):
    monkeypatch.setattr("micropref.bench._suite.find_spec", lambda name: None)


@pytest.fixture
def orders(tmp_path):
    found = np.argsort(np.random.default_rng(0).random((20, 5)), axis=1).astype(np.int8)
    np.save(tmp_path / "orders.npy", found)
    return found


def test_rankings_are_all_pairs_of_their_items(tmp_path, orders):
    data = load_data(ORDERS, tmp_path)
    assert data.difference.shape == (200, 5)
    assert np.bincount(data.user).tolist() == [10] * 20
    assert data.unit.max() == 9
    place = np.argsort(orders, axis=1)
    stated = {tuple(row) for row in place.tolist()}
    for user in range(20):
        rows = data.difference[data.user == user]
        better, worse = rows.argmax(axis=1), rows.argmin(axis=1)
        # An item's place is the number of items that were preferred to it.
        assert tuple(np.bincount(worse, minlength=5).tolist()) in stated
        assert len({frozenset(pair) for pair in zip(better, worse, strict=True)}) == 10


@pytest.mark.parametrize(
    "bad", [np.zeros((3, 4), dtype=int), np.arange(4), np.array([[1, 2, 3]]), np.zeros((2, 0), dtype=int)]
)
def test_what_is_no_ranking_is_refused(tmp_path, bad):
    np.save(tmp_path / "orders.npy", bad)
    with pytest.raises(
        ValueError, match=r"rankings: expected an array of shape \(n_users, n_items\), each row an order"
    ):
        load_data(ORDERS, tmp_path)


def test_rankings_have_no_contexts(tmp_path, orders):
    with pytest.raises(ValueError, match="protocol: expected users or known_users for rankings, got 'contexts'"):
        load_data(replace(ORDERS, protocol="contexts"), tmp_path)


def test_rows_of_new_users_are_the_test(tmp_path, orders):
    data = load_data(ORDERS, tmp_path)
    spec = replace(ORDERS, test_rows=3, n_users=12, new_users=0.25)
    task = make_task(data, spec, seed=0, budgets=(0, 2, 7), n_draws=2)
    inputs = task.inputs
    assert len(inputs.train) == 9 * 10  # all rows of the teachers, on whatever pair
    assert len(np.unique(inputs.annotators)) == 9
    assert np.unique(task.target, return_counts=True)[1].tolist() == [3, 3, 3]
    assert np.unique(inputs.pool_target, return_counts=True)[1].tolist() == [7, 7, 7]
    assert task.mean_labels.tolist() == [0, 2, 7]
    other = make_task(data, spec, seed=1, budgets=(0, 2, 7), n_draws=2)
    assert set(np.unique(other.target)) != set(np.unique(task.target))


def test_known_users_teach_and_are_tested_on_other_units():
    data = in_canonical_order(**preference_rows(np.random.default_rng(0), n_users=12, n_rows=30))
    spec = replace(SPEC, protocol="known_users", test_units=0.3, min_votes=5)
    task = make_task(data, spec, seed=0, budgets=(0, 3, 1000), n_draws=1)
    inputs = task.inputs
    assert len(inputs.train) == len(inputs.pool) > 200
    assert len(inputs.train) + len(task.weight) == 360
    assert len(np.unique(inputs.annotators)) == len(np.unique(inputs.pool_target)) == 12
    # Rows of training are told apart from those of the test by the pair.
    seen = {np.abs(row).tobytes() for row in inputs.train.difference}
    assert not seen & {np.abs(row).tobytes() for row in inputs.test.difference}
    np.testing.assert_array_equal(inputs.pool.difference, inputs.train.difference)
    few = make_task(data, replace(spec, n_users=4), seed=0, budgets=(0,), n_draws=1)
    assert len(np.unique(few.target)) == len(np.unique(few.inputs.annotators)) == 4


def test_folds_test_every_unit_once():
    data = in_canonical_order(**preference_rows(np.random.default_rng(1), n_users=10))
    spec = replace(SPEC, protocol="contexts", pairs_per_annotator=0, split="folds", test_units=0.25)
    data = replace(data, target=data.user % 2)
    tested = [make_task(data, spec, seed=seed, budgets=(0,), n_draws=1) for seed in range(4)]
    units = [set(np.unique(task.cluster).tolist()) for task in tested]
    assert sum(map(len, units)) == len(set.union(*units)) == len(set(data.unit.tolist()))
    assert sum(len(task.weight) for task in tested) == len(data.weight)
    assert max(map(len, units)) - min(map(len, units)) <= 1


def test_a_data_set_has_budgets_and_methods_of_its_own(tmp_path):
    votes = {**write_votes(tmp_path / "data" / "votes", np.random.default_rng(0)), "protocol": "known_users"}
    suite = config(
        "single", "static", "micro_history", datasets=[{**WORLD, "budgets": [0, 1, 4]}, {**votes, "methods": ["s*"]}]
    )
    result = run_suite(suite, tmp_path / "out", tmp_path / "data")
    assert result.failed == []
    rows = table(tmp_path / "out" / "results.csv")
    found = {(row["dataset"], row["method"], row["budget"]) for row in rows}
    assert {budget for name, _, budget in found if name == "groups"} == {"0", "1", "4"}
    assert {budget for name, _, budget in found if name == "votes"} == {"0", "2"}
    assert {method for name, method, _ in found if name == "votes"} == {"single", "static"}
    text = (tmp_path / "out" / "tables.md").read_text()
    assert "of users with 5 votes or more; all other rows are in training, with their users" in text
    # What is run on a data set changes no cell of another method.
    again = run_suite({**suite, "datasets": [suite["datasets"][0], votes]}, tmp_path / "out", tmp_path / "data")
    assert (again.n_run, again.n_kept) == (1, 5)


def test_the_tables_say_who_wins(tmp_path):
    """The best of micropref's own methods and the best rival at every budget, with their difference."""
    spec = {**WORLD, "n_samples": 1200, "test_rows": 5}
    run_suite(config("single", "static", "micro_history", "lore", "hyre_random", datasets=[spec]), tmp_path)
    lines = (tmp_path / "tables.md").read_text().splitlines()
    grid = [line.split("|")[1:-1] for line in lines[lines.index("### Who wins") :] if line.startswith("| ")][2:8]
    rows, winners = table(tmp_path / "results.csv"), iter(table(tmp_path / "winners.csv"))
    for metric, pick in (("accuracy", max), ("log_loss", min)):
        assert grid.pop(0)[0].strip() == f"**{metric.replace('_', '-')}**"
        for budget in ("0", "2"):
            labels, *cells = (cell.strip() for cell in grid.pop(0))
            assert labels == budget
            values = []
            for family, cell in zip(("micro", "rival"), cells, strict=False):
                of = [row for row in rows if (row["budget"], row["family"]) == (budget, family)]
                best = pick(of, key=lambda row, m=metric: float(row[m]))
                assert cell == f"{best['method']} {figure(float(best[metric]))}"
                values.append(float(best[metric]))
            difference = (values[0] - values[1]) * (1 if metric == "accuracy" else -1)
            assert float(cells[2].split(" ")[0]) == pytest.approx(difference, abs=1.1e-3)
    for winner in winners:
        assert float(winner["difference_low"]) <= float(winner["difference"]) <= float(winner["difference_high"])


@pytest.mark.parametrize(
    ("found", "text"),
    [
        ({"difference": -0.1, "p": 0.01}, "-.100▼"),
        ({"difference": 0.1, "p": 0.05}, "+.100▲"),
        ({"difference": -0.1, "p": 0.2}, "-.100"),
        ({"difference": -0.1, "p": None}, "-.100"),
        ({"difference": 0.0, "p": 0.0}, "+.000"),
        ({"difference": 0.1, "difference_low": -0.01, "difference_high": 1.2, "p": 0.2}, "+.100 (-.010 to 1.20)"),
    ],
)
def test_how_far_the_own_methods_are_ahead(found, text):
    row = {"budget": 2, "own": "a", "own_value": 0.5, "rival": "b", "rival_value": 1.25, **found}
    assert _winner(row) == ["2", "a .500", "b 1.25", text]


def test_the_planted_ceiling_is_the_truth():
    spec = DatasetSpec(name="mixed", kind="world", world="mixed", n_samples=2000, test_rows=20, new_users=0.5)
    task = make_task(load_data(spec, None), spec, seed=0, budgets=(0, 5), n_draws=1)
    arrays, meta = cell_of(task, "planted", spec)
    assert meta["status"] == "done"
    odds = arrays["log_odds"][0, 0]
    world = make_world("mixed", n_samples=2000, random_state=0)
    # The test rows are a random part of the world: their loss is that of the best predictor but for chance.
    loss = np.log1p(np.exp(-odds.astype(float)))
    assert loss.mean() == pytest.approx(world.known_user_nats, abs=5 * loss.std() / np.sqrt(len(loss)))
    meta = cell_of(
        make_task(
            in_canonical_order(**preference_rows(np.random.default_rng(0))), SPEC, seed=0, budgets=(0,), n_draws=1
        ),
        "planted",
    )[1]
    assert (meta["status"], meta["reason"]) == ("not applicable", "users are not planted")


def test_interactions_hear_what_a_context_says():
    """On criteria that training lacks; swapping the responses of rows changes rounding alone."""
    spec = DatasetSpec(
        name="stated",
        kind="world",
        world="stated",
        protocol="contexts",
        n_samples=2000,
        pairs_per_annotator=0,
        test_units=0.25,
    )
    data = load_data(spec, None)
    tasks = [make_task(data, spec, seed=0, budgets=(0,), n_draws=1, order_seed=order) for order in (0, 1)]
    assert not set(tasks[0].cluster.tolist()) & set(data.unit[~np.isin(data.unit, tasks[0].cluster)].tolist())
    odds = [cell_of(task, "interactions", spec)[0]["log_odds"][0, 0] for task in tasks]
    np.testing.assert_allclose(odds[0], odds[1], atol=1e-3)
    single = cell_of(tasks[0], "single", spec)[0]["log_odds"][0, 0]
    assert (odds[0] > 0).mean() > (single > 0).mean() + 0.1
    gated = cell_of(tasks[0], "interactions", spec, n_components=2)
    assert gated[1]["status"] == "done"
    plain = in_canonical_order(**preference_rows(np.random.default_rng(0), n_context=2))
    reason = cell_of(make_task(plain, SPEC, seed=0, budgets=(0,), n_draws=1), "interactions")[1]["reason"]
    assert reason == "contexts and responses are not of one space"


def test_the_space_of_contexts_comes_with_the_vectors(tmp_path):
    votes = write_votes(tmp_path / "votes", np.random.default_rng(0))
    spec = load_suite(config("single", datasets=[votes])).datasets[0]
    assert load_data(spec, tmp_path).width == 6
    assert load_data(replace(spec, prompt_scale=0.0), tmp_path).width == 0
