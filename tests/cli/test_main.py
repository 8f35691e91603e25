"""The command as a whole: verbs, help, exit statuses, and what no user should ever see."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.waiting import eventually

from bgproxy import __version__
from bgproxy.cli import main as module
from bgproxy.cli import status
from bgproxy.cli.main import GROUPS, VERBS, main
from bgproxy.errors import BgproxyError, ConfigError, Mistake, StartError


def test_help_names_every_verb(capsys):
    """The overview has each verb with its summary, and exits with 0."""
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    for verbs in GROUPS.values():
        for verb in verbs:
            assert f"  {verb.name}" in out
            assert verb.summary in out


@pytest.mark.parametrize("verb", list(VERBS))
def test_help_of_a_verb_has_examples(verb, capsys):
    """Each verb's help shows how it is typed."""
    assert main([verb, "--help"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"usage: bgproxy {verb}")
    assert f"\n  bgproxy {verb}" in "\n" + out.partition("\nexamples:\n")[2]


def test_version_option(capsys):
    """--version is understood too."""
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"bgproxy {__version__}\n"


def test_no_verb(capsys):
    """Nothing to do is wrong usage, and shows the help."""
    assert main([]) == 2
    assert "usage: bgproxy VERB" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        ("swich", "unknown verb 'swich'; did you mean `bgproxy switch`?"),
        ("rolback", "did you mean `bgproxy rollback`?"),
        ("xyzzy", "there are demo, run, check"),
    ],
)
def test_unknown_verb(typed, says, capsys):
    """The nearest verb is named; where none is near, all are."""
    assert main([typed]) == 2
    assert says in capsys.readouterr().err


def test_unknown_option(capsys):
    """Usage follows the mistake."""
    assert main(["status", "--wacth"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("bgproxy: unknown option '--wacth'; did you mean --watch?\nusage: bgproxy status")
    assert main(["--wacth"]) == 2


def test_admin_that_is_not_there(monkeypatch, capsys):
    """Exit 3, with the address and how to give another."""
    monkeypatch.delenv("BGPROXY_ADMIN", raising=False)
    assert main(["status", "--admin", "unix:/nonexistent/admin.sock"]) == 3
    err = capsys.readouterr().err
    assert err.startswith("bgproxy: the admin API at unix:/nonexistent/admin.sock cannot be reached")
    assert "--admin URL or BGPROXY_ADMIN" in err


@pytest.mark.parametrize(
    ("error", "exit_status", "says"),
    [
        (KeyboardInterrupt(), 130, ""),
        (ConfigError([Mistake("f", 3, "listen", "m")]), 2, "bgproxy: f:3: listen: m\n"),
        (StartError("taken"), 2, "bgproxy: taken\n"),
        (BgproxyError("failed"), 1, "bgproxy: failed\n"),
        (PermissionError(13, "Permission denied", "f"), 1, "bgproxy: [Errno 13] Permission denied: 'f'\n"),
        (KeyError("x"), 1, "bgproxy: this is a fault of bgproxy: KeyError('x'); with BGPROXY_DEBUG=1 it says where\n"),
    ],
)
def test_what_goes_wrong_becomes_a_status(monkeypatch, capsys, error, exit_status, says):
    """Every exception ends as a text and a status, never as a traceback."""

    def fail(_args):
        raise error

    monkeypatch.setattr(status, "run", fail)
    monkeypatch.delenv("BGPROXY_DEBUG", raising=False)
    assert main(["status"]) == exit_status
    assert capsys.readouterr().err == says


def test_debugging_shows_where(monkeypatch):
    """With BGPROXY_DEBUG an unforeseen exception goes on."""
    monkeypatch.setattr(status, "run", lambda _args: 1 / 0)
    monkeypatch.setenv("BGPROXY_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        main(["status"])


def test_only_the_verb_is_imported():
    """`run` must not carry what the other verbs need: finding a verb imports none of them."""
    code = (
        "import sys; from bgproxy.cli.main import main; main(['nonsense']);"
        "print([m for m in ('pydantic', 'yaml', 'aiohttp', 'http.client', 'asyncio') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=_environment())
    assert done.stdout == "[]\n"


def test_closed_stdout_is_quiet():
    """`bgproxy schema | head -0` says nothing on stderr."""
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([*_COMMAND, "schema"], stdout=write, stderr=subprocess.PIPE, check=False, env=_environment())
    os.close(write)
    assert (done.returncode, done.stderr) == (141, b"")


def test_interrupt_is_quiet(admin):
    """Ctrl-C in the middle of --follow: 130, no traceback."""
    admin.hang_up = False
    child = subprocess.Popen(
        [*_COMMAND, "events", "-f"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=_environment()
    )
    eventually(lambda: admin.requests)
    child.send_signal(signal.SIGINT)
    assert child.communicate(timeout=20) == (b"", b"")
    assert child.returncode == 130


_COMMAND = [sys.executable, "-m", "bgproxy"]


def _environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(Path(module.__file__).parents[2])}


def test_options_before_the_verb(capsys):
    """It is said where they belong; --help and --version are of the program."""
    assert main(["--admin", "http://127.0.0.1:1", "deploy"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("bgproxy: options stand behind the verb: bgproxy deploy --admin http://127.0.0.1:1\n")
    assert main(["--help", "deploy"]) == 0
