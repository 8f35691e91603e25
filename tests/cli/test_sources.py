"""Where a configuration comes from."""

from __future__ import annotations

import pytest

from bgproxy.cli.exits import UsageError
from bgproxy.cli.sources import default_file, text_of_flags
from bgproxy.config.loading import load_text


def test_usual_files_in_order(tmp_path):
    """The first one that exists."""
    first, second = tmp_path / "a", tmp_path / "b"
    second.touch()
    assert default_file((str(first), str(second))) == str(second)
    first.touch()
    assert default_file((str(first), str(second))) == str(first)


def test_no_file_shows_the_smallest(tmp_path):
    """With none, the text has a file to start from, and that file is a good one."""
    with pytest.raises(UsageError) as caught:
        default_file((str(tmp_path / "none"),))
    text = str(caught.value).partition("./bgproxy.yaml:\n\n")[2].partition("\n\nor")[0]
    assert set(load_text(text, "smallest").services) == {"default"}


def test_flags_are_a_configuration(tmp_path):
    """Every flag ends up in its place."""
    text = text_of_flags(
        listen=["127.0.0.1:81", "127.0.0.1:82"],
        blue=["http://127.0.0.1:9001", "http://127.0.0.1:9003"],
        green=["http://127.0.0.1:9002"],
        admin="127.0.0.1:8901",
        workers="3",
        state_dir=str(tmp_path),
    )
    config = load_text(text, "command line")
    (service,) = config.services.values()
    assert [str(listen) for listen in config.listen] == ["127.0.0.1:81", "127.0.0.1:82"]
    assert config.admin.listen == ("127.0.0.1:8901",)
    assert (config.workers, config.state_dir) == (3, str(tmp_path))
    assert service.pools.blue.upstreams == ("http://127.0.0.1:9001", "http://127.0.0.1:9003")
    assert service.pools.green.upstreams == ("http://127.0.0.1:9002",)


def test_flags_are_data_not_syntax():
    """What looks like YAML in a flag stays a string."""
    text = text_of_flags(listen=[], blue=["a]}, x: {"], green=[], admin=None, workers="auto", state_dir=None)
    assert text == 'workers: "auto"\npools:\n  blue: { upstreams: ["a]}, x: {"] }\n  green: { upstreams: [] }\n'
