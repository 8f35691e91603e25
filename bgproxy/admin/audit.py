"""The audit log: one line for every change that was asked for, whatever came of it.

Logger `bgproxy.audit`; who, from where, what, why, and the outcome. Tokens are never in it.
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

    method: str
    path: str
    since: float  # time.monotonic()
    who: str = "unknown"
    address: str = "unknown"
    said: dict[str, Any] = field(default_factory=dict)  # the checked body

    def write(self, outcome: str, status: int) -> None:
        """Log it: `outcome` is done, replayed, interrupted, or the slug of a problem."""
        what = {name: value for name, value in self.said.items() if name != "reason"}
        fields = {
            "who": self.who,
            "from": self.address,
            "what": f"{self.method} {self.path}",
            "said": what,
            "why": self.said.get("reason", ""),
            "outcome": outcome,
            "status": status,
            "ms": round((time.monotonic() - self.since) * 1e3, 1),
        }
        log.info("%s %s by %s: %s", self.method, self.path, self.who, outcome, extra={"fields": fields})
