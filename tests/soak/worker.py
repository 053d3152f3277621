"""One caller: errand after errand, a line of JSON for each that ended.

    python worker.py --target=unix:/gdn.sock --model=DIR --seed=1 --mishaps=0.1

Ends with SIGTERM once its errand is done, or after --errands.
"""

from __future__ import annotations

import argparse
import itertools
import json
import signal
import sys
from pathlib import Path

import numpy as np
from gdn_client import Client, RetryPolicy

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "client/python/examples"))

from errand import Errand  # noqa: E402
from reference import load_layers  # noqa: E402

PATIENT = RetryPolicy(attempts=10_000, initial=0.01, maximum=0.2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--target", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--mishaps", type=float, default=0.0)
    parser.add_argument("--errands", type=int, default=sys.maxsize)
    arguments = parser.parse_args()
    ended = []
    signal.signal(signal.SIGTERM, lambda *_: ended.append(True))
    layers, rng = load_layers(arguments.model), np.random.default_rng(arguments.seed)
    with Client(arguments.target, retry=PATIENT, timeout=60) as client:
        for i in itertools.count():
            if ended or i >= arguments.errands:
                break
            name = f"worker-{arguments.seed}-{i}"
            errand = Errand(arguments.target, client, layers, name, rng, arguments.mishaps)
            errand.run()
            done = dict(errand.counts, errands=1, wrong=int(not errand.is_right()))
            print(json.dumps(done), flush=True)


if __name__ == "__main__":
    main()
