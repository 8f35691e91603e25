"""The errors say whose fault it was, and with which status it is answered."""

from __future__ import annotations

from bgproxy.http1.errors import BadRequest, BadResponse, LastHop, ProtocolError


def test_a_bad_request_carries_the_status_that_it_suggests():
    """The status and the detail are had as fields; the text is the detail."""
    error = BadRequest(431, "too many")
    assert (error.status, error.detail, str(error)) == (431, "too many", "too many")
    assert isinstance(error, ProtocolError)


def test_a_bad_response_is_always_502():
    """Whatever an upstream did wrong, the client is told that the gateway's other side broke."""
    error = BadResponse("rubbish")
    assert (error.status, error.detail) == (502, "rubbish")
    assert isinstance(error, ProtocolError)
    assert not isinstance(error, BadRequest)


def test_a_last_hop_is_answered_with_200():
    """It goes the way of what is refused, and is no mistake."""
    assert LastHop().status == 200
    assert isinstance(LastHop(), BadRequest)
