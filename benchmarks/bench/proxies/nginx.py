"""nginx: a switch is another file and a reload."""

from __future__ import annotations

import os
import signal

from bench.places import TEMPLATES
from bench.proxies.base import Proxy
from bench.setting import Tools
from bench.templates import render_file


class Nginx(Proxy):
    name = "nginx"
    way = "the include file rewritten, then a reload (SIGHUP)"
    keeps = False

    @classmethod
    def version(cls, tools: Tools) -> list[str]:
        return [tools.nginx, "-v"]

    def prepare(self) -> list[str]:
        self._live(self.blue)
        config = self.configure("nginx.conf")
        if self.workers != 1:
            config.write_text(config.read_text().replace("worker_processes 1;", f"worker_processes {self.workers};"))
        return [self.setting.tools.nginx, "-e", "stderr", "-p", str(self.folder), "-c", str(config)]

    def _live(self, upstream: int) -> None:
        render_file(TEMPLATES / "nginx-live.conf", self.folder / "nginx-live.conf", {"UPSTREAM": upstream})

    def switch(self, pool: str) -> None:
        self._live(self.blue if pool == "blue" else self.green)
        os.kill(self.program.pid, signal.SIGHUP)
