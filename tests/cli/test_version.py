"""The verb `version`."""

from __future__ import annotations

import json
import platform

from bgproxy import __version__
from bgproxy.cli.main import main


def test_version(capsys):
    """Program, version, build and Python, for people and for programs."""
    assert main(["version"]) == 0
    said = capsys.readouterr().out
    assert main(["version", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["build"] in {"compiled", "interpreted"}
    assert answer == {
        "program": "bgproxy",
        "version": __version__,
        "build": answer["build"],
        "python": platform.python_version(),
    }
    assert said == f"bgproxy {__version__} ({answer['build']}, CPython {platform.python_version()})\n"
