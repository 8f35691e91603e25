"""How long-lived processes load a configuration: in a child process, which carries the checker so that they need not.

The child is ``python -m bgproxy.config FILE`` (``-`` for the standard input). It answers with a pickled `Config` and
its warnings, or with its mistakes as JSON and exit status 2. Both ends are one program: whoever could change the child's answer could
change this process too.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from typing import Final

from bgproxy.config.schema import Config
from bgproxy.errors import ConfigError, Mistake

log = logging.getLogger("bgproxy.config")

#: Seconds for the whole load; one of 4096 services takes about three.
DEADLINE: Final = 30.0

#: What stands for the file when the configuration came from flags.
TEXT_NAME: Final = "command line"


def log_warning(warning: Mistake) -> None:
    """Say in the log what is allowed but unwise."""
    log.warning("%s", warning)


def load(
    path: str | None,
    text: str | None,
    *,
    deadline: float = DEADLINE,
    warn: Callable[[Mistake], None] = log_warning,
) -> Config:
    """The configuration in the file at `path`, or in `text` where there is no file. Blocks up to `deadline` seconds.

    `warn` is called with each warning of a configuration without mistakes.

    Raises:
        ConfigError: with every mistake, or with the reason why the configuration could not be checked.
    """
    if path is None and text is None:
        raise ValueError("neither a path nor a text to load")
    # A file that is named "-" is a file all the same.
    source = "-" if path is None else os.path.join(".", path) if path == "-" else path  # noqa: PTH118
    try:
        child = subprocess.run(
            [sys.executable, "-P", "-m", "bgproxy.config", source],
            input=(text or "").encode(errors="surrogateescape") if path is None else b"",
            capture_output=True,
            timeout=deadline,
            env=_environment(),
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise _unchecked(
            source, f"it was not checked within {deadline:g}s: is the file a pipe, or the machine overloaded?"
        ) from None
    except OSError as error:
        raise _unchecked(source, f"the checker {sys.executable} cannot be started: {error.strerror}") from None
    return _answer(child.stdout, child.stderr, child.returncode, source, warn)


async def load_async(path: str | None, text: str | None, *, deadline: float = DEADLINE) -> Config:
    """As `load`, in a thread, so that the event loop goes on."""
    return await asyncio.to_thread(load, path, text, deadline=deadline)


def _answer(output: bytes, errors: bytes, status: int, source: str, warn: Callable[[Mistake], None]) -> Config:
    """What the child said.

    Told by the content rather than by the exit status, which is lost where something else in this process waits for
    every child.
    """
    if output.startswith(b"["):
        raise ConfigError([Mistake(**mistake) for mistake in json.loads(output)])
    if output.startswith(b"\x80"):
        config, warnings = pickle.loads(output)  # noqa: S301 - see the top of this file
        if isinstance(config, Config):
            for warning in warnings:
                warn(warning)
            return config
    last = errors.decode(errors="replace").strip().rpartition("\n")[2] or "it said nothing"
    raise _unchecked(source, f"the checker ended with status {status} and no answer: {last}")


def _environment() -> dict[str, str]:
    """This process's environment, with the very import path that it has itself, so that both are one program."""
    folders = [os.path.abspath(folder) for folder in sys.path]  # noqa: PTH100 - "" is the working directory
    return os.environ | {"PYTHONPATH": os.pathsep.join(dict.fromkeys(folders))}


def _unchecked(source: str, why: str) -> ConfigError:
    return ConfigError([Mistake(TEXT_NAME if source == "-" else source, 0, "", why)])
