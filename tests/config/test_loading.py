"""Loading: what is read, what is filled in, and files that cannot be read. Bad contents are in test_mistakes."""

from __future__ import annotations

import os
from pathlib import Path

import jsonschema
import pytest

from bgproxy.config import loading
from bgproxy.config.loading import default_state_dir, json_schema, load_file, load_text
from bgproxy.config.schema import ONLY_SERVICE, Config, Pool, Pools, Service
from bgproxy.errors import ConfigError

POOLS = "pools: {blue: {upstreams: [http://a]}}\n"


def refusal(path) -> str:
    with pytest.raises(ConfigError) as caught:
        load_file(str(path), {})
    (mistake,) = caught.value.mistakes
    assert mistake.file == str(path)
    return f"{mistake.line}: {mistake.message}"


def test_the_smallest_file():
    """Two pools are a configuration: one service under the name for it, and every default of the schema."""
    config = load_text(POOLS, "f", {"XDG_STATE_HOME": "/x"})
    service = Service(pools=Pools(blue=Pool(upstreams=("http://a",))))
    assert config == Config(state_dir=config.state_dir, services={ONLY_SERVICE: service})


def test_every_kind_of_value():
    """Durations are seconds, sizes bytes, shares per cent, and off is the word off."""
    text = """
listen: [":80", "[::1]:80"]
workers: "4"
access_log: off
limits: { body_bytes: 10MiB, header_bytes: 64KiB, connections: 5 }
timeouts: { connect: 250ms }
passive: { max_ejected: 10% }
preview: { allow: [10.0.0.0/8, "fd00::/8"] }
expose_pool: true
"""
    config = load_text(POOLS + text, "f", {})
    service = config.services[ONLY_SERVICE]
    assert [str(listen) for listen in config.listen] == [":80", "[::1]:80"]
    assert config.workers == 4
    assert config.access_log == "off"
    assert (config.limits.body_bytes, config.limits.header_bytes, config.limits.connections) == (10485760, 65536, 5)
    assert config.timeouts.connect == 0.25
    assert service.passive.max_ejected == 10
    assert service.preview.allow == ("10.0.0.0/8", "fd00::/8")
    assert service.expose_pool is True


def test_unlimited_and_auto():
    """The words for no limit and for one worker a CPU are understood, from the environment too."""
    config = load_text(POOLS + "workers: ${W:-auto}\nlimits: {body_bytes: '${B}'}\n", "f", {"B": "unlimited"})
    assert config.workers == "auto"
    assert config.limits.body_bytes is None


def test_a_configuration_is_immutable():
    """What every process holds cannot be changed by one of them."""
    config = load_text(POOLS, "f", {})
    with pytest.raises(AttributeError):
        config.workers = 3


def test_relative_paths_are_relative_to_the_file(tmp_path, monkeypatch):
    """Where bgproxy is started from does not matter to what a file means."""
    folder = tmp_path / "etc"
    folder.mkdir()
    (folder / "c.yaml").write_text(POOLS + "state_dir: ../state\naccess_log: a.log\n")
    monkeypatch.chdir(tmp_path)
    config = load_file("etc/c.yaml", {})
    assert config.state_dir == str(tmp_path / "state")
    assert config.access_log == str(folder / "a.log")


def test_the_default_state_dir(monkeypatch):
    """Root's state is the machine's; another user's is where XDG says, if it says an absolute path."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert default_state_dir({"XDG_STATE_HOME": "/x"}) == "/var/lib/bgproxy"
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert default_state_dir({"XDG_STATE_HOME": "/x"}) == "/x/bgproxy"
    monkeypatch.setenv("HOME", "/home/ops")
    assert default_state_dir({}) == "/home/ops/.local/state/bgproxy"
    assert default_state_dir({"XDG_STATE_HOME": "relative"}) == "/home/ops/.local/state/bgproxy"


def test_files_that_cannot_be_read(tmp_path):
    """A file that is missing, a directory, too large or not UTF-8 is one mistake that says what to do."""
    assert "does not exist: check the path" in refusal(tmp_path / "none.yaml")
    assert "is a directory: name the file" in refusal(tmp_path)
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"listen: a\nworkers: \xff\n")
    assert refusal(binary) == "2: byte 0xff is not UTF-8: save the file as UTF-8"
    large = tmp_path / "large.yaml"
    large.write_bytes(b"#" * (loading.MAX_BYTES + 1))
    assert "larger than 4 MiB" in refusal(large)


def test_a_file_without_permission(tmp_path, monkeypatch):
    """What the system refuses is said in its own words; root may read anything, so the refusal is made here."""

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    assert "cannot be read (Permission denied): check its permissions" in refusal(tmp_path / "c.yaml")


def test_a_byte_order_mark_is_no_mistake(tmp_path):
    """A file that an editor began with a byte order mark is read as if it had none."""
    file = tmp_path / "c.yaml"
    file.write_bytes(b"\xef\xbb\xbf" + POOLS.encode())
    assert load_file(str(file), {}).services


def test_text_that_is_too_large_or_not_unicode():
    """A text from elsewhere is bounded as a file is."""
    with pytest.raises(ConfigError, match="larger than 4 MiB"):
        load_text("#" * (loading.MAX_BYTES + 1), "f", {})
    with pytest.raises(ConfigError, match=r"f:2: .*UTF-8"):
        load_text("a: b\nc: \udcff\n", "f", {})


def test_the_text_of_flags_is_relative_to_the_working_directory(tmp_path, monkeypatch):
    """Without a file, a relative path is meant as on the command line."""
    monkeypatch.chdir(tmp_path)
    assert load_text(POOLS + "state_dir: s\n", "command line", {}).state_dir == str(Path(tmp_path, "s"))


def test_the_json_schema_is_one():
    """What `bgproxy schema` prints is a valid schema of the dialect that it names."""
    schema = json_schema()
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    jsonschema.Draft202012Validator.check_schema(schema)
