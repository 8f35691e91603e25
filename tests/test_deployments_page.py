"""docs/deployments.md: what it says there is, is there, and nothing is left out."""

from __future__ import annotations

import json
import os
import re
from dataclasses import fields
from typing import Any

import pytest
from support.backends import Backend
from support.deployments import make_run
from support.deploys import Deploys
from support.documents import DOCS, blocks
from support.proxy import Proxy

from bgproxy.cli.demo.children import free_port
from bgproxy.cli.demo.faults import KINDS
from bgproxy.cli.story import said, stage_names
from bgproxy.config.loading import load_text
from bgproxy.config.schema import BakeErrors, BakeLatency
from bgproxy.control.deployments.caller import USER_AGENT
from bgproxy.control.deployments.commands import variables
from bgproxy.control.deployments.compare import MARK
from bgproxy.model.deployment import ENDED, DeploymentState
from bgproxy.proxy.canary import COOKIE

PAGE = (DOCS / "deployments.md").read_text()
BLOCKS = {block.file or block.kind: block for block in blocks("deployments.md")}


def rows(section: str) -> list[list[str]]:
    """The cells of the table of a section, without its head."""
    _, _, body = PAGE.partition(f"## {section}\n")
    table = [line for line in body.partition("\n## ")[0].splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table[2:]]


def test_the_example_is_a_good_configuration():
    """It has every stage that there is."""
    settings = load_text(BLOCKS["bgproxy.yaml"].text, "bgproxy.yaml", {}).services["shop"].deployment
    stages = (settings.provision, settings.verify, settings.compare, settings.warm, settings.bake, settings.retire)
    assert None not in stages
    assert settings.notify


def test_the_table_of_stages_has_all_of_them_in_order():
    """By their names in the configuration; `approval` and `switch` are configured by `approve` and `strategy`."""
    named = [cells[0].strip("`") for cells in rows("The stages")]
    states = [state.value for state in DeploymentState][1:10]
    stages = stage_names(states).replace("approval", "approve").replace("switch", "strategy").split(", ")
    assert named == stages


def test_every_kind_of_bad_version_is_there():
    """With what is wrong, and the stage that finds it, as the demo has them."""
    found = {cells[0].strip("`"): cells for cells in rows("What catches what")}
    assert found.keys() == KINDS.keys()
    for kind, (wrong, stage) in KINDS.items():
        assert found[kind][1] == wrong
        assert found[kind][2].startswith(f"`{stage.partition(':')[0]}`"), kind


def test_the_rules_are_those_of_a_bake():
    """Each of the four, and no other."""
    assert [cells[0].strip("`") for cells in rows("How the bake judges")] == [
        f"{group}.{field.name}"
        for group, kind in (("errors", BakeErrors), ("p99", BakeLatency))
        for field in fields(kind)
    ]


def test_a_restart_is_told_for_every_state():
    """Of all that have not ended."""
    told = ", ".join(cells[0] for cells in rows("A restart in the middle")).split(", ")
    assert sorted(told) == sorted(said(state.value) for state in DeploymentState if state not in ENDED)


def test_the_json_is_what_hooks_get():
    """Its keys, and the kinds of their values; configuration.md has the variables."""
    shown = json.loads(BLOCKS["json"].text)
    given: dict[str, Any] = make_run("http://127.0.0.1:9002").described()
    assert {key: type(value) for key, value in shown.items()} == {key: type(value) for key, value in given.items()}
    documented = set(re.findall(r"`(BGPROXY_[A-Z_]+)`", (DOCS / "configuration.md").read_text()))
    assert set(variables(given)) <= documented


def test_the_words_on_the_wire_are_those_of_the_program():
    """User-Agent, field and cookie."""
    assert re.sub(r"/\S+", "/VERSION", USER_AGENT) in PAGE
    assert ": ".join(MARK) in PAGE
    assert f"`{COOKIE}`" in PAGE


@pytest.mark.slow
@pytest.mark.parametrize("version", ["2.0", "2.1"])
def test_the_contract_tests_ask_the_new_version_through_bgproxy(tmp_path, blue: Backend, green: Backend, version: str):
    """They pass with the version that is deployed, and with no other."""
    for backend, own in ((blue, "1.0"), (green, "2.0")):
        backend.on("/version", lambda _, request, own=own: request.answer(f"{own}\n"))
    script = tmp_path / BLOCKS["contract-tests.sh"].file
    script.write_text(BLOCKS["contract-tests.sh"].text)
    script.chmod(0o755)
    service = {
        "match": {"hosts": ["shop.example"]},
        "pools": {"blue": {"upstreams": [blue.url]}, "green": {"upstreams": [green.url]}},
        "health": {"path": "/health", "interval": "200ms", "rise": 1},
        "deployment": {
            "verify": {"within": "5s", "checks": [{"name": "contract tests", "run": "./contract-tests.sh"}]}
        },
    }
    # A port that commands can be told: 0 would do for everybody else.
    with Proxy(
        tmp_path, listen=f"127.0.0.1:{free_port(15000 + os.getpid() * 10 % 15000)}", services={"shop": service}
    ) as proxy:
        deploys = Deploys(proxy)
        deploys.begin("shop", version=version)
        ended = deploys.ended("shop")
        assert ended["state"] == ("succeeded" if version == "2.0" else "failed"), ended["outcome"]
        (result,) = [result for result in ended["results"] if result["name"] == "contract tests"]
        assert result["details"] == ["2.0"]
