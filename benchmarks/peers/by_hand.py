"""The proxy that one would write by hand: an aiohttp handler with a ClientSession. Run: by_hand.py PORT UPSTREAM_PORT."""

from __future__ import annotations

import sys
import uuid

import aiohttp
import uvloop
from aiohttp import web

#: Of one connection (RFC 9110 section 7.6.1): never forwarded.
HOP_BY_HOP = frozenset(
    ("connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade", "content-length")
)


def application(port: int, upstream: str) -> web.Application:
    """Everything to one upstream, bodies as streams both ways, with the fields that bgproxy sets."""
    app = web.Application(client_max_size=1 << 40)
    session_key = web.AppKey("session", aiohttp.ClientSession)

    async def session(app: web.Application):
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=3600)  # default 100 connections: 1,000 clients wait
        # auto_decompress: bytes go on as they came.
        async with aiohttp.ClientSession(connector=connector, auto_decompress=False) as app[session_key]:
            yield

    async def forward(request: web.Request) -> web.StreamResponse:
        headers = request.headers.copy()
        for name in HOP_BY_HOP:
            if name != "content-length":
                headers.popall(name, None)
        headers["X-Forwarded-For"] = request.remote or ""
        headers["X-Forwarded-Proto"] = request.scheme
        headers["X-Forwarded-Host"] = request.host
        headers["X-Forwarded-Port"] = str(port)
        headers["X-Request-ID"] = str(uuid.uuid4())
        headers["Via"] = "1.1 by_hand"
        body = request.content if request.body_exists else None
        url = upstream + request.path_qs
        async with request.app[session_key].request(
            request.method, url, headers=headers, data=body, allow_redirects=False
        ) as answer:
            response = web.StreamResponse(status=answer.status, reason=answer.reason)
            for name, value in answer.headers.items():
                if name.lower() not in HOP_BY_HOP:
                    response.headers.add(name, value)
            if answer.content_length is None:
                response.enable_chunked_encoding()
            else:
                response.content_length = answer.content_length
            await response.prepare(request)
            async for piece in answer.content.iter_any():
                await response.write(piece)
            await response.write_eof()
            return response

    app.cleanup_ctx.append(session)
    app.router.add_route("*", "/{path:.*}", forward)
    return app


if __name__ == "__main__":
    here = int(sys.argv[1])
    web.run_app(
        application(here, f"http://127.0.0.1:{sys.argv[2]}"),
        host="127.0.0.1",
        port=here,
        access_log=None,  # off everywhere
        keepalive_timeout=3600,
        backlog=4096,
        loop=uvloop.new_event_loop(),
        print=None,
    )
