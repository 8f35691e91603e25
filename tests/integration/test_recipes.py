"""docs/recipes.md, run: its files are put in place, its commands typed, while users use the shop.

What a test has not got stands in (`support.stand_ins`): `docker`, `systemctl`, the runners of GitHub and GitLab. Ports, folders and times are those
of the test; all else is as the page has it.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import pytest
import yaml
from support.backends import Backend
from support.certificates import Authority
from support.documents import Block, blocks
from support.proxy import Proxy
from support.stand_ins import SHOP, StandIns
from support.users import Users
from support.waiting import eventually

from bgproxy import __version__
from bgproxy.cli.demo.children import free_port
from bgproxy.config.loading import load_text

pytestmark = pytest.mark.slow

PAGE = blocks("recipes.md")
COMPOSE, SYSTEMD, GITHUB, GITLAB, MIGRATION = dict.fromkeys(block.section for block in PAGE)

#: What a test has no time for, or, on a busy machine, no say in. What a recipe does not have is not replaced in it.
TIMES = {
    "bake: { for: 5m }": "bake: { for: 1s, min_requests: 20, p99: { worse_than_before: off } }",
    "bake: { for: 5m, errors: { max: 1% }, p99: { worse_than_before: 2x } }": (
        "bake: { for: 1s, errors: { max: 1% }, p99: { worse_than_before: 200x }, min_requests: 20 }"
    ),
    "for: 10s, p99: 250ms": "for: 1s, p99: 5s",
    "within: 500ms": "within: 5s",
    "after: 30m": "after: 1s",
}


def files(section: str) -> dict[str, str]:
    """The files of a recipe, by name."""
    return {block.file: block.text for block in PAGE if block.section == section and block.file}


def commands(section: str) -> list[str]:
    """What is to be typed, block by block."""
    return [block.text for block in PAGE if block.section == section and block.kind == "sh" and not block.file]


def replaced(text: str, words: Mapping[str, str]) -> str:
    """A text with other words; each has to be in it."""
    for old, new in words.items():
        assert old in text, f"there is no {old!r} in:\n{text}"
        text = text.replace(old, new)
    return text


class Core(yaml.SafeLoader):
    """YAML 1.2's booleans only, as bgproxy and GitHub read them: `off` and `on` are words."""


Core.yaml_implicit_resolvers = {
    first: [(tag, rule) for tag, rule in rules if tag != "tag:yaml.org,2002:bool" or first in "tTfF"]
    for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def config(text: str, ports: Mapping[str, int]) -> dict[str, Any]:
    """The services of a recipe's bgproxy.yaml, with the ports and the times of a test."""
    words = {old: new for old, new in TIMES.items() if old in text}
    words |= {f":{port}]": f":{ports[name]}]" for name, port in (("blue", 9001), ("green", 9002))}
    services: dict[str, Any] = yaml.load(replaced(text, words), Core)["services"]
    for service in services.values():
        service["health"] |= {"interval": "200ms", "rise": 1, "fall": 2}
    return services


@pytest.fixture
def ports() -> dict[str, int]:
    """Where the copies listen."""
    blue = free_port(15000 + os.getpid() * 10 % 15000)  # others run beside this one
    return {"blue": blue, "green": free_port(blue + 1)}


@pytest.fixture
def machine(tmp_path: Path, ports: dict[str, int], monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIns]:
    """A machine with stand-ins, on which everything that a test starts finds them."""
    machine = StandIns(tmp_path / "machine", ports)
    for name, value in machine.environment.items():
        monkeypatch.setenv(name, value)
    yield machine
    machine.end()


@contextlib.contextmanager
def running(machine: StandIns, services: dict[str, Any], **more: Any) -> Iterator[Proxy]:
    """Bgproxy in the root of the machine."""
    with Proxy(machine.root, services=services, **more) as proxy:
        yield proxy


def test_the_page_has_the_recipes_that_it_says():
    """Five of them, each with files or commands."""
    assert [COMPOSE, SYSTEMD, GITHUB, GITLAB] == ["Docker Compose", "systemd on one host", "GitHub Actions", "GitLab"]
    assert MIGRATION.startswith("A database migration")


@pytest.mark.parametrize(
    "block", [block for block in PAGE if block.file.endswith("bgproxy.yaml")], ids=lambda block: block.section
)
def test_every_configuration_is_good(block: Block):
    """As `bgproxy check` sees it, without a warning."""
    loaded = load_text(block.text, block.file, {})
    assert loaded.services["shop"].deployment.provision is not None


# --- compose --------------------------------------------------------------------------------------------------------


def test_compose(machine: StandIns, ports: dict[str, int]):
    """The first version, the next, and the one after: containers come and go, users see no error, and the copies change places."""
    recipe = files(COMPOSE)
    words = {f":{port}:8000": f":{ports[name]}:8000" for name, port in (("blue", 9001), ("green", 9002))}
    (machine.root / "compose.yaml").write_text(replaced(recipe["compose.yaml"], words))
    first, deploy = commands(COMPOSE)
    up, run = first.splitlines()
    machine.sh(up)
    assert machine.running() == {"blue": "1.0"}
    assert run == "bgproxy run -c bgproxy.yaml"
    services = config(recipe["bgproxy.yaml"], ports)
    with running(machine, services) as proxy, Users(lambda: proxy.address, each=2, every=0.02) as users:
        users.more(50)
        said = machine.sh(deploy, BGPROXY_ADMIN=proxy.admin_url)
        assert "green is live" in said
        eventually(lambda: machine.running() == {"green": "2.0"}, within=15, what="blue is retired")
        assert machine.calls[-2:] == ["docker compose up -d --wait --pull always green", "docker compose stop blue"]
        eventually(lambda: proxy.service("shop")["deployment"] is None, within=10)
        machine.sh(deploy.replace("2.0", "3.0"), BGPROXY_ADMIN=proxy.admin_url)
        eventually(lambda: machine.running() == {"blue": "3.0"}, within=15, what="green is retired")
        assert proxy.get("/").body == b"shop 3.0\n"
        users.more(20)
    assert {seen.status for seen in users.seen} == {200}


def test_compose_with_bgproxy_in_a_container(machine: StandIns, ports: dict[str, int]):
    """deploy.sh finds the idle copy, gives it the tag, has it deployed, and stops the old one; a failed deployment leaves that alone."""
    if shutil.which("jq") is None:
        pytest.skip("no jq")
    folder = Path(__file__).parents[2] / "config"
    shutil.copy(folder / "compose.yaml", machine.root)
    machine.program(machine.root / "deploy.sh", files(COMPOSE)["deploy.sh"])
    services = yaml.load((folder / "sidecar.yaml").read_text(), Core)["services"]
    for name, port in ports.items():
        services["shop"]["pools"][name]["upstreams"] = [f"http://127.0.0.1:{port}"]
    services["shop"]["health"]["interval"] = "200ms"
    services["shop"]["deployment"]["verify"] = {"within": "5s"}
    machine.sh("BLUE=1.0 docker compose up -d --wait blue")
    with running(machine, services) as proxy, Users(lambda: proxy.address, every=0.02) as users:
        admin = {"BGPROXY_ADMIN": proxy.admin_url}
        users.more(10)
        machine.sh("./deploy.sh 2.0", **admin)
        assert (proxy.live("shop"), machine.running()) == ("green", {"green": "2.0"})
        machine.sh("./deploy.sh 3.0", **admin)
        assert (proxy.live("shop"), machine.running()) == ("blue", {"blue": "3.0"})
        services["shop"]["deployment"]["verify"] = {
            "checks": [{"name": "page", "request": "GET /", "expect": {"body_contains": "teapots"}}]
        }
        proxy.write()
        assert proxy.api("POST", "/v1/reload", {})[0] == 200
        machine.sh("./deploy.sh 4.0", status=1, **admin)
        assert (proxy.live("shop"), machine.running()["blue"]) == ("blue", "3.0")
        users.more(10)
    assert {seen.status for seen in users.seen} == {200}


# --- systemd --------------------------------------------------------------------------------------------------------


def set_up(machine: StandIns, ports: Mapping[str, int], *versions: str, **environment: str) -> dict[str, str]:
    """Units, releases and environments as the page has them, below the root; the first version is blue's. The files."""
    recipe = {name: at_root(machine, text) for name, text in files(SYSTEMD).items()}
    for name, text in recipe.items():
        path = machine.root / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for name, port in ports.items():
        lines = {"PORT": str(port), **environment}
        path = machine.root / "etc/shop" / f"{name}.env"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{key}={value}\n" for key, value in lines.items()))
    for version in versions:
        program = machine.root / "opt/shop/releases" / version / "bin/shop"
        machine.program(program, f'#!/bin/sh\nexec "{sys.executable}" -P "{SHOP}" {version} "$1"\n')
    (machine.root / "opt/shop/blue").symlink_to(f"releases/{versions[0]}")
    return recipe


def at_root(machine: StandIns, text: str) -> str:
    """A text with the machine's folders."""
    return re.sub(r"(?<=[\s=\"])/(opt|etc)/", rf"{machine.root}/\1/", text)


def test_systemd(machine: StandIns, ports: dict[str, int]):
    """The unit of the idle copy gets the new release, the old one is stopped; a release that is not there changes nothing."""
    recipe = set_up(machine, ports, "1.0", "2.0")
    once, deploy = commands(SYSTEMD)
    machine.sh(once)
    assert machine.running() == {"blue": "1.0"}
    services = config(recipe["/etc/bgproxy/bgproxy.yaml"], ports)
    with running(machine, services) as proxy, Users(lambda: proxy.address, each=2, every=0.02) as users:
        admin = {"BGPROXY_ADMIN": proxy.admin_url}
        users.more(50)
        machine.sh(deploy.replace("2.0", "1.9"), status=1, **admin)
        assert machine.running() == {"blue": "1.0"}
        machine.sh(deploy, **admin)
        assert proxy.live("shop") == "green"
        assert (machine.root / "opt/shop/green").resolve().name == "2.0"
        eventually(lambda: machine.running() == {"green": "2.0"}, within=15, what="blue is retired")
        assert machine.calls[-2:] == ["systemctl restart shop@green", "systemctl stop shop@blue"]
        users.more(20)
    assert {seen.status for seen in users.seen} == {200}


def test_the_units_are_units(machine: StandIns, ports: dict[str, int]):
    """Systemd itself has nothing to say against them."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd")
    set_up(machine, ports, "1.0")
    machine.program(machine.root / "opt/bgproxy/bin/bgproxy", "#!/bin/sh\n")
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "shop@blue.service", "bgproxy.service"],
        env={"SYSTEMD_UNIT_PATH": f"{machine.root}/etc/systemd/system:", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_unit_of_bgproxy_reads_the_file_of_the_page():
    """What is started is `bgproxy run` with the configuration that stands below it, and is given longer than it takes to end."""
    recipe = files(SYSTEMD)
    unit = recipe["/etc/systemd/system/bgproxy.service"]
    (name,) = re.findall(r"^ExecStart=.*/bgproxy run -c (\S+)$", unit, re.MULTILINE)
    loaded = load_text(recipe[name], name, {})
    (stop,) = re.findall(r"^TimeoutStopSec=(\d+)$", unit, re.MULTILINE)
    assert int(stop) > loaded.timeouts.shutdown + 5
    assert f"StateDirectory={Path(loaded.state_dir).name}\n" in unit


def test_polkit_grants_these_units_only():
    """The rule, run: the two units may be started, stopped and restarted by bgproxy's user; nothing else may be done, and by nobody else."""
    if shutil.which("node") is None:
        pytest.skip("no JavaScript")
    asked = [
        ("bgproxy", "manage-units", "shop@blue.service", "restart", True),
        ("bgproxy", "manage-units", "shop@green.service", "stop", True),
        ("bgproxy", "manage-units", "shop@green.service.d", "stop", False),
        ("bgproxy", "manage-units", "my-shop@blue.service", "stop", False),
        ("bgproxy", "manage-units", "ssh.service", "stop", False),
        ("bgproxy", "manage-units", "shop@blue.service", "set-property", False),
        ("bgproxy", "manage-unit-files", "shop@blue.service", "restart", False),
        ("www-data", "manage-units", "shop@blue.service", "restart", False),
    ]
    script = f"""
      let rule; const polkit = {{ Result: {{ YES: "yes" }}, addRule(given) {{ rule = given; }} }};
      {files(SYSTEMD)["/etc/polkit-1/rules.d/50-bgproxy.rules"]}
      console.log(JSON.stringify({json.dumps(asked)}.map(([user, id, unit, verb]) =>
        rule({{ id: "org.freedesktop.systemd1." + id, lookup: (name) => ({{ unit, verb }})[name] }}, {{ user }}) === "yes")));
    """
    done = subprocess.run(["node", "-e", script], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [granted for *_, granted in asked]


# --- continuous integration -----------------------------------------------------------------------------------------

TOKENS = {"ci": "0123456789abcdef-ci", "oncall": "0123456789abcdef-oncall"}
#: What runs in CI before bgproxy, and not here.
INSTALL = f"pip install https://wheels.example/bgproxy-{__version__}-py3-none-any.whl"


@pytest.fixture
def guarded(machine: StandIns, blue: Backend, green: Backend) -> Iterator[Proxy]:
    """Bgproxy with the admin API of the page: TLS, and tokens in files."""
    authority = Authority()
    certificate = authority.issue(machine.root, "127.0.0.1")
    authority.write(machine.root)
    folder = machine.root / "etc/bgproxy"
    folder.mkdir(parents=True)
    for name, token in TOKENS.items():
        (folder / f"{name}.token").write_text(token)
        (folder / f"{name}.token").chmod(0o600)
    words = {
        "0.0.0.0:8900": "127.0.0.1:0",
        "unix:/run/bgproxy/admin.sock": f"unix:{machine.root}/admin.sock",
        "/etc/bgproxy/admin.pem": certificate.cert,
        "/etc/bgproxy/admin.key": certificate.key,
        "/etc/bgproxy/ci": f"{folder}/ci",
        "/etc/bgproxy/oncall": f"{folder}/oncall",
    }
    admin = yaml.load(replaced(files(GITHUB)["admin.yaml"], words), Core)["admin"]
    shop = {
        "pools": {"blue": {"upstreams": [blue.url]}, "green": {"upstreams": [green.url]}},
        "health": {"path": "/health", "interval": "200ms", "rise": 1, "fall": 2},
        "deployment": {
            "verify": {
                "within": "5s",
                "checks": [{"name": "page", "request": "GET /", "expect": {"headers": {"X-Fit": "yes"}}}],
            },
            "approve": "manual",
        },
    }
    with running(machine, {"shop": shop}, admin=admin, ready=False) as proxy:
        eventually(lambda: proxy.lines("serving"), within=15)
        yield proxy


class Runner:
    """What GitHub and GitLab do with a job, as far as these jobs need it."""

    def __init__(self, machine: StandIns, proxy: Proxy) -> None:
        self._machine = machine
        host, port = proxy.admin_address
        self._own = {"BGPROXY_ADMIN": f"https://{host}:{port}", "BGPROXY_CACERT": str(machine.root / "ca.pem")}

    def sh(self, script: str, environment: Mapping[str, str], *, status: int = 0) -> str:
        """A step, with the address of the test's own bgproxy."""
        assert environment["BGPROXY_ADMIN"] == "https://shop.example:8900"
        return self._machine.sh(script, status=status, **{**environment, **self._own})

    def asked(self, token: str, command: str, *, status: int = 0) -> str:
        """A command of somebody with a token."""
        return self._machine.sh(command, status=status, BGPROXY_TOKEN=token, **self._own)

    def approves(self) -> threading.Thread:
        """Somebody who approves the next deployment that waits."""

        def wait() -> None:
            eventually(self.waits, within=30)
            self.asked(TOKENS["ci"], "bgproxy approve shop")

        thread = threading.Thread(target=wait)
        thread.start()
        return thread

    def waits(self) -> bool:
        """Whether a deployment waits to be approved."""
        service = json.loads(self.asked(TOKENS["ci"], "bgproxy status --json"))["services"][0]
        return bool(service["deployment"] and service["deployment"]["waits"])

    def live(self) -> str:
        service = json.loads(self.asked(TOKENS["ci"], "bgproxy status --json"))["services"][0]
        return str(service["live"])


def says(backend: Backend, fit: str) -> None:
    """Have an upstream answer GET / with a header that the check wants, or with another."""
    backend.on("/", lambda _, request: request.answer("shop", "200 OK", f"X-Fit: {fit}"))


#: What GitHub puts in the place of its expressions.
EXPRESSIONS = {
    "secrets.BGPROXY_TOKEN": TOKENS["ci"],
    "github.ref_name": "v2.0",
    "github.server_url": "https://github.example",
    "github.repository": "acme/shop",
    "github.run_id": "17",
    "github.actor": "ann",
}


def workflow(file: str) -> tuple[dict[str, str], list[dict[str, str]]]:
    """The environment and the steps of the only job of a workflow; its keys are those of GitHub's reference."""
    read = yaml.load(files(GITHUB)[file], Core)
    assert set(read) <= {"name", "on", "concurrency", "jobs"}
    (job,) = read["jobs"].values()
    assert set(job) <= {"runs-on", "environment", "timeout-minutes", "env", "steps"}
    environment = {
        name: re.sub(r"\$\{\{ (.+?) \}\}", lambda found: EXPRESSIONS[found[1]], value)
        for name, value in job["env"].items()
    }
    install, *steps = job["steps"]
    assert install == {"name": "install", "run": INSTALL}
    for step in steps:
        assert set(step) <= {"name", "if", "run"}
        assert "${{" not in step["run"], "what others write must not become a part of a script"
    return environment, steps


def test_github(machine: StandIns, guarded: Proxy, blue: Backend, green: Backend):
    """A version that is not fit fails the job; a good one goes live, for the tag and with the URL of the run; and back by the other workflow."""
    runner = Runner(machine, guarded)
    environment, (deploy, abort, tell) = workflow(".github/workflows/deploy.yaml")
    assert (abort["if"], tell["if"]) == ("cancelled()", "always()")
    says(green, "no")
    said = runner.sh(deploy["run"], environment, status=1)
    assert "failed before the switch" in said
    assert "'page'" in said
    says(green, "yes")
    somebody = runner.approves()
    said = runner.sh(deploy["run"], environment)
    somebody.join()
    assert "has begun" in said
    assert runner.live() == "green"
    run = "https://github.example/acme/shop/actions/runs/17"
    told = runner.sh(tell["run"], environment)
    assert run in told
    assert "v2.0" in told
    # There is nothing left to abort: the step says so.
    runner.sh(abort["run"], environment, status=4)
    environment, (rollback,) = workflow(".github/workflows/rollback.yaml")
    runner.sh(rollback["run"], environment)
    assert runner.live() == "blue"
    assert "by ann" in runner.sh(tell["run"], environment)
    # The token of CI may do no more than that.
    runner.asked(TOKENS["ci"], "bgproxy reload", status=4)


def gitlab() -> dict[str, Any]:
    """The jobs, with what they extend; their keys are those of GitLab's reference."""
    read = yaml.load(files(GITLAB)[".gitlab-ci.yml"], Core)
    stages = read.pop("stages")
    jobs = {}
    for name, job in read.items():
        if name.startswith("."):
            continue
        jobs[name] = merged = {**read[job["extends"]], **job}
        assert merged["stage"] in stages
        assert merged["before_script"] == [INSTALL]
        keys = {"extends", "image", "stage", "rules", "variables", "environment", "resource_group", "timeout"}
        assert set(merged) <= keys | {"before_script", "script", "after_script"}
    return jobs


def test_gitlab(machine: StandIns, guarded: Proxy, green: Backend):
    """A job that is cancelled aborts its deployment; the next one is approved by a job of its own; and there is one for the way back."""
    runner = Runner(machine, guarded)
    jobs = gitlab()
    says(green, "yes")
    predefined = {
        "CI_COMMIT_TAG": "v2.0",
        "CI_JOB_URL": "https://gitlab.example/-/jobs/17",
        "GITLAB_USER_LOGIN": "ann",
        "BGPROXY_TOKEN": TOKENS["ci"],
    }

    def run(name: str, script: str = "script", **more: str) -> str:
        job = jobs[name]
        return runner.sh("\n".join(job[script]), {**predefined, **job["variables"], **more})

    outcome: list[str] = []
    deploy = jobs["deploy"]

    def deploying() -> None:
        with contextlib.suppress(AssertionError):
            outcome.append(run("deploy"))

    cancelled = threading.Thread(target=deploying)
    cancelled.start()
    eventually(runner.waits, within=30)
    run("deploy", "after_script", CI_JOB_STATUS="success")
    assert runner.waits(), "a job that was not cancelled aborts nothing"
    run("deploy", "after_script", CI_JOB_STATUS="canceled")
    cancelled.join()
    assert (outcome, runner.live()) == ([], "blue"), "the job has failed"
    assert "was cancelled" in runner.asked(TOKENS["ci"], "bgproxy history")
    going = threading.Thread(target=deploying)
    going.start()
    eventually(runner.waits, within=30)
    run("approve")
    going.join()
    assert deploy["resource_group"] == "shop"
    assert (len(outcome), runner.live()) == (1, "green")
    run("rollback")
    assert runner.live() == "blue"


# --- the migration --------------------------------------------------------------------------------------------------


class Orders:
    """Users who order without end, and look what was ordered; `kept` has what was taken, in cents, and `failed` what went wrong."""

    def __init__(self, proxy: Proxy) -> None:
        self.kept: list[int] = []
        self.failed: list[str] = []
        self._proxy = proxy
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._order)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _order(self) -> None:
        number = 0
        while not self._stop.wait(0.01):
            number += 1
            amount = 1000 + number % 997
            if self.ask("POST", str(amount)) is not None:
                self.kept.append(amount)
            # Nobody else orders: what was taken, by whichever version, is there for whichever answers.
            seen = self.ask("GET")
            if seen is not None and (seen["orders"], seen["cents"]) != (len(self.kept), sum(self.kept)):
                self.failed.append(f"{seen} of {len(self.kept)}, {sum(self.kept)}")

    def ask(self, method: str, body: str | None = None) -> dict[str, Any] | None:
        connection = http.client.HTTPConnection(*self._proxy.address, timeout=15)
        try:
            connection.request(method, "/orders", body)
            answer = connection.getresponse()
            text = answer.read()
        except (OSError, http.client.HTTPException) as error:
            self.failed.append(repr(error))
            return None
        finally:
            connection.close()
        if answer.status != 200:
            self.failed.append(f"{answer.status} {text!r}")
            return None
        return json.loads(text)  # type: ignore[no-any-return]

    def more(self, count: int = 20) -> None:
        target = len(self.kept) + count
        eventually(lambda: len(self.kept) >= target, within=15, what="more orders")


def columns(database: Path) -> set[str]:
    with contextlib.closing(sqlite3.connect(database, timeout=10)) as connection:
        return {row[1] for row in connection.execute("PRAGMA table_info(orders)")}


@pytest.fixture
def shop(machine: StandIns, ports: dict[str, int], monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Proxy, Path]]:
    """1.0 of the shop with its database, and bgproxy with the recipe before it."""
    database = machine.root / "shop.db"
    set_up(machine, ports, "1.0", "2.0", "3.0", DATABASE=str(database))
    monkeypatch.setenv("DATABASE", str(database))
    recipe = files(MIGRATION)
    for name, text in recipe.items():
        path = machine.root / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    machine.sh("systemctl start shop@blue")
    services = config(at_root(machine, recipe["bgproxy.yaml"]), ports)
    services["shop"]["deployment"]["retire"]["after"] = "2s"
    with running(machine, services) as proxy:
        proxy.wait_healthy("blue", service="shop")
        yield proxy, database


def deployed(machine: StandIns, proxy: Proxy, command: str) -> None:
    """A deployment of the page, to its end."""
    said = machine.sh(command, BGPROXY_ADMIN=proxy.admin_url)
    assert "succeeded" in said, said


def test_a_migration(machine: StandIns, shop: tuple[Proxy, Path]):
    """A column is replaced over two deployments while users order: no order is refused, none is lost, and every version sees all of them."""
    proxy, database = shop
    (both,) = commands(MIGRATION)
    expand, contract = both.splitlines()
    with Orders(proxy) as orders:
        orders.more()
        assert columns(database) == {"id", "total"}
        deployed(machine, proxy, expand)
        assert columns(database) == {"id", "total", "cents"}
        orders.more()
        deployed(machine, proxy, contract)
        assert columns(database) == {"id", "cents"}
        orders.more()
    assert not orders.failed
    assert machine.running() == {"blue": "3.0"}
    with contextlib.closing(sqlite3.connect(database)) as connection:
        assert [row[0] for row in connection.execute("SELECT cents FROM orders ORDER BY id")] == orders.kept
    # The test would see a column that is gone too soon: nothing before 3.0 can live without it.
    machine.sh("ln -sfn releases/1.0 opt/shop/green && systemctl start shop@green")
    with pytest.raises(AssertionError, match=r"green is healthy did not come true"):
        proxy.wait_healthy("green", service="shop", within=2)


def test_a_migration_and_back(machine: StandIns, shop: tuple[Proxy, Path]):
    """A rollback in the stand-by time finds 1.0 as it was, with the orders that 2.0 has taken; the same deployment goes again."""
    proxy, database = shop
    (both,) = commands(MIGRATION)
    expand, _contract = both.splitlines()
    begin = expand.replace(" --wait retired", "")
    assert begin != expand
    with Orders(proxy) as orders:
        orders.more()
        machine.sh(begin, BGPROXY_ADMIN=proxy.admin_url)
        assert proxy.live("shop") == "green"
        orders.more()
        machine.sh("bgproxy rollback", BGPROXY_ADMIN=proxy.admin_url)
        orders.more()
        assert machine.running() == {"blue": "1.0", "green": "2.0"}, "the retirement was called off"
        deployed(machine, proxy, expand)
        orders.more()
    assert not orders.failed
    assert machine.running() == {"green": "2.0"}
    assert columns(database) == {"id", "total", "cents"}
    with contextlib.closing(sqlite3.connect(database)) as connection:
        assert connection.execute("SELECT COUNT(*) FROM orders WHERE cents IS NULL").fetchone() == (0,)
