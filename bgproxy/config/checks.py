"""Rules of a configuration that no single field can hold: addresses, the admin API, files, and services beside each other.

Each check looks at the file as written, so that all of them run whatever else is wrong with it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path as FilePath
from typing import Any

from bgproxy.config.addresses import ListenAddress, listen_key, parse_listen
from bgproxy.config.admin_checks import check_admin
from bgproxy.config.schema import Config
from bgproxy.config.service_checks import check_networks, check_services
from bgproxy.config.written import Path, Written


def check(written: Written, folder: FilePath, environment: Mapping[str, str]) -> None:
    """Report what is wrong in `written`; relative paths are looked for in `folder`."""
    _check_listeners(written)
    check_admin(written, folder, environment)
    _check_access_log(written, folder)
    _check_state_dir(written, folder)
    check_networks(written, "trusted_proxies")
    check_services(written)


# --- listeners ------------------------------------------------------------------------------------------------------


def _check_listeners(written: Written) -> None:
    """Addresses are addresses, and no two of them the same."""
    taken: dict[Any, Path] = {}
    defaults = Config()
    for where, default in ((("listen",), defaults.listen), (("admin", "listen"), defaults.admin.listen)):
        if written.get(*where) == []:
            written.report(where, f"is an empty list: write at least one address, such as {default[0]}")
        given = written.texts(*where) if written.get(*where) is not None else [(where, text) for text in default]
        for path, text in given:
            try:
                address = parse_listen(text)
            except ValueError as error:
                written.report(path, str(error))
                continue
            _check_clash(written, taken, path, address)
            if where[0] == "admin":
                _check_open(written, path, address)


def _check_clash(written: Written, taken: dict[Any, Path], path: Path, address: ListenAddress) -> None:
    key = listen_key(address)
    if key is None:
        return
    if key in taken:
        first = taken[key]
        if written.get(*path) is None:
            written.report(
                first, f"{address} is where the admin API listens by default: give admin.listen another address"
            )
        elif written.get(*first) is None:
            written.report(path, f"{address} is where bgproxy listens by default: give listen or this another address")
        elif path[0] == "admin" and first[0] == "listen":
            written.report(
                path, f"{address} is taken by listen (line {written.line(*first)}): give the admin API its own port"
            )
        else:
            written.report(path, f"{address} is listed already on line {written.line(*first)}: remove one of them")
    taken.setdefault(key, path)


def _check_open(written: Written, path: Path, address: ListenAddress) -> None:
    if not address.is_loopback and not written.get("admin", "tokens"):
        written.report(
            path,
            f"{address} can be reached from other machines and there are no tokens: add admin.tokens, "
            "or listen on 127.0.0.1 or unix:/path",
        )


# --- files ----------------------------------------------------------------------------------------------------------


def _check_access_log(written: Written, folder: FilePath) -> None:
    """Off, stdout, or a file in a directory that exists."""
    text = written.text("access_log")
    if text is None or text in ("off", "stdout"):
        return
    path = ("access_log",)
    if text.lower() in ("", "no", "none", "false", "on", "yes", "true", "stderr", "off", "stdout", "syslog"):
        written.report(path, f"{text!r} is not allowed: write off, stdout, or the path of a file")
        return
    file = folder / text
    if not file.parent.is_dir():
        written.report(path, f"the directory {file.parent} does not exist: create it, or write off or stdout")
    elif file.is_dir():
        written.report(
            path, f"{file} is a directory: write the path of a file in it, such as {text.rstrip('/')}/access.log"
        )


def _check_state_dir(written: Written, folder: FilePath) -> None:
    """A directory, or nothing yet."""
    text = written.text("state_dir")
    if text is None:
        return
    if not text.strip():
        written.report(("state_dir",), "is empty: write a directory, or remove the key to have the default")
    elif os.path.lexists(folder / text) and not (folder / text).is_dir():
        written.report(
            ("state_dir",), f"{folder / text} is not a directory: write the path of one, it is created if need be"
        )
