"""generate() on a server's layers, against the same model with its own."""

import models
import pytest
import torch
from gdn_client import hf
from models import prompt
from transformers import DynamicCache

GREEDY = dict(max_new_tokens=64, do_sample=False)
SAMPLED = dict(max_new_tokens=32, do_sample=True, temperature=0.9, top_k=20)
RAGGED = (20, 7, 1, 13)


def both(model, server, run):
    """What `run()` gives with the model's own layers, and with the server's."""
    local = run()
    with hf.attach(model, server.target):
        return local, run()


@pytest.mark.parametrize("family", models.FAMILIES)
def test_greedy_with_left_padding(load, serve, family):
    model = load(family)
    outputs = both(
        model,
        serve(family),
        lambda: model.generate(
            **prompt(*RAGGED), **GREEDY, return_dict_in_generate=True, output_logits=True
        ),
    )
    local, remote = outputs
    assert local.sequences.shape == (4, 84) and torch.equal(local.sequences, remote.sequences)
    assert len(local.sequences[:, 20:].unique()) > 16  # no model that says the same all the time
    logits = (torch.stack(o.logits) for o in outputs)
    torch.testing.assert_close(*logits, rtol=0, atol=1e-4)


@pytest.mark.parametrize("family", models.FAMILIES[:2])
@pytest.mark.parametrize("copies", [1, 3])
def test_sampled(load, serve, family, copies):
    model = load(family)

    def run():
        torch.manual_seed(7)
        return model.generate(**prompt(9, 4), **SAMPLED, num_return_sequences=copies)

    local, remote = both(model, serve(family), run)
    assert torch.equal(local, remote) and len(local) == 2 * copies


@pytest.mark.parametrize("chunk", [1, 7, 16])
def test_prompt_in_chunks(load, serve, chunk):
    """A row whose first chunks are padding begins later than the others."""
    model = load("qwen3_next")
    run = lambda: model.generate(**prompt(*RAGGED), **GREEDY, prefill_chunk_size=chunk)  # noqa: E731
    local, remote = both(model, serve("qwen3_next"), run)
    assert torch.equal(local, remote)


def test_more_than_a_batch_of_the_server(load, serve):
    """Steps hold at most 3 rows and 32 tokens here, passes 4 of up to 100."""
    model = load("qwen3_5")
    run = lambda: model.generate(**prompt(100, 33, 5, 64), **GREEDY)  # noqa: E731
    local, remote = both(model, serve("qwen3_5", max_rows=3, max_tokens=32), run)
    assert torch.equal(local, remote)


def turns(model, lengths, count=3):
    """A conversation over one cache: every turn adds tokens behind all that was said."""
    cache = DynamicCache(config=model.config.get_text_config())
    said, mask = prompt(*lengths).values()
    for turn in range(count):
        said = model.generate(
            input_ids=said,
            attention_mask=mask,
            past_key_values=cache,
            max_new_tokens=8,
            do_sample=False,
        )
        new = prompt(*(5 for _ in lengths), seed=turn + 1)["input_ids"]
        said = torch.cat((said, new), dim=1)
        mask = torch.cat((mask, mask.new_ones(len(lengths), said.shape[1] - mask.shape[1])), dim=1)
    return said


@pytest.mark.parametrize("family", models.FAMILIES[:2])
@pytest.mark.parametrize("lengths", [(12,), (9, 4, 12)])
def test_several_turns_on_one_cache(load, serve, family, lengths):
    model = load(family)
    local, remote = both(model, serve(family), lambda: turns(model, lengths))
    assert torch.equal(local, remote)


def test_padding_inside_is_folded_in_as_zeros(load, serve):
    """Right padding, and a later turn that is padded: as the local layers do it."""
    model = load("qwen3_next")
    ids = prompt(12, 12)["input_ids"]
    mask = torch.ones_like(ids)
    mask[0, 4:6] = mask[1, :3] = mask[1, 10:] = 0

    @torch.no_grad()
    def run():
        cache = DynamicCache(config=model.config)
        first = model(ids[:, :8], attention_mask=mask[:, :8], past_key_values=cache)
        second = model(ids[:, 8:], attention_mask=mask, past_key_values=cache)
        return torch.cat((first.logits, second.logits), dim=1)[mask.bool()]

    local, remote = both(model, serve("qwen3_next"), run)
    torch.testing.assert_close(local, remote, rtol=0, atol=1e-4)


def test_without_a_cache(load, serve, empty):
    model = load("qwen3_next")
    run = torch.no_grad()(lambda: model(**prompt(*RAGGED), use_cache=False).logits)
    local = run()
    with hf.attach(model, serve("qwen3_next").target) as attachment:
        remote = run()
        assert not list(attachment.client.list_sequences())
    real = prompt(*RAGGED)["attention_mask"].bool()
    torch.testing.assert_close(local[real], remote[real], rtol=0, atol=1e-4)


def relative(error: torch.Tensor, to: torch.Tensor) -> float:
    return float(error.norm() / to.norm())


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_in_16_bits(load, serve, dtype):
    """Both are roundings of the same model in fp32; the server's layers are as near to it."""
    server = serve("qwen3_5", dtype={"bfloat16": "bf16", "float16": "fp16"}[dtype])
    model, exact = load("qwen3_5", getattr(torch, dtype)), load("qwen3_5")
    real = prompt(40, 25)["attention_mask"].bool()
    run = torch.no_grad()(lambda model: model(**prompt(40, 25)).logits.float()[real])
    local, remote = both(model, server, lambda: run(model))
    want = run(exact)
    assert relative(remote - want, want) < 1.3 * relative(local - want, want) < 0.1
    with hf.attach(model, server.target):
        assert model.generate(**prompt(40, 25), **GREEDY).shape == (2, 104)


def test_a_server_of_another_type(load, serve):
    model = load("qwen3_5")
    run = torch.no_grad()(lambda: model(**prompt(20)).logits)
    local, remote = both(model, serve("qwen3_5", dtype="bf16"), run)
    assert 0 < relative(local - remote, local) < 0.05
