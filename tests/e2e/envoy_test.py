"""docker/envoy/envoy.yaml in front of two servers: who gets in, who stays where, and what happens when a
server goes."""

import json
import shutil
import ssl
import subprocess
import sys
import urllib.request
from contextlib import suppress
from pathlib import Path

import certificates
import grpc
import http2
import pytest
from gdn_client import NO_RETRY, Client, GdnError, NotFound, RetryPolicy, Tls
from server_process import poll
from steps import begin, hidden

FOLDER = Path(__file__).resolve().parents[2] / "docker/envoy"
ENVOY = shutil.which("envoy", path=str(Path(sys.executable).parent))
FLAGS = dict(slots=16, max_rows=4, max_tokens=64, listen="127.0.0.1:0")
PATIENT = RetryPolicy(attempts=100, initial=0.02, maximum=0.2)
NAMES = [f"orchestrator-{i}" for i in range(12)]

pytestmark = pytest.mark.skipif(ENVOY is None, reason="Envoy is not installed")


def replaced(text: str, changes: dict) -> str:
    for old, new in changes.items():
        assert text.count(old) >= 1, f"{old} is not in the configuration"
        text = text.replace(old, str(new))
    return text


class Envoy:
    """Envoy with the repository's configuration, in which only places are changed."""

    def __init__(self, folder: Path, servers: list):
        tls = folder / "tls"
        tls.mkdir()
        self.ca = certificates.authority(folder, "ca")
        self.client = certificates.issue(folder, "client", self.ca)
        mine = certificates.issue(folder, "envoy", self.ca)
        for name, path in (("ca.crt", self.ca.cert), ("tls.crt", mine.cert), ("tls.key", mine.key)):
            shutil.copy(path, tls / name)
        ports = [server.target.rsplit(":", 1)[1] for server in servers]
        endpoint = "address: gdn-{}, port_value: 50051"
        changes = {
            "/etc/envoy": folder,
            "address: 0.0.0.0, port_value: 50050": "address: 127.0.0.1, port_value: 0",
            "port_value: 9901": "port_value: 0",
        }
        for i, port in enumerate(ports):
            changes[endpoint.format(i)] = f"address: 127.0.0.1, port_value: {port}"
        text = (FOLDER / "envoy.yaml").read_text()
        (folder / "envoy.yaml").write_text(replaced(text, changes))
        for name in ("server_certificate.yaml", "client_authorities.yaml"):
            text = (FOLDER / name).read_text()
            (folder / name).write_text(replaced(text, {"/etc/envoy": folder}))
        self.log, admin = folder / "envoy.log", folder / "admin"
        files = ["--config-path", folder / "envoy.yaml", "--admin-address-path", admin]
        with open(self.log, "wb") as log:
            command = [ENVOY, *files, "--concurrency", "1", "--use-dynamic-base-id"]
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        self.admin = poll(lambda: self.running() and admin.exists() and admin.read_text())
        listeners = poll(lambda: self.ask("listeners?format=json").get("listener_statuses"))
        port = listeners[0]["local_address"]["socket_address"]["port_value"]
        self.target = f"127.0.0.1:{port}"
        poll(lambda: self.healthy() == len(servers))

    def running(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()[-3000:]
        return True

    def ask(self, path: str) -> dict:
        self.running()
        with urllib.request.urlopen(f"http://{self.admin}/{path}", timeout=60) as answer:
            return json.load(answer)

    def healthy(self) -> int:
        """Servers that take calls."""
        hosts = self.ask("clusters?format=json")["cluster_statuses"][0].get("host_statuses", [])
        failed = ("failed_active_health_check", "pending_active_hc")
        return sum(not any(host["health_status"].get(f) for f in failed) for host in hosts)

    def counter(self, name: str) -> int:
        stats = self.ask(f"stats?format=json&filter={name}$")["stats"]
        return sum(stat.get("value", 0) for stat in stats)

    @property
    def tls(self) -> Tls:
        return Tls(ca=self.ca.cert, cert=self.client.cert, key=self.client.key)

    def connect(self, name: str, retry: RetryPolicy = PATIENT, **more) -> Client:
        return Client(self.target, tls=self.tls, affinity=name, retry=retry, timeout=60, **more)

    def replace_certificates(self, folder: Path) -> Tls:
        """Those of another authority take the place of the ones in use; -> what a client then needs."""
        ca = certificates.authority(folder, "new-ca")
        mine, client = (
            certificates.issue(folder, f"new-{name}", ca) for name in ("envoy", "client")
        )
        for name, path in (("ca.crt", ca.cert), ("tls.key", mine.key), ("tls.crt", mine.cert)):
            path.with_suffix(".copy").write_bytes(path.read_bytes())
            path.with_suffix(".copy").replace(folder / "tls" / name)
        return Tls(ca=ca.cert, cert=client.cert, key=client.key)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def behind(start, tmp_path):
    """Envoy and the two servers behind it."""
    servers = [start("small", **FLAGS) for _ in range(2)]
    envoy = Envoy(tmp_path, servers)
    yield envoy, servers
    envoy.close()


def instance(server) -> str:
    with Client(server.target) as client:
        return client.info.instance_id


def test_each_orchestrator_stays_on_one_replica_until_that_is_killed(behind):
    envoy, servers = behind
    homes = {instance(server): server for server in servers}
    clients = {name: envoy.connect(name) for name in NAMES}
    on = {name: client.info.instance_id for name, client in clients.items()}
    assert set(on.values()) == set(homes), "the replicas share the orchestrators"

    handles = {name: begin(client, name) for name, client in clients.items()}
    for name, client in clients.items():
        rows = client.rows(**handles[name], positions=[3])
        for layer in client.info.layers:
            client.decode(layer, rows, hidden(client, 1))
        with envoy.connect(name) as another:  # a new connection, the same replica
            assert [another.info.instance_id] == [on[name]]
            assert name in [s.request_id for s in another.list_sequences()]

    dead, alive = homes
    homes[dead].kill()
    for name, client in clients.items():
        rows = client.rows(**handles[name], positions=[4])
        if on[name] == alive:
            client.decode(0, rows, hidden(client, 1))
            continue
        with pytest.raises(NotFound) as e:
            client.decode(0, rows, hidden(client, 1))
        assert e.value.instance_id == alive
        begin(client, name)  # from token 0, on the replica that is left
    for client in clients.values():
        client.close()


def test_a_replica_that_drains_gets_no_new_calls(behind):
    envoy, servers = behind
    ids = [instance(server) for server in servers]
    assert servers[0].stop() == 0
    poll(lambda: envoy.healthy() == 1)
    for name in NAMES:
        with envoy.connect(name) as client:
            assert client.info.instance_id == ids[1]
            begin(client, name)
            client.release([name])
    assert servers[1].stop() == 0
    with pytest.raises(GdnError) as e:  # not to a replica that is not there
        envoy.connect("a", retry=NO_RETRY, connect_timeout=1)
    assert e.value.code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


def test_what_a_replica_refused_is_not_sent_again_by_envoy(behind):
    """Each error comes as it was made, reason and rows included, and reached one replica once."""
    envoy, _ = behind
    before = envoy.counter("cluster.gdn.upstream_rq_total")
    with envoy.connect("a", retry=NO_RETRY) as client:
        rows = client.rows(request_ids=[str(i) for i in range(4)], create=True)
        for i in range(4):
            ids = [f"{i}-{row}" for row in range(4)]
            client.prefill(0, client.rows(request_ids=ids, create=True), hidden(client, 4))
        with pytest.raises(GdnError) as e:
            client.prefill(0, rows, hidden(client, 4))
        assert e.value.reason == "SLOTS_EXHAUSTED" and len(e.value.rows) == 4
        assert e.value.retry_delay is not None
        with pytest.raises(NotFound):
            client.decode(0, client.rows(request_ids=["nobody"]), hidden(client, 1))
    assert envoy.counter("cluster.gdn.upstream_rq_total") - before == 1 + 4 + 2
    assert envoy.counter("cluster.gdn.upstream_rq_retry") == 0


def test_only_clients_with_a_certificate_get_in(behind):
    envoy, _ = behind
    for tls in (None, Tls(ca=envoy.ca.cert)):
        with pytest.raises(GdnError):
            Client(envoy.target, tls=tls, retry=NO_RETRY, connect_timeout=1)


def test_certificates_change_without_a_restart(behind, tmp_path):
    envoy, _ = behind
    new = envoy.replace_certificates(tmp_path)

    def connects() -> bool:
        try:
            with Client(envoy.target, tls=new, retry=NO_RETRY, connect_timeout=1):
                return True
        except GdnError:
            return False

    poll(connects)


def test_streams_pass(behind):
    envoy, _ = behind
    with envoy.connect("a") as client:
        handle = begin(client, "a")
        with client.stream() as stream:
            futures = [
                stream.decode(0, client.rows(**handle, positions=[3 + i]), hidden(client, 1, i))
                for i in range(20)
            ]
            assert all(f.result(60).output.shape[0] == 1 for f in futures)


@pytest.mark.parametrize("kind", ["rapid_reset", "endless_continuation", "endless_header"])
def test_peers_that_break_http2_stop_at_envoy(behind, kind):
    """What Debian's gRPC does not hold against, from a client with a certificate."""
    envoy, servers = behind
    context = ssl.create_default_context(cafile=envoy.ca.cert)
    context.load_cert_chain(envoy.client.cert, envoy.client.key)
    context.set_alpn_protocols(["h2"])
    before = [server.resident() for server in servers]
    for _ in range(3):
        with suppress(OSError), http2.Peer(envoy.target, tls=context) as peer:
            for data in getattr(http2, kind)(4000):
                peer.send(data)
            peer.await_pong()
    assert all(now.resident() - was < 16 << 20 for now, was in zip(servers, before))
    assert envoy.running()
    with envoy.connect("a") as client:
        begin(client, "a")
