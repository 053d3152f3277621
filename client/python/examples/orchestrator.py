"""A small orchestrator: chunked prefill and padded, continuously batched decode of several requests
over all GDN layers of a server. Every answer is compared with a computation of the same layers in
numpy.

    python orchestrator.py --target=127.0.0.1:50051 --model=DIR

The rest of the model (embedding, attention, MLP, sampling) is stood in for by a map of each token:
its state is the orchestrator's own business. On the way an answer is "lost" and asked for again,
and a row goes NaN.
"""

from __future__ import annotations

import argparse
import sys

import numpy as np
from gdn_client import (
    PAD_SLOT,
    Answer,
    Client,
    DataType,
    GdnError,
    Keeper,
    Rows,
    StateLost,
    expand_bf16,
    to_wire,
)
from reference import load_layers, relative_error

BATCH, CHUNK, VOCABULARY = 4, 24, 64
TOLERANCE = {DataType.FP32: 1e-5, DataType.FP16: 5e-3, DataType.BF16: 2e-2}


class LocalParts:
    """All of the model that is not a GDN layer, with random weights."""

    def __init__(self, hidden: int, layers: int):
        rng = np.random.default_rng(1)
        self.embedding = rng.standard_normal((VOCABULARY, hidden)).astype(np.float32)
        self.mix = rng.standard_normal((layers, hidden, 8), np.float32) / hidden**0.5

    @staticmethod
    def norm(x: np.ndarray) -> np.ndarray:
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-6)

    def attention_and_mlp(self, layer: int, x: np.ndarray) -> np.ndarray:
        return x + 0.1 * np.tanh(x @ self.mix[layer]) @ self.mix[layer].T

    def next_token(self, x: np.ndarray) -> int:
        return int((self.norm(x) @ self.embedding.T).argmax())


class Request:
    """A prompt to be continued by `wanted` tokens."""

    def __init__(self, name: str, prompt: list[int], wanted: int, layers: tuple[int, ...]):
        self.name, self.tokens, self.length = name, prompt, len(prompt) + wanted
        self.inputs = {layer: [None] * self.length for layer in layers}  # of each position, as sent
        self.outputs = {
            layer: [None] * self.length for layer in layers
        }  # of each position, as answered
        self.forget()

    def forget(self) -> None:
        """The state is not there: all tokens are to be folded in again."""
        self.folded, self.slot, self.epoch = 0, PAD_SLOT, 0

    @property
    def done(self) -> bool:
        return self.folded == self.length - 1

    @property
    def prefilled(self) -> bool:
        """It has begun, and all tokens but the last are folded in; that one is the next to
        decode."""
        return self.slot != PAD_SLOT and self.folded >= len(self.tokens) - 1

    def record(self, layer: int, x: np.ndarray, y: np.ndarray) -> None:
        for i in range(len(x)):
            self.inputs[layer][self.folded + i] = x[i]
            self.outputs[layer][self.folded + i] = np.asarray(y[i], np.float32)


class Orchestrator:
    """Steps requests in a batch of BATCH rows: row i is batch[i], or padding where that is None."""

    def __init__(self, client: Client, keeper: Keeper, local: LocalParts, depth: int):
        self.client, self.keeper, self.local, self.depth = client, keeper, local, depth
        self.gdn, self.type = set(client.info.layers), client.info.data_type
        self.waiting: list[Request] = []
        self.batch: list[Request | None] = [None] * BATCH
        self.decodes = 0
        self.lose_answer_at = self.poison_at = -1  # number of a decode
        self.events: list[str] = []

    def run(self, requests: list[Request]) -> None:
        self.waiting = list(requests)
        while self.waiting or any(self.batch):
            for i, r in enumerate(self.batch):
                if r is None and self.waiting:
                    self.batch[i] = self.waiting.pop(0)
                    self.events.append(f"{self.batch[i].name} joins in row {i}")
            self.prefill([r for r in self.batch if r and not r.prefilled])
            self.decode([r if r and r.prefilled and not r.done else None for r in self.batch])
            for i, r in enumerate(self.batch):
                if r and r.done:
                    self.end(r)
                    self.batch[i] = None
                    self.events.append(f"{r.name} leaves with {r.length - 1} tokens folded in")

    def end(self, r: Request) -> None:
        self.keeper.discard([r.name])
        self.client.release([r.name])

    def prefill(self, requests: list[Request]) -> None:
        """Folds the next chunk of each prompt in, all in one batch of rows of different lengths.

        The chunk of a prompt of one token is empty: it only begins the sequence."""
        if not requests:
            return
        counts = [min(CHUNK, len(r.tokens) - 1 - r.folded) for r in requests]
        tokens = [t for r, n in zip(requests, counts) for t in r.tokens[r.folded : r.folded + n]]
        fields = dict(
            step_id=self.client.step_id(),
            positions=[r.folded for r in requests],
            token_counts=counts,
        )
        rows = self.client.rows(request_ids=[r.name for r in requests], create=True, **fields)
        self.run_pass("prefill", requests, counts, rows, self.local.embedding[tokens], fields)

    def decode(self, requests: list[Request | None]) -> None:
        """Folds one token into each request, padding rows between them."""
        if not any(requests):
            return
        x = np.zeros((BATCH, self.local.embedding.shape[1]), np.float32)
        for i, r in enumerate(requests):
            if r:
                x[i] = self.local.embedding[r.tokens[r.folded]]
        rows = self.client.rows(
            slots=[r.slot if r else PAD_SLOT for r in requests],
            epochs=[r.epoch if r else 0 for r in requests],
            positions=[r.folded if r else 0 for r in requests],
        )
        self.decodes += 1
        x = self.run_pass("decode", requests, [1] * BATCH, rows, x, None)
        for r, row in zip(requests, x):
            if r and len(r.tokens) == r.folded:
                r.tokens.append(self.local.next_token(row))

    def run_pass(
        self, method: str, requests: list, counts: list[int], rows: Rows, x, fields
    ) -> np.ndarray:
        """Runs x [tokens, hidden] through the model. A request whose row fails is padding from
        there on.

        `rows` serve every layer; those of a prefill are by id, and after its first layer by slot
        with `fields`.
        """
        at = np.concatenate([[0], np.cumsum(counts)])
        failed: dict[int, GdnError] = {}
        for layer in range(self.depth):
            if layer not in self.gdn:
                x = self.local.attention_and_mlp(layer, x)
                continue
            y, sent, answer, rows = self.step(
                method, layer, rows, self.local.norm(x), failed, requests
            )
            if answer.slots is not None:
                rows = self.begun(requests, answer, fields).padded(failed)
            for i, r in enumerate(requests):
                if r and i not in failed:
                    r.record(layer, sent[at[i] : at[i + 1]], y[at[i] : at[i + 1]])
            x = x + y
        for i, r in enumerate(requests):
            if r and i not in failed:
                r.folded += counts[i]
            elif r:
                self.recover(r, failed[i])
                requests[i] = None
        return x

    def begun(self, requests: list[Request], answer: Answer, fields: dict) -> Rows:
        """Takes slots and epochs from an answer by id; -> the rows in the fast form."""
        for r, slot, epoch in zip(requests, answer.slots, answer.epochs):
            r.slot, r.epoch = int(slot), int(epoch)
        self.keeper.add([r.name for r in requests if r.slot >= 0])
        return self.client.rows(slots=answer.slots, epochs=answer.epochs, **fields)

    def step(
        self, method: str, layer: int, rows: Rows, x: np.ndarray, failed: dict, requests: list
    ):
        """One call, and again without the rows that it names; -> output, input as sent, answer,
        rows."""
        wire = to_wire(x, self.type)
        middle = method == "decode" and layer == sorted(self.gdn)[len(self.gdn) // 2]
        if middle and self.decodes == self.poison_at:
            wire = to_wire(np.where(np.arange(BATCH)[:, None] == 0, np.nan, x), self.type)
        call = getattr(self.client, method)
        while True:
            try:
                answer = call(layer, rows, wire)
                break
            except GdnError as e:
                if not e.rows:
                    raise
                names = [requests[i].name for i in e.rows]
                self.events.append(
                    f"layer {layer}: {names} refused with {e.reason}; the step goes on without"
                )
                failed.update(dict.fromkeys(e.rows, e))
                rows = rows.padded(e.rows)
        if middle and self.decodes == self.lose_answer_at:
            answer = self.ask_again(layer, rows, wire, answer)
        sent = expand_bf16(wire) if wire.dtype == np.uint16 else wire.astype(np.float32)
        return answer.output.astype(np.float32), sent, answer, rows

    def ask_again(self, layer: int, rows: Rows, wire: np.ndarray, lost: Answer) -> Answer:
        """What the client does when an answer does not come: the same step once more."""
        again = self.client.decode(layer, rows, wire)
        live = sum(slot >= 0 for slot in rows.slots)
        if again.replayed_rows != live or again.output.tobytes() != lost.output.tobytes():
            raise SystemExit("a step that was sent twice was not answered from the store")
        self.events.append(
            f"layer {layer}: answer lost and asked for again: {again.replayed_rows} rows replayed"
        )
        return again

    def recover(self, r: Request, error: GdnError) -> None:
        """One reaction to all that leaves a sequence's layers behind: fold its tokens in once
        more."""
        if not isinstance(error, StateLost):
            self.end(r)
        self.events.append(f"{r.name} begins again from token 0")
        r.forget()


def errors(requests: list[Request], layers: dict) -> tuple[float, float]:
    """The largest relative error of a layer, all its answers together, and of a single answer,
    against the layers run here.

    The first is what is judged: where the output of a head nearly vanishes, its norm makes the
    rounding of a 16-bit type large, so that one token may be further off than the type is coarse.
    """
    of_layer = of_answer = 0.0
    for number, layer in layers.items():
        want = np.concatenate([layer(np.array(r.inputs[number][: r.folded]))[0] for r in requests])
        got = np.concatenate([r.outputs[number][: r.folded] for r in requests])
        of_layer = max(of_layer, relative_error(got, want))
        of_answer = max(of_answer, *map(relative_error, got, want))
    return of_layer, of_answer


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--target", default="127.0.0.1:50051", help="host:port or unix:/path of the server"
    )
    parser.add_argument(
        "--model", required=True, help="the checkpoint directory that the server serves"
    )
    arguments = parser.parse_args()

    layers = load_layers(arguments.model)
    with Client(arguments.target) as client, Keeper(client) as keeper:
        info = client.info
        depth = max(info.layers) + 2
        print(f"{arguments.target}: {info.geometry} in {info.data_type.name}")
        print(f"layers {list(info.layers)}")
        if set(info.layers) != set(layers):
            print(f"the checkpoint has other layers: {sorted(layers)}")
            return 1
        rng = np.random.default_rng(2)
        sizes = {
            "long": (90, 8),
            "short": (5, 6),
            "middle": (40, 10),
            "one": (1, 5),
            "late": (30, 7),
            "last": (3, 9),
        }
        prompts = {name: rng.integers(0, VOCABULARY, n).tolist() for name, (n, _) in sizes.items()}
        prefix = f"example-{client.step_id():x}-"
        requests = [Request(prefix + k, p, sizes[k][1], info.layers) for k, p in prompts.items()]
        orchestrator = Orchestrator(
            client, keeper, LocalParts(info.geometry.hidden_size, depth), depth
        )
        orchestrator.lose_answer_at, orchestrator.poison_at = 4, 7
        orchestrator.run(requests)
    print(*(event.replace(prefix, "") for event in orchestrator.events), sep="\n")
    of_layer, of_answer = errors(requests, layers)
    answers, limit = sum(r.folded for r in requests) * len(layers), TOLERANCE[info.data_type]
    print(f"{answers} answers compared; the worst single one is {of_answer:.2g} off")
    print(f"worst relative error of a layer: {of_layer:.2g}, allowed {limit:g}")
    return 0 if of_layer <= limit else 1


if __name__ == "__main__":
    sys.exit(main())
