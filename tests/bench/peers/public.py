"""The public kernels, as far as they import."""

from __future__ import annotations

import importlib
import logging
import os
import sys
import types

from peers.timing import first_line

os.environ.setdefault("FLA_FLASH_QLA", "0")  # or FLA hands its calls to FlashQLA

NAMES = ("fla", "qla", "fi")  # FLA (Triton), FlashQLA (TileLang), FlashInfer (CuTe DSL)


class FlashInfer:
    """Its two modules, without the package's __init__ that wants all its dependencies."""

    def __init__(self) -> None:
        for folder in sys.path:
            if os.path.isdir(os.path.join(folder, "flashinfer", "gdn_kernels")):
                for name in ("flashinfer", "flashinfer.cute_dsl"):
                    module = types.ModuleType(name)
                    module.__path__ = [os.path.join(folder, *name.split("."))]
                    module.__version__ = "0"
                    sys.modules[name] = module
                break
        prefill = importlib.import_module("flashinfer.gdn_prefill")
        decode = importlib.import_module("flashinfer.gdn_decode")
        self.prefill = prefill.chunk_gated_delta_rule
        self.decode = decode.gated_delta_rule_decode_pretranspose


LOADERS = {
    "fla": lambda: importlib.import_module("fla.ops.gated_delta_rule"),
    "qla": lambda: importlib.import_module("flash_qla"),
    "fi": FlashInfer,
}


def load(names: list[str]) -> dict[str, object]:
    logging.disable(logging.INFO)  # of the compilers
    found = {}
    for name in names:
        try:
            found[name] = LOADERS[name]()
        except Exception as error:  # missing or broken: the others are still worth a table
            print(f"without {name}: {first_line(error)}", flush=True)
    return found
