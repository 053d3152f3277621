"""Requests for `ghz --binary-file`: messages of gdn.v1, each behind its length as a varint.

    payloads.py OUT [--hidden=2048] [--layer=0]

decode.bin    one token of one sequence a message, begun where it does not live yet. The sequences take
              turns, so that calls under way at once are seldom about the same one.
prefill.bin   a prompt a message, begun from nothing and released with its answer.

They run against any server that hosts the layer in bfloat16, freshly started or not.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from gdn_client import DataType, to_wire
from gdn_client.proto import message
from google.protobuf.internal.encoder import _VarintBytes as varint

SEQUENCES = 256
PROMPTS = 16
PROMPT_TOKENS = 512


def tensor(tokens: int, hidden: int, seed: int) -> bytes:
    x = np.random.default_rng(seed).uniform(-1, 1, (tokens, hidden))
    return to_wire(x, DataType.BF16).tobytes()


def decodes(hidden: int, layer: int = 0) -> list:
    request, batch = message("DecodeRequest"), message("Batch")
    return [
        request(
            layer=layer,
            batch=batch(data_type="DATA_TYPE_BF16", create=True, request_ids=[f"decode-{i}"]),
            input=tensor(1, hidden, seed=i),
        )
        for i in range(SEQUENCES)
    ]


def prefills(hidden: int, layer: int = 0, tokens: int = PROMPT_TOKENS) -> list:
    request, batch = message("PrefillRequest"), message("Batch")
    return [
        request(
            layer=layer,
            batch=batch(
                data_type="DATA_TYPE_BF16",
                create=True,
                release_after=True,
                request_ids=[f"prefill-{i}"],
                token_counts=[tokens],
            ),
            input=tensor(tokens, hidden, seed=i),
        )
        for i in range(PROMPTS)
    ]


def write(path: Path, messages: list) -> None:
    with open(path, "wb") as file:
        for data in (m.SerializeToString() for m in messages):
            file.write(varint(len(data)) + data)


def write_all(folder: Path, hidden: int, layer: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write(folder / "decode.bin", decodes(hidden, layer))
    write(folder / "prefill.bin", prefills(hidden, layer))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--hidden", type=int, default=2048)
    parser.add_argument("--layer", type=int, default=0)
    arguments = parser.parse_args()
    write_all(arguments.out, arguments.hidden, arguments.layer)


if __name__ == "__main__":
    main()
