"""Our CPU backend beside Transformers' own CPU path, in one run on the same cores.

    cpu_peers.py --ours=build/cpu/tests/bench/cpu_bench [--python=PYTHON] [--rounds=3] [...]

Runs both programs in turn, `--rounds` times, and prints the median of each and their ratio; then how
ours scales with cores. `--python` is an interpreter that has torch and transformers.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

PEER = Path(__file__).resolve().parent / "hf_cpu.py"
CASES = "prefill:64,prefill:512,decode:1,decode:8,decode:32"
# Ours has to be so many times as fast.
TARGETS = {("prefill", 512): 2.0, ("decode", 8): 5.0, ("decode", 32): 5.0}

Key = tuple[int, str, str, int]  # threads, dtype, kind, n


def measure(command: list[str], into: dict[Key, list[float]]) -> None:
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    for line in done.stdout.splitlines():
        r = json.loads(line)
        into[r["threads"], r["dtype"], r["kind"], r["n"]].append(r["ms"])


def print_ratios(ours: dict[Key, list[float]], theirs: dict[Key, list[float]]) -> None:
    print(
        f"{'threads':>7} {'dtype':>5} {'case':>12} {'ours ms':>9} {'transformers ms':>16} {'ratio':>6} {'target':>6}"
    )
    for key, times in ours.items():
        threads, dtype, kind, n = key
        mine, other = statistics.median(times), statistics.median(theirs[key])
        target = TARGETS.get((kind, n))
        print(
            f"{threads:7} {dtype:>5} {f'{kind} {n}':>12} {mine:9.2f} {other:16.2f} {other / mine:6.1f}"
            f" {target or '':>6}"
        )


def print_scaling(ours: dict[Key, list[float]]) -> None:
    most = max(threads for threads, *_ in ours)
    if most == 1:
        return
    print(f"\nours, {most} threads against one:")
    for (threads, dtype, kind, n), times in ours.items():
        if threads == 1:
            ratio = statistics.median(times) / statistics.median(ours[most, dtype, kind, n])
            print(f"{dtype:>5} {f'{kind} {n}':>12} {ratio:6.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ours", required=True, help="the program cpu_bench")
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", default="1,0")
    parser.add_argument("--dtypes", default="fp32,bf16")
    parser.add_argument("--cases", default=CASES)
    args = parser.parse_args()
    flags = [
        f"--threads={args.threads}",
        f"--dtypes={args.dtypes}",
        f"--cases={args.cases}",
        "--json",
    ]
    ours: dict[Key, list[float]] = defaultdict(list)
    theirs: dict[Key, list[float]] = defaultdict(list)
    for _ in range(args.rounds):
        measure([args.ours, *flags], ours)
        measure([args.python, str(PEER), *flags], theirs)
    print_ratios(ours, theirs)
    print_scaling(ours)


if __name__ == "__main__":
    main()
