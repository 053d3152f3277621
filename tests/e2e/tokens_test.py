"""Bearer tokens: what each allows, where none is needed, and a file that changes."""

import asyncio
import subprocess

import grpc
import pytest
from gdn_client import NO_RETRY, AsyncClient, Client, PermissionDenied, Unauthenticated
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from server_process import poll
from steps import begin, hidden

OWNER, READER, STEPPER = (
    "owner-0123456789abcdef",
    "reader-0123456789abcdef",
    "steps-0123456789abcdef",
)
FLAGS = dict(slots=4, max_rows=4, max_tokens=64)


def lines(**tokens: tuple[str, str]) -> str:
    return "".join(f"{name} {rights} {token}\n" for name, (rights, token) in tokens.items())


@pytest.fixture(scope="module")
def tokens(tmp_path_factory):
    path = tmp_path_factory.mktemp("tokens") / "tokens"
    steps = "GetServerInfo,Prefill,Decode"
    path.write_text(lines(owner=("all", OWNER), reader=("read", READER), stepper=(steps, STEPPER)))
    return path


@pytest.fixture(scope="module")
def server(start, tokens):
    return start("small", tokens=tokens, **FLAGS)


@pytest.mark.parametrize("token", [None, "", "reader", OWNER + "0"])
def test_without_a_token_that_is_known(server, token):
    with pytest.raises(Unauthenticated) as e:
        Client(server.target, token=token, retry=NO_RETRY)
    assert e.value.reason == "TOKEN_INVALID" and e.value.instance_id


def test_all(server):
    with Client(server.target, token=OWNER, retry=NO_RETRY) as client:
        handle = begin(client, "a")
        with client.stream() as stream:
            stream.decode(0, client.rows(**handle), hidden(client, 1)).result(60)
        assert [s.request_id for s in client.list_sequences()] == ["a"]
        client.release(["a"])


def test_read(server):
    with Client(server.target, token=READER, retry=NO_RETRY) as client:
        assert list(client.list_sequences()) == []
        rows = client.rows(request_ids=["a"], create=True)
        with pytest.raises(PermissionDenied) as e:
            client.prefill(0, rows, hidden(client, 1))
        assert e.value.reason == "METHOD_DENIED" and "reader" in str(e.value)
        with pytest.raises(PermissionDenied):
            client.release(["a"])
        with pytest.raises(PermissionDenied):
            client.stream().decode(0, rows, hidden(client, 1)).result(60)
        assert list(client.list_sequences()) == []


def test_rights_by_method(server):
    with Client(server.target, token=STEPPER, retry=NO_RETRY) as client:
        handle = begin(client, "b")
        client.decode(0, client.rows(**handle, release_after=True), hidden(client, 1))
        with pytest.raises(PermissionDenied):
            client.get_sequence("b")


def test_asyncio(server):
    async def run(token):
        async with AsyncClient(server.target, token=token, retry=NO_RETRY) as client:
            return [s async for s in client.list_sequences()]

    assert asyncio.run(run(READER)) == []
    with pytest.raises(Unauthenticated):
        asyncio.run(run(None))


def test_health_is_open_and_reflection_is_not(server):
    with grpc.insecure_channel(server.target) as channel:
        answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.RpcError) as e:
            ProtoReflectionDescriptorDatabase(channel).get_services()
        assert e.value.code() == grpc.StatusCode.UNAUTHENTICATED
        path = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
        call = channel.stream_stream(path)
        reader = (("authorization", f"Bearer {READER}"),)
        answers = list(call(iter([b"\x3a\x00"]), metadata=reader, timeout=60))
        assert b"gdn.v1.GdnService" in answers[0]


def test_tokens_change_without_a_restart(start, tmp_path):
    path = tmp_path / "tokens"
    path.write_text(lines(a=("all", OWNER)))
    server = start("small", tokens=path, reload_interval="1s", **FLAGS)
    shown = [OWNER]
    with Client(server.target, token=lambda: shown[0], retry=NO_RETRY) as client:
        path.write_text("nonsense\n")  # what is wrong leaves the tokens of before
        poll(lambda: "tokens_kept" in server.log.read_text())
        begin(client, "a")
        path.write_text(lines(b=("all", STEPPER)))
        poll(lambda: refuses(client))
        shown[0] = STEPPER
        client.release(["a"])
    assert OWNER not in server.log.read_text() and STEPPER not in server.log.read_text()


def refuses(client) -> bool:
    try:
        client.get_sequence("a")
    except Unauthenticated:
        return True
    return False


@pytest.mark.parametrize("text", [None, "", "a all short\n", "a some 0123456789abcdef\n"])
def test_a_file_that_is_wrong_ends_the_start(start, tmp_path, text):
    path = tmp_path / "tokens"
    if text is not None:
        path.write_text(text)
    with pytest.raises(RuntimeError, match=f"ended with 1:(.|\n)*{path}"):
        start("small", tokens=path, **FLAGS)


def test_gdn_ctl(server, gdn_ctl, tmp_path):
    token = tmp_path / "token"
    token.write_text(READER + "\n")

    def run(*words):
        return subprocess.run(
            [gdn_ctl, f"--target={server.target}", *words], capture_output=True, text=True
        )

    assert run(f"--token_file={token}", "info").returncode == 0
    assert "PERMISSION_DENIED METHOD_DENIED" in run(f"--token_file={token}", "release", "a").stderr
    assert "UNAUTHENTICATED TOKEN_INVALID" in run("info").stderr
    assert run("health").returncode == 0
