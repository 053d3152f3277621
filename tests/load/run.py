"""Puts the server under load with ghz, over TCP and a Unix socket, beside an echo.

    run.py --server=PATH --programs=FOLDER --ghz=PATH --out=FOLDER [--quick] [--backend=cpu|cuda]
        [--planes=tcp,unix] [--parts=table,sweep,overload]

Prints one table and whether the targets hold, then overloads the server. `programs` is where
load_peer and overload were built; `backend` is the server's. Reports of ghz and sweep.json, which plot.py draws, go to `out`.
Exit code 1 where a run fails its gate (gate.jq) or a target is missed.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import payloads
from ghz import Report, Run
from hosts import HIDDEN, Hosts, end

PLANES = ("tcp", "unix")
PARTS = ("table", "sweep", "overload")
TITLES = {"echo": "echo", "null": "service, null backend", "server": "gdn-server"}
CONCURRENCY = (1, 4, 16, 64, 256)
COUNTED = ("decode_first", "decode_positions")  # they have a number of calls, the others a time
ROUNDS = 3
MIN_OF_ECHO = 0.9  # calls a second of the null backend, decode-steady
MAX_BESIDE = 3.0  # decode's p99 with prefill beside it, of its p99 alone


class Load:
    """Runs, and a row of the table for each."""

    def __init__(self, arguments, work: Path, hosts: Hosts):
        self.ghz, self.out, self.work, self.hosts = arguments.ghz, arguments.out, work, hosts
        self.seconds = 2 if arguments.quick else 10
        self.complaints: list[str] = []
        payloads.write_all(work, HIDDEN)

    def begin(self, config: str, host, label: str, **flags) -> Run:
        if config not in COUNTED:
            flags = {"duration": f"{self.seconds}s"} | flags
        path = self.out / f"{label}.json"
        return Run(self.ghz, config, host.target, self.work, path, **flags)

    def finish(self, run: Run) -> Report:
        report, complaint = run.finish()
        if complaint:
            self.complaints.append(f"{run.report.name}: {complaint}")
        return report

    def together(self, name: str, plane: str, load: str, configs: tuple[str, ...]) -> list[Row]:
        """Runs at the same time against a program of its own, in which the sequences have begun."""
        host = self.hosts.start(name, plane)
        self.finish(self.begin("decode_first", host, "first"))
        runs = [self.begin(c, host, f"{load}-{c}-{plane}-{name}") for c in configs]
        reports = [self.finish(run) for run in runs]
        rows = end(host)
        prefix = "" if load == "alone" else f"{load}: "
        return [Row(plane, prefix + c, name, r, rows) for c, r in zip(configs, reports)]

    def alone(self, name: str, plane: str, config: str) -> Row:
        return self.together(name, plane, "alone", (config,))[0]

    def sweep(self, name: str, plane: str) -> list[dict]:
        """Decodes at one concurrency after the other, in sequences that have begun."""
        host = self.hosts.start(name, plane)
        self.finish(self.begin("decode_first", host, "first"))
        points = []
        for concurrency in CONCURRENCY:
            flags = dict(duration="2s", concurrency=concurrency, connections=min(concurrency, 8))
            label = f"sweep-{plane}-{name}-{concurrency}"
            report, _ = self.begin("decode_steady", host, label, **flags).finish()
            if report.errors:
                self.complaints.append(f"{label}: {report.errors} errors")
            point = dict(plane=plane, name=TITLES[name], concurrency=concurrency)
            points.append(point | vars(report))
        end(host)
        return points

    def check(self, what: str, value: float, limit: float, at_least: bool) -> None:
        holds = value >= limit if at_least else value <= limit
        word = "least" if at_least else "most"
        print(f"{what:58s} {value:6.2f}, at {word} {limit:.1f}: {'yes' if holds else 'NO'}")
        if not holds:
            self.complaints.append(what)


@dataclasses.dataclass
class Row:
    """Of the table."""

    plane: str
    load: str
    name: str
    report: Report
    rows: float | None  # a batch

    def print(self) -> None:
        r, batch = self.report, f"{self.rows:10.1f}" if self.rows else f"{'-':>10s}"
        where = f"{self.plane:5s} {self.load.replace('_', '-'):22s} {TITLES[self.name]:22s}"
        times = f"{r.p50:8.2f} {r.p95:8.2f} {r.p99:8.2f}"
        print(f"{where} {r.rps:8.0f} {times} {r.errors:6d} {batch}", flush=True)


def print_head() -> None:
    units = f"{'rps':>8s} {'p50 ms':>8s} {'p95 ms':>8s} {'p99 ms':>8s}"
    print(f"{'':5s} {'load':22s} {'server':22s} {units} {'errors':>6s} {'rows/batch':>10s}")


def steady(load: Load, plane: str) -> dict[str, Report]:
    """decode-steady of all programs, in turn, since they are compared: of each the median round."""
    rounds = [
        {name: load.alone(name, plane, "decode_steady") for name in TITLES} for _ in range(ROUNDS)
    ]
    medians = {}
    for name in TITLES:
        rows = sorted((r[name] for r in rounds), key=lambda row: row.report.rps)
        rows[ROUNDS // 2].print()
        medians[name] = rows[ROUNDS // 2].report
    return medians


def of_plane(load: Load, plane: str) -> None:
    alone, beside = steady(load, plane), {}
    for name in TITLES:
        load.alone(name, plane, "prefill").print()
    for name in TITLES:
        rows = load.together(name, plane, "mixed", ("decode_steady", "prefill_beside"))
        beside[name] = rows[0].report
        for row in rows:
            row.print()
    for name in TITLES:
        load.alone(name, plane, "decode_positions").print()
    ratio = alone["null"].rps / alone["echo"].rps
    load.check(f"{plane}: decode-steady, rps, null backend / echo", ratio, MIN_OF_ECHO, True)
    ratio = beside["server"].p99 / alone["server"].p99
    load.check(f"{plane}: decode's p99 beside prefill / alone", ratio, MAX_BESIDE, False)


def table(load: Load, planes: list[str]) -> None:
    print_head()
    for plane in planes:
        of_plane(load, plane)


def sweep(load: Load, planes: list[str]) -> None:
    points = [point for plane in planes for name in TITLES for point in load.sweep(name, plane)]
    (load.out / "sweep.json").write_text(json.dumps(points, indent=1))


def overload(load: Load, program: Path, seconds: int) -> None:
    # A GPU takes more calls than can be sent, were they small.
    gpu = load.hosts.backend == "cuda"
    work = dict(rows=256, loops=4, synthetic=True) if gpu else dict(rows=16, loops=1)
    # A queue of three steps, so that what is admitted waits for no more; half of the cores, so that
    # the load itself has the others.
    threads, slots = max((os.cpu_count() or 1) // 2, 1), 16 * work["rows"] * work["loops"]
    host = load.hosts.start("server", "unix", max_queue_steps=3, threads=threads, slots=slots)
    flags = work | dict(target=host.target, pid=host.process.pid, seconds=seconds)
    command = [program, *(f"--{name}={value}" for name, value in flags.items())]
    if subprocess.run(command).returncode != 0:
        load.complaints.append("overload")
    end(host)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for name, values in dict(planes=PLANES, parts=PARTS).items():
        parser.add_argument(f"--{name}", type=lambda text: text.split(","), default=values)
    parser.add_argument("--backend", choices=("cpu", "cuda"), default="cpu")
    for name in ("server", "programs", "out"):
        parser.add_argument(f"--{name}", type=lambda path: Path(path).resolve(), required=True)
    parser.add_argument("--ghz", required=True)
    parser.add_argument("--quick", action="store_true", help="2 s a run instead of 10")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    peer = arguments.programs / "load_peer"
    with (
        tempfile.TemporaryDirectory() as work,
        Hosts(arguments.server, peer, Path(work), arguments.backend) as hosts,
    ):
        load = Load(arguments, Path(work), hosts)
        if "table" in arguments.parts:
            table(load, arguments.planes)
        if "sweep" in arguments.parts:
            sweep(load, arguments.planes)
        if "overload" in arguments.parts:
            overload(load, arguments.programs / "overload", seconds=10 if arguments.quick else 60)
    for complaint in load.complaints:
        print(f"FAILED: {complaint}")
    return 1 if load.complaints else 0


if __name__ == "__main__":
    sys.exit(main())
