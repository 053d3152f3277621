"""Reads the metrics of a running server."""

from __future__ import annotations

import json
import re
import urllib.request

from server_process import ServerProcess

SAMPLE = re.compile(r"^(\w+)(\{.*\})? (\S+)$")
LABEL = re.compile(r'(\w+)="([^"]*)"')


def address(server: ServerProcess) -> str:
    """Where the server says, in its log, that Prometheus may scrape."""
    lines = (json.loads(line) for line in server.log.read_text().splitlines())
    return next(line["address"] for line in lines if line["event"] == "metrics")


def text(server: ServerProcess) -> str:
    with urllib.request.urlopen(f"http://{address(server)}/metrics", timeout=30) as answer:
        return answer.read().decode()


def families(page: str) -> dict[str, str]:
    """Every name that stands behind # TYPE, and its type."""
    return dict(re.findall(r"^# TYPE (\w+) (\w+)$", page, re.MULTILINE))


def samples(page: str) -> dict[tuple[str, frozenset], float]:
    """By name and labels."""
    found = {}
    for name, labels, value in filter(None, map(_sample, page.splitlines())):
        found[name, frozenset(LABEL.findall(labels or ""))] = float(value)
    return found


def value(server: ServerProcess, name: str, **labels) -> float:
    return samples(text(server))[name, frozenset(labels.items())]


def _sample(line: str):
    match = SAMPLE.match(line)
    return match.groups() if match else None
