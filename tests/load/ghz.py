"""Runs of ghz: a configuration of configs/ against an address, and what it found."""

from __future__ import annotations

import dataclasses
import json
import math
import subprocess
from pathlib import Path

HERE = Path(__file__).resolve().parent


@dataclasses.dataclass(frozen=True)
class Report:
    """What ghz measured; times in ms, not a number where no call ended."""

    calls: int
    errors: int
    rps: float
    p50: float
    p95: float
    p99: float


class Run:
    """A run under way."""

    def __init__(self, ghz: str, config: str, target: str, folder: Path, report: Path, **flags):
        """`target` is host:port or unix:PATH. The payloads lie in `folder`, and the report goes to
        `report`. `flags` go before what the configuration says."""
        self.report = report
        self.process = subprocess.Popen(
            [
                *(ghz, f"--config={HERE}/configs/{config}.json"),
                *(f"--{name}={value}" for name, value in flags.items()),
                *("--format=json", f"--output={report}", target.replace("unix:", "unix://")),
            ],
            cwd=folder,
        )

    def finish(self) -> tuple[Report, str]:
        """(what was found, why it does not pass gate.jq)"""
        if self.process.wait() != 0:
            raise RuntimeError(f"{self.process.args}: exit code {self.process.returncode}")
        return read(self.report), complaint(self.report)


def complaint(report: Path) -> str:
    """What gate.jq has against a report; empty: nothing."""
    gate = subprocess.run(
        ["jq", "-r", "-f", HERE / "gate.jq", report], capture_output=True, text=True
    )
    return gate.stderr.strip() if gate.returncode else ""


def read(path: Path) -> Report:
    report = json.loads(path.read_text())
    ended = report.get("statusCodeDistribution") or {}
    percentiles = report.get("latencyDistribution") or []
    ms = {entry["percentage"]: entry["latency"] / 1e6 for entry in percentiles}
    calls = sum(ended.values())
    errors = calls - ended.get("OK", 0)
    return Report(calls, errors, report["rps"], *(ms.get(p, math.nan) for p in (50, 95, 99)))
