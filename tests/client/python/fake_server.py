"""A server that speaks gdn.v1 with a toy layer, in this process, and can be told to misbehave.

At each layer y[t] = S + x[t], then S = S / 2 + x[t], over the first columns of the first tensor; so
an answer shows which tokens were folded in before it. Only what the client's tests need is there.
"""

from __future__ import annotations

import threading
from collections import deque
from concurrent import futures
from dataclasses import dataclass, field

import grpc
import numpy as np
from gdn_client.proto import message
from google.protobuf.any_pb2 import Any
from google.rpc import error_details_pb2, status_pb2

HIDDEN, CONV_DIM, VALUE_HEADS, VALUE_SIZE = 8, 16, 2, 8
LAYERS = (0, 4)
REASONS = message("RowErrors").DESCRIPTOR.fields_by_name["reason"].enum_type.values_by_name
CODES = {
    "SEQUENCE_NOT_FOUND": grpc.StatusCode.NOT_FOUND,
    "POSITION_MISMATCH": grpc.StatusCode.ABORTED,
    "SLOTS_EXHAUSTED": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "QUEUE_FULL": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "DRAINING": grpc.StatusCode.UNAVAILABLE,
    "STATE_POISONED": grpc.StatusCode.DATA_LOSS,
    "ID_IN_USE": grpc.StatusCode.ALREADY_EXISTS,
    "DEVICE_ERROR": grpc.StatusCode.INTERNAL,
    "REGION_NOT_FOUND": grpc.StatusCode.FAILED_PRECONDITION,
    "REGION_DENIED": grpc.StatusCode.PERMISSION_DENIED,
    "METHOD_DENIED": grpc.StatusCode.PERMISSION_DENIED,
    "TOKEN_INVALID": grpc.StatusCode.UNAUTHENTICATED,
}


class Fault(Exception):
    """A refusal: a reason, and {reason: {row: position}}."""

    def __init__(
        self, reason: str, rows: dict | None = None, retry_ms: int | None = None, **metadata: str
    ):
        super().__init__(reason)
        self.reason, self.rows, self.retry_ms, self.metadata = (
            reason,
            rows or {},
            retry_ms,
            metadata,
        )

    def status(self, instance_id: str) -> status_pb2.Status:
        code = CODES.get(self.reason, grpc.StatusCode.INVALID_ARGUMENT)
        metadata = {"instance_id": instance_id, **self.metadata}
        details = [
            error_details_pb2.ErrorInfo(reason=self.reason, domain="gdn.v1", metadata=metadata)
        ]
        if self.retry_ms is not None:
            details.append(error_details_pb2.RetryInfo())
            details[-1].retry_delay.FromMilliseconds(self.retry_ms)
        for reason, rows in self.rows.items():
            positions = list(rows.values()) if reason == "POSITION_MISMATCH" else []
            details.append(
                message("RowErrors")(
                    reason=REASONS[f"ERROR_REASON_{reason}"].number,
                    rows=list(rows),
                    positions=positions,
                )
            )
        status = status_pb2.Status(code=code.value[0], message=self.reason.lower())
        for detail in details:
            status.details.append(Any())
            status.details[-1].Pack(detail)
        return status


@dataclass
class Cursor:
    state: np.ndarray = field(default_factory=lambda: np.zeros(HIDDEN, np.float32))
    position: int = 0
    step_id: int = 0
    answer: np.ndarray | None = None


@dataclass
class Tenant:
    request_id: str
    epoch: int
    layers: dict = field(default_factory=lambda: {layer: Cursor() for layer in LAYERS})


class FakeServer:
    """`faults`: what the next step calls do, in order: a Fault or grpc.StatusCode is answered
    before anything runs, "lose" runs the step and answers DEADLINE_EXCEEDED as if the answer was
    lost."""

    def __init__(self, data_type: int = 3, slots: int = 4, step_ttl: float = 30.0):
        self.data_type, self.step_ttl = data_type, step_ttl
        self.instance_id, self.epoch = "first", 1 << 60
        self.tenants: list[Tenant | None] = [None] * slots
        self.faults: deque = deque()
        self.requests: list[bytes] = []
        self.renewals: list[list[str]] = []
        self.lock = threading.Lock()
        self.server = grpc.server(
            futures.ThreadPoolExecutor(8), options=[("grpc.max_receive_message_length", 1 << 20)]
        )
        self.server.add_generic_rpc_handlers(self._handlers())
        self.port = self.server.add_insecure_port("127.0.0.1:0")
        self.server.start()

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.port}"

    def stop(self) -> None:
        self.server.stop(None).wait()

    def restart(self) -> None:
        """All sequences are gone, and the instance is another."""
        self.instance_id += "'"
        self.tenants = [None] * len(self.tenants)

    def _handlers(self):
        unary = grpc.unary_unary_rpc_method_handler
        gdn = {
            "GetServerInfo": unary(self._info),
            "Prefill": unary(self._answered),
            "Decode": unary(self._answered),
            "Stream": grpc.stream_stream_rpc_method_handler(self._stream),
        }
        sequences = {
            "GetSequence": unary(self._get),
            "ListSequences": unary(self._list),
            "ReleaseSequences": unary(self._release),
            "RenewSequences": unary(self._renew),
        }
        health = {"Check": unary(lambda data, context: b"\x08\x01")}
        return tuple(
            grpc.method_handlers_generic_handler(name, methods)
            for name, methods in (
                ("gdn.v1.GdnService", gdn),
                ("gdn.v1.SequenceService", sequences),
                ("grpc.health.v1.Health", health),
            )
        )

    # Steps.
    def _info(self, data, context):
        m = message("GetServerInfoResponse")(
            version="fake",
            instance_id=self.instance_id,
            layers=LAYERS,
            data_type=self.data_type,
            ssm_data_type=3,
            input_layouts=[1, 2, 3, 4, 5],
            max_rows=8,
            max_tokens=64,
            max_decode_tokens=1,
            max_message_bytes=1 << 20,
            slots=len(self.tenants),
            slots_used=len(self.tenants) - self.tenants.count(None),
            geometry=dict(
                hidden_size=HIDDEN,
                key_heads=1,
                value_heads=VALUE_HEADS,
                key_dim=4,
                value_dim=4,
                conv_width=4,
            ),
        )
        m.step_ttl.FromMilliseconds(int(self.step_ttl * 1000))
        m.max_ttl.FromSeconds(3600)
        return m.SerializeToString()

    def _fail(self, context, fault):
        if isinstance(fault, grpc.StatusCode):
            context.abort(fault, "scripted")
        status = fault.status(self.instance_id)
        context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
        context.abort(CODES.get(fault.reason, grpc.StatusCode.INVALID_ARGUMENT), status.message)

    def _answered(self, data, context):
        self.requests.append(data)
        fault = self.faults.popleft() if self.faults else None
        if fault is not None and fault != "lose":
            self._fail(context, fault)
        try:
            answer = self._step(message("DecodeRequest").FromString(data))
        except Fault as e:
            self._fail(context, e)
        if fault == "lose":
            context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "lost")
        return answer.SerializeToString()

    def _stream(self, requests, context):
        for data in requests:
            m = message("StreamRequest").FromString(data)
            kind = m.WhichOneof("step")
            answer = message("StreamResponse")(tag=m.tag)
            fault = self.faults.popleft() if self.faults else None
            if isinstance(fault, grpc.StatusCode):
                context.abort(fault, "scripted")
            try:
                if fault:
                    raise fault
                step = message("DecodeRequest").FromString(getattr(m, kind).SerializeToString())
                getattr(answer, kind).MergeFromString(self._step(step).SerializeToString())
            except Fault as e:
                answer.status.CopyFrom(e.status(self.instance_id))
            yield answer.SerializeToString()

    def _read_input(self, m, tokens: int) -> np.ndarray:
        wire_type = {1: np.uint16, 2: np.float16, 3: np.float32}[self.data_type]
        width = HIDDEN if m.batch.input_layout == 1 else CONV_DIM
        x = np.frombuffer(m.input, wire_type, count=tokens * width).reshape(tokens, width)[
            :, :HIDDEN
        ]
        return (
            (x.astype(np.uint32) << 16).view(np.float32)
            if self.data_type == 1
            else x.astype(np.float32)
        )

    def _row(self, b, row: int, bad: dict) -> int | None:
        """The slot of a row; None for padding. A row at fault goes into `bad`."""
        name, epoch = (b.request_ids[row], 0) if b.request_ids else (b.slots[row], b.epochs[row])
        if name == "" or not b.request_ids and name < 0:
            return None
        live = {t.request_id: s for s, t in enumerate(self.tenants) if t}
        slot = live.get(name) if b.request_ids else name
        if slot is None and b.create:
            return self._allocate(name)
        if slot is None or not self.tenants[slot] or epoch not in (0, self.tenants[slot].epoch):
            bad.setdefault("SEQUENCE_NOT_FOUND", {})[row] = 0
        return slot

    def _allocate(self, request_id: str) -> int:
        if None not in self.tenants:
            raise Fault("SLOTS_EXHAUSTED", retry_ms=1)
        slot = self.tenants.index(None)
        self.epoch += 1
        self.tenants[slot] = Tenant(request_id, self.epoch)
        return slot

    def _step(self, m):
        b = m.batch
        with self.lock:
            n, bad = len(b.request_ids) + len(b.slots), {}
            counts = list(b.token_counts) or [1] * n
            x, at = (
                self._read_input(m, sum(counts)),
                np.concatenate([[0], np.cumsum(counts)]).astype(int),
            )
            slots = [self._row(b, row, bad) for row in range(n)]
            for row, slot in enumerate(slots):
                cursor = (
                    None
                    if slot is None or row in bad.get("SEQUENCE_NOT_FOUND", {})
                    else self.tenants[slot].layers[m.layer]
                )
                if (
                    cursor
                    and b.positions
                    and b.step_id != cursor.step_id
                    and cursor.position != b.positions[row]
                ):
                    bad.setdefault("POSITION_MISMATCH", {})[row] = cursor.position
                if cursor and not np.isfinite(x[at[row] : at[row + 1]]).all():
                    bad.setdefault("NON_FINITE_INPUT", {})[row] = 0
            answer = message("DecodeResponse")()
            y = np.zeros((sum(counts), HIDDEN), np.float32)
            if not set(bad) - {"NON_FINITE_INPUT"}:
                for row, slot in enumerate(slots):
                    if slot is not None and row not in bad.get("NON_FINITE_INPUT", {}):
                        part = slice(at[row], at[row + 1])
                        answer.replayed_rows += self._fold(
                            self.tenants[slot].layers[m.layer], b.step_id, x[part], y[part]
                        )
            if bad:
                raise Fault(min(bad, key=lambda reason: min(bad[reason])), bad)
            if b.request_ids:
                answer.slots.extend(-1 if s is None else s for s in slots)
                answer.epochs.extend(0 if s is None else self.tenants[s].epoch for s in slots)
            if b.release_after:
                for slot in filter(lambda s: s is not None, slots):
                    self.tenants[slot] = None
            if not b.discard_output:
                wire = (
                    y
                    if self.data_type == 3
                    else y.astype(np.float16)
                    if self.data_type == 2
                    else (y.view(np.uint32) >> 16).astype(np.uint16)
                )
                answer.output = wire.tobytes()
            return answer

    def _fold(self, cursor: Cursor, step_id: int, x: np.ndarray, y: np.ndarray) -> int:
        """Writes the output of a row to `y`; 1 if it was replayed."""
        if step_id and step_id == cursor.step_id:
            y[:] = cursor.answer
            return 1
        for t in range(len(x)):
            y[t] = cursor.state + x[t]
            cursor.state = cursor.state / 2 + x[t]
        cursor.position, cursor.step_id, cursor.answer = cursor.position + len(x), step_id, y.copy()
        return 0

    # Life of sequences.
    def _show(self, slot: int):
        tenant = self.tenants[slot]
        m = message("Sequence")(
            request_id=tenant.request_id, slot=slot, epoch=tenant.epoch, state=1
        )
        m.positions.extend(c.position for c in tenant.layers.values())
        m.create_time.FromSeconds(1000)
        m.expire_time.FromSeconds(2000)
        return m

    def _slots(self) -> dict[str, int]:
        return {t.request_id: s for s, t in enumerate(self.tenants) if t}

    def _get(self, data, context):
        name = message("GetSequenceRequest").FromString(data).request_id
        if name not in self._slots():
            self._fail(context, Fault("SEQUENCE_NOT_FOUND"))
        return message("GetSequenceResponse")(
            sequence=self._show(self._slots()[name])
        ).SerializeToString()

    def _list(self, data, context):
        m = message("ListSequencesRequest").FromString(data)
        begin, live = int(m.page_token or 0), sorted(self._slots().values())
        end = begin + (m.page_size or 1000)
        answer = message("ListSequencesResponse")(
            sequences=[self._show(s) for s in live[begin:end]]
        )
        answer.next_page_token = str(end) if end < len(live) else ""
        return answer.SerializeToString()

    def _release(self, data, context):
        m = message("ReleaseSequencesRequest").FromString(data)
        for i, name in enumerate(m.request_ids):
            slot = self._slots().get(name)
            if slot is not None and (not m.epochs or m.epochs[i] in (0, self.tenants[slot].epoch)):
                self.tenants[slot] = None
        return b""

    def _renew(self, data, context):
        m = message("RenewSequencesRequest").FromString(data)
        self.renewals.append(list(m.request_ids))
        missing = [name for name in m.request_ids if name not in self._slots()]
        answer = message("RenewSequencesResponse")(
            instance_id=self.instance_id, missing_request_ids=missing
        )
        return answer.SerializeToString()
