"""gdn-ctl against the real server."""

import json
import subprocess
import threading
from pathlib import Path

import pytest
import scrape
from steps import begin, hidden

FLAGS = dict(slots=8, max_rows=4, max_tokens=96, max_decode_tokens=4, metrics_listen="127.0.0.1:0")


@pytest.fixture(scope="module")
def program(request) -> Path:
    """Of the same build or bundle as the server."""
    server = Path(request.config.getoption("server")).resolve()
    places = (server.parent / "gdn-ctl", server.parents[1] / "client/cpp/gdn-ctl")
    return next((p for p in places if p.exists()), None) or pytest.skip("there is no gdn-ctl")


@pytest.fixture(scope="module")
def metered(served):
    return served("small", **FLAGS)


@pytest.fixture
def server(metered):
    return metered


@pytest.fixture
def ctl(program, metered):
    def run(*arguments: str, code: int = 0) -> str:
        addresses = (f"--target={metered.target}", f"--metrics={scrape.address(metered)}")
        done = subprocess.run(
            [program, *addresses, *arguments], capture_output=True, text=True, timeout=120
        )
        assert done.returncode == code, done.stderr
        return done.stdout if code == 0 else done.stderr

    return run


def test_info_is_the_servers(ctl, client):
    info = json.loads(ctl("info", "--json"))
    assert info["instance_id"] == client.info.instance_id
    assert info["geometry"]["hidden_size"] == client.info.geometry.hidden_size
    assert info["layers"] == list(client.info.layers)
    assert client.info.model_fingerprint in ctl("info")


def test_health(ctl):
    assert ctl("health") == "SERVING\n"
    assert json.loads(ctl("health", "--json")) == {"status": "SERVING"}


def test_ls_sorts_by_age_and_lease(ctl, client):
    begin(client, "old")
    begin(client, "new")
    client.renew(["old"], ttl=1000)

    def ids(key: str) -> list[str]:
        listed = json.loads(ctl("ls", "--json", f"--sort={key}"))
        return [s["request_id"] for s in listed["sequences"]]

    assert ids("age") == ["old", "new"] and ids("lease") == ["new", "old"]


def test_release_ends_a_sequence(ctl, client):
    begin(client, "a", "b")
    ctl("release", "a")
    assert [s.request_id for s in client.list_sequences()] == ["b"]


def test_release_says_what_is_wrong(ctl):
    error = json.loads(ctl("--json", "release", "no spaces", code=1))["error"]
    assert (error["code"], error["reason"]) == ("INVALID_ARGUMENT", "MALFORMED_ID")


def test_bench_measures_and_leaves_nothing(ctl, client):
    flags = ("--seconds=0.5", "--concurrency=2", "--rows=2", "--tokens=32")
    bench = json.loads(ctl("bench", "--json", *flags))
    for name, tokens in (("decode", 1), ("prefill", 32)):
        load = bench[name]
        assert load["errors"] == 0 and load["calls"] > 0
        assert load["tokens_per_second"] == pytest.approx(load["calls_per_second"] * 2 * tokens)
        assert 0 < load["p50_seconds"] <= load["p99_seconds"] <= load["max_seconds"]
    assert list(client.list_sequences()) == []


def test_bench_that_does_not_fit_says_why(ctl, client):
    flags = ("--seconds=0.2", "--concurrency=3", "--rows=4", "--json")
    error = json.loads(ctl("bench", "decode", *flags, code=1))["error"]
    assert (error["code"], error["reason"]) == ("RESOURCE_EXHAUSTED", "SLOTS_EXHAUSTED")
    assert list(client.list_sequences()) == []


def test_top_shows_what_happens(ctl, client):
    h = begin(client, "a", "b")
    over = threading.Event()

    def decode():
        while not over.is_set():
            client.decode(0, client.rows(**h), hidden(client, 2))

    caller = threading.Thread(target=decode)
    caller.start()
    try:
        lines = ctl("top", "--json", "--interval=0.5", "--iterations=2").splitlines()
        table = ctl("top", "--interval=0.2", "--iterations=1")
    finally:
        over.set()
        caller.join()
    assert len(lines) == 2
    view = json.loads(lines[1])
    assert view["serving"] and (view["slots_used"], view["slots"]) == (2, 8)
    assert view["decode"]["rows_per_batch"] == pytest.approx(2)
    assert view["decode"]["steps_per_second"] > 0 and view["prefill"]["steps_per_second"] == 0
    assert 0 < view["decode"]["p50_seconds"] <= view["decode"]["p99_seconds"]
    assert "slots 2 of 8" in table and "\ndecode " in table and "SERVING" in table
