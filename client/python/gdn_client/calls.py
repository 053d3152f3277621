"""What the blocking and the asyncio client have in common: every call as a path, the bytes to send
and how to read what comes back."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Callable, Sequence as Seq
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from . import types, wire
from .dtype import ITEM_SIZE, from_wire, to_wire
from .layout import Layout, input_tensors, output_width
from .proto import message
from .rows import Rows
from .shared import Shared

CHANNEL_OPTIONS = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.http2.max_frame_size", (1 << 24) - 1),
    ("grpc.http2.lookahead_bytes", 1 << 24),
    ("grpc.enable_retries", 0),
    ("grpc.use_local_subchannel_pool", 1),  # a connection of its own
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 1000),
)

GDN, SEQUENCES = "/gdn.v1.GdnService/", "/gdn.v1.SequenceService/"
SHARED_MEMORY = "/gdn.v1.SharedMemoryService/"
STREAM_PATH = GDN + "Stream"
PREFILL_FIELD, DECODE_FIELD = 14, 15  # of StreamRequest and StreamResponse

_HEALTH = {0: "UNKNOWN", 1: "SERVING", 2: "NOT_SERVING", 3: "SERVICE_UNKNOWN"}
_Release, _Renew = message("ReleaseSequencesRequest"), message("RenewSequencesRequest")
_Renewed = message("RenewSequencesResponse")
_Get, _Got = message("GetSequenceRequest"), message("GetSequenceResponse")
_Register, _Unregister = (
    message("RegisterSharedMemoryRequest"),
    message("UnregisterSharedMemoryRequest"),
)
_List, _Listed = message("ListSequencesRequest"), message("ListSequencesResponse")


@dataclass(frozen=True)
class Call:
    """One unary call. Not `repeatable`: to be tried again only where nothing was done."""

    path: str
    request: bytes
    parse: Callable[[bytes], Any]
    repeatable: bool = True


def server_info() -> Call:
    parse = message("GetServerInfoResponse").FromString
    return Call(GDN + "GetServerInfo", b"", lambda data: types.server_info(parse(data)))


def register_region(region: str, posix_name: str, size: int) -> Call:
    request = _Register(region=region, posix_name=posix_name, byte_size=size)
    path = SHARED_MEMORY + "RegisterSharedMemory"
    return Call(path, request.SerializeToString(), lambda data: None, repeatable=False)


def register_cuda_region(region: str, handle: bytes, size: int) -> Call:
    request = _Register(region=region, cuda_ipc_handle=handle, byte_size=size)
    path = SHARED_MEMORY + "RegisterSharedMemory"
    return Call(path, request.SerializeToString(), lambda data: None, repeatable=False)


def unregister_region(region: str) -> Call:
    request = _Unregister(region=region)
    path = SHARED_MEMORY + "UnregisterSharedMemory"
    return Call(path, request.SerializeToString(), lambda data: None)


def health(service: str) -> Call:
    """grpc.health.v1.Health/Check, whose messages have one field each."""
    request = wire.delimited(1, service.encode()) if service else b""
    return Call(
        "/grpc.health.v1.Health/Check",
        request,
        lambda data: _HEALTH[dict(wire.fields(data)).get(1, 0)],
    )


class Calls:
    """The calls to a server whose facts are known."""

    def __init__(self, info: types.ServerInfo):
        self.info = info
        self._ids = itertools.count(secrets.randbits(62) + 1)

    def step_id(self) -> int:
        """A new id for a step or a pass: never 0, unlike those of other clients."""
        return next(self._ids)

    def rows(self, layout: Layout, step_id: int | None, **fields) -> Rows:
        step_id = self.step_id() if step_id is None else step_id
        return Rows(data_type=self.info.data_type, layout=layout, step_id=step_id, **fields)

    def tensors(self, rows: Rows, x) -> list[memoryview]:
        """The bytes of an input. `x`: an array, a tuple of them, or None with a seed."""
        arrays = () if x is None else x if isinstance(x, tuple) else (x,)
        kinds = input_tensors(self.info.geometry, rows.layout, rows.data_type)
        if x is not None and len(arrays) != len(kinds):
            raise ValueError(f"{rows.layout.name} takes {len(kinds)} tensors, not {len(arrays)}")
        return [_bytes(to_wire(array, kind)) for array, (_, kind) in zip(arrays, kinds)]

    def request(self, layer: int, rows: Rows, x, seed: int) -> list:
        """A PrefillRequest or DecodeRequest, in parts to be joined once. `x`: as of tensors(), or
        where they lie in a region."""
        if isinstance(x, Shared):
            return wire.step_request(layer, rows.encoded, [], seed, x.encoded)
        return wire.step_request(layer, rows.encoded, self.tensors(rows, x), seed)

    def output_bytes(self, rows: Rows) -> int:
        """Of the output of a step of these rows."""
        width = output_width(self.info.geometry, rows.layout)
        return rows.tokens * width * ITEM_SIZE[rows.data_type]

    def answer(self, data, rows: Rows, x=None) -> types.Answer:
        """Reads the PrefillResponse or DecodeResponse to request(…, rows, x, …) in place."""
        output, slots, epochs, replayed = b"", None, None, 0
        for number, value in wire.fields(data):
            if number == 15:
                output = value
            elif number == 1:
                slots = np.frombuffer(value, "<i4")
            elif number == 2:
                epochs = np.frombuffer(value, "<u8")
            elif number == 3:
                replayed = value
        width = output_width(self.info.geometry, rows.layout)
        if isinstance(x, Shared) and not rows.discard_output:
            tensor = x.output(self.output_bytes(rows), rows.data_type, width)
        else:
            tensor = from_wire(output, rows.data_type, width)
        return types.Answer(tensor, slots, epochs, replayed)

    def step(self, method: str, layer: int, rows: Rows, x, seed: int) -> Call:
        return Call(
            GDN + method,
            b"".join(self.request(layer, rows, x, seed)),
            lambda data: self.answer(data, rows, x),
            rows.step_id != 0,
        )

    def get_sequence(self, request_id: str) -> Call:
        return Call(
            SEQUENCES + "GetSequence",
            _Get(request_id=request_id).SerializeToString(),
            lambda data: types.sequence(_Got.FromString(data).sequence, self.info.layers),
        )

    def list_sequences(self, page_size: int, page_token: str) -> Call:
        """Answers (sequences, next page token)."""

        def parse(data: bytes) -> tuple[list[types.Sequence], str]:
            m = _Listed.FromString(data)
            return [types.sequence(s, self.info.layers) for s in m.sequences], m.next_page_token

        request = _List(page_size=page_size, page_token=page_token)
        return Call(SEQUENCES + "ListSequences", request.SerializeToString(), parse)

    def release(self, request_ids: Seq[str], epochs: ArrayLike | None) -> Call:
        epochs = () if epochs is None else map(int, np.asarray(epochs, np.uint64))
        request = _Release(request_ids=request_ids, epochs=epochs)
        return Call(SEQUENCES + "ReleaseSequences", request.SerializeToString(), lambda data: None)

    def renew(self, request_ids: Seq[str], ttl: float | None) -> Call:
        def parse(data: bytes) -> types.Renewal:
            m = _Renewed.FromString(data)
            return types.Renewal(m.instance_id, list(m.missing_request_ids))

        request = _Renew(request_ids=request_ids)
        if ttl is not None:
            request.ttl.FromNanoseconds(round(ttl * 1e9))
        return Call(SEQUENCES + "RenewSequences", request.SerializeToString(), parse)


def _bytes(x: np.ndarray) -> memoryview:
    return memoryview(x.reshape(-1).view(np.uint8))
