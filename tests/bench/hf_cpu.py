"""Times one Gated DeltaNet layer of Hugging Face Transformers on the CPU, its own PyTorch path: the
layer and the cases of cpu_bench.cc (hidden 2048, 16/32 heads, K = V = 128).

    hf_cpu.py [--threads=1,0] [--dtypes=fp32,bf16] [--cases=prefill:512,decode:8,...] [--json]

Needs torch and transformers. Prints medians in milliseconds; with --json one object a line.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable

import torch
from transformers import DynamicCache
from transformers.models.qwen3_next.configuration_qwen3_next import Qwen3NextConfig
from transformers.models.qwen3_next.modeling_qwen3_next import Qwen3NextGatedDeltaNet

HIDDEN = 2048
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
CASES = "prefill:64,prefill:512,prefill:2048,decode:1,decode:8,decode:32"
CONFIG = Qwen3NextConfig(
    vocab_size=64,
    hidden_size=HIDDEN,
    num_hidden_layers=4,
    num_attention_heads=2,
    num_key_value_heads=1,
    head_dim=64,
    linear_num_key_heads=16,
    linear_num_value_heads=32,
    linear_key_head_dim=128,
    linear_value_head_dim=128,
)


def median_ms(call: Callable[[], object], repeats: int) -> float:
    call()
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    return statistics.median(times) * 1e3


def time_case(layer: torch.nn.Module, dtype: torch.dtype, kind: str, n: int, repeats: int) -> float:
    if kind == "prefill":
        hidden = torch.randn(1, n, HIDDEN, dtype=dtype)
        return median_ms(lambda: layer(hidden, cache_params=DynamicCache(config=CONFIG)), repeats)
    cache = DynamicCache(config=CONFIG)
    layer(torch.randn(n, 4, HIDDEN, dtype=dtype), cache_params=cache)
    hidden = torch.randn(n, 1, HIDDEN, dtype=dtype)
    return median_ms(lambda: layer(hidden, cache_params=cache), repeats)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", default="1,0", help="numbers of threads; 0: all cores")
    parser.add_argument("--dtypes", default="fp32,bf16")
    parser.add_argument("--cases", default=CASES)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    torch.set_grad_enabled(False)
    torch.manual_seed(0)
    for threads in (int(t) or os.cpu_count() for t in args.threads.split(",")):
        torch.set_num_threads(threads)
        for dtype in args.dtypes.split(","):
            layer = Qwen3NextGatedDeltaNet(CONFIG, 0).eval().to(DTYPES[dtype])
            for case in args.cases.split(","):
                kind, n = case.split(":")
                ms = time_case(layer, DTYPES[dtype], kind, int(n), args.repeats)
                result = {
                    "threads": threads,
                    "dtype": dtype,
                    "kind": kind,
                    "n": int(n),
                    "ms": round(ms, 3),
                }
                if args.json:
                    print(json.dumps(result), flush=True)
                else:
                    print(
                        f"threads {threads:2}  {dtype}  {kind:7} {n:>5}  {ms:9.2f} ms", flush=True
                    )


if __name__ == "__main__":
    main()
