"""The shop, one process a version: pages, a JSON API, events, a WebSocket, slow requests, uploads.

It is run as `python -m bgproxy.cli.demo.shop COLOUR VERSION FD [KIND]`: FD is a listening socket that it was handed, and it
ends when its standard input does, so that it does not outlive a demo that was killed. KIND is what is wrong with it (`faults`).
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import os
import signal
import socket
import sys
from typing import Any, Final

from aiohttp import WSMsgType, web

from bgproxy.cli.demo.faults import Fault
from bgproxy.cli.demo.pages import shop_page

_TEAPOTS: Final = (("Brown Betty", 24.0), ("Yixing", 89.0), ("Tetsubin", 119.0), ("Samovar", 240.0))
_LONGEST: Final = 60.0  # seconds that /slow may be asked for
_TICK: Final = 1.0  # seconds between two events
_SHUTDOWN: Final = 1.0  # seconds for what is open when the demo ends


class Shop:
    """One version of it."""

    def __init__(self, colour: str, version: str, kind: str = "") -> None:
        self._colour = colour
        self._version = version
        self._fault = Fault(kind)
        factor = 0.9 if colour == "green" else 1.0
        self._products = [
            {"id": i, "name": name, "price": price * factor} for i, (name, price) in enumerate(_TEAPOTS, start=1)
        ]
        if kind == "differs":
            self._products[1]["name"] = "Kyusu"
        if kind == "wrong":
            self._products.clear()
        self._orders = 0

    def app(self) -> web.Application:
        """The web application; every answer says in X-Shop-Colour and X-Shop-Version where it came from."""
        # Uploads are read piece by piece, without a limit.
        app = web.Application(client_max_size=0, middlewares=[self._fault.around])
        app.router.add_get("/", self._page)
        app.router.add_get("/health", self._health)
        app.router.add_get("/api/version", self._about)
        app.router.add_get("/api/products", self._list)
        app.router.add_get("/api/products/{id}", self._product)
        app.router.add_post("/api/orders", self._order)
        app.router.add_get("/events", self._events)
        app.router.add_get("/ws", self._socket)
        app.router.add_get("/slow", self._slow)
        app.router.add_post("/upload", self._upload)
        app.on_response_prepare.append(self._sign)
        return app

    async def _sign(self, _request: web.Request, response: web.StreamResponse) -> None:
        response.headers["X-Shop-Colour"] = self._colour
        response.headers["X-Shop-Version"] = self._version

    def _said(self, **more: Any) -> web.Response:
        return web.json_response({"colour": self._colour, "version": self._version, **more})

    async def _page(self, _request: web.Request) -> web.Response:
        text = shop_page(self._colour, self._version, self._products)
        return web.Response(text=text, content_type="text/html", headers={"Cache-Control": "no-store"})

    async def _health(self, _request: web.Request) -> web.Response:
        return web.Response(text="well\n")

    async def _about(self, _request: web.Request) -> web.Response:
        return self._said()

    async def _list(self, _request: web.Request) -> web.Response:
        return self._said(products=self._products)

    async def _product(self, request: web.Request) -> web.Response:
        for product in self._products:
            if str(product["id"]) == request.match_info["id"]:
                return self._said(product=product)
        raise web.HTTPNotFound(text="no such teapot\n")

    async def _order(self, request: web.Request) -> web.Response:
        await request.read()
        self._orders += 1
        return self._said(order=self._orders)

    async def _events(self, request: web.Request) -> web.StreamResponse:
        headers = {"Content-Type": "text/event-stream", "Cache-Control": "no-store"}
        response = web.StreamResponse(headers=headers)
        await response.prepare(request)
        count = 0
        while True:
            count += 1
            await response.write(f"data: {self._colour} {self._version}, event {count} of this answer\n\n".encode())
            await asyncio.sleep(_TICK)

    async def _socket(self, request: web.Request) -> web.WebSocketResponse:
        sock = web.WebSocketResponse()
        await sock.prepare(request)
        count = 0
        async for message in sock:
            if message.type is WSMsgType.TEXT:
                count += 1
                await sock.send_str(f"{self._colour} {self._version}, message {count}: {message.data}")
        return sock

    async def _slow(self, request: web.Request) -> web.Response:
        try:
            seconds = float(request.query.get("s", "5"))
        except ValueError:
            seconds = math.nan
        if not 0 <= seconds <= _LONGEST:
            raise web.HTTPBadRequest(text=f"s: seconds, from 0 to {_LONGEST:g}\n")
        await asyncio.sleep(seconds)
        return self._said(seconds=seconds)

    async def _upload(self, request: web.Request) -> web.Response:
        digest, size = hashlib.sha256(), 0
        async for piece in request.content.iter_any():
            digest.update(piece)
            size += len(piece)
        return self._said(bytes=size, sha256=digest.hexdigest())


async def serve(colour: str, version: str, sock: socket.socket, kind: str = "") -> None:
    """Serve until SIGTERM, or until the standard input ends."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    loop.add_reader(sys.stdin.fileno(), _end_with_stdin, ended)
    runner = web.AppRunner(Shop(colour, version, kind).app(), access_log=None, shutdown_timeout=_SHUTDOWN)
    await runner.setup()
    try:
        await web.SockSite(runner, sock).start()
        await ended.wait()
    finally:
        loop.remove_reader(sys.stdin.fileno())
        await runner.cleanup()


def _end_with_stdin(ended: asyncio.Event) -> None:
    if not os.read(sys.stdin.fileno(), 4096):
        ended.set()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], sys.argv[2], socket.socket(fileno=int(sys.argv[3])), *sys.argv[4:]))
