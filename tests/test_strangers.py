"""Models from strangers: right checksums over whatever they like give a ModelFileError or finite answers."""

from __future__ import annotations

import os
import resource
import time
import warnings
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from baseline_cases import C, D
from stranger_cases import MAKE, USERS, Altered, _column, alter, comparisons, written

from micropref import PreferenceModel, load, save
from micropref.embed._template import Template
from micropref.persistence import ModelFileError

EACH = 90
SLOW_SEEDS = range(EACH, 2 * EACH + 1000)
MOST_SECONDS, MOST_BYTES = 20.0, 300 << 20
X = np.random.default_rng(5).normal(size=(4, C + D))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("strangers")
    return cache(lambda name: written(name, root / name.replace(" ", "-").replace(",", "")))


def answers(folder: Path, name: str) -> list[np.ndarray]:
    if name.startswith("texts"):
        model = PreferenceModel.load(folder)
        return [model.log_odds(comparisons().labelled[:6])]
    model = load(folder)
    width = model.n_features_in_
    rows = X[:, -width:] if width <= X.shape[1] else np.hstack([X] * 8)[:, :width]
    if name == "interactions":
        return [model.transform(rows)]
    if hasattr(model, "feature_names_in_"):
        del model.feature_names_in_
    found = [model.decision_function(rows), model.predict_proba(rows)]
    if name.startswith(("mixture", "hier")):
        return [*found, model.mixture_weights(rows)]
    return [*found, *(model.decision_function(rows, groups=_column([user], 4)) for user in USERS)]


def outcome(folder: Path, name: str, what: str) -> bool:
    """Whether a model came; a failure for any other error, for answers that are not finite, and for a hang."""
    begun = time.perf_counter()
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            found = answers(folder, name)
    except ModelFileError:
        return False
    except Exception as error:
        raise AssertionError(f"{name}: {what}") from error
    finally:
        assert time.perf_counter() - begun < MOST_SECONDS, (name, what)
    assert all(np.isfinite(each).all() for each in found), (name, what)
    return True


def attack(name: str, folder, where: Path, seeds: range) -> tuple[int, int]:
    original = Altered(folder(name))
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    came = 0
    for seed in seeds:
        model = original.copy()
        what = alter(model, np.random.default_rng(seed))
        came += outcome(model.write(where / "model"), name, f"seed {seed}: {what}")
    grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - most)
    assert grown < MOST_BYTES, name
    return came, len(seeds) - came


@pytest.mark.parametrize("name", MAKE)
def test_an_altered_model_is_refused_or_answers(name, folder, tmp_path):
    assert outcome(folder(name), name, "as it was saved")
    came, refused = attack(name, folder, tmp_path, range(EACH))
    assert came > 2
    assert refused > EACH / 4


def test_there_are_enough_attacks():
    assert len(MAKE) * EACH >= 2000


@pytest.mark.slow
@pytest.mark.parametrize("name", MAKE)
def test_many_altered_models_are_refused_or_answer(name, folder, tmp_path):
    attack(name, folder, tmp_path, SLOW_SEEDS)


# ------------------------------------------------------------------------------------------------ attacks with a name


def refused(model: Altered, where: Path, match: str, reader=load) -> None:
    with pytest.raises(ModelFileError, match=match):
        reader(model.write(where / "model"))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
@pytest.mark.parametrize("name", ["mixture", "router, scatter", "UserRewards", "ContextNeighbors"])
def test_numbers_that_are_none_are_refused_by_the_name_of_their_tensor(name, value, folder, tmp_path):
    original = Altered(folder(name))
    for tensor, array in original.arrays.items():
        if array.dtype.kind == "f" and array.size:
            model = original.copy()
            model.arrays[tensor] = array.copy()
            with np.errstate(over="ignore"):
                model.arrays[tensor].reshape(-1)[-1] = value
            refused(model, tmp_path, rf"{tensor.replace('.', '.')}.*expected finite numbers")


def test_coefficients_out_of_all_proportion_to_votes_are_refused(folder, tmp_path):
    """Squares of their products would leave double precision for users whom loading does not ask about."""
    for name in ("MeanVarianceRewards", "UserRewards", "HardMixture"):
        model = Altered(folder(name))
        model.arrays["coef"] = np.full_like(model.arrays["coef"], 1e200)
        refused(model, tmp_path, "coef: expected a tensor whose products with the values of votes")


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_a_model_that_would_be_refused_is_not_saved(value, folder, tmp_path):
    """The one that is there stays."""
    where = Altered(folder("mixture")).write(tmp_path / "model")
    before = load(where)
    model = load(where)
    model.coef_ = np.full_like(model.coef_, value)
    with pytest.raises(ModelFileError, match="coef: expected finite numbers"):
        save(model, where)
    np.testing.assert_array_equal(load(where).coef_, before.coef_)


def test_a_pipe_in_the_place_of_a_description_is_replaced_by_a_save(folder, tmp_path):
    model = load(folder("mixture"))
    (tmp_path / "model").mkdir()
    os.mkfifo(tmp_path / "model" / "model.json")
    save(model, tmp_path / "model")
    np.testing.assert_array_equal(load(tmp_path / "model").coef_, model.coef_)


@pytest.mark.parametrize("name", ["factors", "scale"])
@pytest.mark.parametrize("value", [1e200, 1e60, -1e249])
def test_users_who_spread_beyond_the_range_of_squares_are_refused(name, value, folder, tmp_path):
    model = Altered(folder("MeanVarianceRewards"))
    model.arrays[name] = np.full_like(model.arrays[name], value)
    assert not outcome(model.write(tmp_path / "model"), "MeanVarianceRewards", f"{name} {value:g}")


@pytest.mark.parametrize("file", ["/etc/passwd", "../model.json", "model.json", "a/tensors.safetensors", "", 7, None])
def test_tensors_outside_of_the_folder_are_not_opened(file, folder, tmp_path):
    model = Altered(folder("mixture"))
    model.description["tensors"]["file"] = file
    refused(model, tmp_path, r"model\.json: expected tensors\.file like tensors-")


@pytest.mark.parametrize("which", ["model.json", "tensors"])
@pytest.mark.parametrize("kind", ["link", "pipe", "device", "folder", "hard link of a device"])
def test_what_is_no_regular_file_is_not_opened(which, kind, folder, tmp_path):
    where = Altered(folder("mixture")).write(tmp_path / "model")
    path = where / which if which == "model.json" else next(where.glob("tensors-*"))
    content = path.read_bytes()
    path.unlink()
    if kind == "link":
        (tmp_path / "elsewhere").write_bytes(content)
        path.symlink_to(tmp_path / "elsewhere")
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero" if kind == "device" else "/dev/full")
    with pytest.raises(ModelFileError, match=rf"{path.name}: expected a regular file of a model, got"):
        load(where)


@pytest.mark.parametrize("which", ["model.json", "tensors"])
def test_a_file_without_an_end_is_not_read(which, folder, tmp_path):
    where = Altered(folder("mixture")).write(tmp_path / "model")
    path = where / which if which == "model.json" else next(where.glob("tensors-*"))
    os.truncate(path, 1 << 40)  # with holes: it takes no room
    with pytest.raises(ModelFileError, match=r"expected a file of at most \d+ bytes, got one of 1099511627776"):
        load(where)


@pytest.mark.parametrize(
    ("path", "value", "match"),
    [
        (("classes", "dtype"), "|S2000000000", r"classes\.dtype: expected a type of labels"),
        (("classes", "dtype"), "<U2000000000", r"classes\.dtype: expected a type of labels"),
        (("classes", "values"), [0, 0], r"classes\.values: expected two labels"),
        (("classes", "values"), ["a" * 100_000, "b"], r"classes\.values: expected two labels"),
        (("classes",), None, r"classes: expected an object"),
        (("state", "predict_proba"), 7, r"state: expected no other entries than .*, got 'predict_proba'"),
        (("state", "__class__"), "x", r"state: expected no other entries than .*, got '__class__'"),
        (("state", "coef_"), [1.0], r"state: expected no other entries than .*, got 'coef_'"),
        (("state", "n_iter_"), "many", r"state\.n_iter_: expected an integer"),
        (("state", "n_iter_"), True, r"state\.n_iter_: expected an integer"),
        (("state", "objective_"), float("nan"), r"state\.objective_: expected a finite number"),
        (("state", "n_features_in_"), 10**12, r"coef: expected a tensor of shape"),
        (("parameters", "predict"), 1, r"parameters: expected no other entries .*, got 'predict'"),
        (("parameters", "alpha"), "much", r"alpha: expected a number"),
        (("parameters", "device"), "../../x", r"parameters\.device: expected a value"),
        (("parameters_since",), {"fit": 1}, r"parameters_since: expected no other entries .*, got 'fit'"),
        (("feature_names",), ["a"], r"feature_names: expected a list of"),
        (("evil",), 1, r"MixtureBradleyTerry: expected no other entries .*, got 'evil'"),
        (("estimator",), "os.system", r"expected one of MixtureBradleyTerry, .*, got 'os\.system'"),
        (("estimator",), ["x"], r"expected one of MixtureBradleyTerry"),
    ],
)
def test_an_odd_entry_is_named(path, value, match, folder, tmp_path):
    model = Altered(folder("mixture"))
    holder = model.description
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = value
    refused(model, tmp_path, match)


@pytest.mark.parametrize("entry", ["estimator", "parameters", "classes", "feature_names", "state", "tensors"])
def test_a_missing_entry_is_named(entry, folder, tmp_path):
    model = Altered(folder("mixture"))
    del model.description[entry]
    refused(model, tmp_path, "estimator" if entry == "estimator" else entry)


@pytest.mark.parametrize(
    ("path", "value", "match"),
    [
        (("template",), "{response:>1000000000}", r"encoder: expected a template with"),
        (("template",), "{response.__class__}", r"encoder: expected a template with"),
        (("template",), "{response!r}", r"encoder: expected a template with"),
        (("encoder", "params", "n_features"), 10**12, r"n_features: expected 8, the width"),
        (("encoder", "params", "n_hashes"), 10**12, r"n_hashes: expected an integer of at most"),
        (("encoder", "params", "ngram_range"), [1, 10**9], r"ngram_range: expected a parameter"),
        (("encoder", "params", "trust_remote_code"), True, r"encoder: .*"),
        (("encoder", "kind"), "pickle", r"encoder: expected an encoder of the kind"),
        (("scale", "response"), float("nan"), r"scale\.response: expected a finite number"),
        (("context_parts",), {"prompt": 10**12}, r"context_parts\.prompt: expected 8 columns"),
        (("vector_width",), 10**12, r"encoder"),
        (("evil",), 1, r"encoder: expected no other entries"),
    ],
)
def test_an_odd_entry_of_an_encoder_is_named(path, value, match, folder, tmp_path):
    model = Altered(folder("texts"))
    holder = model.description["encoder"]
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = value
    refused(model, tmp_path, match, PreferenceModel.load)


def test_an_entry_that_stands_twice_is_refused(folder, tmp_path):
    where = Altered(folder("mixture")).write(tmp_path / "model")
    text = (where / "model.json").read_text()
    (where / "model.json").write_text(text.replace("{", '{\n "estimator": "UserRewards",', 1))
    with pytest.raises(ModelFileError, match="was altered"):
        load(where)


def test_a_template_has_no_formats():
    with pytest.raises(ValueError, match="expected a template with"):
        Template("{response:>10}")
    assert Template("{prompt}: {{x}} {response}").fill(["a"], ["b"]) == ["a: {x} b"]
