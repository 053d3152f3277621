"""Memory shared with a server on this machine."""

from __future__ import annotations

import mmap
import os
import secrets
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from .dtype import from_wire
from .layout import DataType
from .shared import Shared

_FOLDER = "/dev/shm"


class Region:
    """Registered with the server, and nobody else's: the name is taken away once it is.

    Write the input into array(…), pass at(…) as `x`; the answer's output is a view of the region.
    An input stays as it is until its step was answered (after DeadlineExceeded: until a retry was
    answered, or the region closed).
    """

    def __init__(self, size: int, prefix: str, mode: int, register: Callable, unregister: Callable):
        """register(name, path of shm_open, size) and unregister(name) are the calls."""
        self.name = f"{prefix}-{os.getpid()}-{secrets.token_hex(8)}"
        self.size = size
        path = f"{_FOLDER}/{self.name}"
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.fchmod(fd, mode)
            os.posix_fallocate(fd, 0, size)  # pages that are not there the server does not pin
            self.memory = mmap.mmap(fd, size)
            register(self.name, f"/{self.name}", size)
        finally:
            os.close(fd)
            os.unlink(path)
        self._unregister: Callable | None = unregister

    def __enter__(self) -> Region:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        """Unregisters it, once the steps that use it have ended. Its memory goes with its last
        array."""
        unregister, self._unregister = self._unregister, None
        if unregister is not None:
            unregister(self.name)

    def array(self, shape: ArrayLike, dtype: DTypeLike, offset: int = 0) -> np.ndarray:
        """A view of the memory from `offset` on."""
        dtype = np.dtype(dtype)
        count = int(np.prod(shape))
        return np.frombuffer(self.memory, dtype, count, offset).reshape(shape)

    def output(self, offset: int, size: int, data_type: DataType, width: int) -> np.ndarray:
        memory = memoryview(self.memory)[offset : offset + size].toreadonly()
        return from_wire(memory, data_type, width)

    def at(self, input_offset: int, output_offset: int) -> Shared:
        """Where a step has its tensors: the input as it would be sent, one tensor behind the other,
        and the output. They may begin at the same byte, but not otherwise overlap."""
        return Shared(self, input_offset, output_offset)
