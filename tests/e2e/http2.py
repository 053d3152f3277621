"""HTTP/2 frames by hand, for what no library would send."""

from __future__ import annotations

import socket

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
(
    DATA,
    HEADERS,
    PRIORITY,
    RST_STREAM,
    SETTINGS,
    PUSH_PROMISE,
    PING,
    GOAWAY,
    WINDOW_UPDATE,
    CONTINUATION,
) = range(10)
END_STREAM, ACK, END_HEADERS, PADDED = 1, 1, 4, 8


def frame(kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"", size=None) -> bytes:
    """`size`: what the frame says of itself, where that is not true."""
    length = (len(payload) if size is None else size).to_bytes(3, "big")
    return length + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def number(value: int, prefix: int, first: int = 0) -> bytes:
    """An HPACK integer whose first byte has `prefix` bits of it, beside the bits of `first`."""
    most = (1 << prefix) - 1
    if value < most:
        return bytes([first | value])
    out, value = [first | most], value - most
    while value >= 128:
        out.append(value % 128 | 128)
        value //= 128
    return bytes([*out, value])


def text(value: bytes, size: int | None = None) -> bytes:
    return number(len(value) if size is None else size, 7) + value


def literal(name: bytes, value: bytes, indexed: bool = False) -> bytes:
    """A header; `indexed`: it goes into the dynamic table."""
    return (b"\x40" if indexed else b"\x00") + text(name) + text(value)


def reference(index: int) -> bytes:
    """A header of the tables; the newest of the dynamic one is 62."""
    return number(index, 7, 0x80)


def call(path: bytes = b"/gdn.v1.GdnService/GetServerInfo") -> list[tuple[bytes, bytes]]:
    return [
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", path),
        (b":authority", b"test"),
        (b"te", b"trailers"),
        (b"content-type", b"application/grpc"),
    ]


def block(headers: list[tuple[bytes, bytes]]) -> bytes:
    return b"".join(literal(*header) for header in headers)


def opened(stream: int, headers=None, flags: int = END_HEADERS | END_STREAM) -> bytes:
    return frame(HEADERS, flags, stream, block(headers or call()))


def rapid_reset(calls: int):
    """Calls that are begun and cancelled at once."""
    for stream in range(1, 2 * calls, 2):
        yield opened(stream) + frame(RST_STREAM, 0, stream, (8).to_bytes(4, "big"))


def endless_continuation(frames: int):
    """More and more headers of a call."""
    yield frame(HEADERS, 0, 1, block(call()))
    for _ in range(frames):
        yield frame(CONTINUATION, 0, 1, literal(b"x-more", b"y" * 1000) * 15)


def endless_header(frames: int):
    """One that says of itself that it has 256 MiB, in pieces."""
    begun = b"\x00" + text(b"x-long") + number(1 << 28, 7)
    yield frame(HEADERS, 0, 1, block(call()) + begun)
    for _ in range(frames):
        yield frame(CONTINUATION, 0, 1, b"y" * 16000)


class Peer:
    """A connection that said its preface and settings. Sends raise ConnectionError once the server
    has ended it."""

    def __init__(self, target: str, hello: bytes = PREFACE + frame(SETTINGS), tls=None):
        """tls: an ssl.SSLContext, for a server called localhost."""
        if target.startswith("unix:"):
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.connect(target[5:])
        else:
            host, port = target.rsplit(":", 1)
            self.socket = socket.create_connection((host, int(port)))
        self.socket.settimeout(60)
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_hostname="localhost")
        self.socket.sendall(hello)

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_) -> None:
        self.socket.close()

    def send(self, *frames: bytes) -> None:
        self.socket.sendall(b"".join(frames))

    def frames(self):
        """(type, flags, stream, payload) of what comes, until the server ends the connection."""
        read = self.socket.makefile("rb")
        try:
            while len(head := read.read(9)) == 9:
                payload = read.read(int.from_bytes(head[:3], "big"))
                yield head[3], head[4], int.from_bytes(head[5:], "big"), payload
        except ConnectionError:
            pass

    def await_pong(self) -> None:
        """Returns once the server has read what was sent, or ended the connection."""
        try:
            self.send(frame(PING, payload=b"12345678"))
        except ConnectionError:
            return
        for kind, flags, _, payload in self.frames():
            if kind == PING and flags & ACK and payload == b"12345678":
                return
