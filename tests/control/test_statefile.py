"""The bytes of the state file: nothing half, nothing changed, nothing newer."""

from __future__ import annotations

import random
from hashlib import sha256

import pytest

from bgproxy.control.state import PoolRecord, ServiceRecord, State, StateFormatError
from bgproxy.control.statefile import decode, describe, encode

POOLS = (PoolRecord("a", "1", ("http://127.0.0.1:1",)), PoolRecord("b", "2", ()))
STATE = State(generation=5, services={"shop": ServiceRecord(0, 1, 0, 5, 0.0, POOLS)})


def test_what_is_written_can_be_read():
    """Also text that is not quite Unicode, which the command line may bring in."""
    assert decode(encode(STATE)) == STATE
    odd = State(addresses={"\udcff": ()})
    assert decode(encode(odd)) == odd


def test_cut_anywhere_it_is_refused():
    """At every byte offset."""
    data = encode(STATE)
    for length in range(len(data)):
        with pytest.raises(StateFormatError):
            decode(data[:length])


def test_any_changed_byte_is_noticed():
    """In the first line as in the rest, and never taken for a newer format."""
    data = encode(STATE)
    flips = random.Random(7)  # the same flips every time
    for offset in range(len(data)):
        changed = bytearray(data)
        changed[offset] ^= flips.randrange(1, 256)
        with pytest.raises(StateFormatError, match=r"damaged|does not begin"):
            decode(bytes(changed))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (b"\0" * 4096, "does not begin with the line"),
        (b"[]\n", "does not begin with the line"),
        (b'{"bgproxy_state": "1", "bytes": 0}\n', "has a damaged first line"),
        (encode(STATE) + b"x", "bytes follow its first line"),
    ],
)
def test_other_content_is_refused_with_what_is_wrong(data, message):
    """Empty after a crash of another file system, zeroes, something else."""
    with pytest.raises(StateFormatError, match=message):
        decode(data)


def test_a_later_format_is_refused_as_such():
    """An operator who went back to an older version must learn just that."""
    body = b'{"new": "things"}\n'
    digest = sha256(b"2\n" + body).hexdigest()
    data = b'{"bgproxy_state": 2, "bytes": %d, "sha256": "%b"}\n' % (len(body), digest.encode()) + body
    with pytest.raises(StateFormatError, match=r"another version of bgproxy \(format 2; this version .* format 1\)"):
        decode(data)


@pytest.mark.parametrize("body", [b"{}\n", b"\xff\n"])
def test_a_vouched_for_body_that_is_no_state_is_refused(body):
    """Edited by hand, with a new checksum."""
    digest = sha256(b"1\n" + body).hexdigest().encode()
    with pytest.raises(StateFormatError, match="has a good checksum, but"):
        decode(b'{"bgproxy_state": 1, "bytes": %d, "sha256": "%b"}\n' % (len(body), digest) + body)


def test_a_description_names_who_is_live():
    """Of the first few services; enough to decide by."""
    assert describe(STATE) == "generation 5; shop: green is live since 1970-01-01T00:00:00.000Z"
    assert describe(State()) == "generation 0; no services"
    many = State(services={f"s{n}": ServiceRecord(n, 0, None, 0, None, POOLS) for n in range(10)})
    assert describe(many).endswith("s7: blue is live; and 2 services more")
