"""Blocking calls in threads of their own."""

from __future__ import annotations

import asyncio
import errno
import threading

import pytest

from bgproxy.control.threads import OneThread, in_thread


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


async def test_one_thread_makes_all_calls_in_their_order():
    """The second begins when the first has ended, whatever came of it, and nobody has to wait in between."""
    thread = OneThread("t")
    seen: list[int] = []

    def note(number: int) -> int:
        seen.append(number)
        if number == 1:
            raise OSError("full")
        return threading.get_ident()

    calls = [thread.call(lambda number=number: note(number)) for number in range(4)]
    first, failed, *others = await asyncio.gather(*calls, return_exceptions=True)
    assert seen == [0, 1, 2, 3]
    assert isinstance(failed, OSError)
    assert others == [first, first] != [threading.get_ident()] * 2
    thread.close()


async def test_a_closed_thread_ends_after_what_was_asked_for_and_another_takes_its_place():
    """Who calls once more, late, is served."""
    thread = OneThread("t")
    last = thread.call(threading.current_thread)
    thread.close()
    thread.close()
    former = await last
    former.join(10)
    assert not former.is_alive()
    assert await thread.call(threading.current_thread) is not former
    thread.close()


async def test_one_thread_that_cannot_be_started_is_tried_again_at_the_next_call(monkeypatch):
    """As for a thread of a call's own."""

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    thread = OneThread("t")
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(OSError, match="no thread could be started"):
            await thread.call(lambda: True)
    assert await thread.call(lambda: True)
    thread.close()
