"""The resident memory of the server with its CPU backend: after its start, against what its pools
and weights account for, and over many decode steps.

    memory_bench.py --server=build/cpu/server/gdn-server [--steps=100000]

After start the limit is pools (answers included) + 2 x the GDN layers' bytes in the checkpoint +
200 MB. Pools are mapped and not touched before their first use, so a server that has just started
is far below it.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from gdn_client import Client

TESTS = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TESTS / "e2e"))
from server_process import ServerProcess  # noqa: E402

MIB = 1 << 20
FLAGS = dict(backend="cpu")  # whose pools and weights are in the process's own memory


def resident(server: ServerProcess) -> float:
    """MiB."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+) kB", status).group(1)) / 1024


def checkpoint(folder: Path, **options) -> Path:
    flags = [f"--{name}={value}" for name, value in options.items()]
    subprocess.run(
        [sys.executable, TESTS / "testing/make_checkpoint.py", folder, *flags], check=True
    )
    return folder


def gdn_bytes(info, element_bytes: int) -> int:
    g = info.geometry
    conv_dim = 2 * g.key_heads * g.key_dim + g.value_heads * g.value_dim
    value_size = g.value_heads * g.value_dim
    matrices = (conv_dim + 2 * value_size + 2 * g.value_heads) * g.hidden_size
    return len(info.layers) * (matrices + conv_dim * g.conv_width) * element_bytes


def pool_bytes(info, io_bytes: int) -> int:
    g = info.geometry
    conv_dim = 2 * g.key_heads * g.key_dim + g.value_heads * g.value_dim
    value_size = g.value_heads * g.value_dim
    answers = info.max_decode_tokens * max(g.hidden_size, value_size) * io_bytes
    row = value_size * g.key_dim * 4 + (g.conv_width - 1) * conv_dim * io_bytes + answers
    return len(info.layers) * info.slots * row


def after_start(binary: Path, work: Path) -> bool:
    model = checkpoint(
        work / "large", hidden=2048, heads=16, value_heads=32, layers=3, dtype="bf16"
    )
    ok = True
    print(f"{'after start, hidden 2048, 3 layers, bf16 on disk':52s} {'MiB':>8s} {'limit':>8s}")
    for dtype, io_bytes in (("bf16", 2), ("fp32", 4)):
        flags = dict(FLAGS, listen=f"unix:{work}/a.sock", dtype=dtype)
        server = ServerProcess(binary, model, work / "log", **flags)
        server.await_ready()
        with Client(server.target) as client:
            limit = (pool_bytes(client.info, io_bytes) + 2 * gdn_bytes(client.info, 2)) / MIB + 200
        used = resident(server)
        ok &= used <= limit
        print(f"{'  --dtype=' + dtype:52s} {used:8.0f} {limit:8.0f}")
        server.stop()
    return ok


def over_steps(binary: Path, work: Path, steps: int) -> bool:
    model = checkpoint(work / "small", hidden=128, heads=2, value_heads=4, layers=2, dtype="fp32")
    flags = dict(FLAGS, listen=f"unix:{work}/b.sock", slots=8)
    server = ServerProcess(binary, model, work / "log", **flags)
    server.await_ready()
    rng, samples = np.random.default_rng(0), []
    print(f"over {steps} decode steps of 8 rows, hidden 128")
    with Client(server.target) as client:
        layer = client.info.layers[0]
        ids = [f"r{i}" for i in range(8)]
        x = rng.standard_normal((8, client.info.geometry.hidden_size), np.float32)
        first = client.decode(layer, client.rows(request_ids=ids, create=True), x)
        for step in range(1, steps + 1):
            rows = client.rows(slots=first.slots, epochs=first.epochs)
            client.decode(layer, rows, x)
            if step % max(steps // 10, 1) == 0:
                samples.append(resident(server))
                print(f"  {step:8d} steps {samples[-1]:8.1f} MiB", flush=True)
    server.stop()
    # The first half warms caches up, the allocator's for each thread too; after it nothing may grow.
    return samples[-1] - samples[len(samples) // 2 - 1] < 2.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--server", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=100_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        ok = after_start(arguments.server.resolve(), Path(folder))
        ok &= over_steps(arguments.server.resolve(), Path(folder), arguments.steps)
    print("within the limits" if ok else "OVER A LIMIT")
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
