"""The latency of decodes alone and with a prefill beside them, by --prefill_chunk.

    mixed_bench.py --server=build/cpu/server/gdn-server [--backend=cpu] [--chunks=0,64,128,256,512]

One layer of hidden 2048 (16 key, 32 value heads) in bf16; inputs are made by the server and answers
discarded, so that the clients, threads of this program, cost little. Decodes of one row each from
--callers at once; one caller prefills --tokens tokens, again and again.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

from gdn_client import Client

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS / "e2e"), str(TESTS / "bench")]
from memory_bench import checkpoint  # noqa: E402
from server_process import ServerProcess  # noqa: E402


class Load:
    """Calls `step`, made by `prepare` of a client of its own, again and again until it is stopped;
    `times` are seconds."""

    def __init__(self, target: str, prepare):
        self.times: list[float] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(target, prepare))
        self._thread.start()

    def _run(self, target: str, prepare) -> None:
        with Client(target, timeout=120) as client:
            step = prepare(client)
            while not self._stop.is_set():
                begin = time.perf_counter()
                step()
                self.times.append(time.perf_counter() - begin)

    def stop(self) -> list[float]:
        self._stop.set()
        self._thread.join()
        return self.times


def decodes(name: str):
    def prepare(client: Client):
        first = client.decode(
            client.info.layers[0],
            client.rows(request_ids=[name], create=True, discard_output=True),
            synthetic_seed=1,
        )
        fields = dict(slots=first.slots, epochs=first.epochs, discard_output=True)
        return lambda: client.decode(0, client.rows(**fields), synthetic_seed=1)

    return prepare


def prefills(tokens: int):
    def prepare(client: Client):
        fields = dict(request_ids=["prompt"], token_counts=[tokens], create=True)
        fields |= dict(discard_output=True, release_after=True, step_id=0)
        return lambda: client.prefill(0, client.rows(**fields), synthetic_seed=2)

    return prepare


def run_for(seconds: float, target: str, work: list) -> list[list[float]]:
    loads = [Load(target, prepare) for prepare in work]
    time.sleep(seconds)
    return [load.stop() for load in loads]


def percentiles(times: list[float]) -> tuple[float, float]:
    """p50 and p99 in ms."""
    cuts = statistics.quantiles(times, n=100)
    return 1e3 * cuts[49], 1e3 * cuts[98]


def measure(target: str, arguments) -> str:
    callers = [decodes(f"d{i}") for i in range(arguments.callers)]
    prompt = prefills(arguments.tokens)
    run_for(1, target, [*callers, prompt])  # warms up
    (alone,) = run_for(arguments.seconds, target, [prompt])
    prefill_alone = arguments.tokens * len(alone) / sum(alone)
    p50, p99 = percentiles(sum(run_for(arguments.seconds, target, callers), []))
    *beside, prompts = run_for(arguments.seconds, target, [*callers, prompt])
    b50, b99 = percentiles(sum(beside, []))
    prefill_beside = arguments.tokens * len(prompts) / sum(prompts)
    return (
        f"{p50:8.2f} {p99:8.2f} {b50:8.2f} {b99:8.2f} {b99 / p99:8.2f}"
        f" {prefill_alone:10.0f} {prefill_beside:10.0f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--server", type=Path, required=True)
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--chunks", default="0,64,128,256,512")
    parser.add_argument("--callers", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument("--seconds", type=float, default=5)
    arguments = parser.parse_args()
    print(f"{arguments.callers} decodes of one row, a prefill of {arguments.tokens} beside; ms")
    print(f"{'':8} {'alone':>17} {'beside':>17} {'p99':>8} {'prefill tokens a second':>21}")
    print(
        f"{'chunk':>8} {'p50':>8} {'p99':>8} {'p50':>8} {'p99':>8} {'ratio':>8}"
        f" {'alone':>10} {'beside':>10}"
    )
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        model = checkpoint(
            work / "m", hidden=2048, heads=16, value_heads=32, layers=1, dtype="bf16"
        )
        for chunk in arguments.chunks.split(","):
            server = ServerProcess(
                arguments.server.resolve(),
                model,
                work / "log",
                listen=f"unix:{work}/s.sock",
                backend=arguments.backend,
                allow_synthetic_input=True,
                prefill_chunk=chunk,
            )
            server.await_ready()
            print(f"{chunk:>8} {measure(server.target, arguments)}", flush=True)
            server.stop()


if __name__ == "__main__":
    main()
