"""What --backend chooses, and how the server ends where it cannot have it."""

import re

FLAGS = dict(slots=4, max_rows=4, max_tokens=256)


def backend_of(server) -> str:
    return re.search(r"backend (\w+)", server.ready_line)[1]


def test_cpu_is_always_there(served):
    assert backend_of(served("small", backend="cpu", **FLAGS)) == "cpu"


def test_the_one_under_test_runs(server, pytestconfig):
    wanted = pytestconfig.getoption("backend")
    assert backend_of(server) in (("cpu", "cuda") if wanted == "auto" else (wanted,))


def test_cuda_runs_or_says_why_not(start):
    try:
        server = start("small", backend="cuda", **FLAGS)
    except RuntimeError as e:
        assert re.search("ended with 1:.*--backend=cuda: this (build|machine) has no", str(e), re.S)
        assert backend_of(start("small", backend="auto", **FLAGS)) == "cpu"
    else:
        assert backend_of(server) == "cuda"
        assert backend_of(start("small", backend="auto", **FLAGS)) == "cuda"
