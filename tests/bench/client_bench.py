"""CPU time that the Python client takes for one decode of 128 rows at hidden 2048 in bf16, beside the
copies of the tensors; at most 50 us.

    client_bench.py [--server=build/cpu/server/gdn-server]

First its own parts, by themselves. With a server then whole calls: of the client, and of bare grpcio
with the same bytes and copies; what the calling thread takes, the best of ten medians.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import grpc
import numpy as np
from gdn_client import Client, DataType, Geometry, Layout
from gdn_client.calls import CHANNEL_OPTIONS, Calls
from gdn_client.proto import message
from gdn_client.types import ServerInfo

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS / "e2e"), str(TESTS / "bench")]
from memory_bench import checkpoint  # noqa: E402
from server_process import ServerProcess  # noqa: E402

ROWS, HIDDEN = 128, 2048
LIMIT = 50.0


def microseconds(work, repeats: int = 1000) -> float:
    """Median CPU time of a call of `work` on this thread."""
    times = []
    for _ in range(repeats):
        start = time.thread_time_ns()
        work()
        times.append(time.thread_time_ns() - start)
    return statistics.median(times) / 1000


def show(name: str, value: float) -> float:
    print(f"{name:52}{value:8.1f} us")
    return value


def parts() -> bool:
    geometry = Geometry(HIDDEN, 16, 32, 128, 128, 4)
    info = ServerInfo(
        "", "", "", geometry, (0,), DataType.BF16, DataType.FP32, tuple(Layout), *[0] * 7, 0.0, 0.0
    )
    calls = Calls(info)
    fields = dict(slots=np.arange(ROWS), epochs=np.arange(ROWS) + 1, positions=np.full(ROWS, 1000))
    x = np.zeros((ROWS, HIDDEN), np.uint16)
    rows = calls.rows(Layout.HIDDEN, None, **fields)
    answer = message("DecodeResponse")(output=x.tobytes()).SerializeToString()
    request = calls.request(3, rows, x, 0)
    print(f"{ROWS} rows, {x.nbytes >> 10} KiB each way; CPU time of the calling thread, median")
    own = show("rows of a pass", microseconds(lambda: calls.rows(Layout.HIDDEN, None, **fields)))
    own += show("a request, but for the copy", microseconds(lambda: calls.request(3, rows, x, 0)))
    show("the copy", microseconds(lambda: b"".join(request)))
    show("an answer, float32 made of bf16", microseconds(lambda: calls.answer(answer, rows)))
    fp32 = Calls(ServerInfo(**{**info.__dict__, "data_type": DataType.FP32}))
    wide = fp32.rows(Layout.HIDDEN, None, **fields)
    answer = message("DecodeResponse")(output=bytes(4 * x.size)).SerializeToString()
    own += show("an answer, without a copy", microseconds(lambda: fp32.answer(answer, wide)))
    show("a call beside the copies", own)
    return own <= LIMIT


def whole_calls(binary: Path, work: Path) -> bool:
    """A layer that costs the server little, at the same width of its tensors."""
    model = checkpoint(work / "m", hidden=HIDDEN, heads=1, value_heads=1, layers=1, dtype="fp16")
    server = ServerProcess(
        binary.resolve(),
        model,
        work / "log",
        listen=f"unix:{work}/s.sock",
        slots=ROWS,
        backend="cpu",
    )
    server.await_ready()
    x = np.zeros((ROWS, HIDDEN), np.float16)
    channel = grpc.insecure_channel(server.target, options=CHANNEL_OPTIONS)
    bare = channel.unary_unary("/gdn.v1.GdnService/Decode")
    with Client(server.target) as client:
        first = client.decode(
            0, client.rows(request_ids=[f"r{i}" for i in range(ROWS)], create=True), x
        )
        handle = dict(slots=first.slots, epochs=first.epochs)
        *head, tensor = Calls(client.info).request(0, client.rows(**handle, step_id=0), x, 0)
        head = b"".join(head)
        ours, theirs = [], []
        for _ in range(10):  # in turn: the machine has other work
            ours.append(
                microseconds(lambda: client.decode(0, client.rows(**handle, step_id=0), x), 100)
            )
            theirs.append(microseconds(lambda: bare(b"".join((head, tensor))), 100))
    server.stop()
    ours, theirs = min(ours), min(theirs)
    show("a whole call of the client", ours)
    show("of bare grpcio, the tensor copied behind a header", theirs)
    return show("the difference", ours - theirs) <= LIMIT


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--server", type=Path)
    arguments = parser.parse_args()
    ok = parts()
    if arguments.server:
        with tempfile.TemporaryDirectory() as folder:
            ok &= whole_calls(arguments.server, Path(folder))
    print("within the limit" if ok else f"OVER THE LIMIT of {LIMIT} us")
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
