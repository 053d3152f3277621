"""Leases end visibly; steps and heartbeats lengthen them."""

import threading

import numpy as np
import pytest
from gdn_client import Client, InvalidArgument, Keeper, NO_RETRY, NotFound
from server_process import poll
from steps import begin, hidden, reason_of

FLAGS = dict(
    slots=4, max_rows=4, max_tokens=96, max_decode_tokens=4, step_ttl="300ms", max_ttl="100s"
)


@pytest.fixture
def client(served):
    server = served("small", **FLAGS)
    with Client(server.target, retry=NO_RETRY, timeout=60) as client:
        yield client
        client.release([s.request_id for s in client.list_sequences()])
    assert server.alive


def expire(client, *names):
    poll(lambda: all(reason_of(client.get_sequence, name) == "SEQUENCE_EXPIRED" for name in names))


def test_info(client):
    assert (client.info.step_ttl, client.info.max_ttl) == (0.3, 100.0)


def test_it_ends_and_says_so(client):
    h = begin(client, "a", "b")
    expire(client, "a", "b")
    x = hidden(client, 2)
    with pytest.raises(NotFound) as e:
        client.decode(0, client.rows(**h, positions=[3, 3]), x)
    assert e.value.rows == {0: "SEQUENCE_EXPIRED", 1: "SEQUENCE_EXPIRED"}
    assert reason_of(client.decode, 0, client.rows(request_ids=["a", "b"]), x) == "SEQUENCE_EXPIRED"
    assert list(client.list_sequences()) == [] and client.renew(["a"]).missing == ["a"]


def test_its_slot_is_free_again_and_empty(client):
    names = [f"n{i}" for i in range(4)]
    begin(client, *names, tokens=5)
    expire(client, *names)
    begin(client, "fresh", tokens=2, seed=3)
    client.renew(["fresh"], ttl=50)
    client.release(["fresh-twin"])
    begin(client, "fresh-twin", tokens=2, seed=3)
    client.renew(["fresh-twin"], ttl=50)
    x = hidden(client, 1)
    a, b = (
        client.decode(0, client.rows(request_ids=[n]), x).output for n in ("fresh", "fresh-twin")
    )
    assert np.array_equal(a, b)


def test_an_expired_id_may_begin_again(client):
    first = begin(client, "a")
    expire(client, "a")
    second = begin(client, "a")
    assert first["epochs"] != second["epochs"]


def test_renew_lengthens_and_never_shortens(client):
    begin(client, "a")
    assert client.renew(["a"], ttl=50) == (client.info.instance_id, [])
    long = client.get_sequence("a").expire_time
    client.renew(["a"], ttl=1)
    client.renew(["a"])
    client.decode(0, client.rows(request_ids=["a"]), hidden(client, 1))
    assert client.get_sequence("a").expire_time == long
    begin(client, "b")
    expire(client, "b")
    assert client.get_sequence("a").positions[0] == 4


def test_steps_lengthen(client):
    begin(client, "a")
    before = client.get_sequence("a").expire_time
    poll(
        lambda: (
            client.decode(0, client.rows(request_ids=["a"]), hidden(client, 1))
            and client.get_sequence("a").expire_time > before
        )
    )
    after = client.get_sequence("a").expire_time
    rows = client.rows(request_ids=["a"], token_counts=[0])
    poll(
        lambda: (
            client.decode(0, rows, hidden(client, 0))
            and client.get_sequence("a").expire_time > after
        )
    )


def test_a_lease_over_max_ttl_is_refused(client):
    begin(client, "a", "b")
    client.renew(["a", "b"], ttl=20)
    before = [s.expire_time for s in client.list_sequences()]
    with pytest.raises(InvalidArgument) as e:
        client.renew(["a", "b"], ttl=101)
    assert (
        e.value.reason == "UNSUPPORTED"
        and [s.expire_time for s in client.list_sequences()] == before
    )


def test_a_bad_id_renews_and_releases_nothing(client):
    begin(client, "a")
    client.renew(["a"], ttl=20)
    before = client.get_sequence("a")
    for bad in ("b c", "x" * 129, ""):
        assert reason_of(client.renew, ["a", bad], ttl=50) == "MALFORMED_ID"
        assert reason_of(client.release, ["a", bad]) == "MALFORMED_ID"
        assert reason_of(client.get_sequence, bad) in ("MALFORMED_ID", "SEQUENCE_NOT_FOUND")
    assert client.get_sequence("a") == before


def test_the_heartbeat_keeps_what_waits(client):
    told, lost = threading.Event(), []
    begin(client, "kept", "lost")
    with Keeper(client, lambda ids: (lost.extend(ids), told.set()), ttl=20, period=0.02) as keeper:
        keeper.add(["kept", "lost"])
        poll(
            lambda: (
                client.get_sequence("kept").expire_time > client.get_sequence("kept").create_time
                and client.renew(["kept"]).missing == []
            )
        )
        client.release(["lost"])
        assert told.wait(30)
        begin(client, "witness")
        expire(client, "witness")
    assert lost == ["lost"] and client.get_sequence("kept").positions[0] == 3
