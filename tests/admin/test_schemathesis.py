"""The API is what its OpenAPI document says, by schemathesis: inputs that fit it, and inputs that do not, on a real controller."""

from __future__ import annotations

import asyncio
import socket
import sys
from pathlib import Path

import pytest
from support.control_room import ControlRoom

from bgproxy.admin.app import AdminServer

PROGRAM = Path(sys.executable).with_name("schemathesis")  # a development dependency

#: Inputs for each call and phase, and seconds for all of it.
EXAMPLES = 5
DEADLINE = 110.0

#: What JSON Schema cannot say of good input: that a service exists (404), is ready (409) and unchanged (412), that a text
#: is the URL of an upstream (422).
SETTINGS = """\
[checks.positive_data_acceptance]
expected-statuses = [200, 404, 409, 412, 422]

[checks.negative_data_rejection]
expected-statuses = [400, 404, 405, 413, 415, 422]
"""


@pytest.mark.slow
async def test_the_running_api_is_as_its_document_says(tmp_path: Path) -> None:
    """No 500, no status or media type that is not described, every answer by its schema; bad input is always refused."""
    settings = tmp_path / "schemathesis.toml"
    settings.write_text(SETTINGS)
    sock = socket.create_server(("127.0.0.1", 0))
    async with ControlRoom(tmp_path, names=("shop", "api")) as room:
        server = AdminServer(room.controller, room.config)
        await server.start([sock])
        try:
            status, said = await _run(settings, f"http://127.0.0.1:{sock.getsockname()[1]}/v1/openapi.json")
        finally:
            await server.stop()
            sock.close()
    print(said)
    assert status == 0, said


async def _run(settings: Path, url: str) -> tuple[int | None, str]:
    process = await asyncio.create_subprocess_exec(
        *(str(PROGRAM), "--config-file", str(settings), "run", url),
        *("--checks", "all", "--phases", "examples,coverage,fuzzing", "--mode", "all"),
        *("--max-examples", str(EXAMPLES), "--seed", "1", "--generation-deterministic", "--no-shrink"),
        *("--exclude-operation-id", "followEvents", "--request-timeout", "10", "--workers", "1"),
        *("--continue-on-failure", "--no-color", "--warnings", "off"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd=settings.parent,
    )
    try:
        async with asyncio.timeout(DEADLINE):
            said, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode, said.decode(errors="replace")
