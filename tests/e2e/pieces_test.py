"""A prefill that the server runs in pieces answers as the whole, lets decodes between, and is all or
nothing a row."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from gdn_client import NO_RETRY, Client, Layout
from gdn_client.layout import input_tensors
from reference import relative_error
from steps import TOLERANCE, Twins, begin, floats, hidden, reason_of, rounded

FLAGS = dict(slots=12, max_rows=8, max_tokens=4096, max_decode_tokens=4, allow_synthetic_input=True)


@pytest.fixture(scope="module", params=["fp32", "bf16"])
def clients(request, served):
    """(in pieces, whole)"""
    targets = [
        served("small", dtype=request.param, prefill_chunk=chunk, **FLAGS).target
        for chunk in (64, 0)
    ]
    with (
        Client(targets[0], retry=NO_RETRY, timeout=60) as cut,
        Client(targets[1], retry=NO_RETRY, timeout=60) as whole,
    ):
        yield cut, whole
        for client in (cut, whole):
            client.release([s.request_id for s in client.list_sequences()])


@pytest.fixture
def client(clients):
    yield clients[0]
    clients[0].release([s.request_id for s in clients[0].list_sequences()])


def inputs(client, layout, tokens):
    rng = np.random.default_rng(tokens)
    tensors = input_tensors(client.info.geometry, layout, client.info.data_type)
    made = [rng.standard_normal((tokens, width)).astype(np.float32) for width, _ in tensors]
    if layout in (Layout.QKV_BETA_G, Layout.QKV_Z_BETA_G):
        made[-2], made[-1] = 1 / (1 + np.exp(-made[-2])), -np.abs(made[-1])
    return tuple(rounded(x, kind) for x, (_, kind) in zip(made, tensors))


def assert_agree(clients, counts, layout, x=None, seed=0):
    """A prefill of both, and a decode after it."""
    names, outputs = [f"r{i}" for i in range(len(counts))], []
    for client in clients:
        rows = client.rows(request_ids=names, token_counts=counts, layout=layout, create=True)
        first = client.prefill(0, rows, x, synthetic_seed=seed)
        after = client.decode(0, client.rows(request_ids=names), hidden(client, len(names), 9))
        outputs.append((floats(first.output), floats(after.output)))
        assert [client.get_sequence(name).positions[0] for name in names] == [
            count + 1 for count in counts
        ]
        client.release(names)
    for cut, whole in zip(*outputs):
        assert relative_error(cut, whole) < TOLERANCE[clients[0].info.data_type]


@pytest.mark.parametrize(
    "counts", [[300], [64, 64], [65], [10, 200, 1, 0, 130], [1] * 6 + [63, 70]]
)
def test_it_answers_as_the_whole(clients, counts):
    assert_agree(clients, counts, Layout.HIDDEN, hidden(clients[0], sum(counts), 3))


@pytest.mark.parametrize("layout", [layout for layout in Layout if layout != Layout.HIDDEN])
def test_every_layout(clients, layout):
    assert_agree(clients, [100, 70], layout, inputs(clients[0], layout, 170))


def test_synthetic_input_is_that_of_the_whole(clients):
    for layout in (Layout.HIDDEN, Layout.QKV_Z_B_A):
        assert_agree(clients, [150, 50], layout, seed=11)


def test_all_of_a_row_is_looked_at_first(client):
    twins = Twins(client, "bad")
    good = begin(client, "good")
    x = hidden(client, 400, 5)
    x[249] = np.nan  # the last token of the first row
    fields = dict(
        slots=twins.handle["slots"] + good["slots"],
        epochs=twins.handle["epochs"] + good["epochs"],
        token_counts=[250, 150],
    )
    rows = client.rows(**fields)
    assert reason_of(client.prefill, 0, rows, x) == "NON_FINITE_INPUT"
    twins.assert_untouched()
    assert client.get_sequence("good").positions[0] == 153
    again = client.prefill(0, rows.padded([0]), x)
    assert again.replayed_rows == 1 and not again.output[:250].any() and again.output[250:].any()


def test_an_overflow_in_a_later_piece_poisons_its_row(client):
    twins = Twins(client, "well")
    begin(client, "poisoned")
    mixed, beta, g = inputs(client, Layout.QKV_BETA_G, 300)
    mixed[200:] = 3e38
    rows = client.rows(request_ids=["poisoned"], token_counts=[300], layout=Layout.QKV_BETA_G)
    assert reason_of(client.prefill, 0, rows, (mixed, beta, g)) == "STATE_POISONED"
    assert client.get_sequence("poisoned").poisoned
    assert client.get_sequence("poisoned").positions[0] == 3
    twins.assert_untouched()


def test_decodes_beside_it_are_right(client):
    """Twins take the same steps, one of them while prefills run."""
    first, second = (begin(client, name) for name in ("beside", "before"))
    x = hidden(client, 20, 4)
    expected = [client.decode(0, client.rows(**second), x[i : i + 1]).output for i in range(20)]
    prompt = hidden(client, 4000, 6)
    rows = client.rows(request_ids=["p"], token_counts=[4000], create=True, release_after=True)
    with ThreadPoolExecutor(1) as pool:
        prefill = pool.submit(client.prefill, 0, rows, prompt)
        found = [client.decode(0, client.rows(**first), x[i : i + 1]).output for i in range(20)]
        assert prefill.result(60).output.any()
    assert all(np.array_equal(a, b) for a, b in zip(found, expected))
