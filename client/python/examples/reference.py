"""The GDN layers of a checkpoint on disk, computed in numpy, in float64 and token by token: what a
server of the same checkpoint should answer. Plain rather than fast.

    layers = load_layers("model_dir")            # {N: Layer}, N of model.layers.N
    y, state = layers[0](x)                      # [tokens, hidden_size] in and out
    y, state = layers[0](more_x, state)
"""

from __future__ import annotations

import json
import mmap
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

_TYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}


def read_safetensors(path: Path) -> dict:
    """{name: a function that reads the tensor, as float64} of a safetensors file."""
    with open(path, "rb") as file:
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    header.pop("__metadata__", None)

    def read(entry: dict) -> np.ndarray:
        begin, end = (8 + size + offset for offset in entry["data_offsets"])
        x = np.frombuffer(data[begin:end], _TYPES[entry["dtype"]]).reshape(entry["shape"])
        if entry["dtype"] == "BF16":
            x = (x.astype(np.uint32) << 16).view(np.float32)
        return x.astype(np.float64)

    return {name: lambda entry=entry: read(entry) for name, entry in header.items()}


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(x / 2))


def silu(x: np.ndarray) -> np.ndarray:
    return x * sigmoid(x)


@dataclass(frozen=True)
class Shape:
    """H key heads of K, HV value heads of V, a convolution of width W; and what varies between
    models."""

    hidden: int
    H: int
    HV: int
    K: int
    V: int
    W: int
    eps: float = 1e-6
    gate: str = "silu"

    @property
    def conv_dim(self) -> int:
        return 2 * self.H * self.K + self.HV * self.V

    @staticmethod
    def of(config: dict) -> Shape:
        """From a config.json, or its text_config."""
        keys = (
            "num_key_heads",
            "num_value_heads",
            "key_head_dim",
            "value_head_dim",
            "conv_kernel_dim",
        )
        gate = "sigmoid" if config.get("output_gate_type") == "sigmoid" else "silu"
        sizes = (config[f"linear_{key}"] for key in keys)
        return Shape(config["hidden_size"], *sizes, config.get("rms_norm_eps", 1e-6), gate)


@dataclass
class State:
    """A sequence at one layer: the last W-1 inputs of the convolution, newest last, and S [HV, K,
    V]."""

    conv: np.ndarray
    S: np.ndarray


@dataclass
class Layer:
    """One layer. `weights` under their checkpoint names; the projections in the order of heads."""

    shape: Shape
    weights: dict = field(repr=False)

    def __post_init__(self) -> None:
        if "in_proj_qkvz.weight" in self.weights:
            self._split_interleaved()

    def _split_interleaved(self) -> None:
        """Qwen3-Next: for each key head its rows of q, k, v, z lie together, and of b, a
        likewise."""
        s, w = self.shape, self.weights
        R = s.HV // s.H
        qkvz = w["in_proj_qkvz.weight"].reshape(s.H, -1, s.hidden)
        q, k, v, z = np.split(qkvz, np.cumsum([s.K, s.K, R * s.V]), axis=1)
        b, a = np.split(w["in_proj_ba.weight"].reshape(s.H, 2 * R, s.hidden), 2, axis=1)
        flat = lambda m: m.reshape(-1, s.hidden)  # noqa: E731
        w["in_proj_qkv.weight"] = np.concatenate([flat(q), flat(k), flat(v)])
        w.update({f"in_proj_{n}.weight": flat(m) for n, m in (("z", z), ("b", b), ("a", a))})

    def empty(self) -> State:
        s = self.shape
        return State(np.zeros((max(s.W - 1, 0), s.conv_dim)), np.zeros((s.HV, s.K, s.V)))

    def __call__(self, x: np.ndarray, state: State | None = None) -> tuple[np.ndarray, State]:
        """Folds tokens x [tokens, hidden] in; -> y [tokens, hidden], and the new state."""
        o, state = self.core(*self.project(x), state)
        return o @ self.weights["out_proj.weight"].T, state

    def project(self, x: np.ndarray) -> tuple[np.ndarray, ...]:
        """mixed_qkv [tokens, conv_dim], z [tokens, HV * V], b and a [tokens, HV]."""
        return tuple(
            np.asarray(x, np.float64) @ self.weights[f"in_proj_{n}.weight"].T
            for n in ("qkv", "z", "b", "a")
        )

    def gates(self, b: np.ndarray, a: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """beta = sigmoid(b), g = -exp(A_log) softplus(a + dt_bias)."""
        w = self.weights
        return sigmoid(b), -np.exp(w["A_log"]) * np.logaddexp(0, a + w["dt_bias"])

    def core(self, mixed, z, b, a, state: State | None = None) -> tuple[np.ndarray, State]:
        """From the projections to o [tokens, HV * V], gated and normed; with z None, not normed."""
        return self.recur(
            mixed, z, *self.gates(np.asarray(b, np.float64), np.asarray(a, np.float64)), state
        )

    def recur(self, mixed, z, beta, g, state: State | None = None) -> tuple[np.ndarray, State]:
        """As core, from beta and g."""
        state = state or self.empty()
        y, conv = self._convolve(np.asarray(mixed, np.float64), state.conv)
        o, S = self._delta_rule(y, beta, g, state.S)
        if z is not None:
            o = self._norm_and_gate(o, np.asarray(z, np.float64).reshape(o.shape))
        return o.reshape(len(o), -1), State(conv, S)

    def _convolve(self, x: np.ndarray, history: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """y[t] = silu(bias + sum over j of w[j] x[t - W + 1 + j]); and the next history."""
        W = self.shape.W
        if W == 0:
            return x, history
        w = self.weights["conv1d.weight"].reshape(self.shape.conv_dim, W)
        window = np.concatenate([history, x])
        y = sum(window[j : j + len(x)] * w[:, j] for j in range(W))
        return silu(y + self.weights.get("conv1d.bias", 0.0)), window[len(window) - W + 1 :]

    def _delta_rule(self, y, beta, g, S) -> tuple[np.ndarray, np.ndarray]:
        """S *= exp(g);  d = beta (v - S^T k);  S += k d^T;  o = S^T q, for each token and value
        head."""
        s, n = self.shape, len(y)
        q, k, v = np.split(y, [s.H * s.K, 2 * s.H * s.K], axis=1)
        q, k = (m.reshape(n, s.H, s.K) for m in (q, k))
        q, k = (m / np.sqrt((m * m).sum(-1, keepdims=True) + 1e-6) for m in (q, k))
        q, k = (np.repeat(m, s.HV // s.H, axis=1) for m in (q * s.K**-0.5, k))
        v, o = v.reshape(n, s.HV, s.V), np.empty((n, s.HV, s.V))
        for t in range(n):
            S = S * np.exp(g[t])[:, None, None]
            d = np.asarray(beta[t])[:, None] * (v[t] - (k[t][:, None] @ S)[:, 0])
            S = S + k[t][:, :, None] * d[:, None]
            o[t] = (q[t][:, None] @ S)[:, 0]
        return o, S

    def _norm_and_gate(self, o: np.ndarray, z: np.ndarray) -> np.ndarray:
        """rmsnorm(o) * weight * gate(z), per head."""
        o = o / np.sqrt((o * o).mean(-1, keepdims=True) + self.shape.eps)
        return (
            o
            * self.weights["norm.weight"]
            * (sigmoid(z) if self.shape.gate == "sigmoid" else silu(z))
        )


def gdn_layer_numbers(config: dict) -> list[int]:
    """N of every GDN layer: by layer_types, or all but each full_attention_interval-th."""
    if "layer_types" in config:
        return [n for n, kind in enumerate(config["layer_types"]) if kind == "linear_attention"]
    interval = config.get("full_attention_interval", 4)
    return [n for n in range(config["num_hidden_layers"]) if (n + 1) % interval]


def load_layers(directory: str | Path) -> dict[int, Layer]:
    """Every GDN layer of a Hugging Face checkpoint: config.json, and safetensors in one file or
    shards."""
    directory = Path(directory)
    config = json.loads((directory / "config.json").read_text())
    config = config.get("text_config", config)
    tensors: dict = {}
    for path in sorted(directory.glob("*.safetensors")):
        tensors.update(read_safetensors(path))
    layers = {}
    for n in gdn_layer_numbers(config):
        prefixes = (
            f"model.layers.{n}.linear_attn.",
            f"model.language_model.layers.{n}.linear_attn.",
        )
        weights = {
            k.removeprefix(p): read()
            for p in prefixes
            for k, read in tensors.items()
            if k.startswith(p)
        }
        layers[n] = Layer(Shape.of(config), weights)
    return layers


def relative_error(got: np.ndarray, want: np.ndarray) -> float:
    """|got - want| / |want|, of the whole arrays."""
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    return float(np.linalg.norm(got - want) / max(np.linalg.norm(want), 1e-30))
