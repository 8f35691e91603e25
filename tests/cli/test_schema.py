"""The verb `schema`."""

from __future__ import annotations

import json

from bgproxy.cli.main import main
from bgproxy.config.loading import json_schema


def test_prints_the_schema(capsys):
    """The JSON Schema of the configuration, and nothing else."""
    assert main(["schema"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(json_schema()))
