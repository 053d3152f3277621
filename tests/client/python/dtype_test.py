import numpy as np
import pytest
from gdn_client import DataType, dtype, expand_bf16, round_to_bf16, to_wire

ml_dtypes = pytest.importorskip("ml_dtypes")


def test_rounding_is_to_nearest_even():
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2**32, 200_000, dtype=np.uint32)
    ties = (bits & 0xFFFF0000) | 0x8000
    special = np.array(
        [0, 0x80000000, 0x7F800000, 0xFF800000, 0x7F7FFFFF, 1, 0x807FFFFF], np.uint32
    )
    x = np.concatenate([bits, ties, special]).view(np.float32)
    x = x[~np.isnan(x)]
    np.testing.assert_array_equal(round_to_bf16(x), x.astype(ml_dtypes.bfloat16).view(np.uint16))


def test_nan_stays_nan():
    nans = np.array([0x7F800001, 0x7FFFFFFF, 0xFFFFFFFF, 0xFF800001], np.uint32).view(np.float32)
    assert np.isnan(expand_bf16(round_to_bf16(nans))).all()


@pytest.mark.parametrize("installed", [True, False])
def test_bf16_there_and_back(monkeypatch, installed):
    if not installed:
        monkeypatch.setattr(dtype, "_bfloat16", None)
    x = np.random.default_rng(1).standard_normal((3, 5)).astype(np.float32)
    back = dtype.from_wire(to_wire(x, DataType.BF16).tobytes(), DataType.BF16, 5)
    assert back.dtype == (ml_dtypes.bfloat16 if installed else np.float32)
    np.testing.assert_array_equal(
        back.astype(np.float32), x.astype(ml_dtypes.bfloat16).astype(np.float32)
    )


def test_what_has_the_type_already_is_not_copied():
    for array, kind in [
        (np.zeros((2, 3), np.float32), DataType.FP32),
        (np.zeros((2, 3), np.float16), DataType.FP16),
        (np.zeros((2, 3), np.uint16), DataType.BF16),
        (np.zeros((2, 3), ml_dtypes.bfloat16), DataType.BF16),
    ]:
        assert np.shares_memory(to_wire(array, kind), array)


@pytest.mark.parametrize("kind", list(DataType))
@pytest.mark.parametrize("source", [np.float16, np.float32, np.float64, ml_dtypes.bfloat16])
def test_any_float_is_taken(kind, source):
    x = np.array([[0.5, -2.0], [1.0, 3.0]]).astype(source)
    wire = to_wire(x.T, kind)
    assert wire.flags.c_contiguous and wire.itemsize == dtype.ITEM_SIZE[kind]
    np.testing.assert_array_equal(
        dtype.from_wire(wire.tobytes(), kind, 2).astype(np.float64), x.T.astype(np.float64)
    )


@pytest.mark.parametrize("kind", list(DataType))
@pytest.mark.parametrize("source", [np.int32, np.int64, np.bool_, np.complex64, object])
def test_other_types_are_refused(kind, source):
    with pytest.raises(TypeError):
        to_wire(np.zeros((1, 2), source), kind)


def test_answers_are_views():
    data = np.arange(6, dtype=np.float32).tobytes()
    assert np.shares_memory(
        dtype.from_wire(data, DataType.FP32, 3), np.frombuffer(data, np.float32)
    )
