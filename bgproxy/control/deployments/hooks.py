"""Commands and webhooks: what users bring along to provision, prove, retire and to be told.

Both get the deployment as JSON (on the standard input, in the body); a command has it as BGPROXY_* variables too. A status other than 0,
an answer other than 2xx, and time that is up are failures.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp

from bgproxy import __version__
from bgproxy.config.units import format_duration
from bgproxy.control.deployments import commands
from bgproxy.control.deployments.stage import Run
from bgproxy.control.deployments.words import last_lines
from bgproxy.model.deployment import Result

#: Bytes of a webhook's answer that are kept, the first ones; and seconds that they may take once its status is there.
KEPT: Final = 512
FIRST_WORDS: Final = 0.5


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

    def show(line: str) -> None:
        if payload is None:  # who is told of a deployment is no part of its progress
            run.show(f"{name}: {line}", run.progress.share)

    began = time.monotonic()
    if run_command:
        expected = "status 0"
        note = run.hands.guard.note(run.record.id) if payload is None else None  # nobody is told a second time
        try:
            ok, found, details = await commands.run_command(
                run_command, said, run.hands.environment(), timeout, show, note
            )
        except OSError as error:  # no memory, no descriptors, no /bin/sh
            ok, found, details = False, f"it could not be started: {error.strerror}", ()
        finally:
            if note is not None:
                note.unlink(missing_ok=True)
    else:
        expected = "an answer of 2xx"
        ok, found, details = await _webhook(webhook, said, timeout)
    seconds = round(time.monotonic() - began, 3)
    return Result(stage=stage, name=name, ok=ok, expected=expected, found=found, seconds=seconds, details=details)


# --- webhooks -------------------------------------------------------------------------------------------------------


async def _webhook(url: str, said: Mapping[str, Any], seconds: float) -> tuple[bool, str, tuple[str, ...]]:
    """POST it; a URL may hold a secret, so only its host is ever shown."""
    host = urlsplit(url).hostname or "the webhook"
    # Of what it answers a few lines are shown: nobody unpacks it.
    headers = {"User-Agent": f"bgproxy/{__version__}", "Accept-Encoding": "identity"}
    limits = aiohttp.ClientTimeout(total=None)
    try:
        async with aiohttp.ClientSession(headers=headers, timeout=limits, auto_decompress=False) as session:
            async with asyncio.timeout(seconds):
                answer = await session.post(url, json=dict(said), allow_redirects=False)
            async with answer:
                return (
                    200 <= answer.status < 300,
                    f"{answer.status} from {host}",
                    last_lines(await _first_words(answer)),
                )
    except TimeoutError:
        return False, f"no answer from {host} within {format_duration(seconds)}", ()
    except (aiohttp.ClientError, OSError, ValueError) as error:
        return False, f"{host} {_reason(error)}", ()


async def _first_words(answer: aiohttp.ClientResponse) -> bytes:
    """The beginning of what it says; its status counts, whatever becomes of that."""
    try:
        async with asyncio.timeout(FIRST_WORDS):
            return await answer.content.read(KEPT)
    except (TimeoutError, aiohttp.ClientError, OSError):
        return b""


def _reason(error: Exception) -> str:
    """Why there was no answer, without the URL, which stands in the text of some."""
    match error:
        case aiohttp.ClientConnectorCertificateError():
            inner = error.certificate_error
            why = inner.verify_message if isinstance(inner, ssl.SSLCertVerificationError) else type(inner).__name__
            return f"shows a certificate that is not believed: {why}"
        case aiohttp.ServerDisconnectedError():
            return "closed the connection without an answer"
        case aiohttp.ClientResponseError() | aiohttp.ClientPayloadError():
            return "answers what is not HTTP"
        case aiohttp.ClientConnectorError():
            return f"cannot be reached: {error.os_error.strerror or error.os_error}"
        case OSError():
            return f"cannot be reached: {error.strerror or type(error).__name__}"
    return f"cannot be reached: {type(error).__name__}"
