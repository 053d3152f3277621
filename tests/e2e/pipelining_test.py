"""Streams: answers by tag, errors in band, prefills and decodes of the same sequences in order."""

import asyncio

import numpy as np
import pytest
from gdn_client import AsyncClient, GdnError, NotFound
from gdn_client.proto import message
from reference import relative_error
from steps import Twins, begin, hidden

STREAM = "/gdn.v1.GdnService/Stream"


def test_a_pipeline_answers_as_single_calls_do(client):
    first, second = (begin(client, name) for name in "ab")
    x, layer = hidden(client, 20, 1), client.info.layers[0]
    with client.stream() as stream:
        futures = [
            stream.decode(layer, client.rows(**first, positions=[3 + i]), x[i : i + 1])
            for i in range(20)
        ]
        outputs = [f.result(60).output for f in futures]
    for i, output in enumerate(outputs):
        assert np.array_equal(
            output, client.decode(layer, client.rows(**second), x[i : i + 1]).output
        )


def test_prefill_and_decode_on_one_stream(client):
    layer, x = client.info.layers[1], hidden(client, 42, 2)
    with client.stream() as stream:
        prefill = stream.prefill(
            layer, client.rows(request_ids=["a"], token_counts=[40], create=True), x[:40]
        )
        decodes = [
            stream.decode(
                layer, client.rows(request_ids=["a"], positions=[40 + i]), x[40 + i :][:1]
            )
            for i in range(2)
        ]
        assert prefill.result(60).slots[0] >= 0 and all(d.result(60).output.any() for d in decodes)
    assert client.get_sequence("a").positions[layer] == 42


def test_errors_are_in_band_and_the_stream_goes_on(client):
    twins = Twins(client, "a")
    x = hidden(client, 1)
    with client.stream() as stream:
        bad = [
            stream.decode(0, client.rows(**twins.handle, positions=[9]), x),
            stream.decode(0, client.rows(request_ids=["nobody"]), x),
            stream.prefill(77, client.rows(**twins.handle), x),
            stream.decode(0, client.rows(**twins.handle), np.full_like(x, np.nan)),
            stream.decode(0, client.rows(**twins.handle), x[:0]),
        ]
        reasons = [f.exception(60).reason for f in bad]
        assert reasons == [
            "POSITION_MISMATCH",
            "SEQUENCE_NOT_FOUND",
            "UNSUPPORTED",
            "NON_FINITE_INPUT",
            "INPUT_SIZE_MISMATCH",
        ]
        assert (
            bad[0].exception().positions == {0: 3}
            and bad[1].exception().instance_id == client.info.instance_id
        )
        assert isinstance(bad[1].exception(), NotFound)
        begin(client, "b")
        assert stream.decode(0, client.rows(request_ids=["b"]), x).result(60).output.any()
    twins.assert_untouched()


def test_tags_are_echoed(client, channel):
    begin(client, "a")
    step = dict(
        layer=0,
        batch=dict(data_type=client.info.data_type, request_ids=["a"]),
        input=hidden(client, 1).tobytes(),
    )
    tags = [0, 1, 2**32, 2**64 - 1, 7]
    kinds = ["decode", "prefill", "decode", "prefill", "decode"]
    requests = [
        message("StreamRequest")(tag=t, **{k: step}).SerializeToString()
        for t, k in zip(tags, kinds)
    ]
    answers = [
        message("StreamResponse").FromString(d)
        for d in channel.stream_stream(STREAM)(iter(requests), timeout=60)
    ]
    assert {a.tag: a.WhichOneof("step") for a in answers} == dict(zip(tags, kinds))
    assert all(a.status.code == 0 for a in answers) and client.get_sequence("a").positions[0] == 8


def test_a_later_step_of_the_oneof_replaces_the_earlier(client, channel):
    begin(client, "a")
    step = dict(
        layer=0,
        batch=dict(data_type=client.info.data_type, request_ids=["a"]),
        input=hidden(client, 1).tobytes(),
    )
    other = message("StreamRequest")(tag=1, prefill=dict(step, layer=77)).SerializeToString()
    request = other + message("StreamRequest")(tag=2, decode=step).SerializeToString()
    (answer,) = channel.stream_stream(STREAM)(iter([request]), timeout=60)
    answer = message("StreamResponse").FromString(answer)
    assert (answer.tag, answer.WhichOneof("step")) == (2, "decode")


def test_an_empty_stream_ends_well(channel):
    assert list(channel.stream_stream(STREAM)(iter([]), timeout=60)) == []


def test_a_cancelled_stream_leaves_whole_steps(client):
    h = begin(client, "a")
    x, layer = hidden(client, 1), client.info.layers[0]
    stream = client.stream()
    rows = [client.rows(**h, positions=[3 + i]) for i in range(30)]
    futures = [stream.decode(layer, r, x) for r in rows]
    futures[0].result(60)
    stream.cancel()
    for r in rows[client.get_sequence("a").positions[layer] - 3 :]:
        client.decode(layer, r, x)
    assert client.get_sequence("a").positions[layer] == 33


def test_asyncio(server):
    async def run():
        async with AsyncClient(server.target, timeout=60) as client:
            layer, names = client.info.layers[0], [f"n{i}" for i in range(6)]
            x = hidden(client, 5)
            rows = [client.rows(request_ids=[n], token_counts=[5], create=True) for n in names]
            whole = await asyncio.gather(*(client.prefill(layer, r, x) for r in rows))
            for answer in whole:
                assert relative_error(answer.output, whole[0].output) < 1e-5
            async with client.stream() as stream:
                steps = [stream.decode(layer, client.rows(request_ids=[n]), x[:1]) for n in names]
                answers = await asyncio.gather(*steps)
                assert all(a.output.shape == (1, x.shape[1]) for a in answers)
                with pytest.raises(GdnError):
                    await stream.decode(
                        layer, client.rows(request_ids=["n0"], positions=[1]), x[:1]
                    )
            assert {s.request_id async for s in client.list_sequences(2)} == set(names)
            assert await client.health() == "SERVING"
            await client.release(names)

    asyncio.run(asyncio.wait_for(run(), 120))
