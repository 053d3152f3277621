"""Decode, one token a row, 16/32 heads, fp32 state.

Ours does everything between the two projections in one kernel: convolution, gates, l2norm,
recurrence, gated norm and the check for NaN and infinity. FLA's does l2norm and recurrence,
FlashInfer's the gates too; they take q, k and v after the convolution, rounded to bf16.
"""

from __future__ import annotations

import dataclasses
import math

import torch

from peers import reference
from peers.ours import Kernels
from peers.reference import relative_rms
from peers.timing import (
    COLD_BYTES, DEVICE, UNKNOWN, Errors, cell, copy_rate, first_line, graph_ms, ratios,
)  # fmt: skip

H, HV, DIM, WIDTH = 16, 32, 128, 4
KEY, VALUE = H * DIM, HV * DIM
CONV = 2 * KEY + VALUE
INPUT = CONV + VALUE + 2 * HV  # q | k | v | z | b | a, as one merged projection leaves it
STATE_BYTES = HV * DIM * DIM * 4  # of a row
CONV_BYTES = (WIDTH - 1) * CONV * 2
SLOTS = 1100
ROWS = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512]
QUICK_ROWS = [1, 32, 128]


class Pools:
    """Layer parameters, and states by slot in the layout of each implementation."""

    def __init__(self) -> None:
        gen = torch.Generator(device=DEVICE).manual_seed(1)

        def normal(*shape: int) -> torch.Tensor:
            return torch.randn(*shape, device=DEVICE, generator=gen)

        self.conv_weight = 0.5 * normal(CONV, WIDTH)
        self.a_log = torch.empty(HV, device=DEVICE).uniform_(0, 16, generator=gen).log()
        self.dt_bias = 0.1 * normal(HV) - 4
        self.norm_weight = normal(DIM)
        self.conv = normal(SLOTS, WIDTH - 1, CONV).bfloat16()
        self.ours = torch.empty(SLOTS, HV, DIM, DIM, device=DEVICE)
        self.flashinfer = torch.empty_like(self.ours)
        self.fla = torch.empty_like(self.ours)
        self.reset()

    def reset(self) -> None:
        """The same states in each."""
        self.fla.normal_(std=0.1)
        self.ours.copy_(self.fla.transpose(-1, -2))
        self.flashinfer.copy_(self.ours)


@dataclasses.dataclass
class Batch:
    pools: Pools
    slots: torch.Tensor  # [B], one after another: FLA takes a contiguous piece
    fla_state: torch.Tensor  # [B, HV, K, V]
    x: torch.Tensor  # [B, INPUT]
    q: torch.Tensor  # [B, 1, H, K], convolved
    k: torch.Tensor
    v: torch.Tensor  # [B, 1, HV, V]
    a: torch.Tensor  # [B, 1, HV], dense
    b: torch.Tensor
    g: torch.Tensor  # [B, 1, HV]
    beta: torch.Tensor
    o: torch.Tensor  # [B, 1, HV, V]
    faults: torch.Tensor  # [B]

    def part(self, name: str) -> torch.Tensor:
        begin, size = {
            "mixed": (0, CONV),
            "z": (CONV, VALUE),
            "b": (CONV + VALUE, HV),
            "a": (CONV + VALUE + HV, HV),
        }[name]
        return self.x[:, begin : begin + size]


def split(y: torch.Tensor) -> list[torch.Tensor]:
    """q, k [B, 1, H, K] and v [B, 1, HV, V] of a convolution's output [B, CONV]."""
    parts = y.split([KEY, KEY, VALUE], 1)
    return [p.reshape(len(y), 1, -1, DIM).contiguous() for p in parts]


def make_batch(pools: Pools, rows: int, index: int) -> Batch:
    gen = torch.Generator(device=DEVICE).manual_seed(index)
    first = index * rows
    slots = torch.arange(first, first + rows, device=DEVICE, dtype=torch.int32)
    x = torch.randn(rows, INPUT, device=DEVICE, generator=gen).bfloat16()
    batch = Batch(
        pools, slots, pools.fla[first : first + rows], x, *[torch.empty(0)] * 7,
        o=torch.empty(rows, 1, HV, DIM, device=DEVICE, dtype=torch.bfloat16),
        faults=torch.zeros(rows, device=DEVICE, dtype=torch.int32),
    )  # fmt: skip
    batch.q, batch.k, batch.v = (p.bfloat16() for p in split(convolved(batch)))
    batch.a, batch.b = (batch.part(name).unsqueeze(1).contiguous() for name in "ab")
    g, beta = gates(batch)
    batch.g, batch.beta = g.float()[:, None], beta.float()[:, None]
    return batch


def convolved(batch: Batch) -> torch.Tensor:
    history = batch.pools.conv[batch.slots.long()]
    return reference.conv(batch.part("mixed"), history, batch.pools.conv_weight)


def gates(batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    pools = batch.pools
    return reference.gates(batch.part("a"), batch.part("b"), pools.a_log, pools.dt_bias)


def expected(batch: Batch, fused: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Output and state [B, HV, K, V] in float64; `fused` from the projection on, with the norm."""
    parts = split(convolved(batch)) if fused else [batch.q, batch.k, batch.v]
    q, k, v = (p[:, 0] for p in parts)
    rows = torch.arange(len(batch.x) + 1, device=DEVICE)
    o, state = reference.delta_rule(q, k, v, *gates(batch), batch.fla_state, rows)
    if fused:
        z = batch.part("z").reshape(-1, HV, DIM)
        o = reference.gated_norm(o, z, batch.pools.norm_weight)
    return o, state


class Ours:
    fused = True

    def __init__(self, kernels: Kernels) -> None:
        self._kernels = kernels

    def run(self, x: Batch) -> None:
        self._kernels.decode(
            (H, HV, DIM), rows=len(x.x), slots=x.slots,
            mixed=x.part("mixed"), z=x.part("z"), b=x.part("b"), a=x.part("a"),
            mixed_stride=INPUT, z_stride=INPUT, ba_stride=INPUT,
            conv_weight=x.pools.conv_weight, a_log=x.pools.a_log, dt_bias=x.pools.dt_bias,
            norm_weight=x.pools.norm_weight, conv=x.pools.conv, ssm=x.pools.ours, o=x.o,
            faults=x.faults,
        )  # fmt: skip

    def result(self, x: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        self.run(x)
        if x.faults.any():
            raise RuntimeError("finite input was taken for non-finite")
        return x.o, x.pools.ours[x.slots.long()].transpose(-1, -2)


class Fla:
    fused = False

    def __init__(self, fla: object) -> None:
        self._call = fla.fused_recurrent_gated_delta_rule

    def run(self, x: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        return self._call(
            x.q, x.k, x.v, x.g, beta=x.beta, initial_state=x.fla_state, output_final_state=True,
            use_qk_l2norm_in_kernel=True,
        )  # fmt: skip

    result = run


class FlashInfer:
    fused = False

    def __init__(self, flashinfer: object) -> None:
        self._call = flashinfer.decode

    def run(self, x: Batch) -> None:
        self._call(
            x.q, x.k, x.v, None, x.pools.a_log, x.a, x.pools.dt_bias, x.b, output=x.o,
            use_qk_l2norm=True, initial_state=x.pools.flashinfer, initial_state_indices=x.slots,
            backend="flashinfer",
        )  # fmt: skip

    def result(self, x: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        self.run(x)
        return x.o, x.pools.flashinfer[x.slots.long()].transpose(-1, -2)


def implementations(peers: dict[str, object], kernels: Kernels | None) -> dict[str, object]:
    found: dict[str, object] = {}
    if kernels is not None:
        found["ours"] = Ours(kernels)
    if "fla" in peers:
        found["fla"] = Fla(peers["fla"])
    if "fi" in peers:
        found["fi"] = FlashInfer(peers["fi"])
    return found


def measure(
    found: dict[str, object], pools: Pools, rows: int
) -> tuple[dict[str, float], dict[str, Errors]]:
    """Microseconds and errors of each."""
    pools.reset()
    sets = max(2, math.ceil(COLD_BYTES / (rows * STATE_BYTES)))
    batches = [make_batch(pools, rows, index) for index in range(min(sets, SLOTS // rows))]
    x = batches[0]
    references = {fused: expected(x, fused) for fused in (False, True)}
    times, errors = dict.fromkeys(found, math.nan), dict.fromkeys(found, UNKNOWN)
    for name, one in found.items():
        try:
            x.o.fill_(math.nan)
            o, state = one.result(x)
            reference = references[one.fused]
            errors[name] = relative_rms(o, reference[0]), relative_rms(state, reference[1])
            times[name] = 1e3 * graph_ms([lambda x=x, one=one: one.run(x) for x in batches])
        except Exception as error:
            print(f"  {name}: {first_line(error)}", flush=True)
    return times, errors


def table(peers: dict[str, object], kernels: Kernels | None, quick: bool) -> None:
    found = implementations(peers, kernels)
    copy = copy_rate()
    names = " ".join(f"{name:>25}" for name in found)
    print(f"\ndecode {H}/{HV}: us, error of output / state against float64")
    print("ours: conv, gates, l2norm, recurrence, gated norm, NaN check; fla: l2norm, recurrence;")
    print(f"fi: l2norm, gates, recurrence. GB/s are ours, of both states; device copy {copy:.0f}")
    print(f"{'rows':>5} {names}   /fla  /best   GB/s  /copy")
    pools = Pools()
    for rows in QUICK_ROWS if quick else ROWS:
        times, errors = measure(found, pools, rows)
        rate = 2 * rows * (STATE_BYTES + CONV_BYTES) / times.get("ours", math.nan) / 1e3
        cells = " ".join(cell(times[name], errors[name]) for name in found)
        print(f"{rows:5} {cells} {ratios(times)} {rate:6.0f} {rate / copy:6.3f}", flush=True)
