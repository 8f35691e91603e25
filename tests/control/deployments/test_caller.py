"""Asking upstreams of the idle pool: every way to reach one, what is sent, and every way to get no answer."""

from __future__ import annotations

import asyncio
import socket

import pytest
from support.backends import Backend
from support.certificates import Authority
from support.deployments import make_service
from support.tls_upstreams import TlsBackend, contents, server_context
from support.waiting import eventually_async, handed_over

from bgproxy import __version__
from bgproxy.config.schema import Match
from bgproxy.control.deployments.caller import Caller
from bgproxy.model.snapshot import TlsSpec
from bgproxy.model.upstream import UpstreamState


@pytest.fixture(scope="module")
def authority():
    return Authority()


@pytest.fixture
def backend():
    with Backend("green") as backend:
        yield backend


@pytest.fixture
async def caller_of():
    """Makes callers, and closes them."""
    made = []

    def make(*urls, body_bytes=1024, **settings):
        service = make_service(*urls, **settings)
        made.append(Caller(service, service.pools[1], body_bytes=body_bytes))
        return made[-1]

    yield make
    for caller in made:
        caller.close()
    await handed_over()  # the loop closes what was aborted


class Introduced(Backend):
    """A backend whose connections begin with a PROXY line, which is kept in `lines`."""

    def __init__(self, pool: str, lines: list[bytes]) -> None:
        super().__init__(pool)
        self.lines = lines

    def _serve(self, sock: socket.socket) -> None:
        line = b""
        while not line.endswith(b"\n"):
            line += sock.recv(1)
        self.lines.append(line)
        super()._serve(sock)


async def ask(caller, target="/", method="GET", timeout=5.0, **options):  # noqa: ASYNC109 - the caller's own
    (upstream,) = caller.upstreams()
    return await caller.ask(upstream, method, target, timeout=timeout, **options)


async def test_a_plain_upstream(backend, caller_of):
    """Status, headers, body and time of its answer; it sees who asks, and is asked for the authority of its URL."""
    answer = await ask(caller_of(backend.url), "/cart?id=1")
    assert (answer.status, answer.header("x-pool"), answer.body, answer.reason) == (200, "green", b"green", "")
    assert 0 < answer.seconds < 5
    request = backend.requests[0]
    assert request.target == "/cart?id=1"
    assert request.headers == [
        ("Host", f"127.0.0.1:{backend.port}"),
        ("User-Agent", f"bgproxy/{__version__} check"),
        ("Accept", "*/*"),
    ]


@pytest.mark.parametrize(
    ("hosts", "host"),
    [(("*.shop.test", "shop.test", "b.test"), "shop.test"), (("*.shop.test",), None), ((), None)],
    ids=["first that is no wildcard", "wildcards only", "any"],
)
async def test_which_host_is_asked_for(backend, caller_of, hosts, host):
    """One that the service is reached under, since applications look at it; else what the URL names."""
    await ask(caller_of(backend.url, match=Match(hosts=hosts)))
    assert backend.requests[0].header("Host") == (host or f"127.0.0.1:{backend.port}")


async def test_a_unix_socket(tmp_path, caller_of):
    """Asked for localhost, as health checks ask."""
    path = str(tmp_path / "app.sock")
    with Backend("green", unix=path) as backend:
        answer = await ask(caller_of(f"unix://{path}"))
        assert (answer.status, answer.body) == (200, b"green")
        assert backend.requests[0].header("Host") == "localhost"


async def test_tls_as_the_pool_has_it(authority, tmp_path, caller_of):
    """The certificate is verified for the URL's host or the configured name, and ours is shown."""
    own = contents(authority.issue(tmp_path, stem="own"))
    context = server_context(authority.issue(tmp_path, "app.test"), clients=authority)
    trusted = TlsSpec(authorities=authority.root.pem(), chain=own[0], secret=own[1])
    with TlsBackend("green", context, "app.test") as backend:
        answer = await ask(caller_of(backend.url, tls=trusted))
        assert (answer.status, answer.body, answer.reason) == (200, b"green", "")
        assert backend.requests[0].header("Host") == f"app.test:{backend.port}"
        named = TlsSpec(authorities=authority.root.pem(), server_name="other.test", chain=own[0], secret=own[1])
        answer = await ask(caller_of(backend.url, tls=named))
        assert (answer.status, answer.kind) == (0, "other")
        assert answer.reason == "host name does not match: the certificate is not for other.test"
        answer = await ask(caller_of(backend.url, tls=TlsSpec(trouble="/x.pem does not exist")))
        assert answer.reason == "/x.pem does not exist"


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
async def test_an_upstream_that_wants_a_proxy_header(authority, tmp_path, caller_of, secure):
    """It gets one that speaks for nobody, before TLS begins."""
    lines: list[bytes] = []
    context = server_context(authority.issue(tmp_path, "app.test"))
    made = TlsBackend("green", context, "app.test", lines=lines) if secure else Introduced("green", lines)
    with made as backend:
        tls = TlsSpec(authorities=authority.root.pem())
        assert (await ask(caller_of(backend.url, tls=tls, send_proxy="v1"))).body == b"green"
    assert lines == [b"PROXY UNKNOWN\r\n"]


async def test_connections_are_kept_for_safe_methods(backend, caller_of):
    """One connection for all of them; what is not safe gets one of its own, and one that was closed meanwhile is not noticed."""
    caller = caller_of(backend.url)
    for method in ("GET", "HEAD", "GET"):
        assert (await ask(caller, "/", method)).status == 200
    assert backend.connections == 1
    await ask(caller, method="POST", body=b"x")
    assert backend.connections == 2
    backend.on("/bye", lambda _backend, request: (request.answer(b""), setattr(request, "keep", False)))
    await ask(caller, "/bye")
    assert (await ask(caller)).status == 200


async def test_redirects_and_cookies_stay_where_they_are(backend, caller_of):
    """A redirect is the answer, and a cookie is not sent back."""
    backend.script("/", b"HTTP/1.1 302 Found\r\nLocation: /x\r\nSet-Cookie: a=1\r\nContent-Length: 0\r\n\r\n")
    caller = caller_of(backend.url)
    first, _ = await ask(caller), await ask(caller)
    assert (first.status, first.header("Location")) == (302, "/x")
    assert [request.path for request in backend.requests] == ["/", "/"]
    assert backend.requests[1].header("Cookie") is None


async def test_headers_and_body_of_the_request(backend, caller_of):
    """Ours give way to those that were given; how it is framed is not theirs to say."""
    given = [("host", "b.test"), ("X-A", "ä"), ("Content-Length", "99"), ("Connection", "close"), ("TE", "trailers")]
    answer = await ask(caller_of(backend.url), "/echo", "POST", headers=given, body=b"hello")
    assert answer.status == 200
    request = backend.requests[0]
    assert [name for name, _ in request.headers] == ["User-Agent", "Accept", "host", "X-A", "Content-Length"]
    assert (request.header("host"), request.header("Content-Length")) == ("b.test", "5")


async def test_a_long_body_is_cut(backend, caller_of):
    """So much of it is kept, and no more read."""
    answer = await ask(caller_of(backend.url, body_bytes=100), "/download?bytes=50000000")
    assert (answer.status, len(answer.body), answer.cut) == (200, 100, True)
    assert answer.seconds < 2


@pytest.mark.parametrize(
    ("path", "kind", "reason"),
    [
        ("/silent", "timed out", "timed out after 200ms"),
        ("/reset", "reset", "connection reset by peer"),
        ("/close", "reset", "the connection was closed before it answered"),
        ("/half", "reset", "the answer broke off after 500 bytes of its body"),
    ],
)
async def test_no_answer(backend, caller_of, path, kind, reason):
    """No exception, but a reason in plain words; it took as long as it took."""
    answer = await ask(caller_of(backend.url), path, timeout=0.2)
    assert (answer.status, answer.kind) == (0, kind)
    assert reason in answer.reason


async def test_nobody_there(tmp_path, caller_of):
    """Refused, at a port and at a path."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    answer = await ask(caller_of(f"http://127.0.0.1:{port}"))
    assert (answer.kind, answer.reason) == ("refused", "connection refused")
    answer = await ask(caller_of(f"unix://{tmp_path}/none.sock"))
    assert (answer.kind, answer.reason) == ("refused", "no such file or directory")


async def test_who_never_takes_the_hello(authority, caller_of):
    """A handshake that hangs ends at the deadline, and leaves nothing open."""
    with Backend("green") as backend:
        url = f"https://127.0.0.1:{backend.port}"
        answer = await ask(caller_of(url, tls=TlsSpec(verify=False)), timeout=0.2)
        assert answer.reason == "timed out after 200ms"
        await eventually_async(lambda: not backend.open)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"target": "/a b"}, "'/a b' is not a path"),
        ({"target": "cart"}, "'cart' is not a path"),
        ({"method": "GE T"}, "'GE T' is not a method"),
        ({"headers": [("A B", "c")]}, "'A B' is not the name of a header"),
        ({"headers": [("A", "b\r\nC: d")]}, "the value of A has a line break in it"),
    ],
)
async def test_what_cannot_be_sent(backend, caller_of, options, reason):
    """Nobody is asked, and nothing can be smuggled into a request."""
    answer = await ask(caller_of(backend.url), **options)
    assert answer.reason.startswith(reason)
    assert not backend.connections


async def test_upstreams_that_are_out_by_hand_are_not_asked(caller_of):
    """An operator has taken them out; those that are down are still asked."""
    caller = caller_of("http://127.0.0.1:1", "http://127.0.0.1:2", "http://127.0.0.1:3")
    first, second, third = caller._pool.upstreams
    first.state, second.state = UpstreamState.MAINT, UpstreamState.DOWN
    assert caller.upstreams() == [second, third]


async def test_a_cancelled_question_leaves_nothing_open(backend, caller_of):
    """As at an abort: the connection is gone at once."""
    caller = caller_of(backend.url)
    question = asyncio.ensure_future(ask(caller, "/silent"))
    await eventually_async(lambda: backend.counts["/silent"])
    question.cancel()
    await asyncio.wait({question})
    await eventually_async(lambda: not backend.open)
