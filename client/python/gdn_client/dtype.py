"""From numpy arrays to the bytes of a tensor and back. bfloat16 is ml_dtypes.bfloat16 where that is
installed; else answers are expanded to float32 and inputs rounded from it, to nearest even."""

from __future__ import annotations

import numpy as np

from .layout import DataType

try:
    from ml_dtypes import bfloat16 as _bfloat16
except ImportError:
    _bfloat16 = None

_NATIVE = {DataType.FP16: np.dtype("<f2"), DataType.FP32: np.dtype("<f4")}
ITEM_SIZE = {DataType.BF16: 2, DataType.FP16: 2, DataType.FP32: 4}


def round_to_bf16(x: np.ndarray) -> np.ndarray:
    """The bits (uint16) of the nearest bfloat16 of float32 values, ties to even; a NaN stays
    one."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return np.where(np.isnan(x), (bits >> 16) | 0x40, rounded).astype("<u2")


def expand_bf16(bits: np.ndarray) -> np.ndarray:
    """float32 values of bfloat16 bits (uint16)."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def to_wire(x, dtype: DataType) -> np.ndarray:
    """`x` as a dense array whose bytes are a tensor of `dtype`; `x` itself where it already is one.

    Takes any floating-point array (torch tensors on the CPU among them), converted where its type
    differs. For BF16 an array of uint16 is taken as the bits. Others are a TypeError.
    """
    x = np.asarray(x)
    if dtype == DataType.BF16:
        if x.dtype == np.uint16 or (_bfloat16 is not None and x.dtype == _bfloat16):
            return np.ascontiguousarray(x)
        return round_to_bf16(np.asarray(_as_float(x), np.float32))
    return np.ascontiguousarray(_as_float(x), _NATIVE[dtype])


def _as_float(x: np.ndarray) -> np.ndarray:
    if x.dtype.kind != "f" and not (_bfloat16 is not None and x.dtype == _bfloat16):
        raise TypeError(f"a tensor must be of floating point, not {x.dtype}")
    return x


def from_wire(data, dtype: DataType, width: int) -> np.ndarray:
    """The tensor [tokens, width] that `data` holds: a read-only view of it, without a copy (except
    for BF16 without ml_dtypes)."""
    if dtype != DataType.BF16:
        return np.frombuffer(data, _NATIVE[dtype]).reshape(-1, width)
    bits = np.frombuffer(data, "<u2").reshape(-1, width)
    return expand_bf16(bits) if _bfloat16 is None else bits.view(_bfloat16)
