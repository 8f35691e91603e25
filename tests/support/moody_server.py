"""An upstream that costs little and changes its mood at a moment that the test says: good, failing, or slow.

Run as a program (`python -m support.moody_server POOL SECONDS`) it prints its port, answers every GET with its pool's name after so many
seconds, health checks at once, and takes a mood from each line of its standard input: `good`, `fail` (500), `slow` (five times as long).
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from typing import Self

SLOWER = 5


class MoodyServer:
    """One of them, in a process of its own; `seconds` is how long an answer takes."""

    def __init__(self, pool: str, seconds: float = 0.02) -> None:
        self.pool = pool
        self.process = subprocess.Popen(
            [sys.executable, "-m", "support.moody_server", pool, str(seconds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        assert self.process.stdout is not None
        self.url = f"http://127.0.0.1:{int(self.process.stdout.readline())}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()

    def mood(self, mood: str) -> None:
        """Be `good`, `fail` or `slow` from now on; returns when it is."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{mood}\n".encode())
        self.process.stdin.flush()
        assert self.process.stdout.readline().decode().strip() == mood


class _Server:
    def __init__(self, pool: str, seconds: float) -> None:
        self.pool = pool
        self.seconds = seconds
        self.mood = "good"

    def answer(self) -> bytes:
        """To a request that is answered now."""
        status = "500 Internal Server Error" if self.mood == "fail" else "200 OK"
        length = len(self.pool)
        return f"HTTP/1.1 {status}\r\nX-Pool: {self.pool}\r\nContent-Length: {length}\r\n\r\n{self.pool}".encode()

    def delay(self, data: bytes) -> float:
        """Seconds until a request is answered."""
        if data.startswith(b"GET /health "):
            return 0.0
        return self.seconds * (SLOWER if self.mood == "slow" else 1)


class _Protocol(asyncio.Protocol):
    def __init__(self, server: _Server) -> None:
        self.server = server
        self.buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        if self.buffer.endswith(b"\r\n\r\n"):
            answer, delay = self.server.answer(), self.server.delay(self.buffer)
            if self.buffer.startswith(b"GET /health "):
                answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
            self.buffer = b""
            asyncio.get_running_loop().call_later(delay, self._write, answer)

    def _write(self, answer: bytes) -> None:
        self.transport.write(answer)  # type: ignore[attr-defined]


async def _main(pool: str, seconds: float) -> None:
    loop = asyncio.get_running_loop()
    server = _Server(pool, seconds)

    def told() -> None:
        line = sys.stdin.readline()
        if not line:
            loop.remove_reader(sys.stdin)
            return
        server.mood = line.strip()
        print(server.mood, flush=True)

    loop.add_reader(sys.stdin, told)
    listening = await loop.create_server(lambda: _Protocol(server), "127.0.0.1", 0, backlog=1024)
    print(listening.sockets[0].getsockname()[1], flush=True)
    await listening.serve_forever()


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1], float(sys.argv[2])))
