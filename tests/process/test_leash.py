"""The supervisor's end of a leash."""

from __future__ import annotations

import json
import os
import socket

import pytest

from bgproxy.process.leash import Leash


@pytest.fixture
def pair():
    ours, theirs = socket.socketpair()
    theirs.settimeout(5)
    leash = Leash(ours)
    yield leash, theirs
    leash.close()
    theirs.close()


def read(child: socket.socket) -> tuple[list[dict], int]:
    """The messages that wait, and how many descriptors came with them."""
    child.setblocking(False)
    data, descriptors = b"", 0
    try:
        while True:
            piece, fds, _, _ = socket.recv_fds(child, 65536, 16)
            for fd in fds:
                os.close(fd)
            descriptors += len(fds)
            if not piece:
                break
            data += piece
    except BlockingIOError:
        pass
    return [json.loads(line) for line in data.splitlines()], descriptors


def test_a_message_goes_out_at_once(pair):
    """One line of JSON a message."""
    leash, child = pair
    leash.say("children", {"children": {}})
    assert child.recv(100) == b'{"children": {}}\n'
    assert not leash.wants_write


def test_a_handover_goes_with_its_message_and_is_closed_here(pair):
    """The descriptor arrives working, and the sender keeps no copy."""
    leash, child = pair
    mine, given = socket.socketpair()
    leash.say("link", {"link": True}, given)
    assert given.fileno() == -1
    data, fds, _, _ = socket.recv_fds(child, 100, 1)
    assert json.loads(data) == {"link": True}
    with mine, socket.socket(fileno=fds[0]) as received:
        received.sendall(b"hello")
        assert mine.recv(5) == b"hello"


def fill(leash: Leash) -> int:
    """Talk until the child's buffer is full; how many messages were taken."""
    taken = 0
    while not leash.wants_write:
        leash.say(f"filler {taken}", {"filler": "x" * 1000, "number": taken})
        taken += 1
    return taken


def test_a_stuck_child_never_blocks_and_keeps_little(pair):
    """While the child does not read, newer messages of a key replace older ones, and replaced descriptors are closed."""
    leash, child = pair
    fill(leash)
    given = []
    for number in range(50):
        near, far = socket.socketpair()
        near.close()
        given.append(far)
        leash.say("link 0", {"link": 0, "pid": number}, far)
        leash.say("children", {"children": number})
    assert sum(sock.fileno() != -1 for sock in given) == 1
    received, descriptors = read(child)
    while leash.wants_write:
        leash.flush()
        more, fds = read(child)
        received += more
        descriptors += fds
    assert [message for message in received if "filler" not in message] == [
        {"link": 0, "pid": 49},
        {"children": 49},
    ]
    assert descriptors == 1
    assert [message["number"] for message in received if "filler" in message] == list(range(len(received) - 2))


def test_a_loss_drops_the_link_that_was_not_handed_over(pair):
    """A link to a worker that has died meanwhile is not sent; that it is lost is."""
    leash, child = pair
    fill(leash)
    near, far = socket.socketpair()
    leash.say("link 0", {"link": 0}, far)
    leash.say("lost 0", {"lost": 0}, drops="link 0")
    assert far.fileno() == -1
    received, descriptors = read(child)
    leash.flush()
    received += read(child)[0]
    assert received[-1] == {"lost": 0}
    assert descriptors == 0
    near.close()


def test_messages_are_put_together_from_pieces(pair):
    """However the child's bytes are split, each whole line is a message; what is no JSON object is passed over."""
    leash, child = pair
    child.sendall(b'{"serving"')
    assert leash.receive() == []
    child.sendall(b': true}\nrubbish\n[1]\n{"refused": "x"}\n{"half')
    assert leash.receive() == [{"serving": True}, {"refused": "x"}]
    assert not leash.ended


def test_last_words_are_heard_before_the_end(pair):
    """What a child said just before it died is received together with the end."""
    leash, child = pair
    child.sendall(b'{"refused": "no"}\n')
    child.close()
    assert leash.receive() == [{"refused": "no"}]
    assert leash.ended


def test_talking_to_the_dead_is_harmless(pair):
    """A message to a child that has gone ends the leash, without an exception and without a leak."""
    leash, child = pair
    child.close()
    near, far = socket.socketpair()
    near.close()
    leash.say("link", {"link": True}, far)
    leash.say("children", {})
    assert leash.ended
    assert not leash.wants_write
    leash.close()
    assert far.fileno() == -1
