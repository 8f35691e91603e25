"""Compile the hot path with mypyc where a C compiler is there; everything else stands in pyproject.toml.

`BGPROXY_COMPILE=0` leaves it interpreted, `BGPROXY_COMPILE=1` makes a failed compilation an error. Without either, a
build without a compiler goes on, and says so; `bgproxy version` tells which of the two is installed.
"""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from pathlib import Path

from setuptools import setup

#: What a request passes through. The rest is imported by it, or runs once in a while.
HOT = [
    "bgproxy/switchboard/board.py",
    "bgproxy/switchboard/layout.py",
    "bgproxy/http1/bytesets.py",
    "bgproxy/http1/chunked.py",
    "bgproxy/http1/errors.py",
    "bgproxy/http1/names.py",
    "bgproxy/http1/request.py",
    "bgproxy/http1/response.py",
    "bgproxy/proxy/balance.py",
    "bgproxy/proxy/choice.py",
    "bgproxy/proxy/client.py",
    "bgproxy/proxy/context.py",
    "bgproxy/proxy/exchange.py",
    "bgproxy/proxy/frames.py",
    "bgproxy/proxy/heads.py",
    "bgproxy/proxy/peers.py",
    "bgproxy/proxy/routes.py",
    "bgproxy/proxy/runtime.py",
    "bgproxy/proxy/sessions.py",
    "bgproxy/proxy/tunnel.py",
    "bgproxy/proxy/upstream.py",
]

#: Commands of setuptools that build something.
BUILDING = {"bdist_wheel", "build", "build_ext", "develop", "editable_wheel", "install"}


def compiler() -> bool:
    """Whether a C compiler can be run, and the headers of this Python are there."""
    command = os.environ.get("CC") or (sysconfig.get_config_var("CC") or "cc").split()[0]
    headers = Path(sysconfig.get_path("include")) / "Python.h"
    return shutil.which(command) is not None and headers.exists()


def modules() -> list[object]:
    """The extension modules to build; none for an interpreted installation."""
    if not BUILDING.intersection(sys.argv):  # asked for metadata only, which takes no compiler
        return []
    wish = os.environ.get("BGPROXY_COMPILE", "")
    if wish == "0":
        print("bgproxy: BGPROXY_COMPILE=0: the hot path stays interpreted", file=sys.stderr)
        return []
    if not compiler() and wish != "1":
        print("bgproxy: no C compiler or no Python headers: the hot path stays interpreted", file=sys.stderr)
        return []
    from mypyc.build import mypycify  # noqa: PLC0415 - needed for this alone

    built: list[object] = mypycify(HOT, opt_level="2", debug_level="0", strip_asserts=False)
    return built


if __name__ == "__main__":
    setup(ext_modules=modules())
