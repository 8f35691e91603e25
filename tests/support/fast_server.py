"""An upstream that costs little: a uvloop protocol in a process of its own that answers every GET with its pool's name.

Run as a program (`python -m support.fast_server POOL`) it prints its port and serves until it is killed.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from typing import Self


class FastServer:
    def __init__(self, pool: str) -> None:
        self.pool = pool
        self.process = subprocess.Popen(
            [sys.executable, "-m", "support.fast_server", pool],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


class _Protocol(asyncio.Protocol):
    def __init__(self, answer: bytes) -> None:
        self.answer = answer
        self.buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        data = self.buffer + data
        requests = data.count(b"\r\n\r\n")
        if requests:
            self.transport.write(self.answer * requests)  # type: ignore[attr-defined]
        self.buffer = data.rpartition(b"\r\n\r\n")[2] if requests else data


async def _main(pool: str) -> None:
    answer = (
        f"HTTP/1.1 200 OK\r\nDate: Mon, 23 Nov 2026 00:00:00 GMT\r\nX-Pool: {pool}\r\nContent-Length: {len(pool)}\r\n\r\n{pool}"
    ).encode()
    server = await asyncio.get_running_loop().create_server(lambda: _Protocol(answer), "127.0.0.1", 0, backlog=1024)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


if __name__ == "__main__":
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_main(sys.argv[1]))
