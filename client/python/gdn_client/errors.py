"""What a call may raise. One class for each status code, under one for each reaction:

CallerError    the program or the set-up is wrong: no retry
               InvalidArgument, FailedPrecondition, PermissionDenied, Unimplemented, MessageTooLarge
StateLost      the state is gone: prefill the sequence again from token 0
               NotFound; DataLoss (Release first)
Aborted        the sequence is elsewhere: continue from .positions, or Release and prefill
AlreadyExists  take another id, or Release first
ResourceExhausted  nothing was done: wait .retry_delay, the same call (the client has tried)
Interrupted    it may or may not have been done: the same rows again, with their step_id
               Unavailable, DeadlineExceeded, Cancelled (the client has tried)
Internal       the device or the server is broken: watch health, go elsewhere
"""

from __future__ import annotations

import grpc
from google.rpc import error_details_pb2, status_pb2

from .proto import message, reason_name

_RowErrors = message("RowErrors")


class GdnError(Exception):
    """A call that failed.

    code           grpc.StatusCode
    reason         name of the gdn.v1.ErrorReason, e.g. "POSITION_MISMATCH"; "" where gRPC itself
                   made the status (a lost connection, a deadline)
    rows           {row: reason} of every row named. None of the batch has changed, except after
                   NON_FINITE_INPUT and DEVICE_ERROR, where the others have committed. Send
                   Rows.padded(error.rows) at the same layer: it is the same step
    positions      {row: position at this layer} of the rows whose reason is POSITION_MISMATCH
    instance_id    of the server; a new one means that it was restarted and every sequence is gone
    metadata       what else the reason says
    retry_delay    seconds to wait, or None
    """

    def __init__(self, code: grpc.StatusCode, text: str = "", details=()):
        self.code = code
        self.reason = ""
        self.rows: dict[int, str] = {}
        self.positions: dict[int, int] = {}
        self.metadata: dict[str, str] = {}
        self.retry_delay: float | None = None
        for detail in details:
            self._take(detail)
        self.instance_id = self.metadata.pop("instance_id", "")
        named = f" rows {self.rows}" if self.rows else ""
        super().__init__(f"{code.name} {self.reason or 'from gRPC'}: {text}{named}")

    def _take(self, detail) -> None:
        if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
            info = error_details_pb2.ErrorInfo.FromString(detail.value)
            self.reason, self.metadata = info.reason, dict(info.metadata)
        elif detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
            delay = error_details_pb2.RetryInfo.FromString(detail.value).retry_delay
            self.retry_delay = delay.seconds + delay.nanos / 1e9
        elif detail.Is(_RowErrors.DESCRIPTOR):
            errors = _RowErrors.FromString(detail.value)
            self.rows.update(dict.fromkeys(errors.rows, reason_name(errors.reason)))
            self.positions.update(zip(errors.rows, errors.positions))


class CallerError(GdnError):
    """The program or the set-up is wrong: no retry."""


class InvalidArgument(CallerError):
    """The request breaks a rule. With reason NON_FINITE_INPUT: only the rows named were refused."""


class FailedPrecondition(CallerError):
    """The server is not set up for this request."""


class PermissionDenied(CallerError):
    """The server does not allow this."""


class Unauthenticated(CallerError):
    """The server asks for a token, and knows no such one."""


class Unimplemented(CallerError):
    """The server does not have this method."""


class MessageTooLarge(CallerError):
    """The message is over the server's max_message_bytes: split the step."""


class StateLost(GdnError):
    """The state is gone: prefill the sequence again from token 0."""


class NotFound(StateLost):
    """No such sequence: never begun, released, expired, or of an earlier server."""


class DataLoss(StateLost):
    """The sequence's state is undefined: Release it first."""


class Aborted(GdnError):
    """The sequence is elsewhere: continue from .positions, or Release and prefill."""


class AlreadyExists(GdnError):
    """The id is taken."""


class ResourceExhausted(GdnError):
    """No slot or no room in the queue; nothing was done."""


class Interrupted(GdnError):
    """It may or may not have been done: the same rows again, with their step_id."""


class Unavailable(Interrupted):
    """The server is starting, draining or not to be reached."""


class DeadlineExceeded(Interrupted):
    """No answer in time."""


class Cancelled(Interrupted):
    """The call or its stream was cancelled."""


class Internal(GdnError):
    """The device or the server is broken: watch health, go elsewhere."""


_CLASSES = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidArgument,
    grpc.StatusCode.FAILED_PRECONDITION: FailedPrecondition,
    grpc.StatusCode.UNAUTHENTICATED: Unauthenticated,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDenied,
    grpc.StatusCode.UNIMPLEMENTED: Unimplemented,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.DATA_LOSS: DataLoss,
    grpc.StatusCode.ABORTED: Aborted,
    grpc.StatusCode.ALREADY_EXISTS: AlreadyExists,
    grpc.StatusCode.RESOURCE_EXHAUSTED: ResourceExhausted,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    grpc.StatusCode.CANCELLED: Cancelled,
}
_CODES = {code.value[0]: code for code in grpc.StatusCode}


def make_error(code: grpc.StatusCode, text: str = "", details=()) -> GdnError:
    """The exception for a status; `details` are google.protobuf.Any."""
    error = _CLASSES.get(code, Internal)(code, text, details)
    if code == grpc.StatusCode.RESOURCE_EXHAUSTED and not error.reason:
        return MessageTooLarge(code, text, details)
    return error


def from_rpc_error(error: grpc.RpcError) -> GdnError:
    """The exception for what grpc or grpc.aio raised."""
    raw = next(
        (v for k, v in error.trailing_metadata() or () if k == "grpc-status-details-bin"), b""
    )
    return make_error(
        error.code(), error.details() or "", status_pb2.Status.FromString(raw).details
    )


def from_status(status) -> GdnError:
    """The exception for a google.rpc.Status."""
    return make_error(
        _CODES.get(status.code, grpc.StatusCode.UNKNOWN), status.message, status.details
    )
