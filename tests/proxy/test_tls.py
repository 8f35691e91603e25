"""TLS of listeners: whose names are whose, what is in force when, and what is counted. Handshakes go through memory."""

from __future__ import annotations

import base64
import ssl
import time
from pathlib import Path

import pytest
from support.certificates import Authority

from bgproxy.config.schema import Certificate, Limits, Listen, ListenTls, Timeouts
from bgproxy.model.snapshot import CertificateSpec, ProxySpec
from bgproxy.proxy.tls import CIPHERS, Handshake, Names, Tls
from bgproxy.switchboard import layout


@pytest.fixture(scope="module")
def authority():
    return Authority()


class FakeContext:
    def __init__(self):
        self.timeouts = Timeouts(header=5.0)
        self.cells = [0] * layout.WORKER_CELLS


def spec(authority, folder, *names, stem):
    files = authority.issue(folder, *names, stem=stem)
    return CertificateSpec(stem, names, Path(files.cert).read_bytes(), Path(files.key).read_bytes())


def proxy(*certificates, client_cas=()):
    return ProxySpec(Limits(), Timeouts(), (), "off", b"", certificates=certificates, client_cas=client_cas)


def listen(*certificates, **settings):
    pairs = tuple(Certificate(cert=name, key=f"{name}.key") for name in certificates)
    return Listen(address=":443", tls=ListenTls(certificates=pairs, **settings))


class Memory:
    """A handshake without sockets, to its end."""

    def __init__(self, server: ssl.SSLContext, client: ssl.SSLContext, name: str | None) -> None:
        client.check_hostname = False
        there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.server = server.wrap_bio(there, back, server_side=True)
        self.client = client.wrap_bio(back, there, server_hostname=name)
        pending = [self.client, self.server]
        for _ in range(10):
            for side in list(pending):
                try:
                    side.do_handshake()
                except ssl.SSLWantReadError:
                    continue
                pending.remove(side)
            if not pending:
                return
        raise AssertionError("the handshake does not end")

    def names(self) -> set[str]:
        return {name for _, name in self.client.getpeercert()["subjectAltName"]}


@pytest.mark.parametrize(
    ("hostname", "held"),
    [
        (b"a.test", True),
        (b"b.test", False),
        (b"x.b.test", True),
        (b"x.y.b.test", False),
        (b".b.test", False),
        (b"127.0.0.1", True),
        (b"[::1]", True),
        (b"::1", False),
        (b"", False),
    ],
)
def test_names(hostname, held):
    """Exact names, wildcards for one label, addresses with the brackets of Host."""
    names = Names(("a.test", "*.b.test", "127.0.0.1", "::1"))
    assert names.hold(hostname) is held


def test_the_settings_are_those_of_the_profile(authority, tmp_path):
    """Mozilla's intermediate: versions, ciphers, the client's order; no compression, no renegotiation."""
    one = listen("a")
    context = Tls(FakeContext(), [one]).context_of(one)
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert {cipher["name"] for cipher in context.get_ciphers() if cipher["protocol"] != "TLSv1.3"} == set(
        CIPHERS.split(":")
    )
    assert context.options & ssl.OP_NO_COMPRESSION
    assert context.options & ssl.OP_NO_RENEGOTIATION
    assert not context.options & ssl.OP_CIPHER_SERVER_PREFERENCE
    strict = listen("a", min_version="1.3")
    assert Tls(FakeContext(), [strict]).context_of(strict).minimum_version == ssl.TLSVersion.TLSv1_3


def test_by_name_and_renewed(authority, tmp_path):
    """The context of the socket stays; what it serves changes with each `take`, and what does not come stays."""
    one = listen("a", "b", "nowhere")
    tls = Tls(FakeContext(), [one])
    context = tls.context_of(one)
    with pytest.raises(ssl.SSLError):
        Memory(context, authority.client_context(), "a.test")
    first, second = (
        spec(authority, tmp_path, "a.test", "*.a.test", stem="a"),
        spec(authority, tmp_path, "b.test", stem="b"),
    )
    tls.take(proxy(first, second))
    for name, expected in (
        ("a.test", "a.test"),
        ("x.a.test", "a.test"),
        ("B.TEST", "b.test"),
        ("c", "a.test"),
        (None, "a.test"),
    ):
        assert expected in Memory(context, authority.client_context(), name).names(), name
    tls.take(proxy(spec(authority, tmp_path, "a.test", "c.test", stem="a")))
    assert Memory(context, authority.client_context(), "c.test").names() == {"a.test", "c.test"}
    assert Memory(context, authority.client_context(), "b.test").names() == {"b.test"}
    assert tls.context_of(one) is context


def test_a_certificate_that_cannot_be_loaded_leaves_the_old_one(authority, tmp_path, caplog):
    """It was judged before; should it fail all the same, it is logged."""
    one = listen("a")
    tls = Tls(FakeContext(), [one])
    tls.take(proxy(spec(authority, tmp_path, "a.test", stem="a")))
    tls.take(proxy(CertificateSpec("a", ("b.test",), b"", b"")))
    assert Memory(tls.context_of(one), authority.client_context(), "a.test").names() == {"a.test"}
    assert "the old one stays" in caplog.text


def test_client_certificates_need_their_authorities(authority, tmp_path):
    """While nobody knows whom to ask for, nobody is let in; then those with a certificate are."""
    mine = authority.issue(tmp_path, "me.test", stem="mine")
    one = listen("a", client_ca="ca")
    tls = Tls(FakeContext(), [one])
    certificate = spec(authority, tmp_path, "a.test", stem="a")
    tls.take(proxy(certificate))
    with pytest.raises(ssl.SSLError):
        Memory(tls.context_of(one), authority.client_context(mine), "a.test")
    tls.take(proxy(certificate, client_cas=(("ca", authority.root.pem()),)))
    assert Memory(tls.context_of(one), authority.client_context(mine), "a.test").names() == {"a.test"}
    with pytest.raises(ssl.SSLError):
        Memory(tls.context_of(one), authority.client_context(), "a.test")


class FakeTransport:
    def __init__(self, connection=None):
        self.connection = connection
        self.protocol = None

    def set_write_buffer_limits(self, high):
        self.high = high

    def set_protocol(self, protocol):
        self.protocol = protocol

    def get_extra_info(self, name):
        return self.connection if name == "ssl_object" else None


class FakeClient:
    names = "untouched"

    def connection_made(self, transport):
        self.transport = transport


def test_a_handshake_that_succeeds_becomes_its_connection(authority, tmp_path):
    """Which learns the names that Host may say: the certificate's, whatever name was asked for."""
    one = listen("a")
    context = FakeContext()
    tls = Tls(context, [one])
    tls.take(proxy(spec(authority, tmp_path, "a.test", stem="a")))
    for name, held in (("a.test", {b"a.test"}), ("b.test", {b"a.test"}), (None, None)):
        transport = FakeTransport(Memory(tls.context_of(one), authority.client_context(), name).server)
        tls.counting(FakeClient, one)().connection_made(transport)
        assert transport.protocol.transport is transport
        assert transport.high == 65536  # a reader that stops is waited for as soon as without TLS
        names = transport.protocol.names
        assert (None if names is None else names.exact) == held
    assert not any(context.cells)


def test_in_mode_tcp_nothing_is_said_of_names():
    """There is no Host to compare."""
    transport = FakeTransport()
    Handshake(FakeContext(), FakeClient, http=False).connection_made(transport)
    assert transport.protocol.names == "untouched"


def test_a_handshake_that_fails_is_counted():
    """As refused, or as late, by how long it took."""
    context = FakeContext()
    Handshake(context, FakeClient, http=True)
    assert (context.cells[layout.W_TLS_FAILED], context.cells[layout.W_TLS_TIMEOUTS]) == (1, 0)
    late = Handshake(context, FakeClient, http=True)
    late._begun = time.monotonic() - 5.0
    del late
    assert (context.cells[layout.W_TLS_FAILED], context.cells[layout.W_TLS_TIMEOUTS]) == (1, 1)


def test_the_certificate_of_a_client_is_a_line(authority, tmp_path):
    """RFC 9440: the leaf in DER as a byte sequence; nothing where no certificate came."""
    one = listen("a", client_ca="ca", client_auth="optional")
    tls = Tls(FakeContext(), [one])
    certificate = spec(authority, tmp_path, "a.test", stem="a")
    tls.take(proxy(certificate, client_cas=(("ca", authority.root.pem()),)))
    mine = authority.issue(tmp_path, "me.test", stem="mine")
    leaf = Path(mine.cert).read_text().partition("-----END")[0] + "-----END CERTIFICATE-----\n"
    for own, expected in ((mine, ssl.PEM_cert_to_DER_cert(leaf)), (None, b"")):
        transport = FakeTransport(Memory(tls.context_of(one), authority.client_context(own), "a.test").server)
        tls.counting(FakeClient, one)().connection_made(transport)
        line = transport.protocol.client_cert
        name, _, value = line.partition(b": ")
        assert (name, value[-3:]) == ((b"Client-Cert", b":\r\n") if own else (b"", b""))
        assert base64.b64decode(value.strip(b":\r\n")) == expected
