"""Tests of what the tests need: `alone` is alone, and comes to its turn."""

from __future__ import annotations

import threading

from support.turns import Turns
from support.waiting import eventually


def test_who_is_alone_waits_for_the_others_and_goes_before_newcomers(tmp_path):
    """Two share; a third that is alone comes when both have ended, and before one that came to share after it."""
    turns, order = Turns(tmp_path), []
    waiting, ends = [], threading.Event()

    def alone():
        waiting.append("alone")
        with turns.alone():
            order.append("alone")
            ends.wait(5)
            order.append("alone ends")

    def late():
        waiting.append("late")
        with turns.shared():
            order.append("late")

    threads = [threading.Thread(target=alone), threading.Thread(target=late)]
    with turns.shared(), turns.shared():
        threads[0].start()
        eventually(lambda: _held(tmp_path / "door.lock"), what="the door is held by who waits for an empty room")
        threads[1].start()
        eventually(lambda: len(waiting) == 2)
        assert order == []
    eventually(lambda: order)
    assert order == ["alone"]
    ends.set()
    for thread in threads:
        thread.join(5)
    assert order == ["alone", "alone ends", "late"]


def _held(path):
    import fcntl

    with path.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
