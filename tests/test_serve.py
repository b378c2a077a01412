"""`micropref serve`: what each endpoint answers, what it refuses in words, and what it never says."""

from __future__ import annotations

import http.client
import io
import json
import logging
import re
import socket
import threading
import time
from contextlib import suppress
from copy import copy

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from serve_cases import KINDS, LONG, PROMPT, SHORT, WISH, Client, fitted, running, vote, wait_until, world

from micropref.serve import Limits
from micropref.serve._documents import page_of
from micropref.serve._logs import Log
from micropref.serve._settings import Settings, token_of

ENDPOINTS = ("/score", "/rank", "/votes", "/suggest")
PAIRS = [{"prompt": PROMPT, "first": f"{SHORT} {i}", "second": f"{LONG} {i}"} for i in range(4)]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with running(fitted("routed"), tmp_path_factory.mktemp("serve") / "users.sqlite") as found:
        yield found


@pytest.fixture
def ask(server) -> Client:
    return server.ask


# ------------------------------------------------------------------------------------------------------------ endpoints


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_model_is_served(kind, tmp_path):
    """Rewards are the model's, and votes move them as `route` does, where users can differ."""
    model = fitted(kind)
    items = [{"prompt": PROMPT, "response": r, "context": WISH} for r in (SHORT, LONG)]
    expected = model.reward([PROMPT] * 2, [SHORT, LONG], [WISH] * 2)
    votes = [vote(i) for i in range(6)]
    rows = [{name: one[name] for name in ("prompt", "chosen", "rejected")} | {"group": "ann"} for one in votes]
    with running(model, tmp_path / "users.sqlite") as server:
        found = server.ask("POST", "/score", {"items": items})
        np.testing.assert_allclose(found.content["rewards"], expected, atol=1e-6)
        before = server.ask.margin("ann")
        answers = [server.ask("POST", "/votes", one) for one in votes]
        assert [answer.status for answer in answers] == [200] * 6
        after = server.ask.margin("ann")
        asked = server.ask("POST", "/suggest", {"user": "ann", "pairs": PAIRS})
    learned = copy(model)
    for row in rows:
        learned.route([row])
    margin = np.subtract(*learned.reward([PROMPT] * 2, [SHORT, LONG], ["", ""], ["ann"] * 2))
    assert after == pytest.approx(margin, abs=1e-5)
    if kind == "one":
        assert after == before
        assert answers[0].content["note"].startswith("this model has one reward for all users")
        assert asked.status == 422
        assert "one reward for all users" in asked.content["detail"]
    else:
        assert abs(after - before) > 0.01
        assert "note" not in answers[0].content
        assert asked.status == 200


def test_rank(ask):
    body = {"prompt": PROMPT, "responses": [LONG, SHORT], "context": WISH}
    found = ask("POST", "/rank", body).content
    assert found["order"] == [1, 0] == fitted("routed").rank(PROMPT, [LONG, SHORT], WISH).tolist()
    explained = ask("POST", "/rank", body | {"explain": True}).content
    np.testing.assert_allclose(explained["rewards"], found["rewards"], atol=1e-6)
    np.testing.assert_allclose(np.array(explained["weights"]) @ explained["heads"], found["rewards"], atol=1e-5)
    assert sum(explained["weights"]) == pytest.approx(1, abs=1e-6)


def test_suggestions_are_those_of_the_model(ask, server):
    rows = [{"prompt": one["prompt"], "chosen": one["first"], "rejected": one["second"]} for one in PAIRS]
    for n in (1, 3):
        found = ask("POST", "/suggest", {"user": "new", "context": WISH, "n": n, "pairs": PAIRS}).content["suggestions"]
        expected = fitted("routed").suggest(rows, n, user="new", context=WISH)
        assert [one["index"] for one in found] == expected.tolist()
        information = fitted("routed").expected_information(rows, "new", WISH)[expected]
        np.testing.assert_allclose([one["information"] for one in found], information, atol=1e-6)
    own = ask("POST", "/suggest", {"n": 2}).content["suggestions"]
    assert len({one["index"] for one in own}) == 2
    assert own[0]["prompt"] == server.service.questions.prompts[own[0]["index"]]


def test_what_was_answered_is_not_asked_again(ask):
    for pair in PAIRS:
        first = ask("POST", "/suggest", {"user": "asked", "pairs": PAIRS}).content["suggestions"][0]
        chosen = {"prompt": first["prompt"], "chosen": first["second"], "rejected": first["first"]}
        assert ask("POST", "/votes", {"user": "asked", **chosen}).status == 200
        assert pair["prompt"] == first["prompt"]
    assert ask("POST", "/suggest", {"user": "asked", "pairs": PAIRS}).content == {"suggestions": []}


def test_a_vote_counts_once(ask):
    first = ask("POST", "/votes", vote(0, "once"))
    again = ask("POST", "/votes", vote(0, "once"))
    assert (first.content, again.content) == ({"votes": 1, "new": True}, {"votes": 1, "new": False})
    other = ask("POST", "/votes", vote(0, "once", chosen="another answer"))
    assert other.status == 409
    assert "key: expected one that this user has not used" in other.content["detail"]
    assert ask("POST", "/votes", vote(0, "twice", chosen="another answer")).status == 200  # keys are a user's own
    keyless = {name: value for name, value in vote(1, "once").items() if name != "key"}
    assert [ask("POST", "/votes", keyless).content["votes"] for _ in range(2)] == [2, 3]
    assert ask("GET", "/users/once").content["votes"] == 3


def test_one_key_from_many_threads_counts_once(ask):
    answers = []
    threads = [
        threading.Thread(target=lambda i=i: answers.append(ask("POST", "/votes", vote(i % 3, "many"))))
        for i in range(24)
    ]
    for one in (*threads,):
        one.start()
    for one in threads:
        one.join()
    assert [answer.status for answer in answers] == [200] * 24
    assert sum(answer.content["new"] for answer in answers) == 3
    assert ask("GET", "/users/many").content["votes"] == 3


@pytest.mark.parametrize(
    ("sent", "path", "shown"),
    [
        (12, "12", 12),
        ("12", "12", 12),
        (12.0, "12", 12),
        ("12.0", "12.0", "12.0"),
        (10**30, str(10**30), 10**30),
        ("a/b c?ü", "a%2Fb%20c%3F%C3%BC", "a/b c?ü"),
        ("o'neil\"; DROP TABLE users", "o'neil%22;%20DROP%20TABLE%20users", None),
    ],
)
def test_ids_are_the_librarys(ask, sent, path, shown):
    assert ask("POST", "/votes", vote(int(sent == 12), sent)).status == 200
    found = ask("GET", f"/users/{path}")
    assert found.status == 200
    assert found.content["user"] == (sent if shown is None else shown)
    assert len(found.content["weights"]) == 4
    assert ask("DELETE", f"/users/{path}").status == 200
    assert ask("GET", f"/users/{path}").status == ask("DELETE", f"/users/{path}").status == 404


def test_a_users_votes_change_their_rewards_alone(ask):
    other, before = ask.margin("other"), ask.margin("cat")
    for i in range(6):
        ask("POST", "/votes", vote(i, "cat"))
    assert ask.margin("cat") > before + 0.01
    assert ask.margin("other") == pytest.approx(other, abs=1e-6)
    weights = ask("GET", "/users/cat?context=" + WISH.replace(" ", "%20")).content["weights"]
    assert sum(weights) == pytest.approx(1, abs=1e-6)


def test_requests_at_the_same_time_get_their_own_answers(ask):
    texts = [f"answer {i} " + "very " * (i % 7) + "long" for i in range(40)]
    expected = fitted("routed").reward([PROMPT] * 40, texts, [WISH] * 40)
    found = np.full(40, np.nan)

    def score(i: int) -> None:
        item = {"prompt": PROMPT, "response": texts[i], "context": WISH}
        found[i] = ask("POST", "/score", {"items": [item]}).content["rewards"][0]

    threads = [threading.Thread(target=score, args=(i,)) for i in range(40)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    np.testing.assert_allclose(found, expected, atol=1e-5)


# ------------------------------------------------------------------------------------------------------------ bad input

GOOD = {
    "/score": {"items": [{"prompt": "p", "response": "a"}]},
    "/rank": {"prompt": "p", "responses": ["a", "b"]},
    "/votes": {"user": "x", "prompt": "p", "chosen": "a", "rejected": "b"},
    "/suggest": {"pairs": [{"prompt": "p", "first": "a", "second": "b"}]},
}
BAD = [
    ("/votes", b"{", "expected JSON, got text that is none"),
    ("/votes", b"", "expected JSON, got text that is none"),
    ("/votes", b"\xff\xfe", "expected JSON"),
    ("/votes", b"[" * 100_000, "expected JSON"),
    ("/votes", b"[]", "expected an object, got a list"),
    ("/votes", b'{"user": "x"}', "prompt: expected a value, got none"),
    ("/votes", {"prompt": 3}, "prompt: expected a string, got an integer"),
    ("/votes", {"prompt": None}, "prompt: expected a string, got null"),
    ("/votes", {"chosen": "b"}, "rejected: expected another text than chosen, got the same"),
    ("/votes", {"chosen": " \n"}, "expected text, got a blank response"),
    ("/votes", {"user": True}, "user: expected a string or an integer, got true or false"),
    ("/votes", {"user": [1]}, "user: expected a string or an integer, got a list"),
    ("/votes", {"user": 1.5}, "user: expected an integer, a string"),
    ("/votes", {"user": None}, "user: expected an id, got a value that stands for an unknown user"),
    ("/votes", {"user": "-1"}, "user: expected an id"),
    ("/votes", {"user": " "}, "user: expected an id"),
    ("/votes", {"user": "x" * 257}, "user: expected at most 256 characters, got 257"),
    ("/votes", {"user": 10**1000}, "user: expected an integer of at most"),
    ("/votes", {"key": ""}, "key: expected from 1 to 256 characters, got 0"),
    ("/votes", {"key": 7}, "key: expected a string, got an integer"),
    ("/votes", {"weight": 2}, "weight: expected a field that /docs lists, got this one"),
    ("/votes", b'{"user": "x", "prompt": "\\ud800", "chosen": "a", "rejected": "b"}', "expected JSON"),
    ("/score", {"items": []}, "items: expected from 1 to 256 of them, got 0"),
    ("/score", {"items": [{"prompt": "p", "response": "a"}] * 257}, "items: expected from 1 to 256 of them, got 257"),
    ("/score", {"items": [{"prompt": "p"}]}, "items.0.response: expected a value, got none"),
    ("/score", {"items": {}}, "items: expected a list, got an object"),
    ("/score", {"items": [{"prompt": "p", "response": ""}]}, "expected text, got a blank response"),
    ("/score", {"items": [{"prompt": "p" * 40_000, "response": "a"}]}, "expected at most 32768 characters, got 40000"),
    ("/rank", {"responses": []}, "responses: expected from 1 to 256 of them, got 0"),
    ("/rank", {"responses": "ab"}, "responses: expected a list, got a string"),
    ("/rank", {"explain": "yes"}, "explain: expected true or false, got a string"),
    ("/suggest", {"n": 0}, "n: expected from 1 to 256 of them, got 0"),
    ("/suggest", {"n": 1.5}, "n: expected"),
    ("/suggest", {"pairs": [{"prompt": "p", "first": "a", "second": "a"}]}, "second: expected another text than first"),
]


@pytest.mark.parametrize(("path", "body", "detail"), BAD)
def test_bad_input_is_refused_in_a_sentence(ask, path, body, detail):
    raw = body if isinstance(body, bytes) else json.dumps(GOOD[path] | body).encode()
    found = ask("POST", path, raw=raw)
    assert found.status == 422, found
    assert detail in found.content["detail"]
    assert len(found.content["detail"]) < 400
    assert "Traceback" not in str(found.content)


def test_what_is_good_is_taken(ask):
    for path, body in GOOD.items():
        assert ask("POST", path, body).status == 200


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(st.sampled_from(ENDPOINTS), st.data())
def test_no_body_breaks_the_server(server, path, data):
    """Good bodies in which any value was replaced by any other."""
    body = json.loads(json.dumps(GOOD[path]))
    name = data.draw(st.sampled_from([*sorted(body), "user", "context", "more"]))
    body[name] = data.draw(values)
    found = server.ask("POST", path, body)
    assert found.status in (200, 409, 422), (body, found)
    assert found.status == 200 or "expected" in found.content["detail"]


@given(st.binary(max_size=60), st.sampled_from(ENDPOINTS))
def test_no_bytes_break_the_server(server, raw, path):
    assert server.ask("POST", path, raw=raw).status == 422


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("GET", "/score", 405),
        ("POST", "/healthz", 405),
        ("GET", "/users/", 422),
        ("GET", "/users/-1", 422),
        ("DELETE", "/users/%20", 422),
        ("GET", "/%00%ff", 404),
        ("PUT", "/votes", 405),
        ("GET", "/../../etc/passwd", 404),
        ("GET", "/users/" + "x" * 300, 422),
    ],
)
def test_paths_that_are_none(ask, method, path, status):
    found = ask(method, path, {})
    assert found.status == status
    assert "expected" in found.content["detail"]


@pytest.mark.parametrize("path", ["/", "/docs", "/healthz", "/openapi.json", "/examples", "/nothing", "/score"])
def test_head_is_answered_as_get_without_the_body(server, path):
    """On one connection, which a body that is not announced would leave out of step."""
    connection = http.client.HTTPConnection("127.0.0.1", server.ask.port, timeout=30)
    answers = []
    for method in ("HEAD", "GET", "HEAD"):
        connection.request(method, path)
        answer = connection.getresponse()
        headers = {name.lower(): value for name, value in answer.getheaders() if name.lower() != "date"}
        answers.append((answer.status, headers, answer.read()))
    connection.close()
    (status, headers, body), (_, _, content), _ = answers
    assert answers[0] == answers[2]
    assert body == b""
    assert len(content) == int(headers["content-length"]) > 0
    assert answers[1][:2] == (status, headers)
    assert status == {"/nothing": 404, "/score": 405}.get(path, 200)


def test_the_log_and_the_metrics_know_head(server):
    connection = http.client.HTTPConnection("127.0.0.1", server.ask.port, timeout=30)
    connection.request("HEAD", "/users/ann")
    connection.getresponse().read()
    connection.close()
    wait_until(lambda: 'method="HEAD",path="/users/{id' in server.ask("GET", "/metrics").content)


def test_an_error_in_the_server_leaves_no_trace_outside(server, monkeypatch):
    def broken(rows):
        raise RuntimeError("secret of the house")

    monkeypatch.setattr(type(server.service.served), "reward", lambda self, rows: broken(rows))
    found = server.ask("POST", "/score", GOOD["/score"])
    assert found.status == 500
    assert found.content == {"detail": "expected an answer, got an error in the server, which its log describes"}
    wait_until(lambda: '"error"' in server.log.getvalue())
    logged = [json.loads(line) for line in server.log.getvalue().splitlines()]
    error = next(event for event in logged if event["event"] == "error")
    assert error["error"] == "RuntimeError"
    assert any("broken" in place for place in error["places"])
    assert "secret" not in server.log.getvalue()


# -------------------------------------------------------------------------------------------- limits, token, hosts, log


@pytest.fixture(scope="module")
def strict(tmp_path_factory):
    """A server with a token, small limits and names."""
    limits = Limits(body=2000, text=50, items=3)
    settings = Settings(limits, b"s3cret", frozenset({"127.0.0.1", "example.org"}), log_content=True)
    with running(fitted("routed"), tmp_path_factory.mktemp("strict") / "users.sqlite", settings) as found:
        yield found


def test_the_token(strict):
    for header in (
        {},
        {"authorization": "Bearer s3cre"},
        {"authorization": "Basic s3cret"},
        {"authorization": "Bearer"},
    ):
        for method, path in (("POST", "/score"), ("GET", "/metrics"), ("GET", "/users/ann"), ("DELETE", "/users/ann")):
            found = strict.ask(method, path, GOOD["/score"], **header)
            assert found.status == 401
            assert found.headers["www-authenticate"] == "Bearer"
    assert strict.ask("POST", "/score", GOOD["/score"], authorization="Bearer s3cret").status == 200
    for path in ("/", "/healthz", "/docs", "/openapi.json"):
        assert strict.ask("GET", path).status == 200


def test_limits(strict):
    bearer = {"authorization": "Bearer s3cret"}
    large = strict.ask("POST", "/score", raw=b'{"items": "' + b"a" * 5000 + b'"}', **bearer)
    assert large.status == 413
    assert "at most 2000 bytes" in large.content["detail"]
    huge = strict.ask("POST", "/score", raw=b"", content_length=str(1 << 40), **bearer)
    assert huge.status == 413
    item = {"prompt": "p", "response": "a"}
    assert strict.ask("POST", "/score", {"items": [item] * 4}, **bearer).status == 422
    assert strict.ask("POST", "/score", {"items": [item | {"prompt": "p" * 51}]}, **bearer).status == 422
    chunks = (b"a" * 100 for _ in range(100))
    assert strict.ask("POST", "/score", raw=chunks, **bearer).status == 413


def test_a_slow_body_is_not_waited_for(tmp_path):
    with running(fitted("routed"), tmp_path / "users.sqlite", Settings(Limits(body_seconds=0.2))) as server:
        assert server.ask("POST", "/score", raw=b"{", content_length="100").status == 408


def heard(port: int, *parts: bytes, pause: float = 0.0) -> bytes:
    """All that a server says to these bytes, until it hangs up."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        with suppress(BrokenPipeError, ConnectionResetError):
            for part in parts:
                client.sendall(part)
                time.sleep(pause)
        found = b""
        with suppress(ConnectionResetError):
            while part := client.recv(1 << 16):
                found += part
        return found


@pytest.mark.parametrize("start", [b"", b"GET /h", b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n\r\n"])
def test_a_head_that_does_not_come_is_not_waited_for(start, tmp_path):
    """Neither the first of a connection nor a later one, in one piece or in drops."""
    with running(fitted("routed"), tmp_path / "users.sqlite", Settings(Limits(body_seconds=0.2))) as server:
        found = heard(server.ask.port, start, b"\r\n", pause=0.05)
        assert b"200 OK" in found if b"healthz" in start else b"HTTP/1.1 4" in found
        with socket.create_connection(("127.0.0.1", server.ask.port), timeout=10) as client:
            begin = time.monotonic()
            with suppress(BrokenPipeError, ConnectionResetError):
                while time.monotonic() < begin + 3:
                    client.sendall(b"\r\n")
                    time.sleep(0.02)
            assert time.monotonic() < begin + 2


def test_an_endless_head_is_cut(server):
    line = b"X-A: " + b"a" * 9000 + b"\r\n"
    for parts in ([b"GET / HTTP/1.1\r\n", *[line] * 1000], [b"GET /"] + [b"a" * 9000] * 1000):
        with socket.create_connection(("127.0.0.1", server.ask.port), timeout=10) as client:
            sent = 0
            with suppress(BrokenPipeError, ConnectionResetError):
                for part in parts:
                    client.sendall(part)
                    sent += len(part)
            assert sent < 9_000_000
    few = b"".join([b"POST / HTTP/1.1\r\n", *[line] * 5])
    assert b"431 Request Header" in heard(server.ask.port, few, line * 5, pause=0.1)


def test_bytes_that_are_no_request_are_refused_in_a_sentence(server):
    found = heard(server.ask.port, b"\x16\x03\x01 no request\r\n\r\n")
    assert found.startswith(b"HTTP/1.1 400")
    assert json.loads(found.partition(b"\r\n\r\n")[2])["detail"].startswith("expected a request of HTTP/1.1")


def test_many_requests_of_one_connection(server):
    """With large bodies, each of which follows the last: none is taken for a part of a head."""
    connection = http.client.HTTPConnection("127.0.0.1", server.ask.port, timeout=10)
    body = json.dumps({"items": [{"prompt": "p" * 30000, "response": f"a{i}"} for i in range(10)]})
    for _ in range(5):
        connection.request("POST", "/score", body, {"content-type": "application/json"})
        answer = connection.getresponse()
        assert len(json.loads(answer.read())["rewards"]) == 10
    connection.close()


def test_methods_that_are_allowed_are_named(ask):
    assert ask("PUT", "/users/ann").headers["allow"] in ("GET, HEAD", "DELETE", "GET, HEAD, DELETE")
    assert ask("POST", "/votes/", GOOD["/votes"]).status == 404  # and sends no client elsewhere


def test_warnings_of_libraries_are_events_without_texts():
    stream = io.StringIO()
    with Log(stream).heard():
        logging.getLogger("some.library").warning("broken: %s", "secret")
        try:
            raise ValueError("secret")
        except ValueError:
            logging.getLogger("some.library").exception("failed with secret")
    logging.getLogger("some.library").debug("over")
    first, second = map(json.loads, stream.getvalue().splitlines())
    assert (first["level"], first["source"], second["error"]) == ("warning", "some.library", "ValueError")
    assert "secret" not in stream.getvalue()


def test_names_and_types_of_other_sites_are_refused(strict):
    bearer = {"authorization": "Bearer s3cret"}
    assert strict.ask("POST", "/score", GOOD["/score"], host="evil.example", **bearer).status == 421
    assert strict.ask("POST", "/score", GOOD["/score"], host="Example.org:80", **bearer).status == 200
    plain = strict.ask("POST", "/score", GOOD["/score"], content_type="text/plain", **bearer)
    assert plain.status == 415


def test_the_token_of_the_environment():
    assert token_of({}) is None
    assert token_of({"MICROPREF_TOKEN": " abc "}) == b"abc"
    with pytest.raises(ValueError, match="expected a token, got an empty one"):
        token_of({"MICROPREF_TOKEN": ""})


def test_the_log_holds_no_texts_and_no_ids_unless_asked(server, strict):
    start = len(server.log.getvalue())
    server.ask("POST", "/votes", vote(0, "Agatha", prompt="my private question"))
    server.ask("GET", "/users/Agatha")

    def asked():
        """What was logged of the user, which may be a moment after the answer, and beside what other threads log."""
        lines = [json.loads(line) for line in server.log.getvalue()[start:].splitlines()]
        return [line["status"] for line in lines if line["event"] == "request" and line["path"] == "/users/{id}"]

    wait_until(asked)
    assert asked() == [200]
    assert not re.search("Agatha|private", server.log.getvalue())
    strict.ask("GET", "/users/Agatha", authorization="Bearer s3cret")
    wait_until(lambda: "Agatha" in strict.log.getvalue())
    assert "s3cret" not in strict.log.getvalue()


# ---------------------------------------------------------------------------------------------------------------- pages


def test_metrics(ask):
    ask("POST", "/score", GOOD["/score"])
    found = ask("GET", "/metrics")
    assert found.headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = found.content.splitlines()
    assert all(re.fullmatch(r'# (HELP|TYPE) .+|[a-z_]+(\{([a-z]+="[^"]*",?)+\})? [0-9.e+-]+', line) for line in lines)
    count = next(line for line in lines if line.startswith("micropref_requests_total") and "/score" in line)
    assert int(count.rpartition(" ")[2]) >= 1
    buckets = [
        float(x.rpartition(" ")[2]) for x in lines if x.startswith('micropref_request_seconds_bucket{path="/score"')
    ]
    assert buckets == sorted(buckets)
    assert any(line.startswith("micropref_users ") for line in lines)


def test_openapi_describes_all_endpoints(ask):
    found = ask("GET", "/openapi.json").content
    assert {"/score", "/rank", "/votes", "/suggest", "/users/{id}", "/healthz", "/metrics"} <= set(found["paths"])
    body = found["paths"]["/votes"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert set(body["required"]) == {"user", "prompt", "chosen", "rejected"}
    assert "rewards" in json.dumps(found["components"]["schemas"]["ScoreResponse"])


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_pages_need_no_other_host_and_run_their_own_code_alone(ask, path):
    found = ask("GET", path)
    assert found.status == 200
    assert "<html" in found.content
    assert not re.search(r"(https?:)?//[a-z0-9-]+\.", found.content)
    policy = found.headers["content-security-policy"]
    assert policy == page_of(found.content)[1]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert not re.search(r"<[^>]+ (on[a-z]+|style)=", found.content.partition("<script>")[0])


def test_every_answer_has_its_headers(ask):
    for path in ("/", "/healthz", "/nothing", "/openapi.json"):
        headers = ask("GET", path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert "server" not in headers


def test_questions_of_a_file(tmp_path):
    rows = [{"prompt": f"p{i % 2}", "chosen": f"a {i}", "rejected": f"b {i}", "context": f"wish {i}"} for i in range(6)]
    rows.append({"prompt": "p0", "chosen": "b 0", "rejected": "a 0", "context": ""})  # the first, turned round
    with running(fitted("routed"), tmp_path / "users.sqlite", questions=rows) as server:
        found = server.ask("GET", "/examples").content
        assert found["wishes"] == [f"wish {i}" for i in range(5)]
        assert [topic["prompt"] for topic in found["topics"]] == ["p0", "p1"]
        assert len(server.service.questions.prompts) == 6
        assert len(server.ask("POST", "/suggest", {"n": 100}).content["suggestions"]) == 6


def test_the_world_has_questions():
    assert len(world().labelled) > 0
