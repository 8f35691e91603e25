"""`python -m bgproxy.config`: the child's end of `bgproxy.config.source`."""

from __future__ import annotations

import json
import pickle

import pytest

from bgproxy.config.__main__ import main
from bgproxy.config.schema import Config


@pytest.fixture
def file(tmp_path):
    made = tmp_path / "c.yaml"
    made.write_text("pools: {blue: {upstreams: [http://a]}}\n")
    return made


def test_a_configuration_is_pickled(file, capfdbinary):
    """A good file is a pickle on the standard output, with the warnings, and exit status 0."""
    assert main([str(file)]) == 0
    config, warnings = pickle.loads(capfdbinary.readouterr().out)
    assert isinstance(config, Config)
    assert warnings == []


def test_mistakes_are_json(file, capfdbinary):
    """A bad file is a JSON list of mistakes and exit status 2."""
    file.write_text("listen: :80\n")
    assert main([str(file)]) == 2
    (mistake,) = json.loads(capfdbinary.readouterr().out)
    assert mistake.keys() == {"file", "line", "path", "message"}
    assert mistake["line"] == 1


def test_wrong_usage(capfdbinary):
    """Anything but one name is refused with the usage."""
    assert main([]) == 64
    assert capfdbinary.readouterr().err.startswith(b"usage: ")
