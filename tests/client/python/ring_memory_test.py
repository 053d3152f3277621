"""The caller's side of a ring, against the layout that gdn.v1.Ring describes."""

import mmap
import random
import struct
import threading

import pytest
from gdn_client.ring_memory import TO_READ, TO_WRITE, WORDS, RingMemory, record_bytes

SIZE = 64


class Server:
    """The other side, as the description has it: at bytes 0, 64, 128 and 192 the four positions, at
    256 and 320 the bells."""

    def __init__(self, memory: mmap.mmap):
        self.memory, self.read, self.written = memory, 0, 0

    def word(self, at: int) -> int:
        return struct.unpack_from("<Q", self.memory, at)[0]

    def queue_bytes(self, queue: int, at: int, size: int) -> bytes:
        begin = WORDS + queue * SIZE
        return bytes(self.memory[begin + (at + i) % SIZE] for i in range(size))

    def take(self) -> bytes:
        assert self.word(0) > self.read
        (size,) = struct.unpack("<Q", self.queue_bytes(0, self.read, 8))
        data = self.queue_bytes(0, self.read + 8, size)
        self.read += record_bytes(size)
        struct.pack_into("<Q", self.memory, 64, self.read)
        return data

    def answer(self, data: bytes) -> None:
        for i, byte in enumerate(struct.pack("<Q", len(data)) + data):
            self.memory[WORDS + SIZE + (self.written + i) % SIZE] = byte
        self.written += record_bytes(len(data))
        struct.pack_into("<Q", self.memory, 128, self.written)


@pytest.fixture
def sides():
    memory = mmap.mmap(-1, WORDS + 2 * SIZE)
    return RingMemory(memory, SIZE), Server(memory)


def test_requests_and_answers_go_around(sides):
    ring, server = sides
    rng = random.Random(1)
    for _ in range(500):
        request, answer = (rng.randbytes(rng.randrange(SIZE - 7)) for _ in range(2))
        assert ring.has_room(request)
        ring.write(request)
        assert server.take() == request
        assert ring.read() is None
        server.answer(answer)
        assert ring.read() == answer
    assert server.word(192) == server.written


def test_a_full_queue_has_no_room(sides):
    ring, server = sides
    ring.write(b"x" * 40)
    assert not ring.has_room(b"123456789") and ring.has_room(b"12345678")
    server.take()
    assert ring.has_room(b"123456789")


def test_a_sleeping_server_is_woken_for_what_it_sleeps_for(sides):
    ring, server = sides

    def bell():
        return struct.unpack_from("<I", server.memory, 256)[0]

    ring.write(b"")
    assert bell() == 0
    struct.pack_into("<I", server.memory, 260, TO_WRITE)
    ring.write(b"")
    assert bell() == 0
    server.answer(b"a")
    ring.read()
    assert bell() == 1
    struct.pack_into("<I", server.memory, 260, TO_READ)
    ring.write(b"")
    assert bell() == 2


def test_a_sleep_ends_by_itself_and_by_a_bell(sides):
    ring, server = sides
    ring.sleep(TO_READ, 0.001, lambda: False)
    ring.sleep(TO_READ, None, lambda: True)
    server.answer(b"a")
    ring.sleep(TO_READ, None, lambda: False)  # there is something already
    assert ring.read() == b"a"
    over = threading.Event()

    def end():
        over.set()
        ring.wake()

    thread = threading.Thread(target=end)
    thread.start()
    while not over.is_set():
        ring.sleep(TO_READ, None, over.is_set)
    thread.join()
    assert struct.unpack_from("<I", server.memory, 324)[0] == 0
