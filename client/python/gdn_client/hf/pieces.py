"""How a forward pass over a padded batch is cut into steps of ragged rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Piece:
    """One step: of each of `rows` the tokens [begins, begins + counts) of the pass. `folded` are the
    tokens of the row that the pass folds in before them."""

    rows: np.ndarray
    begins: np.ndarray
    counts: np.ndarray
    folded: np.ndarray

    def covers(self, batch: int, tokens: int) -> bool:
        """Whether the step is the whole pass, so that nothing has to be gathered."""
        return len(self.rows) == batch and bool((self.counts == tokens).all())


def leading_padding(mask: np.ndarray, empty: np.ndarray) -> np.ndarray:
    """The tokens of each row to leave out, given the boolean mask [batch, tokens] of real tokens.

    Padding in front of a sequence that is empty changes nothing in its state and its output is zero.
    Padding that comes later is a zero which the layer folds in.
    """
    first = np.where(mask.any(axis=1), mask.argmax(axis=1), mask.shape[1])
    return np.where(empty, first, 0)


def cut(skip: np.ndarray, tokens: int, max_rows: int, max_tokens: int) -> list[Piece]:
    """The steps that fold the tokens [skip[row], tokens) of every row, in order; no row is twice in
    one step."""
    pieces, parts, room = [], [], max_tokens
    for row, first in enumerate(skip.tolist()):
        begin = first
        while begin < tokens:
            if len(parts) == max_rows or room == 0:
                pieces.append(_piece(parts))
                parts, room = [], max_tokens
            count = min(tokens - begin, room)
            parts.append((row, begin, count, begin - first))
            begin, room = begin + count, room - count
    return pieces + [_piece(parts)] if parts else pieces


def _piece(parts: list[tuple[int, int, int, int]]) -> Piece:
    return Piece(*np.array(parts, np.int64).T)
