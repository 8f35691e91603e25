"""The proxy that one would write by hand: benchmarks/peers/by_hand.py."""

from __future__ import annotations

from bench.places import TEMPLATES
from bench.proxies.base import Proxy
from bench.setting import Tools


class ByHand(Proxy):
    name = "by_hand"
    websockets = False

    @classmethod
    def missing(cls, tools: Tools) -> str:  # noqa: ARG003 - aiohttp and uvloop are bgproxy's own libraries
        return ""

    @classmethod
    def version(cls, tools: Tools) -> list[str]:
        return [tools.python, "-c", "import aiohttp; print('aiohttp', aiohttp.__version__)"]

    def prepare(self) -> list[str]:
        return [self.setting.tools.python, str(TEMPLATES / "by_hand.py"), str(self.port), str(self.blue)]
