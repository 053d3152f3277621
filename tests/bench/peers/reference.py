"""The layer's core in float64, token by token: what every implementation is checked against."""

from __future__ import annotations

import torch
import torch.nn.functional as F
import triton
import triton.language as tl

L2_EPS = 1e-6
NORM_EPS = 1e-6
COLUMNS = 4  # of the state, in one program


@triton.jit
def _delta_rule(
    q, k, v, g, beta, state, final, o, offsets, scale,
    H: tl.constexpr, HV: tl.constexpr, K: tl.constexpr, V: tl.constexpr, BV: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0) // HV
    head = tl.program_id(0) % HV
    keys = tl.arange(0, K)
    columns = tl.program_id(1) * BV + tl.arange(0, BV)
    block = (row * HV + head).to(tl.int64) * K * V + keys[:, None] * V + columns[None, :]
    s = tl.load(state + block)
    begin = tl.load(offsets + row)
    end = tl.load(offsets + row + 1)
    for t in range(begin, end):
        key = (t.to(tl.int64) * H + head // (HV // H)) * K + keys
        gate = t.to(tl.int64) * HV + head
        value = gate * V + columns
        # S *= exp(g);  d = beta * (v - Sᵀ k);  S += k ⊗ d;  o = scale * Sᵀ q
        kt = tl.load(k + key)
        s *= tl.exp(tl.load(g + gate))
        d = tl.load(beta + gate) * (tl.load(v + value) - tl.sum(s * kt[:, None], 0))
        s += kt[:, None] * d[None, :]
        tl.store(o + value, scale * tl.sum(s * tl.load(q + key)[:, None], 0))
    tl.store(final + block, s)


def _unit(x: torch.Tensor) -> torch.Tensor:
    x = x.double()
    return (x * torch.rsqrt(x.square().sum(-1, keepdim=True) + L2_EPS)).contiguous()


def delta_rule(
    q: torch.Tensor,  # [T, H, K], normalised here
    k: torch.Tensor,
    v: torch.Tensor,  # [T, HV, V]
    g: torch.Tensor,  # [T, HV]
    beta: torch.Tensor,
    state: torch.Tensor,  # [N, HV, K, V]
    offsets: torch.Tensor,  # [N + 1]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Output [T, HV, V] and final state [N, HV, K, V]."""
    (tokens, heads, key_dim), (_, value_heads, value_dim) = q.shape, v.shape
    o = torch.empty(tokens, value_heads, value_dim, dtype=torch.float64, device=q.device)
    final = torch.empty(state.shape, dtype=torch.float64, device=q.device)
    grid = (len(state) * value_heads, value_dim // COLUMNS)
    values, gates, betas = (x.double().contiguous() for x in (v, g, beta))
    _delta_rule[grid](
        _unit(q), _unit(k), values, gates, betas, state.double().contiguous(), final, o, offsets,
        key_dim**-0.5, H=heads, HV=value_heads, K=key_dim, V=value_dim, BV=COLUMNS, num_warps=1,
    )  # fmt: skip
    return o, final


def gates(
    a: torch.Tensor, b: torch.Tensor, a_log: torch.Tensor, dt_bias: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """g and beta."""
    x = a.double() + dt_bias.double()
    return -a_log.double().exp() * F.softplus(x), b.double().sigmoid()


def conv(mixed: torch.Tensor, history: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """silu of the convolution of one token: mixed [N, C], history [N, W - 1, C], weight [C, W]."""
    window = torch.cat([history, mixed[:, None]], 1).double()
    return F.silu((window * weight.double().T).sum(1))


def gated_norm(o: torch.Tensor, z: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    o = o.double()
    o = o * torch.rsqrt(o.square().mean(-1, keepdim=True) + NORM_EPS)
    return o * weight.double() * F.silu(z.double())


def relative_rms(x: torch.Tensor, reference: torch.Tensor) -> float:
    x = x.double().reshape(reference.shape)
    return ((x - reference).square().mean() / reference.square().mean()).sqrt().item()
