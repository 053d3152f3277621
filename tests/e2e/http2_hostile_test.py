"""Peers that break HTTP/2 or exhaust it: the server neither ends nor grows without bound, and others
are served meanwhile.

Debian's gRPC 1.51 holds against all but three, which take as much memory as they send (CVE-2023-44487,
CVE-2023-33953): for those it is only asked to live. README says what to put in front of it.
"""

import re
import socket
import ssl
from contextlib import suppress

import certificates
import http2
import pytest
from gdn_client import Client
from http2 import (
    CONTINUATION,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    Peer,
    block,
    call,
    frame,
    literal,
    opened,
)
from steps import begin, hidden

MIB = 1 << 20
BOUND = 128 * MIB  # what one peer may take, whatever it sends
FIXED = (1, 62)  # from this gRPC on its HTTP/2 is asked to hold against all of them


@pytest.fixture(scope="module")
def server(start):
    return start(
        "small", slots=4, max_rows=4, max_tokens=64, listen="127.0.0.1:0", max_connections=64
    )


@pytest.fixture(autouse=True)
def unharmed(server):
    """A client steps a sequence before and after each attack; memory stays within the bound."""
    with Client(server.target, timeout=60) as client:
        handle = begin(client, "honest")
        yield
        client.decode(0, client.rows(**handle, positions=[3]), hidden(client, 1))
        client.release(["honest"])
    assert server.alive


@pytest.fixture(scope="module")
def fixed(server) -> bool:
    version = re.search(r'"grpc":"(\d+)\.(\d+)', server.log.read_text())
    return (int(version[1]), int(version[2])) >= FIXED


def attack(server, frames, bounded: bool = True) -> None:
    """Sends all frames, or as many as the server takes, and looks at its memory."""
    before = most = server.resident()
    with Peer(server.target) as peer:
        with suppress(ConnectionError):
            for i, data in enumerate(frames):
                peer.send(data)
                if i % 64 == 0:
                    most = max(most, server.resident())
        peer.await_pong()
        most = max(most, server.resident())
    assert not bounded or most - before < BOUND, f"{(most - before) / MIB:.0f} MiB"


def test_a_bomb_of_references(server):
    """One large header in the table, then thousands of one-byte references to it in each block."""
    large = literal(b"x-large", b"x" * 3900, indexed=True)
    bomb = block(call()) + http2.reference(62) * 15000
    frames = [frame(HEADERS, END_HEADERS | END_STREAM, 1, block(call()) + large)]
    frames += [frame(HEADERS, END_HEADERS | END_STREAM, 3 + 2 * i, bomb) for i in range(30)]
    attack(server, frames)


def test_a_table_that_is_to_grow(server):
    """Updates of the table's size beyond what the server's settings allow."""
    sizes = (4096, 65536, 1 << 30)
    update = [http2.number(size, 5, 0x20) for size in sizes]
    filler = b"".join(literal(b"x-%d" % i, b"y" * 1000, indexed=True) for i in range(10))
    frames = [
        frame(HEADERS, END_HEADERS | END_STREAM, 1 + 2 * i, u + block(call()) + filler)
        for i, u in enumerate(update * 100)
    ]
    attack(server, frames)


def test_rapid_reset(server, fixed):
    attack(server, http2.rapid_reset(20_000 if fixed else 2000), fixed)


def test_calls_that_are_begun_and_left(server):
    """More calls than are allowed, none of which sends its message."""
    attack(
        server,
        (opened(s, call(b"/gdn.v1.GdnService/Decode"), END_HEADERS) for s in range(1, 8001, 2)),
    )


def test_endless_continuation(server, fixed):
    attack(server, http2.endless_continuation(10_000 if fixed else 500), fixed)


def test_empty_continuations(server):
    def frames():
        yield frame(HEADERS, 0, 1, block(call()))
        for _ in range(2000):
            yield frame(CONTINUATION, 0, 1) * 100

    attack(server, frames())


def test_a_header_that_does_not_end(server, fixed):
    attack(server, http2.endless_header(4096 if fixed else 256), fixed)


@pytest.mark.parametrize("kind", ["PING", "SETTINGS", "PRIORITY", "WINDOW_UPDATE"])
def test_floods_of_control_frames(server, kind):
    payload = dict(
        PING=b"abcdefgh", SETTINGS=b"", PRIORITY=b"\0\0\0\0\1", WINDOW_UPDATE=b"\0\0\0\1"
    )[kind]
    stream = 1 if kind == "PRIORITY" else 0
    attack(server, [frame(getattr(http2, kind), 0, stream, payload) * 1000] * 200)


PSEUDO_HEADERS = {
    "no path": [h for h in call() if h[0] != b":path"],
    "no method": [h for h in call() if h[0] != b":method"],
    "two paths": [*call(), (b":path", b"/other")],
    "an empty path": call(b""),
    "a path without a slash": call(b"gdn"),
    "a path that is not UTF-8": call(b"/\xff\xfe\x00"),
    "a path of 100 kB": call(b"/" + b"x" * 100_000),
    "GET": [(b":method", b"GET"), *call()[1:]],
    "CONNECT": [(b":method", b"CONNECT"), *call()[1:]],
    "one that nobody knows": [(b":protocol", b"websocket"), *call()],
    "a status": [(b":status", b"200"), *call()],
    "after others": [*call()[3:], *call()[:3]],
    "upper case": [*call(), (b"X-Upper", b"y")],
    "an empty name": [*call(), (b"", b"y")],
    "a name with a colon": [*call(), (b"x:y", b"z")],
    "line breaks": [*call(), (b"x-y", b"a\r\nb: c\0")],
    "a connection header": [*call(), (b"connection", b"close")],
    "no content type": call()[:-1],
    "a timeout that is none": [*call(), (b"grpc-timeout", b"forever")],
    "a timeout of ages": [*call(), (b"grpc-timeout", b"99999999H")],
    "a length that is none": [*call(), (b"content-length", b"-5")],
    "binary that is no base64": [*call(), (b"x-bin", b"\xff!")],
    "an encoding that nobody knows": [*call(), (b"grpc-encoding", b"lzma")],
    "none at all": [(b"x", b"y")],
}


@pytest.mark.parametrize("name", PSEUDO_HEADERS)
def test_headers_that_are_wrong(server, name):
    data = block(PSEUDO_HEADERS[name])
    pieces = [data[i : i + 16000] for i in range(0, len(data), 16000)]
    frames = [frame(HEADERS, END_STREAM | (END_HEADERS if len(pieces) == 1 else 0), 1, pieces[0])]
    for i, piece in enumerate(pieces[1:], 2):
        frames.append(frame(CONTINUATION, END_HEADERS if i == len(pieces) else 0, 1, piece))
    attack(server, frames)


def index(value: int) -> bytes:
    return frame(HEADERS, END_HEADERS | END_STREAM, 1, http2.reference(value))


BROKEN = {
    "a reference to nothing": index(9999),
    "a reference to 0": index(0),
    "a number that does not end": frame(HEADERS, END_HEADERS, 1, b"\xff" * 100),
    "Huffman that is none": frame(HEADERS, END_HEADERS, 1, b"\x00\x81\xff\x81\xff"),
    "a header cut short": frame(HEADERS, END_HEADERS, 1, b"\x00\x05ab"),
    "an even stream": opened(2),
    "stream 0": opened(0),
    "a stream of before": opened(5) + opened(3),
    "data on stream 0": frame(http2.DATA, 0, 0, b"x"),
    "data on no stream": frame(http2.DATA, 0, 7, b"x"),
    "a continuation of nothing": frame(CONTINUATION, END_HEADERS, 1, b""),
    "another frame among continuations": frame(HEADERS, 0, 1, block(call()))
    + frame(http2.PING, 0, 0, b"12345678"),
    "a frame of 16 MiB": frame(http2.DATA, 0, 1, b"x" * 100, size=(1 << 24) - 1),
    "padding beyond the frame": frame(
        HEADERS, http2.PADDED | END_HEADERS, 1, b"\xff" + block(call())
    ),
    "a window beyond its size": frame(http2.WINDOW_UPDATE, 0, 0, b"\x7f\xff\xff\xff") * 3,
    "a window of 0": frame(http2.WINDOW_UPDATE, 0, 0, b"\0\0\0\0"),
    "settings of a wrong size": frame(http2.SETTINGS, 0, 0, b"12345"),
    "settings out of range": frame(
        http2.SETTINGS, 0, 0, b"\0\5\xff\xff\xff\xff\0\4\xff\xff\xff\xff"
    ),
    "a push": frame(http2.PUSH_PROMISE, END_HEADERS, 1, b"\0\0\0\2" + block(call())),
    "a type that nobody knows": frame(99, 255, 1, b"x" * 100),
    "a message of 4 GiB": opened(1, flags=END_HEADERS)
    + frame(http2.DATA, END_STREAM, 1, b"\0\xff\xff\xff\xff"),
    "a message cut short": opened(1, flags=END_HEADERS)
    + frame(http2.DATA, END_STREAM, 1, b"\0\0\0\0\5ab"),
    "a compressed message that is none": opened(1, flags=END_HEADERS)
    + frame(http2.DATA, END_STREAM, 1, b"\1\0\0\0\2ab"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_frames_that_are_wrong(server, name):
    attack(server, [BROKEN[name]])


def test_more_connections_than_are_taken(server):
    """They say nothing. Who is connected stays so; who comes later gets in once they are gone."""
    before, peers = server.resident(), []
    for _ in range(600):
        with suppress(ConnectionError):
            peers.append(Peer(server.target, hello=b""))
    assert server.resident() - before < BOUND
    for peer in peers:
        peer.socket.close()
    with Client(server.target, connect_timeout=60):
        pass


SLOW = {
    "nothing": b"",
    "half a preface": http2.PREFACE[:10],
    "no settings": http2.PREFACE,
    "half its settings": http2.PREFACE + frame(http2.SETTINGS, payload=b"123456")[:-3],
}


def test_who_does_not_finish_its_hello_is_sent_away(server):
    peers = [Peer(server.target, hello) for hello in SLOW.values()]
    for peer in peers:
        list(peer.frames())  # until the server ends it


def test_a_peer_that_never_reads(server):
    """Its answers wait in the server, but no more of them than its window takes."""

    def frames():
        for stream in range(1, 6001, 2):
            yield opened(stream, flags=END_HEADERS) + frame(
                http2.DATA, END_STREAM, stream, b"\0" * 5
            )

    attack(server, frames())


def test_mutual_tls_keeps_strangers_from_http2(start, tmp_path):
    """What a stranger sends is refused before it is HTTP/2, whatever gRPC does with that."""
    ca = certificates.authority(tmp_path, "ca")
    mine = certificates.issue(tmp_path, "server", ca)
    tls = dict(tls_cert=mine.cert, tls_key=mine.key, tls_client_ca=ca.cert)
    guarded = start("small", slots=4, max_rows=4, max_tokens=64, listen="127.0.0.1:0", **tls)
    context = ssl.create_default_context(cafile=ca.cert)
    context.set_alpn_protocols(["h2"])
    before = guarded.resident()
    for _ in range(20):
        with suppress(ConnectionError), Peer(guarded.target) as peer:  # in plain text
            peer.send(*(opened(stream) for stream in range(1, 2001, 2)))
            assert list(peer.frames()) == []
        with suppress(ConnectionError, ssl.SSLError):  # without a certificate
            raw = socket.create_connection(("127.0.0.1", int(guarded.target.rsplit(":", 1)[1])))
            with context.wrap_socket(raw, server_hostname="localhost") as stranger:
                stranger.sendall(http2.PREFACE + frame(http2.SETTINGS))
                assert stranger.recv(1) == b""
    assert guarded.resident() - before < BOUND and guarded.alive
