"""The rows of a step: which sequences, at which positions, how many tokens each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import ArrayLike

from . import wire
from .layout import DataType, Layout

PAD_SLOT = -1


def _packed(number: int, values: ArrayLike | None, dtype: str) -> bytes:
    """A packed array of fixed width: on the wire, the array's own bytes."""
    return b"" if values is None else wire.delimited(number, np.asarray(values, dtype).tobytes())


@dataclass(frozen=True)
class Rows:
    """One step's gdn.v1.Batch, which names no layer: build it once for a pass and use it at every
    layer.

    Row i is index i of each array. Exactly one of `request_ids` and `slots` is given; "" or a
    negative slot is a padding row, whose output is zero. See Client.rows for the fields.
    """

    data_type: DataType
    layout: Layout
    step_id: int
    request_ids: Sequence[str] | None = None
    slots: ArrayLike | None = None
    epochs: ArrayLike | None = None
    positions: ArrayLike | None = None
    token_counts: ArrayLike | None = None
    create: bool = False
    release_after: bool = False
    speculative: bool = False
    discard_output: bool = False
    encoded: bytes = field(init=False, repr=False)
    """The field `batch` of a request, tag and length included."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "encoded", self._encode())

    @property
    def tokens(self) -> int:
        """Of all rows, padding included."""
        if self.token_counts is not None:
            return int(np.asarray(self.token_counts, np.uint64).sum())
        return len(self.slots if self.request_ids is None else self.request_ids)

    def _encode(self) -> bytes:
        flags = {4: self.create, 5: self.release_after, 6: self.speculative, 7: self.discard_output}
        ids = self.request_ids or ()
        batch = b"".join(
            (
                wire.tag(1, wire.VARINT) + wire.varint(self.data_type),
                wire.tag(2, wire.VARINT) + wire.varint(self.layout),
                wire.tag(3, wire.FIXED64) + self.step_id.to_bytes(8, "little"),
                *(wire.tag(number, wire.VARINT) + b"\x01" for number, on in flags.items() if on),
                *(wire.delimited(8, name.encode()) for name in ids),
                _packed(9, self.slots, "<i4"),
                _packed(10, self.epochs, "<u8"),
                _packed(11, self.positions, "<u8"),
                _packed(12, self.token_counts, "<u4"),
            )
        )
        return wire.delimited(2, batch)

    def padded(self, rows: Iterable[int]) -> Rows:
        """The same step with `rows` made padding: what to send after an error that named them."""
        rows = list(rows)
        if self.request_ids is not None:
            ids = list(self.request_ids)
            for row in rows:
                ids[row] = ""
            return replace(self, request_ids=ids)
        slots = np.array(self.slots, np.int32)
        slots[rows] = PAD_SLOT
        return replace(self, slots=slots)
