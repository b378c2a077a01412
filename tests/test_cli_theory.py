"""`micropref theory` as a person or a script runs it."""

from __future__ import annotations

import contextlib
import json

import numpy as np
import pytest

from micropref.cli import main
from micropref.reward import PreferenceModel
from micropref.theory import estimate_irreducible_error, sweep_error


def run(capsys, *arguments, code=0):
    try:
        main([str(argument) for argument in arguments])
        found = 0
    except SystemExit as left:
        found = left.code or 0
    streams = capsys.readouterr()
    assert found == code, streams.err
    return streams


@pytest.fixture(scope="module")
def model_and_data(tmp_path_factory):
    """Half of the annotators want the word short, half the word long."""
    folder = tmp_path_factory.mktemp("theory")
    rng = np.random.default_rng(0)
    lines = []
    for user in range(80):
        for i in range(5):
            wanted, other = ("short words", "long words") if user % 2 else ("long words", "short words")
            if rng.uniform() < 0.15:
                wanted, other = other, wanted
            line = {"prompt": f"q{i}", "chosen": f"{wanted} {i}", "rejected": f"{other} {i}", "user": f"u{user}"}
            lines.append(json.dumps(line))
    data = folder / "data.jsonl"
    data.write_text("\n".join(lines) + "\n")
    with contextlib.suppress(SystemExit):
        main(["fit", str(data), str(folder / "model"), "-k", "2"])
    return folder / "model", data


def test_a_planted_world(capsys):
    shown = run(capsys, "theory", "--groups", 3).out
    exact = sweep_error("diversity", [1 / 3], n_components=3)
    for value in (exact.terms[0].group_information, exact.bounds[0].theorem_3_2, exact.terms[0].cross_entropy):
        assert f"{value:.4f}" in shown
    assert "hidden group" in shown


@pytest.mark.parametrize("parameter", ["informativeness", "pairs_per_group"])
def test_a_sweep_as_json_and_as_a_figure(parameter, capsys, tmp_path):
    figure = tmp_path / "new" / "terms.png"
    found = json.loads(run(capsys, "theory", "--sweep", parameter, "--json", "-o", figure).out)
    sweep = sweep_error(parameter)
    assert [row["group_information"] for row in found["rows"]] == [t.group_information for t in sweep.terms]
    assert [row[parameter] for row in found["rows"]] == sweep.values.tolist()
    old = [row.get("printed") for row in found["rows"]]  # the key of 0.1
    assert old == [row.get("theorem_3_2") for row in found["rows"]]
    assert (old[0] is not None) == (sweep.bounds is not None)
    assert figure.stat().st_size > 5000
    assert f"{sweep.terms[0].group_information:.4f}" in run(capsys, "theory", "--sweep", parameter).out


def test_ones_own_data(model_and_data, capsys, tmp_path):
    model, data = model_and_data
    figure = tmp_path / "terms.png"
    found = json.loads(run(capsys, "theory", model, data, "--json", "--test", "-o", figure).out)
    fitted = PreferenceModel.load(model)
    X, users, _ = fitted.stage_one_rows(str(data))
    expected = estimate_irreducible_error(fitted.mixture, X, None, users)
    assert found["group_information"] == expected.group_information
    assert found["group_information_interval"] == list(expected.group_information_interval)
    assert found["single_reward_test"]["p_value"] < 0.05
    assert found["identifiability"]["n_groups"] == 80
    assert 0 < found["bounds_of_fit"]["pairwise"] < found["bounds_of_fit"]["information"]
    assert figure.stat().st_size > 5000
    shown = run(capsys, "theory", model, data, "--test", "-o", figure).out
    for text in (f"{expected.group_information:.4f}", expected.advice, "one reward is not enough", str(figure)):
        assert text in shown


def test_who_answered_is_not_known(model_and_data, capsys, tmp_path):
    model, data = model_and_data
    lines = [json.loads(line) for line in data.read_text().splitlines()]
    anonymous = tmp_path / "anonymous.jsonl"
    kept = ({name: value for name, value in line.items() if name != "user"} for line in lines)
    anonymous.write_text("\n".join(json.dumps(line) for line in kept))
    assert "Give groups: the annotator of every row" in run(capsys, "theory", model, anonymous, code=1).err


def test_usage(model_and_data, capsys):
    model, data = model_and_data
    assert "expected MODEL and DATA" in run(capsys, "theory", model, code=2).err
    assert "planted" in run(capsys, "theory", model, data, "--sweep", "diversity", code=2).err
    assert "between 0 and" in run(capsys, "theory", "--diversity", "0.9", code=1).err
