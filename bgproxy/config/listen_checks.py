"""Rules for listeners: their addresses beside each other, what goes with what, and the files of their certificates."""

from __future__ import annotations

import os
import time
from pathlib import Path as FilePath
from typing import Any, Final

from bgproxy.config.addresses import ListenAddress, UnixAddress, listen_key, parse_listen
from bgproxy.config.schema import Config
from bgproxy.config.written import Path, Written

_EXAMPLE: Final = "{cert: fullchain.pem, key: privkey.pem}"


def check_listeners(written: Written, folder: FilePath) -> None:
    """Report what is wrong with the listeners of both planes; relative paths are looked for in `folder`."""
    taken: dict[Any, Path] = {}
    defaults = Config()
    for where, default in ((("listen",), defaults.listen), (("admin", "listen"), defaults.admin.listen)):
        if written.get(*where) == []:
            written.report(where, f"is an empty list: write at least one address, such as {default[0]}")
        for path, text in _addresses(written, where, [str(each) for each in default]):
            try:
                address = parse_listen(text)
            except ValueError as error:
                written.report(path, str(error))
                continue
            _check_clash(written, taken, path, address)
            if where[0] == "admin":
                _check_open(written, path, address)
    listeners = written.get("listen")
    for index, listener in enumerate(listeners if isinstance(listeners, list) else []):
        if isinstance(listener, dict):
            _check_listener(written, ("listen", index), folder)


# --- addresses ------------------------------------------------------------------------------------------------------


def _addresses(written: Written, where: Path, defaults: list[str]) -> list[tuple[Path, str]]:
    """The addresses at `where`, or those that hold without it, each with its path."""
    if written.get(*where) is None:
        return [(where, text) for text in defaults]
    if where[0] == "admin":
        return written.texts(*where)
    listeners = written.get(*where)
    count = len(listeners) if isinstance(listeners, list) else 0
    paths: list[Path] = [(*where, index, "address") for index in range(count)]
    return [(path, text) for path in paths if (text := written.text(*path)) is not None]


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


# --- what goes with what --------------------------------------------------------------------------------------------


def _check_listener(written: Written, path: Path, folder: FilePath) -> None:
    tcp = written.text(*path, "mode") == "tcp"
    redirects = written.text(*path, "redirect") not in (None, "off")
    tls = written.get(*path, "tls")
    if redirects and tls is not None:
        written.report((*path, "redirect"), "a listener with tls has nothing to redirect to: remove redirect, or tls")
    elif redirects and tcp:
        written.report(
            (*path, "redirect"), "mode tcp knows no requests to redirect: remove redirect, or write mode: http"
        )
    elif redirects and _is_unix(written.text(*path, "address")):
        written.report((*path, "redirect"), "who comes over a Unix socket cannot be sent to https: remove redirect")
    _check_tcp(written, path, tcp=tcp)
    _check_proxy_protocol(written, path)
    if isinstance(tls, dict):
        _check_tls(written, (*path, "tls"), folder, tcp=tcp)


def _is_unix(text: str | None) -> bool:
    try:
        return text is not None and isinstance(parse_listen(text), UnixAddress)
    except ValueError:
        return False


def _check_tcp(written: Written, path: Path, *, tcp: bool) -> None:
    """A listener in mode tcp leads to one service; no other does. Which ones there are: `tcp_checks`."""
    if written.get(*path, "service") is not None and not tcp:
        written.report(
            (*path, "service"), "goes with mode: tcp only, http finds its service by host and path: remove it"
        )


def _check_proxy_protocol(written: Written, path: Path) -> None:
    """Somebody is trusted to send the header; over a Unix socket, whoever may open it."""
    expected = written.text(*path, "proxy_protocol") == "on"
    if expected and not written.get("trusted_proxies") and not _is_unix(written.text(*path, "address")):
        written.report(
            (*path, "proxy_protocol"),
            "needs trusted_proxies, the networks of those who may say whom they speak for: every connection would be closed",
        )


# --- certificates ---------------------------------------------------------------------------------------------------


def _check_tls(written: Written, path: Path, folder: FilePath, *, tcp: bool) -> None:
    if written.get(*path, "certificates") == []:
        written.report((*path, "certificates"), f"is an empty list: write at least one, such as {_EXAMPLE}")
    if tcp and written.text(*path, "hsts") not in (None, "off"):
        written.report((*path, "hsts"), "mode tcp knows no answers that could say it: remove hsts, or write mode: http")
    if written.get(*path, "client_auth") is not None and written.get(*path, "client_ca") is None:
        written.report(
            (*path, "client_auth"),
            "needs client_ca, which says who signs the certificates of clients: add it, or remove this",
        )
    certificates = written.get(*path, "certificates")
    seen: dict[str, Path] = {}
    for index, each in enumerate(certificates if isinstance(certificates, list) else []):
        if isinstance(each, dict):
            _check_pair(written, (*path, "certificates", index), folder, seen)
    authorities = written.text(*path, "client_ca")
    if authorities is not None:
        from bgproxy.config import certificates as files  # noqa: PLC0415 - `ssl` is for those who use it

        try:
            files.judge_authorities(str(folder / authorities))
        except files.CertificateError as error:
            written.report((*path, "client_ca"), str(error))


def _check_pair(written: Written, path: Path, folder: FilePath, seen: dict[str, Path]) -> None:
    cert, key = written.text(*path, "cert"), written.text(*path, "key")
    if not cert or not key:
        return
    first = seen.setdefault(os.path.normpath(folder / cert), path)
    if first != path:
        written.report(
            (*path, "cert"), f"{cert!r} is listed already on line {written.line(*first)}: remove one of them"
        )
        return
    from bgproxy.config import certificates as files  # noqa: PLC0415 - as above

    try:
        files.judge_pair(str(folder / cert), str(folder / key), time.time())
    except files.CertificateError as error:
        written.report((*path, error.part), str(error))
        return
    exposed = files.exposure(str(folder / key))
    if exposed is not None:
        written.warn((*path, "key"), exposed)
