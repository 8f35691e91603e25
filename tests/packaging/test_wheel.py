"""What is built: what a wheel holds, what a build without a compiler makes and says, and for which Pythons."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

import bgproxy

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SOURCES = {str(path.relative_to(ROOT)) for path in (ROOT / "bgproxy").rglob("*.py")}


@pytest.fixture
def setup(monkeypatch) -> ModuleType:
    """setup.py, as a module, as if called to build a wheel; setuptools is not needed."""
    monkeypatch.setitem(sys.modules, "setuptools", SimpleNamespace(setup=None))
    monkeypatch.setattr(sys, "argv", ["setup.py", "bdist_wheel"])
    for name in ("BGPROXY_COMPILE", "CC", "CFLAGS", "CPPFLAGS"):
        monkeypatch.delenv(name, raising=False)
    spec = importlib.util.spec_from_file_location("bgproxy_setup", ROOT / "setup.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def judge(names: set[str], tag: str, hot: list[str]) -> None:
    """Assert that files and tag are those of a compiled wheel for this Python, or of one that is really pure."""
    libraries = {name for name in names if name.endswith((".so", ".pyd"))}
    assert names >= SOURCES | {"bgproxy/py.typed"}
    assert {name for name in names if name.startswith("bgproxy/") and name.endswith(".py")} == SOURCES
    if tag == "py3-none-any":
        assert libraries == set()
        return
    python = f"cp{sys.version_info.major}{sys.version_info.minor}"
    assert tag.startswith(f"{python}-{python}-linux_")
    together = {name for name in libraries if "/" not in name}  # the code itself; the others lead to it
    assert len(together) == 1
    assert {re.sub(r"\.[^/]*$", ".py", name) for name in libraries - together} == set(hot)
    assert all(f"cpython-{sys.version_info.major}{sys.version_info.minor}" in name for name in libraries)


def test_what_is_installed_is_whole(setup):
    """Every module is in the wheel, and either every hot one is compiled, for this Python, or the wheel is pure and says so."""
    try:
        installed = metadata.distribution("bgproxy")
    except metadata.PackageNotFoundError:
        pytest.skip("bgproxy is not installed")
    wheel = installed.read_text("WHEEL")
    if wheel is None or Path(bgproxy.__file__) != Path(str(installed.locate_file("bgproxy/__init__.py"))):
        pytest.skip("the source tree is tested, not what is installed")
    (tag,) = re.findall(r"^Tag: (.*)$", wheel, re.MULTILINE)
    judge({str(path) for path in installed.files}, tag, setup.HOT)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_build_without_a_compiler_works_and_says_so(tmp_path, setup):
    """With no program on the PATH, the wheel is pure, the build says what is missing, and the program that it is interpreted."""
    source = tmp_path / "source"
    shutil.copytree(ROOT / "bgproxy", source / "bgproxy", ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    (tmp_path / "nothing").mkdir()
    unset = ("PYTHONPATH", "BGPROXY_COMPILE", "CC")
    environment = {key: value for key, value in os.environ.items() if key not in unset}
    environment |= {"PATH": str(tmp_path / "nothing"), "PIP_DISABLE_PIP_VERSION_CHECK": "1"}

    def run(*words: object) -> str:
        command = [sys.executable, *map(str, words)]
        done = subprocess.run(command, cwd=source, env=environment, capture_output=True, text=True, check=False)
        said = done.stdout + done.stderr
        if "No matching distribution" in said or "Could not find a version" in said:
            pytest.skip("no package index is at hand")
        assert done.returncode == 0, said
        return said

    said = run("-m", "pip", "wheel", "-v", "--no-deps", "--wheel-dir", tmp_path, ".")
    assert f"bgproxy: the hot path stays interpreted: there is {setup.MISSING}" in said
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name == f"bgproxy-{bgproxy.__version__}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        judge(set(archive.namelist()), "py3-none-any", setup.HOT)
    run("-m", "pip", "install", "--no-deps", "--target", tmp_path / "site", wheel)
    environment["PYTHONPATH"] = str(tmp_path / "site")
    environment["PYTHONSAFEPATH"] = "1"
    assert f"bgproxy {bgproxy.__version__} (interpreted" in run("-m", "bgproxy", "version")


def test_a_compiler_is_one_that_compiles(setup, monkeypatch, tmp_path):
    """CC may be several words; a program that is missing, or fails, for want of headers say, is no compiler."""
    good, bad = tmp_path / "good", tmp_path / "bad"
    good.write_text('#!/bin/sh\n[ "$1" = --flag ] && grep -q Python.h\n')
    bad.write_text("#!/bin/sh\nexit 1\n")
    for path in (good, bad):
        path.chmod(0o755)
    for command, expected in {f"{good} --flag": True, good: False, bad: False, tmp_path / "none": False}.items():
        monkeypatch.setenv("CC", str(command))
        assert setup.compiler() is expected, command


def test_what_is_asked_for_is_done_or_refused(setup, monkeypatch, capsys):
    """BGPROXY_COMPILE: 0 does not compile, 1 does not go on without, neither goes on and says so; anything else is refused."""
    monkeypatch.setattr(setup, "compiler", lambda: False)
    assert setup.modules() == []
    assert setup.MISSING in capsys.readouterr().err
    monkeypatch.setenv("BGPROXY_COMPILE", "1")
    with pytest.raises(SystemExit, match="BGPROXY_COMPILE=1, but there is no C compiler"):
        setup.modules()
    monkeypatch.setenv("BGPROXY_COMPILE", "yes")
    with pytest.raises(SystemExit, match="BGPROXY_COMPILE=yes: 1 insists"):
        setup.modules()
    monkeypatch.setattr(setup, "compiler", lambda: True)
    monkeypatch.setenv("BGPROXY_COMPILE", "0")
    assert setup.modules() == []
    assert "BGPROXY_COMPILE=0" in capsys.readouterr().err


def test_metadata_takes_no_compiler(setup, monkeypatch):
    """Asked for its name and requirements only, setup.py looks for no compiler and complains of nothing."""
    monkeypatch.setattr(sys, "argv", ["setup.py", "egg_info"])
    monkeypatch.setenv("BGPROXY_COMPILE", "1")
    monkeypatch.setattr(setup, "compiler", lambda: False)
    assert setup.modules() == []


def test_nothing_that_is_compiled_awaits(setup):
    """A coroutine of mypyc's hands exceptions on as CPython 3.12 and later warn of; bgproxy/proxy/dial.py says more."""
    waits = ast.Await | ast.AsyncWith | ast.AsyncFor | ast.AsyncFunctionDef
    found = [
        f"{name}:{node.lineno}"
        for name in setup.HOT
        for node in ast.walk(ast.parse((ROOT / name).read_text()))
        if isinstance(node, waits)
    ]
    assert not found


def test_the_pythons_named_are_the_same_everywhere():
    """Classifiers, `make wheels`, the README and what the tools check for agree."""
    classifiers = "\n".join(PROJECT["project"]["classifiers"])
    versions = re.findall(r"Python :: (3\.\d+)$", classifiers, re.MULTILINE)
    makefile, readme = (ROOT / "Makefile").read_text(), (ROOT / "README.md").read_text()
    assert f"PYTHONS ?= {' '.join(f'python{version}' for version in versions)}\n" in makefile
    assert f"CPython {versions[0]} to {versions[-1]}" in readme
    assert PROJECT["project"]["requires-python"] == f">={versions[0]}"
    assert PROJECT["tool"]["mypy"]["python_version"] == versions[0]
    assert PROJECT["tool"]["ruff"]["target-version"] == f"py{versions[0].replace('.', '')}"
