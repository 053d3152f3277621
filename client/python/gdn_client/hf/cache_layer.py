"""What stands in a Transformers cache in place of a GDN layer's states."""

from __future__ import annotations

import torch
from transformers.cache_utils import Cache, LinearAttentionCacheLayerMixin

from .session import Remote, Session


class RemoteCacheLayer(LinearAttentionCacheLayerMixin):
    """A layer of a cache whose states are in the server, in the session that all of them share.

    What would need the states here, or a copy of them, is a NotImplementedError.
    """

    is_compileable = False
    is_croppable = False

    def __init__(self, session: Session):
        # Not the base class's: its states are tensors.
        self.session = session
        self.number_of_states = 1
        self.has_previous_state = {0: False}
        self.record_past = False

    def reset(self) -> None:
        self.session.clear()
        self.has_previous_state[0] = False

    def offload(self) -> None:
        pass

    def prefetch(self) -> None:
        pass

    def reorder_cache(self, beam_idx: torch.LongTensor) -> None:
        raise _not_here("reordered (beam search)")

    def crop(self, tokens_to_remove: int) -> None:
        raise _not_here("cropped (assisted decoding)")

    def activate_past_recording(self) -> None:
        raise _not_here("cropped (assisted decoding)")

    def batch_repeat_interleave(self, repeats: int) -> None:
        raise _not_here("repeated")

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        raise _not_here("cut down to some of its rows")

    def __deepcopy__(self, memo: dict):
        raise _not_here("copied")

    def __reduce_ex__(self, protocol):
        raise _not_here("pickled")

    @property
    def conv_states(self):
        raise _not_here("read by a local layer")

    recurrent_states = conv_states

    def lazy_initialization(self, *args, **kwargs) -> None:
        raise _not_here("written by a local layer")

    update_conv_state = update_recurrent_state = lazy_initialization


def _not_here(what: str) -> NotImplementedError:
    return NotImplementedError(
        f"the GDN states of this cache are in the server; it cannot be {what}"
    )


def session_of(cache: Cache, remote: Remote) -> Session:
    """The cache's session; a new cache is given one.

    Raises ValueError where the cache is not one for this model or holds states of other layers.
    """
    first = remote.layers[0]
    found = cache.layers[first] if first < len(cache.layers) else None
    if isinstance(found, RemoteCacheLayer):
        if found.session.remote is not remote:
            raise ValueError("the cache was filled through another attachment: take a new one")
        return found.session
    if not isinstance(found, LinearAttentionCacheLayerMixin):
        raise ValueError(
            "the cache has no GDN layers: make it with DynamicCache(config=model.config)"
        )
    if any(cache.has_previous_state(layer) for layer in remote.layers):
        raise ValueError("the cache was filled by local GDN layers: take a new one")
    session = Session(remote)
    for layer in remote.layers:
        cache.layers[layer] = RemoteCacheLayer(session)
    return session
