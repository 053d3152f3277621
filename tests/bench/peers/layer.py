"""One whole layer, hidden states in and out: hidden 2048, 16/32 heads, K = V = 128, W = 4, bf16.

PyTorch over FLA's kernels in two forms: Transformers' own layer, and the leanest we know how to
write, with one merged projection and FLA's kernels for everything between the two.
"""

from __future__ import annotations

import math
import re
import subprocess

import torch
import torch.nn.functional as F

from peers.timing import DEVICE, eager_ms, first_line, graph_ms

HIDDEN = 2048
H, HV, DIM, WIDTH = 16, 32, 128, 4
KEY, VALUE = H * DIM, HV * DIM
CONV = 2 * KEY + VALUE
LAYERS = 4  # that calls rotate over: 270 MB of weights
EPS = 1e-6
CASES = [("decode", 1), ("decode", 32), ("decode", 128), ("prefill", 8192)]


class Lean:
    """Merged projection, and FLA's convolution, gates and rule in one, and gated norm."""

    def __init__(self) -> None:
        from fla.modules.causal_conv1d import causal_conv1d, causal_conv1d_update
        from fla.modules.fused_norm_gate import rms_norm_gated
        from fla.ops.gated_delta_rule import (
            chunk_gated_delta_rule,
            fused_recurrent_gated_delta_rule,
        )

        self._conv, self._conv_update, self._norm = (
            causal_conv1d,
            causal_conv1d_update,
            rms_norm_gated,
        )
        self._chunk, self._recurrent = chunk_gated_delta_rule, fused_recurrent_gated_delta_rule

        def normal(*shape: int, scale: float = 1.0) -> torch.Tensor:
            return scale * torch.randn(*shape, device=DEVICE)

        self.w_in = normal(CONV + VALUE + 2 * HV, HIDDEN, scale=0.02).bfloat16()
        self.w_out = normal(HIDDEN, VALUE, scale=0.02).bfloat16()
        self.conv_weight = normal(CONV, WIDTH, scale=0.5).bfloat16()
        self.norm_weight = normal(DIM).bfloat16()
        self.a_log = torch.empty(HV, device=DEVICE).uniform_(0, 16).log()
        self.dt_bias = normal(HV)

    def start(self, rows: int) -> None:
        self.conv_state = torch.randn(rows, CONV, WIDTH, device=DEVICE).bfloat16()
        self.state = 0.1 * torch.randn(rows, HV, DIM, DIM, device=DEVICE)

    def decode(self, x: torch.Tensor) -> torch.Tensor:
        """x [rows, 1, hidden]."""
        mixed, z, b, a = self._project(x)
        mixed, _ = self._conv_update(
            mixed, self.conv_state, weight=self.conv_weight, activation="silu"
        )
        o, state = self._rule(self._recurrent, mixed, b, a, self.state)
        if torch.cuda.is_current_stream_capturing():
            self.state.copy_(state)  # FLA writes it elsewhere, and a replay starts from this one
        else:
            self.state = state
        return self._finish(o, z)

    def prefill(self, x: torch.Tensor) -> torch.Tensor:
        """x [1, tokens, hidden], from an empty state."""
        mixed, z, b, a = self._project(x)
        mixed, _ = self._conv(mixed, self.conv_weight, activation="silu", output_final_state=True)
        o, _ = self._rule(self._chunk, mixed, b, a, None)
        return self._finish(o, z)

    def _project(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return F.linear(x, self.w_in).split([CONV, VALUE, HV, HV], -1)

    def _rule(self, rule: object, mixed: torch.Tensor, b: torch.Tensor, a: torch.Tensor,
              state: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
        q, k, v = (p.unflatten(-1, (-1, DIM)) for p in mixed.split([KEY, KEY, VALUE], -1))
        return rule(
            q, k, v, a, beta=b, initial_state=state, output_final_state=True,
            use_qk_l2norm_in_kernel=True, use_gate_in_kernel=True, A_log=self.a_log,
            dt_bias=self.dt_bias, use_beta_sigmoid_in_kernel=True,
        )  # fmt: skip

    def _finish(self, o: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        z = z.unflatten(-1, (-1, DIM))
        o = self._norm(o, z, self.norm_weight, None, "silu", eps=EPS)
        return F.linear(o.flatten(-2), self.w_out)


class Transformers:
    """Qwen3-Next's layer, which takes FLA's kernels where they import."""

    def __init__(self) -> None:
        from transformers.models.qwen3_next.configuration_qwen3_next import Qwen3NextConfig
        from transformers.models.qwen3_next.modeling_qwen3_next import Qwen3NextGatedDeltaNet

        self._config = Qwen3NextConfig(
            vocab_size=64,
            hidden_size=HIDDEN,
            num_hidden_layers=4,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=64,
            linear_num_key_heads=H,
            linear_num_value_heads=HV,
            linear_key_head_dim=DIM,
            linear_value_head_dim=DIM,
        )
        layer = Qwen3NextGatedDeltaNet(self._config, 0)
        self._layer = layer.eval().to(DEVICE, torch.bfloat16)

    def _cache(self) -> object:
        from transformers import DynamicCache

        return DynamicCache(config=self._config)

    def start(self, rows: int) -> None:
        self._rows = self._cache()
        prompt = torch.randn(rows, 4, HIDDEN, device=DEVICE, dtype=torch.bfloat16)
        self._layer(prompt, cache_params=self._rows)

    def decode(self, x: torch.Tensor) -> torch.Tensor:
        return self._layer(x, cache_params=self._rows)

    def prefill(self, x: torch.Tensor) -> torch.Tensor:
        return self._layer(x, cache_params=self._cache())


def measure(kind: type, case: tuple[str, int]) -> tuple[float, float]:
    """Microseconds eager and, for decode, in a graph."""
    what, n = case
    try:
        layers = [kind() for _ in range(LAYERS)]
        shape = (1, n, HIDDEN) if what == "prefill" else (n, 1, HIDDEN)
        x = torch.randn(*shape, device=DEVICE, dtype=torch.bfloat16)
        if what == "prefill":
            return 1e3 * eager_ms(lambda: layers[0].prefill(x)), math.nan
        for layer in layers:
            layer.start(n)
        eager = 1e3 * eager_ms(lambda: [layer.decode(x) for layer in layers]) / LAYERS
        return eager, 1e3 * graph_ms([lambda layer=layer: layer.decode(x) for layer in layers])
    except Exception as error:  # another version, or no graph of it
        print(f"  {kind.__name__}: {first_line(error)}", flush=True)
        return math.nan, math.nan


def ours(program: str | None) -> dict[str, float]:
    """Microseconds by the name of the case, from cuda_bench."""
    if program is None:
        return {}
    run = subprocess.run([program, "--filter=layer"], check=True, capture_output=True, text=True)
    lines = re.findall(r"^layer (\w+ \d+)\D.*?(\d+\.\d+)", run.stdout, re.MULTILINE)
    return {name: float(micros) for name, micros in lines}


def table(program: str | None) -> None:
    mine = ours(program)
    print(
        "\nwhole layer: us; lean and hf are PyTorch over FLA's kernels, hf Transformers' own layer"
    )
    print(
        f"{'':14} {'ours':>9} {'lean eager':>11} {'lean graph':>11} {'hf eager':>9} {'hf graph':>9}"
        "   ours / lean eager, graph, hf eager, graph"
    )
    for case in CASES:
        name = f"{case[0]} {case[1]}"
        figures = [*measure(Lean, case), *measure(Transformers, case)]
        time = mine.get(name, math.nan)
        cells = "{:11.1f} {:11.1f} {:9.1f} {:9.1f}".format(*figures)
        shares = " ".join(f"{time / figure:6.2f}" for figure in figures)
        print(f"{name:14} {time:9.1f} {cells}   {shares}", flush=True)
        torch.cuda.empty_cache()
