"""Workers as processes, a server under them, and what both did."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "e2e"), str(HERE.parent / "testing")]

import checkpoints  # noqa: E402
from server_process import ServerProcess  # noqa: E402

SLOTS = 8
FLAGS = dict(slots=SLOTS, max_rows=8, max_tokens=64, step_ttl="1s", log_level="warn")


class Fleet:
    """`folder` keeps the checkpoint, the socket, and what servers and workers say."""

    def __init__(self, binary: Path, folder: Path, mishaps: float, backend: str = "auto"):
        self.binary, self.folder, self.mishaps, self.backend = binary, folder, mishaps, backend
        self.model = folder / "model"
        self.model.mkdir()
        checkpoints.make("small", self.model)
        self.target = f"unix:{folder}/gdn.sock"
        self.workers: list[subprocess.Popen] = []
        self.started = 0
        self.start_server()

    def start_server(self) -> None:
        flags = FLAGS | dict(listen=self.target, backend=self.backend)
        self.server = ServerProcess(self.binary, self.model, self.folder / "server.log", **flags)
        self.server.await_ready()

    def start_worker(self, errands: int | None = None) -> None:
        self.started += 1
        arguments = [
            f"--target={self.target}",
            f"--model={self.model}",
            f"--seed={self.started}",
            f"--mishaps={self.mishaps}",
            *([] if errands is None else [f"--errands={errands}"]),
        ]
        with (
            open(self.folder / f"worker-{self.started}.json", "wb") as out,
            open(self.folder / f"worker-{self.started}.log", "wb") as err,
        ):
            command = [sys.executable, HERE / "worker.py", *arguments]
            self.workers.append(subprocess.Popen(command, stdout=out, stderr=err))

    def kill_worker(self, index: int) -> None:
        worker = self.workers.pop(index)
        worker.kill()
        worker.wait()

    def join(self) -> int:
        """Lets every worker end its errand; -> how many of them failed."""
        for worker in self.workers:
            worker.terminate()
        return self.wait()

    def wait(self) -> int:
        failed = [worker for worker in self.workers if worker.wait() != 0]
        self.workers.clear()
        return len(failed)

    def counts(self) -> Counter:
        """Of all errands that ended."""
        total: Counter = Counter()
        for path in self.folder.glob("worker-*.json"):
            for line in path.read_text().splitlines():
                if line.endswith("}"):  # of a worker that was killed the last may be cut short
                    total.update(json.loads(line))
        return total

    def complaints(self) -> str:
        return "".join(path.read_text()[-2000:] for path in self.folder.glob("worker-*.log"))

    def close(self) -> None:
        for worker in self.workers:
            worker.kill()
            worker.wait()
        self.server.kill()
