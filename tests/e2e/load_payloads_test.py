"""A real server takes the load tests' payloads, again and again, whether it has seen them or not."""

import sys
from pathlib import Path

import grpc
import pytest
from gdn_client.proto import message

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "load"))
import hosts  # noqa: E402
import payloads  # noqa: E402


@pytest.fixture(scope="module")
def channel(served):
    server = served("small", dtype="bf16", slots=payloads.SEQUENCES + 1)
    with grpc.insecure_channel(server.target) as channel:
        yield channel


def call(channel, method: str, request):
    stub = channel.unary_unary(
        f"/gdn.v1.GdnService/{method}",
        request_serializer=lambda r: r.SerializeToString(),
        response_deserializer=message(f"{method}Response").FromString,
    )
    return stub(request, timeout=60)


def hidden_size(channel) -> int:
    info = call(channel, "GetServerInfo", message("GetServerInfoRequest")())
    return info.geometry.hidden_size


def test_the_server_says_its_rows_a_batch(start):
    server = start("small", dtype="bf16", slots=2, metrics_listen="127.0.0.1:0")
    with grpc.insecure_channel(server.target) as channel:
        first = payloads.decodes(hidden_size(channel))[0]
        for _ in range(3):
            call(channel, "Decode", first)
    assert hosts.end(server) == 1


@pytest.mark.parametrize(
    "method,make", [("Decode", payloads.decodes), ("Prefill", payloads.prefills)]
)
def test_it_takes_them_twice(channel, method, make):
    requests = make(hidden_size(channel))
    for request in requests + requests:
        assert len(call(channel, method, request).output) == len(request.input)
