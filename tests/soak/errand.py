"""One sequence from its first token to its last, with mishaps on the way, and its answers compared with
the layers computed in numpy."""

from __future__ import annotations

import time
from collections import Counter

import numpy as np
from gdn_client import (
    NO_RETRY,
    Aborted,
    Client,
    DataType,
    Interrupted,
    ResourceExhausted,
    Rows,
    StateLost,
)
from reference import Layer, relative_error

TOLERANCE = {DataType.FP32: 1e-5, DataType.FP16: 5e-3, DataType.BF16: 2e-2}
MOST_TOKENS = 40


class Errand:
    """Counts what happened in `counts`: steps, begun_again, replayed_rows, and what it did itself."""

    def __init__(
        self, target: str, client: Client, layers: dict[int, Layer], name: str, rng, mishaps
    ):
        """mishaps: how probable one is before a step; 0: none."""
        self.target, self.client, self.layers, self.name = target, client, layers, name
        self.rng, self.mishaps, self.counts = rng, mishaps, Counter()
        tokens = int(rng.integers(2, MOST_TOKENS))
        hidden = client.info.geometry.hidden_size
        shape = (tokens, hidden)
        self.inputs = {n: rng.standard_normal(shape).astype(np.float32) for n in layers}
        self.outputs = {n: np.zeros(shape, np.float32) for n in layers}
        self.tokens = tokens

    def run(self) -> None:
        """Ends with every token folded in, whatever it takes. Raises what no repetition helps."""
        while True:
            try:
                self._fold_all()
                return
            except StateLost as e:
                self.counts["lost_" + e.reason.lower()] += 1
            except Aborted:
                self.client.release([self.name])
            self.counts["begun_again"] += 1

    def is_right(self) -> bool:
        tolerance = TOLERANCE[self.client.info.data_type]
        return all(
            relative_error(self.outputs[n], layer(self.inputs[n])[0]) <= tolerance
            for n, layer in self.layers.items()
        )

    def _fold_all(self) -> None:
        folded, handle = 0, None
        while folded < self.tokens:
            count = self._next_count(self.tokens - folded, begun=handle is not None)
            handle = self._fold(folded, count, handle)
            folded += count
        if self.rng.random() < 0.9:  # the others are left to their leases
            self.client.release([self.name])

    def _next_count(self, left: int, begun: bool) -> int:
        """A prompt in chunks, then mostly single tokens."""
        return min(
            left, int(self.rng.integers(1, 20)) if not begun or self.rng.random() < 0.2 else 1
        )

    def _fold(self, folded: int, count: int, handle: dict | None) -> dict:
        """One pass over all layers. -> slots and epochs."""
        of_row = dict(positions=[folded], token_counts=[count])
        step_id = self.client.step_id()
        method = "decode" if handle and count == 1 else "prefill"
        for n in self.layers:
            which = handle or dict(request_ids=[self.name], create=True)
            rows = self.client.rows(step_id=step_id, **which, **of_row)
            x = self.inputs[n][folded : folded + count]
            if self.rng.random() < self.mishaps:
                self._mishap(method, n, rows, x)
            answer = getattr(self.client, method)(n, rows, x)
            self.counts.update(steps=1, replayed_rows=answer.replayed_rows)
            self.outputs[n][folded : folded + count] = answer.output.astype(np.float32)
            handle = handle or dict(slots=answer.slots.tolist(), epochs=answer.epochs.tolist())
        return handle

    def _mishap(self, method: str, layer: int, rows: Rows, x) -> None:
        """Something that may or may not have folded the step in; it is sent once more afterwards."""
        kind = str(self.rng.choice(["deadline", "cancel", "disconnect", "expire"]))
        self.counts[kind] += 1
        if kind == "expire":
            self._wait_for_the_lease()
            return
        try:
            if kind == "cancel":
                stream = self.client.stream()
                getattr(stream, method)(layer, rows, x)
                stream.cancel()
                return
            timeout = 0.002 if kind == "deadline" else 60
            hasty = Client(self.target, timeout=timeout, retry=NO_RETRY)
            if kind == "deadline":
                getattr(hasty, method)(layer, rows, x)
            else:
                getattr(hasty.stream(), method)(layer, rows, x)
            hasty.close()
        except (Interrupted, StateLost, Aborted, ResourceExhausted):
            pass

    def _wait_for_the_lease(self) -> None:
        try:
            while True:
                self.client.get_sequence(self.name)
                time.sleep(0.02)
        except StateLost:
            pass
