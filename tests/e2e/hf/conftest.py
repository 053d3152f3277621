"""Fixtures of the tests that need torch and transformers; where these are not installed there are no
such tests (./dev test --transformers)."""

import importlib.util
import sys
from pathlib import Path

import pytest

if importlib.util.find_spec("transformers") is None:
    collect_ignore_glob = ["*_test.py"]
else:
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    import models
    import torch
    from gdn_client import hf
    from server_process import poll
    from transformers import AutoModelForCausalLM, Qwen3_5ForConditionalGeneration

    torch.set_num_threads(1)  # beside the server's

FLAGS = dict(slots=16, max_rows=8, max_tokens=96)


@pytest.fixture(scope="session")
def model_directory(tmp_path_factory):
    """model_directory(family, **options): where models.make wrote the checkpoint."""
    made = {}

    def get(family: str, **options) -> Path:
        key = family, *sorted((name, str(value)) for name, value in options.items())
        if key not in made:
            made[key] = models.make(family, tmp_path_factory.mktemp(family), **options)
        return made[key]

    return get


@pytest.fixture
def load(model_directory):
    """load(family, dtype): the model, as a caller has it."""

    def get(family: str, dtype=None, **options):
        vision = family == "qwen3_5_vision"
        kind = Qwen3_5ForConditionalGeneration if vision else AutoModelForCausalLM
        directory = model_directory(family, **options)
        return kind.from_pretrained(directory, dtype=dtype or torch.float32).eval()

    return get


@pytest.fixture(scope="session")
def serve(start, model_directory):
    """serve(family, **flags): a server of the family's checkpoint; the same arguments share one."""
    servers = {}

    def get(family: str, **flags):
        key = family, *sorted(flags.items())
        if key not in servers:
            servers[key] = start(model_directory(family), **(FLAGS | flags))
        return servers[key]

    return get


@pytest.fixture
def attached(serve, load):
    """attached(family): (model, attachment); afterwards nothing may be left in the server."""
    attachments = []

    def get(family: str = "qwen3_next", dtype=None, **flags):
        model = load(family, dtype)
        attachments.append(hf.attach(model, serve(family, **flags).target))
        return model, attachments[-1]

    yield get
    for attachment in attachments:
        attachment.detach()


@pytest.fixture
def empty():
    """empty(client): waits until the server has no sequence."""
    return lambda client: poll(lambda: not list(client.list_sequences()))
