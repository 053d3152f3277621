"""Small models of both families with random weights, saved as Transformers saves them."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import (
    Qwen3_5Config,
    Qwen3_5ForCausalLM,
    Qwen3_5ForConditionalGeneration,
    Qwen3_5MoeForCausalLM,
    Qwen3_5MoeTextConfig,
    Qwen3_5TextConfig,
    Qwen3NextConfig,
    Qwen3NextForCausalLM,
)

VOCABULARY, PAD = 96, 0

TEXT = dict(
    vocab_size=VOCABULARY,
    hidden_size=64,
    intermediate_size=96,
    num_hidden_layers=5,
    layer_types=["linear_attention", "linear_attention", "full_attention"]
    + ["linear_attention"] * 2,
    num_attention_heads=2,
    num_key_value_heads=1,
    head_dim=32,
    linear_num_key_heads=2,
    linear_num_value_heads=4,
    linear_key_head_dim=64,
    linear_value_head_dim=64,
    initializer_range=0.15,  # so that the most likely token is so by a margin
    pad_token_id=PAD,
    eos_token_id=None,
)
EXPERTS = dict(
    num_experts=4,
    num_experts_per_tok=2,
    moe_intermediate_size=32,
    shared_expert_intermediate_size=32,
)
VISION = dict(
    depth=1,
    hidden_size=32,
    intermediate_size=32,
    num_heads=2,
    out_hidden_size=64,
    patch_size=4,
)

FAMILIES = ("qwen3_next", "qwen3_5", "qwen3_5_moe", "qwen3_5_vision")


def _new(family: str) -> torch.nn.Module:
    if family == "qwen3_next":
        return Qwen3NextForCausalLM(Qwen3NextConfig(**TEXT, **EXPERTS))
    if family == "qwen3_5":
        return Qwen3_5ForCausalLM(Qwen3_5TextConfig(**TEXT))
    if family == "qwen3_5_moe":
        return Qwen3_5MoeForCausalLM(Qwen3_5MoeTextConfig(**TEXT, **EXPERTS))
    return Qwen3_5ForConditionalGeneration(Qwen3_5Config(text_config=TEXT, vision_config=VISION))


@torch.no_grad()
def make(family: str, directory: Path, seed: int = 0, saved: torch.dtype = torch.float32) -> Path:
    """Writes the checkpoint. Its states decay slowly, so that all of a prompt counts."""
    torch.manual_seed(seed)
    model = _new(family)
    for module in model.modules():
        if hasattr(module, "A_log"):
            module.A_log.uniform_(0.0, 1.0)
            module.dt_bias.uniform_(-5.0, -2.0)
    model.to(saved).save_pretrained(directory)
    return directory


def prompt(*lengths: int, seed: int = 0) -> dict[str, torch.Tensor]:
    """Random prompts of these lengths, padded on the left: the arguments of generate()."""
    generator, longest = torch.Generator().manual_seed(seed), max(lengths)
    ids = torch.randint(1, VOCABULARY, (len(lengths), longest), generator=generator)
    mask = torch.arange(longest) >= longest - torch.tensor(lengths)[:, None]
    return {"input_ids": ids.where(mask, PAD), "attention_mask": mask.long()}
