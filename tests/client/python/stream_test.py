import asyncio

import grpc
import numpy as np
import pytest
from fake_server import HIDDEN, VALUE_SIZE, Fault
from gdn_client import (
    Aborted,
    AsyncClient,
    Cancelled,
    Internal,
    InvalidArgument,
    Layout,
    Unavailable,
)
from gdn_client.stream import read_answer

X = np.arange(4 * HIDDEN, dtype=np.float32).reshape(4, HIDDEN)


def test_answers_come_to_their_futures(sync_client):
    with sync_client.stream() as stream:
        created = stream.prefill(
            0, sync_client.rows(request_ids=["a"], token_counts=[2], create=True), X[:2]
        )
        other = stream.prefill(
            4, sync_client.rows(request_ids=["b"], token_counts=[4], create=True), X
        )
        assert list(created.result(5).slots) == [0] and list(other.result(5).slots) == [1]
        rows = [sync_client.rows(request_ids=["a"], positions=[2 + i]) for i in range(20)]
        steps = [stream.decode(0, r, X[:1] * i) for i, r in enumerate(rows)]
        for step in steps:
            assert step.result(5).output.shape == (1, HIDDEN)
    assert sync_client.get_sequence("a").positions == {0: 22, 4: 0}


def test_layouts_on_one_stream(sync_client):
    with sync_client.stream() as stream:
        hidden = stream.prefill(0, sync_client.rows(request_ids=["a"], create=True), X[:1])
        x = (np.zeros((1, 16)), np.zeros((1, 2)), np.zeros((1, 2)))
        projected = stream.decode(
            0, sync_client.rows(request_ids=["b"], create=True, layout=Layout.QKV_BETA_G), x
        )
        assert hidden.result(5).output.shape == (1, HIDDEN) and projected.result(
            5
        ).output.shape == (1, VALUE_SIZE)


def test_a_refused_step_does_not_end_the_stream(sync_client):
    with sync_client.stream() as stream:
        stream.prefill(0, sync_client.rows(request_ids=["a"], create=True), X[:1]).result(5)
        wrong = stream.decode(0, sync_client.rows(request_ids=["a"], positions=[7]), X[:1])
        right = stream.decode(0, sync_client.rows(request_ids=["a"], positions=[1]), X[:1])
        with pytest.raises(Aborted) as e:
            wrong.result(5)
        assert e.value.positions == {0: 1} and e.value.instance_id == "first"
        assert right.result(5).replayed_rows == 0


def test_steps_under_way_fail_with_the_stream(fake, sync_client):
    stream = sync_client.stream()
    stream.prefill(0, sync_client.rows(request_ids=["a"], create=True), X[:1]).result(5)
    fake.faults.append(grpc.StatusCode.UNAVAILABLE)
    step = stream.decode(0, sync_client.rows(request_ids=["a"]), X[:1])
    with pytest.raises(Unavailable):
        step.result(5)
    with pytest.raises(Unavailable):
        stream.decode(0, sync_client.rows(request_ids=["a"]), X[:1])
    stream.close()


def test_cancel(sync_client):
    stream = sync_client.stream()
    stream.prefill(0, sync_client.rows(request_ids=["a"], create=True), X[:1]).result(5)
    stream.cancel()
    with pytest.raises(Cancelled):
        stream.decode(0, sync_client.rows(request_ids=["a"]), X[:1])


def test_closing_waits_for_answers(sync_client):
    with sync_client.stream() as stream:
        steps = [
            stream.prefill(0, sync_client.rows(request_ids=["a"], create=i == 0), X[:1])
            for i in range(10)
        ]
    assert all(step.done() and not step.exception() for step in steps)
    with pytest.raises(Cancelled):
        stream.decode(0, sync_client.rows(request_ids=["a"]), X[:1])


@pytest.mark.parametrize("data", [b"", b"\x08\x05", b"\x08"])
def test_an_answer_that_answers_nothing(sync_client, data):
    with pytest.raises(ValueError):
        read_answer(sync_client._calls, data, {1: (None, None, None)})


def test_asyncio(fake):
    async def run():
        async with AsyncClient(fake.target) as client:
            async with client.stream() as stream:
                first = await stream.prefill(
                    0, client.rows(request_ids=["a"], token_counts=[4], create=True), X
                )
                assert list(first.slots) == [0]
                rows = [client.rows(request_ids=["a"]) for _ in range(10)]
                answers = await asyncio.gather(*(stream.decode(0, r, X[:1]) for r in rows))
                assert len(answers) == 10
                with pytest.raises(Aborted):
                    await stream.decode(0, client.rows(request_ids=["a"], positions=[1]), X[:1])
                fake.faults.append(Fault("MALFORMED_BATCH"))
                with pytest.raises(InvalidArgument):
                    await stream.decode(0, client.rows(request_ids=["a"]), X[:1])
            assert (await client.get_sequence("a")).positions[0] == 14
            with pytest.raises(Cancelled):
                stream.decode(0, client.rows(request_ids=["a"]), X[:1])

    asyncio.run(asyncio.wait_for(run(), 30))


def test_asyncio_stream_ends_under_a_step(fake):
    async def run():
        async with AsyncClient(fake.target) as client:
            stream = client.stream()
            fake.faults.append(grpc.StatusCode.INTERNAL)
            with pytest.raises(Internal):
                await stream.prefill(0, client.rows(request_ids=["a"], create=True), X[:1])
            await stream.close()
            stream = client.stream()
            await stream.prefill(0, client.rows(request_ids=["a"], create=True), X[:1])
            await stream.cancel()
            with pytest.raises(Cancelled):
                stream.prefill(0, client.rows(request_ids=["a"]), X[:1])

    asyncio.run(asyncio.wait_for(run(), 30))
