"""What the tensors of a step are: element types, the five input layouts and their widths."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class DataType(IntEnum):
    """Element types; values are those of gdn.v1.DataType."""

    BF16 = 1
    FP16 = 2
    FP32 = 3


class Layout(IntEnum):
    """Input layouts; values are those of gdn.v1.InputLayout.

    Tensors of each, in wire order, every one [tokens, width]:

    HIDDEN         hidden_states [hidden_size]; the answer is hidden_states [hidden_size]
    QKV_B_A        mixed_qkv [conv_dim], b [HV], a [HV]; the answer is o [HV * V], not normed
    QKV_Z_B_A      mixed_qkv, z [HV * V], b, a; the answer is o, gated and normed
    QKV_BETA_G     mixed_qkv, beta [HV], g [HV] (float32 always); the answer is o, not normed
    QKV_Z_BETA_G   mixed_qkv, z, beta, g; the answer is o, gated and normed
    """

    HIDDEN = 1
    QKV_B_A = 2
    QKV_Z_B_A = 3
    QKV_BETA_G = 4
    QKV_Z_BETA_G = 5


@dataclass(frozen=True)
class Geometry:
    """Shape of every layer: H key heads of K, HV value heads of V, a convolution of width W."""

    hidden_size: int
    key_heads: int
    value_heads: int
    key_dim: int
    value_dim: int
    conv_width: int

    @property
    def conv_dim(self) -> int:
        """Width of mixed_qkv: q | k | v."""
        return 2 * self.key_heads * self.key_dim + self.value_size

    @property
    def value_size(self) -> int:
        """Width of z and o: HV * V."""
        return self.value_heads * self.value_dim


def input_tensors(geometry: Geometry, layout: Layout, io: DataType) -> list[tuple[int, DataType]]:
    """(width, type) of each tensor of `layout`, in wire order."""
    if layout == Layout.HIDDEN:
        return [(geometry.hidden_size, io)]
    tensors = [(geometry.conv_dim, io)]
    if layout in (Layout.QKV_Z_B_A, Layout.QKV_Z_BETA_G):
        tensors.append((geometry.value_size, io))
    gates = DataType.FP32 if layout in (Layout.QKV_BETA_G, Layout.QKV_Z_BETA_G) else io
    return tensors + [(geometry.value_heads, gates)] * 2


def output_width(geometry: Geometry, layout: Layout) -> int:
    """Elements of answer per token."""
    return geometry.hidden_size if layout == Layout.HIDDEN else geometry.value_size
