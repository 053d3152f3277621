"""A checkpoint that does not fit ends the server with a status that is not 0, and names what is
wrong."""

import json
import shutil

import pytest

CONV = "model.layers.1.linear_attn.conv1d.weight"


@pytest.fixture
def model(checkpoint, tmp_path):
    return shutil.copytree(checkpoint("small"), tmp_path / "model")


def refused(start, model, *names):
    with pytest.raises(RuntimeError) as e:
        start(model, slots=2)
    text = str(e.value)
    assert (
        "the server ended with" in text
        and "ended with 0" not in text
        and "ended with -" not in text
    )
    for name in names:
        assert name in text, text


def edit_header(model, change):
    """Rewrites the header of the safetensors file."""
    path = model / "model.safetensors"
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    change(header)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + size :])


def edit_config(model, **change):
    config = json.loads((model / "config.json").read_text()) | change
    (model / "config.json").write_text(
        json.dumps({k: v for k, v in config.items() if v is not None})
    )


def test_a_tensor_is_missing(start, model):
    edit_header(model, lambda h: h.pop(CONV))
    refused(start, model, CONV)


def test_a_tensor_has_another_shape(start, model):
    def change(header):
        header[CONV]["shape"] = [*reversed(header[CONV]["shape"])]

    edit_header(model, change)
    refused(start, model, CONV, "512", "4")


def test_a_tensor_has_a_strange_type(start, model):
    edit_header(model, lambda h: h[CONV].update(dtype="I32"))
    refused(start, model, CONV, "I32")


def test_projections_are_missing_in_one_layer(start, model):
    name = "model.layers.2.linear_attn.out_proj.weight"
    edit_header(model, lambda h: h.pop(name))
    refused(start, model, name)


def test_the_configuration_says_other_sizes(start, model):
    edit_config(model, linear_num_value_heads=6)
    refused(start, model, "model.layers.0.linear_attn.")


def test_value_heads_are_no_multiple(start, model):
    edit_config(model, linear_num_value_heads=3)
    refused(start, model, "config.json: linear_num_value_heads: ")


@pytest.mark.parametrize("key", ["hidden_size", "linear_num_key_heads", "linear_key_head_dim"])
def test_the_configuration_lacks_a_size(start, model, key):
    edit_config(model, **{key: None})
    refused(start, model, key)


def test_a_file_is_cut_short(start, model):
    path = model / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    refused(start, model, "model.safetensors")


@pytest.mark.parametrize(
    "data",
    [b"", b"\x05", b"\xff" * 16, (10**6).to_bytes(8, "little") + b"{}", b"\x02" + bytes(7) + b"[]"],
)
def test_no_safetensors_file(start, model, data):
    (model / "model.safetensors").write_bytes(data)
    refused(start, model, "model.safetensors")


def test_offsets_outside_of_the_file(start, model):
    edit_header(model, lambda h: h[CONV].update(data_offsets=[2**62, 2**62 + 8192]))
    refused(start, model, "model.safetensors")


def test_a_shard_is_missing(start, checkpoint, tmp_path):
    model = shutil.copytree(checkpoint("nested"), tmp_path / "model")
    gone = sorted(model.glob("*.safetensors"))[-1]
    gone.unlink()
    refused(start, model, gone.name)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"hidden_size": "many"}'])
def test_no_configuration(start, model, text):
    (model / "config.json").write_text(text)
    refused(start, model, "config.json")


def test_no_checkpoint(start, tmp_path):
    refused(start, tmp_path / "nowhere", "nowhere")
