"""What a peer did wrong, with the status that it suggests."""

from __future__ import annotations


class ProtocolError(Exception):
    """A peer's bytes are not the HTTP/1.1 that may be forwarded."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail


class BadRequest(ProtocolError):  # noqa: N818 - the status' own name
    """The client's fault: answered with `status`, and the connection is closed (RFC 9112 section 2.2)."""


class BadResponse(ProtocolError):  # noqa: N818 - the counterpart
    """The upstream's fault: answered with 502, and the upstream's connection is closed."""

    def __init__(self, detail: str) -> None:
        super().__init__(502, detail)


class LastHop(BadRequest):
    """Not a mistake: an OPTIONS that may go no further, so that it is answered here (RFC 9110 section 7.6.2)."""

    def __init__(self) -> None:
        super().__init__(200, "Max-Forwards is 0")
