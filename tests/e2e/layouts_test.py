"""Every input layout, shape, type and layer against the same layers in numpy."""

import numpy as np
import pytest
from checkpoints import SPECS
from gdn_client import Client, InvalidArgument, Layout
from reference import load_layers, relative_error
from steps import TOLERANCE, floats, hidden, rounded

FLAGS = dict(slots=8, max_rows=8, max_tokens=256)
TOKENS = (70, 1, 13)  # of three sequences in one prefill


def run(client, layer, layout, tensors):
    """A prefill of three sequences, then a decode of them; -> (prefill output, decode output)."""
    n, ids = sum(TOKENS), [f"{layout.name}-{layer}-{i}" for i in range(len(TOKENS))]
    rows = client.rows(request_ids=ids, token_counts=TOKENS, create=True, layout=layout)
    answer = client.prefill(layer, rows, tuple(t[:n] for t in tensors))
    rows = client.rows(slots=answer.slots, epochs=answer.epochs, positions=TOKENS, layout=layout)
    decoded = client.decode(layer, rows, tuple(t[n:] for t in tensors)).output
    client.release(ids)
    return floats(answer.output), floats(decoded)


def expect(step):
    """What `run` should answer; step(slice, state) runs some tokens of one sequence."""
    n, at, prefill, decode = sum(TOKENS), 0, [], []
    for i, count in enumerate(TOKENS):
        y, state = step(slice(at, at + count), None)
        prefill.append(y)
        decode.append(step(slice(n + i, n + i + 1), state)[0])
        at += count
    return np.concatenate(prefill), np.concatenate(decode)


def close(client, got, want, what):
    errors = [relative_error(*pair) for pair in zip(got, want)]
    print(f"{what}: prefill {errors[0]:.2g}, decode {errors[1]:.2g}")
    assert max(errors) < TOLERANCE[client.info.data_type]


def projected(layer, mixed, z, b, a):
    """{layout: (its tensors, the step that `expect` takes)}"""
    beta, g = (t.astype(np.float32) for t in layer.gates(b, a))

    def core(z):
        return lambda at, state: layer.core(
            mixed[at], None if z is None else z[at], b[at], a[at], state
        )

    def recur(z):
        return lambda at, state: layer.recur(
            mixed[at], None if z is None else z[at], beta[at], g[at], state
        )

    return {
        Layout.QKV_B_A: ((mixed, b, a), core(None)),
        Layout.QKV_Z_B_A: ((mixed, z, b, a), core(z)),
        Layout.QKV_BETA_G: ((mixed, beta, g), recur(None)),
        Layout.QKV_Z_BETA_G: ((mixed, z, beta, g), recur(z)),
    }


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("name", sorted(SPECS))
def test_every_layer_and_layout(served, checkpoint, name, dtype):
    layers = load_layers(checkpoint(name))
    with Client(served(name, dtype=dtype, **FLAGS).target, timeout=60) as client:
        info, io = client.info, client.info.data_type
        assert list(info.layers) == sorted(layers) and io.name.lower() == dtype
        shape = next(iter(layers.values())).shape
        assert (info.geometry.hidden_size, info.geometry.conv_dim) == (shape.hidden, shape.conv_dim)
        x = hidden(client, sum(TOKENS) + len(TOKENS), seed=3)
        for number, layer in layers.items():
            if Layout.HIDDEN in info.input_layouts:
                got = run(client, number, Layout.HIDDEN, (x,))
                want = expect(lambda at, state, layer=layer: layer(x[at], state))
                close(client, got, want, f"{name} layer {number} HIDDEN")
                mixed, z, b, a = (rounded(t, io) for t in layer.project(x))
            else:
                rng = np.random.default_rng(4)
                widths = (shape.conv_dim, shape.HV * shape.V, shape.HV, shape.HV)
                mixed, z, b, a = (rounded(rng.standard_normal((len(x), w)), io) for w in widths)
            for layout, (tensors, step) in projected(layer, mixed, z, b, a).items():
                assert layout in info.input_layouts
                what = f"{name} layer {number} {layout.name}"
                close(client, run(client, number, layout, tensors), expect(step), what)


def test_a_checkpoint_without_projections_takes_no_hidden_states(served):
    with Client(served("core_only", dtype="fp32", **FLAGS).target) as client:
        assert Layout.HIDDEN not in client.info.input_layouts
        with pytest.raises(InvalidArgument) as e:
            client.prefill(
                client.info.layers[0],
                client.rows(request_ids=["a"], create=True),
                hidden(client, 1),
            )
        assert e.value.reason == "UNSUPPORTED"


def test_state_in_bf16(served, checkpoint):
    layer = load_layers(checkpoint("small"))[0]
    with Client(
        served("small", dtype="fp32", state_dtype="bf16", **FLAGS).target, timeout=60
    ) as client:
        assert client.info.ssm_data_type.name == "BF16"
        x = hidden(client, sum(TOKENS) + len(TOKENS), seed=5)
        got, want = run(client, 0, Layout.HIDDEN, (x,)), expect(lambda at, s: layer(x[at], s))
        assert max(relative_error(*pair) for pair in zip(got, want)) < 2e-2


def test_the_layout_may_change_between_steps(served, checkpoint):
    """A state does not know how its tokens came in."""
    layer = load_layers(checkpoint("small"))[0]
    with Client(served("small", dtype="fp32", **FLAGS).target, timeout=60) as client:
        x = hidden(client, 30, seed=6)
        mixed, z, b, a = layer.project(x)
        rows = client.rows(request_ids=["mixed"], token_counts=[20], create=True)
        client.prefill(0, rows, x[:20])
        rows = client.rows(request_ids=["mixed"], token_counts=[10], layout=Layout.QKV_Z_B_A)
        o = client.prefill(0, rows, tuple(t[20:] for t in (mixed, z, b, a))).output
        client.release(["mixed"])
    assert relative_error(o @ layer.weights["out_proj.weight"].T, layer(x)[0][20:]) < 1e-5
