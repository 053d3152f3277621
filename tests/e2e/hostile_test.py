"""Bytes that are no message, on every method: a typed error, every state as it was, and a server
that lives."""

import random
import re
import socket

import grpc
import pytest
from gdn_client import GdnError
from gdn_client.errors import from_rpc_error
from gdn_client.proto import message
from google.protobuf.message import DecodeError
from steps import Twins, hidden, raw_call

GDN, SEQUENCES = "/gdn.v1.GdnService/", "/gdn.v1.SequenceService/"
METHODS = {
    GDN + "GetServerInfo": "GetServerInfoRequest",
    GDN + "Prefill": "PrefillRequest",
    GDN + "Decode": "DecodeRequest",
    SEQUENCES + "GetSequence": "GetSequenceRequest",
    SEQUENCES + "ListSequences": "ListSequencesRequest",
    SEQUENCES + "ReleaseSequences": "ReleaseSequencesRequest",
    SEQUENCES + "RenewSequences": "RenewSequencesRequest",
}
MOST_POSITION = 100  # more than any sequence here has
COPIES = ("ForkSequences", "CheckpointSequence", "RestoreSequence")


def parses(kind: str, data: bytes) -> bool:
    try:
        message(kind).FromString(data)
    except DecodeError:
        return False
    return True


def states_a_position(kind: str, data: bytes) -> bool:
    """Whether it is no step, or one that still says where its first row is: at the wrong place."""
    parsed = message(kind)()
    try:
        parsed.MergeFromString(data)
    except DecodeError:
        return True
    return not hasattr(parsed, "batch") or parsed.batch.positions[:1] > [MOST_POSITION]


def within_32_bits(data: bytes) -> bytes:
    """Varints of five bytes cut to 32 bits: of a tag, C++ drops what is above and Python refuses it."""
    return re.sub(rb"([\x80-\xff]{4})([\x10-\x7f])", lambda m: m[1] + bytes([m[2][0] & 15]), data)


def outcome(channel, path: str, data: bytes) -> str:
    try:
        raw_call(channel, path, data)
    except GdnError as e:
        assert e.reason and e.instance_id, f"{e} has no reason"
        return e.reason
    return "OK"


def agree(channel, path: str, data: bytes) -> None:
    """The server parses what the generated parser parses, and says so of what it does not."""
    malformed = outcome(channel, path, data) == "MALFORMED_MESSAGE"
    assert malformed != parses(METHODS[path], data), data.hex()


def valid_requests(client, twins) -> dict[str, bytes]:
    """A request for each method, none of which touches the first twin when it is cut short or
    garbled: steps state a position that is wrong."""
    batch = dict(
        data_type=client.info.data_type,
        step_id=77,
        request_ids=[twins.name, ""],
        positions=[999, 0],
        epochs=[twins.handle["epochs"][0], 0],
        token_counts=[1, 1],
    )
    step = dict(layer=0, batch=batch, input=hidden(client, 2).tobytes())
    fields = {
        "GetServerInfoRequest": {},
        "PrefillRequest": step,
        "DecodeRequest": step,
        "GetSequenceRequest": dict(request_id=twins.name),
        "ListSequencesRequest": dict(page_size=5),
        "ReleaseSequencesRequest": dict(
            request_ids=["nobody"], checkpoint_ids=["none"], epochs=[1]
        ),
        "RenewSequencesRequest": dict(request_ids=[twins.name], ttl=dict(seconds=5, nanos=7)),
    }
    return {
        path: message(kind)(**fields[kind]).SerializeToString() for path, kind in METHODS.items()
    }


@pytest.mark.parametrize("path", METHODS)
def test_truncated_anywhere(client, channel, path):
    twins = Twins(client, "a")
    data = valid_requests(client, twins)[path]
    for end in range(min(len(data), 160)):
        agree(channel, path, data[:end])
    if data:
        agree(channel, path, data[:-1])
    twins.assert_untouched()


@pytest.mark.parametrize("path", METHODS)
def test_random_bytes(client, channel, path):
    twins, rng = Twins(client, "a"), random.Random(path)
    for _ in range(150):
        agree(channel, path, rng.randbytes(rng.randrange(1, 40)))
    twins.assert_untouched()


@pytest.mark.parametrize("path", METHODS)
def test_garbled_headers(client, channel, path):
    """A valid message with a few bytes changed at the front, where the structure is."""
    twins, rng = Twins(client, "a"), random.Random(path)
    data = valid_requests(client, twins)[path]
    for _ in range(150 if data else 0):
        garbled = bytearray(data)
        for _ in range(rng.randrange(1, 4)):
            garbled[rng.randrange(min(len(garbled), 90))] = rng.randrange(256)
        garbled = within_32_bits(bytes(garbled))
        if states_a_position(METHODS[path], garbled):
            agree(channel, path, garbled)
    twins.assert_untouched()


NASTY = {
    "a length beyond the end": b"\x7a\xff\xff\xff\xff\x0f",
    "a length of 2^63": b"\x12\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
    "a varint that does not end": b"\x08" + b"\xff" * 12,
    "field number 0": b"\x00\x01",
    "wire type 7": b"\x0f\x00",
    "an end group": b"\x0c",
    "a group that is not closed": b"\x0b" * 200,
    "nested batches, cut": b"\x12\x7f" * 40,
    "an id that is not UTF-8": b"\x12\x04\x42\x02\xff\xfe",
}


@pytest.mark.parametrize("name", NASTY)
def test_nasty(client, channel, name):
    twins = Twins(client, "a")
    for path in (GDN + "Decode", GDN + "Prefill"):
        agree(channel, path, NASTY[name])
    twins.assert_untouched()


@pytest.mark.parametrize("method", COPIES)
def test_methods_of_later_take_any_bytes(client, channel, method):
    twins, rng = Twins(client, "a"), random.Random(method)
    for size in (0, 1, 7, 100):
        with pytest.raises(GdnError):
            raw_call(channel, SEQUENCES + method, rng.randbytes(size))
    twins.assert_untouched()


def stream_errors(channel, messages: list[bytes]) -> list[str]:
    """What a stream of `messages` answers: reasons in band, and at last that of the stream
    itself."""
    call = channel.stream_stream(GDN + "Stream")(iter(messages), timeout=60)
    reasons = []
    try:
        for data in call:
            status = message("StreamResponse").FromString(data).status
            reasons.append(status.message and "error" or "OK")
    except grpc.RpcError as e:
        reasons.append(from_rpc_error(e).reason)
    return reasons


@pytest.mark.parametrize(
    "data", [b"\xff", b"\x72\x05\x08", b"\x7a\x7f\x01", b"\x08"], ids=bytes.hex
)
def test_a_stream_of_what_is_no_message(client, channel, data):
    twins = Twins(client, "a")
    assert stream_errors(channel, [data])[-1] == "MALFORMED_MESSAGE"
    twins.assert_untouched()


@pytest.mark.parametrize("data", [b"", b"\x08\x05", b"\xa2\x06\x01\x00"], ids=bytes.hex)
def test_a_stream_message_without_a_step_ends_the_stream(client, channel, data):
    assert stream_errors(channel, [data])[-1] == "MALFORMED_BATCH"


def test_random_streams(client, channel):
    twins, rng = Twins(client, "a"), random.Random(1)
    for _ in range(40):
        stream_errors(channel, [rng.randbytes(rng.randrange(30)) for _ in range(3)])
    twins.assert_untouched()


def test_other_encodings_of_a_batch(client, channel):
    """What protobuf allows: split and unpacked arrays, a batch in two pieces, unknown fields,
    fields out of order."""
    twins = Twins(client, "a")
    x = hidden(client, 1).tobytes()
    dt, slot = bytes([8, client.info.data_type]), twins.handle["slots"][0].to_bytes(4, "little")
    epoch = twins.handle["epochs"][0].to_bytes(8, "little")
    fields = lambda *parts: b"".join(parts)  # noqa: E731
    batch = lambda data: b"\x12" + bytes([len(data)]) + data  # noqa: E731
    tensor = b"\x7a" + message("PrefillRequest")(input=x).SerializeToString()[1:]
    unpacked = fields(dt, b"\x4d", slot, b"\x51", epoch, b"\x59", (3).to_bytes(8, "little"))
    split = fields(batch(dt + b"\x4a\x04" + slot), batch(b"\x52\x08" + epoch), tensor)
    unknown = fields(b"\xa2\x06\x03abc", batch(unpacked + b"\xa8\x06\x01"), tensor, b"\xa5\x06abcd")
    reordered = fields(tensor, batch(unpacked), b"\x08\x04", b"\x08\x00")
    position = 3
    for request in (
        b"\x08\x00" + batch(unpacked) + tensor,
        split,
        unknown.replace(b"\x59\x03", b"\x59\x05"),
        reordered,
    ):
        assert parses("DecodeRequest", request)
        if b"\x59" + (3).to_bytes(8, "little") in request:
            request = request.replace(
                b"\x59" + (3).to_bytes(8, "little"), b"\x59" + position.to_bytes(8, "little")
            )
        answer = message("DecodeResponse").FromString(raw_call(channel, GDN + "Decode", request))
        assert len(answer.output) == len(x)
        position += 1
        assert client.get_sequence("a").positions[0] == position


def test_bytes_that_are_no_http(server, client):
    twins, rng = Twins(client, "a"), random.Random(5)
    address = server.targets[1].rsplit(":", 1)
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    for data in (
        b"",
        b"GET / HTTP/1.1\r\n\r\n",
        preface,
        preface + rng.randbytes(999),
        rng.randbytes(9999),
    ):
        with socket.create_connection((address[0], int(address[1]))) as connection:
            connection.sendall(data)
    twins.assert_untouched()
