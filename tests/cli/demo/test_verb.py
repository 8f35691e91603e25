"""The verb `demo`, as a person would run it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path

import pytest
from support.waiting import eventually

import bgproxy
from bgproxy.cli.demo.children import free_port
from bgproxy.cli.main import main


class Demo:
    """A demo in a process of its own, with a temporary directory that shows what is left behind."""

    def __init__(self, folder, *words):
        self._environment = os.environ | {
            "TMPDIR": str(folder),
            "PYTHONPATH": str(Path(bgproxy.__file__).parents[1]),
            "BGPROXY_ADMIN": "",
        }
        command = [sys.executable, "-m", "bgproxy", "demo", *words]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=self._environment)
        self.lines = []
        self._reader = threading.Thread(target=lambda: self.lines.extend(self.process.stdout))
        self._reader.start()

    def said(self, text):
        return next((line for line in self.lines if text in line), None)

    def bgproxy(self, *words):
        command = [sys.executable, "-m", "bgproxy", *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, env=self._environment, check=False)

    def end(self):
        status = self.process.wait(60)
        self._reader.join()
        self.process.stdout.close()
        return status


def ports():
    first = free_port(20000 + os.getpid() % 20000)
    return first, free_port(first + 1)


def test_switch_in_the_demo_and_nothing_is_left(tmp_path):
    """It serves, a switch moves its traffic without an error, and Ctrl-C ends every process and removes every file."""
    port, admin = ports()
    demo = Demo(tmp_path, "--port", str(port), "--admin-port", str(admin), "--for", "60")
    try:
        eventually(lambda: demo.said("the traffic goes to blue 100 %"), within=30)
        assert demo.said(f"switch --admin http://127.0.0.1:{admin}")
        switched = demo.bgproxy("switch", "--admin", f"http://127.0.0.1:{admin}")
        assert switched.returncode == 0, switched.stderr
        assert "shop: blue -> green, live now" in switched.stdout
        assert "shop: blue is drained" in switched.stdout
        eventually(lambda: demo.said("green 100 %"), within=10)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/") as page:
            assert "Teapots 2.0" in page.read().decode()
    finally:
        demo.process.send_signal(signal.SIGINT)
        status = demo.end()
    assert status == 0
    assert "; 0 errors. Nothing is left behind." in demo.lines[-1]
    assert list(tmp_path.iterdir()) == []
    for taken in (port, admin):
        with socket.socket() as sock:
            assert sock.connect_ex(("127.0.0.1", taken)) != 0


def test_taken_port_and_an_end_of_its_own(tmp_path):
    """A port that is taken is replaced by the next free one, and said; --for ends it."""
    port, admin = ports()
    with socket.create_server(("127.0.0.1", port)):
        demo = Demo(tmp_path, "--port", str(port), "--admin-port", str(admin), "--for", "0.5")
        assert demo.end() == 0
    assert demo.said(f"port {port} is taken: the shop takes ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("words", [["--port", "0"], ["--port", "x"], ["--for", "-1"], ["--for", "soon"]])
def test_wrong_usage(words, capsys):
    """Numbers that are none: exit 2."""
    assert main(["demo", *words]) == 2
    assert words[0] in capsys.readouterr().err
