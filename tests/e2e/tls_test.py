"""TLS and mutual TLS: who is let in, certificates that change, files that are wrong."""

import asyncio
import subprocess

import certificates
import pytest
from gdn_client import NO_RETRY, AsyncClient, Client, GdnError, Tls
from server_process import poll
from steps import begin, hidden

TCP = dict(slots=4, max_rows=4, max_tokens=64, listen="127.0.0.1:0")


@pytest.fixture(scope="module")
def pki(tmp_path_factory):
    """Two authorities, and a server's and a client's certificate of each."""
    folder = tmp_path_factory.mktemp("pki")
    made = {name: certificates.authority(folder, name) for name in ("ca", "other-ca")}
    for name in ("server", "client"):
        made[name] = certificates.issue(folder, name, made["ca"])
        made[f"other-{name}"] = certificates.issue(folder, f"other-{name}", made["other-ca"])
    return made


def flags_of(pair, **more):
    return TCP | dict(tls_cert=pair.cert, tls_key=pair.key) | more


def connects(target: str, tls: Tls | None) -> bool:
    try:
        with Client(target, tls=tls, retry=NO_RETRY, connect_timeout=2):
            return True
    except GdnError as e:
        assert e.code.name in ("UNAVAILABLE", "DEADLINE_EXCEEDED"), e
        return False


@pytest.fixture(scope="module")
def tls_server(start, pki):
    return start("small", **flags_of(pki["server"]))


@pytest.fixture(scope="module")
def mutual_server(start, pki):
    return start("small", **flags_of(pki["server"], tls_client_ca=pki["ca"].cert))


def test_steps_over_tls(tls_server, pki):
    with Client(tls_server.target, tls=Tls(ca=pki["ca"].cert)) as client:
        handle = begin(client, "a")
        rows = client.rows(**handle, positions=[3])
        with client.stream() as stream:
            assert stream.decode(0, rows, hidden(client, 1)).result(60).output.shape[0] == 1
        client.release(["a"])


def test_asyncio_over_tls(tls_server, pki):
    async def run():
        async with AsyncClient(tls_server.target, tls=Tls(ca=str(pki["ca"].cert))) as client:
            return client.info

    assert asyncio.run(run()).layers == (0, 1, 2)


def test_only_who_trusts_the_server_connects(tls_server, pki):
    assert not connects(tls_server.target, None)
    assert not connects(tls_server.target, Tls(ca=pki["other-ca"].cert))
    port = tls_server.target.rsplit(":", 1)[1]
    assert connects(f"localhost:{port}", Tls(ca=pki["ca"].cert))
    assert not connects(tls_server.target, Tls(ca=pki["ca"].cert, server_name="elsewhere"))
    assert connects(tls_server.target, Tls(ca=pki["ca"].cert, server_name="localhost"))


def test_mutual_tls_takes_its_own_clients_alone(mutual_server, pki):
    def as_client(name):
        return Tls(ca=pki["ca"].cert, cert=pki[name].cert, key=pki[name].key)

    assert connects(mutual_server.target, as_client("client"))
    assert not connects(mutual_server.target, Tls(ca=pki["ca"].cert))
    assert not connects(mutual_server.target, as_client("other-client"))


def test_unix_sockets_beside_tls_are_plain(start, pki, tmp_path):
    flags = flags_of(pki["server"], listen=f"unix:{tmp_path}/s,127.0.0.1:0")
    server = start("small", **flags)
    assert connects(server.targets[0], None)
    assert connects(server.targets[1], Tls(ca=pki["ca"].cert))


def test_certificates_change_without_a_restart(start, pki, tmp_path):
    mine = certificates.issue(tmp_path, "mine", pki["ca"])
    client_ca = tmp_path / "client_ca.pem"
    client_ca.write_bytes(pki["ca"].cert.read_bytes())
    server = start("small", **flags_of(mine, tls_client_ca=client_ca, reload_interval="1s"))
    old = Tls(ca=pki["ca"].cert, cert=pki["client"].cert, key=pki["client"].key)
    new = Tls(ca=pki["other-ca"].cert, cert=pki["other-client"].cert, key=pki["other-client"].key)
    with Client(server.target, tls=old, retry=NO_RETRY) as client:
        handle = begin(client, "a")
        assert not connects(server.target, new)
        mine.replace(pki["other-server"])
        client_ca.write_bytes(pki["other-ca"].cert.read_bytes())
        poll(lambda: connects(server.target, new))
        assert not connects(server.target, old)
        # The connection of before goes on, and so does its sequence.
        client.decode(0, client.rows(**handle, positions=[3]), hidden(client, 1))


@pytest.mark.parametrize("flag", ["tls_cert", "tls_key", "tls_client_ca"])
def test_a_file_that_is_wrong_is_named(start, pki, tmp_path, flag):
    nonsense = tmp_path / "nonsense.pem"
    nonsense.write_text("no certificate\n")
    for wrong in (nonsense, tmp_path / "absent.pem"):
        flags = flags_of(pki["server"], tls_client_ca=pki["ca"].cert) | {flag: wrong}
        with pytest.raises(RuntimeError, match=f"ended with 1:(.|\n)*--{flag}: {wrong}"):
            start("small", **flags)


def test_a_key_of_another_certificate_is_refused(start, pki):
    flags = flags_of(pki["server"]) | dict(tls_key=pki["client"].key)
    with pytest.raises(RuntimeError, match="ended with 1:(.|\n)*--tls_key: .*mismatch"):
        start("small", **flags)


def test_gdn_ctl_over_mutual_tls(mutual_server, gdn_ctl, pki):
    ca, client = f"--tls_ca={pki['ca'].cert}", pki["client"]
    words = [f"--target={mutual_server.target}", ca]
    shown = [f"--tls_cert={client.cert}", f"--tls_key={client.key}"]
    answer = subprocess.run([gdn_ctl, *words, *shown, "health"], capture_output=True, text=True)
    assert (answer.returncode, answer.stdout) == (0, "SERVING\n"), answer.stderr
    refused = subprocess.run([gdn_ctl, *words, "health"], capture_output=True, text=True)
    assert refused.returncode == 1 and "UNAVAILABLE" in refused.stderr
