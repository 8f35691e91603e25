"""The JSON Schema for editors: it accepts what the check accepts, and marks the common mistakes."""

from __future__ import annotations

import jsonschema
import pytest

from bgproxy.config.loading import json_schema

BLUE = {"blue": {"upstreams": ["http://a"]}}


@pytest.fixture(scope="module")
def validator():
    return jsonschema.Draft202012Validator(json_schema())


@pytest.mark.parametrize(
    "extra",
    [
        {},
        {"listen": ":80"},
        {"listen": [":80", "unix:/a"]},
        {"workers": "auto"},
        {"workers": 4},
        {"workers": "${WORKERS:-4}"},
        {"limits": {"body_bytes": "unlimited"}},
        {"limits": {"body_bytes": "10MiB", "header_bytes": 65536}},
        {"timeouts": {"connect": "1m30s"}},
        {"passive": {"max_ejected": "50%"}},
        {"pools": {"blue": {"version": 1.1, "upstreams": ["unix:///a"]}}},
        {"expose_pool": True},
        {"health": {"expect": 200}},
        {"preview": {"allow": ["10.0.0.0/8"]}},
        {"deployment": {"approve": "manual"}},
        {"deployment": {"approve": {"mode": "manual", "timeout": "1h"}}},
        {"deployment": {"bake": {"for": "5m", "errors": {"worse_than_before": "off"}}}},
        {"deployment": {"bake": {"p99": {"max": "1s", "worse_than_before": "1.5x"}}}},
        {"deployment": {"verify": {"checks": [{"name": 1, "load": {"rate": "200/s", "for": "10s"}}]}}},
        {"deployment": {"verify": {"checks": [{"name": "a", "expect": {"json": {"$.a": 1, "$.b": True}}}]}}},
        {"deployment": {"warm": {"paths": ["/"]}, "notify": [{"run": "x", "on": ["switched"]}]}},
    ],
)
def test_what_editors_accept(validator, extra):
    """Every documented way to write a value is accepted, in the shorthand and below a service."""
    validator.validate({"pools": BLUE} | extra)


def test_services(validator):
    """The long form is accepted."""
    validator.validate({"services": {"shop": {"pools": BLUE, "live": "green"}}})


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"listen": ":80"},
        {"services": {}},
        {"services": {"Shop": {"pools": BLUE}}},
        {"services": {"shop": {}}},
        {"services": {"shop": {"pools": BLUE}}, "pools": BLUE},
        {"services": {"shop": {"pools": BLUE}}, "health": {}},
        {"pools": BLUE, "lisen": ":80"},
        {"pools": BLUE, "workers": 0},
        {"pools": BLUE, "workers": "all"},
        {"pools": BLUE, "timeouts": {"connect": 30}},
        {"pools": BLUE, "timeouts": {"connect": "30"}},
        {"pools": BLUE, "health": {"rise": 101}},
        {"pools": BLUE, "balance": "random"},
        {"pools": BLUE, "expose_pool": "yes"},
        {"pools": BLUE, "deployment": {"approve": "never"}},
        {"pools": BLUE, "deployment": {"bake": {"for_": "5m"}}},
        {"pools": BLUE, "deployment": {"bake": {"for": 300}}},
        {"pools": BLUE, "deployment": {"verify": {"checks": [{"name": "a", "load": {"rate": 200}}]}}},
        {"pools": BLUE, "deployment": {"warm": {"concurrency": 257}}},
    ],
)
def test_what_editors_mark(validator, wrong):
    """Unknown keys, missing pools, values without a unit or out of range are marked."""
    assert not validator.is_valid(wrong)


def test_defaults_are_as_they_are_written():
    """An editor that fills in a default fills in what the check accepts."""
    definitions = json_schema()["$defs"]
    assert definitions["Timeouts"]["properties"]["connect"]["default"] == "5s"
    assert definitions["Limits"]["properties"]["body_bytes"]["default"] == "unlimited"
    assert definitions["Limits"]["properties"]["headers"]["default"] == 100
    assert definitions["Passive"]["properties"]["max_ejected"]["default"] == "50%"
    assert definitions["Service"]["properties"]["expose_pool"]["default"] is False
    assert definitions["Bake"]["properties"]["for"]["default"] == "5m"
    assert definitions["BakeErrors"]["properties"]["worse_than_before"]["default"] == "2x"
    assert definitions["Compare"]["properties"]["methods"]["default"] == ["GET", "HEAD"]
    assert "default" not in definitions["Load"]["properties"]["rate"]
