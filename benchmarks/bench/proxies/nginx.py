"""nginx: a switch is another file and a reload."""

from __future__ import annotations

import os
import signal

from bench import certificate
from bench.places import TEMPLATES
from bench.proxies.base import Proxy
from bench.setting import Tools
from bench.templates import render_file


class Nginx(Proxy):
    name = "nginx"
    way = "the include file rewritten, then a reload (SIGHUP)"
    keeps = False
    tls = True

    @classmethod
    def version(cls, tools: Tools) -> list[str]:
        return [tools.nginx, "-v"]

    def prepare(self) -> list[str]:
        self._live(self.blue)
        config = self.configure("nginx.conf")
        if self.secure:
            plain = f"listen 127.0.0.1:{self.port} backlog=4096;"
            pair = certificate.pair(self.setting.folder)
            secure = (
                f"listen 127.0.0.1:{self.port} ssl backlog=4096; ssl_certificate {pair.cert}; "
                f"ssl_certificate_key {pair.key}; ssl_protocols TLSv1.2 TLSv1.3; ssl_ciphers {certificate.CIPHERS}; "
                "ssl_ecdh_curve X25519:prime256v1; ssl_buffer_size 16k;"
            )
            config.write_text(config.read_text().replace(plain, secure))
        if self.workers != 1:
            config.write_text(config.read_text().replace("worker_processes 1;", f"worker_processes {self.workers};"))
        return [self.setting.tools.nginx, "-e", "stderr", "-p", str(self.folder), "-c", str(config)]

    def _live(self, upstream: int) -> None:
        render_file(TEMPLATES / "nginx-live.conf", self.folder / "nginx-live.conf", {"UPSTREAM": upstream})

    def switch(self, pool: str) -> None:
        self._live(self.blue if pool == "blue" else self.green)
        os.kill(self.program.pid, signal.SIGHUP)
