"""POSIX shared-memory objects that a test keeps a hand on, and the calls about them."""

from __future__ import annotations

import mmap
import os
import secrets

from gdn_client.proto import message
from steps import raw_call

SERVICE = "/gdn.v1.SharedMemoryService/"


class SharedObject:
    """An object with pages, by its name for shm_open; to be truncated and scribbled over."""

    def __init__(self, size: int, prefix: str = "gdn"):
        self.name = f"/{prefix}-test-{secrets.token_hex(8)}"
        self.fd = os.open(f"/dev/shm{self.name}", os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        os.posix_fallocate(self.fd, 0, size)
        self.size, self.memory = size, mmap.mmap(self.fd, size)

    def __enter__(self) -> SharedObject:
        return self

    def __exit__(self, *_) -> None:
        os.close(self.fd)
        os.unlink(f"/dev/shm{self.name}")

    def truncate(self, size: int) -> None:
        """What is mapped of it must not be touched afterwards."""
        os.ftruncate(self.fd, size)


def register(channel, region: str, posix_name: str, byte_size: int, **handle) -> None:
    """Raises GdnError."""
    names = handle or dict(posix_name=posix_name)
    request = message("RegisterSharedMemoryRequest")(region=region, byte_size=byte_size, **names)
    raw_call(channel, SERVICE + "RegisterSharedMemory", request.SerializeToString())


def unregister(channel, region: str, timeout: float = 60) -> None:
    """Raises GdnError."""
    request = message("UnregisterSharedMemoryRequest")(region=region)
    raw_call(channel, SERVICE + "UnregisterSharedMemory", request.SerializeToString(), timeout)
