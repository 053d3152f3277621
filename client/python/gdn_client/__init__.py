"""Client of the GDN layer server. Start at Client (blocking) or AsyncClient (asyncio)."""

from .access import Tls
from .aio import AsyncClient, AsyncStream
from .client import Client
from .cuda import CudaRegion
from .dtype import expand_bf16, round_to_bf16, to_wire
from .errors import (
    Aborted,
    AlreadyExists,
    CallerError,
    Cancelled,
    DataLoss,
    DeadlineExceeded,
    FailedPrecondition,
    GdnError,
    Internal,
    Interrupted,
    InvalidArgument,
    MessageTooLarge,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    StateLost,
    Unauthenticated,
    Unavailable,
    Unimplemented,
)
from .keeper import AsyncKeeper, Keeper
from .layout import DataType, Geometry, Layout
from .region import Region
from .retry import NO_RETRY, RetryPolicy
from .ring import Posted, Ring
from .rows import PAD_SLOT, Rows
from .shared import Shared
from .stream import Stream
from .types import Answer, Renewal, Sequence, ServerInfo

__all__ = [
    "NO_RETRY",
    "PAD_SLOT",
    "Aborted",
    "AlreadyExists",
    "Answer",
    "AsyncClient",
    "AsyncKeeper",
    "AsyncStream",
    "CallerError",
    "Cancelled",
    "Client",
    "CudaRegion",
    "DataLoss",
    "DataType",
    "DeadlineExceeded",
    "FailedPrecondition",
    "GdnError",
    "Geometry",
    "Internal",
    "Interrupted",
    "InvalidArgument",
    "Keeper",
    "Layout",
    "MessageTooLarge",
    "NotFound",
    "PermissionDenied",
    "Posted",
    "Region",
    "Renewal",
    "ResourceExhausted",
    "RetryPolicy",
    "Ring",
    "Rows",
    "Sequence",
    "ServerInfo",
    "Shared",
    "StateLost",
    "Stream",
    "Tls",
    "Unauthenticated",
    "Unavailable",
    "Unimplemented",
    "expand_bf16",
    "round_to_bf16",
    "to_wire",
]
