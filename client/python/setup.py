"""Compiles ../../proto to a descriptor set when the package is built. The rest is in pyproject.toml.

The package makes its message classes from that set when it is imported, so it works with every
protobuf runtime, whatever protoc compiled the set.
"""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).resolve().parent
PROTOS = HERE.parents[1] / "proto"
NAMES = ("types", "errors", "gdn_service", "sequence_service", "shared_memory_service")
FILES = [f"gdn/v1/{name}.proto" for name in NAMES]


def compile_protos() -> None:
    import grpc_tools
    from grpc_tools import protoc

    well_known = Path(grpc_tools.__file__).parent / "_proto"
    target = HERE / "gdn_client" / "gdn_v1.binpb"
    arguments = [
        "protoc",
        f"-I{PROTOS}",
        f"-I{well_known}",
        f"--descriptor_set_out={target}",
        *FILES,
    ]
    if protoc.main(arguments) != 0:
        raise RuntimeError(f"protoc could not compile {PROTOS}")


class BuildPy(build_py):
    def run(self) -> None:
        compile_protos()
        super().run()


setup(cmdclass={"build_py": BuildPy})
