"""Our CUDA kernels beside the public ones, in one run on the same machine, shapes and inputs.

    cuda_peers.py --library=build/cuda/tests/bench/libgdn_ops_c.so
                  [--program=build/cuda/tests/bench/cuda_bench] [--peers=fla,qla,fi] [--quick]
                  [--only=SUBSTRING] [prefill] [decode] [layer]

The peers are FLA (Triton), FlashQLA (TileLang) and FlashInfer (CuTe DSL); those that do not import
are left out, as is ours without --library. K = V = 128, bf16 in and out, fp32 state. Every figure
is the time of one call inside a CUDA graph of many calls, the median of 15 replays, unless it says
eager; the calls rotate over more than 256 MB. The two numbers behind a time are the relative RMS
errors of output and state against a recurrence in float64, taken before. /fla and /best are our time
over FLA's and over the best of the others. Whole layers of ours run through cuda_bench.
"""

from __future__ import annotations

import argparse
import time

import torch
from peers import decode, layer, prefill, public
from peers.ours import Kernels


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tables", nargs="*", metavar="prefill | decode | layer")
    parser.add_argument("--library", help="libgdn_ops_c.so")
    parser.add_argument("--program", help="cuda_bench")
    parser.add_argument("--peers", default=",".join(public.NAMES))
    parser.add_argument("--quick", action="store_true", help="the main cases only")
    parser.add_argument("--only", default="", help="prefills whose name has this, like 16/32 1x")
    args = parser.parse_args()
    torch.set_grad_enabled(False)
    torch.manual_seed(0)
    peers = public.load(args.peers.split(","))
    kernels = Kernels(args.library) if args.library else None
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, peers: {', '.join(peers)}")
    tables = {
        "prefill": lambda: prefill.table(peers, kernels, args.quick, args.only),
        "decode": lambda: decode.table(peers, kernels, args.quick),
        "layer": lambda: layer.table(args.program),
    }
    for name in args.tables or tables:
        begin = time.perf_counter()
        tables[name]()
        print(f"({time.perf_counter() - begin:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
