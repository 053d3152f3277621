"""Which failures are answered with the same call, and when."""

import grpc
import numpy as np
import pytest
from clients import QUICK, X, begin
from fake_server import Fault
from gdn_client import (
    NO_RETRY,
    DeadlineExceeded,
    Interrupted,
    ResourceExhausted,
    RetryPolicy,
    Unavailable,
)


AGAIN = [
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,
    Fault("QUEUE_FULL", retry_ms=1),
    Fault("DRAINING"),
]


@pytest.mark.parametrize("fault", AGAIN, ids=str)
def test_retries_send_the_same_bytes(fake, client, fault):
    fake.faults.extend([fault] * 3)
    rows = client.rows(request_ids=["a"], create=True)
    np.testing.assert_array_equal(client.decode(0, rows, X[:1]).output, X[:1])
    assert len(fake.requests) == 4 and len(set(fake.requests)) == 1


@pytest.mark.parametrize("fault", AGAIN, ids=str)
def test_retries_end(fake, client, fault):
    fake.faults.extend([fault] * 5)
    with pytest.raises((Interrupted, ResourceExhausted)):
        client.decode(0, client.rows(request_ids=["a"], create=True), X[:1])
    assert len(fake.requests) == QUICK.attempts


def test_a_lost_answer_is_not_folded_twice(fake, client):
    h, _ = begin(client, "a")
    fake.faults.append("lose")
    answer = client.decode(0, client.rows(**h), X[:1])
    assert answer.replayed_rows == 1 and client.get_sequence("a").positions[0] == 2
    np.testing.assert_array_equal(answer.output[0], 1 + X[0])


@pytest.mark.parametrize("fault", AGAIN, ids=str)
def test_without_step_id_only_what_was_not_done_is_retried(fake, client, fault):
    fake.faults.append(fault)
    rows = client.rows(request_ids=["a"], create=True, step_id=0)
    if isinstance(fault, Fault):
        client.decode(0, rows, X[:1])
        assert len(fake.requests) == 2
    else:
        with pytest.raises(Interrupted):
            client.decode(0, rows, X[:1])
        assert len(fake.requests) == 1


def test_full_pool_is_waited_for(fake, client):
    begin(client, "a", "b", "c", "d")
    with pytest.raises(ResourceExhausted) as e:
        begin(client, "e")
    assert e.value.reason == "SLOTS_EXHAUSTED" and len(fake.requests) == 1 + QUICK.attempts
    client.release(["b"])
    assert list(begin(client, "e")[0]["slots"]) == [1]


@pytest.mark.parametrize("attempt,want", [(1, 0.1), (2, 0.2), (4, 0.5), (4000, 0.5)])
def test_backoff(attempt, want):
    policy = RetryPolicy(attempts=5000, initial=0.1, maximum=0.5)
    assert policy.delay(Unavailable(grpc.StatusCode.UNAVAILABLE), attempt) == pytest.approx(want)


def test_the_servers_delay_is_respected():
    status = Fault("QUEUE_FULL", retry_ms=700).status("")
    error = ResourceExhausted(grpc.StatusCode.RESOURCE_EXHAUSTED, "", status.details)
    assert RetryPolicy(initial=0.1, maximum=0.5).delay(error, 1) == pytest.approx(0.7)
    assert NO_RETRY.delay(error, 1) is None


def test_nobody_there(connect):
    with pytest.raises(DeadlineExceeded):
        connect("unix:/nonexistent/gdn.sock", connect_timeout=0.2)
