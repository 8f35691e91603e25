"""What stands behind the proxies: nginx as blue and green, and an echo of WebSocket messages."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from bench.client import status_of
from bench.places import BENCHMARKS, TEMPLATES, free_port
from bench.program import Program, poll
from bench.setting import Backend, Tools
from bench.templates import render_file


def files(folder: Path) -> None:
    """What is served: 64 KiB, 1 MiB, and 16 KiB with include marks in it, which makes nginx send it chunked."""
    folder.mkdir()
    (folder / "64k").write_bytes(b"x" * (64 << 10))
    (folder / "1m").write_bytes(b"x" * (1 << 20))
    piece = b"x" * 2000 + b'<!--# echo var="none" default="-" -->'
    (folder / "chunked.txt").write_bytes(piece * 8)


def start(stack: ExitStack, tools: Tools, folder: Path, cores: str, descriptors: int) -> Backend:
    """Start both; the stack ends them."""
    backend = Backend(free_port(), free_port(), free_port())
    files(folder / "files")
    values = {
        "FOLDER": folder,
        "FILES": descriptors,
        "CONNECTIONS": descriptors - 500,
        "BLUE": backend.blue,
        "GREEN": backend.green,
        "SINK": free_port(),
    }
    config = render_file(TEMPLATES / "backend.nginx.conf", folder / "backend.conf", values)
    command = [tools.nginx, "-e", "stderr", "-p", str(folder), "-c", str(config)]
    server = stack.enter_context(Program("the back end", command, cores, folder / "backend.log"))
    echo = [tools.python, str(BENCHMARKS / "bench" / "echo.py"), str(backend.echo)]
    echoes = stack.enter_context(Program("the echo", echo, cores, folder / "echo.log"))
    poll(lambda: status_of(backend.blue) == status_of(backend.green) == 200, 10, "the back end answers", server)
    poll(lambda: status_of(backend.echo) == 200, 10, "the echo answers", echoes)
    return backend
