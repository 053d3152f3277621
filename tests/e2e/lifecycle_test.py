"""Start and end of the server, its addresses, health, reflection, and the listing of sequences."""

import asyncio
import socket

import grpc
import pytest
from gdn_client import AsyncClient, Client, GdnError, NO_RETRY, RetryPolicy
from gdn_client.proto import message
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from reference import load_layers
from server_process import poll
from steps import begin, hidden, raw_call, reason_of

FLAGS = dict(slots=4, max_rows=4, max_tokens=256)


def test_both_addresses_serve(server):
    assert [t.startswith("unix:") for t in server.targets] == [True, False]
    infos = []
    for target in server.targets:
        with Client(target) as client:
            infos.append(client.info)
    assert infos[0] == infos[1] and infos[0].version


def test_info(client, checkpoint):
    info, shape = client.info, next(iter(load_layers(checkpoint("small")).values())).shape
    assert info.layers == (0, 1, 2) and (info.slots, info.max_rows, info.max_tokens) == (12, 8, 96)
    g = info.geometry
    assert (g.hidden_size, g.key_heads, g.value_heads) == (shape.hidden, shape.H, shape.HV)
    assert (g.key_dim, g.value_dim, g.conv_width) == (shape.K, shape.V, shape.W)
    assert (
        info.max_speculative_tokens == 0 and info.max_decode_tokens == 4 and info.model_fingerprint
    )
    assert info.max_message_bytes >= info.max_tokens * 4 * g.hidden_size


def test_a_socket_that_is_listened_on_is_left_alone(launch, server):
    (path,) = (t for t in server.targets if t.startswith("unix:"))
    assert launch("small", **FLAGS, listen=path).process.wait(timeout=120) == 1
    with Client(path) as client:
        assert client.info.slots


def test_the_socket_of_a_successor_stays(start, tmp_path):
    path = tmp_path / "gdn.sock"
    first = start("small", **FLAGS, listen=f"unix:{path}")
    path.unlink()
    second = start("small", **FLAGS, listen=f"unix:{path}")
    assert first.stop() == 0
    with Client(f"unix:{path}") as client:
        assert client.info.slots
    assert second.stop() == 0 and not path.exists()


def test_an_id_may_stand_in_a_call_twice(client):
    begin(client, "a", "b")
    client.release(["a", "a", "b", "a"])
    assert list(client.list_sequences()) == []


def test_slots_used(client, server):
    begin(client, "a", "b")
    with Client(server.target) as other:
        assert other.info.slots_used == 2


def test_instances_differ_and_epochs_do_not_come_back(start):
    epochs, instances, fingerprints = set(), set(), set()
    for _ in range(2):
        server = start("small", **FLAGS)
        with Client(server.target) as client:
            epochs.update(begin(client, "a", "b")["epochs"])
            instances.add(client.info.instance_id)
            fingerprints.add(client.info.model_fingerprint)
        assert server.stop() == 0
    assert (len(epochs), len(instances), len(fingerprints)) == (4, 2, 1) and 0 not in epochs


def test_a_restart_is_seen(start, tmp_path):
    address = f"unix:{tmp_path}/s"
    first = start("small", listen=address, **FLAGS)
    with Client(address, retry=RetryPolicy(attempts=100)) as client:
        h = begin(client, "a")
        first.kill()
        start("small", listen=address, **FLAGS)
        with pytest.raises(GdnError) as e:
            client.decode(0, client.rows(**h, positions=[3]), hidden(client, 1))
        assert (
            e.value.rows == {0: "SEQUENCE_NOT_FOUND"}
            and e.value.instance_id != client.info.instance_id
        )
        renewal = client.renew(["a"])
        assert renewal.missing == ["a"] and renewal.instance_id == e.value.instance_id


def test_health(server):
    with grpc.insecure_channel(server.target) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        for service in ("", "gdn.v1.GdnService"):
            answer = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=60)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
    with Client(server.target) as client:
        assert client.health() == "SERVING"


def test_reflection(server):
    with grpc.insecure_channel(server.target) as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        services = set(database.get_services())
        assert {"gdn.v1.GdnService", "gdn.v1.SequenceService", "grpc.health.v1.Health"} <= services
        assert "gdn.v1.SharedMemoryService" not in services
        methods = DescriptorPool(database).FindServiceByName("gdn.v1.GdnService").methods_by_name
    assert set(methods) == {"GetServerInfo", "Prefill", "Decode", "Stream"}


def test_sigterm_drains_and_exits_with_0(start):
    server = start("small", drain_timeout="20s", **FLAGS)
    with Client(server.target, retry=NO_RETRY, timeout=60) as client:
        begin(client, "a")
        assert server.stop() == 0
        with pytest.raises(GdnError):
            client.decode(0, client.rows(request_ids=["a"]), hidden(client, 1))


def test_what_was_taken_is_answered_before_the_end(start):
    server = start("small", slots=4, max_rows=4, max_tokens=2048, drain_timeout="60s")
    with Client(server.target, retry=NO_RETRY, timeout=60) as client:
        stream, x = client.stream(), hidden(client, 2048)
        rows = [
            client.rows(request_ids=["a"], positions=[2048 * i], token_counts=[2048], create=i == 0)
            for i in range(12)
        ]
        futures = [stream.prefill(0, r, x) for r in rows]
        futures[0].result(60)
        server.terminate()
        outcomes = [f.exception(60) for f in futures]
        done = [e is None for e in outcomes]
        assert done[0] and done == sorted(done, reverse=True), outcomes
        assert all(e is None or e.code == grpc.StatusCode.UNAVAILABLE for e in outcomes), outcomes
        stream.cancel()
    assert server.wait() == 0


def test_no_new_sequences_while_draining(start):
    """Sees the drain from outside: health says NOT_SERVING and a row that would begin is
    DRAINING."""
    server = start("small", slots=4, max_rows=4, max_tokens=2048, drain_timeout="60s")
    with Client(server.target, retry=NO_RETRY, timeout=60) as client:
        stream, x = client.stream(), hidden(client, 2048)
        rows = [
            client.rows(request_ids=["a"], token_counts=[2048], create=i == 0) for i in range(40)
        ]
        futures = [stream.prefill(0, r, x) for r in rows]
        futures[0].result(60)
        server.terminate()
        poll(lambda: health_now(client) != "SERVING")
        reason = reason_of(
            client.decode, 0, client.rows(request_ids=["new"], create=True), hidden(client, 1)
        )
        assert reason in ("DRAINING", "UNAVAILABLE")
        stream.cancel()
    assert server.wait() == 0


def health_now(client) -> str:
    try:
        return client.health()
    except GdnError as e:
        return e.code.name


def test_an_address_that_is_taken(start):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(RuntimeError, match=f"ended with 1:(.|\n)*cannot listen on {address}"):
            start("small", listen=address, **FLAGS)


@pytest.mark.parametrize("address", ["unix:/no/such/folder/gdn.sock", "no.such.host.invalid:1"])
def test_an_address_that_cannot_be(start, tmp_path, address):
    with pytest.raises(RuntimeError, match=f"ended with 1:(.|\n)*cannot listen on {address}"):
        start("small", listen=f"unix:{tmp_path}/gdn.sock,{address}", insecure=True, **FLAGS)


@pytest.mark.parametrize(
    "flags",
    [
        dict(slots=0),
        dict(dtype="fp64"),
        dict(backend="abacus"),
        dict(no_such_flag=1),
        dict(max_rows=-1),
    ],
    ids=str,
)
def test_a_wrong_flag_ends_the_server_and_is_named(start, flags):
    with pytest.raises(RuntimeError, match=next(iter(flags))) as e:
        start("small", **flags)
    assert "ended with 0" not in str(e.value)


def test_listing_in_pages(client):
    names = [f"s{i}" for i in range(7)]
    begin(client, *names)
    everything = list(client.list_sequences())
    assert sorted(s.request_id for s in everything) == names
    assert [s.slot for s in everything] == sorted(s.slot for s in everything)
    for size in (1, 2, 3, 7, 8, 5000, -1):
        assert list(client.list_sequences(size)) == everything
    assert all(
        s.positions == {0: 3, 1: 3, 2: 3} and s.expire_time > s.create_time for s in everything
    )


def test_pages_of_a_size(client, channel):
    begin(client, *(f"s{i}" for i in range(5)))
    request, sizes = message("ListSequencesRequest")(page_size=2), []
    while True:
        data = raw_call(
            channel, "/gdn.v1.SequenceService/ListSequences", request.SerializeToString()
        )
        page = message("ListSequencesResponse").FromString(data)
        sizes.append(len(page.sequences))
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    assert sizes == [2, 2, 1]


@pytest.mark.parametrize("token", ["x", "-1", "99999999999999999999", "0 ", "\x00"])
def test_a_page_token_of_another_server(client, channel, token):
    request = message("ListSequencesRequest")(page_token=token)
    with pytest.raises(GdnError) as e:
        raw_call(channel, "/gdn.v1.SequenceService/ListSequences", request.SerializeToString())
    assert e.value.reason == "MALFORMED_ID"


def test_asyncio_client(server):
    async def run():
        async with AsyncClient(server.targets[1]) as client:
            return client.info

    assert asyncio.run(run()).layers == (0, 1, 2)
