"""Certificates for tests, made with openssl's command line."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Pair:
    """PEM files."""

    cert: Path
    key: Path

    def replace(self, other: Pair) -> None:
        """Puts the other's content into these files, each at once."""
        for mine, new in ((self.key, other.key), (self.cert, other.cert)):
            staged = mine.with_suffix(".new")
            staged.write_bytes(new.read_bytes())
            staged.replace(mine)


def _make(folder: Path, name: str, *arguments: str) -> Pair:
    pair = Pair(folder / f"{name}.pem", folder / f"{name}.key")
    kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    files = ["-keyout", str(pair.key), "-out", str(pair.cert)]
    subprocess.run(
        ["openssl", "req", "-x509", *kind, "-subj", f"/CN={name}", *files, *arguments],
        check=True,
        capture_output=True,
    )
    return pair


def authority(folder: Path, name: str) -> Pair:
    return _make(folder, name)


def issue(folder: Path, name: str, by: Pair) -> Pair:
    """A certificate for localhost."""
    return _make(
        folder,
        name,
        *("-CA", str(by.cert), "-CAkey", str(by.key)),
        *("-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"),
        *("-addext", "basicConstraints=critical,CA:FALSE"),
    )
