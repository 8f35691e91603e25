"""Rules for TLS to upstreams: what goes with what, and the files that a pool's `tls` names."""

from __future__ import annotations

from pathlib import Path as FilePath
from typing import Any

from bgproxy.config.addresses import is_secure
from bgproxy.config.certificates import CertificateError, exposure
from bgproxy.config.schema import UpstreamTls
from bgproxy.config.upstream_tls import has_trust_store, read_authorities, read_pair
from bgproxy.config.written import Path, Written


def check_upstreams(written: Written, folder: FilePath) -> None:
    """Report what is wrong with the `tls` of pools; relative paths are looked for in `folder`."""
    services = written.get("services")
    for name in services if isinstance(services, dict) else ():
        for pool in ("blue", "green"):
            path: Path = ("services", name, "pools", pool)
            tls = written.get(*path, "tls")
            if isinstance(tls, dict):
                _check_tls(written, (*path, "tls"), folder)
            _check_trust(written, path, tls if isinstance(tls, dict) else {})


def _check_tls(written: Written, path: Path, folder: FilePath) -> None:
    """`insecure` beside what it makes pointless, a certificate without its key, and the files themselves."""
    if written.text(*path, "insecure") == "true":
        if written.text(*path, "ca"):
            written.report((*path, "ca"), "has no effect beside insecure: true: remove one of them")
        written.warn(
            (*path, "insecure"),
            "upstreams are not verified: whoever can get between reads and changes what goes to them; name their authority in ca",
        )
    for one, other in (("cert", "key"), ("key", "cert")):
        if written.get(*path, one) and not written.get(*path, other):
            written.report(
                (*path, one), f"needs {other}: a certificate and its key go together; add {other}, or remove this"
            )
    name = written.text(*path, "server_name")
    if name and not _is_name(name):
        written.report(
            (*path, "server_name"), f"{name!r} is not a host name: write one such as app.internal, without a port"
        )
    _check_files(written, path, folder)


def _check_files(written: Written, path: Path, folder: FilePath) -> None:
    def file(key: str) -> str:
        text = written.text(*path, key)
        return str(folder / text) if text else ""

    tls = UpstreamTls(ca=file("ca"), cert=file("cert"), key=file("key"))
    for read in (read_authorities, read_pair):
        try:
            read(tls)
        except CertificateError as error:
            written.report((*path, error.part), str(error))
    if tls.key and (unwise := exposure(tls.key)):
        written.warn((*path, "key"), unwise)


def _check_trust(written: Written, path: Path, tls: dict[str, Any]) -> None:
    """Verified by this machine's trust store: then it needs to have one."""
    if tls.get("ca") or tls.get("insecure") == "true" or has_trust_store():
        return
    for item, url in written.texts(*path, "upstreams"):
        if is_secure(url):
            written.warn(
                item,
                "this machine has no trust store, so no certificate will be believed: install ca-certificates, or set tls.ca",
            )
            return


def _is_name(text: str) -> bool:
    """Whether it can be asked for in a handshake, and be looked for in a certificate."""
    labels = text.removesuffix(".").split(".")
    return len(text) <= 253 and all(
        0 < len(label) <= 63 and label.isascii() and label.replace("-", "").replace("_", "").isalnum()
        for label in labels
    )
