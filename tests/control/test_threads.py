"""Blocking calls in threads of their own."""

from __future__ import annotations

import asyncio
import errno
import threading

import pytest

from bgproxy.control.threads import in_thread


async def test_the_result_and_the_exception_come_back():
    """As if the function had been called here."""
    assert await in_thread("t", lambda: 7) == 7
    with pytest.raises(OSError, match="full"):
        await in_thread("t", lambda: (_ for _ in ()).throw(OSError("full")))


async def test_a_call_that_hangs_keeps_nobody_waiting():
    """The future can be given up at any time; the thread's late end disturbs nobody."""
    gate = threading.Event()
    future = in_thread("t", lambda: gate.wait(10))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.02):
            await future
    gate.set()
    assert await in_thread("t", lambda: True)


async def test_a_system_without_room_for_a_thread_is_an_error_of_the_system(monkeypatch):
    """Told where the future is awaited, as any other failure of the call: whoever goes on after those goes on."""

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    future = in_thread("t", lambda: True)
    with pytest.raises(OSError, match="no thread could be started") as caught:
        await future
    assert caught.value.errno == errno.EAGAIN
