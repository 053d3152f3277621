"""The wire format of the messages on the hot path, written and read here instead of by protobuf: a
tensor is joined behind its header and read in place. Both ends are ordinary protobuf messages.

    PrefillRequest, DecodeRequest    layer = 1, batch = 2, shared_memory = 3, synthetic_seed = 4,
                                     input = 15
    PrefillResponse, DecodeResponse  slots = 1, epochs = 2, replayed_rows = 3, output = 15
    StreamRequest, StreamResponse    tag = 1, status = 2, prefill = 14, decode = 15
"""

from __future__ import annotations

from collections.abc import Iterator

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


def varint(n: int) -> bytes:
    """A non-negative integer."""
    if n < 0x80:
        return bytes((n,))
    out = bytearray()
    while n > 0x7F:
        out.append(n & 0x7F | 0x80)
        n >>= 7
    out.append(n)
    return bytes(out)


def tag(field: int, wire_type: int) -> bytes:
    return varint(field << 3 | wire_type)


def delimited(field: int, data) -> bytes:
    """A field of bytes, or of a message or packed array."""
    return b"".join((tag(field, BYTES), varint(len(data)), data))


def shared_memory(region: str, input_offset: int, output_offset: int) -> bytes:
    """The field `shared_memory` of a PrefillRequest or DecodeRequest."""
    offsets = (b"\x10", varint(input_offset), b"\x18", varint(output_offset))
    return delimited(3, b"".join((delimited(1, region.encode()), *offsets)))


def step_request(
    layer: int, batch: bytes, tensors: list[memoryview], seed: int = 0, shared: bytes = b""
) -> list:
    """A PrefillRequest or DecodeRequest, in parts to be joined. `batch` and `shared` are whole
    fields, tag and length included."""
    size = sum(t.nbytes for t in tensors)
    synthetic = b"\x21" + seed.to_bytes(8, "little") if seed else b""
    head = [b"\x08", varint(layer), batch, shared, synthetic]
    return [*head, b"\x7a", varint(size), *tensors] if size else head


def stream_request(step_tag: int, field: int, step: list) -> bytes:
    """A StreamRequest of a step_request; `field` is 14 for a prefill, 15 for a decode."""
    size = sum(len(part) for part in step)
    return b"".join((b"\x08", varint(step_tag), tag(field, BYTES), varint(size), *step))


def _read_varint(data, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def fields(data) -> Iterator[tuple[int, int | memoryview]]:
    """(field number, value) of each field of a message: an int for varints, else a view of its
    bytes.

    Raises ValueError where `data` is no message.
    """
    data, at = memoryview(data), 0
    while at < len(data):
        try:
            key, at = _read_varint(data, at)
            wire_type = key & 7
            if wire_type == VARINT:
                value, at = _read_varint(data, at)
            else:
                size, at = _read_varint(data, at) if wire_type == BYTES else (_FIXED[wire_type], at)
                value, at = data[at : at + size], at + size
        except (IndexError, KeyError):
            raise ValueError("the answer is not a message of gdn.v1") from None
        if at > len(data):
            raise ValueError("the answer is cut short")
        yield key >> 3, value


_FIXED = {FIXED64: 8, FIXED32: 4}
