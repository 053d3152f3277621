"""However a prompt is cut, the answers agree: chunks, single decodes, multi-token decodes, rows
side by side."""

import numpy as np
import pytest
from gdn_client import Client, NO_RETRY
from reference import relative_error
from steps import TOLERANCE, floats, hidden

N = 150
FLAGS = dict(slots=8, max_rows=8, max_tokens=256, max_decode_tokens=4)


@pytest.fixture(scope="module", params=["fp32", "bf16"])
def client(request, served):
    with Client(
        served("small", dtype=request.param, **FLAGS).target, retry=NO_RETRY, timeout=60
    ) as client:
        yield client


def fold(client, name, x, cuts, method="prefill"):
    """Folds x into a new sequence at the first layer, in pieces of the sizes `cuts`; -> the
    outputs."""
    layer, outputs, at = client.info.layers[0], [], 0
    for size in cuts:
        rows = client.rows(request_ids=[name], positions=[at], token_counts=[size], create=at == 0)
        outputs.append(floats(getattr(client, method)(layer, rows, x[at : at + size]).output))
        at += size
    assert client.get_sequence(name).positions[layer] == len(x)
    client.release([name])
    return np.concatenate(outputs)


def random_cuts(rng, n):
    ends = np.unique(np.append(rng.integers(1, n, rng.integers(1, 12)), n))
    return np.diff(ends, prepend=0).tolist()


@pytest.mark.parametrize("seed", range(8))
def test_any_chunking(client, seed):
    x = hidden(client, N, seed)
    cuts = random_cuts(np.random.default_rng(seed), N)
    error = relative_error(fold(client, "cut", x, cuts), fold(client, "whole", x, [N]))
    assert error < TOLERANCE[client.info.data_type], cuts


@pytest.mark.parametrize(
    "cuts", [[1] * N, [64, 64, 22], [63, 1, 1, 85], [65, 85], [2, 148], [149, 1]]
)
def test_telling_cuts(client, cuts):
    x = hidden(client, N, 50)
    error = relative_error(fold(client, "cut", x, cuts), fold(client, "whole", x, [N]))
    assert error < TOLERANCE[client.info.data_type]


@pytest.mark.parametrize("size", [1, 2, 3])
def test_prefill_agrees_with_decodes(client, size):
    x = hidden(client, N, 60)
    decoded = fold(client, "decoded", x, [size] * (N // size), "decode")
    assert relative_error(decoded, fold(client, "whole", x, [N])) < TOLERANCE[client.info.data_type]


def test_rows_side_by_side_do_not_touch_each_other(client):
    layer, counts = client.info.layers[0], [40, 1, 0, 64, 65, 3]
    x = hidden(client, sum(counts), 70)
    ids = [f"side-{i}" for i in range(len(counts))]
    rows = client.rows(request_ids=ids, token_counts=counts, create=True)
    together, at = floats(client.prefill(layer, rows, x).output), 0
    client.release(ids)
    for n in filter(None, counts):
        alone = fold(client, "alone", x[at : at + n], [n])
        assert relative_error(together[at : at + n], alone) < TOLERANCE[client.info.data_type]
        at += n


def test_results_are_deterministic(client):
    x = hidden(client, N, 80)
    assert np.array_equal(fold(client, "first", x, [100, 50]), fold(client, "second", x, [100, 50]))
