"""gate.jq, through the Python that calls it."""

import json
import math

import ghz
import pytest


def report(path, statuses, p99_ms=2.0, errors=None):
    percentiles = [{"percentage": p, "latency": p99_ms * 1e6 * p / 99} for p in (50, 95, 99)]
    contents = {
        "name": "a-load",
        "rps": 123.0,
        "statusCodeDistribution": statuses,
        "errorDistribution": errors or {},
        "latencyDistribution": percentiles if statuses else None,
        "tags": {"p99_limit_ms": "5"},
    }
    path.write_text(json.dumps(contents))
    return path


def test_passes(tmp_path):
    path = report(tmp_path / "report.json", {"OK": 10}, p99_ms=4.99)
    assert ghz.complaint(path) == ""
    found = ghz.read(path)
    assert (found.calls, found.errors, found.rps) == (10, 0, 123.0)
    assert found.p99 == pytest.approx(4.99)


def test_an_error_fails(tmp_path):
    path = report(tmp_path / "report.json", {"OK": 10, "Aborted": 1}, errors={"why": 1})
    assert "1 errors" in ghz.complaint(path) and "why" in ghz.complaint(path)
    assert ghz.read(path).errors == 1


def test_a_p99_over_the_limit_fails(tmp_path):
    assert "5.01 ms of 5" in ghz.complaint(report(tmp_path / "r.json", {"OK": 10}, p99_ms=5.01))


@pytest.mark.parametrize("statuses", [None, {}])
def test_no_calls_fail(tmp_path, statuses):
    path = report(tmp_path / "report.json", statuses)
    assert "0 calls" in ghz.complaint(path)
    assert math.isnan(ghz.read(path).p99)


def test_what_is_no_report_fails(tmp_path):
    path = tmp_path / "report.json"
    path.write_text("{")
    assert ghz.complaint(path)
