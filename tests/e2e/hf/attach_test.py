"""attach and detach: which models on which servers, and what a model is afterwards."""

import gc
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import models
import pytest
import torch
from gdn_client import Client, hf
from gdn_client.hf import weights
from gdn_client.hf.fingerprint import fingerprint
from gdn_client.hf.layer import RemoteGatedDeltaNet
from make_checkpoint import make_checkpoint
from models import prompt
from transformers import AutoConfig, LlamaConfig, LlamaForCausalLM


def gdn_layers(model) -> dict[int, torch.nn.Module]:
    parents = (m for m in model.modules() if hasattr(m, "linear_attn"))
    return {p.linear_attn.layer_idx: p.linear_attn for p in parents}


@pytest.mark.parametrize("family", models.FAMILIES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_the_fingerprint_is_the_servers(start, load, model_directory, family, dtype):
    """Computed from the loaded weights and from the files."""
    directory = model_directory(family, saved=dtype)
    config = AutoConfig.from_pretrained(directory).get_text_config()
    server = start(directory)
    with Client(server.target) as client:
        want = client.info.model_fingerprint
    server.stop()
    assert fingerprint(config, weights.of_directory(directory)) == want
    loaded = weights.of_modules(gdn_layers(load(family, dtype, saved=dtype)))
    assert fingerprint(config, loaded) == want


@pytest.mark.parametrize("model_type", ["qwen3_next", "qwen3_5"])
def test_the_fingerprint_of_large_weights_in_several_files(start, tmp_path, model_type):
    """Of tensors over 64 KiB blocks count."""
    options = dict(model_type=model_type, hidden=250, value_heads=6, shards=3, gate="sigmoid")
    directory = make_checkpoint(tmp_path, conv_bias=True, **options)
    config = json.loads((directory / "config.json").read_text())
    config = SimpleNamespace(**config.get("text_config", config))
    layers = weights.of_directory(directory)
    assert max(w.nbytes for layer in layers.values() for w in layer.values()) > 1 << 16
    server = start(directory)
    with Client(server.target) as client:
        assert fingerprint(config, layers) == client.info.model_fingerprint
    server.stop()


def test_other_weights_are_refused(serve, load):
    server = serve("qwen3_next")
    other = load("qwen3_next", seed=1)
    for model in (other, load("qwen3_5")):
        before = gdn_layers(model)
        with pytest.raises(hf.OtherWeights, match="server's weights are"):
            hf.attach(model, server.target)
        assert gdn_layers(model) == before


def test_one_changed_number_is_refused(serve, load):
    model = load("qwen3_next")
    with torch.no_grad():
        gdn_layers(model)[1].A_log[0] += 0.01
    with pytest.raises(hf.OtherWeights):
        hf.attach(model, serve("qwen3_next").target)


def test_weights_loaded_in_another_type(serve, load, model_directory, tmp_path):
    """They are not the server's, but roundings of a checkpoint that is; unless they were changed."""
    target = serve("qwen3_next").target
    model = load("qwen3_next", torch.bfloat16)
    hf.attach(model, target).detach()

    model.name_or_path = ""  # as that of a model that was made in another way
    with pytest.raises(hf.OtherWeights, match="was not said"):
        hf.attach(model, target)
    hf.attach(model, target, checkpoint=model_directory("qwen3_next")).detach()
    other = model_directory("qwen3_next", seed=1)
    with pytest.raises(hf.OtherWeights, match=str(other)):
        hf.attach(model, target, checkpoint=other)
    with pytest.raises(hf.OtherWeights):
        hf.attach(model, target, checkpoint=tmp_path)

    with torch.no_grad():
        gdn_layers(model)[3].out_proj.weight[0, 0] += 1
    with pytest.raises(hf.OtherWeights, match="the model's are others"):
        hf.attach(model, target, checkpoint=model_directory("qwen3_next"))


def test_wrapped_and_quantised_layers_are_refused(serve, load):
    target = serve("qwen3_next").target
    wrapped, quantised = load("qwen3_next"), load("qwen3_next")
    layer = gdn_layers(wrapped)[1]
    layer.out_proj = torch.nn.Sequential(layer.out_proj)
    with pytest.raises(ValueError, match=r"layer 1: out_proj\.0\.weight"):
        hf.attach(wrapped, target)
    gdn_layers(quantised)[3].out_proj.to(torch.float8_e4m3fn)
    with pytest.raises(ValueError, match=r"layer 3: out_proj\.weight \(torch\.float8"):
        hf.attach(quantised, target)


def test_a_server_without_projections(start, load):
    server = start("core_only")
    with pytest.raises(hf.OtherWeights, match="without projections"):
        hf.attach(load("qwen3_next"), server.target)
    server.stop()


def test_a_model_without_gdn_layers(serve):
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=8,
            hidden_size=8,
            intermediate_size=8,
            num_hidden_layers=1,
            num_attention_heads=1,
        )
    )
    with pytest.raises(ValueError, match="no GDN layers"):
        hf.attach(model, serve("qwen3_next").target)


def test_detach_restores(serve, load):
    model = load("qwen3_next")
    names = list(model.state_dict())
    before, want = gdn_layers(model), model.generate(**prompt(5), max_new_tokens=8)
    attachment = hf.attach(model, serve("qwen3_next").target)
    assert all(isinstance(m, RemoteGatedDeltaNet) for m in gdn_layers(model).values())
    assert not any("linear_attn" in name for name in model.state_dict())
    with pytest.raises(ValueError, match="attached to a server already"):
        hf.attach(model, serve("qwen3_next").target)
    cache = model(**prompt(5)).past_key_values
    hf.detach(model)
    assert gdn_layers(model) == before and list(model.state_dict()) == names
    assert torch.equal(model.generate(**prompt(5), max_new_tokens=8), want)
    assert model.generate(**prompt(5), max_new_tokens=2, num_beams=2).shape == (1, 7)
    with pytest.raises(NotImplementedError, match="in the server"):
        model(input_ids=torch.tensor([[1]]), past_key_values=cache)
    with pytest.raises(ValueError, match="not attached"):
        hf.detach(model)
    attachment.detach()  # nothing more happens


def test_a_client_of_the_callers_stays_open(serve, load):
    with Client(serve("qwen3_next").target) as client:
        with hf.attach(load("qwen3_next"), client) as attachment:
            assert attachment.client is client
        assert client.health() == "SERVING"


def test_two_models_on_one_server(serve, load):
    models_ = [load("qwen3_next") for _ in range(2)]
    want = models_[0].generate(**prompt(6, 3), max_new_tokens=8)
    attachments = [hf.attach(m, serve("qwen3_next").target) for m in models_]
    for model in models_:
        assert torch.equal(model.generate(**prompt(6, 3), max_new_tokens=8), want)
    cache = models_[0](**prompt(6)).past_key_values
    with pytest.raises(ValueError, match="another attachment"):
        models_[1](input_ids=torch.tensor([[1]]), past_key_values=cache)
    for attachment in attachments:
        attachment.detach()


def test_a_module_inside(serve, load):
    """Its generate() is not known, so beams are refused where the cache is reordered."""
    model = load("qwen3_5")
    want = model.generate(**prompt(6, 3), max_new_tokens=8)
    with hf.attach(model.model, serve("qwen3_5").target):
        assert torch.equal(model.generate(**prompt(6, 3), max_new_tokens=8), want)
        with pytest.raises(NotImplementedError, match="beam search"):
            model.generate(**prompt(6, 3), max_new_tokens=8, num_beams=2)


def test_threads(serve, load):
    model = load("qwen3_5")
    run = lambda seed: model.generate(**prompt(9, 4, seed=seed), max_new_tokens=16)  # noqa: E731
    want = [run(seed) for seed in range(4)]
    with hf.attach(model, serve("qwen3_5").target), ThreadPoolExecutor(4) as threads:
        assert all(map(torch.equal, threads.map(run, range(4)), want))


def test_a_model_that_is_collected_leaves_nothing(serve, load):
    model = load("qwen3_next")
    with Client(serve("qwen3_next").target) as client:
        hf.attach(model, serve("qwen3_next").target)
        kept = model(**prompt(5, 3)).past_key_values
        assert len(list(client.list_sequences())) == 2
        del model
        gc.collect()
        assert not list(client.list_sequences())
    del kept


PROGRAM = """
import sys
import torch
from gdn_client import hf
from models import prompt
from transformers import AutoModelForCausalLM

model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32)
hf.attach(model, sys.argv[2])
kept = model(**prompt(5, 3)).past_key_values
"""


def test_a_program_that_just_ends_leaves_nothing(serve, model_directory):
    server = serve("qwen3_next")
    command = [sys.executable, "-c", PROGRAM, model_directory("qwen3_next"), server.target]
    subprocess.run(command, check=True, cwd=models.__file__.rpartition("/")[0], timeout=120)
    with Client(server.target) as client:
        assert not list(client.list_sequences())


def test_positions_are_the_tokens(serve, load):
    """Padding is not sent: each sequence is at the length of its row."""
    model = load("qwen3_next")
    with hf.attach(model, serve("qwen3_next").target) as attachment:
        cache = model(**prompt(6, 3)).past_key_values
        model(input_ids=torch.ones(2, 1, dtype=torch.long), past_key_values=cache)
        sequences = list(attachment.client.list_sequences())
        assert sorted(list({*s.positions.values()}) for s in sequences) == [[4], [7]]
