"""Caddy: a switch is a PATCH of the upstreams on the admin API."""

from __future__ import annotations

from bench.client import Api
from bench.proxies.base import Proxy
from bench.setting import Tools


class Caddy(Proxy):
    name = "caddy"
    way = "PATCH /id/live/upstreams on the admin API"
    keeps = False

    @classmethod
    def version(cls, tools: Tools) -> list[str]:
        return [tools.caddy, "version"]

    def prepare(self) -> list[str]:
        return [self.setting.tools.caddy, "run", "--config", str(self.configure("caddy.json"))]

    def environment(self) -> dict[str, str]:
        return {"GOMAXPROCS": str(self.workers), "HOME": str(self.folder), "XDG_DATA_HOME": str(self.folder)}

    def switch(self, pool: str) -> None:
        port = self.blue if pool == "blue" else self.green
        api = Api(self.admin)  # a kept connection would be closed by the new configuration's admin end
        try:
            api.call("PATCH", "/id/live/upstreams", [{"dial": f"127.0.0.1:{port}"}])
        finally:
            api.close()
