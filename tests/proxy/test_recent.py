"""What GETs have asked for of late: sampled, bounded, forgotten."""

from __future__ import annotations

from bgproxy.proxy.recent import LONGEST, MOST, ONE_IN, Recent


def test_one_get_in_eight_is_noted() -> None:
    """The sample is what it says it is, and other methods are none of it."""
    recent = Recent()
    for _ in range(8000):
        recent.see(b"GET", b"/cart")
        recent.see(b"POST", b"/order")
    ((target, count),) = recent.most(10)
    assert target == "/cart"
    assert abs(count - 8000 / ONE_IN) < 100


def test_a_page_with_seven_pictures_is_seen() -> None:
    """Targets that come in a fixed order, eight to a turn, are noted about equally often."""
    recent = Recent()
    targets = [b"/page", *(b"/picture-%d" % number for number in range(7))]
    for _ in range(1000):
        for target in targets:
            recent.see(b"GET", target)
    counts = dict(recent.most(10))
    assert len(counts) == 8
    assert min(counts.values()) > 80


def test_the_most_come_first() -> None:
    """And no more than were asked for."""
    recent = Recent()
    for number in range(10):
        for _ in range(8 * 2**number):
            recent.see(b"GET", b"/%d" % number)
    assert [target for target, _ in recent.most(3)] == ["/9", "/8", "/7"]


def test_what_is_kept_is_bounded() -> None:
    """A hundred thousand targets that nobody asks for twice drive out neither memory nor what is asked for often."""
    recent = Recent()
    for number in range(100_000):
        recent.see(b"GET", b"/once?%d" % number)
        recent.see(b"GET", b"/often")
        assert len(recent.counts) <= MOST
    assert recent.most(1)[0][0] == "/often"


def test_a_long_target_is_not_kept() -> None:
    """Of a target, so many bytes at the most."""
    recent = Recent()
    for _ in range(100):
        recent.see(b"GET", b"/" + b"a" * LONGEST)
    assert recent.most(1) == ()


def test_a_minute_halves() -> None:
    """What was seen once is forgotten, the rest weighs half."""
    recent = Recent()
    recent.counts = {b"/a": 9, b"/b": 2, b"/c": 1}
    recent.halve()
    assert recent.most(10) == (("/a", 4), ("/b", 1))
