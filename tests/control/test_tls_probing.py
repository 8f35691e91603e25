"""Health checks over TLS: what is asked, what is verified, and in which words a failure is told."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from datetime import timedelta

import pytest
from support.certificates import Authority
from support.tls_upstreams import TlsBackend, contents, server_context
from support.waiting import eventually_async

from bgproxy.config.schema import Health
from bgproxy.control.probing import MAX_HEAD, Prober
from bgproxy.control.tls_probing import TlsProbe
from bgproxy.control.watching import PRELUDES
from bgproxy.model.snapshot import TlsSpec
from bgproxy.proxy.proxy_protocol import encode

DAY = timedelta(days=1)
GOOD = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@pytest.fixture(scope="module")
def authority():
    return Authority()


class Asker:
    """A prober, and what it was told."""

    def __init__(self, authority: Authority) -> None:
        self.authority = authority
        self.told: list[str] = []
        self.prober = Prober(lambda _, reason: self.told.append(reason))

    def probe(self, port: int, host: str = "app.test", *, prelude: bytes = b"", **tls) -> TlsProbe:
        spec = TlsSpec(**{"authorities": self.authority.root.pem(), **tls})
        return TlsProbe(
            "k", f"https://{host}:{port}", ("127.0.0.1", port), Health(path="/health"), tls=spec, prelude=prelude
        )

    async def reason(self, probe: TlsProbe) -> str:
        count = len(self.told)
        self.prober.ask(probe)
        await eventually_async(lambda: len(self.told) > count)
        return self.told[-1]


@pytest.fixture
async def asker(authority):
    asker = Asker(authority)
    asker.prober.start()
    yield asker
    asker.prober.close()


@contextlib.asynccontextmanager
async def upstream(context: ssl.SSLContext | None, answer: bytes, heads: list[bytes] | None = None):
    """A server that answers every connection so; its port."""
    tasks = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.current_task())
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n") if context is not None else await reader.read(1)
            if heads is not None:
                heads.append(head)
            writer.write(answer)
            await writer.drain()
            await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    yield server.sockets[0].getsockname()[1]
    server.close()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_verified_upstream_is_asked_as_a_plain_one_is(asker, authority, tmp_path):
    """The same question, again and again; between two nothing of TLS is kept."""
    heads: list[bytes] = []
    async with upstream(server_context(authority.issue(tmp_path, "app.test")), GOOD, heads) as port:
        probe = asker.probe(port)
        assert [await asker.reason(probe), await asker.reason(probe)] == ["", ""]
        assert heads[0].startswith(f"GET /health HTTP/1.1\r\nHost: app.test:{port}\r\n".encode())
        assert (len(heads), probe._layer, probe.socket) == (2, None, None)


@pytest.mark.parametrize(
    ("names", "options", "reason"),
    [
        (("other.test",), {}, "host name does not match: the certificate is not for app.test"),
        (("app.test",), {"not_before": -2 * DAY, "not_after": -DAY}, "certificate has expired"),
        (("app.test",), {"not_before": DAY}, "certificate is not valid yet"),
    ],
    ids=["wrong name", "expired", "not valid yet"],
)
async def test_what_is_wrong_with_a_certificate(asker, authority, tmp_path, names, options, reason):
    """In the words of a request that fails for the same."""
    async with upstream(server_context(authority.issue(tmp_path, *names, **options)), GOOD) as port:
        assert await asker.reason(asker.probe(port)) == reason
        assert await asker.reason(asker.probe(port, verify=False)) == ""


async def test_an_authority_that_is_not_known(asker, authority, tmp_path):
    """Nor does the machine's trust store know ours."""
    async with upstream(server_context(authority.issue(tmp_path, "app.test")), GOOD) as port:
        assert "authority is not known here" in await asker.reason(asker.probe(port, authorities=b""))


async def test_a_certificate_of_ours_is_asked_for(asker, authority, tmp_path):
    """It is shown where there is one; where there is none the refusal is told."""
    own = authority.issue(tmp_path, stem="own")
    chain, secret = contents(own)
    with TlsBackend("blue", server_context(authority.issue(tmp_path, "app.test"), clients=authority)) as upstream:
        assert await asker.reason(asker.probe(upstream.port, chain=chain, secret=secret)) == ""
        assert (await asker.reason(asker.probe(upstream.port))).startswith("it refused TLS: certificate required")


async def test_who_speaks_no_tls(asker):
    """A plain server behind https:// is told apart from one that is down."""
    async with upstream(None, b"HTTP/1.1 400 Bad Request\r\n\r\n") as port:
        assert await asker.reason(asker.probe(port)) == "it does not speak TLS"


async def test_nobody_listens(asker):
    """The system's words, as without TLS."""
    async with upstream(None, b"") as port:
        pass
    assert "refused" in await asker.reason(asker.probe(port))


async def test_files_that_cannot_be_used(asker):
    """Nobody is asked."""
    assert await asker.reason(asker.probe(1, trouble="/x does not exist")) == "/x does not exist"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"HTTP/1.1 503 Busy\r\n\r\n", "status 503, expected 200-399"),
        (b"SSH-2.0-x\r\n", "not an HTTP answer: not an HTTP/1 status line"),
        (
            b"HTTP/1.1 200 OK\r\nA: " + b"b" * MAX_HEAD,
            f"not an HTTP answer: a response head of more than {MAX_HEAD} bytes",
        ),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 1_000_000, ""),
    ],
    ids=["status", "rubbish", "endless head", "long body"],
)
async def test_answers_are_judged_as_without_tls(asker, authority, tmp_path, answer, reason):
    """However long they are: what is looked at is bounded."""
    async with upstream(server_context(authority.issue(tmp_path, "app.test")), answer) as port:
        assert await asker.reason(asker.probe(port)) == reason


async def test_a_prelude_goes_before_tls(asker, authority, tmp_path):
    """A PROXY header, which is in the clear."""
    lines: list[bytes] = []
    context = server_context(authority.issue(tmp_path, "app.test"))
    with TlsBackend("blue", context, lines=lines) as upstream:
        assert await asker.reason(asker.probe(upstream.port, prelude=PRELUDES["v1"])) == ""
        assert lines == [b"PROXY UNKNOWN\r\n"]


def test_preludes_are_headers_of_nobody():
    """What a check says is what a connection without a client would."""
    assert {version: encode(version, None, None) for version in ("v1", "v2")} | {"off": b""} == PRELUDES
