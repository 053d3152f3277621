"""Tensors in shared memory: the same answers as inline, and nothing that their owner does to them
harms the server or anybody else."""

import os
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest
from gdn_client import NO_RETRY, Client, InvalidArgument, Layout
from gdn_client.layout import input_tensors
from gdn_client.proto import message
from objects import SharedObject, register, unregister
from server_process import SMALL
from steps import Twins, begin, floats, hidden, raw_call, reason_of

SIZE = 1 << 16
OUT = SIZE // 2
MOST = 2**64 - 1


@pytest.fixture(scope="session")
def server(served):
    return served("small", **SMALL, allow_shared_memory=True)


@pytest.fixture
def region(client):
    with client.region(SIZE) as region:
        yield region


def put(region, x: np.ndarray, offset: int = 0) -> None:
    region.array(x.shape, x.dtype, offset)[:] = x


@pytest.mark.parametrize("method,tokens", [("decode", 1), ("decode", 4), ("prefill", 60)])
@pytest.mark.parametrize("output", [OUT, 0])
def test_the_same_answers_as_inline(client, region, method, tokens, output):
    twins = Twins(client, "a")
    layer, x, call = client.info.layers[0], hidden(client, tokens, 1), getattr(client, method)
    rows = [
        client.rows(slots=[slot], epochs=[epoch], positions=[3], token_counts=[tokens])
        for slot, epoch in zip(twins.handles["slots"], twins.handles["epochs"])
    ]
    put(region, x)
    shared = call(layer, rows[0], region.at(0, output))
    inline = call(layer, rows[1], x)
    assert np.array_equal(shared.output, inline.output) and shared.slots is None
    assert np.array_equal(region.array(x.shape, x.dtype, output), inline.output)


@pytest.mark.parametrize("layout", list(Layout), ids=lambda layout: layout.name)
def test_every_layout(client, region, layout):
    begin(client, "a", "b")
    kinds = input_tensors(client.info.geometry, layout, client.info.data_type)
    rng = np.random.default_rng(3)
    x = tuple(rng.uniform(-0.5, 0, (2, width)).astype(np.float32) for width, _ in kinds)
    at = 0
    for tensor in x:
        put(region, tensor, at)
        at += tensor.nbytes
    answers = [
        client.decode(0, client.rows(request_ids=[i], token_counts=[2], layout=layout), tensors)
        for i, tensors in (("a", x), ("b", region.at(0, OUT)))
    ]
    assert np.array_equal(answers[0].output, answers[1].output) and answers[0].output.any()
    assert answers[1].slots == client.get_sequence("b").slot


def test_sixteen_bits(served):
    server = served("r3", slots=4, max_rows=4, max_tokens=64, allow_shared_memory=True)
    with Client(server.target, retry=NO_RETRY, timeout=60) as client, client.region(SIZE) as region:
        begin(client, "a", "b")
        x = client.decode(0, client.rows(request_ids=["a"]), hidden(client, 1)).output
        put(region, x)
        shared = client.decode(0, client.rows(request_ids=["a"]), region.at(0, OUT))
        client.decode(0, client.rows(request_ids=["b"]), hidden(client, 1))
        inline = client.decode(0, client.rows(request_ids=["b"]), x)
        assert np.array_equal(floats(shared.output), floats(inline.output))


def test_large_tensors(served):
    """Of a size that a device copies by itself; in one batch with an inline one."""
    tokens = 1000
    flags = dict(slots=4, max_rows=4, max_tokens=4 * tokens, allow_shared_memory=True)
    server = served("small", **flags)
    with Client(server.target, retry=NO_RETRY, timeout=60) as client:
        x = hidden(client, tokens)
        with client.region(4 * x.nbytes) as region:
            begin(client, "a", "b")
            put(region, x, 128)
            rows = [client.rows(request_ids=[i], token_counts=[tokens]) for i in "ab"]
            place = region.at(128, 2 * x.nbytes)
            for replayed in (0, 1):
                region.array((x.nbytes,), np.uint8, 2 * x.nbytes)[:] = 0
                shared, inline = client.prefill(0, rows[0], place), client.prefill(0, rows[1], x)
                assert np.array_equal(shared.output, inline.output) and shared.output.any()
                assert shared.replayed_rows == replayed
            with client.stream() as stream:
                both = [
                    client.rows(request_ids=[i], token_counts=[tokens], positions=[tokens + 3])
                    for i in "ab"
                ]
                shared = stream.prefill(0, both[0], place)
                inline = stream.prefill(0, both[1], x)
                assert np.allclose(shared.result(60).output, inline.result(60).output, atol=1e-5)
            client.release(["a", "b"])


def test_padding_is_zero(client, region):
    begin(client, "a")
    put(region, hidden(client, 3))
    region.array((SIZE - OUT,), np.uint8, OUT)[:] = 0xEE
    answer = client.decode(0, client.rows(request_ids=["", "a", ""]), region.at(0, OUT))
    assert not answer.output[[0, 2]].any() and answer.output[1].any()
    end = OUT + answer.output.nbytes
    assert (region.array((SIZE - end,), np.uint8, end) == 0xEE).all()


def test_replay_by_either_way(client, region):
    h, x = begin(client, "a"), hidden(client, 1)
    rows = client.rows(**h, positions=[3])
    put(region, x)
    first = client.decode(0, rows, region.at(0, OUT)).output.copy()
    region.array((SIZE,), np.uint8)[:] = 0
    again = client.decode(0, rows, region.at(0, OUT))
    assert again.replayed_rows == 1 and np.array_equal(again.output, first)
    inline = client.decode(0, rows, x)
    assert inline.replayed_rows == 1 and np.array_equal(inline.output, first)


def test_a_discarded_output_leaves_the_region_as_it_is(client, region):
    begin(client, "a")
    put(region, hidden(client, 1))
    region.array((SIZE - OUT,), np.uint8, OUT)[:] = 0xEE
    rows = client.rows(request_ids=["a"], discard_output=True)
    assert len(client.decode(0, rows, region.at(0, OUT)).output) == 0
    assert (region.array((SIZE - OUT,), np.uint8, OUT) == 0xEE).all()
    rows = client.rows(request_ids=["a"], discard_output=True)
    client.decode(0, rows, region.at(0, MOST))


def test_synthetic_input_goes_to_the_region(client, region):
    begin(client, "a", "b")
    shared = client.decode(
        0, client.rows(request_ids=["a"]), region.at(MOST, OUT), synthetic_seed=5
    )
    inline = client.decode(0, client.rows(request_ids=["b"]), synthetic_seed=5)
    assert np.array_equal(shared.output, inline.output) and shared.output.any()


def test_a_stream(client, region):
    begin(client, "a", "b")
    x = hidden(client, 2)
    put(region, x)
    with client.stream() as stream:
        step = region.at(0, OUT)
        shared = stream.prefill(0, client.rows(request_ids=["a"], token_counts=[2]), step)
        inline = stream.prefill(0, client.rows(request_ids=["b"], token_counts=[2]), x)
        assert np.array_equal(shared.result(60).output, inline.result(60).output)


def test_non_finite_input_is_named(client, region):
    begin(client, "a", "b")
    x = hidden(client, 2)
    x[1, 5] = np.nan
    put(region, x)
    with pytest.raises(InvalidArgument) as e:
        client.decode(0, client.rows(request_ids=["a", "b"]), region.at(0, OUT))
    assert e.value.rows == {1: "NON_FINITE_INPUT"}


@pytest.mark.parametrize("beyond", [SIZE - 255, SIZE, 1 << 63, MOST - 255, MOST - 256, MOST])
def test_offsets_that_leave_the_region(client, region, beyond):
    twins = Twins(client, "a")
    rows = client.rows(**twins.handle)
    for place in (region.at(beyond, 0), region.at(0, beyond)):
        assert reason_of(client.decode, 0, rows, place) == "INPUT_SIZE_MISMATCH"
    twins.assert_untouched()


def test_tensors_that_overlap(client, region):
    twins = Twins(client, "a")
    for place in (region.at(0, 255), region.at(1, 0)):
        assert reason_of(client.decode, 0, client.rows(**twins.handle), place) == "MALFORMED_BATCH"
    twins.assert_untouched()
    client.decode(0, client.rows(**twins.handle), region.at(256, 0))


def test_a_region_that_is_not_there(client, channel):
    twins = Twins(client, "a")
    batch = dict(data_type=client.info.data_type, **twins.handle)
    for place in ({}, dict(region="nobody's"), dict(region="x" * 1000)):
        step = message("DecodeRequest")(layer=0, batch=batch, shared_memory=place)
        data = step.SerializeToString()
        assert reason_of(raw_call, channel, "/gdn.v1.GdnService/Decode", data) == "REGION_NOT_FOUND"
    twins.assert_untouched()


def test_an_input_beside_the_region(client, channel, region):
    twins = Twins(client, "a")
    batch = dict(data_type=client.info.data_type, **twins.handle)
    place = dict(region=region.name, output_offset=OUT)
    step = message("DecodeRequest")(
        layer=0, batch=batch, shared_memory=place, input=hidden(client, 1).tobytes()
    )
    data = step.SerializeToString()
    assert reason_of(raw_call, channel, "/gdn.v1.GdnService/Decode", data) == "INPUT_SIZE_MISMATCH"
    twins.assert_untouched()


def test_what_is_refused_at_registration(client, channel):
    with SharedObject(4096) as mine, SharedObject(4096, prefix="other") as foreign:
        refused = [
            ("REGION_DENIED", ("r", foreign.name, 4096)),
            ("REGION_DENIED", ("r", "/gdn/../other", 4096)),
            ("REGION_DENIED", ("r", "", 4096)),
            ("REGION_NOT_FOUND", ("r", "/gdn-nobody-made-it", 4096)),
            ("INPUT_SIZE_MISMATCH", ("r", mine.name, 4097)),
            ("INPUT_SIZE_MISMATCH", ("r", mine.name, 0)),
            ("INPUT_SIZE_MISMATCH", ("r", mine.name, MOST)),
            ("MALFORMED_ID", ("", mine.name, 4096)),
            ("MALFORMED_ID", ("a b", mine.name, 4096)),
            ("OK", ("r", mine.name, 4096)),
            ("ID_IN_USE", ("r", mine.name, 4096)),
        ]
        for reason, arguments in refused:
            assert reason_of(register, channel, *arguments) == reason, arguments
        for _ in range(2):  # one that is not there is no error
            unregister(channel, "r")
        unknown = dict(cuda_ipc_handle=b"\0" * 64)
        assert reason_of(register, channel, "r", "", 4096, **unknown) == "UNSUPPORTED"
        assert reason_of(unregister, channel, "") == "MALFORMED_ID"


def test_a_huge_sparse_object(client, channel):
    with SharedObject(4096) as sparse:
        sparse.truncate(1 << 62)
        assert reason_of(register, channel, "huge", sparse.name, 1 << 62) == "UNSUPPORTED"
        sparse.truncate(1 << 40)  # address space, not memory
        assert reason_of(register, channel, "huge", sparse.name, 1 << 40) == "OK"
        unregister(channel, "huge")


def decode_raw(channel, client, handle, region, input_offset=0, output_offset=OUT):
    place = dict(region=region, input_offset=input_offset, output_offset=output_offset)
    batch = dict(data_type=client.info.data_type, **handle)
    step = message("DecodeRequest")(layer=0, batch=batch, shared_memory=place)
    return raw_call(channel, "/gdn.v1.GdnService/Decode", step.SerializeToString())


@pytest.mark.parametrize("left", [0, 100, OUT])
def test_a_truncated_region(client, channel, left):
    twins = Twins(client, "a")
    with SharedObject(SIZE) as mine:
        register(channel, "r", mine.name, SIZE)
        mine.truncate(left)
        step = (decode_raw, channel, client, twins.handle, "r")
        assert reason_of(*step) == "INPUT_SIZE_MISMATCH"
        twins.assert_untouched()
        unregister(channel, "r")


def test_truncated_while_steps_run(client, channel):
    """Whatever the moment, a step is answered, and the server and everybody else go on."""
    twins = Twins(client, "a")
    handle = begin(client, "b")
    for _ in range(30):
        with SharedObject(SIZE) as mine:
            register(channel, "r", mine.name, SIZE)
            cut = threading.Thread(target=mine.truncate, args=(0,))
            cut.start()
            for _ in range(3):
                assert reason_of(decode_raw, channel, client, handle, "r") in (
                    "OK",
                    "INPUT_SIZE_MISMATCH",
                )
            cut.join()
            unregister(channel, "r")
    twins.assert_untouched()


def test_scribbled_over_while_steps_run(client, region):
    """It harms who does it at most: numbers that are none, or a state that has overflowed."""
    twins = Twins(client, "a")
    handle = begin(client, "b")
    stop = threading.Event()
    everything = region.array((SIZE,), np.uint8)

    def scribble():
        rng = np.random.default_rng(1)
        while not stop.is_set():
            everything[:] = rng.integers(0, 256, SIZE, np.uint8)

    thread = threading.Thread(target=scribble)
    thread.start()
    for _ in range(100):
        reason = reason_of(client.decode, 0, client.rows(**handle), region.at(0, OUT))
        assert reason in ("OK", "NON_FINITE_INPUT", "STATE_POISONED")
    stop.set()
    thread.join()
    twins.assert_untouched()


def test_unregistered_while_a_step_uses_it(client, channel):
    """The step ends as it would have; the call is answered when it has."""
    tokens = client.info.max_tokens
    begin(client, "a", "b")
    x = hidden(client, tokens)
    with client.region(2 * x.nbytes) as region:
        put(region, x)
        place = region.at(0, x.nbytes)
        rows = [client.rows(request_ids=[i], token_counts=[tokens]) for i in "ab"]
        outcome = []
        thread = threading.Thread(
            target=lambda: outcome.append(reason_of(client.prefill, 0, rows[0], place))
        )
        thread.start()
        unregister(channel, region.name)
        output = place.output(x.nbytes, client.info.data_type, x.shape[1]).tobytes()
        thread.join()
        if outcome == ["OK"]:  # it was there in time, and had ended before the call was answered
            assert output == client.prefill(0, rows[1], x).output.tobytes()
        else:
            assert outcome == ["REGION_NOT_FOUND"]


CHILD = """
import sys
from gdn_client import Client
with Client(sys.argv[1]) as client:
    region = client.region(4096)
    print(region.name, flush=True)
    sys.stdin.read()
"""


def test_the_region_of_a_killed_client_stays_until_it_is_unregistered(server, client, channel):
    command = [sys.executable, "-c", CHILD, server.target]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        name = child.stdout.readline().decode().strip()
        os.kill(child.pid, signal.SIGKILL)
    with SharedObject(4096) as mine:
        assert reason_of(register, channel, name, mine.name, 4096) == "ID_IN_USE"
        unregister(channel, name)
        assert reason_of(register, channel, name, mine.name, 4096) == "OK"
        unregister(channel, name)


def test_another_prefix(served):
    server = served("small", slots=2, allow_shared_memory=True, shared_memory_prefix="mine.")
    with Client(server.target, retry=NO_RETRY, timeout=60) as client:
        assert reason_of(client.region, 4096) == "REGION_DENIED"
        client.region(4096, prefix="mine.x").close()


def test_without_the_flag_there_is_none(served):
    server = served("small", **SMALL)
    with Client(server.target, retry=NO_RETRY, timeout=60) as client:
        assert reason_of(client.region, 4096) == "UNIMPLEMENTED"
        assert reason_of(client.ring) == "UNIMPLEMENTED"
