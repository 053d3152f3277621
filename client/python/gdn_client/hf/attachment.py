"""Puts a server's layers in the place of a model's own, and takes them out again."""

from __future__ import annotations

import weakref
from pathlib import Path

import huggingface_hub
from torch import nn
from transformers import GenerationMixin, PreTrainedModel
from transformers.generation.configuration_utils import GenerationMode

from ..client import Client
from ..layout import Layout
from . import weights
from .fingerprint import fingerprint
from .layer import RemoteGatedDeltaNet
from .leases import Leases
from .session import Remote

_FAMILIES = {"Qwen3NextGatedDeltaNet", "Qwen3_5GatedDeltaNet", "Qwen3_5MoeGatedDeltaNet"}
_MODES = (GenerationMode.GREEDY_SEARCH, GenerationMode.SAMPLE)
_TIMEOUT = 60.0  # seconds for a try of a call: a long prefill is one


class OtherWeights(ValueError):
    """The server does not have the model's weights."""


class Attachment:
    """A model whose GDN layers are a server's. As a context manager it ends with the block."""

    def __init__(self, model: PreTrainedModel, client: Client, *, owned: bool):
        self.model, self.client = model, client
        self._local = _gdn_layers(model)
        leases = Leases(client)
        self.remote = Remote(client, leases, tuple(sorted(self._local)))
        # It also ends when the model is collected, and with the program.
        self._end = weakref.finalize(self, _end, leases, client if owned else None)
        for number, (parent, _) in self._local.items():
            parent.linear_attn = RemoteGatedDeltaNet(self, number)
        if isinstance(model, GenerationMixin):
            _guard_generate(model)

    def __enter__(self) -> Attachment:
        return self

    def __exit__(self, *_) -> None:
        self.detach()

    def detach(self) -> None:
        """Gives the model its own layers back and releases every sequence."""
        for parent, local in self._local.values():
            parent.linear_attn = local
        self._local = {}
        self.model.__dict__.pop("_validate_generation_mode", None)
        self._end()


def attach(
    model: PreTrainedModel, server: str | Client, *, checkpoint: str | Path | None = None
) -> Attachment:
    """Puts a server's layers in the place of every GDN layer of a Qwen3-Next or Qwen3.5 model.

        attach(model, "127.0.0.1:50051")
        model.generate(**inputs)  # as before
        detach(model)

    server      "host:port" or "unix:/path", or a Client, which is left open
    checkpoint  directory of the checkpoint that the model was loaded from; None: as the model says.
                It is looked at where the model was loaded in other types than its own.

    Raises ValueError where the model has no such layers, or has been attached; OtherWeights where the
    server serves another checkpoint; what Client raises.
    """
    layers = _gdn_layers(model)
    owned = not isinstance(server, Client)
    client = Client(server, timeout=_TIMEOUT) if owned else server
    try:
        _compare(
            client, model, {number: local for number, (_, local) in layers.items()}, checkpoint
        )
        return Attachment(model, client, owned=owned)
    except BaseException:
        if owned:
            client.close()
        raise


def detach(model: PreTrainedModel) -> None:
    """Gives the model its own layers back, and releases all that is in the server. Of caches that
    were filled meanwhile none can be used any more.

    Raises ValueError where the model was not attached.
    """
    remote = (m for m in model.modules() if isinstance(m, RemoteGatedDeltaNet))
    if (layer := next(remote, None)) is None:
        raise ValueError("the model is not attached to a server")
    layer.attachment.detach()


def _end(leases: Leases, client: Client | None) -> None:
    leases.close()
    if client is not None:
        client.close()


def _gdn_layers(model: nn.Module) -> dict[int, tuple[nn.Module, nn.Module]]:
    """{N of model.layers.N: (decoder layer, its GDN layer)}"""
    found = {}
    for parent in model.modules():
        local = getattr(parent, "linear_attn", None)
        if isinstance(local, RemoteGatedDeltaNet):
            raise ValueError("the model is attached to a server already: detach it first")
        if any(kind.__name__ in _FAMILIES for kind in type(local).__mro__):
            found[local.layer_idx] = parent, local
    if not found:
        raise ValueError(f"{type(model).__name__} has no GDN layers of Qwen3-Next or Qwen3.5")
    return found


def _compare(client: Client, model, layers: dict[int, nn.Module], checkpoint) -> None:
    """Raises OtherWeights unless the server has the loaded weights, or those of the checkpoint which
    they are roundings of."""
    info, config = client.info, model.config.get_text_config(decoder=True)
    if Layout.HIDDEN not in info.input_layouts:
        raise OtherWeights("the server has a checkpoint without projections")
    loaded = weights.of_modules(layers)
    own = fingerprint(config, loaded)
    if own == info.model_fingerprint:
        return
    text = f"the server's weights are {info.model_fingerprint}, the model's {own}"
    directory = Path(checkpoint) if checkpoint else _directory(model)
    if directory is None:
        raise OtherWeights(f"{text}; of what checkpoint the model is was not said")
    stored = weights.of_directory(directory)
    if (of_stored := fingerprint(config, stored)) != info.model_fingerprint:
        raise OtherWeights(f"{text}, those in {directory} {of_stored}")
    if not weights.are_rounded(loaded, stored):
        raise OtherWeights(f"the server's weights are those in {directory}; the model's are others")


def _directory(model: PreTrainedModel) -> Path | None:
    """Where the model was loaded from: a directory, or the hub's cache."""
    name = model.name_or_path
    if not name or Path(name).is_dir():
        return Path(name) if name else None
    try:
        config = huggingface_hub.try_to_load_from_cache(name, "config.json")
    except huggingface_hub.errors.HFValidationError:
        return None
    return Path(config).parent if isinstance(config, str) else None


def _guard_generate(model: GenerationMixin) -> None:
    """Lets generate() refuse at once what would need copies of sequences or a way back."""
    validate = model._validate_generation_mode

    def guarded(mode: GenerationMode, config, mode_arguments) -> None:
        if mode not in _MODES:
            raise NotImplementedError(
                f"generate() cannot do {mode.value} with GDN layers in a server: their sequences are "
                "neither copied nor taken back. Greedy search and sampling it can."
            )
        config.disable_compile = True  # a call to a server is in no graph
        validate(mode, config, mode_arguments)

    model._validate_generation_mode = guarded
