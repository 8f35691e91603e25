"""bgproxy, compiled or interpreted: a switch is a POST on the admin API."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Sequence
from typing import Any

from bench import certificate
from bench.client import Api
from bench.places import REPOSITORY
from bench.process import cpu_seconds, pss_bytes
from bench.program import poll
from bench.proxies.base import Proxy
from bench.setting import Setting, Tools


def environment_of(build: str) -> dict[str, str]:
    """The installed package for the compiled one, the source tree for the interpreted one."""
    return {"PYTHONPATH": str(REPOSITORY)} if build == "interpreted" else {"PYTHONPATH": "", "PYTHONSAFEPATH": "1"}


def python_of(tools: Tools, build: str) -> str:
    return tools.interpreted if build == "interpreted" else tools.compiled


class Bgproxy(Proxy):
    """`blue_urls`, `green_urls`: more than one upstream a pool; `services`: more than one; `deployment`: settings of the first."""

    name = "bgproxy"
    tls = True
    way = "POST /v1/services/shop/switch on the admin API"

    def __init__(
        self,
        setting: Setting,
        *arguments,
        build: str = "compiled",
        blue_urls: Sequence[str] = (),
        green_urls: Sequence[str] = (),
        services: int = 1,
        deployment: dict[str, Any] | None = None,
        **more,
    ):
        self.build = build
        self.deployment = deployment
        self.services = services
        self.blue_urls = blue_urls
        self.green_urls = green_urls
        self._api: Api | None = None
        super().__init__(setting, *arguments, **more)

    @property
    def label(self) -> str:
        return "bgproxy" if self.build == "compiled" else "bgproxy-interpreted"

    @classmethod
    def missing_build(cls, tools: Tools, build: str) -> str:
        """Why that build cannot be run here."""
        python = python_of(tools, build)
        try:
            said = subprocess.run(
                [python, "-m", "bgproxy", "version", "--json"],
                env=os.environ | environment_of(build),
                cwd="/",
                capture_output=True,
                timeout=30,
                check=True,
            ).stdout
        except (OSError, subprocess.SubprocessError):
            return f"no bgproxy in {python}" + (" (`make install` puts one there)" if build == "compiled" else "")
        found = json.loads(said)["build"]
        return "" if found == build else f"the bgproxy of {python} is {found}"

    @classmethod
    def version(cls, tools: Tools, build: str = "compiled") -> list[str]:
        return [python_of(tools, build), "-m", "bgproxy", "version"]

    def environment(self) -> dict[str, str]:
        return environment_of(self.build)

    def prepare(self) -> list[str]:
        blue = self.blue_urls or [f"http://127.0.0.1:{self.blue}"]
        green = self.green_urls or [f"http://127.0.0.1:{self.green}"]
        pools = json.dumps({"blue": {"upstreams": blue}, "green": {"upstreams": green}})
        more = "".join(
            f"  more{number}: {{ match: {{ hosts: [more{number}.example.com] }}, pools: {pools} }}\n"
            for number in range(1, self.services)
        )
        if self.deployment is not None:
            more = f"    deployment: {json.dumps(self.deployment)}\n{more}"
        listen = f"127.0.0.1:{self.port}"
        if self.secure:
            pair = certificate.pair(self.setting.folder)
            certificates = [{"cert": str(pair.cert), "key": str(pair.key)}]
            listen = json.dumps({"address": listen, "tls": {"certificates": certificates}})
        config = self.configure(
            "bgproxy.yaml", LISTEN=listen, BLUE=json.dumps(blue), GREEN=json.dumps(green), MORE=more
        )
        return [python_of(self.setting.tools, self.build), "-m", "bgproxy", "run", "-c", str(config)]

    def answers(self) -> bool:
        return super().answers() and self._ready()

    def _ready(self) -> bool:
        try:
            self.api.call("GET", "/readyz")
        except OSError:
            return False
        return True

    @property
    def api(self) -> Api:
        if self._api is None:
            self._api = Api(self.admin)
        return self._api

    def switch(self, pool: str) -> None:
        self.api.call("POST", "/v1/services/shop/switch", {"to": pool})

    def deploy(self) -> int:
        """Begin a deployment; its number."""
        return self.api.call("POST", "/v1/services/shop/deployments", {})["id"]

    def until(self, deployment: int, state: str) -> None:
        """Wait until it is in that state."""
        path = f"/v1/deployments/{deployment}"
        poll(lambda: self.api.call("GET", path)["state"] == state, 10, f"deployment {deployment} is {state}")

    def abort(self, deployment: int) -> None:
        """End one, and wait until it has."""
        self.api.call("POST", f"/v1/deployments/{deployment}/abort", {})
        self.until(deployment, "aborted")

    def mirrored(self) -> tuple[int, int]:
        """Requests of the live pool that were repeated to the idle one, and sampled ones that were not."""
        text = self.api.text("/metrics")
        names = ("bgproxy_mirrored_requests_total", "bgproxy_mirror_dropped_total")
        values = [re.search(rf'^{name}{{pool="blue",service="shop"}} (\S+)$', text, re.MULTILINE) for name in names]
        return tuple(int(float(value[1])) if value else 0 for value in values)

    def stopped(self) -> None:
        if self._api is not None:
            self._api.close()

    def workers_pids(self) -> list[int]:
        return [worker["pid"] for worker in self.api.call("GET", "/v1/status")["workers"]]

    def workers_cpu(self) -> float:
        """CPU seconds of the workers alone, so far."""
        return cpu_seconds(self.workers_pids())

    def workers_pss(self) -> int:
        return pss_bytes(self.workers_pids())
