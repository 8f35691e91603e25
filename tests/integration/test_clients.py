"""Clients that people use: curl, wrk, h2load, and Python's http.client (websockets has its own tests)."""

from __future__ import annotations

import http.client
import shutil
import subprocess

import pytest
from support.fast_server import FastServer
from support.proxy import Proxy


def _run(*command: str) -> str:
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_curl(proxy: Proxy) -> None:
    """Curl gets pages, posts bodies with Expect, and follows the switch on one connection."""
    assert _run("curl", "-sS", proxy.base_url) == "blue"
    big = "x" * 2_000_000
    command = ["curl", "-sS", "-H", "Expect: 100-continue", "--data-binary", "@-", proxy.base_url + "/echo"]
    if shutil.which("curl"):
        done = subprocess.run(command, input=big, capture_output=True, text=True, timeout=60, check=True)
        assert done.stdout == big
    assert "HTTP/1.1 200" in _run("curl", "-sS", "-I", proxy.base_url)
    proxy.switch("green")
    assert _run("curl", "-sS", proxy.base_url, proxy.base_url) == "greengreen"


def test_http_client(proxy: Proxy) -> None:
    """Python's http.client: kept connection, chunked upload, HEAD."""
    connection = http.client.HTTPConnection(*proxy.address, timeout=10)
    connection.request("GET", "/")
    assert connection.getresponse().read() == b"blue"
    connection.request(
        "POST",
        "/echo",
        body=(piece for piece in (b"in ", b"chunks")),
        encode_chunked=True,
        headers={"Transfer-Encoding": "chunked"},
    )
    assert connection.getresponse().read() == b"in chunks"
    connection.request("HEAD", "/")
    answer = connection.getresponse()
    assert answer.status == 200
    assert answer.read() == b""
    proxy.switch("green")
    connection.request("GET", "/")
    assert connection.getresponse().read() == b"green"
    connection.close()


@pytest.mark.alone
def test_wrk_and_h2load(start_proxy) -> None:
    """Wrk and `h2load --h1` report no error while the traffic is switched."""
    with FastServer("blue") as blue, FastServer("green") as green:
        proxy = start_proxy(blue=[blue.url], green=[green.url], health={"path": "/"})
        proxy.wait_healthy()
        if shutil.which("wrk"):
            with subprocess.Popen(
                ["wrk", "-t1", "-c20", "-d3s", proxy.base_url + "/"], stdout=subprocess.PIPE, text=True
            ) as wrk:
                for _ in range(8):
                    proxy.switch()
                report, _ = wrk.communicate(timeout=30)
            assert "Socket errors" not in report
            assert "Non-2xx" not in report
            assert "requests in" in report
        report = _run("h2load", "--h1", "-n", "5000", "-c", "20", proxy.base_url + "/")
        assert "5000 succeeded, 0 failed, 0 errored" in report
