"""What peers may take: connections, calls, headers, idle time; and who may reach a socket."""

import os
import socket
import stat
from concurrent import futures

import grpc
import pytest
from gdn_client import NO_RETRY, Client, GdnError
from gdn_client.errors import from_rpc_error
from server_process import poll
from steps import begin, hidden

FLAGS = dict(slots=4, max_rows=4, max_tokens=64)
INFO = "/gdn.v1.GdnService/GetServerInfo"


@pytest.mark.parametrize("listen", ["0.0.0.0:0", "[::]:0", "127.0.0.1:0,0.0.0.0:0"])
def test_plain_text_to_other_hosts_must_be_wanted(start, listen):
    with pytest.raises(RuntimeError, match="ended with 2:(.|\n)*--listen: .*--insecure"):
        start("small", listen=listen, **FLAGS)


def test_insecure(start):
    server = start("small", listen="0.0.0.0:0", insecure=True, **FLAGS)
    port = server.target.rsplit(":", 1)[1]
    with Client(f"127.0.0.1:{port}") as client:
        assert client.health() == "SERVING"


@pytest.mark.parametrize("mode", ["0600", "0660"])
def test_the_mode_of_a_unix_socket(start, tmp_path, mode):
    path = tmp_path / "s"
    server = start("small", listen=f"unix:{path}", unix_socket_mode=mode, **FLAGS)
    assert stat.S_IMODE(os.stat(path).st_mode) == int(mode, 8)
    assert server.stop() == 0 and not path.exists()


@pytest.fixture(scope="module")
def narrow(start):
    limits = dict(max_connections=3, max_streams=2, max_metadata_bytes=2048)
    return start("small", max_connection_idle="1s", listen="127.0.0.1:0", **limits, **FLAGS)


def connect(server) -> socket.socket:
    host, port = server.target.rsplit(":", 1)
    return socket.create_connection((host, int(port)), timeout=60)


def taken(connection: socket.socket) -> bool:
    """The server says its settings first to whom it takes."""
    try:
        return bool(connection.recv(1))
    except ConnectionResetError:
        return False


def hold(server, count: int) -> list[socket.socket] | None:
    """So many connections, if all are taken."""
    held = [connect(server) for _ in range(count)]
    return held if all([taken(connection) for connection in held]) else None


def test_connections_beyond_the_limit_are_closed(narrow):
    held = poll(lambda: hold(narrow, 3))  # those of other tests may still be ending
    assert not taken(connect(narrow))
    for connection in held:
        connection.close()
    with Client(narrow.target) as client:
        assert client.health() == "SERVING"


def test_headers_beyond_the_limit(narrow):
    with grpc.insecure_channel(narrow.target) as channel:
        call = channel.unary_unary(INFO)
        call(b"", metadata=(("x-note", "x" * 1000),), wait_for_ready=True, timeout=60)
        with pytest.raises(grpc.RpcError) as e:
            call(b"", metadata=(("x-note", "x" * 4000),), timeout=60)
        assert e.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    # The server may have closed that connection, but answers on others.
    own = [("grpc.use_local_subchannel_pool", 1)]
    with grpc.insecure_channel(narrow.target, options=own) as channel:
        channel.unary_unary(INFO)(b"", timeout=60)


def test_messages_beyond_the_limit(start):
    server = start("small", max_message_bytes=100_000, **FLAGS)
    with grpc.insecure_channel(server.target) as channel:
        call = channel.unary_unary("/gdn.v1.GdnService/Decode")
        for size, code in ((90_000, "INVALID_ARGUMENT"), (110_000, "RESOURCE_EXHAUSTED")):
            with pytest.raises(grpc.RpcError) as e:
                call(b"\xff" * size, timeout=60)
            assert from_rpc_error(e.value).code.name == code


def test_more_calls_than_streams_wait_for_their_turn(narrow):
    with Client(narrow.target, retry=NO_RETRY, timeout=60) as client:
        with futures.ThreadPoolExecutor(16) as pool:
            x = hidden(client, 1)

            def run(i):
                handle = begin(client, f"s{i % 4}-{i}", layers=[0])
                client.decode(0, client.rows(**handle, release_after=True), x)

            try:
                list(pool.map(run, range(4)))
            except GdnError as e:
                pytest.fail(str(e))


def test_an_idle_connection_is_closed(narrow):
    with connect(narrow) as connection:
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
        while connection.recv(4096):  # until the server's end
            pass


def test_a_client_goes_on_after_its_connection_was_idle(narrow):
    with Client(narrow.target, timeout=60) as client:
        handle = begin(client, "idle", layers=[0])
        with connect(narrow) as other:  # idle for as long
            other.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
            while other.recv(4096):
                pass
        client.decode(0, client.rows(**handle, release_after=True), hidden(client, 1))
