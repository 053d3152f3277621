"""The remote half of a cache."""

from __future__ import annotations

import uuid
import weakref
from dataclasses import dataclass

import numpy as np
import torch

from ..client import Client
from ..rows import Rows
from ..types import Answer
from .leases import Leases
from .pieces import Piece, cut, leading_padding
from .tensors import Output, gather, host_array


class CacheLost(RuntimeError):
    """The cache cannot be used any more: begin again from the tokens, with a new one."""


@dataclass(frozen=True)
class Remote:
    """What the sessions of an attachment share; `layers` are the model's GDN layers in order."""

    client: Client
    leases: Leases
    layers: tuple[int, ...]


class _Pass:
    """One run through the layers, which fold the same tokens: what is sent differs in the tensor
    alone, so rows are encoded once."""

    def __init__(self, pieces: list[Piece], padding: torch.Tensor | None, shape: tuple[int, int]):
        self.pieces, self.shape = pieces, shape
        self.padding = padding  # to be multiplied with: padding that is folded in as zeros
        self.step_ids: list[int] = []
        self.rows: list[Rows | None] = [None] * len(pieces)


class Session:
    """A sequence for each row of the batch, for all layers.

    They are released when the session is collected, or by `clear`. A step whose answer was lost is
    sent again by the client, with its step id and positions. A step that failed for good leaves the
    layers at different positions, and the keys and values beside them: after it every use is a
    CacheLost.
    """

    def __init__(self, remote: Remote):
        self.remote = remote
        self._client, self._layers = remote.client, remote.layers
        self._reset()

    def _reset(self) -> None:
        self._failure = ""
        self._ids: list[str] = []
        self._slots = self._epochs = self._positions = np.zeros(0, np.int64)
        self._next = 0  # the index of the layer that comes next
        self._pass: _Pass | None = None

    def clear(self) -> None:
        """Ends the sequences; the next pass begins others, in a batch of any size."""
        if self._ids:
            self._finalizer()
            self._reset()

    def release(self) -> None:
        """Ends the sequences, now. The session is not to be used again."""
        if self._ids and self._finalizer.detach():
            self.remote.leases.release(self._ids)

    def step(self, layer: int, x: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """Folds x, [batch, tokens, hidden_size], into the sequences at `layer`.

        mask: [batch, tokens], 0 or False for padding; None: there is none.
        Raises CacheLost and what Client.prefill does.
        """
        if self._failure:
            raise CacheLost(f"a step of this cache failed before ({self._failure})")
        if self._ids and len(self._ids) != x.shape[0]:
            raise ValueError(f"the cache holds a batch of {len(self._ids)}, not of {x.shape[0]}")
        try:
            self._enter(layer, x, mask)
            out = self._run(layer, x)
            self._leave()
            return out
        except BaseException as e:
            # Its text alone: the traceback would keep this session, and so the sequences, alive.
            self._failure = f"{type(e).__name__}: {e}"
            raise

    def _enter(self, layer: int, x: torch.Tensor, mask: torch.Tensor | None) -> None:
        if layer == self._layers[0] and self._next == 0:
            if not self._ids:
                self._open(x.shape[0])
            self._pass = self._plan(x.shape[:2], mask)
        if layer != self._layers[self._next] or self._pass.shape != x.shape[:2]:
            raise CacheLost(
                f"layer {layer} was called with {tuple(x.shape)} where layer "
                f"{self._layers[self._next]} comes next: a forward pass broke off"
            )

    def _open(self, batch: int) -> None:
        self._ids = [uuid.uuid4().hex for _ in range(batch)]
        self._slots = np.full(batch, -1, np.int32)
        self._epochs = np.zeros(batch, np.uint64)
        self._positions = np.zeros(batch, np.int64)
        self.remote.leases.add(self._ids)
        self._finalizer = weakref.finalize(self, self.remote.leases.drop, self._ids)

    def _plan(self, shape: tuple[int, int], mask: torch.Tensor | None) -> _Pass:
        info, skip, padding = self._client.info, np.zeros(shape[0], np.int64), None
        if mask is not None:
            real = mask.to("cpu", torch.bool).numpy()
            skip = leading_padding(real, self._positions == 0)
            sent = np.arange(shape[1]) >= skip[:, None]
            padding = None if real[sent].all() else mask[:, :, None]
        plan = _Pass(cut(skip, shape[1], info.max_rows, info.max_tokens), padding, shape)
        plan.step_ids = [self._client.step_id() for _ in plan.pieces]
        return plan

    def _run(self, layer: int, x: torch.Tensor) -> torch.Tensor:
        plan, dtype = self._pass, self._client.info.data_type
        masked = x if plan.padding is None else x * plan.padding.to(x.dtype)
        array, out = host_array(masked, dtype), Output(tuple(x.shape), dtype)
        for i, piece in enumerate(plan.pieces):
            answer = self._call(layer, self._rows(i), gather(array, piece))
            if answer.slots is not None:
                self._admit(piece, answer)
            out.put(piece, answer.output)
        return out.like(x)

    def _rows(self, i: int) -> Rows:
        """The rows of a piece: by slot, or by name where one of them has yet to begin."""
        plan, piece = self._pass, self._pass.pieces[i]
        if plan.rows[i] is not None:
            return plan.rows[i]
        begun = bool((self._slots[piece.rows] >= 0).all())
        if begun:
            who = dict(slots=self._slots[piece.rows], epochs=self._epochs[piece.rows])
        else:
            who = dict(request_ids=[self._ids[row] for row in piece.rows], create=True)
        rows = self._client.rows(
            positions=self._positions[piece.rows] + piece.folded,
            token_counts=piece.counts,
            step_id=plan.step_ids[i],
            **who,
        )
        if begun:
            plan.rows[i] = rows
        return rows

    def _call(self, layer: int, rows: Rows, x: np.ndarray) -> Answer:
        few = max(rows.token_counts) <= self._client.info.max_decode_tokens
        method = self._client.decode if few else self._client.prefill
        return method(layer, rows, x)

    def _admit(self, piece: Piece, answer: Answer) -> None:
        self._slots[piece.rows], self._epochs[piece.rows] = answer.slots, answer.epochs
        self.remote.leases.keep(self._ids[row] for row in piece.rows)

    def _leave(self) -> None:
        self._next += 1
        if self._next == len(self._layers):
            for piece in self._pass.pieces:
                self._positions[piece.rows] += piece.counts
            self._next, self._pass = 0, None
