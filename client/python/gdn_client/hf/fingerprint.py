"""The digest by which a server says which weights it has (GetServerInfo: model_fingerprint)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

BLOCK_BYTES, BLOCKS = 4096, 16

# In the digest a tensor is known by its place in this list.
ROLES = (
    "in_proj_qkv.weight",
    "in_proj_z.weight",
    "in_proj_b.weight",
    "in_proj_a.weight",
    "in_proj_qkvz.weight",
    "in_proj_ba.weight",
    "out_proj.weight",
    "conv1d.weight",
    "conv1d.bias",
    "A_log",
    "dt_bias",
    "norm.weight",
)
TYPES = {"F32": 0, "BF16": 1, "F16": 2}  # as safetensors and the digest call them
ITEM_BYTES = {"F32": 4, "BF16": 2, "F16": 2}

_ACTIVATIONS = {"silu": 1, "swish": 1}
_GATES = {"silu": 0, "swish": 0, "sigmoid": 1}


@dataclass(frozen=True)
class Weight:
    """A tensor of a GDN layer; read(offset, size) are bytes of its content."""

    type: str  # a key of TYPES
    shape: tuple[int, ...]
    read: Callable[[int, int], bytes]

    @property
    def nbytes(self) -> int:
        return int(np.prod(self.shape)) * ITEM_BYTES[self.type]


Layers = Mapping[int, Mapping[str, Weight]]  # {layer: {name of ROLES: weight}}


def blocks(nbytes: int) -> Iterator[tuple[int, int]]:
    """(offset, size) of what counts of a tensor: all of it, or of a large one evenly spaced
    blocks."""
    if nbytes <= BLOCKS * BLOCK_BYTES:
        yield 0, nbytes
        return
    last = nbytes - BLOCK_BYTES
    step = last // (BLOCKS - 1)
    for i in range(BLOCKS - 1):
        yield i * step, BLOCK_BYTES
    yield last, BLOCK_BYTES


def fingerprint(config, layers: Layers) -> str:
    """16 hexadecimal digits, those of a server of the same weights.

    config: the text model's configuration, a PretrainedConfig or any object with its attributes.
    """
    value = _fnv(_describe(config).encode())
    for number, weights in sorted(layers.items()):
        for role, name in enumerate(ROLES):
            if (weight := weights.get(name)) is None:
                continue
            rows, columns = weight.shape[0], weight.shape[-1] if len(weight.shape) > 1 else 1
            head = f"{number} {role} {TYPES[weight.type]} {rows} {columns}\n"
            value = _fnv(head.encode(), value)
            for offset, size in blocks(weight.nbytes):
                value = _fnv(weight.read(offset, size), value)
    return f"{value:016x}"


def _describe(config) -> str:
    """The geometry: sizes, activation, gate, that q and k are normalised, epsilon of the norm."""
    sizes = (
        config.hidden_size,
        config.linear_num_key_heads,
        config.linear_num_value_heads,
        config.linear_key_head_dim,
        config.linear_value_head_dim,
        config.linear_conv_kernel_dim,
        _ACTIVATIONS.get(getattr(config, "hidden_act", None) or "silu", 0),
        _GATES.get(getattr(config, "output_gate_type", None) or "silu", -1),
        1,
    )
    epsilon = np.float32(getattr(config, "rms_norm_eps", None) or 1e-6)
    return " ".join(map(str, sizes)) + f" {epsilon:g}\n"


def _fnv(data: bytes, value: int = 0xCBF29CE484222325) -> int:
    """FNV-1a of 64 bits."""
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return value
