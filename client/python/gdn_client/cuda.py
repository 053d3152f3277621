"""Memory of a GPU, shared with a server that runs on the same one."""

from __future__ import annotations

import ctypes
import os
import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING

from .layout import DataType
from .shared import Shared

if TYPE_CHECKING:
    import torch

_HANDLE_BYTES = 64  # of a cudaIpcMemHandle_t


class CudaRegion:
    """The memory of a PyTorch tensor, registered with the server; the tensor lives as long as this.

    Steps read and write it where it lies: pass at(…) as `x`, once the stream that wrote the input
    is synchronised; the answer's output is a tensor, a view of the memory. What the server writes
    is there when the answer is.
    """

    def __init__(self, tensor: torch.Tensor, register: Callable, unregister: Callable):
        """register(name, handle, size) and unregister(name) are the calls."""
        if not tensor.is_cuda or not tensor.is_contiguous():
            raise ValueError("a CUDA region is the memory of a contiguous tensor on a GPU")
        self.tensor = tensor
        self.name = f"cuda-{os.getpid()}-{secrets.token_hex(8)}"
        base, handle = _allocation(tensor)
        self._first = tensor.data_ptr() - base  # PyTorch allocates more than a tensor at a time
        register(self.name, handle, self._first + tensor.nbytes)
        self._unregister: Callable | None = unregister

    def __enter__(self) -> CudaRegion:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        """Unregisters it, once the steps that use it have ended."""
        unregister, self._unregister = self._unregister, None
        if unregister is not None:
            unregister(self.name)

    def at(self, input_offset: int, output_offset: int) -> Shared:
        """As Region.at; offsets are bytes of the tensor."""
        return Shared(self, self._first + input_offset, self._first + output_offset)

    def output(self, offset: int, size: int, data_type: DataType, width: int) -> torch.Tensor:
        import torch

        types = {
            DataType.BF16: torch.bfloat16,
            DataType.FP16: torch.float16,
            DataType.FP32: torch.float32,
        }
        begin = offset - self._first
        memory = self.tensor.view(-1).view(torch.uint8)[begin : begin + size]
        return memory.view(types[data_type]).view(-1, width)


def _allocation(tensor: torch.Tensor) -> tuple[int, bytes]:
    """Where the allocation that holds it begins, and the handle by which others open it."""
    import torch

    torch.cuda.synchronize(tensor.device)  # the driver answers for the device of this thread
    driver = ctypes.CDLL("libcuda.so.1")
    base, size = ctypes.c_uint64(), ctypes.c_size_t()
    handle = ctypes.create_string_buffer(_HANDLE_BYTES)
    address = ctypes.c_uint64(tensor.data_ptr())
    error = driver.cuMemGetAddressRange_v2(ctypes.byref(base), ctypes.byref(size), address)
    error = error or driver.cuIpcGetMemHandle(handle, base)
    if error:
        raise OSError(f"this memory cannot be shared: CUDA error {error}")
    return base.value, handle.raw
