"""The demo's processes."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

import aiohttp
import pytest
from support.waiting import eventually_async

from bgproxy.cli.demo import children as module
from bgproxy.cli.demo.children import Child, free_port, listening_socket


async def start_shop(folder):
    with listening_socket() as sock:
        port = sock.getsockname()[1]
        arguments = ["blue", "1.0", str(sock.fileno())]
        return port, await Child.start("shop", "bgproxy.cli.demo.shop", arguments, folder / "log", [sock.fileno()])


async def fetch(port):
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/health") as answer:
        return answer.status


async def test_a_shop_lives_and_ends_in_order(tmp_path):
    """It serves on the socket that it was handed, in a process group of its own, and ends with 0 when stopped."""
    port, child = await start_shop(tmp_path)
    assert await eventually_async(lambda: fetch(port), within=20) == 200
    assert os.getpgid(child._process.pid) == child._process.pid
    await child.stop()
    assert await child.ended() == 0
    assert child.last_words() == ""
    await child.stop()


async def test_a_shop_ends_with_its_parent(tmp_path):
    """When the pipe to its standard input closes, as it does when the demo is killed, it ends by itself."""
    port, child = await start_shop(tmp_path)
    await eventually_async(lambda: fetch(port), within=20)
    child._process.stdin.close()
    assert await asyncio.wait_for(child.ended(), 20) == 0


async def test_a_stubborn_child_is_killed_with_its_group(tmp_path, monkeypatch):
    """What ignores SIGTERM is killed, and so is what it started."""
    (tmp_path / "stubborn.py").write_text(
        "import os, signal, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = os.fork()\n"
        "if child: print(child, flush=True)\n"
        "while True: time.sleep(60)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(module, "PATIENCE", 0.1)
    child = await Child.start("stubborn", "stubborn", [], tmp_path / "log")
    await eventually_async(child.last_words, within=20)
    grandchild = int(child.last_words())
    await child.stop()
    assert await child.ended() == -9
    await eventually_async(lambda: not _runs(grandchild))


def _runs(pid):
    try:
        return (
            Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        )  # a zombie is its new parent's business
    except FileNotFoundError:
        return False


def test_free_port():
    """The wanted one, or the next that nobody has; those that are promised to others are passed over."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        taken = sock.getsockname()[1]
        found = free_port(taken)
        assert found is not None
        assert found > taken
        assert free_port(found, frozenset({found})) != found
    assert free_port(taken) == taken


@pytest.mark.parametrize("wanted", [65536, 70000])
def test_no_port(wanted):
    """Beyond the last port there is none."""
    assert free_port(wanted) is None
