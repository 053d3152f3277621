"""Transformers models (Qwen3-Next, Qwen3.5) on the layers of a server. Needs gdn-client[hf].

from gdn_client import hf

hf.attach(model, "127.0.0.1:50051")
model.generate(**inputs, max_new_tokens=64)
hf.detach(model)
"""

from .attachment import Attachment, OtherWeights, attach, detach
from .session import CacheLost

__all__ = ["Attachment", "CacheLost", "OtherWeights", "attach", "detach"]
