"""Fixtures of the end-to-end tests: checkpoints, servers and clients.

pytest tests/e2e --server=build/cpu/server/gdn-server
"""

import json
import sys
from pathlib import Path

import grpc
import pytest
from gdn_client import NO_RETRY, Client

HERE = Path(__file__).resolve().parent
sys.path[:0] = [
    str(HERE),
    str(HERE.parent / "testing"),
    str(HERE.parents[1] / "client/python/examples"),
]

import checkpoints  # noqa: E402
from server_process import SMALL, ServerProcess  # noqa: E402


def pytest_addoption(parser):
    parser.addoption("--server", required=True, help="path of the gdn-server binary")
    parser.addoption(
        "--backend", default="auto", choices=("auto", "cpu", "cuda"), help="its --backend"
    )


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """checkpoint(name): the directory of a checkpoint of checkpoints.SPECS, or of a golden file."""
    made: dict[str, Path] = {}

    def get(name: str) -> Path:
        if name not in made:
            made[name] = checkpoints.make(name, tmp_path_factory.mktemp(name))
        return made[name]

    return get


@pytest.fixture(scope="session")
def launch(request, checkpoint, tmp_path_factory):
    """launch(model, **flags): a server on a Unix socket and a TCP port, as yet loading. Those still
    running are killed."""
    started: list[ServerProcess] = []

    def begin(model: str | Path, **flags) -> ServerProcess:
        directory = tmp_path_factory.mktemp("run")
        flags = {
            "listen": f"unix:{directory}/gdn.sock,127.0.0.1:0",
            "backend": request.config.getoption("backend"),
        } | flags
        binary = Path(request.config.getoption("server")).resolve()
        path = model if isinstance(model, Path) else checkpoint(model)
        started.append(ServerProcess(binary, path, directory / "log", **flags))
        return started[-1]

    yield begin
    for server in started:
        server.kill()


@pytest.fixture(scope="session")
def gdn_ctl(request) -> Path:
    """The program beside the server's, in a bundle or a build folder."""
    server = Path(request.config.getoption("server")).resolve()
    places = (server.parent / "gdn-ctl", server.parents[1] / "client/cpp/gdn-ctl")
    found = [place for place in places if place.exists()]
    return found[0] if found else pytest.skip("gdn-ctl was not built")


@pytest.fixture(scope="session")
def start(launch):
    """start(model, **flags): a server as of launch that is ready."""

    def begin(model: str | Path, **flags) -> ServerProcess:
        server = launch(model, **flags)
        server.await_ready()
        return server

    return begin


@pytest.fixture(scope="session")
def served(start):
    """served(model, **flags): as start, but the same arguments share a server."""
    servers: dict[str, ServerProcess] = {}

    def get(model: str, **flags) -> ServerProcess:
        key = json.dumps([model, flags])
        if key not in servers:
            servers[key] = start(model, **flags)
        return servers[key]

    return get


@pytest.fixture(scope="session")
def server(served) -> ServerProcess:
    """The server that most tests share."""
    return served("small", **SMALL)


@pytest.fixture
def client(server):
    """A client that never retries; what a test leaves behind is released, and the server must be
    alive."""
    with Client(server.target, retry=NO_RETRY, timeout=60) as client:
        yield client
        client.release([s.request_id for s in client.list_sequences()])
    assert server.alive, server.log.read_text()[-4000:]


@pytest.fixture
def channel(server):
    """For bytes that the client would not send."""
    options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(server.target, options=options) as channel:
        yield channel
