"""The GDN weights of a loaded model and of a checkpoint's directory, as the fingerprint reads them."""

from __future__ import annotations

import json
import os
import re
import struct
from pathlib import Path

import torch
from torch import nn

from .fingerprint import ITEM_BYTES, ROLES, Layers, Weight, blocks

_TORCH = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
_NAMES = {dtype: name for name, dtype in _TORCH.items()}
_TENSOR = re.compile(
    r"(?:model\.|model\.language_model\.|language_model\.model\.|language_model\.|)"
    r"layers\.(\d+)\.linear_attn\.(.+)"
)


def of_modules(modules: dict[int, nn.Module]) -> Layers:
    """The weights of loaded layers. Raises ValueError for a tensor that a server cannot have."""
    return {number: _of_module(number, module) for number, module in modules.items()}


def _of_module(number: int, module: nn.Module) -> dict[str, Weight]:
    weights = {}
    for name, tensor in module.named_parameters():
        if name not in ROLES or tensor.dtype not in _NAMES or tensor.is_meta:
            raise ValueError(f"layer {number}: {name} ({tensor.dtype}) is not a weight of a server")
        weights[name] = _of_tensor(tensor)
    return weights


def _of_tensor(tensor: torch.Tensor) -> Weight:
    data = tensor.detach().contiguous().reshape(-1).view(torch.uint8)

    def read(offset: int, size: int) -> bytes:
        return data[offset : offset + size].cpu().numpy().tobytes()

    return Weight(_NAMES[tensor.dtype], tuple(tensor.shape), read)


def of_directory(directory: Path) -> Layers:
    """The weights as they lie on disk, in one file or several; none where there are no such
    files."""
    index = directory / "model.safetensors.index.json"
    files = {"model.safetensors"}
    if index.exists():
        files = set(json.loads(index.read_text())["weight_map"].values())
    layers: dict[int, dict[str, Weight]] = {}
    for path in sorted(path for file in files if (path := directory / file).exists()):
        for number, name, weight in _of_file(path):
            layers.setdefault(number, {})[name] = weight
    return layers


def _of_file(path: Path):
    """(layer, name, weight) of each GDN tensor of a safetensors file."""
    with open(path, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
    for full_name, entry in header.items():
        match = _TENSOR.fullmatch(full_name)
        if match is None or match[2] not in ROLES or entry["dtype"] not in ITEM_BYTES:
            continue
        begin = 8 + length + entry["data_offsets"][0]
        read = _reader(path, begin)
        yield int(match[1]), match[2], Weight(entry["dtype"], tuple(entry["shape"]), read)


def _reader(path: Path, begin: int):
    def read(offset: int, size: int) -> bytes:
        with open(path, "rb") as file:
            return os.pread(file.fileno(), size, begin + offset)

    return read


def are_rounded(loaded: Layers, stored: Layers) -> bool:
    """Whether `loaded` are the weights `stored`, rounded to the types that they were loaded in. Of
    large tensors only blocks are compared."""
    return loaded.keys() == stored.keys() and all(
        weights.keys() == stored[number].keys()
        and all(_is_rounded(w, stored[number][name]) for name, w in weights.items())
        for number, weights in loaded.items()
    )


def _is_rounded(loaded: Weight, stored: Weight) -> bool:
    if loaded.shape != stored.shape:
        return False
    to, of = ITEM_BYTES[loaded.type], ITEM_BYTES[stored.type]
    for offset, size in blocks(stored.nbytes):
        first, count = offset // of, size // of
        mine = _tensor(loaded.type, loaded.read(first * to, count * to))
        other = _tensor(stored.type, stored.read(first * of, count * of))
        if not torch.equal(mine, other.to(mine.dtype)):
            return False
    return True


def _tensor(dtype: str, data: bytes) -> torch.Tensor:
    return torch.frombuffer(bytearray(data), dtype=_TORCH[dtype])
