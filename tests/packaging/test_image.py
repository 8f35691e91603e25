"""The Dockerfile, as far as it can be held without a container engine: what it says, and its build steps one by one."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
INSTRUCTIONS = {
    *("ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "FROM"),
    *("HEALTHCHECK", "RUN", "STOPSIGNAL", "USER", "VOLUME", "WORKDIR"),
}


@dataclass(frozen=True)
class Step:
    """One instruction of a Dockerfile."""

    word: str
    rest: str

    def exec_form(self) -> list[str]:
        return json.loads(self.rest[self.rest.index("[") :])


def stages() -> list[list[Step]]:
    """The stages of the Dockerfile, each beginning with its FROM; lines that go on are joined."""
    text = re.sub(r"^\s*#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    found: list[list[Step]] = []
    for line in text.splitlines():
        if line.strip():
            word, _, rest = line.strip().partition(" ")
            if word == "FROM":
                found.append([])
            found[-1].append(Step(word, rest.strip()))
    return found


BUILD, RUN = stages()


def only(stage: list[Step], word: str) -> Step:
    (step,) = (step for step in stage if step.word == word)
    return step


def test_every_instruction_is_one():
    """Two stages on the same slim base, and no word that is not an instruction."""
    assert BUILD[0].rest == f"{RUN[0].rest} AS build"
    assert RUN[0].rest.endswith("-slim")
    assert {step.word for step in BUILD + RUN} <= INSTRUCTIONS


def test_it_does_not_run_as_root():
    """A user is made, and what follows, the program included, is that user's."""
    user = only(RUN, "USER").rest
    assert user not in ("root", "0")
    made = next(step.rest for step in RUN if step.word == "RUN")
    assert re.search(rf"useradd .*--uid [1-9]\d+ .*\b{user}\b", made)
    assert not any(step.word == "RUN" for step in RUN[RUN.index(only(RUN, "USER")) :])


def test_the_state_is_on_a_volume_that_the_user_may_write():
    """The default of state_dir for this user is the volume, which belongs to the user."""
    volume = only(RUN, "VOLUME").rest
    user = only(RUN, "USER").rest
    environment = dict(word.split("=", 1) for word in shlex.split(only(RUN, "ENV").rest))
    assert f"{environment['XDG_STATE_HOME']}/bgproxy" == volume
    assert any(f"-o {user}" in step.rest and volume in step.rest for step in RUN if step.word == "RUN")


def test_signals_reach_the_supervisor():
    """The program is process 1, without a shell between, and is stopped by the signal that drains."""
    assert only(RUN, "ENTRYPOINT").exec_form() == ["bgproxy"]
    assert only(RUN, "CMD").exec_form() == ["run"]
    assert only(RUN, "STOPSIGNAL").rest == "SIGTERM"


def test_the_health_check_asks_readyz(proxy):
    """Its command, run as it stands but for the port, is content with a bgproxy that is ready and not without one."""
    command = only(RUN, "HEALTHCHECK").exec_form()
    assert command[0] == "python"
    code = command[-1].replace("127.0.0.1:8900", proxy.serving["admin"][0])
    assert code != command[-1]
    asked = [sys.executable, *command[1:-1], code]
    assert subprocess.run(asked, check=False, timeout=20).returncode == 0
    assert proxy.stop() == 0
    assert subprocess.run(asked, check=False, timeout=20, stderr=subprocess.DEVNULL).returncode != 0


def test_the_context_has_what_is_copied_and_nothing_else():
    """What the build copies is let in by .dockerignore, which keeps everything else out."""
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert lines[0] == "*"
    let_in = {line.removeprefix("!") for line in lines if line.startswith("!")}
    copied = {source for step in BUILD if step.word == "COPY" for source in step.rest.split()[:-1]}
    assert copied == let_in
    assert all((ROOT / source).exists() for source in copied)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_build_steps_work_in_a_fresh_place(tmp_path):
    """Copied and run step by step (interpreted, for speed; without apt), they make a bgproxy that knows its version."""
    where = {"/src": tmp_path / "src", "/wheels": tmp_path / "wheels", "/opt/bgproxy": tmp_path / "opt"}

    def here(text: str) -> str:
        for place, real in where.items():
            text = re.sub(rf"(?<![\w/]){re.escape(place)}\b", str(real), text)
        return text

    bin_dir = tmp_path / "bin"  # the image's `python`
    bin_dir.mkdir()
    (bin_dir / "python").symlink_to(sys.executable)
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    environment |= {"PATH": f"{bin_dir}:{os.environ['PATH']}", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    for step in BUILD[1:]:
        match step.word:
            case "WORKDIR":
                where["/src"].mkdir()
            case "COPY":
                *sources, _to = step.rest.split()
                for source in sources:
                    copy(ROOT / source, where["/src"] / source)
            case "ARG":
                environment["BGPROXY_COMPILE"] = "0"
            case "RUN" if "apt-get" not in step.rest:
                done = subprocess.run(
                    ["sh", "-ec", here(step.rest)],
                    cwd=where["/src"],
                    env=environment,
                    capture_output=True,
                    text=True,
                    check=False,
                )
                if "No matching distribution" in done.stderr or "Could not find a version" in done.stderr:
                    pytest.skip("no package index is at hand")
                assert done.returncode == 0, done.stdout + done.stderr
    installed = where["/opt/bgproxy"] / "bin" / "bgproxy"
    done = subprocess.run([installed, "version"], capture_output=True, text=True, check=True, env=environment, cwd="/")
    assert "(interpreted" in done.stdout
    site = next((where["/opt/bgproxy"] / "lib").glob("python3*/site-packages/bgproxy"))
    assert (site / "py.typed").is_file()
    built = {path.relative_to(site) for path in site.rglob("*.py")}
    assert built == {path.relative_to(ROOT / "bgproxy") for path in (ROOT / "bgproxy").rglob("*.py")}


def copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "*.so", "*.pyc"))
    else:
        shutil.copy(source, target)
