"""ghz's configurations: what they call exists, and what they send parses."""

import json
import re
from pathlib import Path

import pytest
from gdn_client.proto import message
from google.protobuf import json_format

CONFIGS = sorted((Path(__file__).parent / "configs").glob("*.json"))
PAYLOADS = {"Decode": "decode.bin", "Prefill": "prefill.bin"}
FUNCTIONS = {"add1": lambda a: a + 1, "mod": lambda a, b: a % b, "div": lambda a, b: a // b}


def expand(template: str, request_number: int) -> str:
    """As ghz does, for templates of one function."""

    def value(match) -> str:
        function, *words = match[1].split()
        numbers = [request_number if word == ".RequestNumber" else int(word) for word in words]
        return str(FUNCTIONS[function](*numbers))

    return re.sub(r"{{(.*?)}}", value, template)


@pytest.fixture(params=CONFIGS, ids=lambda path: path.stem)
def config(request):
    return json.loads(request.param.read_text())


def test_calls_what_exists(config):
    service, method = config["call"].split("/")
    assert service == "gdn.v1.GdnService" and method in PAYLOADS
    assert message(f"{method}Request").DESCRIPTOR.full_name == f"gdn.v1.{method}Request"
    assert ("data" in config) != ("binary-file" in config)
    if "binary-file" in config:
        assert config["binary-file"] == PAYLOADS[method]


def test_counts_errors_and_says_its_limit(config):
    assert config["count-errors"]
    assert float(config["tags"]["p99_limit_ms"]) > 0
    if "duration" in config:
        assert config["duration-stop"] == "wait"  # a call cut off at the end is no error


def test_positions_are_strict():
    config = json.loads((Path(__file__).parent / "configs/decode_positions.json").read_text())
    at: dict[str, int] = {}
    steps = set()
    for number in range(config["total"]):
        request = message("DecodeRequest")()
        json_format.Parse(expand(json.dumps(config["data"]), number), request)
        (name,), (position,) = request.batch.request_ids, request.batch.positions
        assert position == at.get(name, 0)
        at[name] = position + 1
        steps.add(request.batch.step_id)
        assert request.synthetic_seed and not request.input
    assert config["concurrency"] == 1  # else they would overtake one another
    assert len(steps) == config["total"]
