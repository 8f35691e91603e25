"""WebSocket clients that send a message, await its echo, and send the next. Run: chatter.py PORT CONNECTIONS SECONDS.

Prints JSON: {"messages": sent and echoed, "seconds": measured, "errors": connections that were lost or never opened}.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

import uvloop

HELLO = (
    b"GET / HTTP/1.1\r\nHost: shop.example.com\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
PAYLOAD = 64
_MASK = b"\x01\x02\x03\x04"
MESSAGE = bytes((0x82, 0x80 | PAYLOAD)) + _MASK + b"x" * PAYLOAD
ANSWER = 2 + PAYLOAD


class Talk:
    """The count of all connections."""

    def __init__(self) -> None:
        self.messages = 0
        self.opened = 0
        self.lost = 0
        self.going = True


class Client(asyncio.Protocol):
    def __init__(self, talk: Talk):
        self.talk = talk
        self.open = False
        self.buffer = b""

    def connection_made(self, transport) -> None:
        self.transport = transport
        transport.write(HELLO)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        if not self.open:
            head, end, rest = self.buffer.partition(b"\r\n\r\n")
            if not end:
                return
            if not head.startswith(b"HTTP/1.1 101"):
                self.transport.close()
                return
            self.open = True
            self.talk.opened += 1
            self.buffer = rest
            self.transport.write(MESSAGE)
        elif len(self.buffer) >= ANSWER:
            self.buffer = self.buffer[ANSWER:]
            self.talk.messages += 1
            if self.talk.going:
                self.transport.write(MESSAGE)

    def connection_lost(self, _error) -> None:
        self.talk.lost += self.talk.going


async def talk(port: int, connections: int, seconds: float) -> dict[str, float]:
    loop, count = asyncio.get_running_loop(), Talk()
    transports = [
        (await loop.create_connection(lambda: Client(count), "127.0.0.1", port))[0] for _ in range(connections)
    ]
    began = time.monotonic()
    await asyncio.sleep(seconds)
    took = time.monotonic() - began
    count.going = False
    for transport in transports:
        transport.close()
    return {"messages": count.messages, "seconds": took, "errors": count.lost + connections - count.opened}


if __name__ == "__main__":
    print(json.dumps(uvloop.run(talk(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))))
