"""The golden layers, through the real server and the client."""

import numpy as np
import pytest
from checkpoints import GOLDEN
from gdn_client import Client
from reference import read_safetensors, relative_error
from steps import floats

FLAGS = dict(slots=4, max_rows=4, max_tokens=256)


@pytest.mark.parametrize("dtype,limit", [("fp32", 1e-5), ("bf16", 2e-2)])
@pytest.mark.parametrize("chunk", [1000, 64, 7])
@pytest.mark.parametrize("name", sorted(GOLDEN))
def test_prefill_and_decode(served, name, chunk, dtype, limit):
    golden = {key: read() for key, read in read_safetensors(GOLDEN[name]).items()}
    x, steps = golden["prefill.hidden_in"], golden["decode.hidden_in"]
    with Client(served(name, dtype=dtype, **FLAGS).target, timeout=60) as client:
        outputs, at = [], 0
        while at < len(x):
            part = x[at : at + chunk]
            rows = client.rows(
                request_ids=["g"], positions=[at], token_counts=[len(part)], create=at == 0
            )
            answer = client.prefill(0, rows, part)
            outputs.append(floats(answer.output))
            at += len(part)
        decoded = []
        for i, step in enumerate(steps):
            rows = client.rows(slots=answer.slots, epochs=answer.epochs, positions=[at + i])
            decoded.append(floats(client.decode(0, rows, step[None]).output))
        client.release(["g"])
    prefill = relative_error(np.concatenate(outputs), golden["prefill.hidden_out"])
    decode = relative_error(np.concatenate(decoded), golden["decode.hidden_out"])
    print(f"{name} {dtype} chunks of {chunk}: prefill {prefill:.2g}, decode {decode:.2g}")
    assert prefill < limit and decode < limit
