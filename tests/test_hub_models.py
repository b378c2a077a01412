"""Models of texts on the Hub: huggingface_hub's own client against a server on 127.0.0.1."""

from __future__ import annotations

import json
import os
import pickle
import socket
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import yaml
from server_cases import HubServer, point_client_to, running

from micropref import ContextRouter, PreferenceModel
from micropref.embed import HTTPEncoder, PairEncoder, SentenceTransformerEncoder
from micropref.persistence import ModelFileError

ROOT = Path(__file__).parents[1]
REPO = "someone/short-or-long"
USERS = ["zz-user-anna", "zz-user-ben", 7_654_321, ("zz-team", 9)]
ROWS = [
    {
        "prompt": f"question {i}",
        "chosen": f"a short answer {i}" if i % 2 else f"a long and winding answer {i}, by the way",
        "rejected": f"a long and winding answer {i}, by the way" if i % 2 else f"a short answer {i}",
        "group": f"zz-annotator-{i % 8}",
    }
    for i in range(64)
]
LABELLED = [
    {**row, "group": None, "context": ("keep it short", "tell me more")[1 - i % 2]} for i, row in enumerate(ROWS)
]
VOTES = [{**row, "group": user, "context": ""} for i, user in enumerate(USERS) for row in ROWS[i : 12 : i + 1]]
STAGES = ["one", "heads", "hierarchical"]


@pytest.fixture(scope="module")
def models() -> dict[str, PreferenceModel]:
    """One of every first stage, with a router that knows users."""
    made = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for stage in STAGES:
            n_components = 1 if stage == "one" else 2
            model = PreferenceModel.fit(ROWS, users=stage, n_components=n_components, random_state=0)
            made[stage] = model.route(LABELLED).route(VOTES)
    return made


@pytest.fixture
def model(models) -> PreferenceModel:
    return models["heads"]


@pytest.fixture
def large() -> bool:
    """Whether tensors are uploaded as large files."""
    return False


@pytest.fixture
def hub(large, monkeypatch, tmp_path):
    """A Hub, to which the client is pointed."""
    from huggingface_hub import constants

    with running(HubServer(large=large)) as server:
        point_client_to(server.root, server.token, monkeypatch, tmp_path)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", large)
        yield server


@pytest.fixture
def no_patience(monkeypatch):
    """The client asks again at once."""
    from huggingface_hub.utils import _http

    monkeypatch.setattr(_http.time, "sleep", lambda seconds: None)


def log_odds(model: PreferenceModel) -> np.ndarray:
    return model.log_odds(VOTES)


# --------------------------------------------------------------------------------------------------------- round trips


@pytest.mark.parametrize("large", [False, True], ids=["in the commit", "LFS"])
@pytest.mark.parametrize("stage", STAGES)
def test_a_model_comes_back_as_it_went(models, stage, hub):
    model = models[stage]
    url = model.push_to_hub(REPO, include_users=True)
    assert url.startswith(f"{hub.root}/{REPO}/commit/")
    back = PreferenceModel.from_pretrained(REPO)
    np.testing.assert_array_equal(log_odds(back), log_odds(model))
    files = hub.files(REPO)
    assert sorted(name.partition("-")[0] for name in files) == ["README.md", "config.json", "model.json", "tensors"]
    assert json.loads(files["config.json"])["library_name"] == "micropref"
    assert not any(content.startswith(b"\x80") for content in files.values())  # no pickle


def test_the_client_is_pointed_by_its_own_variables(tmp_path):
    """In a process of its own, where nothing is patched."""
    code = f"""
import warnings
warnings.simplefilter("ignore")
from micropref import PreferenceModel
rows = {ROWS!r}
model = PreferenceModel.fit(rows, n_components=2, random_state=0)
model.push_to_hub("{REPO}", private=True, data="words")
back = PreferenceModel.from_pretrained("{REPO}")
print(bool((back.log_odds(rows) == model.log_odds(rows)).all()))
"""
    with running(HubServer(large=True)) as server:
        settings = {"HF_ENDPOINT": server.root, "HF_HOME": str(tmp_path), "HF_TOKEN": server.token}
        settings |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0"}
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=False,
            cwd=ROOT,
            env=os.environ | settings,
        )
        assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr
        assert server.repos[REPO]["private"]
        assert any(path.startswith("/lfs/") for method, path in server.log if method == "PUT")


def test_revisions(models, hub):
    models["one"].push_to_hub(REPO)
    first = hub.tag(REPO, "v1")
    models["heads"].push_to_hub(REPO)
    for revision, n_components in (("v1", 1), (first, 1), (None, 2), ("main", 2)):
        found = PreferenceModel.from_pretrained(REPO, revision=revision)
        assert len(found.mixture.coef_) == n_components, revision
    with pytest.raises(FileNotFoundError, match=f"^{REPO}: expected a branch, tag or commit, got 'v9', none of them$"):
        PreferenceModel.from_pretrained(REPO, revision="v9")
    with pytest.raises(FileNotFoundError, match=r"expected a branch, tag or commit, got 'next'"):
        models["one"].push_to_hub(REPO, branch="next")


def test_tensors_of_the_model_before_go(models, hub):
    for stage in ("one", "heads"):
        models[stage].push_to_hub(REPO)
        assert sum(name.startswith("tensors-") for name in hub.files(REPO)) == 1


def test_a_folder_is_loaded_without_any_network(model, tmp_path):
    model.save_pretrained(tmp_path / "model")
    back = PreferenceModel.from_pretrained(tmp_path / "model")
    np.testing.assert_array_equal(back.log_odds(LABELLED), model.log_odds(LABELLED))
    np.testing.assert_array_equal(
        PreferenceModel.load(str(tmp_path / "model")).log_odds(LABELLED), back.log_odds(LABELLED)
    )
    model.save(tmp_path / "saved")
    np.testing.assert_array_equal(log_odds(PreferenceModel.from_pretrained(str(tmp_path / "saved"))), log_odds(model))


def test_encoder_and_store_of_ones_own(model, hub, tmp_path):
    model.push_to_hub(REPO)
    back = PreferenceModel.from_pretrained(REPO, encoder="hashing", store=tmp_path / "store")
    assert back.encoder.store is not None
    np.testing.assert_array_equal(back.log_odds(LABELLED[:4]).round(1), model.log_odds(LABELLED[:4]).round(1))


# -------------------------------------------------------------------------------------------------------------- users


def traces(model: PreferenceModel) -> list[bytes]:
    """Bytes in which a user would be found: ids, and what their votes say, in either precision."""
    ids, values = model.router.history_.export()
    found = [str(part).encode() for user in ids for part in (user if isinstance(user, tuple) else (user,))]
    found.remove(b"9")  # one digit is everywhere
    numbers = values[values != 0]
    assert len(numbers) >= len(ids)
    for dtype in ("<f4", "<f8"):
        found += [number.tobytes() for number in numbers.astype(dtype)]
    pairs = model.router.history_.export_answered()["pairs"]
    return found + [pair.tobytes() for pair in pairs]


@pytest.mark.parametrize("stage", ["heads", "hierarchical"])
@pytest.mark.parametrize("include_users", [False, True])
def test_users_are_written_only_if_asked_for(models, stage, include_users, hub, tmp_path):
    model = models[stage]
    # Rows of subsets have users, and texts, for names.
    metrics = model.evaluate(VOTES, by="group")
    model.push_to_hub(REPO, include_users=include_users, metrics=metrics)
    model.save_pretrained(tmp_path / "folder", include_users=include_users, metrics=metrics)
    on_disk = b"\n".join(path.read_bytes() for path in sorted((tmp_path / "folder").iterdir()))
    for content in (b"\n".join(hub.files(REPO).values()), on_disk):
        found = [trace for trace in traces(model) if trace in content]
        assert bool(found) == include_users, found
        assert b"zz-annotator" not in content
    back = PreferenceModel.from_pretrained(REPO)
    assert len(back.router.history_) == (len(USERS) if include_users else 0)
    stranger = [{**row, "group": "another"} for row in VOTES]
    np.testing.assert_array_equal(back.log_odds(stranger), model.log_odds(stranger))
    if not include_users:
        np.testing.assert_array_equal(log_odds(back), model.log_odds(stranger))
        assert back.route(VOTES).router.history_.scatter is not None or stage == "heads"


def test_a_model_that_was_pushed_keeps_its_users(model, hub):
    before = log_odds(model)
    model.push_to_hub(REPO)
    np.testing.assert_array_equal(log_odds(model), before)


# --------------------------------------------------------------------------------------------------------------- card


def card_of(model, tmp_path, **notes) -> tuple[dict, str]:
    model.save_pretrained(tmp_path / "model", **notes)
    _, metadata, text = (tmp_path / "model" / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    return yaml.safe_load(metadata), text


def test_the_card_says_what_the_model_is(model, tmp_path):
    metrics = model.evaluate(ROWS)
    data = "Sixty-four rows of words; CC0."
    metadata, text = card_of(model, tmp_path, data=data, metrics=metrics, license="apache-2.0")
    assert metadata["library_name"] == "micropref"
    assert metadata["license"] == "apache-2.0"
    assert {"micropref", "reward-model"} <= set(metadata["tags"])
    assert "K = 2, fitted by `MixtureBradleyTerry`" in text
    for head, weight in enumerate(model.mixture.weights_, start=1):
        assert f"| {head} | {weight:.3f} |" in text
    assert data in text
    assert f"| {metrics[0]['method']} | {metrics[0]['n']} | {metrics[0]['accuracy']:.3f} [" in text
    assert model.encoder.fingerprint_ in text
    assert "may not be used for" in text
    assert "to decide about people" in text
    assert "These files contain no users" in text
    assert "bsd-3-clause (hashing" in text


def test_the_card_leaves_scores_of_subsets_out(model, tmp_path):
    metrics = model.evaluate(VOTES, by="group")
    _, text = card_of(model, tmp_path, metrics=metrics)
    assert len(metrics) > 3
    methods = [line.split(" | ")[0] for line in text.splitlines() if " [" in line]
    assert methods == ["| mixture", "| routed", "| history"]


def test_the_card_of_a_model_of_which_nothing_is_said(models, tmp_path):
    metadata, text = card_of(models["hierarchical"], tmp_path)
    assert "license" not in metadata
    assert "Not stated by the maker" in text
    assert "## Metrics\n\nNot stated." in text
    assert "Every user has a reward of their own around a head" in text


def test_the_card_warns_of_users(model, tmp_path):
    _, text = card_of(model, tmp_path, include_users=True)
    assert f"These files contain the ids of {len(USERS)} users, and what their votes reveal about them" in text


def test_a_card_that_is_there_stays(model, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "README.md").write_text("mine")
    model.save_pretrained(tmp_path / "model")
    assert (tmp_path / "model" / "README.md").read_text() == "mine"
    model.save_pretrained(tmp_path / "model")
    assert (tmp_path / "model" / "README.md").read_text() == "mine"


def test_a_card_of_an_earlier_model_goes(model, tmp_path):
    _, text = card_of(model, tmp_path, data="überholt\r\n")
    assert "These files contain no users" in text
    _, text = card_of(model, tmp_path, include_users=True)
    assert f"the ids of {len(USERS)} users" in text
    assert "überholt" not in text
    card = tmp_path / "model" / "README.md"
    card.write_text(card.read_text(encoding="utf-8") + "\nRead this first.\n", encoding="utf-8")
    _, text = card_of(model, tmp_path)
    assert text.endswith("Read this first.\n")


@pytest.mark.parametrize("config", ["", "[1]", "{", '{"card_sha256": 3}', "\xff"])
def test_a_config_of_something_else_is_replaced(model, config, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text(config, encoding="latin-1")
    (tmp_path / "model" / "README.md").write_text("mine")
    model.save_pretrained(tmp_path / "model")
    assert (tmp_path / "model" / "README.md").read_text() == "mine"
    assert json.loads((tmp_path / "model" / "config.json").read_text())["library_name"] == "micropref"


def with_encoder(encoder) -> PairEncoder:
    pair_encoder = PairEncoder("hashing").fit(ROWS)
    pair_encoder.encoder_ = encoder
    return pair_encoder


@pytest.mark.parametrize(
    ("written", "license"), [("license: mit\n", "mit"), ("tags: []\n", None), ("license: [", None)]
)
def test_the_licence_of_an_encoder_is_read_from_its_card(written, license, tmp_path):
    from micropref._reward.card import encoder_license

    (tmp_path / "README.md").write_text(f"---\n{written}---\n# A model\n")
    assert encoder_license(with_encoder(SentenceTransformerEncoder(str(tmp_path)))) == license


def test_a_licence_that_is_not_known_asks_to_be_checked(model, tmp_path):
    from micropref._reward.card import CardNotes, card_of, encoder_license

    server = with_encoder(HTTPEncoder("http://127.0.0.1:1", "m"))
    assert encoder_license(server) is None
    assert encoder_license(with_encoder(SentenceTransformerEncoder("someone/not-in-the-cache"))) is None
    unknown = PreferenceModel(model.encoder, model.mixture)
    unknown.encoder.encoder_ = server.encoder_
    text = card_of(unknown, CardNotes(), repo_id=None, n_users=0)
    assert "| licence | unknown, check |" in text
    assert "| licence | mit |" in card_of(unknown, CardNotes(encoder_license="mit"), repo_id=None, n_users=0)


# ------------------------------------------------------------------------------------------------------------ failures


def one_sentence(error: BaseException) -> str:
    text = str(error)
    assert "\n" not in text
    assert len(text) < 300
    assert "hf_secret" not in text
    return text


def test_a_repository_that_is_not_there(hub):
    with pytest.raises(FileNotFoundError, match=r"^someone/else: expected a repository of the Hub, got none"):
        PreferenceModel.from_pretrained("someone/else")


def test_a_private_repository_without_a_token(model, hub, monkeypatch):
    model.push_to_hub(REPO, private=True)
    assert len(PreferenceModel.from_pretrained(REPO, token=hub.token).mixture.coef_) == 2
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(PermissionError, match=r"got status 401 and no token; if it exists, pass token=") as error:
        PreferenceModel.from_pretrained(REPO, cache_dir=hub.root.replace("/", "_"))
    one_sentence(error.value)
    with pytest.raises(PermissionError, match=r"expected a token that may do this, got status 401") as error:
        PreferenceModel.from_pretrained(REPO, token="hf_wrong", cache_dir="other")
    assert "hf_wrong" not in one_sentence(error.value)


def test_a_push_without_a_token(model, hub, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(PermissionError, match="status 401 and no token") as error:
        model.push_to_hub(REPO)
    one_sentence(error.value)
    assert hub.repos == {}
    with pytest.raises(PermissionError, match="expected a token of the Hub, got none"):
        PreferenceModel.from_pretrained(REPO, token=True)


def test_a_push_with_a_token_that_may_only_read(model, hub):
    model.push_to_hub(REPO)
    create, hub.create = hub.create, lambda request, asked: request.reply({"url": f"{hub.root}/{REPO}"})
    with pytest.raises(PermissionError, match="expected a token that may do this, got status 403") as error:
        model.push_to_hub(REPO, token="hf_reader", data="another text")
    one_sentence(error.value)
    hub.create = create


@pytest.mark.parametrize("name", ["bad name!", "a/b/c", "-x", "http://example.org/model"])
def test_a_name_that_is_none(name):
    with pytest.raises(ValueError, match="expected a folder, or a repository as 'owner/name', got"):
        PreferenceModel.from_pretrained(name)


def test_a_repository_of_something_else(model, hub):
    model.push_to_hub(REPO)
    files = hub.files(REPO)
    for name in [name for name in files if name != "config.json"]:
        del files[name]
    with pytest.raises(FileNotFoundError, match=f"^{REPO}") as error:
        PreferenceModel.from_pretrained(REPO)
    one_sentence(error.value)


@pytest.mark.parametrize("damage", ["altered", "no JSON", "no tensors", "an estimator"])
def test_a_wrong_file(model, hub, damage, tmp_path):
    model.push_to_hub(REPO)
    files = hub.files(REPO)
    tensors = next(name for name in files if name.startswith("tensors-"))
    if damage == "altered":
        files[tensors] = files[tensors][:-1] + b"x"
    elif damage == "no JSON":
        files["model.json"] = b"<html>"
    elif damage == "no tensors":
        del files[tensors]
    else:
        from micropref.persistence import save

        save(model.mixture, tmp_path / "estimator")
        del files[tensors]
        files.update({path.name: path.read_bytes() for path in (tmp_path / "estimator").iterdir()})
    with pytest.raises(ModelFileError, match=f"^{REPO}.*: expected") as error:
        PreferenceModel.from_pretrained(REPO)
    assert len(str(error.value)) < 300


def test_a_config_of_a_stranger_changes_nothing(model, hub):
    """The mixin hands what it says to the constructor of whatever is loaded."""
    model.push_to_hub(REPO)
    hub.files(REPO)["config.json"] = json.dumps({"load": "os.system", "token": "x", "write": 1, "args": [1]}).encode()
    assert len(PreferenceModel.from_pretrained(REPO).mixture.coef_) == 2


def test_a_hub_that_is_down(model, hub, no_patience):
    hub.status = 500
    with pytest.raises(ConnectionError, match=r"answer of the Hub at .*, got none \(status 500\), and") as error:
        PreferenceModel.from_pretrained(REPO)
    one_sentence(error.value)
    with pytest.raises(OSError, match="expected the Hub to answer, got status 500") as error:
        model.push_to_hub(REPO)
    one_sentence(error.value)


def test_no_hub_at_all(model, hub, monkeypatch, tmp_path, no_patience):
    with socket.create_server(("127.0.0.1", 0)) as free:
        nowhere = f"http://127.0.0.1:{free.getsockname()[1]}"
    point_client_to(nowhere, hub.token, monkeypatch, tmp_path)
    with pytest.raises(ConnectionError, match=f"expected an answer of the Hub at {nowhere}, got none") as error:
        PreferenceModel.from_pretrained(REPO)
    one_sentence(error.value)
    with pytest.raises(ConnectionError, match=f"expected an answer of the Hub at {nowhere}, got none") as error:
        model.push_to_hub(REPO)
    one_sentence(error.value)


@pytest.mark.parametrize("how", ["local_files_only", "HF_HUB_OFFLINE", "no connection"])
def test_the_cache_serves_without_a_network(model, hub, how, monkeypatch, tmp_path, no_patience):
    from huggingface_hub import constants

    model.push_to_hub(REPO, include_users=True)
    PreferenceModel.from_pretrained(REPO)
    settings = {"local_files_only": True} if how == "local_files_only" else {}
    if how == "HF_HUB_OFFLINE":
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    if how == "no connection":
        with socket.create_server(("127.0.0.1", 0)) as free:
            point_client_to(f"http://127.0.0.1:{free.getsockname()[1]}", hub.token, monkeypatch, tmp_path)
    n_asked = len(hub.log)
    np.testing.assert_array_equal(log_odds(PreferenceModel.from_pretrained(REPO, **settings)), log_odds(model))
    assert len(hub.log) == n_asked
    wrong = ConnectionError if how == "no connection" else FileNotFoundError
    with pytest.raises(wrong, match="expected") as error:
        PreferenceModel.from_pretrained(REPO, cache_dir=tmp_path / "empty", **settings)
    one_sentence(error.value)


def test_without_huggingface_hub(model, tmp_path, monkeypatch):
    from micropref._reward import hub_client

    hub_client._class.cache_clear()
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    for call in (
        lambda: model.save_pretrained(tmp_path / "model"),
        lambda: model.push_to_hub(REPO),
        lambda: PreferenceModel.from_pretrained(REPO),
    ):
        with pytest.raises(ImportError, match=r"needs huggingface_hub, .* pip install 'micropref\[hub\]'"):
            call()
    model.save(tmp_path / "plain")
    assert len(PreferenceModel.from_pretrained(tmp_path / "plain").mixture.coef_) == 2


# ------------------------------------------------------------------------------------------------------------- forget


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("user", USERS, ids=str)
def test_a_user_is_forgotten_without_a_trace(models, stage, user, tmp_path):
    model = pickle.loads(pickle.dumps(models[stage]))
    model.save(tmp_path / "model")
    before, stranger = log_odds(model), model.log_odds([{**row, "group": "another"} for row in VOTES])
    assert model.forget(user) is model
    after = log_odds(model)
    theirs = np.array([row["group"] == user for row in VOTES])
    np.testing.assert_array_equal(after[~theirs], before[~theirs])
    np.testing.assert_array_equal(after[theirs], stranger[theirs])
    if stage != "one":
        assert (before[theirs] != after[theirs]).any()
    others = [other for other in USERS if other != user]
    assert model.router.history_.export()[0] == others
    for other in others:
        kept, expected = (one.router.history_.answered_by(other) for one in (model, models[stage]))
        np.testing.assert_array_equal(kept, expected)
        assert len(kept)
    assert len(model.router.history_.answered_by(user)) == 0
    model.save(tmp_path / "model")
    name = str(user[0] if isinstance(user, tuple) else user).encode()
    files = b"".join(path.read_bytes() for path in (tmp_path / "model").iterdir())
    for content in (pickle.dumps(model), files):
        assert name not in content
    again = PreferenceModel.load(tmp_path / "model")
    np.testing.assert_array_equal(log_odds(again), after)
    with pytest.raises(KeyError, match="expected a user who has voted, got"):
        model.forget(user)
    # And who votes again is a user like any other.
    votes = [row for row in VOTES if row["group"] == user]
    np.testing.assert_allclose(model.route(votes).log_odds(votes), before[theirs], rtol=1e-5)


def test_what_a_copy_knew_it_knows(model):
    """A thread that serves from the router of before is not disturbed."""
    other = pickle.loads(pickle.dumps(model))
    router, before = other.router, log_odds(other)
    other.forget(USERS[0])
    assert USERS[0] in router.history_
    np.testing.assert_array_equal(router.history_.export()[1], model.router.history_.export()[1])
    assert (log_odds(other) != before).any()


@pytest.mark.parametrize("user", ["nobody-we-know", None, 8, "7654321 ", ("zz-team", 8)])
def test_a_user_who_is_not_known(model, user):
    before = log_odds(model)
    with pytest.raises(KeyError, match=r"expected a user who has voted, got .*, who has no votes in this model"):
        model.forget(user)
    np.testing.assert_array_equal(log_odds(model), before)
    with pytest.raises(KeyError, match="this model has taken in no votes yet"):
        PreferenceModel(model.encoder, model.mixture).forget(user)


@pytest.mark.parametrize("first", ["mixture", "hierarchical"])
def test_a_stream_of_both_stages_forgets_its_annotators(first):
    from micropref import HierarchicalBradleyTerry, MixtureBradleyTerry

    rng = np.random.default_rng(0)
    X, groups = rng.normal(size=(36, 2)), np.array(["zz-anna", "ben", "cleo"] * 12)
    stage = (
        MixtureBradleyTerry(2, random_state=0) if first == "mixture" else HierarchicalBradleyTerry(2, random_state=0)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        router = ContextRouter(stage, prefit=False, random_state=0).partial_fit(X, groups=groups)
        router.partial_fit(X, groups=groups)
    assert b"zz-anna" in pickle.dumps(router.mixture_)
    before = router.decision_function(X, groups=groups)
    router.forget("zz-anna")
    assert b"zz-anna" not in pickle.dumps(router)
    others = groups != "zz-anna"
    np.testing.assert_array_equal(router.decision_function(X, groups=groups)[others], before[others])
    with pytest.raises(KeyError):
        router.forget("zz-anna")
    router.partial_fit(X[others], groups=groups[others])


def test_a_folder_in_the_place_of_a_file_is_no_tensor(model, tmp_path):
    from micropref._reward.hub_client import _from_snapshot

    model.save(tmp_path)
    (tensors,) = tmp_path.glob("tensors-*")
    tensors.unlink()
    tensors.mkdir()
    with pytest.raises(ModelFileError, match="you/words"):
        _from_snapshot(tmp_path, "you/words", PreferenceModel.load)


def test_an_encoder_that_is_not_there_is_not_the_model_that_is_not_there(model, tmp_path, monkeypatch):
    from types import SimpleNamespace

    from huggingface_hub.errors import LocalEntryNotFoundError

    from micropref._reward import hub_client

    def load(folder):
        raise LocalEntryNotFoundError("the encoder")

    model.save(tmp_path)
    found = SimpleNamespace(from_pretrained=lambda name, **_: SimpleNamespace(snapshot=tmp_path))
    monkeypatch.setattr(hub_client, "_class", lambda: found)
    with pytest.raises(LocalEntryNotFoundError, match=r"^the encoder$"):
        hub_client.downloaded(REPO, load, {})
