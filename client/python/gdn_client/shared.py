"""Where a step has its tensors in memory that is shared with the server."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np

from . import wire
from .layout import DataType

if TYPE_CHECKING:
    import torch


class Memory(Protocol):
    """A Region or a CudaRegion."""

    name: str

    def output(
        self, offset: int, size: int, data_type: DataType, width: int
    ) -> np.ndarray | torch.Tensor: ...


@dataclass(frozen=True)
class Shared:
    """Made by the region's at()."""

    region: Memory
    input_offset: int
    output_offset: int
    encoded: bytes = field(init=False, repr=False)
    """The field `shared_memory` of a request."""

    def __post_init__(self) -> None:
        place = wire.shared_memory(self.region.name, self.input_offset, self.output_offset)
        object.__setattr__(self, "encoded", place)

    def output(self, size: int, data_type: DataType, width: int) -> np.ndarray | torch.Tensor:
        """The output's `size` bytes as [tokens, width], where they lie."""
        return self.region.output(self.output_offset, size, data_type, width)
