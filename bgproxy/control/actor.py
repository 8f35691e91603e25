"""Who asks for a change."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Actor:
    """The name of a token, or "anonymous", "SIGHUP", "health" and the like; and where the request came from."""

    name: str
    address: str

    def to_json(self) -> dict[str, str]:
        """As it stands in events."""
        return {"name": self.name, "address": self.address}


#: What happens without anybody having asked: checks, ejections, drains that end.
ITSELF: Final = Actor("bgproxy", "local")


def deployer(number: int) -> Actor:
    """The deployment with this number, as the one who asks."""
    return Actor(f"deployment {number}", "local")
