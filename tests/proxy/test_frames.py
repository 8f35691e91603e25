"""WebSocket frame boundaries, at any split."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bgproxy.proxy.frames import GOING_AWAY, SERVICE_RESTART, FrameTracker, close_frame

BOUNDED = settings(max_examples=60, deadline=None, derandomize=True, database=None)
TEXT, BINARY, CLOSE, PING = 1, 2, 8, 9


def frame(opcode, size, *, masked=False, final=True, wide=0):
    """A frame with so many bytes of payload; `wide` forces 2 or 8 bytes of length."""
    mask = 0x80 if masked else 0
    first = bytes([opcode | (0x80 if final else 0)])
    if wide == 8 or size > 0xFFFF:
        head = first + bytes([mask | 127]) + size.to_bytes(8, "big")
    elif wide == 2 or size > 125:
        head = first + bytes([mask | 126]) + size.to_bytes(2, "big")
    else:
        head = first + bytes([mask | size])
    return head + (b"\x01\x02\x03\x04" if masked else b"") + bytes(range(256)) * (size // 256) + bytes(size % 256)


def feed(*pieces):
    tracker = FrameTracker()
    for piece in pieces:
        tracker.feed(piece)
    return tracker


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("size", "wide"), [(0, 0), (1, 0), (125, 0), (126, 0), (300, 0), (5, 2), (0, 8), (200, 8)])
def test_a_boundary_is_where_a_frame_ends_and_nowhere_else(size, wide, masked):
    """Short, 16-bit and 64-bit lengths, masked or not: fed in two pieces cut anywhere, and byte by byte."""
    data = frame(BINARY, size, masked=masked, wide=wide)
    tracker = FrameTracker()
    assert tracker.boundary
    for at in range(len(data)):
        tracker.feed(data[at : at + 1])
        assert tracker.boundary is (at == len(data) - 1), at
    for cut in range(len(data) + 1):
        assert feed(data[:cut]).boundary is (cut in (0, len(data))), cut
        assert feed(data[:cut], data[cut:]).boundary, cut
    assert not feed(data).closing


def test_a_large_frame_is_counted_not_held():
    """A payload of 64 bits of length goes by; only a head that is cut in two is kept."""
    size = 5 * 2**32
    tracker = feed(b"\x82\x7f" + size.to_bytes(8, "big"))
    for _ in range(100):
        tracker.feed(bytes(65536))
        assert tracker.head == b""
    assert tracker.left == size - 100 * 65536
    assert not tracker.boundary


def test_the_payload_is_not_looked_into():
    """What looks like a Close frame within another is none; a fragment ends at its own boundary."""
    tracker = feed(b"\x82\x04\x88\x02\x03\xf4")
    assert tracker.boundary
    assert not tracker.closing
    assert feed(frame(TEXT, 3, final=False)).boundary


def test_a_close_frame_is_seen_when_its_head_has_come():
    """Nothing may be sent behind it, though its payload is still coming."""
    data = frame(CLOSE, 10, masked=True)
    tracker = feed(data[:5])
    assert not tracker.closing
    tracker.feed(data[5:6])
    assert tracker.closing
    assert not tracker.boundary
    tracker.feed(data[6:])
    assert tracker.boundary


def test_a_close_frame_among_others_in_one_piece():
    """Every head of a piece is looked at."""
    assert feed(frame(TEXT, 4) + frame(PING, 0) + frame(CLOSE, 2) + frame(TEXT, 1)).closing
    assert not feed(frame(TEXT, 4) + frame(PING, 0)).closing


@BOUNDED
@given(
    frames=st.lists(
        st.tuples(
            st.sampled_from([TEXT, BINARY, PING, CLOSE]), st.sampled_from([0, 1, 125, 126, 127, 70_000]), st.booleans()
        ),
        max_size=5,
    ),
    places=st.lists(st.integers(0, 80_000), max_size=6),
)
def test_any_split_is_tracked_alike(frames, places):
    """After each piece the boundary is where the whole stream has one."""
    wire = [frame(opcode, size, masked=masked) for opcode, size, masked in frames]
    ends = {sum(map(len, wire[:count])) for count in range(len(wire) + 1)}
    stream = b"".join(wire)
    marks = sorted({0, len(stream), *(place % (len(stream) + 1) for place in places)})
    tracker = FrameTracker()
    for start, end in itertools.pairwise(marks):
        tracker.feed(stream[start:end])
        assert tracker.boundary is (end in ends)
    assert tracker.closing is any(opcode == CLOSE for opcode, _, _ in frames)


@pytest.mark.parametrize("code", [GOING_AWAY, SERVICE_RESTART])
def test_a_close_frame_of_our_own(code):
    """Final, with its code; to a client it is not masked, to an upstream it is, with a key of its own (RFC 6455 5.3)."""
    assert close_frame(code, masked=False) == b"\x88\x02" + code.to_bytes(2, "big")
    masked = close_frame(code, masked=True)
    assert masked[:2] == b"\x88\x82"
    key = masked[2:6]
    assert bytes(byte ^ key[index] for index, byte in enumerate(masked[6:])) == code.to_bytes(2, "big")
    assert len({close_frame(code, masked=True)[2:6] for _ in range(8)}) > 1
    for data in (masked, close_frame(code, masked=False)):
        tracker = feed(data)
        assert tracker.boundary
        assert tracker.closing
