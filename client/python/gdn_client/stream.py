"""Steps pipelined over one call, with answers matched to their requests by tag."""

from __future__ import annotations

import queue
import threading
from concurrent.futures import Future

import grpc
from google.protobuf.message import DecodeError
from google.rpc import status_pb2

from . import wire
from .calls import DECODE_FIELD, PREFILL_FIELD, Calls
from .errors import Cancelled, GdnError, Internal, from_rpc_error, from_status
from .rows import Rows


def read_answer(calls: Calls, data: bytes, pending: dict):
    """Takes the step that a StreamResponse answers out of `pending`: {tag: (rows, x, future)}.

    Returns (future, Answer or GdnError). Raises ValueError where it answers none.
    """
    found = dict(wire.fields(data))
    if found.get(1) not in pending:
        raise ValueError("an answer without a request")
    rows, x, future = pending[found[1]]
    if 2 in found:
        try:
            answer = from_status(status_pb2.Status.FromString(bytes(found[2])))
        except DecodeError as e:
            raise ValueError("an answer that does not parse") from e
    else:
        answer = calls.answer(found.get(PREFILL_FIELD, found.get(DECODE_FIELD, b"")), rows, x)
    del pending[found[1]]
    return future, answer


class Stream:
    """A stream of steps. prefill() and decode() return at once, with a Future of the Answer.

    A step that fails has its own exception, and the stream goes on. When the stream itself ends,
    the steps under way fail with why (Unavailable, DeadlineExceeded, Cancelled: they may or may not
    have committed); open a new one and send them again with the same rows. Nothing is retried here.
    """

    def __init__(self, method: grpc.StreamStreamMultiCallable, calls: Calls):
        self._calls = calls
        self._lock = threading.Lock()
        self._pending: dict[int, tuple[Rows, object, Future]] = {}
        self._next_tag = 1
        self._ended: GdnError | None = None
        self._requests: queue.SimpleQueue = queue.SimpleQueue()
        self._call = method(iter(self._requests.get, None))
        self._reader = threading.Thread(target=self._read, name="gdn-stream", daemon=True)
        self._reader.start()

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def prefill(self, layer: int, rows: Rows, x=None, *, synthetic_seed: int = 0) -> Future:
        """See Client.prefill."""
        return self._send(PREFILL_FIELD, layer, rows, x, synthetic_seed)

    def decode(self, layer: int, rows: Rows, x=None, *, synthetic_seed: int = 0) -> Future:
        """See Client.decode."""
        return self._send(DECODE_FIELD, layer, rows, x, synthetic_seed)

    def close(self) -> None:
        """Sends no more, waits for the answers to what was sent, and ends the stream."""
        self._requests.put(None)
        self._reader.join()

    def cancel(self) -> None:
        """Ends the stream at once; steps under way fail with Cancelled."""
        self._call.cancel()
        self.close()

    def _send(self, kind: int, layer: int, rows: Rows, x, seed: int) -> Future:
        step = self._calls.request(layer, rows, x, seed)
        future: Future = Future()
        future.set_running_or_notify_cancel()  # a step cannot be taken back
        with self._lock:
            if self._ended:
                raise self._ended
            tag, self._next_tag = self._next_tag, self._next_tag + 1
            self._pending[tag] = (rows, x, future)
            self._requests.put(wire.stream_request(tag, kind, step))
        return future

    def _read(self) -> None:
        error: GdnError = Cancelled(grpc.StatusCode.CANCELLED, "the stream was closed")
        try:
            for data in self._call:
                with self._lock:
                    future, result = read_answer(self._calls, data, self._pending)
                if isinstance(result, GdnError):
                    future.set_exception(result)
                else:
                    future.set_result(result)
        except grpc.RpcError as e:
            error = from_rpc_error(e)
        except ValueError as e:
            error = Internal(grpc.StatusCode.UNKNOWN, str(e))
            self._call.cancel()
        with self._lock:
            self._ended = error
            left, self._pending = self._pending, {}
        for *_, future in left.values():
            future.set_exception(error)
        self._requests.put(None)
