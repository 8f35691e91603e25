"""The audit log: one line for every change that was asked for, whatever came of it.

Logger `bgproxy.audit`; who, with which role, from where, what, why, the outcome, and the reason of a refusal. Changes that
were refused before anybody knew who asks are in it too. Tokens never are.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from typing import Any

log = logging.getLogger("bgproxy.audit")


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
        what = {name: value for name, value in self.said.items() if name != "reason"}
        fields = {
            "who": self.who,
            "role": self.role,
            "from": self.address,
            "what": self.what,
            "said": what,
            "why": self.said.get("reason", ""),
            "outcome": outcome,
            "status": status,
            "ms": round((time.monotonic() - self.since) * 1e3, 1),
        }
        if detail:
            fields["detail"] = detail
        log.info("%s by %s: %s", self.what, self.who, outcome, extra={"fields": fields})
