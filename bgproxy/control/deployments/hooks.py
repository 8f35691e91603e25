"""Commands and webhooks: what users bring along to provision, prove, retire and to be told.

Both get the deployment as JSON (on the standard input, in the body); a command has it as BGPROXY_* variables too. A command runs in
bgproxy's working directory, by /bin/sh, in a session of its own, so that it can be ended with all that it has started. A status
other than 0, an answer other than 2xx, and time that is up are failures.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp

from bgproxy import __version__
from bgproxy.config.units import format_duration
from bgproxy.control.deployments.stage import Run
from bgproxy.model.deployment import Result

#: Bytes of a command's output, and of a webhook's answer, that are kept: the last ones, and the first ones.
KEPT_OUTPUT: Final = 4096
KEPT_ANSWER: Final = 512
#: Lines of them that a result shows.
SHOWN: Final = 20
#: Seconds that a command has to end at SIGTERM, and that output may come for after its end.
GRACE: Final = 3.0
LAST_WORDS: Final = 0.5


async def call(
    run: Run,
    *,
    run_command: str = "",
    webhook: str = "",
    timeout: float,  # noqa: ASYNC109 - it is the user's, and what happens then is more than a cancellation
    stage: str,
    name: str,
    payload: Mapping[str, Any] | None = None,
) -> Result:
    """Run the command or call the webhook, whichever is given, and say what came of it; raises nothing but a cancellation.

    `payload` is what it gets, else `run.described()`; `timeout` is in seconds.
    """
    said = dict(run.described() if payload is None else payload)
    began = time.monotonic()
    if run_command:
        # Who is told of a deployment is no part of its progress.
        show = _hidden if payload is not None else lambda line: run.show(f"{name}: {line}", run.progress.share)
        ok, found, details = await _command(run_command, said, run.hands.environment(), timeout, show)
        expected = "status 0"
    else:
        ok, found, details = await _webhook(webhook, said, timeout)
        expected = "an answer of 2xx"
    seconds = round(time.monotonic() - began, 3)
    return Result(stage=stage, name=name, ok=ok, expected=expected, found=found, seconds=seconds, details=details)


# --- commands -------------------------------------------------------------------------------------------------------


class _Output(asyncio.Protocol):
    """What a command says, and the end of it."""

    def __init__(self, line: Callable[[str], None]) -> None:
        self.tail = b""
        self.silent = asyncio.Event()  # nobody holds its output open any more
        self._line = line

    def data_received(self, data: bytes) -> None:
        """Output."""
        self.tail = (self.tail + data)[-KEPT_OUTPUT:]
        if b"\n" in data and (lines := _lines(self.tail.rpartition(b"\n")[0])):
            self._line(lines[-1])

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the reason changes nothing
        """Its output has ended."""
        self.silent.set()


class _Child:
    """A command that runs: a group of processes of its own."""

    def __init__(self, command: str, said: Mapping[str, Any], environment: Mapping[str, str]) -> None:
        # Popen and not the loop's own: uvloop's children inherit the other ends of their pipes. What it is told is a file,
        # so that nobody waits for a command that does not read.
        with tempfile.TemporaryFile() as told:
            told.write(json.dumps(dict(said)).encode() + b"\n")
            told.seek(0)
            self.process = subprocess.Popen(
                ["/bin/sh", "-c", command],
                stdin=told,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**environment, **variables(said)},
            )
        self.ended = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._handle = os.pidfd_open(self.process.pid)
        self._loop.add_reader(self._handle, self._has_ended)

    def _has_ended(self) -> None:
        self._loop.remove_reader(self._handle)
        self.process.poll()
        self.ended.set()

    async def end(self) -> None:
        """End it with all that it has started: asked first, then told."""
        group = self.process.pid
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(group, number)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(GRACE):
                    await self.ended.wait()
            if self.ended.is_set() and not _lives(group):
                return

    def close(self) -> None:
        """Give up what was held of it."""
        self._loop.remove_reader(self._handle)
        os.close(self._handle)


async def _command(
    command: str, said: Mapping[str, Any], environment: Mapping[str, str], seconds: float, show: Callable[[str], None]
) -> tuple[bool, str, tuple[str, ...]]:
    output = _Output(show)
    try:
        child = _Child(command, said, environment)
    except OSError as error:
        return False, f"it could not be started: {error.strerror}", ()
    pipe: asyncio.BaseTransport | None = None
    try:
        pipe, _ = await asyncio.get_running_loop().connect_read_pipe(lambda: output, child.process.stdout)
        try:
            async with asyncio.timeout(seconds):
                await child.ended.wait()
        except TimeoutError:
            await child.end()
            return False, f"it did not end within {format_duration(seconds)}, and was ended", _shown(output.tail)
        # What it has started may go on, and keep its output open: that is not waited for.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_WORDS):
                await output.silent.wait()
        status = child.process.returncode
        return status == 0, _status(status), _shown(output.tail)
    except asyncio.CancelledError:
        await child.end()
        raise
    finally:
        child.close()
        if pipe is not None:
            pipe.close()


def _hidden(_line: str) -> None:
    return


def _lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def _status(status: int) -> str:
    if status >= 0:
        return f"status {status}"
    try:
        return f"ended by {signal.Signals(-status).name}"
    except ValueError:
        return f"ended by signal {-status}"


def variables(said: Mapping[str, Any]) -> dict[str, str]:
    """What a command finds in its environment."""
    return {
        "BGPROXY_DEPLOYMENT": str(said.get("id", "")),
        **{
            f"BGPROXY_{name.upper()}": str(said.get(name, ""))
            for name in (
                *("service", "state", "target", "old", "live", "version", "strategy", "reason", "event"),
                *("preview_url", "preview_host", "preview_header"),
            )
        },
        "BGPROXY_UPSTREAMS": " ".join(said.get("upstreams", ())),
    }


# --- webhooks -------------------------------------------------------------------------------------------------------


async def _webhook(url: str, said: Mapping[str, Any], seconds: float) -> tuple[bool, str, tuple[str, ...]]:
    """POST it; a URL may hold a secret, so only its host is ever shown."""
    host = urlsplit(url).hostname or "the webhook"
    headers = {"User-Agent": f"bgproxy/{__version__}"}
    try:
        async with (
            asyncio.timeout(seconds),
            aiohttp.ClientSession(headers=headers, timeout=aiohttp.ClientTimeout(total=None)) as session,
            session.post(url, json=dict(said), allow_redirects=False) as answer,
        ):
            text = await answer.content.read(KEPT_ANSWER)
            return 200 <= answer.status < 300, f"{answer.status} from {host}", _shown(text)
    except TimeoutError:
        return False, f"no answer from {host} within {format_duration(seconds)}", ()
    except (aiohttp.ClientError, OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
        return False, f"{host} cannot be reached: {reason}", ()


# --- what they say --------------------------------------------------------------------------------------------------


def _lines(output: bytes) -> list[str]:
    """Lines for people: without what moves a cursor, and without empty ones."""
    text = output.decode(errors="replace")
    cleaned = ("".join(char if char.isprintable() else " " for char in line).strip() for line in text.splitlines())
    return [line[:200] for line in cleaned if line]


def _shown(output: bytes) -> tuple[str, ...]:
    return tuple(_lines(output)[-SHOWN:])
