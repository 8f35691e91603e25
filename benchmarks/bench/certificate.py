"""One certificate for all proxies of a run, and the ciphers that they are to have."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

#: bgproxy's own for TLS 1.2; those of 1.3, which wrk speaks, are everybody's defaults, in the client's order.
CIPHERS: Final = (
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:"
    "ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305"
)

_DONE: Final = re.compile(r"(\d+) connections in (\d+) real seconds")


@dataclass(frozen=True, slots=True)
class Pair:
    """Paths of a certificate and its key."""

    cert: Path
    key: Path


def pair(folder: Path) -> Pair:
    """For 127.0.0.1, ECDSA on P-256, made by the program `openssl` the first time; `OSError` where that cannot be."""
    found = Pair(folder / "certificate.pem", folder / "certificate.key")
    if not found.cert.exists():
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        command += ["-days", "2", "-subj", "/CN=bench", "-addext", "subjectAltName=IP:127.0.0.1"]
        command += ["-keyout", str(found.key), "-out", str(found.cert)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        if done.returncode:
            raise OSError(f"openssl makes no certificate: {done.stderr[-300:]}")
    return found


def handshakes(port: int, seconds: float) -> list[str]:
    """GETs, each over a new connection with a whole handshake, one after the other."""
    limit = str(max(1, round(seconds)))
    return ["openssl", "s_time", "-connect", f"127.0.0.1:{port}", "-new", "-www", "/", "-time", limit]


def parse(text: str) -> tuple[int, float]:
    """How many there were, and in how many seconds; `ValueError` where it does not say."""
    done = _DONE.search(text)
    if done is None:
        raise ValueError(f"this is not the output of openssl s_time: {text[-500:]!r}")
    return int(done[1]), float(done[2])
