"""A step sent again is answered from the store, not run again."""

import numpy as np
import pytest
from gdn_client import Aborted, Client, GdnError, InvalidArgument, NO_RETRY
from steps import Twins, begin, hidden, reason_of


@pytest.mark.parametrize(
    "method,tokens", [("decode", 1), ("decode", 4), ("prefill", 1), ("prefill", 60)]
)
def test_same_bytes_marked_and_not_run_twice(client, method, tokens):
    twins = Twins(client, "a")
    layer, x, call = client.info.layers[0], hidden(client, tokens, 1), getattr(client, method)
    rows = client.rows(**twins.handle, positions=[3], token_counts=[tokens])
    first = call(layer, rows, x)
    for _ in range(3):
        again = call(layer, rows, x)
        assert again.replayed_rows == 1 and np.array_equal(again.output, first.output)
    assert first.replayed_rows == 0 and client.get_sequence("a").positions[layer] == 3 + tokens
    other = call(
        layer,
        client.rows(
            slots=twins.handles["slots"][1:],
            epochs=twins.handles["epochs"][1:],
            token_counts=[tokens],
        ),
        x,
    )
    assert np.array_equal(other.output, first.output)
    twins.before = [client.get_sequence(s.request_id) for s in twins.before]
    twins.assert_untouched()


def test_by_id_as_by_slot(client):
    begin(client, "a")
    rows, x = client.rows(request_ids=["a", ""], positions=[3, 0]), hidden(client, 2)
    first, again = (client.decode(0, rows, x) for _ in range(2))
    assert again.replayed_rows == 1 and np.array_equal(first.output, again.output)
    assert np.array_equal(first.slots, again.slots) and np.array_equal(first.epochs, again.epochs)


def test_a_created_sequence_is_replayed_too(client):
    rows, x = (
        client.rows(request_ids=["a"], token_counts=[7], positions=[0], create=True),
        hidden(client, 7),
    )
    first, again = (client.prefill(0, rows, x) for _ in range(2))
    assert again.replayed_rows == 1 and np.array_equal(first.output, again.output)
    assert first.epochs == again.epochs and client.get_sequence("a").positions[0] == 7


def test_half_replayed_half_run(client):
    h = begin(client, "a", "b", "c")
    x, step_id = hidden(client, 3), client.step_id()
    one = client.rows(
        slots=h["slots"][1:2], epochs=h["epochs"][1:2], positions=[3], step_id=step_id
    )
    first = client.decode(0, one, x[1:2])
    both = client.decode(0, client.rows(**h, positions=[3] * 3, step_id=step_id), x)
    assert both.replayed_rows == 1 and np.array_equal(both.output[1], first.output[0])
    assert [s.positions[0] for s in client.list_sequences()] == [4, 4, 4]
    last = client.decode(0, client.rows(**h, positions=[3] * 3, step_id=step_id), x)
    assert last.replayed_rows == 3 and np.array_equal(last.output, both.output)


def test_layers_share_a_step_id(client):
    h = begin(client, "a")
    rows, x = client.rows(**h, positions=[3]), hidden(client, 1)
    outputs = [client.decode(layer, rows, x) for layer in client.info.layers]
    again = [client.decode(layer, rows, x) for layer in client.info.layers]
    assert [a.replayed_rows for a in outputs] == [0] * len(outputs) and all(
        a.replayed_rows == 1 for a in again
    )
    assert all(np.array_equal(a.output, b.output) for a, b in zip(outputs, again))


@pytest.mark.parametrize(
    "change",
    [
        dict(token_counts=[2]),
        dict(positions=[4]),
        dict(positions=[2]),
        dict(token_counts=[2], positions=[9]),
    ],
    ids=str,
)
def test_reused_for_another_step(client, change):
    h = begin(client, "a")
    rows = client.rows(**h, positions=[3])
    first = client.decode(0, rows, hidden(client, 1))
    with pytest.raises(InvalidArgument) as e:
        other = client.rows(**h, **{"positions": [3], **change}, step_id=rows.step_id)
        client.decode(0, other, hidden(client, change.get("token_counts", [1])[0]))
    assert e.value.rows == {0: "STEP_ID_REUSED"}
    again = client.decode(0, rows, hidden(client, 1))
    assert again.replayed_rows == 1 and np.array_equal(again.output, first.output)


def test_another_step_at_the_old_position_is_not_a_replay(client):
    h = begin(client, "a")
    client.decode(0, client.rows(**h, positions=[3]), hidden(client, 1))
    with pytest.raises(Aborted) as e:
        client.decode(0, client.rows(**h, positions=[3]), hidden(client, 1))
    assert e.value.positions == {0: 4}


def test_step_id_0_is_never_replayed(client):
    h = begin(client, "a")
    rows = client.rows(**h, step_id=0)
    answers = [client.decode(0, rows, hidden(client, 1)) for _ in range(2)]
    assert [a.replayed_rows for a in answers] == [0, 0] and client.get_sequence("a").positions[
        0
    ] == 5


def test_an_answer_too_large_to_keep_is_aborted(served):
    server = served(
        "small", slots=2, max_rows=2, max_tokens=200, max_decode_tokens=2, replay_bytes=1
    )
    with Client(server.target, retry=NO_RETRY, timeout=60) as client:
        rows, x = (
            client.rows(request_ids=["a"], token_counts=[150], create=True),
            hidden(client, 150),
        )
        client.prefill(0, rows, x)
        with pytest.raises(Aborted) as e:
            client.prefill(0, rows, x)
        assert (
            e.value.rows == {0: "ANSWER_NOT_KEPT"} and client.get_sequence("a").positions[0] == 150
        )
        rows = client.rows(request_ids=["a"], token_counts=[2])
        assert [client.decode(0, rows, x[:2]).replayed_rows for _ in range(2)] == [0, 1]
        client.release(["a"])


def test_the_oldest_answers_make_room(served):
    """Three answers where two fit."""
    tokens = 100
    server = served(
        "small",
        slots=3,
        max_rows=2,
        max_tokens=tokens,
        max_decode_tokens=2,
        replay_bytes=2 * tokens * 64 * 4,  # hidden 64 in fp32
    )
    with Client(server.target, retry=NO_RETRY, timeout=60) as client:
        x = hidden(client, tokens)
        rows = {
            name: client.rows(request_ids=[name], token_counts=[tokens], create=True)
            for name in "abc"
        }
        first = {name: client.prefill(0, rows[name], x).output for name in "abc"}
        for name in "bc":
            again = client.prefill(0, rows[name], x)
            assert again.replayed_rows == 1 and (again.output == first[name]).all()
        with pytest.raises(Aborted) as e:
            client.prefill(0, rows["a"], x)
        assert e.value.rows == {0: "ANSWER_NOT_KEPT"}
        assert [client.get_sequence(name).positions[0] for name in "abc"] == [tokens] * 3
        client.release([*"abc"])


def test_a_discarded_output_is_still_replayed(client):
    h = begin(client, "a")
    step_id, x = client.step_id(), hidden(client, 1)
    first = client.decode(0, client.rows(**h, step_id=step_id, discard_output=True), x)
    again = client.decode(0, client.rows(**h, step_id=step_id), x)
    assert len(first.output) == 0 and again.replayed_rows == 1 and again.output.any()
    assert client.get_sequence("a").positions[0] == 4


def test_released_sequences_are_not_replayed(client):
    h = begin(client, "a")
    rows = client.rows(**h, positions=[3], release_after=True)
    client.decode(0, rows, hidden(client, 1))
    assert reason_of(client.decode, 0, rows, hidden(client, 1)) == "SEQUENCE_NOT_FOUND"


def test_a_replay_of_another_layout_is_refused(client):
    """The store has the answer of the layout that was asked."""
    g = client.info.geometry
    begin(client, "a")
    rows = client.rows(request_ids=["a"])
    client.decode(0, rows, hidden(client, 1))
    other = client.rows(request_ids=["a"], step_id=rows.step_id, layout=2)
    with pytest.raises(GdnError) as e:
        client.decode(
            0,
            other,
            (np.zeros((1, g.conv_dim)), np.zeros((1, g.value_heads)), np.zeros((1, g.value_heads))),
        )
    assert e.value.rows == {0: "STEP_ID_REUSED"}
