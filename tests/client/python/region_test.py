"""Memory shared with the server, without one."""

import os

import numpy as np
import pytest
from gdn_client import DataType
from gdn_client.region import Region


def object_of(name: str) -> str:
    return f"/dev/shm{name}"


@pytest.mark.parametrize("mode", [0o600, 0o666])
def test_the_object_is_there_while_it_is_registered(mode):
    seen = []

    def register(name, posix_name, size):
        status = os.stat(object_of(posix_name))
        seen.append((posix_name, size))
        assert posix_name == f"/{name}" and name.startswith("p-")
        assert status.st_mode & 0o777 == mode and status.st_blocks * 512 >= size

    mask = os.umask(0o077)
    try:
        region = Region(10000, "p", mode, register, lambda name: seen.append(name))
    finally:
        os.umask(mask)
    assert seen == [(f"/{region.name}", 10000)]
    assert not os.path.exists(object_of(f"/{region.name}"))
    region.close()
    region.close()
    assert seen[1:] == [region.name]


def test_a_refused_one_leaves_nothing_behind():
    names = []

    def refuse(name, posix_name, size):
        names.append(posix_name)
        raise ValueError("refused")

    with pytest.raises(ValueError):
        Region(4096, "p", 0o600, refuse, names.append)
    assert not os.path.exists(object_of(names[0])) and len(names) == 1


def test_arrays_are_views():
    with Region(4096, "p", 0o600, lambda *_: None, lambda _: None) as region:
        x = region.array((2, 3), np.float32, 16)
        x[:] = [[1, 2, 3], [4, 5, 6]]
        assert region.array(6, "<f4", 16).tolist() == [1, 2, 3, 4, 5, 6]
        output = region.at(0, 16).output(24, DataType.FP32, 3)
        assert output.tolist() == x.tolist() and not output.flags.writeable
        with pytest.raises(ValueError):
            region.array(4096, np.float32)
