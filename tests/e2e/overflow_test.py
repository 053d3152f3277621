"""Finite input whose arithmetic overflows poisons its row, says so, and touches nothing else."""

import numpy as np
import pytest
from gdn_client import DataLoss, Layout
from steps import Twins, begin, hidden, reason_of


def huge(client, tokens):
    g = client.info.geometry
    mixed = np.full((tokens, g.conv_dim), 3e38, np.float32)
    return mixed, np.ones((tokens, g.value_heads)), np.zeros((tokens, g.value_heads))


@pytest.mark.parametrize("method,tokens", [("decode", 4), ("prefill", 40)])
def test_the_row_is_poisoned(client, method, tokens):
    twins = Twins(client, "a")
    poisoned = begin(client, "poisoned", "well")
    rows = client.rows(**poisoned, token_counts=[tokens, 0], layout=Layout.QKV_BETA_G)
    with pytest.raises(DataLoss) as e:
        getattr(client, method)(0, rows, huge(client, tokens))
    assert e.value.rows == {0: "STATE_POISONED"}
    twins.assert_untouched()
    assert client.get_sequence("poisoned").poisoned and not client.get_sequence("well").poisoned
    assert client.renew(["poisoned", "well"]).missing == ["poisoned"]
    by_id = client.rows(request_ids=["poisoned"])
    for layer in client.info.layers:
        assert reason_of(client.decode, layer, by_id, hidden(client, 1)) == "STATE_POISONED"
    client.release(["poisoned"])
    fresh, twin = begin(client, "poisoned"), begin(client, "fresh")
    x = hidden(client, 1)
    outputs = [client.decode(0, client.rows(**h), x).output for h in (fresh, twin)]
    assert np.array_equal(*outputs) and np.isfinite(outputs[0]).all()
