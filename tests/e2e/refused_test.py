"""What is refused on arrival: a typed error that names the rows, and every state as it was."""

import pytest
from gdn_client import NO_RETRY, CallerError, Client, InvalidArgument, MessageTooLarge, NotFound
from gdn_client.proto import message
from steps import Twins, hidden, raw_call, raw_step, reason_of

FAULTS = {
    # name: (reason, fields of the batch that make it wrong, tokens sent)
    "the same slot twice": ("DUPLICATE_ROW", dict(twice=True), 2),
    "the same id twice": (
        "DUPLICATE_ROW",
        dict(request_ids=["a", "a"], slots=None, epochs=None),
        2,
    ),
    "slot at the size of the pool": ("SLOT_OUT_OF_RANGE", dict(slots=[12], epochs=[1]), 1),
    "slot far beyond it": ("SLOT_OUT_OF_RANGE", dict(slots=[2**31 - 1], epochs=[1]), 1),
    "no epochs": ("MALFORMED_BATCH", dict(epochs=None), 1),
    "no rows": ("MALFORMED_BATCH", dict(slots=None, epochs=None), 0),
    "ids and slots": ("MALFORMED_BATCH", dict(request_ids=["a"]), 1),
    "create by slot": ("MALFORMED_BATCH", dict(create=True), 1),
    "too many epochs": ("MALFORMED_BATCH", dict(epochs=[1, 2]), 1),
    "too many positions": ("MALFORMED_BATCH", dict(positions=[3, 3]), 1),
    "too few counts": (
        "MALFORMED_BATCH",
        dict(request_ids=["a", "b"], slots=None, epochs=None, token_counts=[1]),
        1,
    ),
    "speculative": ("UNSUPPORTED", dict(speculative=True), 1),
    "an id with a space": ("MALFORMED_ID", dict(request_ids=["a b"], slots=None, epochs=None), 1),
    "an id that is too long": (
        "MALFORMED_ID",
        dict(request_ids=["a" * 129], slots=None, epochs=None),
        1,
    ),
    "an id that is not ASCII": (
        "MALFORMED_ID",
        dict(request_ids=["ä"], slots=None, epochs=None),
        1,
    ),
    "one byte short": ("INPUT_SIZE_MISMATCH", dict(cut=1), 1),
    "no input": ("INPUT_SIZE_MISMATCH", {}, 0),
    "a token too many": ("INPUT_SIZE_MISMATCH", {}, 2),
    "input for no tokens": ("INPUT_SIZE_MISMATCH", dict(token_counts=[0]), 1),
    "too many rows": ("BATCH_TOO_LARGE", dict(slots=[-1] * 9, epochs=[0] * 9), 9),
    "too many tokens": ("BATCH_TOO_LARGE", dict(token_counts=[97]), 97),
    "counts that overflow": (
        "BATCH_TOO_LARGE",
        dict(slots=[-1] * 2, epochs=[0] * 2, token_counts=[2**32 - 1] * 2),
        1,
    ),
    "unknown data type": ("UNSUPPORTED", dict(data_type=9), 1),
    "no data type": ("UNSUPPORTED", dict(data_type=0), 1),
    "another data type": ("UNSUPPORTED", dict(data_type=1), 1),
    "unknown layout": ("UNSUPPORTED", dict(input_layout=77), 1),
    "negative layout": ("UNSUPPORTED", dict(input_layout=-1), 1),
    "a layer with attention": ("UNSUPPORTED", dict(layer=3), 1),
    "a layer beyond the model": ("UNSUPPORTED", dict(layer=2**32 - 1), 1),
}


@pytest.mark.parametrize("method", ["Decode", "Prefill"])
@pytest.mark.parametrize("name", FAULTS)
def test_static_faults(client, channel, name, method):
    twins = Twins(client, "a")
    reason, change, tokens = FAULTS[name]
    fields = (
        dict(data_type=client.info.data_type, step_id=client.step_id(), **twins.handle) | change
    )
    layer, cut, twice = fields.pop("layer", 0), fields.pop("cut", 0), fields.pop("twice", False)
    if twice:
        fields.update({key: values * 2 for key, values in twins.handle.items()})
    x = hidden(client, tokens).tobytes()
    with pytest.raises(InvalidArgument) as e:
        raw_step(channel, method, layer, x[: len(x) - cut], **fields)
    assert e.value.reason == reason and e.value.instance_id == client.info.instance_id
    if reason == "INPUT_SIZE_MISMATCH":
        assert int(e.value.metadata["actual_bytes"]) == len(x) - cut
    if reason in ("DUPLICATE_ROW", "SLOT_OUT_OF_RANGE", "MALFORMED_ID"):
        assert e.value.rows == {1 if reason == "DUPLICATE_ROW" else 0: reason}
    twins.assert_untouched()
    assert len(list(client.list_sequences())) == 2


def test_decode_takes_few_tokens_a_row(client):
    twins = Twins(client, "a")
    rows = client.rows(**twins.handle, token_counts=[client.info.max_decode_tokens + 1])
    x = hidden(client, client.info.max_decode_tokens + 1)
    assert reason_of(client.decode, 0, rows, x) == "BATCH_TOO_LARGE"
    twins.assert_untouched()
    assert reason_of(client.prefill, 0, rows, x) == "OK"


def test_shared_memory_is_unsupported(client, channel):
    twins = Twins(client, "a")
    batch = dict(data_type=client.info.data_type, **twins.handle)
    request = message("DecodeRequest")(layer=0, batch=batch, shared_memory=dict(region="r"))
    for method in ("Decode", "Prefill"):
        with pytest.raises(InvalidArgument) as e:
            raw_call(channel, f"/gdn.v1.GdnService/{method}", request.SerializeToString())
        assert e.value.reason == "UNSUPPORTED"
    twins.assert_untouched()


def test_a_message_over_the_limit(client):
    twins = Twins(client, "a")
    tokens = client.info.max_message_bytes // (4 * client.info.geometry.hidden_size) + 1
    with pytest.raises(MessageTooLarge) as e:
        client.prefill(
            0, client.rows(**twins.handle, token_counts=[tokens]), hidden(client, tokens)
        )
    assert e.value.reason == "" and isinstance(e.value, CallerError)
    twins.assert_untouched()


def test_many_bad_rows_fit_into_the_error(served):
    """Details travel in trailers of at most 8 KiB: the first 512 rows are named."""
    server = served("small", slots=2, max_rows=2000, max_tokens=2000, max_decode_tokens=1)
    with Client(server.target, retry=NO_RETRY) as client, pytest.raises(NotFound) as e:
        client.decode(
            0, client.rows(request_ids=[f"r{i}" for i in range(2000)]), hidden(client, 2000)
        )
    assert e.value.rows == dict.fromkeys(range(512), "SEQUENCE_NOT_FOUND")
