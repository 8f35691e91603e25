"""config/compose.yaml: the shape that the Compose Specification asks for, and promises that its comments make."""

from __future__ import annotations

import os
import re
import subprocess
import urllib.request
from pathlib import Path

import pytest
import yaml
from support.waiting import eventually

from bgproxy.cli.demo.children import free_port
from bgproxy.cli.main import VERBS
from bgproxy.config.loading import load_file

FOLDER = Path(__file__).parents[2] / "config"
TEXT = (FOLDER / "compose.yaml").read_text()
COMPOSE = yaml.safe_load(TEXT)
SERVICES = COMPOSE["services"]

#: Of the Compose Specification, what is used here: key, and the types that it may have.
TOP = {"name": str, "services": dict, "volumes": dict}
SERVICE = {
    "build": dict,
    "command": list,
    "environment": dict,
    "healthcheck": dict,
    "image": str,
    "init": bool,
    "ports": list,
    "restart": str,
    "stop_grace_period": str,
    "volumes": list,
}
HEALTH = {"test": list, "interval": str, "timeout": str, "retries": int}


def seconds(text: str) -> int:
    return int(re.fullmatch(r"(\d+)s", text)[1])


def test_it_has_the_shape_of_a_compose_file():
    """Known keys only, each of its type."""
    for found, allowed in [(COMPOSE, TOP), *((service, SERVICE) for service in SERVICES.values())]:
        for key, value in found.items():
            assert isinstance(value, allowed[key]), key
    for service in SERVICES.values():
        for key, value in service.get("healthcheck", {}).items():
            assert isinstance(value, HEALTH[key]), key
        assert service["restart"] in ("no", "always", "on-failure", "unless-stopped")
    assert re.fullmatch(r"[a-z0-9][a-z0-9_-]*", COMPOSE["name"])


def test_what_is_mounted_is_there():
    """Files exist, volumes are declared, and the configuration is mounted where `bgproxy run` looks for it."""
    mounts = [mount.split(":") for mount in SERVICES["bgproxy"]["volumes"]]
    for source, target, *_ in mounts:
        if source.startswith("."):
            assert (FOLDER / source).is_file()
            assert target == "/etc/bgproxy/bgproxy.yaml"
        else:
            assert source in COMPOSE["volumes"]
            assert f"VOLUME {target}\n" in (FOLDER.parent / "Dockerfile").read_text()
    assert (FOLDER / SERVICES["bgproxy"]["build"]["context"] / "Dockerfile").is_file()


def test_the_proxy_knows_both_copies():
    """The upstreams of the sidecar's configuration are services of the compose file, and it listens where it is published."""
    config = load_file(str(FOLDER / "sidecar.yaml"), {})
    (service,) = config.services.values()
    assert service.pools.blue.upstreams == ("http://blue:8000",)
    assert service.pools.green.upstreams == ("http://green:8000",)
    assert {"blue", "green"} <= set(SERVICES)
    assert "8000" in SERVICES["blue"]["command"][-1]
    ports = {published.split(":")[1] for published in SERVICES["bgproxy"]["ports"]}
    assert {str(listen).rpartition(":")[2] for listen in config.listen} == ports
    assert config.admin.listen == ("127.0.0.1:8900",), "loopback of the container: `docker compose exec` reaches it"


def test_a_stop_has_time_to_drain():
    """The engine waits longer than bgproxy may take before it kills."""
    config = load_file(str(FOLDER / "sidecar.yaml"), {})
    assert seconds(SERVICES["bgproxy"]["stop_grace_period"]) > config.timeouts.shutdown + 5


def test_what_it_says_to_type_exists():
    """Each `bgproxy VERB` in the comments is a verb."""
    typed = re.findall(r"exec bgproxy bgproxy (\w+)", TEXT)
    assert {"switch", "rollback", "pool"} <= set(typed) <= set(VERBS)


@pytest.mark.parametrize("colour", ["blue", "green"])
def test_the_example_application_answers_with_its_version(colour, tmp_path):
    """The command of a copy, run here with another port and place, serves the version that it was given."""
    port = free_port(18000)
    command = [part.replace("$$", "$").replace("8000", str(port)) for part in SERVICES[colour]["command"]]
    command[-1] = command[-1].replace("/tmp/www", str(tmp_path / "www"))
    assert SERVICES[colour]["environment"]["VERSION"] == f"${{{colour.upper()}:-1.0}}"
    environment = {**os.environ, "VERSION": "2.0"}
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            url = f"http://127.0.0.1:{port}/"
            eventually(lambda: urllib.request.urlopen(url, timeout=5).read() == b"shop 2.0\n", within=20)
        finally:
            process.terminate()
            process.wait(10)
