"""The example orchestrator against real servers."""

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).resolve().parents[2] / "client/python/examples/orchestrator.py"


@pytest.mark.parametrize(
    "name,dtype",
    [("small", "fp32"), ("small", "bf16"), ("small", "fp16"), ("next", "auto"), ("r3", "auto")],
)
def test_it_agrees(served, checkpoint, name, dtype):
    server = served(name, dtype=dtype, slots=8, max_rows=8, max_tokens=256)
    command = [sys.executable, EXAMPLE, f"--target={server.target}", f"--model={checkpoint(name)}"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300)
    print(result.stdout, result.stderr)
    assert result.returncode == 0
    for part in ("rows replayed", "NON_FINITE_INPUT", "begins again", "answers compared"):
        assert part in result.stdout


def test_it_notices_other_weights(served, checkpoint):
    server = served("small", dtype="fp32", slots=8, max_rows=8, max_tokens=256)
    command = [
        sys.executable,
        EXAMPLE,
        f"--target={server.target}",
        f"--model={checkpoint('small_other')}",
    ]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert result.returncode != 0, result.stdout
