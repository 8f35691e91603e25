"""The audit log: one line for every change that was asked for, whatever came of it.

Logger `bgproxy.audit`; who, with which role, from where, what, why, the outcome, and the reason of a refusal. Changes that
were refused before anybody knew who asks are in it too. Tokens never are.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final

log = logging.getLogger("bgproxy.audit")


#: Characters of a text, and entries of a list, that a line shows: one that a pipe has no room for is no line at all.
_TEXT: Final = 1000
_ENTRIES: Final = 20


@dataclass(slots=True)
class Record:
    """What is known of a change while it is under way."""

    what: str  # method and path, or the signal
    since: float  # time.monotonic()
    who: str = "unknown"
    role: str | None = None
    address: str = "unknown"
    said: dict[str, Any] = field(default_factory=dict)  # the checked body

    def write(self, outcome: str, status: int, detail: str = "") -> None:
        """Log it: `outcome` is done, replayed, interrupted, or the slug of a problem, which `detail` is the text of."""
        what = {name: _short(value) for name, value in self.said.items() if name != "reason"}
        fields = {
            "who": self.who,
            "role": self.role,
            "from": self.address,
            "what": _short(self.what),
            "said": what,
            "why": self.said.get("reason", ""),
            "outcome": outcome,
            "status": status,
            "ms": round((time.monotonic() - self.since) * 1e3, 1),
        }
        if detail:
            fields["detail"] = _short(detail)
        log.info("%s by %s: %s", _short(self.what), self.who, outcome, extra={"fields": fields})


def _short(value: object, longest: int = _TEXT) -> object:
    """The value, or its beginning, and how much more there was."""
    match value:
        case str() if len(value) > longest:
            return f"{value[:longest]}... ({len(value)} characters)"
        case list():
            rest = [f"... ({len(value)} entries)"] if len(value) > _ENTRIES else []
            return [_short(item, _TEXT // 5) for item in value[:_ENTRIES]] + rest
        case dict():
            more = {"...": f"({len(value)} entries)"} if len(value) > _ENTRIES else {}
            items = islice(value.items(), _ENTRIES)
            return {str(_short(name, _TEXT // 5)): _short(item, _TEXT // 5) for name, item in items} | more
    return value
