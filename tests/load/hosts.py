"""What is put under load: the server, and beside it the echo and the service on the null backend."""

from __future__ import annotations

import re
import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS / "e2e"), str(TESTS / "testing")]

from make_checkpoint import make_checkpoint  # noqa: E402
import scrape  # noqa: E402
from server_process import ReadyProcess, ServerProcess  # noqa: E402

HIDDEN = 2048
# A sequence for every payload, and leases that outlast a run.
FLAGS = dict(slots=320, step_ttl="10m", allow_synthetic_input=True, metrics_listen="127.0.0.1:0")


def make_model(folder: Path) -> Path:
    """One layer of hidden 2048 with 16/32 heads."""
    shape = dict(hidden=HIDDEN, heads=16, value_heads=32, key_dim=128, value_dim=128)
    return make_checkpoint(folder, layers=1, dtype="bf16", **shape)


class Hosts:
    """The programs, by name: "echo", "null" and "server". A context: what still runs at its end is
    killed."""

    def __init__(self, server: Path, peer: Path, work: Path, backend: str):
        self.binary, self.peer, self.work, self.backend = server, peer, work, backend
        self.model = make_model(work / "model")
        self.started: list[ReadyProcess] = []

    def __enter__(self) -> Hosts:
        return self

    def __exit__(self, *_) -> None:
        for host in self.started:
            host.kill()

    def flags(self) -> dict:
        return FLAGS | dict(backend=self.backend)

    def start(self, name: str, plane: str, **flags) -> ReadyProcess:
        """A program that is ready at its only address, of "tcp" or "unix"."""
        listen = "127.0.0.1:0" if plane == "tcp" else f"unix:{self.work}/{name}.sock"
        log = self.work / f"{name}.log"
        if name == "server":
            host = ServerProcess(
                self.binary, self.model, log, listen=listen, **self.flags() | flags
            )
        else:
            host = ReadyProcess([self.peer, name, listen], log)
        self.started.append(host)
        host.await_ready()
        return host


def end(host: ReadyProcess) -> float | None:
    """Stops it; -> its rows a batch, where it says so."""
    counts = of_metrics(host) if isinstance(host, ServerProcess) else None
    host.terminate()
    counts = counts or of_output(host.process.stdout.read())
    if host.wait() != 0:
        raise RuntimeError(f"{host.process.args}: exit code {host.process.returncode}")
    return counts[1] / max(counts[0], 1) if counts else None


def of_metrics(server: ServerProcess) -> tuple[float, float]:
    """Its batches of any kind, and their rows."""
    samples = scrape.samples(scrape.text(server))

    def total(name: str) -> float:
        return sum(value for (of, _), value in samples.items() if of == name)

    return total("gdn_batch_rows_count"), total("gdn_batch_rows_sum")


def of_output(text: bytes) -> tuple[int, int] | None:
    """The same of a program that prints them at its end."""
    counts = re.search(rb"batches (\d+) rows (\d+)", text)
    return (int(counts[1]), int(counts[2])) if counts else None
