"""A step whose caller gave up was dropped or committed whole; the same bytes find out which."""

import random

import grpc
import numpy as np
from gdn_client import DeadlineExceeded, wire
from gdn_client.errors import from_rpc_error
from steps import begin, hidden

DECODE = "/gdn.v1.GdnService/Decode"


def request(rows, x) -> bytes:
    return b"".join(wire.step_request(0, rows.encoded, [memoryview(x.reshape(-1).view(np.uint8))]))


def both_steps(client, channel, give_up):
    """40 decodes of one sequence, each given up and sent again, against 40 undisturbed ones of its
    twin."""
    first, twin = (begin(client, name) for name in ("a", "twin"))
    x, outcomes = hidden(client, 40, 9), {"done": 0, "gave up": 0}
    for i in range(40):
        rows = client.rows(**first, positions=[3 + i])
        outcomes[give_up(channel.unary_unary(DECODE), request(rows, x[i : i + 1]))] += 1
        answer = client.decode(0, rows, x[i : i + 1])
        assert client.get_sequence("a").positions[0] == 4 + i
        want = client.decode(0, client.rows(**twin, positions=[3 + i]), x[i : i + 1])
        assert np.array_equal(answer.output, want.output)
    client.release(["a", "twin"])
    return outcomes


def test_deadlines(client, channel):
    rng = random.Random(3)

    def give_up(method, data):
        try:
            method(data, timeout=rng.choice([0, 10 ** rng.uniform(-5, -2.5)]))
            return "done"
        except grpc.RpcError as e:
            error = from_rpc_error(e)  # QUEUE_FULL: it would not have run before its deadline
            assert isinstance(error, DeadlineExceeded) or error.reason == "QUEUE_FULL", error
            return "gave up"

    # gRPC's timers tick in milliseconds, and an idle server answers within one.
    assert any(both_steps(client, channel, give_up)["gave up"] > 0 for _ in range(50))


def test_cancellation(client, channel):
    def give_up(method, data):
        call = method.future(data, timeout=60)
        call.cancel()
        return "gave up" if call.cancelled() else "done"

    assert both_steps(client, channel, give_up)["gave up"] > 0
