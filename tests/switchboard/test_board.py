"""The switchboard: a switch of many services is one instant, in every process."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
import traceback
from collections.abc import Callable, Iterator

import pytest

from bgproxy.switchboard import layout
from bgproxy.switchboard.board import Switchboard

SLOTS = (0, 1, 77, layout.MAX_SERVICES - 1)
PATIENCE = 10.0


@pytest.fixture
def board() -> Iterator[Switchboard]:
    board = Switchboard(2)
    yield board
    board.close()


def test_each_board_has_a_name_of_its_own(board):
    """A name for Via: a token in lower case, the same for who else sees this board, and another one for another board."""
    assert re.fullmatch(rb"bgproxy-[0-9a-f]{8}", board.pseudonym)
    other = Switchboard(1)
    assert other.pseudonym != board.pseudonym
    other.close()


# --- words --------------------------------------------------------------------------------------------------------------


def test_a_settled_service_is_on_its_pool(board):
    """Whatever pool it is given, without a switch and without a time."""
    for slot, pool in zip(SLOTS, (0, 1, 1, 0), strict=True):
        board.settle(slot, pool)
    assert [board.live(slot) for slot in SLOTS] == [0, 1, 1, 0]
    assert [board.switched_at(slot) for slot in SLOTS] == [0.0] * 4
    assert board.epoch == 0


def test_a_commit_moves_what_it_names_and_nothing_else(board):
    """The epoch rises by one a commit, however many services it moves."""
    for slot in SLOTS:
        board.settle(slot, 0)
    assert board.commit({SLOTS[0]: 1, SLOTS[2]: 1}, now=12.5) == 1
    assert [board.live(slot) for slot in SLOTS] == [1, 0, 1, 0]
    assert [board.switched_at(slot) for slot in SLOTS] == [12.5, 0.0, 12.5, 0.0]
    assert board.commit({SLOTS[0]: 0, SLOTS[1]: 1}, now=13.0) == 2
    assert [board.live(slot) for slot in SLOTS] == [0, 1, 1, 0]
    assert board.epoch == 2


def test_a_commit_of_where_it_is_already_keeps_it_there(board):
    """At every moment of it: before and after are the same pool."""
    board.settle(0, 1)
    board.commit({0: 1}, now=1.0)
    assert board.live(0) == 1
    word = board.cells[layout.WORDS]
    assert (word & 1, word >> 1 & 1) == (1, 1)


def test_a_share_of_the_clients_goes_to_the_other_pool(board):
    """Who is live stays, and since when; a commit ends it; other services are not touched."""
    board.settle(0, 1, 3.5)
    board.settle(1, 0)
    assert board.split(0, 10) == 1
    assert (board.live(0), board.share(0), board.routing(0)) == (1, 10, 1 | 10 << 1)
    assert (board.share(1), board.switched_at(0)) == (0, 3.5)
    assert board.split(0, 100) == 2
    assert (board.live(0), board.share(0)) == (1, 100)
    board.commit({0: 0}, now=7.0)
    assert (board.live(0), board.share(0), board.switched_at(0)) == (0, 0, 7.0)
    for wrong in (-1, 101):
        with pytest.raises(ValueError, match="0 to 100"):
            board.split(0, wrong)


def test_until_the_epoch_is_stored_the_share_is_the_former_one(board):
    """In the middle of a change of the share, and of the switch that ends it; also where its controller died there."""
    board.settle(0, 0)
    board.split(0, 25)
    board.split(0, 75)
    board.cells[0] -= 1
    assert (board.live(0), board.share(0)) == (0, 25)
    board.cells[0] += 1
    board.commit({0: 1}, now=1.0)
    board.cells[0] -= 1
    assert (board.live(0), board.share(0)) == (0, 75)
    board.settle(1, 0)
    board.split(1, 5)  # which takes back what was not committed
    assert (board.live(0), board.share(0), board.share(1)) == (0, 75, 5)


def test_until_the_epoch_is_stored_nothing_has_moved(board):
    """The words of the next epoch are read as what was live before it; then as what is live from it on."""
    board.settle(0, 0)
    board.settle(1, 1)
    board.commit({0: 1, 1: 0}, now=1.0)
    board.cells[0] = board.epoch - 1  # as a worker sees it that loads just before the store
    assert (board.live(0), board.live(1)) == (0, 1)
    board.cells[0] = board.epoch + 1
    assert (board.live(0), board.live(1)) == (1, 0)


def test_a_commit_whose_controller_died_in_its_middle_is_taken_back(board):
    """With words written and no epoch stored nothing has switched; its successor's next commit does not bring them."""

    class Dies:
        """Cells that end their writer at the store of the epoch."""

        def __getitem__(self, index):
            return cells[index]

        def __setitem__(self, index, value):
            if index == 0:
                raise SystemExit
            cells[index] = value

    for slot in SLOTS:
        board.settle(slot, 0)
    board.commit({SLOTS[3]: 1}, now=1.0)
    cells = board.cells
    board.cells = Dies()
    with pytest.raises(SystemExit):
        board.commit({SLOTS[0]: 1, SLOTS[3]: 0}, now=1.0)
    board.cells = cells
    assert [board.live(slot) for slot in SLOTS] == [0, 0, 0, 1]
    board.commit({SLOTS[1]: 1}, now=2.0)
    assert [board.live(slot) for slot in SLOTS] == [0, 1, 0, 1]
    board.commit({SLOTS[0]: 1}, now=3.0)
    assert [board.live(slot) for slot in SLOTS] == [1, 1, 0, 1]


def test_a_service_settled_late_is_live_at_once(board):
    """A word is given with the epoch of its time, after any number of switches."""
    board.settle(0, 0)
    for number in range(70_000):  # more than sixteen bits
        board.commit({0: (number + 1) % 2}, now=0.0)
    board.settle(1, 1)
    board.settle(2, 0)
    assert (board.live(0), board.live(1), board.live(2)) == (0, 1, 0)
    board.commit({1: 0}, now=0.0)
    assert (board.live(0), board.live(1)) == (0, 0)


def test_a_slot_that_is_given_anew_forgets_its_former_service(board):
    """Neither the pool nor the time of a switch is the former holder's."""
    board.settle(5, 0)
    board.commit({5: 1}, now=3.0)
    board.settle(5, 0)
    assert (board.live(5), board.switched_at(5)) == (0, 0.0)


def test_the_time_of_a_switch_is_now_unless_told(board):
    """CLOCK_MONOTONIC, to the microsecond."""
    board.settle(0, 0)
    before = time.monotonic()
    board.commit({0: 1})
    assert before - 1e-5 <= board.switched_at(0) <= time.monotonic()


def test_the_time_is_stored_before_the_epoch(board):
    """A session policy must never find a service switched with the time of an older switch."""
    stores = []

    class Recorder:
        def __getitem__(self, index):
            return cells[index]

        def __setitem__(self, index, value):
            stores.append(index)
            cells[index] = value

    board.settle(0, 0)
    cells = board.cells
    board.cells = Recorder()
    board.commit({0: 1}, now=1.0)
    board.cells = cells
    assert stores == [layout.PREPARED, layout.WORDS + 1, layout.WORDS, 0]


def test_areas_of_workers_are_apart(board):
    """What one worker writes, from its first cell to its last, no other sees; nor the words."""
    first, second = board.area(0), board.area(1)
    assert len(first) == len(second) == layout.AREA
    first[0] = first[-1] = 7
    assert second[0] == second[-1] == 0
    assert [board.live(slot) for slot in SLOTS] == [0] * 4
    second[0] = 9
    assert (first[-1], first[0]) == (7, 7)
    first.release()
    second.release()


# --- other processes ----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def process(work: Callable[[], None]) -> Iterator[int]:
    """A forked process that runs `work`; it is ended, and must not have failed by itself."""
    pid = os.fork()
    if not pid:
        status = 1
        try:
            work()
            status = 0
        except BaseException:  # noqa: BLE001 - a forked test must not go on into pytest
            traceback.print_exc()
        finally:
            os._exit(status)
    try:
        yield pid
    finally:
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0


# The reader tells what it saw in cells of its own area.
LOOKS, MIXED, EPOCHS, BACKWARDS = range(4)


def watch(board: Switchboard, slots: tuple[int, ...]) -> None:
    """Look for ever: within one epoch all services must be on one side, and in order of epochs never go back."""
    mine = board.area(0)
    last = -1
    while True:
        epoch = board.epoch
        sides = {board.live(slot) for slot in slots}
        if board.epoch != epoch:
            continue
        mine[LOOKS] += 1
        if len(sides) > 1:
            mine[MIXED] += 1
        elif sides != {epoch & 1}:
            mine[BACKWARDS] += 1
        if epoch != last:
            mine[EPOCHS] += 1
            last = epoch


def careless(board: Switchboard, pool: int) -> None:
    """What a board without epochs would do: one store a service."""
    for slot in SLOTS:
        board.cells[layout.WORDS + 2 * slot] = pool << 1 | pool


def test_a_commit_of_many_services_is_one_instant_in_another_process(board):
    """A reader finds four services on one side within any epoch, through thousands of switches, and never an old side."""
    for slot in SLOTS:
        board.settle(slot, 0)
    cells = board.area(0)
    pool = 0
    deadline = time.monotonic() + PATIENCE
    with process(lambda: watch(board, SLOTS)):
        while cells[EPOCHS] < 300 or cells[LOOKS] < 3000:
            pool = 1 - pool
            board.commit(dict.fromkeys(SLOTS, pool), now=0.0)
            time.sleep(0)  # on one core the reader must get its turn, anywhere
            assert time.monotonic() < deadline
    assert cells[MIXED] == 0
    assert cells[BACKWARDS] == 0
    cells.release()


def test_the_reader_sees_a_switch_that_is_not_one_instant(board):
    """The check above can fail: stores service by service are found out."""
    for slot in SLOTS:
        board.settle(slot, 0)
    cells = board.area(0)
    pool = 0
    deadline = time.monotonic() + PATIENCE
    with process(lambda: watch(board, SLOTS)):
        while not cells[MIXED]:
            pool = 1 - pool
            careless(board, pool)
            assert time.monotonic() < deadline
    cells.release()


def test_what_is_read_after_a_commit_has_returned_is_the_new_pool(board):
    """Asked through a pipe, after the commit: another process knows it, each time."""
    for slot in SLOTS:
        board.settle(slot, 0)
    ask_end, asked = os.pipe()
    told, tell_end = os.pipe()

    def answer() -> None:
        os.close(asked)
        while os.read(ask_end, 1):
            os.write(tell_end, bytes(board.live(slot) for slot in SLOTS))

    with process(answer):
        os.close(ask_end)
        for number in range(500):
            pool = (number + 1) % 2
            board.commit(dict.fromkeys(SLOTS, pool), now=0.0)
            os.write(asked, b"?")
            assert os.read(told, 4) == bytes([pool] * 4)
        os.close(asked)
    os.close(told)
    os.close(tell_end)
