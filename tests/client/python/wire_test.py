"""What the client writes and reads by hand, against the generated messages."""

import numpy as np
import pytest
from gdn_client import DataType, Layout, Rows, wire
from gdn_client.proto import message

IDS = ["a", "", "b/c:d.e_f-9"]


def parsed(rows: Rows):
    return (
        message("DecodeRequest").FromString(b"".join(wire.step_request(3, rows.encoded, []))).batch
    )


def test_every_field_of_a_batch():
    rows = Rows(
        DataType.BF16,
        Layout.QKV_Z_B_A,
        2**64 - 1,
        slots=[5, -1],
        epochs=[2**63, 0],
        positions=[7, 2**40],
        token_counts=[300, 0],
        create=True,
        release_after=True,
        speculative=True,
        discard_output=True,
    )
    want = message("Batch")(
        data_type=1,
        input_layout=3,
        step_id=2**64 - 1,
        create=True,
        release_after=True,
        speculative=True,
        discard_output=True,
        slots=[5, -1],
        epochs=[2**63, 0],
        positions=[7, 2**40],
        token_counts=[300, 0],
    )
    assert parsed(rows) == want
    assert rows.encoded == wire.delimited(2, want.SerializeToString())


def test_ids_and_no_flags():
    rows = Rows(DataType.FP32, Layout.HIDDEN, 0, request_ids=IDS)
    assert parsed(rows) == message("Batch")(data_type=3, input_layout=1, request_ids=IDS)


@pytest.mark.parametrize(
    "make", [list, tuple, np.array, lambda v: np.array(v, np.int64), lambda v: np.array(v)[:]]
)
def test_arrays_of_any_kind(make):
    rows = Rows(
        DataType.FP32,
        Layout.HIDDEN,
        1,
        slots=make([1, 2]),
        epochs=make([8, 9]),
        positions=make([0, 4]),
    )
    assert list(parsed(rows).slots) == [1, 2]
    assert list(parsed(rows).epochs) == [8, 9]
    assert list(parsed(rows).positions) == [0, 4]


def test_rows_are_encoded_at_once():
    positions = np.array([4, 4])
    rows = Rows(DataType.FP32, Layout.HIDDEN, 1, slots=[1, 2], epochs=[1, 1], positions=positions)
    positions += 1
    assert list(parsed(rows).positions) == [4, 4]


def test_padded_is_the_same_step():
    rows = Rows(
        DataType.FP32, Layout.HIDDEN, 77, slots=[1, 2, 3], epochs=[1, 1, 1], token_counts=[1, 2, 3]
    )
    padded = parsed(rows.padded([0, 2]))
    assert list(padded.slots) == [-1, 2, -1]
    assert padded.step_id == 77 and list(padded.token_counts) == [1, 2, 3]
    by_id = Rows(DataType.FP32, Layout.HIDDEN, 78, request_ids=("x", "y"), create=True)
    assert list(parsed(by_id.padded({1: "why"})).request_ids) == ["x", ""]
    assert parsed(by_id.padded([])).create


@pytest.mark.parametrize("layer,size", [(0, 0), (1, 1), (127, 127), (128, 128), (300, 70000)])
def test_step_request(layer, size):
    rows = Rows(DataType.FP32, Layout.HIDDEN, 5, slots=[0], epochs=[1])
    data = np.arange(size, dtype=np.uint8)
    request = wire.step_request(
        layer,
        rows.encoded,
        [memoryview(data[: size // 2]), memoryview(data[size // 2 :])],
        seed=2**64 - 5,
    )
    m = message("PrefillRequest").FromString(b"".join(request))
    assert (m.layer, m.synthetic_seed, m.input) == (layer, 2**64 - 5, data.tobytes())
    assert m.batch.step_id == 5


def test_stream_request():
    step = message("PrefillRequest")(layer=200, synthetic_seed=3)
    data = step.SerializeToString()
    m = message("StreamRequest").FromString(
        wire.stream_request(2**40, 14, [data[:1], memoryview(data)[1:]])
    )
    assert (m.tag, m.prefill) == (2**40, step)


def test_fields_read_every_wire_type():
    m = message("Batch")(data_type=3, step_id=9, request_ids=["a"], slots=[1, -2])
    fields = dict(wire.fields(m.SerializeToString()))
    assert fields[1] == 3 and int.from_bytes(fields[3], "little") == 9
    assert bytes(fields[8]) == b"a" and list(np.frombuffer(fields[9], "<i4")) == [1, -2]


def test_fields_refuse_what_is_cut_short():
    data = message("DecodeResponse")(slots=[1, 2, 3], output=bytes(300)).SerializeToString()
    for end in range(1, len(data)):
        try:
            list(wire.fields(data[:end]))
        except ValueError:
            continue
        assert end == 14, "a message may only end where a field does"


@pytest.mark.parametrize("data", [b"\x0b", b"\xff", b"\x7a\xff", b"\x7f\x00"])
def test_fields_refuse_nonsense(data):
    with pytest.raises(ValueError):
        list(wire.fields(data))


@pytest.mark.parametrize("offsets", [(0, 0), (5, 2**63), (2**64 - 1, 300)])
def test_tensors_in_shared_memory(offsets):
    rows = Rows(DataType.FP32, Layout.HIDDEN, 1, request_ids=IDS)
    place = wire.shared_memory("region", *offsets)
    request = message("PrefillRequest").FromString(
        b"".join(wire.step_request(3, rows.encoded, [], 9, shared=place))
    )
    assert (request.layer, request.synthetic_seed, request.input) == (3, 9, b"")
    assert list(request.batch.request_ids) == IDS
    want = message("SharedMemory")(
        region="region", input_offset=offsets[0], output_offset=offsets[1]
    )
    assert request.shared_memory == want


def test_the_tokens_of_rows():
    def rows(**fields):
        return Rows(DataType.FP32, Layout.HIDDEN, 1, **fields)

    assert rows(request_ids=IDS).tokens == 3
    assert rows(slots=np.array([1, -1]), epochs=[1, 0]).tokens == 2
    assert rows(request_ids=IDS, token_counts=[2**31, 0, 2**31]).tokens == 2**32
