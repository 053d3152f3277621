"""What the end-to-end tests have in common: inputs, raw calls, and twins that show whether a state
changed."""

from __future__ import annotations

import grpc
import numpy as np
from gdn_client import Client, DataType, GdnError, expand_bf16, to_wire
from gdn_client.errors import from_rpc_error
from gdn_client.proto import message

TOLERANCE = {DataType.FP32: 1e-5, DataType.FP16: 4e-3, DataType.BF16: 2e-2}


def rounded(x: np.ndarray, dtype: DataType) -> np.ndarray:
    """The float32 values of `x` as a server of `dtype` gets them."""
    wire = to_wire(x, dtype)
    return expand_bf16(wire) if wire.dtype == np.uint16 else wire.astype(np.float32)


def hidden(client: Client, tokens: int, seed: int = 0) -> np.ndarray:
    """Random hidden states, in values that the server's type has."""
    x = np.random.default_rng(seed).standard_normal((tokens, client.info.geometry.hidden_size))
    return rounded(x.astype(np.float32), client.info.data_type)


def floats(output: np.ndarray) -> np.ndarray:
    return output.astype(np.float32)


def reason_of(call, *arguments, **keywords) -> str:
    """ "OK", or the reason of the error that `call` raises (its code, where gRPC made it)."""
    try:
        call(*arguments, **keywords)
    except GdnError as e:
        return e.reason or e.code.name
    return "OK"


def raw_call(channel: grpc.Channel, path: str, request: bytes, timeout: float = 60) -> bytes:
    """A unary call of any bytes. Raises GdnError."""
    try:
        return channel.unary_unary(path)(request, timeout=timeout)
    except grpc.RpcError as e:
        raise from_rpc_error(e) from None


def raw_step(channel: grpc.Channel, method: str, layer: int = 0, input: bytes = b"", **fields):
    """A step with any Batch fields. -> DecodeResponse; raises GdnError."""
    request = message("DecodeRequest")(layer=layer, input=input, batch=fields).SerializeToString()
    return message("DecodeResponse").FromString(
        raw_call(channel, f"/gdn.v1.GdnService/{method}", request)
    )


def begin(client: Client, *ids: str, tokens: int = 3, seed: int = 0, layers=None) -> dict:
    """Begins sequences with the same tokens at every layer; -> slots and epochs, the fast form."""
    x = np.tile(hidden(client, tokens, seed), (len(ids), 1))
    answer = None
    for layer in layers or client.info.layers:
        rows = client.rows(request_ids=ids, token_counts=[tokens] * len(ids), create=answer is None)
        answer = client.prefill(layer, rows, x)
    return dict(slots=answer.slots.tolist(), epochs=answer.epochs.tolist())


class Twins:
    """Two sequences with the same tokens. Calls that must change nothing are made on the first;
    then both take the same step, and their answers must be the same bits."""

    def __init__(self, client: Client, name: str, tokens: int = 3):
        self.client, self.name, self.seed = client, name, 100
        both = (name, f"{name}-twin")
        begun = [begin(client, i, tokens=tokens, seed=7) for i in both]  # alone: to the same bits
        self.handles = {key: begun[0][key] + begun[1][key] for key in ("slots", "epochs")}
        self.before = [client.get_sequence(i) for i in both]

    @property
    def handle(self) -> dict:
        """slots and epochs of the first."""
        return {key: values[:1] for key, values in self.handles.items()}

    @property
    def position(self) -> int:
        return self.before[0].positions[self.client.info.layers[0]]

    def assert_untouched(self) -> None:
        """The first is exactly where it was, and so is its state."""
        for was in self.before:
            now = self.client.get_sequence(was.request_id)
            assert (now.positions, now.epoch, now.slot, now.poisoned) == (
                was.positions,
                was.epoch,
                was.slot,
                False,
            )
        self.seed += 1
        for layer in self.client.info.layers:
            a, b = (self._decode(i, layer) for i in (0, 1))
            assert np.array_equal(a, b), f"layer {layer}: the state of {self.name} changed"
        self.before = [self.client.get_sequence(s.request_id) for s in self.before]

    def _decode(self, i: int, layer: int) -> np.ndarray:
        rows = self.client.rows(
            slots=self.handles["slots"][i : i + 1], epochs=self.handles["epochs"][i : i + 1]
        )
        return self.client.decode(layer, rows, hidden(self.client, 1, self.seed)).output
