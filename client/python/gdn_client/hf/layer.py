"""The module that stands in a model in place of a GDN layer."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import nn
from transformers.cache_utils import Cache

from .cache_layer import session_of
from .session import Session

if TYPE_CHECKING:
    from .attachment import Attachment


class _NoGradient(torch.autograd.Function):
    """A step, through which nothing can be learned: backward says so."""

    @staticmethod
    def forward(ctx, hidden_states: torch.Tensor, step) -> torch.Tensor:
        return step(hidden_states)

    @staticmethod
    def backward(ctx, gradient: torch.Tensor):
        raise NotImplementedError(
            "GDN layers in a server have no gradients: detach the model first"
        )


class RemoteGatedDeltaNet(nn.Module):
    """Called as Transformers' Qwen3NextGatedDeltaNet and Qwen3_5GatedDeltaNet are."""

    def __init__(self, attachment: Attachment, layer: int):
        super().__init__()
        self.attachment, self.layer_idx = attachment, layer

    def extra_repr(self) -> str:
        return f"layer_idx={self.layer_idx}"

    def forward(
        self,
        hidden_states: torch.Tensor,
        cache_params: Cache | None = None,
        attention_mask: torch.Tensor | None = None,
        **kwargs,
    ) -> torch.Tensor:
        if kwargs.get("cu_seq_lens_q") is not None:
            raise NotImplementedError("packed sequences are not sent to a server: pad them instead")
        if cache_params is None:
            return self._once(hidden_states, attention_mask)
        session = session_of(cache_params, self.attachment.remote)
        out = self._step(session, hidden_states, attention_mask)
        cache_params.layers[self.layer_idx].has_previous_state[0] = True
        return out

    def _once(self, hidden_states: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """Without a cache nothing of the sequences is needed afterwards."""
        session = Session(replace(self.attachment.remote, layers=(self.layer_idx,)))
        try:
            return self._step(session, hidden_states, mask)
        finally:
            session.release()

    def _step(self, session: Session, x: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        return _NoGradient.apply(x, lambda x: session.step(self.layer_idx, x, mask))
