"""The smallest HTTP client that the suite needs: one request, one answer, on a connection that may be kept."""

from __future__ import annotations

import http.client
import json
import ssl
from typing import Any


def status_of(port: int, path: str = "/", *, secure: bool = False) -> int:
    """Of a GET; 0 where nobody answers. Over TLS nothing is verified: the certificate is the suite's own."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    if secure:
        unverified = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        unverified.check_hostname = False
        unverified.verify_mode = ssl.CERT_NONE
        connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=5, context=unverified)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        answer.read()
        return answer.status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        connection.close()


class Api:
    """A JSON API on a kept connection: a call is one round trip."""

    def __init__(self, port: int):
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """The answer's JSON, None without any; `OSError` for one that is not 2xx."""
        text = None if body is None else json.dumps(body)
        headers = {} if body is None else {"Content-Type": "application/json"}
        self._connection.request(method, path, text, headers)
        answer = self._connection.getresponse()
        said = answer.read()
        if not 200 <= answer.status < 300:
            raise OSError(f"{method} {path}: {answer.status}: {said[:500]!r}")
        return json.loads(said) if said.strip() else None

    def text(self, path: str) -> str:
        """The text that a GET is answered with; `OSError` for one that is not 2xx."""
        self._connection.request("GET", path)
        answer = self._connection.getresponse()
        said = answer.read().decode()
        if not 200 <= answer.status < 300:
            raise OSError(f"GET {path}: {answer.status}: {said[:500]!r}")
        return said

    def close(self) -> None:
        self._connection.close()
