"""An upstream that is healthy and never answers anything else. Run: hanging.py PORT. Ends at SIGTERM."""

from __future__ import annotations

import asyncio
import contextlib
import sys

HEALTHY = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Health checks are answered; whoever asks for more waits until it leaves."""
    with contextlib.suppress(OSError, asyncio.IncompleteReadError):
        while True:
            if b"bgproxy-health/" not in await reader.readuntil(b"\r\n\r\n"):
                await reader.read()
                break
            writer.write(HEALTHY)
    writer.close()


async def main() -> None:
    server = await asyncio.start_server(serve, "127.0.0.1", int(sys.argv[1]), backlog=1024)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
