"""What a status becomes: its class, and what it says of rows."""

import grpc
import numpy as np
import pytest
from clients import X, begin
from fake_server import Fault
from gdn_client import (
    Aborted,
    AlreadyExists,
    CallerError,
    Cancelled,
    DataLoss,
    FailedPrecondition,
    Internal,
    Interrupted,
    InvalidArgument,
    MessageTooLarge,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    StateLost,
    Unavailable,
    Unimplemented,
    Unauthenticated,
)
from gdn_client.calls import Call
from fake_server import HIDDEN


def test_an_error_names_rows_positions_and_server(client):
    h, _ = begin(client, "a", "b", "c")
    with pytest.raises(Aborted) as e:
        client.decode(0, client.rows(**h, positions=[9, 1, 8]), X[:3])
    assert e.value.code == grpc.StatusCode.ABORTED and e.value.reason == "POSITION_MISMATCH"
    assert e.value.rows == {0: "POSITION_MISMATCH", 2: "POSITION_MISMATCH"}
    assert e.value.positions == {0: 1, 2: 1} and e.value.instance_id == "first"
    assert [s.positions[0] for s in client.list_sequences()] == [1, 1, 1]


def test_rows_of_several_reasons(client):
    h, _ = begin(client, "a", "b")
    rows = client.rows(slots=[0, 1, 3], epochs=[*h["epochs"], 5], positions=[1, 2, 0])
    with pytest.raises(Aborted) as e:
        client.decode(0, rows, X[:3])
    assert e.value.rows == {
        1: "POSITION_MISMATCH",
        2: "SEQUENCE_NOT_FOUND",
    } and e.value.positions == {1: 1}


def test_a_nan_row_is_padded_and_the_rest_replayed(client):
    h, _ = begin(client, "a", "b")
    rows, x = client.rows(**h, positions=[1, 1]), X[:2].copy()
    x[0, 3] = np.nan
    with pytest.raises(InvalidArgument) as e:
        client.decode(0, rows, x)
    assert e.value.rows == {0: "NON_FINITE_INPUT"}
    answer = client.decode(0, rows.padded(e.value.rows), x)
    assert answer.replayed_rows == 1 and not answer.output[0].any()
    assert [s.positions[0] for s in client.list_sequences()] == [1, 2]


def test_metadata_and_retry_delay(fake, client):
    fake.faults.append(Fault("INPUT_SIZE_MISMATCH", expected_bytes="32", actual_bytes="4"))
    with pytest.raises(InvalidArgument) as e:
        client.decode(0, client.rows(request_ids=["a"]), X[:1])
    assert (
        e.value.metadata == {"expected_bytes": "32", "actual_bytes": "4"}
        and e.value.retry_delay is None
    )
    fake.faults.extend([Fault("QUEUE_FULL", retry_ms=15)] * 4)
    with pytest.raises(ResourceExhausted) as e:
        client.decode(0, client.rows(request_ids=["a"]), X[:1])
    assert e.value.retry_delay == pytest.approx(0.015)


@pytest.mark.parametrize(
    "reason,kind,reaction",
    [
        ("MALFORMED_BATCH", InvalidArgument, CallerError),
        ("REGION_NOT_FOUND", FailedPrecondition, CallerError),
        ("REGION_DENIED", PermissionDenied, CallerError),
        ("METHOD_DENIED", PermissionDenied, CallerError),
        ("TOKEN_INVALID", Unauthenticated, CallerError),
        ("SEQUENCE_NOT_FOUND", NotFound, StateLost),
        ("STATE_POISONED", DataLoss, StateLost),
        ("POSITION_MISMATCH", Aborted, Aborted),
        ("ID_IN_USE", AlreadyExists, AlreadyExists),
        ("DEVICE_ERROR", Internal, Internal),
    ],
)
def test_each_code_has_its_class_and_is_not_retried(fake, client, reason, kind, reaction):
    fake.faults.append(Fault(reason))
    with pytest.raises(kind) as e:
        client.decode(0, client.rows(request_ids=["a"]), X[:1])
    assert isinstance(e.value, reaction) and e.value.reason == reason and len(fake.requests) == 1


@pytest.mark.parametrize("code", ["UNKNOWN", "DATA_LOSS", "OUT_OF_RANGE"])
def test_codes_without_a_class_are_internal(fake, client, code):
    fake.faults.append(grpc.StatusCode[code])
    with pytest.raises(DataLoss if code == "DATA_LOSS" else Internal) as e:
        client.decode(0, client.rows(request_ids=["a"]), X[:1])
    assert e.value.reason == "" and e.value.code == grpc.StatusCode[code]


def test_a_method_that_is_not_there(client):
    with pytest.raises(Unimplemented):
        client._run(Call("/gdn.v1.GdnService/Nothing", b"", bytes))


def test_cancelled_is_interrupted():
    assert issubclass(Cancelled, Interrupted) and issubclass(Unavailable, Interrupted)


def test_a_message_over_the_limit_says_split(fake, client):
    rows = client.rows(request_ids=["a"], token_counts=[1 << 16], create=True)
    with pytest.raises(MessageTooLarge) as e:
        client.prefill(0, rows, np.zeros((1 << 16, HIDDEN), np.float32))
    assert isinstance(e.value, CallerError) and not isinstance(e.value, ResourceExhausted)
    assert not fake.requests
