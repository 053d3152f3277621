"""Steps and sequences, through Client and AsyncClient, against the fake server."""

from datetime import datetime, timezone

import numpy as np
import pytest
from clients import X, begin
from fake_server import CONV_DIM, HIDDEN, LAYERS, VALUE_HEADS, VALUE_SIZE, FakeServer, Fault
from gdn_client import DataType, Geometry, InvalidArgument, Layout, NotFound
from gdn_client.proto import message


def test_info(client):
    info = client.info
    assert info.geometry == Geometry(HIDDEN, 1, VALUE_HEADS, 4, 4, 4)
    assert (info.geometry.conv_dim, info.geometry.value_size) == (CONV_DIM, VALUE_SIZE)
    assert info.layers == LAYERS and info.data_type == DataType.FP32 and info.step_ttl == 30.0
    assert info.input_layouts == tuple(Layout) and info.instance_id == "first"


def test_step_ids_are_new_and_not_zero(client):
    ids = {client.step_id() for _ in range(100)} | {
        client.rows(slots=[0], epochs=[1]).step_id for _ in range(100)
    }
    assert len(ids) == 200 and 0 not in ids


def test_prefill_by_id_then_decode_by_slot(client):
    rows = client.rows(request_ids=["a", "", "b"], token_counts=[2, 1, 2], create=True)
    answer = client.prefill(0, rows, X)
    assert answer.output.shape == (5, HIDDEN) and answer.output.dtype == np.float32
    np.testing.assert_array_equal(answer.output[[0, 2]], [X[0], 0 * X[0]])
    np.testing.assert_array_equal(answer.output[4], X[3] + X[4])
    assert (
        list(answer.slots) == [0, -1, 1]
        and answer.epochs[1] == 0
        and answer.epochs[0] != answer.epochs[2]
    )
    again = client.decode(
        0, client.rows(slots=answer.slots, epochs=answer.epochs, positions=[2, 0, 2]), X[:3]
    )
    assert again.slots is None and again.epochs is None and again.replayed_rows == 0
    np.testing.assert_allclose(again.output[0], X[0] / 2 + X[1] + X[0])
    assert not again.output.flags.writeable


def test_the_same_rows_serve_every_layer(client):
    h, _ = begin(client, "a")
    client.prefill(4, client.rows(request_ids=["a"]), X[:1])
    rows = client.rows(**h, positions=[1])
    client.decode(0, rows, X[:1])
    client.decode(4, rows, X[:1])
    assert client.get_sequence("a").positions == {0: 2, 4: 2}


def test_a_step_sent_twice_is_replayed(client):
    h, _ = begin(client, "a", "b")
    rows = client.rows(**h, positions=[1, 1])
    first, second = client.decode(0, rows, X[:2]), client.decode(0, rows, X[:2])
    assert (first.replayed_rows, second.replayed_rows) == (0, 2)
    np.testing.assert_array_equal(first.output, second.output)


def test_zero_tokens_and_discarded_output(client):
    h, _ = begin(client, "a")
    nothing = client.prefill(0, client.rows(**h, token_counts=[0]), X[:0])
    assert nothing.output.shape == (0, HIDDEN)
    assert client.decode(0, client.rows(**h, discard_output=True), X[:1]).output.shape == (
        0,
        HIDDEN,
    )
    assert client.get_sequence("a").positions[0] == 2


def test_projected_layouts_send_their_tensors_back_to_back(fake, client):
    rng = np.random.default_rng(0)
    widths = {"qkv": CONV_DIM, "z": VALUE_SIZE, "b": VALUE_HEADS, "a": VALUE_HEADS}
    t = {name: rng.standard_normal((2, w)).astype(np.float32) for name, w in widths.items()}
    for layout, names in {
        Layout.QKV_B_A: ("qkv", "b", "a"),
        Layout.QKV_Z_B_A: ("qkv", "z", "b", "a"),
        Layout.QKV_BETA_G: ("qkv", "b", "a"),
        Layout.QKV_Z_BETA_G: ("qkv", "z", "b", "a"),
    }.items():
        rows = client.rows(
            request_ids=[layout.name],
            token_counts=[2],
            create=True,
            release_after=True,
            layout=layout,
        )
        answer = client.prefill(0, rows, tuple(t[name] for name in names))
        sent = message("PrefillRequest").FromString(fake.requests[-1])
        assert (
            sent.input == b"".join(t[name].tobytes() for name in names)
            and sent.batch.input_layout == layout
        )
        assert answer.output.shape == (2, VALUE_SIZE)


def test_beta_and_g_stay_float32(connect):
    fake = FakeServer(data_type=1)
    with connect(fake.target) as client:
        rows = client.rows(request_ids=["a"], create=True, layout=Layout.QKV_BETA_G)
        client.prefill(
            0, rows, (np.ones((1, CONV_DIM)), np.full((1, 2), 0.1), np.full((1, 2), -0.3))
        )
    sent = message("PrefillRequest").FromString(fake.requests[-1])
    assert sent.input == b"\x80\x3f" * CONV_DIM + np.float32([0.1, 0.1, -0.3, -0.3]).tobytes()
    fake.stop()


def test_the_wrong_number_of_tensors_is_not_sent(fake, client):
    for layout, x in ((Layout.QKV_B_A, (X, X)), (Layout.HIDDEN, (X, X)), (Layout.QKV_Z_B_A, X)):
        with pytest.raises(ValueError):
            client.prefill(0, client.rows(request_ids=["a"], layout=layout), x)
    assert not fake.requests


@pytest.mark.parametrize("data_type", [DataType.BF16, DataType.FP16])
def test_half_types(connect, data_type):
    pytest.importorskip("ml_dtypes")
    fake = FakeServer(data_type=data_type)
    with connect(fake.target) as client:
        answer = client.prefill(0, client.rows(request_ids=["a"], token_counts=[5], create=True), X)
    assert (
        answer.output.itemsize == 2
        and answer.output.dtype.name == {1: "bfloat16", 2: "float16"}[data_type]
    )
    np.testing.assert_array_equal(answer.output[0], X[0].astype(answer.output.dtype))
    fake.stop()


def test_synthetic_input_needs_no_tensor(fake, client):
    fake.faults.append(Fault("SYNTHETIC_INPUT_DISABLED"))
    with pytest.raises(InvalidArgument):
        client.decode(0, client.rows(request_ids=["a"], create=True), synthetic_seed=5)
    sent = message("DecodeRequest").FromString(fake.requests[-1])
    assert (sent.synthetic_seed, sent.input) == (5, b"")


def test_sequences(client):
    begin(client, "a", "b", "c", tokens=2)
    got = client.get_sequence("b")
    assert (got.request_id, got.slot, got.poisoned, got.positions) == ("b", 1, False, {0: 2, 4: 0})
    assert got.create_time == datetime.fromtimestamp(1000, timezone.utc)
    assert [s.request_id for s in client.list_sequences(2)] == ["a", "b", "c"]
    assert [s.slot for s in client.list_sequences()] == [0, 1, 2]
    with pytest.raises(NotFound):
        client.get_sequence("d")


def test_release_with_an_epoch_leaves_later_tenants_alone(client):
    h, _ = begin(client, "a", "b")
    client.release(["a", "b", "gone"], epochs=[h["epochs"][0] + 5, h["epochs"][1], 0])
    assert [s.request_id for s in client.list_sequences()] == ["a"]
    client.release(["a"])
    assert list(client.list_sequences()) == []


def test_renew(fake, client):
    begin(client, "a")
    assert client.renew(["a", "b"], ttl=2.5) == ("first", ["b"])
    fake.restart()
    assert client.renew(["a"]) == ("first'", ["a"])


def test_health(client):
    assert client.health() == "SERVING"
