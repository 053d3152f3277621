"""Times on the device, and how they are printed."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable

import torch

COLD_BYTES = 256 << 20  # what the calls of a graph rotate over, several times the L2 cache
REPEATS = 15
DEVICE = "cuda"

Call = Callable[[], object]
Errors = tuple[float, float]  # of output and final state
UNKNOWN: Errors = (math.nan, math.nan)


def median_ms(run: Call, calls: int = 1) -> float:
    """Time of one of the `calls` calls that `run` makes."""
    times = []
    for _ in range(REPEATS):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        run()
        end.record()
        torch.cuda.synchronize()
        times.append(begin.elapsed_time(end) / calls)
    return statistics.median(times)


def graph_ms(calls: list[Call]) -> float:
    """Time of a call in a graph that makes every one of `calls`, and at least eight in all."""
    repeats = math.ceil(8 / len(calls))
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # compile and tune outside the capture
        for call in calls:
            call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(repeats):
            for call in calls:
                call()
    graph.replay()
    return median_ms(graph.replay, repeats * len(calls))


def eager_ms(call: Call) -> float:
    """Time of a call of a queue of four: the CPU's share shows only where it is the slower one."""
    for _ in range(3):
        call()
    return median_ms(lambda: [call() for _ in range(4)], 4)


def copy_rate() -> float:
    """GB/s, read and written, of a large copy. Not in a graph, whose copies take a slower engine."""
    source = torch.ones(1 << 31, dtype=torch.uint8, device=DEVICE)
    target = torch.empty_like(source)
    target.copy_(source)
    ms = median_ms(lambda: [target.copy_(source) for _ in range(2)], 2)
    return 2 * source.numel() / ms / 1e6


def cell(time: float, errors: Errors) -> str:
    text = f"{time:9.4g} {errors[0]:.1e}/{errors[1]:.1e}".replace("e-0", "e-")
    return f"{text:>25}"


def ratios(times: dict[str, float]) -> str:
    """Our time over FLA's and over the best of the others."""
    others = [t for name, t in times.items() if name != "ours" and not math.isnan(t)]
    ours, fla = times.get("ours", math.nan), times.get("fla", math.nan)
    return f"{ours / fla:6.2f} {ours / min(others, default=math.nan):6.2f}"


def first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]
