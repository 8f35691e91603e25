"""Where a listener sends its requests: the port of https://, and how it is written."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

from bgproxy.config.units import OFF, Marker

#: Of https:// where none is written (RFC 9110 section 4.2.2).
HTTPS_PORT: Final = 443

_WRITTEN: Final = re.compile(r"https(?::([0-9]{1,5}))?")


@dataclass(frozen=True, slots=True)
class RedirectText(Marker):
    """A port, written ``https`` (443) or ``https:8443``; None is written ``off``."""

    def parse(self, text: str) -> int | None:
        """The port; `ValueError` for another text."""
        if text == OFF:
            return None
        found = _WRITTEN.fullmatch(text)
        port = int(found[1] or HTTPS_PORT) if found is not None else 0
        if not 0 < port < 65536:
            raise ValueError(f"{text!r}: write off or https, for another port than 443 such as https:8443")
        return port

    def format(self, value: Any) -> str:
        """As it is written."""
        return OFF if value is None else "https" if value == HTTPS_PORT else f"https:{value}"

    @property
    def noun(self) -> str:
        """For messages."""
        return "off, https or https:PORT"

    @property
    def json_types(self) -> list[dict[str, Any]]:
        """For the JSON Schema."""
        return [{"const": OFF}, {"type": "string", "pattern": "^https(:[0-9]{1,5})?$"}]
