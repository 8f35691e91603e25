"""Events of the admin API as they come (server-sent events), and where to go on after a break."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from typing import Any, Final, Self
from urllib.parse import urlencode

from bgproxy.cli.client import Client
from bgproxy.cli.exits import UnreachableError

Event = dict[str, Any]

#: Seconds of silence after which a stream counts as broken; the API sends a comment more often than that.
SILENCE: Final = 60.0


class EventStream:
    """One connection to /v1/events; iterating gives events until the connection ends.

    With a `service`, only what concerns it. `last_id` is the id of the last event that came, for the next connection.
    """

    def __init__(
        self,
        client: Client,
        last_id: int | None = None,
        service: str | None = None,
        *,
        silence: float = SILENCE,
    ) -> None:
        self.last_id = last_id
        path = "/v1/events" if service is None else f"/v1/events?{urlencode({'service': service})}"
        headers = {"Accept": "text/event-stream"}
        if last_id is not None:
            headers["Last-Event-ID"] = str(last_id)
        self._connection, self._response = client.open("GET", path, None, headers, timeout=silence)
        if self._response.headers.get_content_type() != "text/event-stream":
            self.close()
            raise UnreachableError(f"{client.address} answers, but has no events: it is not bgproxy's admin API")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """End the connection; a second time does nothing."""
        self._response.close()
        self._connection.close()

    def __iter__(self) -> Iterator[Event]:
        """Events in order; ends when the connection does, or when it is silent for too long."""
        data: list[str] = []
        number = ""
        for line in self._lines():
            if not line:
                event = _event(data)
                if event is not None:
                    if number.isascii() and number.isdecimal():
                        self.last_id = int(number)
                    yield event
                data, number = [], ""
                continue
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if name == "data":
                data.append(value)
            elif name == "id":
                number = value

    def _lines(self) -> Iterator[str]:
        while True:
            try:
                line = self._response.readline()
            except (OSError, http.client.HTTPException, ValueError):
                return
            if not line.endswith(b"\n"):
                return
            yield line.decode(errors="replace").rstrip("\r\n")


def _event(data: list[str]) -> Event | None:
    try:
        event = json.loads("\n".join(data))
    except ValueError:
        return None
    return event if isinstance(event, dict) else None
