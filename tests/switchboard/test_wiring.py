"""What a child process is handed at its birth."""

from __future__ import annotations

import os
import socket

import pytest

from bgproxy.config.schema import Config
from bgproxy.switchboard.board import Switchboard
from bgproxy.switchboard.wiring import ControllerBirth, WorkerBirth


@pytest.fixture
def ends():
    left, right = socket.socketpair()
    with left, right:
        yield left, right


def test_a_birth_survives_a_fork(ends):
    """Sockets and the board are inherited, not sent: a child writes on what it was handed, and its parent sees it."""
    left, right = ends
    board = Switchboard(1)
    birth = WorkerBirth(index=0, board=board, listeners=[], leash=left, link=left, workers=1)
    pid = os.fork()
    if not pid:
        area = birth.board.area(birth.index)
        area[5] = 42
        birth.leash.sendall(b"serving")
        os._exit(0)
    right.settimeout(5)
    assert right.recv(16) == b"serving"
    assert os.waitpid(pid, 0)[1] == 0
    area = board.area(0)
    assert area[5] == 42
    area.release()
    board.close()


def test_two_controllers_do_not_share_what_is_known_of_the_children(ends):
    """The default is a dictionary of its own."""
    board = Switchboard(1)
    births = [
        ControllerBirth(
            board=board, config=Config(), config_source=None, config_text="", listeners=[], leash=ends[0], links={}
        )
        for _ in range(2)
    ]
    births[0].children["controller"] = {"pid": 1, "restarts": 0}
    assert births[1].children == {}
    board.close()
