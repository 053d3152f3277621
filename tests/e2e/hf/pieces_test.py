"""Steps cut from a pass: every token once, in order, within the server's limits."""

import numpy as np
import pytest
from gdn_client.hf.pieces import cut, leading_padding


@pytest.mark.parametrize("seed", range(50))
def test_every_token_once_and_in_order(seed):
    rng = np.random.default_rng(seed)
    batch, tokens = rng.integers(1, 9), rng.integers(1, 40)
    max_rows, max_tokens = rng.integers(1, 6), rng.integers(1, 50)
    skip = rng.integers(0, tokens + 1, batch)
    at = skip.copy()
    for piece in cut(skip, tokens, max_rows, max_tokens):
        assert 0 < len(piece.rows) <= max_rows and 0 < piece.counts.sum() <= max_tokens
        assert len(set(piece.rows)) == len(piece.rows) and (piece.counts > 0).all()
        assert (piece.begins == at[piece.rows]).all()
        assert (piece.folded == piece.begins - skip[piece.rows]).all()
        at[piece.rows] += piece.counts
    assert (at == tokens).all()


def test_a_pass_within_the_limits_is_one_step():
    (piece,) = cut(np.zeros(4, np.int64), 10, max_rows=4, max_tokens=40)
    assert piece.covers(4, 10) and not piece.covers(5, 10)
    (ragged,) = cut(np.array([0, 3]), 10, max_rows=4, max_tokens=40)
    assert not ragged.covers(2, 10)


def test_nothing_but_padding_is_no_step():
    assert cut(np.array([5, 5]), 5, max_rows=4, max_tokens=40) == []


def test_only_padding_in_front_of_an_empty_sequence_is_left_out():
    mask = np.array([[0, 0, 1, 0], [0, 0, 1, 1], [1, 1, 1, 1], [0, 0, 0, 0]], bool)
    empty = np.array([True, False, True, True])
    assert leading_padding(mask, empty).tolist() == [2, 0, 0, 4]
