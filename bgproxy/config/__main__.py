"""The child process that `bgproxy.config.source` runs: checks one configuration and says what came of it.

    python -m bgproxy.config FILE|-

Standard output: a pickled `(Config, warnings)` and exit status 0, or a JSON list of mistakes and exit status 2.
"""

from __future__ import annotations

import json
import pickle
import sys
from dataclasses import asdict

from bgproxy.config.loading import load_file, load_text
from bgproxy.config.source import TEXT_NAME
from bgproxy.errors import ConfigError, Mistake


def main(arguments: list[str]) -> int:
    """Load what `arguments` name; returns the exit status."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m bgproxy.config FILE|-\n")
        return 64
    warnings: list[Mistake] = []
    try:
        if arguments[0] == "-":
            text = sys.stdin.buffer.read().decode(errors="surrogateescape")
            config = load_text(text, TEXT_NAME, warnings=warnings)
        else:
            config = load_file(arguments[0], warnings=warnings)
    except ConfigError as error:
        sys.stdout.buffer.write(json.dumps([asdict(mistake) for mistake in error.mistakes]).encode())
        return 2
    sys.stdout.buffer.write(pickle.dumps((config, warnings), protocol=5))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
