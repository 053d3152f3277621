"""CPU time that the client itself takes for one decode of 128 rows, beside the copies of the
tensors.

python tests/client/python/bench_codec.py
"""

import statistics
import time

import numpy as np
from gdn_client import DataType, Geometry, Layout
from gdn_client.calls import Calls
from gdn_client.proto import message
from gdn_client.types import ServerInfo

ROWS, HIDDEN = 128, 2048


def microseconds(work, repeats: int = 2000) -> float:
    """Median time of a call of `work`."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter_ns()
        work()
        times.append(time.perf_counter_ns() - start)
    return statistics.median(times) / 1000


def main() -> None:
    geometry = Geometry(HIDDEN, 16, 32, 128, 128, 4)
    info = ServerInfo(
        "", "", "", geometry, (0,), DataType.BF16, DataType.FP32, tuple(Layout), *[0] * 7, 0.0, 0.0
    )
    calls = Calls(info)
    fields = dict(slots=np.arange(ROWS), epochs=np.arange(ROWS) + 1, positions=np.full(ROWS, 1000))
    x = np.zeros((ROWS, HIDDEN), np.uint16)
    rows = calls.rows(Layout.HIDDEN, None, **fields)
    answer = message("DecodeResponse")(output=x.tobytes()).SerializeToString()
    by_id = message("DecodeResponse")(
        slots=range(ROWS), epochs=range(ROWS), output=x.tobytes()
    ).SerializeToString()
    cases = {
        "rows of a pass": lambda: calls.rows(Layout.HIDDEN, None, **fields),
        "write a request": lambda: calls.request(3, rows, x, 0),
        "of which the copy": lambda: b"".join((b"\x7a", memoryview(x.reshape(-1).view(np.uint8)))),
        "read an answer": lambda: calls.answer(answer, rows),
        "read an answer by id": lambda: calls.answer(by_id, rows),
    }
    print(f"{ROWS} rows, {x.nbytes >> 10} KiB each way")
    for name, work in cases.items():
        print(f"{name:24}{microseconds(work):7.1f} us")


if __name__ == "__main__":
    main()
