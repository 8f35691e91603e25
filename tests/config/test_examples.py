"""The example configurations: every `config/*.yaml` but `compose*.yaml`, which are another program's files."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import jsonschema
import pytest
import yaml
from support.certificates import Authority

from bgproxy.config.loading import json_schema, load_file, load_text
from bgproxy.config.schema import (
    Bake,
    BakeLatency,
    Check,
    Compare,
    Config,
    Deployment,
    Expect,
    Hook,
    Load,
    Notify,
    Pool,
    Pools,
    Retire,
    Service,
    Verify,
    Warm,
)
from bgproxy.config.written import SERVICE_KEYS, TOP_KEYS, key_of

FOLDER = Path(__file__).parents[2] / "config"
EXAMPLES = sorted(path for path in FOLDER.glob("*.yaml") if not path.name.startswith("compose"))
ENVIRONMENT = {
    "BGPROXY_VIEWER_TOKEN": "v" * 16,
    "BGPROXY_CI_TOKEN": "c" * 16,
    "BGPROXY_ADMIN_TOKEN": "a" * 16,
}


#: What full.yaml shows of a check by request; `bgproxy.control.deployments.checks` has it.
TIMEOUT = 10.0


class CoreLoader(yaml.SafeLoader):
    """YAML 1.2's booleans only, as editors and bgproxy read them."""


CoreLoader.yaml_implicit_resolvers = {
    first: [(tag, rule) for tag, rule in rules if tag != "tag:yaml.org,2002:bool" or first in "tTfF"]
    for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def test_the_examples_are_there():
    """The files that the documentation names exist, so that the tests below have something to check."""
    names = {path.name for path in EXAMPLES}
    assert {"minimal.yaml", "full.yaml", "sessions.yaml", "hosts.yaml", "trusted.yaml", "tokens.yaml"} <= names
    assert {"tls.yaml", "deployment.yaml"} <= names


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_an_example_passes_the_check(path, tmp_path):
    """Every example is a configuration without a mistake, once the certificates that it names are there."""
    copy = tmp_path / path.name
    copy.write_text(path.read_text())
    (tmp_path / "certs").mkdir()
    files = Authority().issue(tmp_path / "certs", "shop.test", stem="fullchain")
    Path(files.key).rename(tmp_path / "certs" / "privkey.pem")
    assert load_file(str(copy), ENVIRONMENT).services


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_an_example_fits_the_editors_schema(path):
    """Editors find nothing to mark in an example."""
    jsonschema.Draft202012Validator(json_schema()).validate(yaml.load(path.read_text(), CoreLoader))


def test_the_full_example_shows_every_key_and_its_default():
    """full.yaml names every key there is, and what it says is what would hold without it."""
    path = FOLDER / "full.yaml"
    written = yaml.load(path.read_text(), CoreLoader)
    assert set(written) == TOP_KEYS
    assert set(written["services"]["shop"]) == SERVICE_KEYS
    config = load_file(str(path), {})
    pools = Pools(blue=Pool(upstreams=("http://127.0.0.1:9001",)), green=Pool(upstreams=("http://127.0.0.1:9002",)))
    assert config == Config(state_dir="/var/lib/bgproxy", services={"shop": Service(pools=pools)})
    defaults = load_file(str(FOLDER / "minimal.yaml"), {})
    assert config.services["shop"] == defaults.services["default"]


def test_the_full_example_names_every_nested_key():
    """Below the top, too, no key of the schema is left out of full.yaml."""
    schema = json_schema()
    written = yaml.load((FOLDER / "full.yaml").read_text(), CoreLoader)
    service = written["services"]["shop"]
    for section, name in (("limits", "Limits"), ("timeouts", "Timeouts"), ("admin", "Admin")):
        assert set(written[section]) == set(schema["$defs"][name]["properties"]), section
    for section in ("match", "health", "passive", "retries", "sessions", "preview", "drain"):
        assert set(service[section]) == set(schema["$defs"][section.capitalize()]["properties"]), section


def test_the_full_example_shows_the_stages_that_are_not_there():
    """With its lines that begin with # it names every key of a deployment; but for what it says are none, all are defaults."""
    text = re.sub(r"(?m)^( {6})#(?=[a-z]|- |  )", r"\1", (FOLDER / "full.yaml").read_text()).replace(
        "notify: []", "notify:"
    )
    jsonschema.Draft202012Validator(json_schema()).validate(yaml.load(text, CoreLoader))
    written = yaml.load(text, CoreLoader)["services"]["shop"]["deployment"]
    made = load_text(text, "full.yaml", {}).services["shop"].deployment
    assert set(written) == keys_of(Deployment)
    for section, kind in (("verify", Verify), ("compare", Compare), ("warm", Warm), ("bake", Bake)):
        assert set(written[section]) == keys_of(kind)
    assert set(written["provision"]) == keys_of(Hook) - {"webhook"}
    assert set(written["retire"]) == keys_of(Retire) - {"webhook"}
    assert set(written["notify"][0]) == keys_of(Notify) - {"run"}
    assert {key for check in written["verify"]["checks"] for key in check} == keys_of(Check)
    cart, *_, load = written["verify"]["checks"]
    assert (set(cart["expect"]), set(load["load"])) == (keys_of(Expect), keys_of(Load))
    checks = made.verify.checks
    shown = Check(name="cart", request="GET /cart", timeout=TIMEOUT, expect=Expect(within=0.3))
    assert (checks[0], checks[-1].load) == (shown, Load(rate=200.0, p99=0.15))
    assert made == Deployment(
        provision=Hook(run=made.provision.run),
        verify=Verify(checks=checks),
        compare=Compare(),
        warm=Warm(),
        bake=Bake(p99=BakeLatency(max=1.0)),
        retire=Retire(run=made.retire.run),
        notify=(Notify(webhook=made.notify[0].webhook),),
    )


def keys_of(kind):
    return {key_of(field.name) for field in fields(kind)}
