"""Steps posted in shared memory instead of sent: gdn.v1.Ring, which says how it is laid out."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable

import grpc

from . import wire
from .calls import DECODE_FIELD, PREFILL_FIELD, Calls
from .dtype import ITEM_SIZE
from .errors import Cancelled, DeadlineExceeded, GdnError, Unavailable, from_rpc_error
from .layout import input_tensors, output_width
from .proto import message
from .region import Region
from .ring_memory import TO_READ, TO_WRITE, WORDS, RingMemory, record_bytes
from .rows import Rows
from .shared import Shared
from .stream import read_answer
from .types import Answer

_ServeRing = message("ServeRingRequest")

_SPIN = 1e-3 if len(os.sched_getaffinity(0)) >= 4 else 0.0  # seconds of looking before a sleep


class Posted:
    """A step that was posted in a ring."""

    __slots__ = ("_place", "_result", "_ring")

    def __init__(self, ring: Ring, place: int | None):
        self._ring, self._place = ring, place
        self._result: Answer | GdnError | None = None

    def done(self) -> bool:
        self._ring._take_answers()
        return self._result is not None

    def result(self, timeout: float | None = None) -> Answer:
        """Waits for the answer. Raises as Client.prefill; DeadlineExceeded after `timeout` seconds:
        the step is under way still, and may be waited for again."""
        self._ring._wait(lambda: self._result is not None, timeout)
        if isinstance(self._result, GdnError):
            raise self._result
        return self._result


class Ring:
    """A ring of one thread, with room for the tensors of `depth` steps.

        with client.ring() as ring:
            answer = ring.decode(layer, rows, x)

    An answer's output is a view of the ring's memory, good until the next step is posted. Nothing is
    retried. When the ring ends (Unavailable: the server is gone), steps without an answer may or may
    not have committed: send them again, by whatever way, with the same rows.
    """

    def __init__(
        self,
        serve: grpc.UnaryStreamMultiCallable,
        calls: Calls,
        make_region: Callable[[int], Region],
        depth: int,
        step_bytes: int | None,
        queue_bytes: int | None,
    ):
        queue_bytes = queue_bytes or _some_messages(calls)
        self._calls = calls
        self._step_bytes = step_bytes or _largest_decode(calls)
        self._first = WORDS + 2 * queue_bytes
        self._region = make_region(self._first + 2 * depth * self._step_bytes)
        self._places = deque(range(depth))
        self._pending: dict[int, tuple[Rows, object, Posted]] = {}
        self._next_tag = 1
        self._ended: GdnError | None = None
        try:
            self._memory = RingMemory(self._region.memory, queue_bytes)
            self._call = self._open(serve)
        except BaseException:
            self._region.close()
            raise
        self._watcher = threading.Thread(target=self._watch, name="gdn-ring", daemon=True)
        self._watcher.start()

    def __enter__(self) -> Ring:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        """Ends the ring; steps without an answer fail with Cancelled."""
        self._call.cancel()
        self._watcher.join()
        self._fail_pending()
        self._region.close()

    def prefill(self, layer: int, rows: Rows, x=None, *, synthetic_seed: int = 0) -> Answer:
        """See Client.prefill; `x` is copied into the ring's memory, unless it is Region.at."""
        return self.post_prefill(layer, rows, x, synthetic_seed=synthetic_seed).result()

    def decode(self, layer: int, rows: Rows, x=None, *, synthetic_seed: int = 0) -> Answer:
        """See Client.decode, and prefill."""
        return self.post_decode(layer, rows, x, synthetic_seed=synthetic_seed).result()

    def post_prefill(self, layer: int, rows: Rows, x=None, *, synthetic_seed: int = 0) -> Posted:
        """As prefill, without waiting for the answer. Where `depth` steps are under way it waits for
        one of them."""
        return self._post(PREFILL_FIELD, layer, rows, x, synthetic_seed)

    def post_decode(self, layer: int, rows: Rows, x=None, *, synthetic_seed: int = 0) -> Posted:
        """See post_prefill."""
        return self._post(DECODE_FIELD, layer, rows, x, synthetic_seed)

    def _open(self, serve: grpc.UnaryStreamMultiCallable):
        request = _ServeRing()
        request.ring.region = self._region.name
        request.ring.request_bytes = request.ring.response_bytes = self._memory.size
        call = serve(request.SerializeToString())
        try:
            next(call)
        except grpc.RpcError as e:
            raise from_rpc_error(e) from None
        except StopIteration:
            raise Unavailable(grpc.StatusCode.UNAVAILABLE, "the ring is not served") from None
        return call

    def _watch(self) -> None:
        try:
            for _ in self._call:
                pass
            error: GdnError = Cancelled(grpc.StatusCode.CANCELLED, "the ring has ended")
        except grpc.RpcError as e:
            error = from_rpc_error(e)
        self._ended = error
        self._memory.wake()

    def _post(self, kind: int, layer: int, rows: Rows, x, seed: int) -> Posted:
        place = None
        if not isinstance(x, Shared):
            tensors = self._calls.tensors(rows, x)
            largest = max(sum(t.nbytes for t in tensors), self._calls.output_bytes(rows))
            if largest > self._step_bytes:
                raise ValueError(f"the step has {largest} bytes, the ring takes {self._step_bytes}")
            self._wait(lambda: bool(self._places), None)
            place = self._places.popleft()
            x = self._fill(place, tensors)
        try:
            return self._write(kind, layer, rows, x, seed, place)
        except BaseException:
            if place is not None:
                self._places.append(place)
            raise

    def _write(self, kind: int, layer: int, rows: Rows, x, seed: int, place: int | None) -> Posted:
        tag, self._next_tag = self._next_tag, self._next_tag + 1
        step = self._calls.request(layer, rows, x, seed)
        request = wire.stream_request(tag, kind, step)
        if record_bytes(len(request)) > self._memory.size:
            raise ValueError(f"the request has {len(request)} bytes, the queue {self._memory.size}")
        self._wait(lambda: self._memory.has_room(request), None, TO_READ | TO_WRITE)
        posted = Posted(self, place)
        self._pending[tag] = (rows, x, posted)
        self._memory.write(request)
        return posted

    def _fill(self, place: int, tensors: list[memoryview]) -> Shared:
        begin = at = self._first + 2 * place * self._step_bytes
        for tensor in tensors:
            self._region.memory[at : at + tensor.nbytes] = tensor
            at += tensor.nbytes
        return self._region.at(begin, begin + self._step_bytes)

    def _take_answers(self) -> None:
        """Takes all answers that are there."""
        while (data := self._memory.read()) is not None:
            self._finish(*read_answer(self._calls, data, self._pending))

    def _finish(self, posted: Posted, result: Answer | GdnError) -> None:
        posted._result = result
        if posted._place is not None:
            self._places.append(posted._place)

    def _fail_pending(self) -> None:
        self._take_answers()  # of before the end
        left, self._pending = self._pending, {}
        for *_, posted in left.values():
            self._finish(posted, self._ended)

    def _wait(self, ready: Callable[[], bool], timeout: float | None, what: int = TO_READ) -> None:
        """Returns when it is `ready`, by answers or (TO_WRITE) by room for a request."""
        begin = time.monotonic()
        while True:
            self._take_answers()
            if ready():
                return
            if self._ended is not None:
                self._fail_pending()
                if ready():
                    return
                raise self._ended
            waited = time.monotonic() - begin
            if timeout is not None and waited >= timeout:
                raise DeadlineExceeded(grpc.StatusCode.DEADLINE_EXCEEDED, "no answer in time")
            if waited >= _SPIN:
                left = None if timeout is None else timeout - waited
                self._memory.sleep(what, left, lambda: self._ended is not None)


def _some_messages(calls: Calls) -> int:
    """A power of two, at least the bytes of 4 of the largest answers."""
    return 1 << (4 * (16384 + 16 * calls.info.max_rows) - 1).bit_length()


def _largest_decode(calls: Calls) -> int:
    """The bytes of max_rows tokens in the widest layout, in or out."""
    info = calls.info
    widths = [0]
    for layout in info.input_layouts:
        tensors = input_tensors(info.geometry, layout, info.data_type)
        widths.append(sum(width * ITEM_SIZE[kind] for width, kind in tensors))
        widths.append(output_width(info.geometry, layout) * ITEM_SIZE[info.data_type])
    return max(widths) * info.max_rows
