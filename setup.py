"""Compile the hot path with mypyc where a C compiler is there; everything else stands in pyproject.toml.

`BGPROXY_COMPILE=0` leaves it interpreted, `BGPROXY_COMPILE=1` makes a failed compilation an error. Without either, a
build without a compiler goes on, and says so; `bgproxy version` tells which of the two is installed.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import sysconfig

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
    "bgproxy/proxy/bodies.py",
    "bgproxy/proxy/canary.py",
    "bgproxy/proxy/choice.py",
    "bgproxy/proxy/client.py",
    "bgproxy/proxy/client_state.py",
    "bgproxy/proxy/context.py",
    "bgproxy/proxy/deadlines.py",
    "bgproxy/proxy/exchange.py",
    "bgproxy/proxy/frames.py",
    "bgproxy/proxy/heads.py",
    "bgproxy/proxy/mirror.py",
    "bgproxy/proxy/peers.py",
    "bgproxy/proxy/recent.py",
    "bgproxy/proxy/refusals.py",
    "bgproxy/proxy/routes.py",
    "bgproxy/proxy/runtime.py",
    "bgproxy/proxy/sessions.py",
    "bgproxy/proxy/slow.py",
    "bgproxy/proxy/tcp.py",
    "bgproxy/proxy/tunnel.py",
    "bgproxy/proxy/upstream.py",
]

#: Commands of setuptools that build something.
BUILDING = {"bdist_wheel", "build", "build_ext", "develop", "editable_wheel", "install"}

#: What a build that cannot compile lacks.
MISSING = "no C compiler, or no headers for it (Debian and Ubuntu: apt install gcc libc6-dev python3-dev)"


def compiler() -> bool:
    """Whether a C program that includes Python.h compiles: a compiler may be there without the headers, of C or of Python."""
    setting = os.environ.get
    command = shlex.split(setting("CC") or sysconfig.get_config_var("CC") or "cc")
    flags = shlex.split(f"{setting('CPPFLAGS', '')} {setting('CFLAGS', '')}")
    headers = [f"-I{sysconfig.get_path(name)}" for name in ("include", "platinclude")]
    probe = [*command, *flags, *headers, "-fsyntax-only", "-x", "c", "-"]
    try:
        tried = subprocess.run(probe, input=b"#include <Python.h>\n", capture_output=True, check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return tried.returncode == 0


def modules() -> list[object]:
    """The extension modules to build; none for an interpreted installation."""
    if not BUILDING.intersection(sys.argv):  # asked for metadata only, which takes no compiler
        return []
    wish = os.environ.get("BGPROXY_COMPILE", "")
    if wish not in {"", "0", "1"}:
        raise SystemExit(f"bgproxy: BGPROXY_COMPILE={wish}: 1 insists on compiling, 0 leaves it; or do not set it")
    if wish == "0":
        print("bgproxy: BGPROXY_COMPILE=0: the hot path stays interpreted", file=sys.stderr)
        return []
    if not compiler():
        if wish == "1":
            raise SystemExit(f"bgproxy: BGPROXY_COMPILE=1, but there is {MISSING}")
        print(f"bgproxy: the hot path stays interpreted: there is {MISSING}", file=sys.stderr)
        return []
    from mypyc.build import mypycify  # noqa: PLC0415 - needed for this alone

    built: list[object] = mypycify(HOT, opt_level="2", debug_level="0", strip_asserts=False)
    return built


if __name__ == "__main__":
    setup(ext_modules=modules())
