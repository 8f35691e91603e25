"""Draws the state tables: `python -m bgproxy.model.diagrams > docs/states.md` (Mermaid, which GitHub and GitLab show).

The pictures come from the tables that the code steps through, so they cannot tell anything else; a test holds that the
file is what this prints.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from enum import Enum
from typing import Any, Final

from bgproxy.model.connection import CLIENT_TABLE, SERVER_TABLE, TUNNEL_TABLE
from bgproxy.model.deployment import DEPLOYMENT_TABLE
from bgproxy.model.machine import Table
from bgproxy.model.pool import POOL_TABLE
from bgproxy.model.upstream import UPSTREAM_TABLE

#: Each table, with what a reader should know before looking at it.
TABLES: Final[tuple[tuple[Table[Any, Any], str], ...]] = (
    (
        POOL_TABLE,
        """\
One of the two pools of a service, as `bgproxy status` shows it. *Drained* is when nothing is left in flight that began
on it. From *idle* to *live* takes `--force`.""",
    ),
    (
        UPSTREAM_TABLE,
        """\
One server of a pool. New requests go to those that are *up* (and, in the live pool, to those that are still *checking*).
Ejection after failures of live requests stands beside these states, and ends by itself.""",
    ),
    (
        DEPLOYMENT_TABLE,
        """\
What `bgproxy deploy` goes through, in this order: queued, provisioning, verifying, comparing, warming, awaiting approval, switching,
baking, draining, retiring, succeeded. A stage that is not configured is skipped, which most of the arrows are; the switch alone
cannot be. Before it a deployment fails or is aborted, and users never noticed; from it on it is rolled back, and fails only where
that cannot be done.""",
    ),
    (CLIENT_TABLE, "A connection from a client, in a worker."),
    (SERVER_TABLE, "A connection from a worker to an upstream."),
    (
        TUNNEL_TABLE,
        """\
What a client's connection and an upstream's become with 101: bytes both ways. *Restart* is the deadline of a drain, or the
end of bgproxy itself; only a WebSocket can be told of it, with Close frames that both sides answer.""",
    ),
)

_HEAD: Final = """\
# States

Every machine of bgproxy is a table in `bgproxy/model/`: an event that a table does not have is a bug, raises, and changes
nothing. These pictures are drawn from the tables by `python -m bgproxy.model.diagrams > docs/states.md`.
"""


def diagram(table: Table[Any, Any]) -> str:
    """One table as a Mermaid stateDiagram. An event that leads to one place from every other state is drawn as a note."""
    everywhere = dict(_from_everywhere(table))
    lines = ["stateDiagram-v2", f"    [*] --> {_word(table.initial)}"]
    arrows: dict[tuple[str, str], list[str]] = {}
    for (state, event), after in table.transitions.items():
        if event not in everywhere:
            arrows.setdefault((_word(state), _word(after)), []).append(_label(event))
    lines += [f"    {before} --> {after}: {', '.join(events)}" for (before, after), events in arrows.items()]
    for event, after in everywhere.items():
        lines += [f"    note right of {_word(after)}", f"        from every state: {_label(event)}", "    end note"]
    lines += [f"    {_word(state)} --> [*]" for state in _states(table) if _is_last(table, state)]
    return "\n".join(lines)


def page() -> str:
    """The whole of docs/states.md."""
    parts = [_HEAD]
    for table, about in TABLES:
        parts.append(f"## {table.name[0].upper()}{table.name[1:]}\n\n{about}\n\n```mermaid\n{diagram(table)}\n```\n")
    return "\n".join(parts)


def _from_everywhere(table: Table[Any, Any]) -> Iterator[tuple[Enum, Enum]]:
    """The events that every state has, all of them with the same outcome."""
    states = set(_states(table))
    for event in {event: None for _, event in table.transitions}:
        after = {state: to for (state, what), to in table.transitions.items() if what is event}
        if set(after) == states and len(set(after.values())) == 1:
            yield event, next(iter(after.values()))


def _states(table: Table[Any, Any]) -> list[Enum]:
    kind: type[Enum] = type(table.initial)
    return list(kind)


def _is_last(table: Table[Any, Any], state: Enum) -> bool:
    """Whether no event leads out of a state."""
    return all(after is state for (before, _), after in table.transitions.items() if before is state)


def _word(state: Enum) -> str:
    """The name of a state as operators and log lines have it."""
    return state.name.lower()


def _label(event: Enum) -> str:
    return event.value if isinstance(event.value, str) else event.name.lower().replace("_", " ")


if __name__ == "__main__":
    sys.stdout.write(page())
