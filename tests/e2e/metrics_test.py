"""What the server exports is what a real Prometheus takes, what the dashboard asks for, and true."""

import json
import re
import shutil
import socket
import subprocess
import urllib.parse
import urllib.request
from pathlib import Path

import pytest
import scrape
from gdn_client import Client, GdnError, NO_RETRY
from server_process import poll
from steps import begin, hidden, reason_of

ROOT = Path(__file__).resolve().parents[2]
DASHBOARD = json.loads((ROOT / "docker/dashboards/gdn.json").read_text())
ALERTS = ROOT / "docker/dashboards/alerts.yaml"
FLAGS = dict(slots=4, max_rows=4, max_tokens=96, max_decode_tokens=4, metrics_listen="127.0.0.1:0")
SUFFIX = re.compile(r"_(bucket|sum|count)$")


@pytest.fixture(scope="module")
def metered(served):
    return served("small", **FLAGS)


@pytest.fixture
def client(metered):
    with Client(metered.target, retry=NO_RETRY, timeout=60) as client:
        yield client
        client.release([s.request_id for s in client.list_sequences()])


def queries() -> list[str]:
    return [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]


def runnable(expression: str) -> str:
    """With the dashboard's variables filled in."""
    filled = expression.replace("$job", ".*").replace("$instance", ".*")
    return filled.replace("$__rate_interval", "1m")


# ---- the numbers


def test_a_decode_is_counted(client, metered):
    h = begin(client, "a", "b")
    before = scrape.samples(scrape.text(metered))
    client.decode(0, client.rows(**h), hidden(client, 2))
    decode = frozenset({("kind", "decode")})
    after = scrape.samples(scrape.text(metered))

    def grown(name: str, labels: frozenset) -> float:
        return after[name, labels] - before[name, labels]

    assert grown("gdn_batch_rows_sum", decode) == grown("gdn_batch_tokens_sum", decode) == 2
    assert grown("gdn_batch_device_seconds_count", decode) == 1
    assert grown("gdn_step_queue_seconds_count", decode) == 1
    assert grown("gdn_batch_device_seconds_sum", decode) > 0
    took = grown("gdn_step_duration_seconds_sum", decode)
    assert took >= grown("gdn_batch_device_seconds_sum", decode)
    method = frozenset({("method", "Decode")})
    assert grown("gdn_request_duration_seconds_sum", method) >= took
    size = 2 * client.info.geometry.hidden_size * 4
    for name in ("gdn_received_bytes_total", "gdn_sent_bytes_total"):
        assert size <= grown(name, method) < size + 200
    assert after["gdn_requests_total", method | {("code", "OK")}] >= 1


def test_slots_are_counted(client, metered):
    begin(client, "a", "b", "c")
    assert scrape.value(metered, "gdn_slots") == 4
    poll(lambda: scrape.value(metered, "gdn_slots_used") == 3)  # it follows the answer
    client.release(["a"])
    poll(lambda: scrape.value(metered, "gdn_slots_used") == 2)


def test_errors_are_counted_by_reason(client, metered):
    def count(reason: str) -> float:
        return scrape.value(metered, "gdn_errors_total", reason=reason)

    missing, too_large = count("SEQUENCE_NOT_FOUND"), count("BATCH_TOO_LARGE")
    x = hidden(client, 1)
    assert reason_of(client.decode, 0, client.rows(request_ids=["no"]), x) == "SEQUENCE_NOT_FOUND"
    names = [f"n{i}" for i in range(5)]
    rows = client.rows(request_ids=names, create=True)
    assert reason_of(client.decode, 0, rows, hidden(client, 5)) == "BATCH_TOO_LARGE"
    assert (count("SEQUENCE_NOT_FOUND"), count("BATCH_TOO_LARGE")) == (missing + 1, too_large + 1)


def test_replays_and_expired_leases_are_counted(start):
    server = start("small", **FLAGS, step_ttl="200ms")
    with Client(server.target, retry=NO_RETRY, timeout=60) as client:
        rows = client.rows(request_ids=["a", "b"], create=True, step_id=9)
        for _ in range(2):
            client.decode(0, rows, hidden(client, 2))
        assert scrape.value(server, "gdn_replayed_rows_total") == 2
        poll(lambda: scrape.value(server, "gdn_leases_expired_total") == 2)
        poll(lambda: scrape.value(server, "gdn_slots_used") == 0)
        with pytest.raises(GdnError):
            client.decode(0, client.rows(request_ids=["a"]), hidden(client, 1))
    assert scrape.value(server, "gdn_errors_total", reason="SEQUENCE_EXPIRED") == 1
    assert server.stop() == 0


def test_steps_of_a_ring_are_counted(start):
    server = start("small", **FLAGS, allow_shared_memory=True)

    def ended(method: str) -> float:
        """Calls of any code."""
        return sum(
            value
            for (name, labels), value in scrape.samples(scrape.text(server)).items()
            if name == "gdn_requests_total" and ("method", method) in labels
        )

    with Client(server.target, retry=NO_RETRY, timeout=60) as client:
        h = begin(client, "a")
        with client.ring(queue_bytes=1 << 15, step_bytes=1 << 15, depth=4) as ring:
            ring.decode(0, client.rows(**h), hidden(client, 1))
            count = scrape.value(server, "gdn_step_duration_seconds_count", kind="decode")
            received = scrape.value(server, "gdn_received_bytes_total", method="ServeRing")
            assert count == 1 and 0 < received < 200  # the tensor is not in the message
            with pytest.raises(GdnError):
                ring.decode(0, client.rows(request_ids=["no"]), hidden(client, 1))
            assert scrape.value(server, "gdn_errors_total", reason="SEQUENCE_NOT_FOUND") == 1
            assert ended("ServeRing") == 0
        assert ended("RegisterSharedMemory") == 1
        poll(lambda: ended("ServeRing") == 1)
    assert server.stop() == 0


def test_scrapes_go_on_until_the_server_has_drained(start):
    server = start("small", **FLAGS)
    with Client(server.target, retry=NO_RETRY, timeout=60) as client:
        h = begin(client, "a")
        assert scrape.value(server, "gdn_serving") == 1
        server.terminate()

        def drains() -> bool:
            client.decode(0, client.rows(**h), hidden(client, 1))  # it waits for the next one
            return scrape.value(server, "gdn_serving") == 0

        poll(drains)
    assert server.wait() == 0


def test_whoever_holds_connections_holds_up_neither_scrapes_nor_the_end(start):
    server = start("small", **FLAGS)
    host, port = scrape.address(server).split(":")
    silent = [socket.create_connection((host, int(port))) for _ in range(20)]
    for connection in silent:
        connection.sendall(b"GET /metrics HTTP/1.1\r\n")
    assert scrape.value(server, "gdn_slots") == 4
    assert server.stop() == 0
    for connection in silent:
        assert connection.recv(1) == b""
        connection.close()


def test_an_address_that_is_taken_ends_the_start(launch, metered):
    server = launch("small", **FLAGS | dict(metrics_listen=scrape.address(metered)))
    assert server.wait() == 1
    assert f"cannot listen on {scrape.address(metered)}" in server.log.read_text()


def test_without_the_flag_nothing_listens(server):
    assert '"event":"metrics"' not in server.log.read_text()


# ---- names


def test_the_dashboard_asks_for_what_is_exported_and_for_all_of_it(metered):
    asked = {
        SUFFIX.sub("", name)
        for query in queries()
        for name in re.findall(r"\b(?:gdn|process)_\w+", query)
    }
    exported = set(scrape.families(scrape.text(metered)))
    assert asked - exported == set() and exported - asked == set()


def test_the_alerts_ask_for_what_is_exported(metered):
    exported = set(scrape.families(scrape.text(metered)))
    asked = re.findall(r"\b(?:gdn|process)_\w+", ALERTS.read_text())
    assert asked and {SUFFIX.sub("", name) for name in asked} - exported == set()


def test_panels_do_not_overlap():
    places = [panel["gridPos"] for panel in DASHBOARD["panels"]]
    cells = [
        (x, y)
        for p in places
        for x in range(p["x"], p["x"] + p["w"])
        for y in range(p["y"], p["y"] + p["h"])
    ]
    assert len(cells) == len(set(cells)) and max(x for x, _ in cells) < 24
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))


# ---- a real Prometheus


def program(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed (Debian's package prometheus)")
    return path


def test_promtool_has_nothing_to_say(client, metered):
    begin(client, "a")
    checked = subprocess.run(
        [program("promtool"), "check", "metrics"],
        input=scrape.text(metered),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


def test_promtool_takes_the_alerts():
    command = [program("promtool"), "check", "rules", ALERTS]
    checked = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert checked.returncode == 0, checked.stdout + checked.stderr


class Prometheus:
    """A Prometheus that scrapes one server five times a second."""

    def __init__(self, folder: Path, target: str):
        config = folder / "prometheus.yml"
        config.write_text(
            "global: {scrape_interval: 200ms, scrape_timeout: 200ms}\n"
            f"scrape_configs: [{{job_name: gdn, static_configs: [{{targets: ['{target}']}}]}}]\n"
        )
        with socket.create_server(("127.0.0.1", 0)) as probe:
            address = f"127.0.0.1:{probe.getsockname()[1]}"
        self.url = f"http://{address}/api/v1"
        self.process = subprocess.Popen(
            [
                program("prometheus"),
                f"--config.file={config}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address={address}",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def get(self, path: str, **parameters):
        query = urllib.parse.urlencode(parameters)
        with urllib.request.urlopen(f"{self.url}/{path}?{query}", timeout=30) as answer:
            return json.load(answer)["data"]

    def scraped(self) -> bool:
        try:
            targets = self.get("targets")["activeTargets"]
        except OSError:
            return False
        return bool(targets) and targets[0]["health"] == "up"


@pytest.fixture(scope="module")
def prometheus(metered, tmp_path_factory):
    running = Prometheus(tmp_path_factory.mktemp("prometheus"), scrape.address(metered))
    try:
        poll(running.scraped, 60)
        yield running
    finally:
        running.process.kill()
        running.process.wait()


def test_prometheus_knows_types_and_help(prometheus, metered):
    exported = scrape.families(scrape.text(metered))
    known = prometheus.get("metadata")
    assert {name: known[name][0]["type"] for name in exported} == exported
    assert all(known[name][0]["help"] for name in exported)


def test_prometheus_runs_every_query_of_the_dashboard(prometheus, client):
    h = begin(client, "a", "b")

    def answered(query: str) -> bool:
        client.decode(0, client.rows(**h), hidden(client, 2))
        return bool(prometheus.get("query", query=runnable(query))["result"])

    for query in queries():
        if " > 0" in query:  # empty while nothing is wrong
            prometheus.get("query", query=runnable(query))
        else:
            poll(lambda query=query: answered(query), 60)
