"""Steps through a ring in shared memory: the same answers, errors and replays as by call, and no
harm by whoever breaks it, or dies."""

import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from gdn_client import (
    NO_RETRY,
    Client,
    GdnError,
    Interrupted,
    InvalidArgument,
    NotFound,
    Unavailable,
)
from gdn_client.errors import from_rpc_error
from gdn_client.proto import message
from gdn_client.ring_memory import WORDS
from objects import SERVICE, SharedObject, register, unregister
from server_process import SMALL
from steps import Twins, begin, hidden, reason_of

QUEUE = 1 << 15


@pytest.fixture(scope="session")
def server(served):
    return served("small", **SMALL, allow_shared_memory=True)


@pytest.fixture
def ring(client):
    with client.ring(queue_bytes=QUEUE, step_bytes=1 << 15, depth=4) as ring:
        yield ring


@pytest.mark.parametrize("method,tokens", [("decode", 1), ("decode", 4), ("prefill", 60)])
def test_the_same_answers_as_by_call(client, ring, method, tokens):
    twins = Twins(client, "a")
    x = hidden(client, tokens, 1)
    rows = [
        client.rows(slots=[slot], epochs=[epoch], positions=[3], token_counts=[tokens])
        for slot, epoch in zip(twins.handles["slots"], twins.handles["epochs"])
    ]
    for layer in client.info.layers:
        posted = getattr(ring, method)(layer, rows[0], x).output.copy()
        assert np.array_equal(posted, getattr(client, method)(layer, rows[1], x).output)


def test_by_id(client, ring):
    rows = client.rows(request_ids=["a", "", "b"], create=True)
    answer = ring.decode(0, rows, hidden(client, 3))
    assert answer.slots[1] == -1 and answer.epochs[0] != 0 and not answer.output[1].any()
    assert client.get_sequence("a").slot == answer.slots[0]


def test_many_steps_go_around_the_queues(client, ring):
    h = begin(client, "a", "b")
    x = hidden(client, 2)
    for position in range(3, 800):
        ring.decode(0, client.rows(**h, positions=[position] * 2), x)
    assert [s.positions[0] for s in client.list_sequences()] == [800, 800]


def test_many_are_under_way(client, ring):
    """More than there are places: posting waits for answers."""
    h = begin(client, "a")
    posted = [ring.post_decode(0, client.rows(**h), hidden(client, 1, i)) for i in range(50)]
    assert all(len(p.result(60).output) == 1 for p in posted)
    assert client.get_sequence("a").positions[0] == 53
    one = begin(client, "b")
    last = [client.decode(0, client.rows(**one), hidden(client, 1, i)).output for i in range(50)]
    assert np.array_equal(posted[-1].result().output, last[-1])


def test_tensors_of_another_region(client, ring):
    h, x = begin(client, "a", "b"), hidden(client, 2)
    with client.region(2 * x.nbytes) as region:
        region.array(x.shape, x.dtype)[:] = x
        rows = client.rows(**h)
        shared = ring.decode(0, rows, region.at(0, x.nbytes)).output.copy()
        assert np.array_equal(client.decode(0, rows, x).output, shared)  # replayed
        lost = ring.post_decode(0, client.rows(**h), region.at(2**64 - 1, 0))
        assert reason_of(lost.result, 60) == "INPUT_SIZE_MISMATCH"


def test_replays_by_either_way(client, ring):
    h, x = begin(client, "a"), hidden(client, 1)
    rows = client.rows(**h, positions=[3])
    first = ring.decode(0, rows, x).output.copy()
    for way in (ring, client):
        again = way.decode(0, rows, x)
        assert again.replayed_rows == 1 and np.array_equal(again.output, first)
    rows = client.rows(**h, positions=[4])
    first = client.decode(0, rows, x).output
    assert np.array_equal(ring.decode(0, rows, x).output, first)


def test_errors_are_those_of_a_call(client, ring):
    twins = Twins(client, "a")
    x = hidden(client, 1)
    bad = np.full_like(x, np.nan)
    cases = [
        (dict(request_ids=["nobody"]), x),
        (dict(**twins.handle, positions=[9]), x),
        (dict(slots=[999], epochs=[1]), x),
        (dict(**twins.handle, token_counts=[99]), hidden(client, 99)),
        (dict(**twins.handle), bad),
        (dict(request_ids=["a b"]), x),
        (dict(request_ids=["a", "a"]), hidden(client, 2)),
    ]
    for fields, tensor in cases:
        errors = []
        for way in (client, ring):
            with pytest.raises(GdnError) as e:
                way.decode(0, client.rows(**fields), tensor)
            error = e.value
            errors.append((type(error), str(error), error.rows, error.positions, error.instance_id))
        assert errors[0] == errors[1]
    twins.assert_untouched()
    ring.decode(0, client.rows(**twins.handles), hidden(client, 2))


def test_what_the_client_refuses_itself(client, ring):
    begin(client, "a")
    rows = client.rows(request_ids=["a"], token_counts=[90])
    with pytest.raises(ValueError):  # 90 tokens take less, but not 200
        ring.prefill(0, client.rows(request_ids=["a"], token_counts=[200]), hidden(client, 200))
    with pytest.raises(ValueError):
        ring.decode(0, client.rows(request_ids=["x" * 128] * 300), synthetic_seed=1)
    assert len(ring.prefill(0, rows, hidden(client, 90)).output) == 90


def test_two_rings_beside_calls(client):
    begin(client, "a", "b", "c")
    x = hidden(client, 1)
    with client.ring() as one, client.ring() as other:
        for _ in range(20):
            posted = one.post_decode(0, client.rows(request_ids=["a"]), x)
            second = other.post_decode(0, client.rows(request_ids=["b"]), x)
            third = client.decode(0, client.rows(request_ids=["c"]), x).output
            assert np.allclose(posted.result(60).output, third, atol=1e-5)
            assert np.allclose(second.result(60).output, third, atol=1e-5)


def test_a_closed_ring(client):
    begin(client, "a")
    ring = client.ring()
    ring.decode(0, client.rows(request_ids=["a"]), hidden(client, 1))
    ring.close()
    with pytest.raises(Interrupted):
        ring.decode(0, client.rows(request_ids=["a"]), hidden(client, 1))
    assert client.get_sequence("a").positions[0] == 4


@pytest.mark.parametrize("word,value", [(0, 1), (0, 2**64 - 1), (0, 1 << 40), (24, 12345)])
def test_a_damaged_ring_ends_with_a_reason(client, word, value):
    twins = Twins(client, "a")
    with client.ring(queue_bytes=QUEUE) as ring:
        words = memoryview(ring._region.memory)[:WORDS].cast("Q")
        if word != 0:
            words[word] = value
        posted = ring.post_decode(0, client.rows(request_ids=["nobody"]), hidden(client, 1))
        if word == 0:
            posted.done()
            words[word] = value
            ring._memory._wake(64)
        with pytest.raises((InvalidArgument, NotFound)) as e:
            posted.result(60)
        if e.value.reason == "SEQUENCE_NOT_FOUND":  # it was answered before
            with pytest.raises(InvalidArgument) as e:
                ring._wait(lambda: False, 60)
        assert e.value.reason == "MALFORMED_MESSAGE"
    twins.assert_untouched()


def test_random_bytes_all_over_a_ring(client):
    twins, rng = Twins(client, "a"), np.random.default_rng(5)
    for _ in range(40):
        with client.ring(queue_bytes=QUEUE) as ring:
            memory = ring._region.array((WORDS + QUEUE,), np.uint8)
            ring.post_decode(0, client.rows(request_ids=["nobody"]), hidden(client, 1))
            for _ in range(20):
                at = rng.integers(0, WORDS if rng.random() < 0.5 else memory.size, 50)
                memory[at] = rng.integers(0, 256, 50)
                ring._memory._futex(64, 1, 1, None)
            ring._pending.clear()
            ring._memory.read = lambda: None  # what is there now is nobody's answer
    twins.assert_untouched()


def test_a_truncated_ring_ends(client, channel):
    """Without the client library, which would fault as the server must not."""
    twins = Twins(client, "a")
    size = WORDS + 2 * QUEUE
    for truncated in (0, WORDS, size - 1):
        with SharedObject(size) as mine:
            register(channel, "ring", mine.name, size)
            request = message("ServeRingRequest")()
            request.ring.region = "ring"
            request.ring.request_bytes = request.ring.response_bytes = QUEUE
            call = channel.unary_stream(SERVICE + "ServeRing")(request.SerializeToString())
            next(call)
            mine.truncate(truncated)
            with pytest.raises(Exception) as e:
                next(call)
            assert from_rpc_error(e.value).reason in ("INPUT_SIZE_MISMATCH", "MALFORMED_MESSAGE")
            unregister(channel, "ring")
    twins.assert_untouched()


CHILD = """
import sys
import numpy as np
from gdn_client import Client
client = Client(sys.argv[1])
ring = client.ring(depth=8)
x = np.ones((60, client.info.geometry.hidden_size), np.float32)
rows = lambda: client.rows(request_ids=["child"], token_counts=[60], create=True)
ring.prefill(0, rows(), x)
for _ in range(7):
    ring.post_prefill(0, rows(), x)
print(ring._region.name, flush=True)
sys.stdin.read()
"""


def test_the_ring_of_a_killed_client_ends(server, client, channel):
    twins = Twins(client, "a")
    command = [sys.executable, "-c", CHILD, server.target]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        region = child.stdout.readline().decode().strip()
        os.kill(child.pid, signal.SIGKILL)
    unregister(channel, region)  # answered once ring and steps have ended
    assert client.get_sequence("child").positions[0] % 60 == 0  # whole steps or none
    twins.assert_untouched()


def test_a_server_that_dies(start):
    server = start("small", slots=2, allow_shared_memory=True)
    with Client(server.target, retry=NO_RETRY, timeout=60) as client:
        ring = client.ring()
        rows = client.rows(request_ids=["a"], create=True)
        ring.decode(0, rows, hidden(client, 1))
        server.kill()
        with pytest.raises(Unavailable):
            ring.decode(0, client.rows(request_ids=["a"]), hidden(client, 1))
        ring.close()


def test_a_server_that_drains(start):
    server = start("small", slots=2, allow_shared_memory=True, drain_timeout="1s")
    with Client(server.target, retry=NO_RETRY, timeout=60) as client:
        ring = client.ring()
        x = hidden(client, 1)
        ring.decode(0, client.rows(request_ids=["a"], create=True), x)
        server.terminate()
        with pytest.raises(Interrupted):
            while True:
                ring.decode(0, client.rows(request_ids=["a"]), x)
        ring.close()
    assert server.process.wait(60) == 0
