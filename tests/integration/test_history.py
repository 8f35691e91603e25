"""The history of many deployments, over a restart, by the API and by the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.backends import Backend
from support.deploys import Deploys
from support.proxy import Proxy

from bgproxy.cli.main import main
from bgproxy.control.deployments.keeping import KEPT_OF_A_SERVICE
from bgproxy.control.statefile import decode

MANY = KEPT_OF_A_SERVICE + 3


@pytest.mark.slow
def test_deployments_are_told_of_when_the_state_file_has_forgotten_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Who, when, why, which version, how and after how long each ended, and the cause; also of one that failed at first."""
    with Backend("blue") as blue, Backend("green") as green:
        pools = {"blue": {"upstreams": [blue.url]}, "green": {"upstreams": [green.url]}}
        check = {"name": "gate", "run": '[ "$BGPROXY_VERSION" != bad ] || { echo "no such image"; exit 7; }'}
        settings = {"pools": pools, "health": {"path": "/health", "interval": "200ms"}}
        with Proxy(tmp_path, services={"default": settings | {"deployment": {"verify": {"checks": [check]}}}}) as proxy:
            proxy.wait_healthy()
            deploys = Deploys(proxy)
            deploys.begin(version="bad", reason="the first")
            bad = deploys.ended()
            for number in range(1, MANY):
                deploys.begin(version=f"{number}.0")
                assert deploys.ended()["state"] == "succeeded"

            def said(*words: str) -> str:
                assert main(["history", *words, "--admin", proxy.admin_url]) == 0
                return capsys.readouterr().out

            def look() -> None:
                _, answer = proxy.api("GET", "/v1/services/default/deployments?limit=100")
                assert [one["version"] for one in answer["deployments"]] == [
                    "bad",
                    *(f"{n}.0" for n in range(1, MANY)),
                ]
                assert answer["deployments"][0] == proxy.api("GET", f"/v1/deployments/{bad['id']}")[1] == bad
                lines = said("--deployments").splitlines()
                assert len(lines) == MANY
                assert "deployment 1 failed before the switch after" in lines[0]
                assert "check 'gate': status 7" in lines[0]
                assert lines[0].endswith("[green bad, by anonymous] (the first)")
                assert "no such image" in said("--deployment", "1")
                listed = json.loads(said("--deployments", "--limit", "2", "--json"))
                assert [one["id"] for one in listed["deployments"]] == [MANY - 1, MANY]

            look()
            state = decode((Path(proxy.config["state_dir"]) / "state.json").read_bytes())
            assert len(state.deployments) == KEPT_OF_A_SERVICE
            proxy.restart()
            look()
