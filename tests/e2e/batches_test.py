"""Batches, good and bad: all rows pass or none runs, every bad row is named, and padding touches
nothing."""

import grpc
import numpy as np
import pytest
from gdn_client import (
    PAD_SLOT,
    Client,
    GdnError,
    InvalidArgument,
    NO_RETRY,
)
from gdn_client import NotFound, ResourceExhausted
from steps import Twins, begin, hidden, reason_of

CALLS = ["decode", "prefill"]


@pytest.mark.parametrize("method", CALLS)
@pytest.mark.parametrize("pad", [-1, -2, -(2**31)])
def test_padding_rows_are_zero_and_touch_nothing(served, method, pad):
    """Slot 0 is an ordinary slot: padding must not reach it."""
    server = served("small", slots=2, max_rows=4, max_tokens=64, max_decode_tokens=4)
    with Client(server.target, retry=NO_RETRY, timeout=60) as client:
        twins = Twins(client, "a")
        assert 0 in twins.handles["slots"]
        x = hidden(client, 6)
        rows = client.rows(slots=[pad, pad, pad], epochs=[0, 5, 0], token_counts=[1, 3, 2])
        for layer in client.info.layers:
            answer = getattr(client, method)(layer, rows, x)
            assert answer.output.shape == x.shape and not answer.output.any()
        twins.assert_untouched()
        client.release([s.request_id for s in twins.before])


def test_padding_between_rows(client):
    h = begin(client, "a", "b")
    begin(client, "c", "d")
    x = hidden(client, 5)
    rows = client.rows(
        slots=[-1, h["slots"][0], -1, h["slots"][1], -1],
        epochs=[0, h["epochs"][0], 0, h["epochs"][1], 0],
        positions=[0, 3, 9, 3, 0],
    )
    answer = client.decode(0, rows, x)
    assert not answer.output[[0, 2, 4]].any() and answer.output[[1, 3]].any(axis=1).all()
    alone = client.decode(0, client.rows(request_ids=["c", "d"]), x[[1, 3]])
    np.testing.assert_allclose(alone.output, answer.output[[1, 3]], rtol=1e-4, atol=1e-6)


def test_padding_by_id(client):
    answer = client.prefill(
        0,
        client.rows(request_ids=["", "a", ""], token_counts=[2, 2, 0], create=True),
        hidden(client, 4),
    )
    assert answer.slots.tolist()[::2] == [PAD_SLOT] * 2 and answer.epochs.tolist()[::2] == [0, 0]
    assert answer.slots[1] >= 0 and answer.epochs[1] != 0
    assert not answer.output[:2].any() and answer.output[2:].any()
    assert len(list(client.list_sequences())) == 1


def test_padding_may_hold_nan(client):
    h = begin(client, "a")
    x = hidden(client, 2)
    x[0] = np.nan
    answer = client.decode(0, client.rows(slots=[-1, *h["slots"]], epochs=[0, *h["epochs"]]), x)
    assert (
        not answer.output[0].any()
        and np.isfinite(answer.output[1]).all()
        and answer.output[1].any()
    )


def test_a_row_of_no_tokens_begins_a_sequence(client):
    answer = client.prefill(
        0, client.rows(request_ids=["a", "b"], token_counts=[0, 2], create=True), hidden(client, 2)
    )
    assert {s.request_id: s.positions[0] for s in client.list_sequences()} == {"a": 0, "b": 2}
    assert (answer.slots >= 0).all()
    assert answer.output.shape[0] == 2


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("method,tokens", [("decode", 1), ("prefill", 30)])
def test_a_non_finite_row_is_named_and_the_others_commit(client, method, tokens, bad):
    twins = Twins(client, "a")
    h = begin(client, "b", "c")
    slots, epochs = (
        h["slots"][:1] + twins.handle["slots"] + h["slots"][1:],
        h["epochs"][:1] + twins.handle["epochs"] + h["epochs"][1:],
    )
    x = hidden(client, 3 * tokens)
    x[2 * tokens - 1, 5] = bad  # the last token of the middle row
    rows = client.rows(slots=slots, epochs=epochs, positions=[3, 3, 3], token_counts=[tokens] * 3)
    call = getattr(client, method)
    with pytest.raises(InvalidArgument) as e:
        call(0, rows, x)
    assert e.value.rows == {1: "NON_FINITE_INPUT"}
    assert {i: client.get_sequence(i).positions[0] for i in "abc"} == {
        "a": 3,
        "b": 3 + tokens,
        "c": 3 + tokens,
    }
    answer = call(0, rows.padded(e.value.rows), x)
    assert answer.replayed_rows == 2 and not answer.output[tokens : 2 * tokens].any()
    repaired = hidden(client, 3 * tokens)
    answer = call(0, rows, repaired)
    assert answer.replayed_rows == 2 and answer.output[tokens : 2 * tokens].any()


@pytest.mark.parametrize("method,tokens", [("decode", 1), ("prefill", 40)])
def test_a_non_finite_row_keeps_its_state(client, method, tokens):
    twins = Twins(client, "a")
    x = hidden(client, tokens)
    x[-1, -1] = np.nan
    for layer in client.info.layers:
        rows = client.rows(**twins.handle, token_counts=[tokens])
        assert reason_of(getattr(client, method), layer, rows, x) == "NON_FINITE_INPUT"
    twins.assert_untouched()


def test_a_non_finite_new_row_begins_nothing(client):
    x = hidden(client, 2)
    x[1, 0] = np.inf
    with pytest.raises(InvalidArgument) as e:
        client.prefill(0, client.rows(request_ids=["a", "b"], create=True), x)
    assert e.value.rows == {1: "NON_FINITE_INPUT"}
    assert [s.request_id for s in client.list_sequences()] == ["a"]


def test_release_after_waits_for_an_ok(client):
    h = begin(client, "a", "b")
    x = hidden(client, 2)
    x[1, 0] = np.nan
    rows = client.rows(**h, release_after=True)
    assert reason_of(client.decode, 0, rows, x) == "NON_FINITE_INPUT"
    assert len(list(client.list_sequences())) == 2
    assert client.decode(0, rows, hidden(client, 2)).replayed_rows == 1
    assert list(client.list_sequences()) == []


def test_a_layer_call_without_memory(client):
    x = hidden(client, 9)
    rows = client.rows(request_ids=["a", "b"], token_counts=[4, 5], create=True, release_after=True)
    first = client.prefill(0, rows, x)
    assert list(client.list_sequences()) == []
    again = client.prefill(0, rows, x)
    assert again.replayed_rows == 0 and np.array_equal(first.output, again.output)


@pytest.mark.parametrize("method", CALLS)
def test_one_bad_row_and_none_runs(client, method):
    twins = Twins(client, "a")
    h = begin(client, "b")
    slots, epochs = (
        twins.handle["slots"] + h["slots"] + [11],
        twins.handle["epochs"] + h["epochs"] + [1],
    )
    rows = client.rows(slots=slots, epochs=epochs, positions=[3, 99, 0])
    with pytest.raises(GdnError) as e:
        getattr(client, method)(0, rows, hidden(client, 3))
    assert e.value.rows == {1: "POSITION_MISMATCH", 2: "SEQUENCE_NOT_FOUND"}
    assert e.value.code == grpc.StatusCode.ABORTED, "that of the lowest row"
    twins.assert_untouched()
    assert client.get_sequence("b").positions[0] == 3


def test_one_bad_row_and_none_begins(client):
    with pytest.raises(NotFound) as e:
        client.prefill(
            0,
            client.rows(request_ids=["new", "lost"], positions=[0, 5], create=True),
            hidden(client, 2),
        )
    assert e.value.rows == {1: "SEQUENCE_NOT_FOUND"} and list(client.list_sequences()) == []


def test_the_largest_batch_fits(client):
    tokens = client.info.max_tokens
    answer = client.prefill(
        0,
        client.rows(request_ids=["a"], token_counts=[tokens], create=True),
        hidden(client, tokens),
    )
    assert answer.output.shape[0] == tokens and np.isfinite(answer.output).all()
    g = client.info.geometry
    rows = client.rows(request_ids=["b"], token_counts=[tokens], create=True, layout=5)
    widths = (g.conv_dim, g.value_size, g.value_heads, g.value_heads)
    tensors = tuple(np.full((tokens, w), -0.1, np.float32) for w in widths)
    assert client.prefill(0, rows, tensors).output.shape == (tokens, g.value_size)


def test_every_row_and_every_slot_at_once(client):
    n = client.info.max_rows
    h = begin(client, *(f"s{i}" for i in range(n)))
    answer = client.decode(0, client.rows(**h, positions=[3] * n), hidden(client, n))
    assert answer.output.any(axis=1).all()


def test_full_pool(served):
    server = served("small", slots=2, max_rows=4, max_tokens=64, max_decode_tokens=4)
    with Client(server.target, retry=NO_RETRY, timeout=60) as client:
        begin(client, "a")
        x = hidden(client, 3)
        with pytest.raises(ResourceExhausted) as e:
            client.prefill(0, client.rows(request_ids=["a", "b", "c"], create=True), x)
        assert e.value.reason == "SLOTS_EXHAUSTED" and e.value.retry_delay > 0
        assert (
            client.get_sequence("a").positions[0] == 3 and len(list(client.list_sequences())) == 1
        )
        begin(client, "b")
        assert client.info.slots == 2
        assert (
            reason_of(client.prefill, 0, client.rows(request_ids=["c"], create=True), x[:1])
            == "SLOTS_EXHAUSTED"
        )
        client.release(["a"])
        begin(client, "c")
        client.release(["b", "c"])


def test_discard_output(client):
    twins = Twins(client, "a")
    handles = twins.handles
    x = hidden(client, 2)
    answer = client.decode(
        0,
        client.rows(slots=handles["slots"][:1], epochs=handles["epochs"][:1], discard_output=True),
        x[:1],
    )
    assert len(answer.output) == 0 and answer.replayed_rows == 0
    kept = client.decode(
        0, client.rows(slots=handles["slots"][1:], epochs=handles["epochs"][1:]), x[:1]
    )
    assert len(kept.output) == 1
    twins.before = [client.get_sequence(s.request_id) for s in twins.before]
    twins.assert_untouched()


def test_synthetic_input(client):
    outputs = {}
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        rows = client.rows(request_ids=[name], token_counts=[20], create=True)
        outputs[name] = client.prefill(0, rows, synthetic_seed=seed).output
    assert (
        outputs["a"].shape == (20, client.info.geometry.hidden_size)
        and np.isfinite(outputs["a"]).all()
    )
    assert np.array_equal(outputs["a"], outputs["b"]) and not np.array_equal(
        outputs["a"], outputs["c"]
    )
    rows = client.rows(request_ids=["d"], create=True, layout=4)
    assert reason_of(client.decode, 0, rows, synthetic_seed=5) == "UNSUPPORTED"


def test_synthetic_input_must_be_allowed(served):
    server = served("small", slots=2, max_rows=4, max_tokens=64, max_decode_tokens=4)
    with Client(server.target, retry=NO_RETRY) as client, pytest.raises(GdnError) as e:
        client.decode(0, client.rows(request_ids=["a"], create=True), synthetic_seed=1)
    assert (
        e.value.reason == "SYNTHETIC_INPUT_DISABLED"
        and e.value.code == grpc.StatusCode.FAILED_PRECONDITION
    )
