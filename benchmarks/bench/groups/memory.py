"""Memory (PSS of the whole tree) at rest with one worker, a kept-alive connection that idles, a WebSocket that idles."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

from bench import proxies
from bench.holding import Held
from bench.proxies.base import Proxy
from bench.setting import Setting, command_of

#: Connections that are open before the count begins: what is allocated once is not charged to those that follow.
FIRST = 50
#: Seconds until a proxy is at rest.
REST = 1.5


def measure(setting: Setting, say: Callable[[str], None], names: Sequence[str]) -> dict[str, Any]:
    """All three figures; JSON."""
    connections, websockets = (1000, 200) if setting.quick else (4000, 1000)
    found: dict[str, Any] = {}
    for name in names:
        say(f"memory: {name}")
        found[name] = _once(setting, name, connections, websockets)
    return {
        "command": command_of("memory"),
        "connections": connections,
        "websockets": websockets,
        "proxies": found,
    }


def _once(setting: Setting, name: str, connections: int, websockets: int) -> dict[str, float | None]:
    with ExitStack() as stack:
        proxy = proxies.make(name, setting, stack)
        time.sleep(REST)
        rest = proxy.program.pss()
        connection = _each(proxy, connections, websocket=False)
    socket = None
    if proxy.websockets:
        with ExitStack() as stack:
            socket = _each(proxies.make(name, setting, stack, blue=setting.backend.echo), websockets, websocket=True)
    return {"rest_bytes": rest, "connection_bytes": connection, "websocket_bytes": socket}


def _each(proxy: Proxy, count: int, *, websocket: bool) -> float:
    """Bytes for one more of them."""
    with Held(proxy.port) as held:
        held.more(FIRST, websocket=websocket)
        time.sleep(0.2)
        before = proxy.program.pss()
        held.more(count, websocket=websocket)
        time.sleep(0.2)
        grown = proxy.program.pss() - before
        if lost := held.closed():
            raise OSError(f"{proxy.label} closed {lost} of {count} connections that idled")
    return grown / count
