"""Our kernels on torch's tensors and stream, through gdn_c.h."""

from __future__ import annotations

import ctypes

import torch

CHUNK = 64
_POINTER, _I64, _I32 = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int32


def _structure(name: str, **fields: type) -> type:
    return type(name, (ctypes.Structure,), {"_fields_": list(fields.items())})


_Prefill = _structure(
    "GdnPrefill",
    rows=_I64, tokens=_I64, chunks=_I64, longest=_I64,
    offsets=_POINTER, chunk_offsets=_POINTER, chunk_indices=_POINTER,
    key_heads=_I32, value_heads=_I32, dim=_I32, bf16_state=_I32,
    q=_POINTER, k=_POINTER, v=_POINTER, g=_POINTER, beta=_POINTER, state=_POINTER, o=_POINTER,
)  # fmt: skip
_Decode = _structure(
    "GdnDecode",
    rows=_I64, slots=_POINTER,
    key_heads=_I32, value_heads=_I32, dim=_I32, bf16_state=_I32,
    mixed=_POINTER, z=_POINTER, b=_POINTER, a=_POINTER,
    mixed_stride=_I64, z_stride=_I64, ba_stride=_I64,
    conv_weight=_POINTER, a_log=_POINTER, dt_bias=_POINTER, norm_weight=_POINTER,
    conv=_POINTER, ssm=_POINTER, o=_POINTER, faults=_POINTER,
)  # fmt: skip


def _fill(kind: type, **values: torch.Tensor | int) -> ctypes.Structure:
    """A structure that keeps the tensors it points to."""
    structure = kind()
    structure.tensors = values
    for name, value in values.items():
        setattr(structure, name, value.data_ptr() if isinstance(value, torch.Tensor) else value)
    return structure


def chunk_tables(lengths: list[int], device: str) -> tuple[torch.Tensor, torch.Tensor, int]:
    """chunk_offsets [N + 1], chunk_indices [chunks, 2] and the most chunks of a row, by its length."""
    counts = [-(-length // CHUNK) for length in lengths]
    offsets = torch.tensor([0, *counts]).cumsum(0)
    indices = [[row, chunk] for row, count in enumerate(counts) for chunk in range(count)]
    return offsets.to(device), torch.tensor(indices, dtype=torch.int64).to(device), max(counts)


class Kernels:
    def __init__(self, library: str) -> None:
        self._library = ctypes.CDLL(library)
        self._library.GdnPrefillWorkspaceBytes.restype = ctypes.c_size_t
        self._workspace: torch.Tensor | None = None

    def prefill(
        self,
        q: torch.Tensor,  # [T, H, K]
        k: torch.Tensor,
        v: torch.Tensor,  # [T, HV, V]
        g: torch.Tensor,  # [T, HV]
        beta: torch.Tensor,
        state: torch.Tensor,  # [N, HV, V, K], in place
        offsets: torch.Tensor,  # [N + 1]
        tables: tuple[torch.Tensor, torch.Tensor, int],  # chunk_tables
        o: torch.Tensor,  # [T, HV, V]
    ) -> None:
        p = _fill(
            _Prefill,
            rows=len(state), tokens=len(q), chunks=len(tables[1]),
            longest=tables[2], offsets=offsets, chunk_offsets=tables[0], chunk_indices=tables[1],
            key_heads=q.shape[1], value_heads=v.shape[1], dim=v.shape[2], bf16_state=0,
            q=q, k=k, v=v, g=g, beta=beta, state=state, o=o,
        )  # fmt: skip
        size = self._library.GdnPrefillWorkspaceBytes(ctypes.byref(p))
        if self._workspace is None or self._workspace.numel() < size:
            self._workspace = torch.empty(size, dtype=torch.uint8, device=q.device)
        workspace = ctypes.c_void_p(self._workspace.data_ptr())
        self._check(self._library.GdnRunPrefill(ctypes.byref(p), workspace, self._stream()))

    def decode(self, heads: tuple[int, int, int], **values: torch.Tensor | int) -> None:
        """`heads`: H, HV and K = V; the rest as in GdnDecode."""
        key_heads, value_heads, dim = heads
        p = _fill(
            _Decode, key_heads=key_heads, value_heads=value_heads, dim=dim, bf16_state=0, **values
        )
        self._check(self._library.GdnRunDecode(ctypes.byref(p), self._stream()))

    @staticmethod
    def _stream() -> ctypes.c_void_p:
        return ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)

    @staticmethod
    def _check(error: int) -> None:
        if error != 0:
            raise RuntimeError(f"CUDA error {error}")
