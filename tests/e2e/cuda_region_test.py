"""Tensors of PyTorch on the server's GPU: the same answers as inline. Skipped without PyTorch, a GPU
or the CUDA backend."""

import numpy as np
import pytest
from gdn_client import Layout
from objects import register
from server_process import SMALL
from steps import Twins, begin, hidden, reason_of


@pytest.fixture(scope="module")
def torch(request):
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available() or request.config.getoption("backend") == "cpu":
        pytest.skip("cuda cannot run here: no GPU for this server")
    return torch


@pytest.fixture(scope="session")
def server(served):
    return served("small", **SMALL, allow_shared_memory=True)


def on_gpu(torch, x: np.ndarray, room: int):
    """A tensor of bytes that begins with x, in the middle of an allocation of PyTorch's."""
    memory = torch.zeros(256 + room, dtype=torch.uint8, device="cuda")[256:]
    memory[: x.nbytes] = torch.from_numpy(np.frombuffer(x.tobytes(), np.uint8).copy()).cuda()
    torch.cuda.synchronize()
    return memory


@pytest.mark.parametrize("method,tokens", [("decode", 1), ("decode", 4), ("prefill", 60)])
@pytest.mark.parametrize("in_place", [True, False])
def test_the_same_answers_as_inline(torch, client, method, tokens, in_place):
    twins = Twins(client, "a")
    x, call = hidden(client, tokens, 1), getattr(client, method)
    rows = [
        client.rows(slots=[slot], epochs=[epoch], positions=[3], token_counts=[tokens])
        for slot, epoch in zip(twins.handles["slots"], twins.handles["epochs"])
    ]
    with client.cuda_region(on_gpu(torch, x, 2 * x.nbytes)) as region:
        place = region.at(0, 0 if in_place else x.nbytes)
        shared = call(client.info.layers[0], rows[0], place)
        inline = call(client.info.layers[0], rows[1], x)
        assert shared.output.is_cuda and shared.output.shape == inline.output.shape
        assert np.array_equal(shared.output.cpu().numpy(), inline.output)
        again = call(client.info.layers[0], rows[0], place)  # a replay
        assert again.replayed_rows == 1
        assert np.array_equal(again.output.cpu().numpy(), inline.output)


def test_several_tensors(torch, client):
    begin(client, "a", "b")
    layout, rng = Layout.QKV_Z_B_A, np.random.default_rng(3)
    g = client.info.geometry
    widths = [g.conv_dim, g.value_size, g.value_heads, g.value_heads]
    tensors = tuple(rng.uniform(-0.5, 0, (2, width)).astype(np.float32) for width in widths)
    joined = np.concatenate([t.reshape(-1) for t in tensors])
    with client.cuda_region(on_gpu(torch, joined, 2 * joined.nbytes)) as region:
        rows = [client.rows(request_ids=[i], token_counts=[2], layout=layout) for i in "ab"]
        shared = client.decode(0, rows[0], region.at(0, joined.nbytes))
        inline = client.decode(0, rows[1], tensors)
        assert np.array_equal(shared.output.cpu().numpy(), inline.output)


def test_non_finite_input_is_found_on_the_device(torch, client):
    begin(client, "a")
    x = hidden(client, 1)
    x[0, 3] = np.nan
    with client.cuda_region(on_gpu(torch, x, 2 * x.nbytes)) as region:
        rows = client.rows(request_ids=["a"])
        assert reason_of(client.decode, 0, rows, region.at(0, x.nbytes)) == "NON_FINITE_INPUT"


def test_beyond_the_tensor(torch, client):
    begin(client, "a")
    x = hidden(client, 1)
    with client.cuda_region(on_gpu(torch, x, x.nbytes)) as region:
        rows = client.rows(request_ids=["a"])
        for place in (region.at(4, 0), region.at(0, 4), region.at(0, 1 << 40)):
            assert reason_of(client.decode, 0, rows, place) == "INPUT_SIZE_MISMATCH"


def test_memory_of_the_host_is_refused(torch, client):
    with pytest.raises(ValueError):
        client.cuda_region(torch.zeros(16))


def test_what_is_no_handle(torch, channel):
    reason = reason_of(register, channel, "r", "", 16, cuda_ipc_handle=b"x" * 64)
    assert reason == "UNSUPPORTED"
