"""The checkpoints of the end-to-end tests: small ones of three GDN layers, and the golden layers."""

from __future__ import annotations

from pathlib import Path

from make_checkpoint import Options, from_golden, make_checkpoint

_FOLDER = Path(__file__).resolve().parents[1] / "golden"
GOLDEN = {
    "qwen3_5": _FOLDER / "qwen3_5_prefill150_decode12.safetensors",
    "qwen3_next": _FOLDER / "qwen3_next_prefill70_decode8.safetensors",
}
_SPLIT = Options(model_type="qwen3_5", nested=False, hidden=64, dtype="fp32")
SPECS = {
    "small": dict(),
    "r3": dict(heads=1, value_heads=3, key_dim=96, value_dim=64, dtype="bf16"),
    "k128": dict(heads=2, value_heads=2, key_dim=128, value_dim=96, hidden=96, gate="sigmoid"),
    "next": dict(model_type="qwen3_next", value_heads=6, dtype="bf16"),
    "nested": dict(nested=True, shards=2, dtype="fp16", conv_bias=True),
    "core_only": dict(projections=False),
    "no_conv": dict(projections=False, conv_width=0),
}
OTHERS = {"small_other": dict(seed=5)}


def make(name: str, directory: Path) -> Path:
    """Writes the checkpoint into `directory`; -> the directory."""
    if name in GOLDEN:
        return from_golden(GOLDEN[name], directory)
    return make_checkpoint(directory, _SPLIT, **{**SPECS, **OTHERS}[name])
