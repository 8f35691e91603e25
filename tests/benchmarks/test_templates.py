"""The peers' configurations are rendered whole."""

from __future__ import annotations

import json

import pytest
import yaml
from bench.places import TEMPLATES
from bench.templates import render

VALUES = {
    "FOLDER": "/run/bench",
    "FILES": 20000,
    "CONNECTIONS": 19500,
    "PORT": 8080,
    "ADMIN": 8900,
    "BLUE": 9001,
    "GREEN": 9002,
    "SINK": 9003,
    "UPSTREAM": 9001,
    "WORKERS": 1,
    "MORE": "",
}
POOLS = {"LISTEN": "127.0.0.1:8080", "BLUE": '["http://127.0.0.1:9001"]', "GREEN": '["http://127.0.0.1:9002"]'}
CONFIGURATIONS = sorted(path.name for path in TEMPLATES.iterdir() if path.suffix in (".conf", ".cfg", ".json", ".yaml"))


def rendered(name):
    return render((TEMPLATES / name).read_text(), VALUES | (POOLS if name == "bgproxy.yaml" else {}))


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_every_name_has_a_value(name):
    """Nothing of the template's own is left, and ports are there."""
    text = rendered(name)
    assert not any(f"@{key}@" in text for key in VALUES)
    assert "900" in text or "8080" in text


def test_a_name_without_a_value():
    """It is an error, not an empty place in a file."""
    with pytest.raises(KeyError, match="NOBODY"):
        render("listen @NOBODY@", VALUES)


def test_what_is_no_name_stays():
    """Caddy's @id and addresses keep their signs."""
    assert render('"@id": "live", a@b.c', {}) == '"@id": "live", a@b.c'


def test_the_formats_are_sound():
    """Caddy's is JSON, Envoy's and bgproxy's are YAML."""
    assert json.loads(rendered("caddy.json"))["apps"]["http"]["servers"]["in"]["listen"] == ["127.0.0.1:8080"]
    assert yaml.safe_load(rendered("envoy.yaml"))["static_resources"]["clusters"][0]["name"] == "live"
    assert yaml.safe_load(rendered("bgproxy.yaml"))["services"]["shop"]["pools"]["green"]


def test_bgproxy_takes_its_file():
    """The benchmark's own file is a valid configuration."""
    from bgproxy.config.loading import load_text

    config = load_text(rendered("bgproxy.yaml"), "bgproxy.yaml")
    assert config.workers == 1
    assert config.access_log == "off"
