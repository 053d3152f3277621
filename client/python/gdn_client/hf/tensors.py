"""torch tensors as the numpy arrays that go over the wire, and back; bfloat16 as its bits."""

from __future__ import annotations

import numpy as np
import torch

from ..dtype import to_wire
from ..layout import DataType
from .pieces import Piece

_TYPES = {
    DataType.BF16: torch.bfloat16,
    DataType.FP16: torch.float16,
    DataType.FP32: torch.float32,
}


def host_array(x: torch.Tensor, dtype: DataType) -> np.ndarray:
    """`x` on the host in the wire's type. No copy of a dense CPU tensor that has that type."""
    return _view(x.detach().to("cpu", _TYPES[dtype]).contiguous())


def gather(x: np.ndarray, piece: Piece) -> np.ndarray:
    """The piece's tokens of [batch, tokens, width], back to back; a view where they are all."""
    if piece.covers(*x.shape[:2]):
        return x.reshape(-1, x.shape[2])
    return np.concatenate([x[at] for at in _slices(piece)])


class Output:
    """The answer to a pass, [batch, tokens, width], filled piece by piece; the rest is zero."""

    def __init__(self, shape: tuple[int, ...], dtype: DataType):
        self._dtype = dtype
        self._tensor = torch.zeros(shape, dtype=_TYPES[dtype])
        self._array = _view(self._tensor)

    def put(self, piece: Piece, values: np.ndarray) -> None:
        """`values` are the tokens of the piece, as an Answer has them."""
        values = to_wire(values, self._dtype).view(self._array.dtype)
        begin = 0
        for at, count in zip(_slices(piece), piece.counts.tolist()):
            self._array[at] = values[begin : begin + count]
            begin += count

    def like(self, x: torch.Tensor) -> torch.Tensor:
        """The answer on the device and in the type of `x`."""
        return self._tensor.to(x.device, x.dtype)


def _slices(piece: Piece) -> list[tuple[int, slice]]:
    """Where the piece's tokens lie in [batch, tokens]."""
    bounds = zip(piece.rows.tolist(), piece.begins.tolist(), piece.counts.tolist())
    return [(row, slice(begin, begin + count)) for row, begin, count in bounds]


def _view(x: torch.Tensor) -> np.ndarray:
    return (x.view(torch.uint16) if x.dtype == torch.bfloat16 else x).numpy()
