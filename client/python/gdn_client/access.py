"""How a client shows who it is, and knows whom it speaks to: TLS and bearer tokens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import grpc

Token = str | Callable[[], str]
Metadata = tuple[tuple[str, str], ...] | None


@dataclass(frozen=True)
class Tls:
    """Paths of PEM files, read when the client connects.

    ca           authorities of the server's certificate; None: those that gRPC brings
    cert, key    this client's own certificate, for a server that asks for one
    server_name  the name in the server's certificate, where the target is not it
    """

    ca: str | Path | None = None
    cert: str | Path | None = None
    key: str | Path | None = None
    server_name: str | None = None

    def credentials(self) -> grpc.ChannelCredentials:
        return grpc.ssl_channel_credentials(_read(self.ca), _read(self.key), _read(self.cert))

    def options(self) -> list[tuple[str, object]]:
        return [("grpc.ssl_target_name_override", self.server_name)] if self.server_name else []


def _read(path: str | Path | None) -> bytes | None:
    return None if path is None else Path(path).read_bytes()


def open_channel(grpc_module, target: str, tls: Tls | None, options: list[tuple[str, object]]):
    """A channel of `grpc_module`: grpc or grpc.aio."""
    if tls is None:
        return grpc_module.insecure_channel(target, options=options)
    return grpc_module.secure_channel(target, tls.credentials(), options=[*options, *tls.options()])


def metadata(token: Token | None, affinity: str | None) -> Metadata:
    """What a call carries. A function is asked anew for each call, so that a token may change."""
    entries = () if affinity is None else (("x-gdn-orchestrator", affinity),)
    if token is not None:
        entries += (("authorization", f"Bearer {token() if callable(token) else token}"),)
    return entries or None
