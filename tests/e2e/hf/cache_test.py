"""A cache whose states are in a server: as long as it lives, and what cannot be done with it."""

import copy
import gc
import pickle

import grpc
import pytest
import torch
from gdn_client import Client, NotFound, ResourceExhausted, Unavailable, hf
from gdn_client.retry import NO_RETRY
from models import prompt
from server_process import poll
from transformers import DynamicCache

TOKEN = torch.tensor([[1]])
QUICK = dict(step_ttl="300ms")


@torch.no_grad()
def begin(model, *lengths) -> DynamicCache:
    return model(**prompt(*lengths)).past_key_values


@torch.no_grad()
def again(model, cache, batch: int = 1) -> torch.Tensor:
    return model(input_ids=TOKEN.expand(batch, 1), past_key_values=cache).logits


def ids(client) -> set[str]:
    return {s.request_id for s in client.list_sequences()}


def test_sequences_end_with_the_cache(attached, empty):
    model, attachment = attached()
    first, second = begin(model, 5, 3), begin(model, 4)
    assert len(ids(attachment.client)) == 3
    del first
    poll(lambda: len(ids(attachment.client)) == 1)
    again(model, second)
    del second
    empty(attachment.client)


def test_sequences_end_with_generate(attached, empty):
    model, attachment = attached()
    model.generate(**prompt(5, 3), max_new_tokens=4)
    gc.collect()
    empty(attachment.client)


def test_reset_begins_anew(attached, empty):
    model, attachment = attached()
    cache = begin(model, 5, 3)
    before = ids(attachment.client)
    cache.reset()
    empty(attachment.client)
    cache = DynamicCache(config=model.config)
    want = model(**prompt(6, seed=3), past_key_values=cache).logits
    cache.reset()
    for layer in cache.layers:  # Transformers zeroes keys and values, and keeps their length
        if hasattr(layer, "keys"):
            layer.keys = layer.values = None
            layer.is_initialized = False
    assert torch.equal(model(**prompt(6, seed=3), past_key_values=cache).logits, want)
    assert not before & ids(attachment.client)


def test_leases_are_kept_while_the_cache_waits(attached):
    """Longer than a lease, as a sequence that nobody keeps shows."""
    model, attachment = attached(**QUICK)
    client = attachment.client
    cache = begin(model, 5, 3)
    for _ in range(2):
        rows = client.rows(request_ids=["unkept"], create=True)
        client.decode(0, rows, torch.zeros(1, 64).numpy())
        poll(lambda: "unkept" not in ids(client))
    again(model, cache, 2)
    assert len(ids(client)) == 2


@pytest.mark.parametrize(
    "arguments",
    [dict(num_beams=2), dict(num_beams=3, do_sample=True), dict(prompt_lookup_num_tokens=3)],
    ids=["beams", "sampled beams", "assisted"],
)
def test_what_cannot_work_is_refused_at_once(attached, arguments):
    model, attachment = attached()
    with pytest.raises(NotImplementedError, match="generate\\(\\) cannot do"):
        model.generate(**prompt(5), max_new_tokens=4, **arguments)
    assert not ids(attachment.client)


@pytest.mark.parametrize(
    "use",
    [
        lambda cache: cache.reorder_cache(torch.tensor([1, 0])),
        lambda cache: cache.crop(-1),
        lambda cache: cache.activate_past_recording(),
        lambda cache: cache.batch_repeat_interleave(2),
        lambda cache: cache.batch_select_indices(torch.tensor([0])),
        copy.deepcopy,
        pickle.dumps,
    ],
    ids=["reorder", "crop", "record", "repeat", "select", "copy", "pickle"],
)
def test_what_needs_the_states_here_is_refused(attached, use):
    model, _ = attached()
    cache = begin(model, 5, 3)
    with pytest.raises(NotImplementedError, match="in the server"):
        use(cache)


def test_wrong_caches(attached, load):
    model, _ = attached()
    with pytest.raises(ValueError, match="DynamicCache\\(config=model.config\\)"):
        model(**prompt(5), past_key_values=DynamicCache())
    with pytest.raises(ValueError, match="local GDN layers"):
        again(model, begin(load("qwen3_next"), 5))
    cache = begin(model, 5, 3)
    with pytest.raises(ValueError, match="a batch of 2, not of 1"):
        again(model, cache)
    again(model, cache, 2)  # nothing was done


def test_static_cache(attached):
    model, _ = attached()
    want = model.generate(**prompt(5, 3), max_new_tokens=8)
    got = model.generate(**prompt(5, 3), max_new_tokens=8, cache_implementation="static")
    assert torch.equal(got, want)


def test_no_gradients(attached):
    model, _ = attached()
    loss = model(**prompt(5), labels=prompt(5)["input_ids"]).loss
    with pytest.raises(NotImplementedError, match="no gradients"):
        loss.backward()


def test_packed_sequences(attached):
    model, _ = attached()
    with pytest.raises(NotImplementedError, match="packed"):
        model(**prompt(5), cu_seq_lens_q=torch.tensor([0, 2, 5]))


def test_no_free_slot(load, serve):
    server = serve("qwen3_next", slots=2)
    with Client(server.target, retry=NO_RETRY) as client:
        with hf.attach(load("qwen3_next"), client) as attachment:
            model = attachment.model
            with pytest.raises(ResourceExhausted):
                begin(model, 5, 3, 4)
            assert not ids(client)
            again(model, begin(model, 5, 3), 2)


class Lost(grpc.RpcError):
    code = lambda self: grpc.StatusCode.UNAVAILABLE  # noqa: E731
    details = lambda self: "the answer was lost"  # noqa: E731
    trailing_metadata = lambda self: ()  # noqa: E731


class Forgetful(Client):
    """Loses every nth answer to a step that the server gave."""

    calls, lost, nth = 0, 0, 3

    def _once(self, call, timeout, wait_for_ready=False):
        answer = super()._once(call, timeout, wait_for_ready)
        if call.path.endswith(("Prefill", "Decode")):
            self.calls += 1
            if self.calls % self.nth == 0:
                self.lost += 1
                raise Lost()
        return answer


def test_lost_answers_are_asked_for_again(serve, load):
    model = load("qwen3_next")
    run = lambda: model.generate(  # noqa: E731
        **prompt(20, 7), max_new_tokens=16, do_sample=False, prefill_chunk_size=8
    )
    want = run()
    with Forgetful(serve("qwen3_next").target) as client, hf.attach(model, client):
        assert torch.equal(run(), want)
        assert client.lost > 20


def test_a_step_that_failed_ends_the_cache(serve, load, empty):
    """Its layers are at different positions; another cache is not concerned."""
    model, target = load("qwen3_next"), serve("qwen3_next").target
    with Forgetful(target, retry=NO_RETRY) as client, hf.attach(model, client):
        client.nth = 11  # the third layer of the third pass
        cache, other = begin(model, 5), begin(model, 5)
        with pytest.raises(Unavailable, match="lost"):
            again(model, cache)
        with pytest.raises(hf.CacheLost, match="the answer was lost"):
            again(model, cache)
        again(model, other)
        del cache, other
        gc.collect()
        empty(client)


def test_a_pass_that_broke_off(attached):
    model, _ = attached()
    cache = begin(model, 5)

    def fail(*_):
        raise KeyError("between two layers")

    hook = model.model.layers[1].mlp.register_forward_hook(fail)
    with pytest.raises(KeyError):
        again(model, cache)
    hook.remove()
    with pytest.raises(hf.CacheLost, match="broke off"):
        again(model, cache)


def test_a_restart_of_the_server(start, load, model_directory, tmp_path):
    """NotFound at the next step, and a new cache works."""
    model = load("qwen3_next")
    flags = dict(listen=f"unix:{tmp_path}/gdn.sock", slots=8)
    first = start(model_directory("qwen3_next"), **flags)
    attachment = hf.attach(model, first.target)
    cache = begin(model, 5, 3)
    want = model.generate(**prompt(5, 3), max_new_tokens=8)
    first.kill()
    second = start(model_directory("qwen3_next"), **flags)
    with pytest.raises(NotFound) as e:
        again(model, cache, 2)
    assert e.value.reason == "SEQUENCE_NOT_FOUND" and e.value.instance_id
    with pytest.raises(hf.CacheLost, match="SEQUENCE_NOT_FOUND"):
        again(model, cache, 2)
    assert torch.equal(model.generate(**prompt(5, 3), max_new_tokens=8), want)
    attachment.detach()
    second.stop()


def test_detach_where_the_server_is_gone(start, load, model_directory):
    model = load("qwen3_next")
    want = model.generate(**prompt(5), max_new_tokens=4)
    server = start(model_directory("qwen3_next"), slots=8)
    hf.attach(model, server.target)
    cache = begin(model, 5)
    server.kill()
    hf.detach(model)
    assert torch.equal(model.generate(**prompt(5), max_new_tokens=4), want)
    del cache
