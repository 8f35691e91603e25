"""Rules of a configuration that no single field can hold: listeners, the admin API, files, and services beside each other.

Each check looks at the file as written, so that all of them run whatever else is wrong with it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path as FilePath

from bgproxy.config.admin_checks import check_admin
from bgproxy.config.deployment_checks import check_deployments
from bgproxy.config.listen_checks import check_listeners
from bgproxy.config.service_checks import check_networks, check_services
from bgproxy.config.tcp_checks import check_tcp
from bgproxy.config.upstream_checks import check_upstreams
from bgproxy.config.written import Written


def check(written: Written, folder: FilePath, environment: Mapping[str, str]) -> None:
    """Report what is wrong in `written`; relative paths are looked for in `folder`."""
    check_listeners(written, folder)
    check_admin(written, folder, environment)
    _check_access_log(written, folder)
    _check_state_dir(written, folder)
    check_networks(written, "trusted_proxies")
    check_services(written, check_tcp(written))
    check_upstreams(written, folder)
    check_deployments(written)


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
