"""generate() of a Transformers model on a server's layers, over a Unix socket, beside the same model
with its own: Qwen3.5 in fp32 on the CPU, hidden 2048, 16/32 heads, K = V = 128.

    hf_generate.py --server=build/cpu/server/gdn-server [--layers=4] [--prompts=1,8] [...]

Both generate the same tokens in turn, `--rounds` times; prints the medians in tokens per second, the
prompts' tokens not counted. Needs torch and transformers.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch
from gdn_client import hf
from transformers import Qwen3_5ForCausalLM, Qwen3_5TextConfig

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "e2e"))
from server_process import ServerProcess  # noqa: E402


def save_model(directory: Path, layers: int) -> Qwen3_5ForCausalLM:
    torch.manual_seed(0)
    config = Qwen3_5TextConfig(
        vocab_size=4096,
        hidden_size=2048,
        intermediate_size=5632,
        num_hidden_layers=layers,
        num_attention_heads=16,
        num_key_value_heads=2,
        head_dim=128,
        linear_num_key_heads=16,
        linear_num_value_heads=32,
        linear_key_head_dim=128,
        linear_value_head_dim=128,
        pad_token_id=0,
        eos_token_id=None,
    )
    model = Qwen3_5ForCausalLM(config).eval()
    model.save_pretrained(directory)
    return model


def generate(model, prompts: torch.Tensor, new_tokens: int) -> tuple[torch.Tensor, float]:
    """(tokens, seconds)"""
    begin = time.perf_counter()
    tokens = model.generate(
        input_ids=prompts,
        attention_mask=torch.ones_like(prompts),
        max_new_tokens=new_tokens,
        do_sample=False,
    )
    return tokens, time.perf_counter() - begin


def compare(model, server: ServerProcess, prompts: torch.Tensor, args) -> tuple[float, float]:
    """Seconds with the model's own layers, and with the server's."""
    local, remote = [], []
    for round_ in range(args.rounds + 1):
        want, own = generate(model, prompts, args.new_tokens)
        with hf.attach(model, server.target):
            got, served = generate(model, prompts, args.new_tokens)
        if not torch.equal(want, got):
            sys.exit("the tokens differ")
        if round_ > 0:  # the first warms up
            local.append(own)
            remote.append(served)
    return statistics.median(local), statistics.median(remote)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--server", type=Path, required=True)
    parser.add_argument("--layers", type=int, default=4, help="of which every fourth is attention")
    parser.add_argument("--prompts", default="1,8")
    parser.add_argument("--prompt_tokens", type=int, default=64)
    parser.add_argument("--new_tokens", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=0, help="of each; 0: all cores")
    args = parser.parse_args()
    torch.set_num_threads(args.threads or os.cpu_count())
    with tempfile.TemporaryDirectory() as folder:
        model = save_model(Path(folder) / "model", args.layers)
        flags = dict(
            listen=f"unix:{folder}/gdn.sock", backend="cpu", threads=args.threads, slots=16
        )
        server = ServerProcess(
            args.server.resolve(), Path(folder) / "model", Path(folder) / "log", **flags
        )
        server.await_ready()
        print(f"{'prompts':>7} {'local tokens/s':>15} {'remote tokens/s':>16} {'ratio':>6}")
        for batch in map(int, args.prompts.split(",")):
            prompts = torch.randint(1, 4096, (batch, args.prompt_tokens))
            local, remote = compare(model, server, prompts, args)
            tokens = batch * args.new_tokens
            print(
                f"{batch:7} {tokens / local:15.1f} {tokens / remote:16.1f} {local / remote:6.2f}",
                flush=True,
            )
        server.stop()


if __name__ == "__main__":
    main()
