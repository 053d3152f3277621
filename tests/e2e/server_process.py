"""A running gdn-server."""

from __future__ import annotations

import os
import re
import selectors
import signal
import subprocess
import time
from pathlib import Path

DEADLINE = 120.0  # seconds for anything that a server does only once, on a slow machine


class ReadyProcess:
    """A program that prints a ready line with its addresses and ends with SIGTERM. `targets` are
    the addresses, once the line was awaited."""

    def __init__(self, command: list, log: Path):
        self.log = log
        with open(log, "wb") as stderr:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr)

    def await_ready(self) -> None:
        self.ready_line = self._read_line()
        self.targets = re.findall(r"unix:[^\s,]+|[\w.\[\]:]+:\d+", self.ready_line)

    @property
    def target(self) -> str:
        return self.targets[0]

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def resident(self) -> int:
        """Bytes of memory."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) * 1024

    def _read_line(self) -> str:
        selector, end, line = selectors.DefaultSelector(), time.monotonic() + DEADLINE, b""
        selector.register(self.process.stdout, selectors.EVENT_READ)
        while not line.endswith(b"\n"):
            if not selector.select(end - time.monotonic()):
                self.process.kill()
                raise TimeoutError(f"no ready line within {DEADLINE} s:\n{self.log.read_text()}")
            chunk = os.read(self.process.stdout.fileno(), 4096)
            if not chunk:
                code = self.process.wait(DEADLINE)
                raise RuntimeError(f"the server ended with {code}:\n{self.log.read_text()}")
            line += chunk
        return line.decode()

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def wait(self) -> int:
        """The exit status."""
        return self.process.wait(DEADLINE)

    def stop(self) -> int:
        """Drains; -> the exit status."""
        self.terminate()
        return self.wait()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


# Flags of the server that most tests share.
SMALL = dict(slots=12, max_rows=8, max_tokens=96, max_decode_tokens=4, allow_synthetic_input=True)


class ServerProcess(ReadyProcess):
    """gdn-server with these flags."""

    def __init__(self, binary: Path, model: Path, log: Path, **flags):
        arguments = (f"--{name}={_text(value)}" for name, value in flags.items())
        super().__init__([binary, f"--model={model}", *arguments], log)


def _text(value) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def poll(condition, seconds: float = 30.0):
    """Waits until `condition()` is true, and returns what it was; fails after `seconds`."""
    end = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < end, f"not so within {seconds} s"
        time.sleep(0.005)
    return result
