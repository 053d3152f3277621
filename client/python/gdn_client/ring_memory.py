"""gdn.v1.Ring from the caller's side: two queues of messages and two bells in shared memory. Without
a lock: one thread at a time."""

from __future__ import annotations

import ctypes
import mmap
import platform
import struct
import threading

WORDS = 512
TO_READ, TO_WRITE = 1, 2  # what a side sleeps for

# Indices of the words: of 8 bytes, and of the bells of 4 (what their sides sleep for is the next).
_REQUESTS_WRITTEN, _REQUESTS_READ, _RESPONSES_WRITTEN, _RESPONSES_READ = 0, 8, 16, 24
_SERVER, _CALLER = 64, 80
_FUTEX_WAIT, _FUTEX_WAKE, _SYS_FUTEX = 0, 1, 202
_syscall = ctypes.CDLL(None).syscall


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


def record_bytes(size: int) -> int:
    """The bytes of a message in its queue."""
    return 8 + (size + 7) // 8 * 8


class RingMemory:
    """At the start of `memory`, with queues of `size` bytes each."""

    def __init__(self, memory: mmap.mmap, size: int):
        if platform.machine() != "x86_64":
            raise NotImplementedError("a ring relies on the order in which x86-64 stores")
        self.size = size
        view = memoryview(memory)
        self._words, self._bells = view[:WORDS].cast("Q"), view[:WORDS].cast("I")
        self._requests = view[WORDS : WORDS + size]
        self._responses = view[WORDS + size : WORDS + 2 * size]
        self._address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        self._written = self._read = 0
        self._fence = threading.Lock()

    def has_room(self, request: bytes) -> bool:
        used = self._written - self._words[_REQUESTS_READ]
        return used + record_bytes(len(request)) <= self.size

    def write(self, request: bytes) -> None:
        """Posts a request, for which there is room."""
        data = struct.pack("<Q", len(request)) + request
        begin = self._written % self.size
        first = data[: self.size - begin]
        self._requests[begin : begin + len(first)] = first
        self._requests[: len(data) - len(first)] = data[len(first) :]
        self._written += record_bytes(len(request))
        self._words[_REQUESTS_WRITTEN] = self._written
        self._ring(TO_READ)

    def read(self) -> bytes | None:
        """Takes a response; None: there is none."""
        if self._words[_RESPONSES_WRITTEN] == self._read:
            return None
        (size,) = struct.unpack("<Q", self._bytes(self._read, 8))
        data = self._bytes(self._read + 8, size)
        self._read += record_bytes(size)
        self._words[_RESPONSES_READ] = self._read
        self._ring(TO_WRITE)
        return data

    def _bytes(self, at: int, size: int) -> bytes:
        begin = at % self.size
        data = bytes(self._responses[begin : begin + size])
        return data + bytes(self._responses[: size - len(data)])

    def sleep(self, what: int, timeout: float | None, over) -> None:
        """Sleeps until there is a response or (TO_WRITE) a request was read, unless it is over();
        may wake for nothing."""
        seen, read = self._bells[_CALLER], self._words[_REQUESTS_READ]
        self._bells[_CALLER + 1] = what
        self._order()
        room = what & TO_WRITE and self._words[_REQUESTS_READ] != read
        if self._words[_RESPONSES_WRITTEN] == self._read and not room and not over():
            limit = None
            if timeout is not None:
                limit = ctypes.byref(_Timespec(int(timeout), int(timeout % 1 * 1e9)))
            self._futex(_CALLER, _FUTEX_WAIT, seen, limit)
        self._bells[_CALLER + 1] = 0

    def wake(self) -> None:
        """Ends a sleep; from any thread."""
        self._wake(_CALLER)

    def _ring(self, what: int) -> None:
        self._order()
        if self._bells[_SERVER + 1] & what:
            self._wake(_SERVER)

    def _order(self) -> None:
        """What was stored before is seen before what is loaded after: a lock is a full fence."""
        with self._fence:
            pass

    def _wake(self, bell: int) -> None:
        self._bells[bell] = (self._bells[bell] + 1) & 0xFFFFFFFF
        self._futex(bell, _FUTEX_WAKE, 0x7FFFFFFF, None)

    def _futex(self, bell: int, operation: int, value: int, limit) -> None:
        word = ctypes.c_void_p(self._address + 4 * bell)
        _syscall(_SYS_FUTEX, word, operation, ctypes.c_uint32(value), limit, None, 0)
