"""HTTPEncoder, against a server on 127.0.0.1 that behaves, and one that does not."""

from __future__ import annotations

import email.utils
import json
import logging
import pickle
import socket
import time
import warnings

import numpy as np
import pytest
from server_cases import EmbeddingServer, running, written
from sklearn.base import clone
from typer.testing import CliRunner

from micropref import PairEncoder, PreferenceModel
from micropref.cli import app
from micropref.embed import (
    EmbeddingServerError,
    EmbeddingStore,
    EncoderMismatchError,
    HTTPEncoder,
    TruncationWarning,
    _embedding_api,
    encoder_config,
    encoder_from_config,
    resolve_encoder,
)

KEY = "sk-a-very-secret-key"
TEXTS = [f"text number {number}, with words" for number in range(10)]
ROWS = [
    {
        "prompt": f"question {i % 3}",
        "chosen": f"a short answer {i}",
        "rejected": f"a long answer, {i}, by the way",
        "group": i % 4,
    }
    for i in range(24)
]


@pytest.fixture
def server():
    with running(EmbeddingServer()) as server:
        yield server


@pytest.fixture
def waits(monkeypatch) -> list[float]:
    """Seconds that were waited between tries, and are not waited here."""
    waited: list[float] = []
    monkeypatch.setitem(_embedding_api.ask.__kwdefaults__, "sleep", waited.append)
    return waited


def encoder_of(server, **parameters) -> HTTPEncoder:
    return HTTPEncoder(server.url, "tiny", **parameters)


def other(content, status=200, headers=None):
    """A reply instead of vectors."""
    return lambda question: (content, status, headers)


def rows_of(*vectors, start=0):
    return [{"index": i, "embedding": list(vector)} for i, vector in enumerate(vectors, start)]


# ------------------------------------------------------------------------------------------------------------ vectors


@pytest.mark.parametrize("encoding_format", ["float", "base64"])
@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_vectors_are_in_the_order_of_the_texts(server, encoding_format, batch_size):
    encoder = encoder_of(server, encoding_format=encoding_format, batch_size=batch_size)
    np.testing.assert_array_equal(encoder.encode(TEXTS), server.vectors(TEXTS))
    assert [len(question["input"]) for question in server.asked] == [
        min(batch_size, len(TEXTS) - start) for start in range(0, len(TEXTS), batch_size)
    ]
    assert {question["encoding_format"] for question in server.asked} == {encoding_format}


@pytest.mark.parametrize("asked", ["float", "base64"])
def test_an_answer_may_come_in_the_other_format(server, asked):
    """Ollama ignores the format that is asked for."""
    vectors = server.vectors(TEXTS)
    given = {"encoding_format": "float" if asked == "base64" else "base64"}
    rows = [{"embedding": written(vector, given)} for vector in vectors]  # without indices: in the order of the texts
    server.instead.append(other({"data": rows}))
    np.testing.assert_array_equal(encoder_of(server, encoding_format=asked).encode(TEXTS), vectors)


def test_blank_texts_are_zeros_and_are_not_sent(server):
    vectors = encoder_of(server).encode(["one", "", "two", " \n"])
    np.testing.assert_array_equal(vectors[[0, 2]], server.vectors(["one", "two"]))
    assert not vectors[[1, 3]].any()
    assert [question["input"] for question in server.asked] == [["one", "two"]]
    assert encoder_of(server).encode([]).shape == encoder_of(server).encode([""])[:0].shape == (0, 16)


def test_prompt_limit_width_and_length(server):
    encoder = encoder_of(server, prompt="query: ", max_characters=4, dimensions=8, normalize=True)
    vectors = encoder.encode(["one", "three words here"])
    expected = server.vectors(["query: one", "query: thre"], 8)
    np.testing.assert_allclose(vectors, expected / np.linalg.norm(expected, axis=1, keepdims=True), rtol=1e-6)
    assert (encoder.n_truncated_, encoder.n_truncated_total_, encoder.count_truncated(["12345", "1"])) == (1, 1, 1)
    assert server.asked[0]["dimensions"] == 8
    with pytest.warns(TruncationWarning):
        PairEncoder(encoder).fit(ROWS)


def test_bad_texts_are_named(server):
    with pytest.raises(TypeError, match="text 1: expected a string"):
        encoder_of(server).encode(["one", 2])
    with pytest.raises(ValueError, match=r"text 0: .* lone surrogate"):
        encoder_of(server).encode(["\ud800"])
    assert server.asked == []


@pytest.mark.parametrize("suffix", ["", "/", "/v1", "/v1/", "/v1/embeddings"])
def test_spellings_of_an_address(server, suffix):
    np.testing.assert_array_equal(HTTPEncoder(server.root + suffix, "m").encode(["a"]), server.vectors(["a"]))


# -------------------------------------------------------------------------------------------------------- fingerprint


def test_the_fingerprint_names_model_dimension_and_what_is_done_to_texts(server):
    fingerprint = encoder_of(server).fingerprint
    assert fingerprint == "http(model='tiny', dimension=16, prompt=None, max_characters=None, normalize=False)"
    changes = [{"dimensions": 8}, {"prompt": "q: "}, {"max_characters": 5}, {"normalize": True}]
    assert len({fingerprint, *(encoder_of(server, **change).fingerprint for change in changes)}) == 5
    assert HTTPEncoder(server.url, "other").fingerprint != fingerprint
    same = [{"batch_size": 2}, {"timeout": 1.0}, {"max_retries": 0}, {"api_key_env": None}]
    assert {encoder_of(server, **change).fingerprint for change in same} == {fingerprint}


def test_a_server_that_answers_under_another_name_is_another_encoder(server):
    """TEI takes any name, and answers with the one of the model that it serves."""
    before = encoder_of(server).fingerprint
    server.model = "BAAI/bge-small-en-v1.5"
    encoder = encoder_of(server)
    assert "served='BAAI/bge-small-en-v1.5'" in encoder.fingerprint != before
    server.model = "another"
    with pytest.raises(
        EmbeddingServerError, match=r"expected vectors of the model 'BAAI/.*', as before, got .*'another'"
    ):
        encoder.encode(["a"])


def test_the_server_is_asked_once_for_what_the_fingerprint_needs(server):
    encoder = encoder_of(server)
    assert server.asked == []
    assert encoder.fingerprint == encoder.fingerprint
    assert len(server.asked) == 1
    assert clone(encoder) is encoder
    assert pickle.loads(pickle.dumps(encoder)).fingerprint == encoder.fingerprint
    assert len(server.asked) == 1


# ---------------------------------------------------------------------------------------------------------------- key


def test_the_key_is_sent_and_appears_nowhere(monkeypatch, tmp_path, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("MY_KEY", f" {KEY}\n")
    with running(EmbeddingServer(key=KEY)) as server:
        encoder = encoder_of(server, api_key_env="MY_KEY")
        model = PreferenceModel.fit(ROWS, encoder=encoder, n_components=1)
        model.save(tmp_path / "model")
        EmbeddingStore(tmp_path / "store", encoder).add(TEXTS)
        monkeypatch.setenv("MY_KEY", f"{KEY}-wrong")
        with pytest.raises(EmbeddingServerError) as refused:
            encoder.encode(["a"])
    assert set(server.authorizations) == {f"Bearer {KEY}", f"Bearer {KEY}-wrong"}
    assert "Incorrect API key provided: ***" in str(refused.value)
    written_bytes = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    shown = [repr(encoder), encoder.fingerprint, str(encoder_config(encoder)), caplog.text, *capfd.readouterr()]
    for place in (*shown, str(refused.value), repr(pickle.dumps(encoder)), repr(written_bytes), repr(vars(encoder))):
        assert KEY not in place
    assert "MY_KEY" not in json.dumps(encoder_config(encoder))


def test_a_key_is_sent_only_where_a_variable_says_so(server, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    encoder_of(server).encode(["a"])
    monkeypatch.setenv("MICROPREF_API_KEY", KEY)
    encoder_of(server, api_key_env=None).encode(["a"])
    encoder_of(server).encode(["a"])
    assert server.authorizations == [None, None, f"Bearer {KEY}"]


@pytest.mark.parametrize(
    "url",
    [
        f"http://user:{KEY}@127.0.0.1/v1",
        f"http://127.0.0.1/v1?api-key={KEY}",
        f"ftp://{KEY}@host",
        f"https://u:{KEY}@h:x/",
    ],
)
def test_a_key_in_an_address_is_refused_and_not_shown(url):
    with pytest.raises(ValueError, match="url: expected") as error:
        HTTPEncoder(url, "m")
    assert KEY not in str(error.value)


def test_a_key_given_as_a_variable_is_not_shown():
    with pytest.raises(ValueError, match="api_key_env: expected the name") as error:
        HTTPEncoder("http://127.0.0.1", "m", api_key_env=KEY)
    assert KEY not in str(error.value)


@pytest.mark.parametrize("key", ["secret\nkey", "secret key", "sëcret", "秘密secret", "secret\x7f"])
def test_a_key_that_no_header_holds_is_not_shown(server, monkeypatch, key):
    monkeypatch.setenv("MICROPREF_API_KEY", key)
    with pytest.raises(ValueError, match="MICROPREF_API_KEY: expected a key of printable ASCII") as caught:
        encoder_of(server).encode(["a"])
    assert "cret" not in str(caught.value)
    assert not server.asked


def test_numbers_of_numpy_can_be_saved(server):
    one, other = (encoder_of(server, dimensions=n, batch_size=n, max_retries=n) for n in (16, np.int64(16)))
    assert json.dumps(encoder_config(one)) == json.dumps(encoder_config(other))


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_takes_neither_texts_nor_key_along(server, monkeypatch, status):
    monkeypatch.setenv("MICROPREF_API_KEY", KEY)
    with running(EmbeddingServer()) as elsewhere:
        server.instead.append(other({}, status, {"Location": f"{elsewhere.url}/embeddings"}))
        with pytest.raises(EmbeddingServerError, match=r"got a redirect to 'http://127.0.0.1:.*'; pass the address"):
            encoder_of(server).encode(["a"])
        assert elsewhere.asked == []


# ------------------------------------------------------------------------------------------------------------ retries


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_a_busy_server_is_asked_again(server, waits, status):
    server.instead += [other({"error": "busy"}, status)] * 3
    np.testing.assert_array_equal(encoder_of(server).encode(["a"]), server.vectors(["a"]))
    assert len(server.asked) == 4
    assert all(0.5 * full <= wait <= full for wait, full in zip(waits, (0.5, 1.0, 2.0), strict=True))
    assert len({wait / full for wait, full in zip(waits, (0.5, 1.0, 2.0), strict=True)}) == 3  # jitter


@pytest.mark.parametrize("spelling", ["seconds", "date"])
def test_a_server_says_how_long_it_wants_to_rest(server, waits, spelling):
    value = "7" if spelling == "seconds" else email.utils.formatdate(time.time() + 8, usegmt=True)
    server.instead.append(other({"error": "slow down"}, 429, {"Retry-After": value}))
    encoder_of(server).encode(["a"])
    assert 6 <= waits[0] <= 8


@pytest.mark.parametrize("value", ["soon", "-3", "nan", "1e400", ""])
def test_an_odd_rest_is_ignored(server, waits, value):
    server.instead.append(other({"error": "slow down"}, 429, {"Retry-After": value}))
    encoder_of(server).encode(["a"])
    assert waits[0] <= 0.5


def test_a_server_that_stays_busy(server, waits):
    server.instead += [other({"error": {"message": "Rate limit reached"}}, 429)] * 9
    with pytest.raises(EmbeddingServerError, match=r"got status 429 \(Rate limit reached\), 3 times$"):
        encoder_of(server, max_retries=2).encode(["a"])
    assert (len(server.asked), len(waits)) == (3, 2)


def test_a_rest_of_hours_is_not_waited_for(server, waits):
    server.instead += [other({"error": "quota"}, 429, {"Retry-After": "86400"})] * 9
    with pytest.raises(EmbeddingServerError, match=r"got status 429 \(quota\); it asks to wait for 86400 s$"):
        encoder_of(server).encode(["a"])
    assert waits == []


def test_an_answer_that_ends_early_is_asked_for_again(server, waits):
    def cut(question):
        server.cut += 1
        return b"{", 200, {"Content-Length": 100, "Connection": "close"}

    server.cut = 0
    server.instead.append(cut)
    encoder = encoder_of(server)
    np.testing.assert_array_equal(encoder.encode(["a"]), server.vectors(["a"]))
    assert (server.cut, len(waits)) == (1, 1)


def test_a_late_answer(server, waits):
    server.instead += [lambda question: time.sleep(0.5)] * 2
    with pytest.raises(EmbeddingServerError, match=r"expected an answer within 0.1 s, got none, 2 times"):
        encoder_of(server, timeout=0.1, max_retries=1).encode(["a"])


def test_a_server_that_is_not_there_is_asked_again_only_if_it_was(waits):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(EmbeddingServerError, match=r"expected a server .*, got no connection \(Connection refused\)$"):
        HTTPEncoder(f"http://127.0.0.1:{port}", "m").encode(["a"])
    assert waits == []
    with running(EmbeddingServer()) as server:
        encoder = encoder_of(server, max_retries=3)
        encoder.encode(["a"])
    with pytest.raises(EmbeddingServerError, match=r"got no connection .*, 4 times"):
        encoder.encode(["a"])
    assert len(waits) == 3


# ------------------------------------------------------------------------------------------------------- wrong answers

WRONG = {
    "fewer vectors": (other({"data": rows_of([1.0])}), "expected 2 vectors, one of every text, got 1"),
    "more vectors": (other({"data": rows_of([1.0], [2.0], [3.0])}), "expected 2 vectors, one of every text, got 3"),
    "an index twice": (
        other({"data": [{"index": 0, "embedding": [1.0]}] * 2}),
        r"expected every index from 0 to 1 once, got \[0, 0\]",
    ),
    "indices from 1": (other({"data": rows_of([1.0], [2.0], start=1)}), "expected every index from 0 to 1 once"),
    "half an index": (other({"data": [{"index": 0, "embedding": [1.0]}, {"embedding": [1.0]}]}), "every index"),
    "not a number": (other(b'{"data": [{"embedding": [NaN]}, {"embedding": [1.0]}]}'), "finite numbers, got NaN"),
    "infinity": (other(b'{"data": [{"embedding": [1e39]}, {"embedding": [1.0]}]}'), "finite numbers, got NaN"),
    "a huge integer": (
        other(b'{"data": [{"embedding": [1%s]}, {"embedding": [1.0]}]}' % (b"0" * 400)),
        "finite numbers",
    ),
    "two widths": (other({"data": rows_of([1.0], [2.0, 3.0])}), "expected vectors of one width, got widths 1, 2"),
    "no width": (other({"data": rows_of([], [])}), "expected vectors of one width, got widths 0"),
    "words": (other({"data": rows_of(["x"], ["y"])}), "expected a vector of numbers"),
    "null": (other({"data": [{"embedding": None}] * 2}), "expected a vector of numbers, got null"),
    "odd base64": (other({"data": [{"embedding": "AAA"}] * 2}), "as base64 of float32"),
    "part of a float": (other({"data": [{"embedding": "AAAA"}] * 2}), "as base64 of float32"),
    "HTML": (other(b"<!doctype html><title>Sign in</title>"), "expected vectors as JSON, got '<!doctype html>"),
    "no JSON at all": (other(b"\xff\xfe"), "expected vectors as JSON"),
    "another JSON": (other({"embeddings": [[1.0]]}), "expected JSON with a list of embeddings in 'data'"),
    "a list": (other([[1.0]]), "expected JSON with a list of embeddings in 'data'"),
    "deep JSON": (other(b"[" * 100_000), "expected vectors as JSON"),
    "a model that is not there": (
        other({"error": {"message": "no 'x'"}}, 404),
        r"404: no such path or no such model \(no",
    ),
    "a text too long": (
        other({"message": "maximum context length is 512"}, 400),
        r"400 \(maximum context length is 512",
    ),
    "an HTML refusal": (other(b"<html>nginx</html>", 413), r"got status 413$"),
    "validation": (other({"detail": [{"msg": "bad"}]}, 422), "got status 422"),
    "no key": (other({"error": "Unauthorized"}, 401), "401: the server wants a key, in an environment .* api_key_env"),
    "forbidden": (other({"error": "no"}, 403), "got status 403: the server wants a key"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_answers_are_one_sentence(server, waits, case):
    reply, sentence = WRONG[case]
    server.instead.append(reply)
    with pytest.raises(EmbeddingServerError, match=sentence) as error:
        encoder_of(server).encode(["a", "b"])
    message = str(error.value)
    assert message.startswith(f"{server.url}/embeddings: expected ")
    assert "\n" not in message
    assert len(message) < 300
    assert len(server.asked) == 1
    assert waits == []
    # And nothing is learned of a wrong answer.
    np.testing.assert_array_equal(encoder_of(server).encode(["a"]), server.vectors(["a"]))


def test_another_width_than_asked_for_or_than_before(server):
    server.instead.append(other({"data": rows_of([1.0, 2.0])}))
    with pytest.raises(EmbeddingServerError, match="expected vectors of width 8, got width 2"):
        encoder_of(server, dimensions=8).encode(["a"])
    encoder = encoder_of(server)
    encoder.encode(["a"])
    server.instead.append(other({"data": rows_of([1.0, 2.0])}))
    with pytest.raises(EmbeddingServerError, match="expected vectors of width 16, got width 2"):
        encoder.encode(["a"])


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"dimensions": 0}, "dimensions: expected an integer of at least 1 or None, got 0"),
        ({"max_characters": 1.5}, "max_characters: expected an integer"),
        ({"batch_size": None}, "batch_size: expected an integer of at least 1, got None"),
        ({"max_retries": -1}, "max_retries: expected an integer of at least 0, got -1"),
        ({"max_retries": True}, "max_retries: expected"),
        ({"timeout": 0}, "timeout: expected a positive number of seconds, got 0"),
        ({"timeout": float("nan")}, "timeout: expected"),
        ({"encoding_format": "int8"}, "encoding_format: expected one of 'float', 'base64', got 'int8'"),
        ({"model": " "}, "model: expected the name of a model, got ' '"),
        ({"url": "127.0.0.1:8080"}, "url: expected the address of a server"),
        ({"url": None}, "url: expected the address of a server"),
        ({"url": "http://a b/v1"}, "url: expected the address of a server"),
        ({"url": "http://a/\x01"}, "url: expected the address of a server"),
        ({"url": "http://a/ä"}, "url: expected the address of a server"),
        ({"url": "http://a..b/v1"}, "url: expected the address of a server"),
        ({"url": f"http://{'a' * 64}/v1"}, "url: expected the address of a server"),
        ({"prompt": 3}, "expected text or None as prompt"),
        ({"normalize": "no"}, "True or False as normalize"),
    ],
)
def test_bad_parameters(parameters, message):
    with pytest.raises(ValueError, match=message):
        HTTPEncoder(**{"url": "http://127.0.0.1", "model": "m", **parameters})


# ------------------------------------------------------------------------------------- stores, models and the command


def test_an_address_and_a_model_are_a_name(server):
    encoder = resolve_encoder(f"{server.url}#BAAI/bge-m3")
    assert repr(encoder) == f"HTTPEncoder('{server.url}', 'BAAI/bge-m3')"
    assert encoder.encode(["a"]).shape == (1, 16)
    with pytest.raises(
        ValueError, match=r"such as 'http://127.0.0.1:8080/v1#BAAI/bge-m3', got no model behind http://h"
    ):
        resolve_encoder("http://h")


def test_a_store_keeps_what_a_server_gave(server, tmp_path):
    encoder = encoder_of(server)
    store = EmbeddingStore(tmp_path / "store", encoder, dtype="float32")
    np.testing.assert_array_equal(store.encode([*TEXTS, ""])[:-1], server.vectors(TEXTS))
    n = len(server.asked)
    assert PairEncoder(encoder_of(server), store=tmp_path / "store").fit(ROWS).vector_width_ == 16
    np.testing.assert_array_equal(
        EmbeddingStore(tmp_path / "store", encoder_of(server)).encode(TEXTS), server.vectors(TEXTS)
    )
    assert all(set(question["input"]).isdisjoint(TEXTS) for question in server.asked[n:])
    with pytest.raises(EncoderMismatchError):
        EmbeddingStore(tmp_path / "store", HTTPEncoder(server.url, "another"))


def test_a_model_is_saved_and_loaded_with_its_server(server, tmp_path):
    encoder = encoder_of(server, prompt="q: ", batch_size=5)
    model = PreferenceModel.fit(ROWS, encoder=encoder, n_components=1)
    model.save(tmp_path)
    loaded = PreferenceModel.load(tmp_path)
    restored = loaded.encoder.encoder_
    assert (restored.prompt, restored.batch_size, restored.api_key_env) == ("q: ", 5, None)
    np.testing.assert_array_equal(loaded.log_odds(ROWS), model.log_odds(ROWS))
    with running(EmbeddingServer()) as moved:
        again = PreferenceModel.load(tmp_path, encoder=f"{moved.url}#tiny")
        np.testing.assert_array_equal(again.log_odds(ROWS), model.log_odds(ROWS))
        assert (again.encoder.encoder_.prompt, again.encoder.encoder_.api_key_env) == ("q: ", "MICROPREF_API_KEY")
        with pytest.raises(EncoderMismatchError):
            PreferenceModel.load(tmp_path, encoder=f"{moved.url}#another")


@pytest.mark.parametrize(
    ("url", "starts"),
    [
        ("http://127.0.0.1:8080/v1", True),
        ("http://localhost:8080", True),
        ("http://[::1]:8080", True),
        ("http://127.9.9.9", True),
        ("http://example.org/v1", False),
        ("http://10.0.0.1/v1", False),
        ("http://127.0.0.1.example.org/v1", False),
    ],
)
def test_a_description_alone_sends_texts_to_this_machine_only_and_no_key_at_all(url, starts):
    """A model's folder may come from a stranger."""
    params = {"url": url, "model": "m", "api_key_env": "AWS_SECRET_ACCESS_KEY"}
    config = {"kind": "http", "fingerprint": "http(…)", "params": params}
    if starts:
        encoder = encoder_from_config(config)
        assert (encoder.url, encoder.api_key_env) == (url, None)
        return
    with pytest.raises(ValueError, match=r"got one that sends texts to .*; if it may, pass encoder='http://.*#m'"):
        encoder_from_config(config)


def test_the_command_takes_an_address(server, tmp_path, monkeypatch):
    monkeypatch.setenv("MICROPREF_API_KEY", KEY)
    server.key = KEY
    data = tmp_path / "data.jsonl"
    data.write_text("\n".join(map(json.dumps, ROWS)))
    name = f"{server.url}#tiny"
    for arguments in (
        ["embed", str(data), str(tmp_path / "store"), "--encoder", name],
        ["fit", str(data), str(tmp_path / "model"), "-k", "1", "--encoder", name, "--store", str(tmp_path / "store")],
        ["evaluate", str(tmp_path / "model"), str(data), "--encoder", name],
    ):
        done = CliRunner().invoke(app, arguments)
        assert done.exit_code == 0, done.output
    server.key = "another"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        done = CliRunner().invoke(app, ["fit", str(data), str(tmp_path / "other"), "--encoder", name])
    assert isinstance(done.exception, EmbeddingServerError)
    assert KEY not in f"{done.output}{done.exception}"
