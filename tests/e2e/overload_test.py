"""More than the server takes: what does not fit is refused at once with its type and when to try
again, and what was taken is done."""

import grpc
import pytest
from gdn_client import Client
from gdn_client.errors import from_rpc_error
from steps import begin, hidden

DECODE, PREFILL = "/gdn.v1.GdnService/Decode", "/gdn.v1.GdnService/Prefill"
FLAGS = dict(slots=12, max_rows=8, max_tokens=512, max_decode_tokens=4)


def flood(target, client, method, requests):
    """Sends them all at once; -> how many were taken. Every other one is refused as it must be."""
    with grpc.insecure_channel(target, [("grpc.enable_retries", 0)]) as channel:
        call = channel.unary_unary(method)
        futures = [call.future(request, timeout=120) for request in requests]
        taken = 0
        for future in futures:
            if future.exception() is None:
                taken += 1
                continue
            error = from_rpc_error(future.exception())
            assert (error.code, error.reason) == (
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                "QUEUE_FULL",
            )
            assert error.retry_delay > 0
            pushback = dict(future.trailing_metadata())["grpc-retry-pushback-ms"]
            assert int(pushback) == round(1000 * error.retry_delay)
    return taken


def requests(client, rows, x, count):
    return [b"".join(client._calls.request(0, rows, x, 0)) for _ in range(count)]


@pytest.mark.parametrize("limit", [dict(max_queue_rows=2), dict(max_queue_steps=1)])
def test_decodes_beyond_the_limit(served, limit):
    server = served("small", **FLAGS, **limit)
    with Client(server.target) as client:
        begin(client, "a", "b")
        rows = client.rows(request_ids=["a", "b"], step_id=0)
        taken = flood(server.target, client, DECODE, requests(client, rows, hidden(client, 2), 400))
        assert 0 < taken < 400
        assert [client.get_sequence(i).positions[0] for i in "ab"] == [3 + taken] * 2
        client.release(["a", "b"])


def test_prefills_beyond_the_bytes(served):
    server = served("small", **FLAGS, max_queue_bytes=1, prefill_chunk=64)
    with Client(server.target) as client:
        tokens = 500
        rows = client.rows(request_ids=["a"], token_counts=[tokens], create=True, step_id=0)
        taken = flood(
            server.target, client, PREFILL, requests(client, rows, hidden(client, tokens), 60)
        )
        assert 0 < taken < 60
        assert client.get_sequence("a").positions[0] == tokens * taken
        client.release(["a"])


def test_the_client_tries_again_until_there_is_room(served):
    server = served("small", **FLAGS, max_queue_steps=1)
    with Client(server.target) as client, client.stream() as stream:
        begin(client, "a")
        begin(client, "b")
        x = hidden(client, 1)
        futures = [stream.decode(0, client.rows(request_ids=["b"]), x) for _ in range(50)]
        for _ in range(20):
            client.decode(0, client.rows(request_ids=["a"]), x)
        refused = sum(future.exception(60) is not None for future in futures)
        assert client.get_sequence("a").positions[0] == 23
        assert client.get_sequence("b").positions[0] == 53 - refused
        client.release(["a", "b"])
