"""Envoy: no way to switch from its admin interface; a control plane of one's own would."""

from __future__ import annotations

from bench.proxies.base import Proxy
from bench.setting import Tools


class Envoy(Proxy):
    name = "envoy"

    @classmethod
    def version(cls, tools: Tools) -> list[str]:
        return [tools.envoy, "--version"]

    def prepare(self) -> list[str]:
        config = str(self.configure("envoy.yaml"))
        return [
            *(self.setting.tools.envoy, "-c", config, "--concurrency", str(self.workers)),
            *("--disable-hot-restart", "--log-level", "error"),
        ]
