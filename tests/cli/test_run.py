"""The verb `run`, up to the supervisor, whose own tests are elsewhere."""

from __future__ import annotations

import pytest

from bgproxy.cli import sources
from bgproxy.cli.main import main
from bgproxy.process import supervisor

FLAGS = ["--blue", "http://127.0.0.1:9001", "--green", "http://127.0.0.1:9002"]


@pytest.fixture
def started(monkeypatch):
    """What the supervisor was started with; it returns 0 at once."""
    calls = []

    def run(config, *, config_source, config_text):
        calls.append((config, config_source, config_text))
        return 0

    monkeypatch.setattr(supervisor, "run", run)
    return calls


def test_from_a_file(started, tmp_path, monkeypatch):
    """The file is named by its whole path, so that a reload finds it."""
    (tmp_path / "a.yaml").write_text("pools: { blue: { upstreams: [http://127.0.0.1:9001] } }")
    monkeypatch.chdir(tmp_path)
    assert main(["run", "-c", "a.yaml"]) == 0
    ((config, source, text),) = started
    assert (source, text) == (str(tmp_path / "a.yaml"), None)
    assert config.services["default"].pools.blue.upstreams == ("http://127.0.0.1:9001",)


def test_from_flags(started, tmp_path):
    """Flags are a text, which the supervisor gets too."""
    assert main(["run", *FLAGS, "--workers", "2", "--admin", "127.0.0.1:8901", "--state-dir", str(tmp_path)]) == 0
    ((config, source, text),) = started
    assert source is None
    assert "http://127.0.0.1:9002" in text
    assert (config.workers, config.admin.listen) == (2, ("127.0.0.1:8901",))


def test_mistakes(started, tmp_path, capsys):
    """Every mistake on its line, exit 2, and nothing is started."""
    file = tmp_path / "a.yaml"
    file.write_text("workers: many\nlisten_: x\n")
    assert main(["run", "-c", str(file)]) == 2
    err = capsys.readouterr().err
    assert f"{file}:1: workers" in err
    assert f"{file}:2: listen_" in err
    assert main(["run", *FLAGS, "--workers", "many"]) == 2
    assert capsys.readouterr().err.startswith("command line:1: workers: ")
    assert started == []


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["-c", "x.yaml", "--workers", "2"], "--workers: with -c, this is said in the file"),
        (["--listen", "127.0.0.1:8080"], "say at least --blue URL or --green URL"),
        (["x.yaml"], "'x.yaml' is one word too many"),
    ],
)
def test_wrong_usage(started, words, says, capsys):
    """A file or flags, not both, and not neither."""
    assert main(["run", *words]) == 2
    assert says in capsys.readouterr().err
    assert started == []


def test_nothing_to_run(started, tmp_path, monkeypatch, capsys):
    """Neither file nor flags: the smallest file to start from."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("bgproxy.cli.run.default_file", lambda: sources.default_file(("none",)))
    assert main(["run"]) == 2
    assert "Start from the smallest file" in capsys.readouterr().err
