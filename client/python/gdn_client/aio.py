"""The client for asyncio: the same calls as Client's, awaited."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Sequence as Seq
from functools import partial

import grpc
from numpy.typing import ArrayLike

from . import calls, wire
from .access import Tls, Token, metadata, open_channel
from .calls import DECODE_FIELD, PREFILL_FIELD, Call, Calls
from .errors import Cancelled, GdnError, Internal, from_rpc_error
from .layout import Layout
from .retry import ENDLESS, RetryPolicy
from .rows import Rows
from .stream import read_answer
from .types import Answer, Renewal, Sequence, ServerInfo


class AsyncClient:
    """A connection to one server, for use on one event loop.

        async with AsyncClient("127.0.0.1:50051") as client:
            rows = client.rows(request_ids=["a"], create=True)
            answer = await client.prefill(layer, rows, hidden)

    Arguments, calls and errors are those of Client; `info` is there once it was entered (or after
    `await client.connect()`).
    """

    info: ServerInfo

    def __init__(
        self,
        target: str,
        *,
        timeout: float | None = 10.0,
        connect_timeout: float = 30.0,
        retry: RetryPolicy = RetryPolicy(),
        tls: Tls | None = None,
        token: Token | None = None,
        affinity: str | None = None,
        options: Seq[tuple[str, object]] = (),
    ):
        self._target, self._options = target, [*calls.CHANNEL_OPTIONS, *options]
        self._tls, self._token, self._affinity = tls, token, affinity
        self._timeout, self._connect_timeout, self._retry = timeout, connect_timeout, retry
        self._stubs: dict[str, grpc.aio.UnaryUnaryMultiCallable] = {}

    async def __aenter__(self) -> AsyncClient:
        return await self.connect()

    async def __aexit__(self, *_) -> None:
        await self.close()

    async def connect(self) -> AsyncClient:
        """Connects and asks for the server's facts. Raises Unavailable, DeadlineExceeded."""
        self._channel = open_channel(grpc.aio, self._target, self._tls, self._options)
        loop = asyncio.get_running_loop()
        end = loop.time() + self._connect_timeout
        for attempt in itertools.count(1):
            try:
                left = max(end - loop.time(), 0.0)
                self.info = await self._once(calls.server_info(), left, wait_for_ready=True)
                break
            except grpc.RpcError as e:
                error = from_rpc_error(e)
            delay = ENDLESS.delay(error, attempt)
            if delay is None or loop.time() + delay >= end:
                await self.close()
                raise error
            await asyncio.sleep(delay)
        self._calls = Calls(self.info)
        return self

    async def close(self) -> None:
        """Ends the connection and the calls under way. Sequences stay until their leases end."""
        await self._channel.close()

    async def _once(self, call: Call, timeout: float | None, wait_for_ready: bool = False):
        stub = self._stubs.get(call.path)
        if stub is None:
            stub = self._stubs[call.path] = self._channel.unary_unary(call.path)
        answer = await stub(
            call.request,
            timeout=timeout,
            metadata=metadata(self._token, self._affinity),
            wait_for_ready=wait_for_ready,
        )
        return call.parse(answer)

    async def _run(self, call: Call):
        for attempt in itertools.count(1):
            try:
                return await self._once(call, self._timeout)
            except grpc.RpcError as e:
                error = from_rpc_error(e)
            delay = self._retry.delay(error, attempt, call.repeatable)
            if delay is None:
                raise error
            await asyncio.sleep(delay)

    def step_id(self) -> int:
        """See Client.step_id."""
        return self._calls.step_id()

    def rows(self, *, layout: Layout = Layout.HIDDEN, step_id: int | None = None, **fields) -> Rows:
        """See Client.rows."""
        return self._calls.rows(layout, step_id, **fields)

    async def prefill(self, layer: int, rows: Rows, x=None, *, synthetic_seed: int = 0) -> Answer:
        """See Client.prefill."""
        return await self._run(self._calls.step("Prefill", layer, rows, x, synthetic_seed))

    async def decode(self, layer: int, rows: Rows, x=None, *, synthetic_seed: int = 0) -> Answer:
        """See Client.decode."""
        return await self._run(self._calls.step("Decode", layer, rows, x, synthetic_seed))

    def stream(self) -> AsyncStream:
        """See Client.stream."""
        method = self._channel.stream_stream(calls.STREAM_PATH)
        return AsyncStream(
            partial(method, metadata=metadata(self._token, self._affinity)), self._calls
        )

    async def get_sequence(self, request_id: str) -> Sequence:
        """See Client.get_sequence."""
        return await self._run(self._calls.get_sequence(request_id))

    async def list_sequences(self, page_size: int = 0) -> AsyncIterator[Sequence]:
        """See Client.list_sequences."""
        token = None
        while token != "":
            sequences, token = await self._run(self._calls.list_sequences(page_size, token or ""))
            for sequence in sequences:
                yield sequence

    async def release(self, request_ids: Seq[str], epochs: ArrayLike | None = None) -> None:
        """See Client.release."""
        await self._run(self._calls.release(request_ids, epochs))

    async def renew(self, request_ids: Seq[str], ttl: float | None = None) -> Renewal:
        """See Client.renew."""
        return await self._run(self._calls.renew(request_ids, ttl))

    async def health(self, service: str = "") -> str:
        """See Client.health."""
        try:
            return await self._once(calls.health(service), self._timeout)
        except grpc.RpcError as e:
            raise from_rpc_error(e) from None


class AsyncStream:
    """As Stream: prefill() and decode() return at once, with an asyncio.Future of the Answer."""

    def __init__(self, method: grpc.aio.StreamStreamMultiCallable, calls: Calls):
        self._calls = calls
        self._pending: dict[int, tuple[Rows, object, asyncio.Future]] = {}
        self._next_tag = 1
        self._ended: GdnError | None = None
        self._requests: asyncio.Queue = asyncio.Queue()
        self._call = method(self._outgoing())
        self._reader = asyncio.get_running_loop().create_task(self._read())

    async def __aenter__(self) -> AsyncStream:
        return self

    async def __aexit__(self, *_) -> None:
        await self.close()

    def prefill(self, layer: int, rows: Rows, x=None, *, synthetic_seed: int = 0) -> asyncio.Future:
        """See Client.prefill."""
        return self._send(PREFILL_FIELD, layer, rows, x, synthetic_seed)

    def decode(self, layer: int, rows: Rows, x=None, *, synthetic_seed: int = 0) -> asyncio.Future:
        """See Client.decode."""
        return self._send(DECODE_FIELD, layer, rows, x, synthetic_seed)

    async def close(self) -> None:
        """Sends no more, waits for the answers to what was sent, and ends the stream."""
        self._requests.put_nowait(None)
        await self._reader

    async def cancel(self) -> None:
        """Ends the stream at once; steps under way fail with Cancelled."""
        self._call.cancel()
        await self.close()

    def _send(self, kind: int, layer: int, rows: Rows, x, seed: int) -> asyncio.Future:
        if self._ended:
            raise self._ended
        tag, self._next_tag = self._next_tag, self._next_tag + 1
        request = wire.stream_request(tag, kind, self._calls.request(layer, rows, x, seed))
        future = asyncio.get_running_loop().create_future()
        self._pending[tag] = (rows, x, future)
        self._requests.put_nowait(request)
        return future

    async def _outgoing(self) -> AsyncIterator[bytes]:
        while (request := await self._requests.get()) is not None:
            yield request

    async def _read(self) -> None:
        error: GdnError = Cancelled(grpc.StatusCode.CANCELLED, "the stream was closed")
        try:
            async for data in self._call:
                future, result = read_answer(self._calls, data, self._pending)
                if future.done():  # the caller cancelled it
                    continue
                if isinstance(result, GdnError):
                    future.set_exception(result)
                else:
                    future.set_result(result)
        except grpc.RpcError as e:
            error = from_rpc_error(e)
        except ValueError as e:
            error = Internal(grpc.StatusCode.UNKNOWN, str(e))
            self._call.cancel()
        except asyncio.CancelledError:
            pass  # by cancel()
        self._ended = error
        for *_, future in self._pending.values():
            if not future.done():
                future.set_exception(error)
        self._pending.clear()
        self._requests.put_nowait(None)
