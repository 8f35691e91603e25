"""Rules for the admin API: who can reach it, the tokens and the certificate that keep it, and that no upstream leads to it."""

from __future__ import annotations

import stat
import time
from collections.abc import Mapping
from pathlib import Path as FilePath
from typing import Final

from bgproxy.config import certificates
from bgproxy.config.addresses import ListenAddress, UnixAddress, leads_to, parse_listen, parse_upstream
from bgproxy.config.schema import Config
from bgproxy.config.tokens import content_of, token_in
from bgproxy.config.written import Path, Written

_TLS: Final[Path] = ("admin", "tls")


def check_admin(written: Written, folder: FilePath, environment: Mapping[str, str]) -> None:
    """Report what is wrong with `admin`, and with upstreams that are it; relative paths are looked for in `folder`."""
    addresses = _addresses(written)
    _check_tokens(written, folder, environment)
    _check_tls(written, folder, addresses)
    _check_reach(written, addresses)
    _check_upstreams(written, addresses)


def _addresses(written: Written) -> list[tuple[Path, ListenAddress]]:
    """Where the admin API listens; what is no address is reported elsewhere."""
    where: Path = ("admin", "listen")
    given = written.texts(*where) if written.get(*where) is not None else [(where, Config().admin.listen[0])]
    found = []
    for path, text in given:
        try:
            found.append((path, parse_listen(text)))
        except ValueError:
            continue
    return found


# --- tokens ---------------------------------------------------------------------------------------------------------


def _check_tokens(written: Written, folder: FilePath, environment: Mapping[str, str]) -> None:
    """Each token has a name and a text of its own, and one place that its text can be read from."""
    tokens = written.get("admin", "tokens")
    names: dict[str, int] = {}
    texts: dict[str, int] = {}
    for index, token in enumerate(tokens if isinstance(tokens, list) else []):
        path: Path = ("admin", "tokens", index)
        if not isinstance(token, dict):
            continue
        name = written.text(*path, "name")
        if name is not None and names.setdefault(name, index) != index:
            line = written.line("admin", "tokens", names[name])
            written.report((*path, "name"), f"{name!r} is the name of the token on line {line} too: give each its own")
        sources = [key for key in ("token_file", "token_env") if key in token]
        if len(sources) != 1:
            both = "both token_file and token_env: keep one" if sources else "neither token_file nor token_env: add one"
            written.report(path, f"has {both}, that says where the token's text is")
            continue
        source = written.text(*path, sources[0])
        if source is None:
            continue
        place = (*path, sources[0])
        if not source:
            what = "the path of a file with the token in it" if sources[0] == "token_file" else "a variable's name"
            written.report(place, f"is empty: write {what}")
            continue
        if sources[0] == "token_file":
            text = _file_token(written, place, folder / source)
        else:
            text = _environment_token(written, place, source, environment)
        twice = name is not None and names[name] != index  # one entry given twice is one mistake
        if text is not None and texts.setdefault(text, index) != index and not twice:
            line = written.line("admin", "tokens", texts[text])
            written.report(place, f"holds the same text as the token on line {line}: whose is it? give each its own")


def _file_token(written: Written, place: Path, file: FilePath) -> str | None:
    if "\0" in str(file):
        written.report(place, f"{str(file)!r} is not a path: write the path of a file with the token in it")
        return None
    try:
        content, mode = content_of(file)
        token = token_in(content)
    except OSError as error:
        reason = f"{file} cannot be read ({error.strerror}): write the token into it, readable for this user"
        written.report(place, reason)
        return None
    except ValueError as error:
        written.report(place, f"{file} {error}")
        return None
    if mode & (stat.S_IROTH | stat.S_IWOTH):
        what = "written" if mode & stat.S_IWOTH else "read"
        written.warn(place, f"{file} can be {what} by every user of this machine: chmod o-rw {file}")
    return token


def _environment_token(written: Written, place: Path, name: str, environment: Mapping[str, str]) -> str | None:
    value = environment.get(name, "")
    if not value.strip():
        state = "is empty in" if name in environment else "is not set in"
        written.report(place, f"{name} {state} the environment: set it to the token before bgproxy starts")
        return None
    try:
        return token_in(value)
    except ValueError as error:
        written.report(place, f"{name} {error}")
        return None


# --- TLS ------------------------------------------------------------------------------------------------------------


def _check_tls(written: Written, folder: FilePath, addresses: list[tuple[Path, ListenAddress]]) -> None:
    """A certificate with its key, both of them good, or neither."""
    cert, key, client_ca = (written.text(*_TLS, name) or "" for name in ("cert", "key", "client_ca"))
    if not cert and not key:
        if client_ca:
            written.report((*_TLS, "client_ca"), "asks for certificates of clients without TLS: add cert and key")
        return
    if not cert or not key:
        there, missing = ("cert", "key") if cert else ("key", "cert")
        written.report(_TLS, f"has {there} without {missing}: add admin.tls.{missing}, the path of a PEM file")
        return
    if all(isinstance(address, UnixAddress) for _, address in addresses):
        written.warn(_TLS, "has no effect: a Unix socket carries no TLS, and admin.listen has nothing else")
    try:
        certificates.judge_pair(str(folder / cert), str(folder / key), time.time())
    except certificates.CertificateError as error:
        written.report((*_TLS, error.part), str(error))
    else:
        if unwise := certificates.exposure(str(folder / key)):
            written.warn((*_TLS, "key"), unwise)
    try:
        if client_ca:
            certificates.judge_authorities(str(folder / client_ca))
    except certificates.CertificateError as error:
        written.report((*_TLS, error.part), str(error))


def _check_reach(written: Written, addresses: list[tuple[Path, ListenAddress]]) -> None:
    """Warn where tokens would cross a network in the clear; that there are any is checked with the address."""
    if written.get(*_TLS, "cert"):
        return
    for path, address in addresses:
        if not address.is_loopback:
            written.warn(
                path,
                f"{address} can be reached from other machines without TLS, so tokens cross the network readable: "
                "add admin.tls, or listen on 127.0.0.1 or unix:/path",
            )


# --- upstreams ------------------------------------------------------------------------------------------------------


def _check_upstreams(written: Written, addresses: list[tuple[Path, ListenAddress]]) -> None:
    """No upstream is the admin API: the data listeners would then lead everybody to it."""
    services = written.get("services")
    for service in services if isinstance(services, dict) else ():
        for pool in ("blue", "green"):
            for item, text in written.texts("services", service, "pools", pool, "upstreams"):
                try:
                    upstream = parse_upstream(text)
                except ValueError:
                    continue  # reported with the pool
                if any(leads_to(upstream, address) for _, address in addresses):
                    written.report(
                        item,
                        f"{text!r} is where the admin API listens: whoever can send a request could change bgproxy; "
                        "write the address of your server",
                    )
