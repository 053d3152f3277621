"""The blocking client."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence as Seq
from functools import partial
from typing import TYPE_CHECKING

import grpc
from numpy.typing import ArrayLike

from . import calls
from .access import Tls, Token, metadata, open_channel
from .calls import Call, Calls
from .cuda import CudaRegion
from .errors import Cancelled, Unavailable, from_rpc_error
from .layout import Layout
from .region import Region
from .retry import ENDLESS, RetryPolicy
from .ring import Ring
from .rows import Rows
from .stream import Stream
from .types import Answer, Renewal, Sequence, ServerInfo

if TYPE_CHECKING:
    import torch


class Client:
    """A connection to one server; safe to use from several threads.

        with Client("unix:/run/gdn.sock") as client:
            rows = client.rows(request_ids=["a", "b"], token_counts=[3, 5], create=True)
            answer = client.prefill(layer, rows, hidden)   # [8, hidden_size] in and out

    Every call raises a class of gdn_client.errors. UNAVAILABLE, DEADLINE_EXCEEDED, CANCELLED and
    RESOURCE_EXHAUSTED it answers itself first, as `retry` says, with the same bytes and so the same
    step_id.
    """

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
        """Connects and asks for the server's facts (`info`).

        target           "host:port" or "unix:/path"
        timeout          seconds for one try of a call; None: no limit
        connect_timeout  seconds to wait for a server that is starting
        tls              how to speak TLS; None: plain text
        token            bearer token for a server that asks for one, or a function that returns it
        affinity         behind a proxy: clients with the same one reach the same server
        options          further gRPC channel arguments
        """
        self._timeout, self._retry = timeout, retry
        self._token, self._affinity = token, affinity
        self._channel = open_channel(grpc, target, tls, [*calls.CHANNEL_OPTIONS, *options])
        self._stubs: dict[str, grpc.UnaryUnaryMultiCallable] = {}
        self.info: ServerInfo = self._connect(connect_timeout)
        self._calls = Calls(self.info)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connection and the calls under way. Sequences stay until their leases end."""
        self._channel.close()

    def _connect(self, timeout: float) -> ServerInfo:
        end = time.monotonic() + timeout
        for attempt in itertools.count(1):
            left = max(end - time.monotonic(), 0.0)
            try:
                return self._once(calls.server_info(), left, wait_for_ready=True)
            except grpc.RpcError as e:
                error = from_rpc_error(e)
            delay = ENDLESS.delay(error, attempt)
            if delay is None or time.monotonic() + delay >= end:
                self.close()
                raise error
            time.sleep(delay)

    def _once(self, call: Call, timeout: float | None, wait_for_ready: bool = False):
        stub = self._stubs.get(call.path)
        if stub is None:
            stub = self._stubs[call.path] = self._channel.unary_unary(call.path)
        answer = stub(
            call.request,
            timeout=timeout,
            metadata=metadata(self._token, self._affinity),
            wait_for_ready=wait_for_ready,
        )
        return call.parse(answer)

    def _run(self, call: Call):
        for attempt in itertools.count(1):
            try:
                return self._once(call, self._timeout)
            except grpc.RpcError as e:
                error = from_rpc_error(e)
            delay = self._retry.delay(error, attempt, call.repeatable)
            if delay is None:
                raise error
            time.sleep(delay)

    def step_id(self) -> int:
        """A new id for a step, or for the steps of a pass: not 0, unlike those of other clients."""
        return self._calls.step_id()

    def rows(
        self,
        *,
        request_ids: Seq[str] | None = None,
        slots: ArrayLike | None = None,
        epochs: ArrayLike | None = None,
        positions: ArrayLike | None = None,
        token_counts: ArrayLike | None = None,
        layout: Layout = Layout.HIDDEN,
        step_id: int | None = None,
        create: bool = False,
        release_after: bool = False,
        speculative: bool = False,
        discard_output: bool = False,
    ) -> Rows:
        """The rows of a step, encoded once for every layer of a pass. Arrays are lists or numpy.

        request_ids    the caller's ids; "" is a padding row
        slots, epochs  the fast form, from an earlier Answer; a negative slot is a padding row
        positions      tokens folded in before this step, at every layer; None: append
        token_counts   tokens of each row; None: 1 each
        layout         what `x` will hold
        step_id        None: a new one. 0: the step cannot be retried safely
        create         begin the sequences that are not there (first layer of the first chunk only)
        release_after  end the sequences once the call is answered
        speculative    keep the states between the tokens until the next step
        discard_output answer without the output
        """
        return self._calls.rows(
            layout,
            step_id,
            request_ids=request_ids,
            slots=slots,
            epochs=epochs,
            positions=positions,
            token_counts=token_counts,
            create=create,
            release_after=release_after,
            speculative=speculative,
            discard_output=discard_output,
        )

    def prefill(self, layer: int, rows: Rows, x=None, *, synthetic_seed: int = 0) -> Answer:
        """Folds tokens into the rows' sequences at `layer`.

        x: [tokens, hidden_size] of any floating-point type, the rows' tokens back to back, padding
        rows' included; for a projected layout the tuple of its tensors (see Layout); or Region.at,
        where they lie in shared memory. With synthetic_seed, None: the server makes the input.

        Raises InvalidArgument, NotFound, Aborted, DataLoss, FailedPrecondition, ResourceExhausted,
        MessageTooLarge, Unavailable, DeadlineExceeded, Cancelled, Internal.
        """
        return self._run(self._calls.step("Prefill", layer, rows, x, synthetic_seed))

    def decode(self, layer: int, rows: Rows, x=None, *, synthetic_seed: int = 0) -> Answer:
        """As prefill, for at most info.max_decode_tokens tokens a row; it goes before prefills."""
        return self._run(self._calls.step("Decode", layer, rows, x, synthetic_seed))

    def stream(self) -> Stream:
        """Opens a pipelined stream of steps. Use one for prefills and another for decodes."""
        method = self._channel.stream_stream(calls.STREAM_PATH)
        return Stream(partial(method, metadata=metadata(self._token, self._affinity)), self._calls)

    def region(self, size: int, *, prefix: str = "gdn", mode: int = 0o600) -> Region:
        """Memory of `size` bytes that is shared with the server, which must be on this machine, see
        the same /dev/shm and run with --allow_shared_memory.

        prefix  its --shared_memory_prefix
        mode    of the object in /dev/shm: 0o666 where the server runs as another user

        Raises Unimplemented, PermissionDenied, InvalidArgument, Unavailable, OSError.
        """
        return Region(
            size,
            prefix,
            mode,
            lambda *region: self._run(calls.register_region(*region)),
            self._unregister,
        )

    def cuda_region(self, tensor: torch.Tensor) -> CudaRegion:
        """The memory of a contiguous PyTorch tensor on the server's GPU, shared with the server,
        which must run there with --allow_shared_memory. Another process has allocated it.

        Raises Unimplemented, InvalidArgument, Unavailable, OSError, ValueError.
        """
        return CudaRegion(
            tensor,
            lambda *region: self._run(calls.register_cuda_region(*region)),
            self._unregister,
        )

    def _unregister(self, region: str) -> None:
        try:
            self._once(calls.unregister_region(region), self._timeout)
        except grpc.RpcError as e:
            error = from_rpc_error(e)
            if not isinstance(
                error, (Cancelled, Unavailable)
            ):  # a server that is gone let go of it
                raise error from None

    def ring(
        self,
        *,
        depth: int = 2,
        step_bytes: int | None = None,
        queue_bytes: int | None = None,
        prefix: str = "gdn",
        mode: int = 0o600,
    ) -> Ring:
        """Opens a ring in shared memory, by which steps are posted without a call each; see region.

        depth        steps that may be under way
        step_bytes   of the largest input and of the largest output; None: max_rows of one token
        queue_bytes  of the queues of requests and of responses: a power of two; None: room for some

        Raises as region.
        """
        serve = self._channel.unary_stream(calls.SHARED_MEMORY + "ServeRing")
        return Ring(
            partial(serve, metadata=metadata(self._token, self._affinity)),
            self._calls,
            partial(self.region, prefix=prefix, mode=mode),
            depth,
            step_bytes,
            queue_bytes,
        )

    def get_sequence(self, request_id: str) -> Sequence:
        """One sequence. Raises NotFound, InvalidArgument."""
        return self._run(self._calls.get_sequence(request_id))

    def list_sequences(self, page_size: int = 0) -> Iterator[Sequence]:
        """All sequences in order of slot, asked for in pages (of 1000 unless page_size is less)."""
        token = None
        while token != "":
            sequences, token = self._run(self._calls.list_sequences(page_size, token or ""))
            yield from sequences

    def release(self, request_ids: Seq[str], epochs: ArrayLike | None = None) -> None:
        """Ends sequences; one that is not there (or not with its epoch, where that is not 0) is no
        error. Raises InvalidArgument."""
        self._run(self._calls.release(request_ids, epochs))

    def renew(self, request_ids: Seq[str], ttl: float | None = None) -> Renewal:
        """Lengthens leases to `ttl` seconds from now (None: info.step_ttl).

        Raises InvalidArgument."""
        return self._run(self._calls.renew(request_ids, ttl))

    def health(self, service: str = "") -> str:
        """SERVING or NOT_SERVING, asked once, without a retry. Raises Unavailable,
        DeadlineExceeded."""
        try:
            return self._once(calls.health(service), self._timeout)
        except grpc.RpcError as e:
            raise from_rpc_error(e) from None
