"""Rules across fields that depend on the machine: files, directories. Bad ones are in test_mistakes."""

from __future__ import annotations

from bgproxy.config.loading import load_file
from bgproxy.errors import ConfigError

POOLS = "pools: {blue: {upstreams: [http://a]}}\n"


def mistakes(tmp_path, text: str) -> list[str]:
    file = tmp_path / "c.yaml"
    file.write_text(POOLS + text)
    try:
        load_file(str(file), {})
    except ConfigError as error:
        return [mistake.message for mistake in error.mistakes]
    return []


def test_an_access_log_beside_the_configuration(tmp_path):
    """A relative access log is made absolute; a directory is refused with a path that would do."""
    assert mistakes(tmp_path, "access_log: a.log\n") == []
    assert load_file(str(tmp_path / "c.yaml"), {}).access_log == str(tmp_path / "a.log")
    (tmp_path / "logs").mkdir()
    (message,) = mistakes(tmp_path, "access_log: logs/\n")
    assert "such as logs/access.log" in message


def test_a_state_dir_that_is_a_file(tmp_path):
    """A file cannot be the state directory."""
    (tmp_path / "state").touch()
    (message,) = mistakes(tmp_path, "state_dir: state\n")
    assert "is not a directory" in message


def test_addresses_that_do_not_clash(tmp_path):
    """Several listeners, free ports, Unix sockets and the admin API beside each other are allowed."""
    text = "listen: [':80', '127.0.0.1:0', '127.0.0.1:0', 'unix:/a']\nadmin: {listen: [unix:/b, 'localhost:8900']}\n"
    assert mistakes(tmp_path, text) == []
