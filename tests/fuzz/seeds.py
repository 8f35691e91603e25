"""What fuzzing begins with: messages of our own, those that were findings, and the corpora that others wrote.

The corpora are not part of this repository: BGPROXY_CORPORA names their directory, or they lie beside it in
../shared/corpora. Without them there are fewer seeds.
"""

from __future__ import annotations

import json
import os
from base64 import b64decode
from pathlib import Path
from typing import Final

CORPORA: Final = Path(os.environ.get("BGPROXY_CORPORA") or Path(__file__).parents[3] / "shared" / "corpora")

_HOST = b" HTTP/1.1\r\nHost: shop.test\r\n"

REQUESTS: Final = {
    "plain": b"GET /a?b=c" + _HOST + b"Accept: */*\r\nCookie: a=b\r\n\r\n",
    "two alike": (b"GET /1" + _HOST + b"X-A: 1\r\n\r\n") * 2,
    "two that differ in a value": b"GET /1" + _HOST + b"X-A: 1\r\n\r\nHEAD /2" + _HOST + b"X-A: 22\r\n\r\n",
    "a body": b"POST /" + _HOST + b"Content-Length: 5\r\n\r\nhelloGET /" + _HOST + b"\r\n",
    "chunks": b"PUT /" + _HOST + b"Transfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n00\r\nX: 1\r\nHost: y\r\n\r\n",
    "1.0": b"GET / HTTP/1.0\r\n\r\n",
    "1.0 that stays": b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET / HTTP/1.0\r\n\r\n",
    "an address": b"OPTIONS http://b.example:80" + _HOST + b"\r\nGET http://b.example/x" + _HOST + b"\r\n",
    "an asterisk": b"OPTIONS *" + _HOST + b"Max-Forwards: 1\r\n\r\n",
    "an upgrade": b"GET /" + _HOST + b"Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n\r\n",
    "nominated": b"GET /" + _HOST + b"Connection: x-a, host, content-length\r\nX-A: 1\r\nContent-Length: 0\r\n\r\n",
    "forwarding": b"GET /" + _HOST + b"X-Forwarded-For: 6.6.6.6\r\nX_Forwarded_For: 6\r\nForwarded: for=6\r\n\r\n",
    "the last one": b"GET /" + _HOST + b"Connection: close\r\n\r\nGET /" + _HOST + b"\r\n",
    "both lengths": b"POST /" + _HOST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": b"POST /" + _HOST + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
    "an empty extension": b"PUT /" + _HOST + b"Transfer-Encoding: chunked\r\n\r\n1;\r\na\r\n0\r\n\r\n",
    "an open quote": b"PUT /" + _HOST + b'Transfer-Encoding: chunked\r\n\r\n1;a="\r\na\r\n0\r\n\r\n',
    "bare LF": b"GET / HTTP/1.1\nHost: shop.test\n\n",
    "eight bits": b"GET /" + _HOST + b"X: \x80\x85\xa0\xff\r\n\r\n",
    # Findings.
    "too many empty lines, one at a time": b"\r\n\r\n\r\nGET /" + _HOST + b"\r\n",
    "OPTIONS of an address that ends like its host": b"OPTIONS http://b/b" + _HOST + b"\r\n",
    "rubbish behind HEAD": b"HEAD /" + _HOST + b"\r\nrubbish\r\n\r\n",
    "a bad length in a trailer": (
        b"PUT /" + _HOST + b"Transfer-Encoding: chunked\r\n\r\n0\r\nContent-Length:\r\nX: 1\r\n\r\n"
    ),
    "an upgrade to no protocol": b"GET /" + _HOST + b"Connection: upgrade\r\nUpgrade: websode: h2c\r\n\r\n",
    "trailers that end with LF": b"PUT /" + _HOST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\n\r",
}

_OK = b"HTTP/1.1 200 OK\r\n"

RESPONSES: Final = {
    "plain": _OK + b"Date: x\r\nContent-Length: 2\r\n\r\nok",
    "undated": _OK + b"Content-Length: 2\r\n\r\nok",
    "chunks": _OK + b"Transfer-Encoding: chunked\r\n\r\n5;a\r\nhello\r\n0\r\nX: 1\r\n\r\n",
    "until it closes": _OK + b"Server: y\r\n\r\nhello",
    "1.0": b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok",
    "no content": b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n",
    "not modified": b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\nDate: x\r\n\r\n",
    "interim ones": b"HTTP/1.1 100 Continue\r\n\r\n\r\nHTTP/1.1 103 x\r\nLink: a\r\n\r\n"
    + _OK
    + b"Content-Length: 0\r\n\r\n",
    "two at once": (_OK + b"Date: x\r\nContent-Length: 2\r\n\r\nok") * 2,
    "cut short": _OK + b"Content-Length: 9\r\n\r\nok",
    "both lengths": _OK + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": _OK + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
    "an empty extension": _OK + b"Transfer-Encoding: chunked\r\n\r\n1;\r\na\r\n0\r\n\r\n",
    "a bad last chunk": _OK + b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0 \r\n\r\n",
    "split": _OK + b"X: a\rSet-Cookie: b\r\nContent-Length: 0\r\n\r\n",
    "switched unasked": b"HTTP/1.1 101 x\r\nUpgrade: y\r\nConnection: upgrade\r\n\r\nhello",
    "nominated": _OK + b"Connection: close, x-a\r\nX-A: 1\r\nContent-Length: 0\r\n\r\n",
    "a bad length in a trailer": _OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: x\r\n\r\n",
    # Findings.
    "too many empty lines behind an interim one": b"HTTP/1.1 100 x\r\n\r\n\r\n\r\n\r\n"
    + _OK
    + b"Content-Length: 0\r\n\r\n",
}


def seeds(which: str) -> list[bytes]:
    """All seeds of a target: `requests`, or `responses` and `wires`, which read the same."""
    which = "requests" if which == "requests" else "responses"
    found = list((REQUESTS if which == "requests" else RESPONSES).values())
    for path in sorted(CORPORA.glob(f"*_{which}.jsonl")):
        with path.open(encoding="utf-8") as lines:
            found += [b64decode(json.loads(line)["raw_b64"]) for line in lines]
    return found
