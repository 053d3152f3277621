"""The payloads are what ghz and the server take: framed messages of the generated classes."""

import numpy as np
import payloads
import pytest
from gdn_client import expand_bf16
from gdn_client.proto import message
from google.protobuf.internal import decoder

HIDDEN = 64


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("payloads")
    payloads.write_all(folder, HIDDEN, layer=3)
    return folder


def read(path, name: str) -> list:
    """The messages of a file, which ends where the last one does."""
    data, at, messages = path.read_bytes(), 0, []
    while at < len(data):
        length, at = decoder._DecodeVarint(data, at)
        assert at + length <= len(data)
        messages.append(message(name).FromString(data[at : at + length]))
        assert messages[-1].SerializeToString() == data[at : at + length]
        at += length
    return messages


def assert_finite(request) -> None:
    values = expand_bf16(np.frombuffer(request.input, "<u2"))
    assert np.isfinite(values).all() and 0 < np.abs(values).max() <= 1


def test_decodes(folder):
    requests = read(folder / "decode.bin", "DecodeRequest")
    ids = [request.batch.request_ids[0] for request in requests]
    assert len(set(ids)) == len(ids) == payloads.SEQUENCES
    for request in requests:
        assert request.layer == 3
        assert request.batch.data_type == 1 and request.batch.create
        assert len(request.batch.request_ids) == 1 and not request.batch.token_counts
        assert len(request.input) == HIDDEN * 2
        assert_finite(request)


def test_prefills(folder):
    requests = read(folder / "prefill.bin", "PrefillRequest")
    assert len({request.batch.request_ids[0] for request in requests}) == payloads.PROMPTS
    for request in requests:
        assert request.layer == 3
        assert request.batch.data_type == 1
        assert request.batch.create and request.batch.release_after
        assert list(request.batch.token_counts) == [payloads.PROMPT_TOKENS]
        assert len(request.input) == payloads.PROMPT_TOKENS * HIDDEN * 2
        assert_finite(request)


def test_the_same_bytes_every_time(folder, tmp_path):
    payloads.write_all(tmp_path, HIDDEN, layer=3)
    for name in ("decode.bin", "prefill.bin"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()
