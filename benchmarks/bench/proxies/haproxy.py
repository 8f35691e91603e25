"""HAProxy: a switch is one `set map` on the runtime API."""

from __future__ import annotations

import socket

from bench.proxies.base import Proxy
from bench.setting import Tools


class Haproxy(Proxy):
    name = "haproxy"
    way = "set map on the runtime API"

    @classmethod
    def version(cls, tools: Tools) -> list[str]:
        return [tools.haproxy, "-v"]

    def prepare(self) -> list[str]:
        (self.folder / "haproxy.map").write_text("live blue\n")
        # Each of its connections takes two descriptors.
        config = self.configure("haproxy.cfg", CONNECTIONS=self.setting.files // 2 - 100)
        return [self.setting.tools.haproxy, "-db", "-f", str(config)]

    def switch(self, pool: str) -> None:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(10)
            sock.connect(str(self.folder / "haproxy.sock"))
            sock.sendall(f"set map {self.folder}/haproxy.map live {pool}\n".encode())
            said = b""
            while piece := sock.recv(4096):
                said += piece
        if said.strip():
            raise OSError(f"set map: {said!r}")
