"""A mixed load for a long time: steps with deadlines, cancels, disconnects, leases that end, workers
that are killed. Every answer is compared with numpy; at the end every slot must be free again, and the
server's memory must not have grown.

    python soak.py --server=build/cpu/server/gdn-server --minutes=30
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from fleet import SLOTS, Fleet
from gdn_client import NO_RETRY, Client

WORKERS, MISHAPS = 3, 0.03
KILL_EVERY = 5.0  # seconds
SLOPE_MINUTES = 10  # below that the slope says nothing
MOST_SLOPE = 1.0  # MiB an hour


def run(fleet: Fleet, seconds: float, seed: int = 1) -> list[tuple[float, int]]:
    """The load. -> (seconds, bytes resident) over time."""
    rng, begin, samples = random.Random(seed), time.monotonic(), []
    for _ in range(WORKERS):
        fleet.start_worker()
    next_kill = begin + min(KILL_EVERY, seconds / 2)
    while (now := time.monotonic()) < begin + seconds:
        samples.append((now - begin, fleet.server.resident()))
        if now >= next_kill:
            fleet.kill_worker(rng.randrange(WORKERS))
            fleet.start_worker()
            next_kill = now + KILL_EVERY
        time.sleep(min(0.5, seconds / 20))
    return samples


def slope(samples: list[tuple[float, int]]) -> float:
    """MiB an hour: the median of the slopes between any two samples of the second half. malloc takes
    memory in rare large steps, which a straight line through all samples would take for a leak."""
    half = np.array(samples[len(samples) // 2 :], float)
    half = half[:: max(len(half) // 500, 1)]
    i, j = np.triu_indices(len(half), 1)
    slopes = (half[j, 1] - half[i, 1]) / (half[j, 0] - half[i, 0])
    return float(np.median(slopes)) * 3600 / (1 << 20)


def lost_slots(target: str) -> int:
    """Waits until leases are over; -> slots that no sequence can have."""
    with Client(target, retry=NO_RETRY, timeout=60) as client:
        end = time.monotonic() + 30
        while list(client.list_sequences()) and time.monotonic() < end:
            time.sleep(0.05)
        names = [f"last-{i}" for i in range(SLOTS)]
        rows = client.rows(request_ids=names, create=True)
        client.prefill(
            client.info.layers[0], rows, np.ones((SLOTS, client.info.geometry.hidden_size))
        )
        lost = SLOTS - len(list(client.list_sequences()))
        client.release(names)
        return lost


def soak(binary: Path, seconds: float, backend: str = "auto") -> dict:
    """-> what happened; `faults` names what must not have."""
    with tempfile.TemporaryDirectory() as folder:
        fleet = Fleet(binary, Path(folder), MISHAPS, backend)
        try:
            samples = run(fleet, seconds)
            failed, counts = fleet.join(), dict(fleet.counts())
            result = dict(
                counts, killed_workers=fleet.started - WORKERS, lost_slots=lost_slots(fleet.target)
            )
            result["resident_mib"] = round(samples[-1][1] / (1 << 20), 1)
            result["slope_mib_an_hour"] = round(slope(samples), 2)
            long = seconds >= SLOPE_MINUTES * 60
            checks = {
                "workers failed": failed,
                "wrong answers": counts.get("wrong", 1),
                "slots lost": result["lost_slots"],
                "memory grows": long and result["slope_mib_an_hour"] > MOST_SLOPE,
                "the server ended": not fleet.server.alive or fleet.server.stop(),
            }
            result["faults"] = [name for name, fault in checks.items() if fault]
            if failed:
                print(fleet.complaints(), file=sys.stderr)
            return result
        finally:
            fleet.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--server", required=True, type=Path)
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--minutes", type=float, default=30)
    arguments = parser.parse_args()
    result = soak(arguments.server.resolve(), arguments.minutes * 60, arguments.backend)
    print(json.dumps(result, indent=2, sort_keys=True))
    return 1 if result["faults"] else 0


if __name__ == "__main__":
    sys.exit(main())
