"""What each call does to a sequence that is absent, expired, or live with 3 tokens at every
layer."""

import itertools

import grpc
import numpy as np
import pytest
from gdn_client import NO_RETRY, Client, GdnError, NotFound
from gdn_client.proto import message
from server_process import poll
from steps import Twins, begin, hidden, raw_call, reason_of

OK, NF, EX, PM = "OK", "SEQUENCE_NOT_FOUND", "SEQUENCE_EXPIRED", "POSITION_MISMATCH"
SEQUENCES = "/gdn.v1.SequenceService/"


@pytest.fixture(scope="module")
def server(served):
    """Leases are short here; sequences that are to live are renewed."""
    return served(
        "small", slots=40, max_rows=40, max_tokens=256, max_decode_tokens=4, step_ttl="500ms"
    )


@pytest.fixture(scope="module")
def client(server):
    with Client(server.target, retry=NO_RETRY, timeout=60) as client:
        yield client
    assert server.alive


def begin_live(client, name, tokens=3):
    """As begin, with a lease of an hour."""
    while True:
        handle = begin(client, name, tokens=tokens)
        if not client.renew([name], ttl=3600).missing:
            return handle


@pytest.fixture(scope="module")
def expired(client):
    """Draws (name, handle) of sequences whose lease has ended."""
    names = [f"expired-{i}" for i in range(36)]
    handles = begin(client, *names)
    poll(lambda: all(reason_of(client.get_sequence, name) == EX for name in names))
    each = [{key: values[i : i + 1] for key, values in handles.items()} for i in range(len(names))]
    return iter(zip(names, each))


counter = itertools.count()


@pytest.fixture(params=["absent", "expired", "live"])
def subject(request, client):
    """(state, name, slots and epochs of its life, the live one's last step_id)"""
    state, name = request.param, f"subject-{next(counter)}"
    if state == "expired":
        name, handle = next(request.getfixturevalue("expired"))
    else:
        handle = begin_live(client, name)
    if state == "absent":
        client.release([name])
    yield state, name, handle
    client.release([name])


def step(client, tokens=1, method="decode", layer=0, **fields):
    rows = client.rows(**fields)
    return reason_of(getattr(client, method), layer, rows, hidden(client, tokens))


CALLS = {
    # name: (call, {state: reason})
    "create, position 0": (
        lambda c, n, h: step(c, request_ids=[n], create=True, positions=[0]),
        (OK, OK, PM),
    ),
    "create, append": (lambda c, n, h: step(c, request_ids=[n], create=True), (OK, OK, OK)),
    "create, position 3": (
        lambda c, n, h: step(c, request_ids=[n], create=True, positions=[3]),
        (NF, EX, OK),
    ),
    "create, epoch": (
        lambda c, n, h: step(c, request_ids=[n], create=True, epochs=h["epochs"]),
        (NF, EX, OK),
    ),
    "id, append": (lambda c, n, h: step(c, request_ids=[n]), (NF, EX, OK)),
    "id, position 3": (lambda c, n, h: step(c, request_ids=[n], positions=[3]), (NF, EX, OK)),
    "id, position 1": (lambda c, n, h: step(c, request_ids=[n], positions=[1]), (NF, EX, PM)),
    "id, position 0": (lambda c, n, h: step(c, request_ids=[n], positions=[0]), (NF, EX, PM)),
    "id, epoch": (lambda c, n, h: step(c, request_ids=[n], epochs=h["epochs"]), (NF, EX, OK)),
    "id, other epoch": (
        lambda c, n, h: step(c, request_ids=[n], epochs=[h["epochs"][0] + 7]),
        (NF, EX, NF),
    ),
    "slot, append": (lambda c, n, h: step(c, **h), (NF, EX, OK)),
    "slot, position 3": (lambda c, n, h: step(c, positions=[3], **h), (NF, EX, OK)),
    "slot, position 9": (lambda c, n, h: step(c, positions=[9], **h), (NF, EX, PM)),
    "slot, other epoch": (lambda c, n, h: step(c, slots=h["slots"], epochs=[12345]), (NF, NF, NF)),
    "slot, epoch 0": (lambda c, n, h: step(c, slots=h["slots"], epochs=[0]), (NF, NF, NF)),
    "0 tokens": (lambda c, n, h: step(c, 0, token_counts=[0], **h), (NF, EX, OK)),
    "0 tokens, position 3": (
        lambda c, n, h: step(c, 0, token_counts=[0], positions=[3], **h),
        (NF, EX, OK),
    ),
    "0 tokens, position 2": (
        lambda c, n, h: step(c, 0, token_counts=[0], positions=[2], **h),
        (NF, EX, PM),
    ),
    "0 tokens, create": (
        lambda c, n, h: step(c, 0, token_counts=[0], request_ids=[n], create=True),
        (OK, OK, OK),
    ),
    "prefill, append": (lambda c, n, h: step(c, 5, "prefill", token_counts=[5], **h), (NF, EX, OK)),
    "release_after": (lambda c, n, h: step(c, release_after=True, **h), (NF, EX, OK)),
    "get": (lambda c, n, h: reason_of(c.get_sequence, n), (NF, EX, OK)),
    "renew, missing": (lambda c, n, h: len(c.renew([n], ttl=60).missing), (1, 1, 0)),
    "release": (lambda c, n, h: reason_of(c.release, [n]), (OK, OK, OK)),
    "release, other epoch": (lambda c, n, h: reason_of(c.release, [n], [5]), (OK, OK, OK)),
}


@pytest.mark.parametrize("name", CALLS)
def test_table(client, subject, name):
    state, request_id, handle = subject
    call, expected = CALLS[name]
    assert call(client, request_id, handle) == expected[("absent", "expired", "live").index(state)]


@pytest.mark.parametrize("name", CALLS)
def test_positions_after(client, name):
    """What is refused folds nothing, what is done folds its tokens, and only at its layer."""
    request_id = f"positions-{next(counter)}"
    handle = begin_live(client, request_id)
    call, (_, _, expected) = CALLS[name]
    call(client, request_id, handle)
    if name in ("release", "release_after"):
        assert reason_of(client.get_sequence, request_id) == NF
        return
    folds = (
        0 if expected != OK or "0 tokens" in name or name in ("get", "release, other epoch") else 1
    )
    folds *= 5 if "prefill" in name else 1
    first, *others = client.info.layers
    assert client.get_sequence(request_id).positions == {
        first: 3 + folds,
        **dict.fromkeys(others, 3),
    }
    client.release([request_id])


def test_a_new_life_has_a_new_epoch_and_an_empty_state(client):
    name = f"again-{next(counter)}"
    first = begin_live(client, name, tokens=8)
    client.release([name])
    second = begin_live(client, name, tokens=8)
    assert second["slots"] == first["slots"], "the slot freed last is taken first"
    assert second["epochs"] != first["epochs"]
    x, layer = hidden(client, 1), client.info.layers[0]
    late = client.rows(**first, positions=[8])
    assert reason_of(client.decode, layer, late, x) == NF
    fresh = begin_live(client, f"{name}-fresh", tokens=8)
    outputs = [client.decode(layer, client.rows(**h), x).output for h in (second, fresh)]
    assert np.array_equal(*outputs)
    client.release([name, f"{name}-fresh"])


def test_mismatch_says_the_position_of_its_layer(client):
    name, (first, second, *_) = f"where-{next(counter)}", client.info.layers
    handle = begin_live(client, name)
    client.decode(second, client.rows(**handle), hidden(client, 1))
    for layer, position in ((first, 3), (second, 4)):
        with pytest.raises(GdnError) as e:
            client.decode(layer, client.rows(**handle, positions=[77]), hidden(client, 1))
        assert e.value.positions == {0: position} and e.value.rows == {0: PM}
        assert e.value.instance_id == client.info.instance_id
    client.release([name])


def test_release_takes_only_its_own_epoch(client):
    name = f"epoch-{next(counter)}"
    handle = begin_live(client, name)
    client.release([name], [handle["epochs"][0] + 1])
    assert client.get_sequence(name).epoch == handle["epochs"][0]
    client.release([name], handle["epochs"])
    with pytest.raises(NotFound):
        client.get_sequence(name)


LATER = {
    "ForkSequences": (
        "ForkSequencesRequest",
        dict(forks=[dict(request_id="x", child_request_id="kid")]),
    ),
    "CheckpointSequence": ("CheckpointSequenceRequest", dict(request_id="x", checkpoint_id="c")),
    "RestoreSequence": ("RestoreSequenceRequest", dict(request_id="x", checkpoint_id="c")),
}


@pytest.mark.parametrize("method", LATER)
def test_copies_are_unimplemented(client, server, method):
    twins = Twins(client, f"copies-{next(counter)}")
    client.renew([s.request_id for s in twins.before], ttl=3600)
    kind, fields = LATER[method]
    fields = {k: twins.name if v == "x" else v for k, v in fields.items()}
    if method == "ForkSequences":
        fields["forks"][0]["request_id"] = twins.name
    with grpc.insecure_channel(server.target) as channel, pytest.raises(GdnError) as e:
        raw_call(channel, SEQUENCES + method, message(kind)(**fields).SerializeToString())
    assert e.value.code == grpc.StatusCode.UNIMPLEMENTED
    twins.assert_untouched()
    client.release([s.request_id for s in twins.before])


def test_export_and_import_are_unimplemented(server):
    with grpc.insecure_channel(server.target) as channel:
        for call in (
            channel.unary_stream(SEQUENCES + "ExportSequence")(b"", timeout=60),
            channel.stream_unary(SEQUENCES + "ImportSequence").future(iter([b""]), timeout=60),
        ):
            assert call.code() == grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("method", ["RegisterSharedMemory", "UnregisterSharedMemory"])
def test_shared_memory_is_not_registered(server, method):
    with grpc.insecure_channel(server.target) as channel, pytest.raises(GdnError) as e:
        raw_call(channel, f"/gdn.v1.SharedMemoryService/{method}", b"")
    assert e.value.code == grpc.StatusCode.UNIMPLEMENTED
