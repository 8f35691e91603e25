"""Deployments of a running bgproxy, by its API; and whether its traffic is whole."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from support.proxy import Proxy
from support.waiting import eventually

from bgproxy.control.statefile import decode

#: Connections that are asked over: enough for every worker to have some.
CONNECTIONS = 16


class Deploys:
    """Those of one proxy; `name` is the service's, whose latest deployment is meant."""

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy
        self.numbers: dict[str, int] = {}

    def begin(self, name: str = "default", **body: Any) -> int:
        """Begin one; its number."""
        code, answer = self.proxy.api("POST", f"/v1/services/{name}/deployments", body)
        assert code in (200, 201, 202), answer
        self.numbers[name] = answer["id"]
        return int(answer["id"])

    def approve(self, name: str = "default") -> None:
        self._decide(name, "approve")

    def abort(self, name: str = "default") -> None:
        self._decide(name, "abort")

    def _decide(self, name: str, verb: str) -> None:
        code, answer = self.proxy.api("POST", f"/v1/deployments/{self.numbers[name]}/{verb}", {})
        assert code == 200, answer

    def get(self, name: str = "default") -> dict[str, Any]:
        """It as the API answers it."""
        code, answer = self.proxy.api("GET", f"/v1/deployments/{self.numbers[name]}")
        assert code == 200, answer
        return answer

    def way(self, name: str = "default") -> list[str]:
        """The states that it went through."""
        return [step["state"] for step in self.get(name)["steps"]]

    def until(self, state: str, name: str = "default", *, within: float = 15.0) -> dict[str, Any]:
        """Wait until it is in this state; it must not end in another."""

        def reached() -> dict[str, Any] | None:
            now = self.get(name)
            if not now["running"] and now["state"] != state:
                raise EndedError(f"{name}: {now['state']}: {now['outcome']}")
            return now if now["state"] == state else None

        return eventually(reached, within=within, what=f"{name}: {state}")  # type: ignore[return-value]

    def ended(self, name: str = "default", *, within: float = 20.0) -> dict[str, Any]:
        """Wait until it has ended; how."""
        eventually(lambda: not self.get(name)["running"], within=within, what=f"{name} ends")
        return self.get(name)

    def waits(self, name: str = "default", *, within: float = 15.0) -> None:
        """Wait until it waits for the operator."""
        eventually(lambda: self.get(name)["waits"], within=within, what=f"{name} waits for an approval")

    def history(self, name: str = "default") -> list[dict[str, Any]]:
        """The events of the service, the oldest first."""
        code, answer = self.proxy.api("GET", f"/v1/history?service={name}&limit=1000")
        assert code == 200, answer
        return answer["events"]  # type: ignore[no-any-return]

    def told(self, name: str = "default") -> list[str]:
        """The states of the deployment by the history."""
        return [
            event["data"]["state"]
            for event in self.history(name)
            if event["type"] == "deployment" and event["data"]["id"] == self.numbers[name]
        ]

    def check_whole(self, live: str, name: str = "default", host: str = "test.example") -> None:
        """Every worker answers from `live`, which is who is live in the memory and on the disk, and nobody is split."""
        proxy = self.proxy
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(proxy.client()) for _ in range(CONNECTIONS)]
            answers = [client.get(Host=host) for client in clients]
            assert {(answer.status, answer.header("X-Pool")) for answer in answers} == {(200, live)}
            eventually(lambda: all(worker["connections"] for worker in proxy.status()["workers"]), what="all are asked")
        service = proxy.service(name)
        assert (service["live"], service["share"], service["deployment"]) == (live, 0, None)
        state = decode((Path(proxy.config["state_dir"]) / "state.json").read_bytes())
        assert ("blue", "green")[state.services[name].live] == live
        if name in self.numbers:
            assert state.deployments[self.numbers[name]].state.value == self.get(name)["state"]


class EndedError(Exception):
    """It has ended, in another state than it was waited for in."""
