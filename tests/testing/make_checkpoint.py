#!/usr/bin/env python3
"""Makes small checkpoints with random weights that look like those of the hub, and reads them back.

    make_checkpoint.py OUT [--model_type qwen3_next|qwen3_5] [--hidden 256] [--layers 4] ...
    make_checkpoint.py --golden FILE OUT     the golden file's layer as a checkpoint of one layer

Needs numpy alone. As a module: make_checkpoint, from_golden, load_layers, read_safetensors.
"""

import argparse
import dataclasses
import json
import pathlib
import struct
from typing import Callable

import numpy as np

_DTYPES = {"bf16": "BF16", "fp16": "F16", "fp32": "F32"}
_CONFIG_DTYPES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}
_NUMPY = {"BF16": np.dtype("<u2"), "F16": np.dtype("<f2"), "F32": np.dtype("<f4")}


@dataclasses.dataclass
class Options:
    """What the checkpoint is. Head counts and sizes are those of the GDN layers."""

    model_type: str = "qwen3_next"  # interleaved projections; "qwen3_5": split ones
    hidden: int = 256
    heads: int = 2
    value_heads: int = 4
    key_dim: int = 64
    value_dim: int = 64
    conv_width: int = 4  # 0: no convolution
    layers: int = 4
    interval: int = 4  # every interval-th layer is full attention
    dtype: str = "bf16"
    shards: int = 1
    nested: bool | None = None  # text_config and a vision tower; None: as the model type has it
    projections: bool = True
    conv_bias: bool = False
    gate: str = "silu"
    seed: int = 0
    blank: bool = False  # zeros, which take neither time to make nor room on the disk

    @property
    def is_nested(self) -> bool:
        return self.model_type == "qwen3_5" if self.nested is None else self.nested

    @property
    def conv_dim(self) -> int:
        return 2 * self.heads * self.key_dim + self.value_heads * self.value_dim

    def is_gdn(self, layer: int) -> bool:
        return (layer + 1) % self.interval != 0


@dataclasses.dataclass
class _Tensor:
    name: str
    dtype: str  # as in the file
    shape: tuple[int, ...]
    make: Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]

    @property
    def nbytes(self) -> int:
        return int(np.prod(self.shape)) * _NUMPY[self.dtype].itemsize


def encode(array: np.ndarray, dtype: str) -> np.ndarray:
    """float32 values as the bits of BF16, F16 or F32, rounded to nearest even."""
    array = np.ascontiguousarray(array, dtype=np.float32)
    if dtype != "BF16":
        return array.astype(_NUMPY[dtype])
    bits = array.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(_NUMPY["BF16"])


def decode(raw: bytes, dtype: str, shape: list[int]) -> np.ndarray:
    """The bits of BF16, F16 or F32 as float32."""
    array = np.frombuffer(raw, dtype=_NUMPY[dtype]).reshape(shape)
    if dtype != "BF16":
        return array.astype(np.float32)
    return (array.astype(np.uint32) << 16).view(np.float32)


def read_safetensors(path, wanted: Callable[[str], bool] = lambda name: True):
    """({name: float32 array} of the tensors wanted, metadata) of one file."""
    with open(path, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
        metadata = header.pop("__metadata__", {})
        tensors = {}
        for name, entry in header.items():
            if not wanted(name):
                continue
            begin, end = entry["data_offsets"]
            file.seek(8 + length + begin)
            tensors[name] = decode(file.read(end - begin), entry["dtype"], entry["shape"])
    return tensors, metadata


def _write_safetensors(path, tensors, seed_of):
    """Writes one file, a tensor at a time. seed_of: name -> seed of the tensor's values; None leaves
    them zero, a hole in the file."""
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for tensor in tensors:
        header[tensor.name] = {
            "dtype": tensor.dtype,
            "shape": list(tensor.shape),
            "data_offsets": [offset, offset + tensor.nbytes],
        }
        offset += tensor.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at multiples of 8
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + offset)
        for tensor in tensors if seed_of else ():
            values = tensor.make(np.random.default_rng(seed_of(tensor.name)), tensor.shape)
            file.write(encode(values, tensor.dtype).tobytes())


def _normal(scale):
    return lambda rng, shape: scale * rng.standard_normal(shape, dtype=np.float32)


def _uniform(low, high):
    return lambda rng, shape: rng.uniform(low, high, shape).astype(np.float32)


def _a_log(rng, shape):
    return np.log(rng.uniform(1, 8, shape))


def _dt_bias(rng, shape):
    """softplus(dt_bias) is log-uniform in [1e-3, 0.08]: with A_log, exp(g) is 0.5 to 0.999."""
    dt = np.exp(rng.uniform(np.log(1e-3), np.log(0.08), shape))
    return dt + np.log(-np.expm1(-dt))


def _norm(rng, shape):
    return 1 + 0.1 * rng.standard_normal(shape)


def _gdn_tensors(o: Options, prefix: str):
    dtype = _DTYPES[o.dtype]
    vectors = "F32" if o.model_type == "qwen3_5" else dtype  # A_log and norm, as the hub has them
    values = o.value_heads * o.value_dim
    weight = _normal(o.hidden**-0.5)
    quiet = _normal(0.3 * o.hidden**-0.5)  # of a, so that the decay stays near what dt_bias says
    yield _Tensor(prefix + "A_log", vectors, (o.value_heads,), _a_log)
    yield _Tensor(prefix + "dt_bias", dtype, (o.value_heads,), _dt_bias)
    yield _Tensor(prefix + "norm.weight", vectors, (o.value_dim,), _norm)
    if o.conv_width:
        bound = o.conv_width**-0.5
        shape = (o.conv_dim, 1, o.conv_width)
        yield _Tensor(prefix + "conv1d.weight", dtype, shape, _uniform(-bound, bound))
        if o.conv_bias:
            yield _Tensor(prefix + "conv1d.bias", dtype, (o.conv_dim,), _uniform(-bound, bound))
    if not o.projections:
        return
    if o.model_type == "qwen3_next":
        shape = (o.conv_dim + values, o.hidden)
        yield _Tensor(prefix + "in_proj_qkvz.weight", dtype, shape, weight)
        yield _Tensor(prefix + "in_proj_ba.weight", dtype, (2 * o.value_heads, o.hidden), quiet)
    else:
        yield _Tensor(prefix + "in_proj_qkv.weight", dtype, (o.conv_dim, o.hidden), weight)
        yield _Tensor(prefix + "in_proj_z.weight", dtype, (values, o.hidden), weight)
        yield _Tensor(prefix + "in_proj_b.weight", dtype, (o.value_heads, o.hidden), weight)
        yield _Tensor(prefix + "in_proj_a.weight", dtype, (o.value_heads, o.hidden), quiet)
    yield _Tensor(prefix + "out_proj.weight", dtype, (o.hidden, values), _normal(values**-0.5))


def _tensors(o: Options):
    """All tensors in the order of the model: the GDN layers' and what lies between them."""
    dtype = _DTYPES[o.dtype]
    outer = "model.language_model." if o.is_nested else "model."
    other = _normal(0.02)
    if o.is_nested:
        yield _Tensor("model.visual.patch_embed.proj.weight", dtype, (16, 3, 2, 2), other)
    yield _Tensor(outer + "embed_tokens.weight", dtype, (32, o.hidden), other)
    for layer in range(o.layers):
        prefix = f"{outer}layers.{layer}."
        yield _Tensor(prefix + "input_layernorm.weight", dtype, (o.hidden,), _norm)
        if o.is_gdn(layer):
            yield from _gdn_tensors(o, prefix + "linear_attn.")
        else:
            for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
                yield _Tensor(f"{prefix}self_attn.{name}.weight", dtype, (16, o.hidden), other)
        yield _Tensor(prefix + "mlp.experts.0.up_proj.weight", dtype, (8, o.hidden), other)
    yield _Tensor(outer + "norm.weight", dtype, (o.hidden,), _norm)
    yield _Tensor("lm_head.weight", dtype, (32, o.hidden), other)
    yield _Tensor("mtp.layers.0.self_attn.q_proj.weight", dtype, (16, o.hidden), other)


def _config(o: Options) -> dict:
    config = {
        "hidden_act": "silu",
        "hidden_size": o.hidden,
        "linear_conv_kernel_dim": o.conv_width,
        "linear_key_head_dim": o.key_dim,
        "linear_num_key_heads": o.heads,
        "linear_num_value_heads": o.value_heads,
        "linear_value_head_dim": o.value_dim,
        "num_hidden_layers": o.layers,
        "rms_norm_eps": 1e-6,
        "vocab_size": 32,
    }
    if o.gate != "silu":
        config["output_gate_type"] = o.gate
    if o.model_type == "qwen3_next":
        config |= {"full_attention_interval": o.interval, "torch_dtype": _CONFIG_DTYPES[o.dtype]}
    else:
        kinds = ["linear_attention" if o.is_gdn(i) else "full_attention" for i in range(o.layers)]
        config |= {"layer_types": kinds, "dtype": _CONFIG_DTYPES[o.dtype]}
    if not o.is_nested:
        return {"model_type": o.model_type, **config}
    return {
        "model_type": o.model_type,
        "text_config": {"model_type": o.model_type + "_text", **config},
        "vision_config": {"model_type": o.model_type, "hidden_size": 16},
    }


def _cut(tensors, shards: int):
    """The tensors in `shards` runs of about the same size; none is empty while tensors last."""
    total = sum(tensor.nbytes for tensor in tensors)
    cut, done = [[] for _ in range(shards)], 0
    for tensor in tensors:
        cut[min(done * shards // total, shards - 1)].append(tensor)
        done += tensor.nbytes
    return [shard for shard in cut if shard]


def make_checkpoint(directory, options: Options | None = None, **changes) -> pathlib.Path:
    """Writes config.json and the weights; the same options give the same bytes."""
    o = dataclasses.replace(options or Options(), **changes)
    directory = pathlib.Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(_config(o), indent=2) + "\n")
    tensors = list(_tensors(o))
    seeds = {tensor.name: (o.seed, i) for i, tensor in enumerate(tensors)}
    seed_of = None if o.blank else seeds.get
    if o.shards == 1:
        _write_safetensors(directory / "model.safetensors", tensors, seed_of)
        return directory
    weight_map, shards = {}, _cut(tensors, o.shards)
    for i, shard in enumerate(shards):
        name = f"model-{i + 1:05}-of-{len(shards):05}.safetensors"
        _write_safetensors(directory / name, shard, seed_of)
        weight_map |= {tensor.name: name for tensor in shard}
    size = sum(tensor.nbytes for tensor in tensors)
    index = {"metadata": {"total_size": size}, "weight_map": weight_map}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")
    return directory


def from_golden(golden, directory) -> pathlib.Path:
    """Turns the layer of a golden file into a checkpoint of one layer, in float32."""
    arrays, metadata = read_safetensors(golden, lambda name: name.startswith("model.layers."))
    config = json.loads(metadata["config"])
    config |= {"num_hidden_layers": 1, "layer_types": ["linear_attention"], "dtype": "float32"}
    directory = pathlib.Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    tensors = [
        _Tensor(name, "F32", array.shape, lambda rng, shape, array=array: array)
        for name, array in sorted(arrays.items())
    ]
    _write_safetensors(directory / "model.safetensors", tensors, lambda name: 0)
    return directory


def load_layers(directory):
    """({N: {name after "linear_attn.": float32 array}}, configuration) of a checkpoint.

    Arrays are as they lie on disk (interleaved projections stay so); the configuration is
    text_config where there is one.
    """
    directory = pathlib.Path(directory)
    config = json.loads((directory / "config.json").read_text())
    index = directory / "model.safetensors.index.json"
    files = {"model.safetensors"}
    if index.exists():
        files = set(json.loads(index.read_text())["weight_map"].values())
    layers: dict[int, dict[str, np.ndarray]] = {}
    for file in sorted(files):
        tensors, _ = read_safetensors(directory / file, lambda name: ".linear_attn." in name)
        for full_name, array in tensors.items():
            path, name = full_name.split(".linear_attn.")
            layers.setdefault(int(path.rsplit(".", 1)[1]), {})[name] = array
    return dict(sorted(layers.items())), config.get("text_config", config)


def _parse_arguments() -> argparse.Namespace:
    default = Options()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", help="directory to write")
    parser.add_argument("--golden", help="make the checkpoint of this golden file; no other option")
    models = ["qwen3_next", "qwen3_5"]
    parser.add_argument("--model_type", choices=models, default=default.model_type)
    for name in (
        "hidden",
        "heads",
        "value_heads",
        "key_dim",
        "value_dim",
        "conv_width",
        "layers",
        "interval",
        "shards",
        "seed",
    ):
        parser.add_argument(f"--{name}", type=int, default=getattr(default, name))
    parser.add_argument("--dtype", choices=list(_DTYPES), default=default.dtype)
    parser.add_argument("--gate", choices=["silu", "sigmoid"], default=default.gate)
    parser.add_argument(
        "--nested",
        action=argparse.BooleanOptionalAction,
        help="text_config and a vision tower (default: as the model type has it)",
    )
    parser.add_argument("--no_projections", dest="projections", action="store_false")
    parser.add_argument("--conv_bias", action="store_true")
    return parser.parse_args()


def main() -> None:
    arguments = vars(_parse_arguments())
    out, golden = arguments.pop("out"), arguments.pop("golden")
    if golden:
        from_golden(golden, out)
    else:
        make_checkpoint(out, **arguments)


if __name__ == "__main__":
    main()
