"""`bgproxy demo`: sets the stage, lets the traffic run, and clears it all away."""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import signal
import sys
import tempfile
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Final

import aiohttp

from bgproxy.cli.demo.children import Child, free_port, listening_socket
from bgproxy.cli.demo.guide import command, guide
from bgproxy.cli.demo.spoiled import Spoiled
from bgproxy.cli.demo.traffic import Traffic
from bgproxy.cli.exits import DONE, CliError, UsageError
from bgproxy.cli.parser import Parser
from bgproxy.cli.terminal import Paint
from bgproxy.config.units import parse_duration

VERSIONS: Final = {"blue": "1.0", "green": "2.0"}
START: Final = 30.0  # seconds until all of it must serve

_CONFIG: Final = """\
listen: 127.0.0.1:{port}
workers: 2
state_dir: {state}
admin: {{ listen: 127.0.0.1:{admin_port} }}
timeouts: {{ shutdown: 2s }}
services:
  shop:
    pools:
      blue:  {{ version: "1.0", upstreams: [{blue}] }}
      green: {{ version: "2.0", upstreams: [{green}] }}
    health: {{ path: /health, interval: 1s }}
    drain: {{ requests: 30s, streams: 15s, websockets: 15s }}
    deployment:
      verify:
        within: 3s
        checks:
          - {{ name: a teapot, request: GET /api/products/2, expect: {{ json: {{ $.product.id: 2 }}, within: 1s }} }}
          - {{ name: the page, request: GET /, expect: {{ body_contains: Teapots, within: 1s }} }}
          - {{ name: load, load: {{ rate: 50/s, for: 2s, path: /api/products, p99: 250ms, errors: 0% }} }}
      compare:
        mirror: 50%
        for: 3s
        mismatches: 10%
        ignore: {{ json: [$.colour, $.version, "$.products[*].price", $.product.price] }}
      warm: {{ requests: 100 }}
      bake: {{ for: {bake}, min_requests: 50 }}
"""

#: How long a new version is watched, as the configuration has it.
BAKE: Final = "25s"


def configure(parser: Parser) -> None:
    """The command line of the verb."""
    parser.add_argument(
        "--port", type=_port, default=8080, metavar="N", help="of the shop (8080, or the next free one)"
    )
    parser.add_argument(
        "--admin-port", type=_port, default=8900, metavar="N", help="of the admin API (8900, or the next free one)"
    )
    parser.add_argument(
        "--bake",
        type=_duration,
        default=BAKE,
        metavar="TIME",
        help=f"how long a deployment watches the new version ({BAKE})",
    )
    parser.add_argument("--for", dest="seconds", type=_seconds, metavar="SECONDS", help="end by itself after so long")
    parser.examples(
        ("bgproxy demo", "then do what it says"), ("bgproxy demo --port 9000 --for 600", "elsewhere, for ten minutes")
    )


def _port(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port: 1 to 65535")
    return int(text)


def _duration(text: str) -> str:
    try:
        parse_duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1
    if not 0 < seconds < 1e6:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds")
    return seconds


def run(args: argparse.Namespace) -> int:
    """The demo, until Ctrl-C, SIGTERM, a closed terminal, or the given time is over."""
    port = _pick(args.port, "the shop", "--port")
    admin_port = _pick(args.admin_port, "the admin API", "--admin-port", frozenset({port}))
    with tempfile.TemporaryDirectory(prefix="bgproxy-demo-") as folder:
        return asyncio.run(_play(Path(folder), port, admin_port, args.bake, args.seconds))


def _pick(wanted: int, whose: str, option: str, taken: frozenset[int] = frozenset()) -> int:
    port = free_port(wanted, taken)
    if port is None:
        raise UsageError(f"port {wanted} and the hundred after it are taken; {option} names another for {whose}")
    if port != wanted:
        print(f"port {wanted} is taken: {whose} takes {port}")
    return port


async def _play(folder: Path, port: int, admin_port: int, bake: str, seconds: float | None) -> int:
    """Everything between the first process and the last one; what was started is ended, whatever happens."""
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, ended.set)
    until = asyncio.create_task(ended.wait(), name="demo end")
    shop, admin = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{admin_port}"
    traffic = Traffic(shop, lambda line: print(line, flush=True), Paint.of(sys.stdout))
    async with AsyncExitStack() as stack:
        stack.callback(until.cancel)
        spoiled = Spoiled(folder)
        spoiled.open()
        stack.push_async_callback(spoiled.close)
        children, good = await _start(stack, folder, port, admin_port, bake)
        deaths = [asyncio.create_task(_death(child), name=f"demo watch {child.name}") for child in children]
        for task in deaths:
            stack.callback(task.cancel)
        ready = asyncio.create_task(_ready(admin), name="demo ready")
        stack.callback(ready.cancel)
        await asyncio.wait([ready, until, *deaths], timeout=START, return_when=asyncio.FIRST_COMPLETED)
        _raise_for(deaths)
        if not ready.done() and not until.done():
            raise CliError(f"the demo's proxy was not ready within {START:g} s; it said:\n{children[-1].last_words()}")
        if not until.done():
            room = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
            print(guide(shop, admin, command(), good, spoiled.urls, room=room), flush=True)
            running = asyncio.create_task(traffic.run(), name="demo traffic")
            try:
                await asyncio.wait([until, running, *deaths], timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            finally:
                running.cancel()
                with suppress(asyncio.CancelledError):
                    await running
            _raise_for(deaths)
        print("\nending it all", flush=True)
    print(f"{traffic.summary()}. Nothing is left behind.")
    return DONE


async def _start(stack: AsyncExitStack, folder: Path, port: int, admin_port: int, bake: str) -> tuple[list[Child], str]:
    """The shops, then the proxy, which end in the opposite order; and the URL of the new version."""
    children = []
    urls = {}
    for colour, version in VERSIONS.items():
        with listening_socket() as sock:
            urls[colour] = f"http://127.0.0.1:{sock.getsockname()[1]}"
            arguments = [colour, version, str(sock.fileno())]
            log = folder / f"{colour}.log"
            child = await Child.start(f"{colour} shop", "bgproxy.cli.demo.shop", arguments, log, [sock.fileno()])
        stack.push_async_callback(child.stop)
        children.append(child)
    config = folder / "bgproxy.yaml"
    state = json.dumps(str(folder / "state"))
    text = _CONFIG.format(port=port, admin_port=admin_port, state=state, bake=bake, **urls)
    config.write_text(text)
    proxy = await Child.start("proxy", "bgproxy", ["run", "-c", str(config)], folder / "proxy.log")
    stack.push_async_callback(proxy.stop)
    return [*children, proxy], urls["green"]


async def _death(child: Child) -> str:
    """Wait for a death that nobody asked for; what to say about it."""
    status = await child.ended()
    return f"the demo's {child.name} ended with status {status}; it said:\n{child.last_words()}"


def _raise_for(deaths: list[asyncio.Task[str]]) -> None:
    for death in deaths:
        if death.done():
            raise CliError(death.result())


async def _ready(admin: str) -> None:
    """Wait until every worker serves and both versions are up, so that the first `switch` that is typed goes through."""
    async with aiohttp.ClientSession(admin, timeout=aiohttp.ClientTimeout(total=2)) as session:
        while True:
            with suppress(aiohttp.ClientError, TimeoutError):
                async with session.get("/readyz") as answer:
                    ready = answer.status == 200
                async with session.get("/v1/services/shop") as answer:
                    pools = (await answer.json())["pools"] if answer.status == 200 else {}
                if ready and pools and all(pool["healthy"] for pool in pools.values()):
                    return
            await asyncio.sleep(0.1)
