"""The chunked gated delta rule with l2norm, initial and final state."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import torch
import torch.nn.functional as F

from peers.ours import Kernels, chunk_tables
from peers.reference import delta_rule, relative_rms
from peers.timing import COLD_BYTES, DEVICE, UNKNOWN, Errors, cell, first_line, graph_ms, ratios

DIM = 128  # K and V
CASES = [  # H, HV, lengths; the first three are the quick ones
    (16, 32, [1024]),
    (16, 32, [8192]),
    (16, 32, [4096, 1, 700, 64, 63, 2500, 30, 738]),
    (16, 32, [32768]),
    (16, 32, [131072]),
    (16, 32, [8192] * 4),
    (16, 32, [1024] * 8),
    (16, 32, [64] * 128),
    (2, 8, [8192]),
    (2, 8, [32768]),
    (4, 16, [32768]),
    (16, 64, [8192]),
    (16, 64, [8192] * 4),
    (16, 48, [8192] * 4),
]
GATES = [("usual gates", 1.0), ("gates near 0", 1e-3), ("strong decay", 50.0)]


@dataclasses.dataclass
class Rows:
    """Tables that all batches of a case share: FLA and FlashQLA cache by a tensor's identity."""

    offsets: torch.Tensor
    offsets32: torch.Tensor
    chunks: tuple[torch.Tensor, torch.Tensor, int]


@dataclasses.dataclass
class Batch:
    rows: Rows
    q: torch.Tensor  # [1, T, H, K]
    k: torch.Tensor
    v: torch.Tensor  # [1, T, HV, V]
    g: torch.Tensor  # [1, T, HV]
    beta: torch.Tensor
    alpha: torch.Tensor  # [T, HV]: exp(g)
    state: torch.Tensor  # [N, HV, K, V], as FLA and FlashQLA take it
    state_v: torch.Tensor  # [N, HV, V, K], as FlashInfer does
    final: torch.Tensor  # the same, FlashInfer's result; ours starts from it and works in place
    o: torch.Tensor  # [T, HV, V]


def make_rows(lengths: list[int]) -> Rows:
    offsets = torch.tensor([0, *lengths]).cumsum(0).to(DEVICE)
    return Rows(offsets, offsets.int(), chunk_tables(lengths, DEVICE))


def make_batch(rows: Rows, heads: int, value_heads: int, seed: int, gates: float) -> Batch:
    gen = torch.Generator(device=DEVICE).manual_seed(seed)
    tokens, count = int(rows.offsets[-1]), len(rows.offsets) - 1

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, device=DEVICE, generator=gen)

    rate = torch.empty(value_heads, device=DEVICE).uniform_(0, 16, generator=gen)
    dt_bias = 0.1 * normal(value_heads) - 4
    g = -rate * F.softplus(normal(1, tokens, value_heads) + dt_bias) * gates
    state = 0.1 * normal(count, value_heads, DIM, DIM)
    state_v = state.transpose(-1, -2).contiguous()
    return Batch(
        rows=rows,
        q=normal(1, tokens, heads, DIM).bfloat16(),
        k=normal(1, tokens, heads, DIM).bfloat16(),
        v=normal(1, tokens, value_heads, DIM).bfloat16(),
        g=g,
        beta=normal(1, tokens, value_heads).sigmoid(),
        alpha=g[0].exp(),
        state=state,
        state_v=state_v,
        final=state_v.clone(),
        o=torch.empty(tokens, value_heads, DIM, device=DEVICE, dtype=torch.bfloat16),
    )


Run = Callable[[Batch], tuple[torch.Tensor, torch.Tensor]]


def implementations(peers: dict[str, object], kernels: Kernels | None) -> dict[str, Run]:
    """Of each, a function that gives output and final state, the latter with K before V."""

    def ours(x: Batch) -> tuple:
        kernels.prefill(
            x.q[0], x.k[0], x.v[0], x.g[0], x.beta[0], x.final, x.rows.offsets, x.rows.chunks, x.o
        )
        return x.o, x.final.transpose(-1, -2)

    def k_first(chunk: Callable, x: Batch, **more: object) -> tuple:
        return chunk(
            x.q, x.k, x.v, x.g, x.beta,
            initial_state=x.state, output_final_state=True, use_qk_l2norm_in_kernel=True,
            cu_seqlens=x.rows.offsets, **more,
        )  # fmt: skip

    def flashinfer(x: Batch, context_parallel: bool) -> tuple:
        o, state = peers["fi"].prefill(
            x.q[0], x.k[0], x.v[0], x.alpha, x.beta[0], None, x.state_v, True, x.rows.offsets32,
            True, x.o, x.final, use_cp=context_parallel,
        )  # fmt: skip
        return o, state.transpose(-1, -2)

    runs: dict[str, Run] = {}
    if kernels is not None:
        runs["ours"] = ours
    if "fla" in peers:
        runs["fla"] = lambda x: k_first(peers["fla"].chunk_gated_delta_rule, x)
    if "qla" in peers:
        chunk = peers["qla"].chunk_gated_delta_rule
        runs["qla"] = lambda x: k_first(chunk, x, enable_fwd_cp_cache=False)
    if "fi" in peers:
        runs["fi_nocp"] = lambda x: flashinfer(x, False)
        runs["fi_cp"] = lambda x: flashinfer(x, True)
    return runs


def measure(
    runs: dict[str, Run], heads: int, value_heads: int, lengths: list[int],
    gates: float = 1.0, timed: bool = True,
) -> tuple[dict[str, float], dict[str, Errors]]:  # fmt: skip
    """Milliseconds and errors of each."""
    tokens, states = sum(lengths), len(lengths) * value_heads * DIM * DIM
    size = tokens * (4 * heads * DIM + 4 * value_heads * DIM + 8 * value_heads) + 8 * states
    rows = make_rows(lengths)
    sets = math.ceil(COLD_BYTES / size) if timed else 1
    batches = [make_batch(rows, heads, value_heads, seed, gates) for seed in range(sets)]
    x = batches[0]
    o, state = delta_rule(x.q[0], x.k[0], x.v[0], x.g[0], x.beta[0], x.state, rows.offsets)
    times, errors = dict.fromkeys(runs, math.nan), dict.fromkeys(runs, UNKNOWN)
    for name, run in runs.items():
        try:
            x.o.fill_(math.nan)
            x.final.copy_(x.state_v)
            result = run(x)
            errors[name] = relative_rms(result[0], o), relative_rms(result[1], state)
            if timed:
                times[name] = graph_ms([lambda x=x, run=run: run(x) for x in batches])
        except Exception as error:  # a peer may not take a shape
            print(f"  {name}: {first_line(error)}", flush=True)
    return times, errors


def title(heads: int, value_heads: int, lengths: list[int]) -> str:
    equal = len(set(lengths)) == 1
    shape = f"{len(lengths)}x{lengths[0]}" if equal else f"ragged {len(lengths)} ({sum(lengths)})"
    return f"{heads}/{value_heads} {shape}"


def table(peers: dict[str, object], kernels: Kernels | None, quick: bool, only: str) -> None:
    runs = implementations(peers, kernels)
    names = " ".join(f"{name:>25}" for name in runs)
    print(
        f"\nprefill: ms, error of output / final state against float64\n{'':21} {names}   /fla  /best"
    )
    for label, gates in GATES:
        _, errors = measure(runs, 16, 32, [1024, 1000], gates, timed=False)
        print(f"{label:21} " + " ".join(cell(math.nan, e) for e in errors.values()), flush=True)
    for case in CASES[: 3 if quick else None]:
        if only not in title(*case):
            continue
        times, errors = measure(runs, *case)
        cells = " ".join(cell(times[name], errors[name]) for name in runs)
        print(f"{title(*case):21} {cells} {ratios(times)}", flush=True)
        torch.cuda.empty_cache()
