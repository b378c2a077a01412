"""`micropref reproduce paper`: the suite, the tables with injected results, costs, and a rehearsal end to end."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from bench_cases import main_returns

from micropref.bench import load_suite, run_suite
from micropref.bench._document import as_markdown
from micropref.bench._jobs import Job
from micropref.bench._paper.costs import FIT_SECONDS, RATES, Machine, as_blocks, costs_of
from micropref.bench._paper.plan import _SLOW, _SMALL, _STAND_INS, Plan
from micropref.bench._paper.published import TABLES
from micropref.bench._paper.reproduce import Reproduction, reproduce_paper
from micropref.bench._paper.tables import COLUMNS, Results, document, flat_rows
from micropref.bench._scores import DatasetResult, Pooled
from micropref.bench._specs import ANNOTATORS, KINDS
from micropref.bench._suite import SuiteResult
from micropref.cli import main

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks/results"

# --------------------------------------------------------------------------------------------------------- the suite


def test_the_suite_has_every_row_of_every_table():
    suite = load_suite(ROOT / "benchmarks/paper.toml")
    datasets = {one.name: one for one in suite.datasets}
    methods = {one.name for one in suite.methods}
    for table in TABLES.values():
        for part in table.parts:
            shown = {line.method for line in part.lines}
            assert shown <= methods
            plan = {one["name"]: one for one in Plan((table.number,)).suite()["datasets"]}
            assert set(plan[part.dataset]["methods"]) == shown
            assert set(part.budgets) <= set(suite.budgets_of(datasets[part.dataset]))
    assert {part.dataset for table in TABLES.values() for part in table.parts} == set(datasets)


def test_the_published_figures_are_those_of_the_paper():
    figures = {
        (number, part.dataset, line.method): line.published
        for number, table in TABLES.items()
        for part in table.parts
        for line in part.lines
        if line.published
    }
    helpsteer2 = {"single": 0.7632, "static": 0.7598, "hyre": 0.7329, "micro-prompts": 0.7830, "hyre-micro": 0.7883}
    rpr = {"single": 0.6594, "static": 0.7836, "ensemble-best": 0.7629, "hyre": 0.6823}
    rpr |= {"micro-prompts": 0.8218, "hyre-micro": 0.8974, "multi-objective": 0.8403}
    assert {
        method: value for (n, name, method), value in figures.items() if (n, name) == (2, "helpsteer2")
    } == helpsteer2
    assert {method: value for (n, name, method), value in figures.items() if (n, name) == (2, "rpr")} == rpr
    assert figures[1, "helpsteer2-heads", "best-head-prompts"] == 0.811
    assert figures[1, "rpr-heads", "best-head-prompts"] == 0.921
    assert figures[3, "helpsteer2-to-rpr", "micro-prompts"] == 0.8133
    # Every one of them says how its protocol differs.
    assert all(
        line.protocol for t in TABLES.values() for part in t.parts for line in part.lines if line.published is not None
    )


def test_a_row_that_knows_annotators_says_so_and_so_does_the_figure_beside_it():
    suite = load_suite(Plan((1, 2, 3)).suite())
    # Settings as written: that "auto" chooses a penalty by annotators held out is no knowledge of the heads.
    known = {one.name for one in suite.methods if ANNOTATORS in KINDS[one.kind].information_with(one.settings)}
    assert {"static", "hyre-micro", "micro"} <= known
    assert "micro-prompts" not in known
    for line in (line for number in (1, 2, 3) for part in TABLES[number].parts for line in part.lines):
        assert ("annotators known" in line.label) == (line.method in known), line.label
        assert not line.published or ("no annotators known" in line.protocol) == (line.method in known), line.label


def test_cells_do_not_depend_on_which_tables_are_asked_for(tmp_path):
    """So that a run of one table is kept for the next one."""
    keys = []
    for tables in ((2,), (2, 5, 6), ()):
        suite = load_suite(Plan(tables, small=True).suite())
        dataset = next(one for one in suite.datasets if one.name == "helpsteer2")
        method = next(one for one in suite.methods if one.name == "micro")
        keys.append(Job(suite, dataset, 0, (method,), tmp_path, None, "hash").key(method))
    assert len(set(keys)) == 1


def test_a_table_can_be_run_alone_with_its_teacher():
    suite = load_suite(Plan((3,), "hashing").suite())
    assert [one.name for one in suite.datasets] == ["helpsteer2-to-rpr"]
    assert suite.datasets[0].teacher.loader == "helpsteer2"
    assert suite.datasets[0].encoder == suite.datasets[0].teacher.encoder == "hashing"
    with pytest.raises(ValueError, match="tables: expected numbers among 1, 2, 3, 4, 5, 6, 7, got 8"):
        Plan((8,)).suite()


# --------------------------------------------------------------------------------------------------------- the tables


def injected() -> Results:
    """Made-up results of two seeds: what the tables must show, and what is missing or failed."""
    rows = []

    def add(dataset, method, budget, accuracy, status="done", reason=""):
        row = {"dataset": dataset, "method": method, "budget": budget, "n_pairs": 800, "n_clusters": 120}
        row |= {"status": status, "reason": reason, "seeds": "0 1"}
        if status == "done":
            row |= {"accuracy": accuracy, "accuracy_low": accuracy - 0.02, "accuracy_high": accuracy + 0.02}
        rows.append(row)

    for budget in (0, 50):
        add("helpsteer2", "single", budget, 0.7)
        add("helpsteer2", "micro", budget, 0.7 + budget / 1000)
        add("helpsteer2", "micro-prompts", budget, 0.71)
        add("helpsteer2", "multi-objective", budget, 0.0, "not applicable", "no ratings of single responses")
    add("helpsteer2-heads", "best-head", 10**6, 0.75)
    return Results(rows, [_detail("helpsteer2", "micro"), _detail("helpsteer2-heads", "best-head")])


def _detail(name: str, method: str) -> DatasetResult:
    spec = next(one for one in load_suite(Plan().suite()).methods if one.name == method)
    odds = np.array([1.0, -1.0, 1.0, 1.0]).reshape(1, 1, 4)
    kept = ({"weights": np.array([[0.25, 0.75], [0.9, 0.1]])},)
    none: frozenset[str] = frozenset()
    one = Pooled(spec, none, none, "done", "", odds, 1.0, (), "", kept)
    return DatasetResult(
        name=name,
        methods=(one,),
        cluster=np.array([0, 1, 2, 2]),
        seed=np.zeros(4, dtype=int),
        target=np.array([0, 0, 1, 1]),
        weight=np.ones(4),
        mean_labels=np.ones(1),
        notes=(),
        reading="",
        n_train=4,
        n_targets=2,
        data_hash="",
        split_hash="",
        seeds=(0,),
        budgets=(10**6,),
        target_names=("coherence", "verbosity"),
    )


def test_the_tables_look_like_this():
    found = as_markdown(document([TABLES[n] for n in (1, 2, 5, 6)], injected(), ["About."]))
    assert "the ones of table 2" in found  # where table 5 has its reasons
    golden = (ROOT / "tests/fixtures/paper_tables.md").read_text(encoding="utf-8")
    assert found[found.index("## 1.") :] == golden
    assert found.startswith("# The tables of MiCRo\n\nAbout.\n\nOur figures are accuracies with 95 % intervals")


def test_the_flat_rows_have_figure_n_interval_and_what_was_published():
    rows = flat_rows([TABLES[2], TABLES[5]], injected())
    assert all(set(COLUMNS) >= {"accuracy", "accuracy_low", "n_pairs", "published", "protocol"} for _ in rows)
    micro = next(row for row in rows if (row["table"], row["method"]) == (2, "micro-prompts"))
    assert (micro["accuracy"], micro["n_pairs"], micro["published"], micro["labels"]) == (0.71, 800, 0.7830, 50)
    assert micro["protocol"].startswith("other test rows; router of 128 units, temperature 1e-3 to 1e-4, balance 0.5")
    # The curve was published at 50 labels alone.
    curve = {
        row["labels"]: row.get("published") for row in rows if (row["table"], row["method"]) == (5, "micro-prompts")
    }
    assert curve == {0: None, 50: 0.7830}


@pytest.mark.parametrize(("number", "name", "same"), [(1, "rpr-heads", True), (7, "prism", False)])
def test_n_counts_each_test_pair_once(number, name, same, tmp_path):
    """Every seed tests the published part again; of people who are drawn anew each seed tests others."""
    content = Plan((number,), small=True).suite()
    content |= {"methods": [{"name": "single", "kind": "single"}], "n_draws": 1, "n_resamples": 50}
    content["datasets"] = [one | {"methods": ["single"]} for one in content["datasets"] if one["name"] == name]
    content["datasets"][0] |= {"stand_in": 400, "n_draws": 1} | ({"min_votes": 2} if name == "prism" else {})
    found = run_suite(content | {"seeds": [0, 1]}, tmp_path)
    row, detail = found.rows[0], found.details[0]
    of_a_seed = int((detail.seed == 0).sum())
    assert row["n_rows"] == len(detail.weight) > of_a_seed
    assert row["n_pairs"] == (of_a_seed if same else len(detail.weight))
    rows = flat_rows([TABLES[number]], Results(found.rows, found.details))
    assert rows[0]["n_pairs"] == row["n_pairs"]
    if same:
        assert sum(one["n_pairs"] for one in rows if one.get("attribute")) == of_a_seed
        assert "the same in each" in (tmp_path / "tables.md").read_text(encoding="utf-8")


# ---------------------------------------------------------------------------------------------------------- the costs


def test_rates_are_those_of_the_committed_results():
    for file, question, rate, _ in RATES.values():
        with open(RESULTS / file, newline="", encoding="utf-8") as lines:
            row = next(one for one in csv.DictReader(lines) if one["question"] == question)
        assert float(row.get("value") or row["micropref"]) == pytest.approx(rate)
        if "mean_characters" in row:
            assert float(row["mean_characters"]) == RATES["gpu" if "cuda" in file else "cpu"][3]
    with open(RESULTS / "suite/results.csv", newline="", encoding="utf-8") as lines:
        seconds = {one["method"]: float(one["seconds"]) / 5 for one in csv.DictReader(lines) if one["dataset"] == "dsp"}
    assert {name: pytest.approx(seconds[name], rel=1e-3) for name in FIT_SECONDS} == FIT_SECONDS
    assert "6626 training rows" in (RESULTS / "suite/tables.md").read_text(encoding="utf-8")


def test_costs_are_products_of_sizes_and_rates():
    one = {cost.name: cost for cost in costs_of(Plan((2,)), True)}
    assert set(one) == {"helpsteer2", "rpr", "ultrafeedback"}
    assert one["rpr"].vector_bytes == 5 * 11167 * 3072 * 2
    assert one["rpr"].embed_hours == pytest.approx(5 * 11167 / (2632 * 408 / 1600 * 22e6 / 3e9) / 3600)
    assert one["rpr"].fit_minutes > one["ultrafeedback"].fit_minutes == 0
    light = {cost.name: cost for cost in costs_of(Plan((2,), "all-MiniLM-L6-v2"), True)}
    assert one["rpr"].embed_hours > 100 * light["rpr"].embed_hours > 0
    assert one["rpr"].fit_minutes == pytest.approx(8 * light["rpr"].fit_minutes)
    assert {cost.name for cost in costs_of(Plan((7,)), False) if cost.texts is None} == {"personal_reward_bench"}
    assert sum(cost.vector_bytes for cost in costs_of(Plan((), "hashing"), False)) == 0


@pytest.mark.parametrize(("free", "room"), [(1e12, "enough"), (1e8, "not enough")])
def test_the_table_of_costs_says_what_it_is_and_whether_there_is_room(free, room):
    text = as_markdown(as_blocks(Plan(), Machine("a GPU", True, int(free))))
    assert "Arithmetic, not a measurement" in text
    assert "Assumed: 1600 characters" in text
    assert "embedding, hours (GPU, at most)" in text
    assert "an upper bound" in text
    for light in (
        as_blocks(Plan((), "all-MiniLM-L6-v2"), Machine("a GPU", True, 0)),
        as_blocks(Plan(), Machine("", False, 0)),
    ):
        assert not re.search("at most[)]|upper bound", as_markdown(light))
    assert all(f"{what}their number is assumed" in text for what in ("prompts; ", "ratings alone; "))
    assert re.search(rf"This machine: a GPU; .* GB free, .* GB needed with 6 GB for the model.*: {room}\.", text)


# -------------------------------------------------------------------------------------------------------- the command


def test_a_dry_run_fetches_nothing_and_writes_nothing(tmp_path, capsys):
    main_returns(["reproduce", "paper", "--dry-run", "--tables", "2", "--output", str(tmp_path / "new")])
    shown = capsys.readouterr().out
    assert "| rpr " in shown
    assert "GB free" in shown
    main_returns(["reproduce", "paper", "--dry-run", "--json", "--output", str(tmp_path / "new")])
    assert {"machine", "costs"} == set(json.loads(capsys.readouterr().out))
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["paper", "--tables", "9"], "tables: expected numbers among 1, 2, 3, 4, 5, 6, 7, got 9"),
        (["paper", "--tables", "one"], "expected numbers such as 1,2,7"),
        (["paper", "--tables", "2,x"], "expected numbers such as 1,2,7"),
        (["paper", "--small", "--dry-run"], "expected --dry-run or --small, got both"),
        (["thesis"], "expected paper, got 'thesis'"),
    ],
)
def test_what_cannot_be_reproduced_is_said(arguments, message, tmp_path, capsys):
    with pytest.raises(SystemExit) as left:
        main(["reproduce", *arguments, "--output", str(tmp_path)])
    assert left.value.code == 2
    assert message in re.sub(r"[\s│]+", " ", capsys.readouterr().err)


@pytest.mark.parametrize(
    ("arguments", "cores", "used"),
    [([], 8, 1), (["--small"], 8, 2), (["--small"], 1, 1), (["--small"], None, 1), (["--small", "-j", "3"], 8, 3)],
)
def test_a_rehearsal_takes_two_cores_and_the_time_is_printed(arguments, cores, used, tmp_path, capsys, monkeypatch):
    taken = []

    def run(output, plan, *, n_jobs, **others):
        taken.append(n_jobs)
        return Reproduction([], [], [], 2, 1, [])

    monkeypatch.setattr("micropref.bench._paper.reproduce.reproduce_paper", run)
    monkeypatch.setattr("os.cpu_count", lambda: cores)
    main_returns(["reproduce", "paper", *arguments, "--output", str(tmp_path)])
    assert taken == [used]
    shown = re.sub(r"\s+", " ", capsys.readouterr().out)
    assert re.search(rf"2 cells run, 1 kept, [\d.]+ s, {used} process(es)?$", shown.strip())


def test_without_network_one_sentence_says_what_to_do(tmp_path, capsys, monkeypatch):
    def offline(*args, **kwargs):
        raise ConnectionError("nvidia/HelpSteer2: expected the hub, got no connection")

    monkeypatch.setattr("micropref.datasets.load_helpsteer2", offline, raising=False)
    with pytest.raises(SystemExit) as left:
        main(["reproduce", "paper", "--tables", "2", "--output", str(tmp_path)])
    assert left.value.code == 1
    said = capsys.readouterr().err.strip()
    assert said.startswith("micropref: error: nvidia/HelpSteer2: expected the hub")
    assert said.endswith("--small rehearses without a network")
    assert len(said.splitlines()) == 1


def test_the_page_says_what_each_set_was_and_what_was_lost(tmp_path, monkeypatch):
    lost = {"reading": "90 rows read, 7 left out; texts embedded by last-token-1a2b; 3 texts of the store longer"}
    lost |= {"notes": ("seed 0: 2 tied rows used neither as labels nor as test rows",), "data_hash": "ab" * 32}
    found = injected()
    details = [replace(one, **lost) for one in found.details if one.name == "helpsteer2"]
    done = SuiteResult([dict(row) for row in found.rows], [], [], 1, 0, [tmp_path / "results.csv"], details)
    monkeypatch.setattr("micropref.bench._paper.reproduce.run_suite", lambda *args, **kwargs: done)
    for plan, revision in ((Plan((2,)), "newest revision"), (Plan((2,), small=True), "made up")):
        page = as_markdown(reproduce_paper(tmp_path, plan).blocks)
        assert page == (tmp_path / "paper.md").read_text(encoding="utf-8")
        said = f"helpsteer2: {revision}; {lost['reading']}; {lost['notes'][0]}. Data abababababababab (SHA-256)."
        assert page[page.index("## Data") :] == f"## Data\n\n{said}\n"


# ------------------------------------------------------------------------------------------------------ the rehearsal


def test_the_committed_rehearsal_is_the_one_on_the_page():
    page = (ROOT / "docs/paper.md").read_text(encoding="utf-8")
    found = (RESULTS / "paper_small/paper.md").read_text(encoding="utf-8")
    tables = [line for line in page[page.index("### 2.") :].splitlines() if line.startswith("|")]
    assert len(tables) > 40
    assert set(tables) <= set(found.splitlines())
    with open(RESULTS / "paper_small/paper.csv", newline="", encoding="utf-8") as lines:
        rows = [one for one in csv.DictReader(lines) if one["table"] == "2" and one["accuracy"]]
    assert set(rows[0]) == set(COLUMNS)
    of = {(one["dataset"], one["method"]): f"{float(one['accuracy']):.3f}"[1:] for one in rows}
    prose = page[page.index("## A rehearsal") : page.index("### 2.")]
    for dataset, method in (
        *(("helpsteer2", name) for name in ("micro", "oracle")),
        *(("rpr", name) for name in ("micro", "micro-history", "hyre-micro", "oracle", "multi-objective")),
    ):
        assert of[dataset, method] in prose


def test_a_rehearsal_says_which_rows_it_leaves_out():
    shown = {(part.title, line.label) for t in TABLES.values() for part in t.parts for line in part.lines}
    run = {
        (part.title, line.label)
        for number, table in TABLES.items()
        for part in table.parts
        for of in Plan((number,), small=True).suite()["datasets"]
        for line in part.lines
        if of["name"] == part.dataset and line.method in of["methods"]
    }
    left_out = Plan(small=True).left_out()
    assert {f"{title}: {label}" for title, label in shown - run} == set(left_out)
    assert len(left_out) == 8
    assert Plan((1, 3), small=True).left_out() == Plan().left_out() == ()


def ran(found: Reproduction, tables: tuple[int, ...]) -> None:
    """Every row of these tables that is not left out has a figure."""
    assert found.failed == []
    for number in tables:
        shown = {(part.dataset, line.method) for part in TABLES[number].parts for line in part.lines}
        done = {(row["dataset"], row["method"]) for row in found.rows if row["table"] == number and "accuracy" in row}
        assert done == {(dataset, method) for dataset, method in shown if method not in _SLOW}


@pytest.mark.slow
def test_every_row_of_the_other_tables_runs(tmp_path, monkeypatch):
    """Tables 1, 3 and 4, with fewer texts: order is not judged."""
    monkeypatch.setitem(_SMALL, "n_draws", 1)
    for loader in ("helpsteer2", "rpr"):
        monkeypatch.setitem(_STAND_INS, loader, 600)
    ran(reproduce_paper(tmp_path, Plan((1, 3, 4), small=True)), (1, 3, 4))


@pytest.mark.slow
def test_a_rehearsal_recovers_the_planted_order(tmp_path, monkeypatch):
    monkeypatch.setitem(_SMALL, "n_draws", 1)
    found = reproduce_paper(tmp_path, Plan((2, 6, 7), small=True))
    ran(found, (2, 7))
    figures = {(row["table"], row["dataset"], row["method"]): row for row in found.rows if not row.get("attribute")}

    def accuracy(table, dataset, method):
        return figures[table, dataset, method]["accuracy"]

    for dataset in ("helpsteer2", "rpr"):
        of = {line.method: accuracy(2, dataset, line.method) for line in _lines(2, dataset)}
        # A method that sees neither context nor user cannot tell attributes apart; a router can, from 50 labels.
        assert of["micro"] > max(of["single"], of["static"], of["ensemble-best"], of["hyre"]) + 0.05
        assert of["oracle"] >= max(value for name, value in of.items() if name != "oracle") - 0.02
    # Ratings are of the very attributes of HelpSteer2, but not of those of RPR.
    assert accuracy(2, "helpsteer2", "multi-objective") > accuracy(2, "helpsteer2", "micro") - 0.02
    assert accuracy(2, "rpr", "multi-objective") < accuracy(2, "rpr", "micro-history") - 0.02
    assert accuracy(7, "prism", "micro-history") > accuracy(7, "prism", "single") + 0.05
    again = reproduce_paper(tmp_path, Plan((2,), small=True))
    assert again.n_run == 0
    assert {path.name for path in found.files} == {"paper.md", "paper.html", "paper.csv"}
    page = (tmp_path / "paper.md").read_text(encoding="utf-8")
    assert "No figure here says anything about the published sets" in page
    assert "Left out, because it is slow: HelpSteer2: MiCRo, annotators known, router of 128 units; RPR: MiCRo" in page


def _lines(number, dataset):
    lines = next(part.lines for part in TABLES[number].parts if part.dataset == dataset)
    return [line for line in lines if line.method not in _SLOW]
