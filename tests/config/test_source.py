"""Loading in a child process, as the long-lived processes do it."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

from bgproxy.config import loading, source
from bgproxy.errors import ConfigError

POOLS = "pools: {blue: {version: 1.10, upstreams: [http://a]}}\n"


@pytest.fixture
def file(tmp_path):
    made = tmp_path / "c.yaml"
    made.write_text(POOLS)
    return made


def test_a_file_is_loaded_as_in_this_process(file):
    """The child's answer is what the checker would have answered here."""
    assert source.load(str(file), None) == loading.load_file(str(file))


def test_a_text_is_loaded():
    """Without a file the text goes to the child over its standard input; not only ASCII arrives whole."""
    text = POOLS.replace("1.10", "grün")
    assert source.load(None, text).services["default"].pools.blue.version == "grün"


def test_mistakes_come_back_as_they_were(file):
    """Every mistake arrives with its file, line, path and message."""
    file.write_text("listen: 8080\nworkers: many\n" + POOLS)
    with pytest.raises(ConfigError) as there:
        source.load(str(file), None)
    with pytest.raises(ConfigError) as here:
        loading.load_file(str(file))
    assert there.value.mistakes == here.value.mistakes
    assert len(there.value.mistakes) == 2


def test_mistakes_of_a_text_name_the_command_line():
    """What came from flags is not said to be in a file."""
    with pytest.raises(ConfigError, match=r"^command line:1: "):
        source.load(None, "listen: 8080\n" + POOLS)


def test_the_environment_is_this_processs(file, monkeypatch):
    """References are expanded with the variables of the process that loads."""
    file.write_text(POOLS + "workers: ${BGPROXY_TEST_WORKERS}\n")
    monkeypatch.setenv("BGPROXY_TEST_WORKERS", "3")
    assert source.load(str(file), None).workers == 3


def test_a_file_named_like_a_flag(tmp_path, monkeypatch):
    """A file named - or -h is a file."""
    monkeypatch.chdir(tmp_path)
    for name in ("-", "-h", "--"):
        Path(name).write_text(POOLS)
        assert source.load(name, None).services


def test_the_child_is_the_same_program(tmp_path, monkeypatch, file):
    """A module of the working directory that is named like one of the checker's does not get into it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "yaml.py").write_text("raise SystemExit('the wrong yaml')")
    assert source.load(str(file), None).services


async def test_the_loop_goes_on(file):
    """While a configuration is loaded, the event loop serves others."""
    task = asyncio.create_task(source.load_async(str(file), None))
    turns = 0
    while not task.done():
        turns += 1
        await asyncio.sleep(0.001)
    assert (await task).services
    assert turns > 5


def test_a_load_has_a_deadline(tmp_path):
    """A file that never ends (a pipe without a writer) is given up, with a reason."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(ConfigError, match=r"pipe: it was not checked within 0\.3s"):
        source.load(str(pipe), None, deadline=0.3)


def test_a_checker_that_fails_is_said_so(file, monkeypatch, tmp_path):
    """When the child breaks, the operator reads its last word, and no traceback."""
    (tmp_path / "yaml.py").write_text("raise ImportError('a broken library')")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    with pytest.raises(ConfigError) as caught:
        source.load(str(file), None)
    assert "the checker ended with status 1 and no answer: ImportError: a broken library" in str(caught.value)
    assert "Traceback" not in str(caught.value)


def test_a_checker_that_cannot_be_started(file, monkeypatch):
    """Without an interpreter there is a reason too."""
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(ConfigError, match="cannot be started: No such file"):
        source.load(str(file), None)


def test_nothing_to_load():
    """Neither a file nor a text is a bug of the caller."""
    with pytest.raises(ValueError, match="neither"):
        source.load(None, None)


def test_warnings_come_along_and_are_logged(tmp_path, file, caplog):
    """What is allowed but unwise does not refuse anything: whoever loads is told, else the log."""
    (tmp_path / "t").write_text("0123456789abcdef")
    (tmp_path / "t").chmod(0o644)
    file.write_text(POOLS + "admin: {tokens: [{name: a, role: admin, token_file: t}]}\n")
    told = []
    assert source.load(str(file), None, warn=told.append).services
    assert [(warning.line, warning.path) for warning in told] == [(2, "admin.tokens[0].token_file")]
    assert caplog.records == []
    source.load(str(file), None)
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("bgproxy.config", "WARNING")
    assert f"{file}:2: admin.tokens[0].token_file: warning: " in record.getMessage()
