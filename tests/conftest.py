"""Fixtures for every test: upstream servers, and bgproxy before them. The makers are in tests/support/."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from support.backends import Backend
from support.proxy import Proxy

import bgproxy
from bgproxy.model.build import build_kind


def pytest_report_header() -> str:
    """Which of the builds is tested: compiled or interpreted, installed or the source tree."""
    return f"bgproxy: {build_kind()}, from {Path(bgproxy.__file__).parent}"


def pytest_configure() -> None:
    """SIGINT does what it does in a terminal: where the tests are started in the background, a shell has it ignored, for children too."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def blue() -> Iterator[Backend]:
    """An upstream of the blue pool."""
    with Backend("blue") as backend:
        yield backend


@pytest.fixture
def green() -> Iterator[Backend]:
    """An upstream of the green pool."""
    with Backend("green") as backend:
        yield backend


@pytest.fixture
def start_proxy(tmp_path: Path) -> Iterator[Callable[..., Proxy]]:
    """Starts a `Proxy` with the arguments given; stopped at the end, which must be in order. A failed test shows its log."""
    started: list[Proxy] = []
    with ExitStack() as stack:

        def start(**options: Any) -> Proxy:
            proxy = Proxy(tmp_path / f"bgproxy{len(started)}", **options)
            started.append(proxy)
            return stack.enter_context(proxy)

        yield start
    for proxy in started:
        print(proxy.log())  # pytest shows it when the test has failed


@pytest.fixture
def proxy(start_proxy: Callable[..., Proxy], blue: Backend, green: Backend) -> Proxy:
    """Bgproxy with two workers before one blue and one green upstream, both healthy."""
    running = start_proxy(blue=[blue.url], green=[green.url])
    running.wait_healthy()
    return running
