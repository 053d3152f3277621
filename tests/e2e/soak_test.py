"""The soak and chaos runs of tests/soak, for seconds. `./dev soak` and `./dev chaos` take longer."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "soak"))

import pytest
from chaos import chaos
from soak import soak


@pytest.fixture
def binary(request) -> Path:
    return Path(request.config.getoption("server")).resolve()


def test_a_soak(request, binary):
    result = soak(binary, 8, request.config.getoption("backend"))
    print(result)
    assert not result["faults"], result
    assert result["errands"] > 0 and result["killed_workers"] > 0


def test_chaos(request, binary):
    result = chaos(binary, 2, request.config.getoption("backend"))
    print(result)
    assert not result["faults"], result
