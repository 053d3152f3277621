"""The server is killed under load, again and again: every caller notices, begins its sequences anew and
ends with the answers of an undisturbed run.

    python chaos.py --server=build/cpu/server/gdn-server --restarts=20
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from pathlib import Path

from fleet import Fleet

WORKERS = 3


def errands(fleet: Fleet) -> int:
    return fleet.counts()["errands"]


def run(fleet: Fleet, restarts: int, seed: int = 1) -> None:
    """Kills the server each time that some errands have ended, at a random moment."""
    rng = random.Random(seed)
    for _ in range(WORKERS):
        fleet.start_worker()
    for _ in range(restarts):
        enough = errands(fleet) + 2 * WORKERS
        while errands(fleet) < enough and all(w.poll() is None for w in fleet.workers):
            time.sleep(0.01)
        time.sleep(rng.random() * 0.2)
        fleet.server.kill()
        fleet.start_server()


def chaos(binary: Path, restarts: int, backend: str = "auto") -> dict:
    """-> what happened; `faults` names what must not have."""
    with tempfile.TemporaryDirectory() as folder:
        fleet = Fleet(binary, Path(folder), mishaps=0.0, backend=backend)
        try:
            run(fleet, restarts)
            failed, counts = fleet.join(), dict(fleet.counts())
            noticed = counts.get("lost_sequence_not_found", 0)
            checks = {
                "workers failed": failed,
                "wrong answers": counts.get("wrong", 1),
                "nobody noticed": noticed < restarts // 4,
                "the server ended": not fleet.server.alive or fleet.server.stop(),
            }
            faults = [name for name, fault in checks.items() if fault]
            if failed:
                print(fleet.complaints(), file=sys.stderr)
            return dict(counts, restarts=restarts, faults=faults)
        finally:
            fleet.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--server", required=True, type=Path)
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--restarts", type=int, default=20)
    arguments = parser.parse_args()
    result = chaos(arguments.server.resolve(), arguments.restarts, arguments.backend)
    print(json.dumps(result, indent=2, sort_keys=True))
    return 1 if result["faults"] else 0


if __name__ == "__main__":
    sys.exit(main())
