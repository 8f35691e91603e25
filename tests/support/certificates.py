"""Certificates as tests want them: an authority of the test's own, and what it issues, in files."""

from __future__ import annotations

import ipaddress
import os
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

DAY = timedelta(days=1)


@dataclass(frozen=True)
class Files:
    """Paths of a certificate with its chain, and of its key."""

    cert: str
    key: str

    def as_config(self) -> dict[str, str]:
        return {"cert": self.cert, "key": self.key}


class _Identity:
    """A key and a certificate."""

    def __init__(
        self,
        subject: str,
        issuer: _Identity | None,
        *,
        names: tuple[str, ...] = (),
        is_ca: bool = False,
        not_before: timedelta = -DAY,
        not_after: timedelta = 30 * DAY,
    ) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)])
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(self.subject)
            .issuer_name(issuer.subject if issuer is not None else self.subject)
            .public_key(self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + not_before)
            .not_valid_after(now + not_after)
            .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        )
        signer = issuer or self
        identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.key.public_key())
        builder = builder.add_extension(identifier, critical=False)
        builder = builder.add_extension(
            x509.SubjectKeyIdentifier.from_public_key(self.key.public_key()), critical=False
        )
        if is_ca:
            usage = dict.fromkeys(
                ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only"), False
            )
            signs = {"digital_signature": True, "key_cert_sign": True, "crl_sign": True, "decipher_only": False}
            builder = builder.add_extension(x509.KeyUsage(**usage, **signs), critical=True)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName([_general(name) for name in names]), False)
        self.certificate = builder.sign(signer.key, hashes.SHA256())

    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def secret(self, password: bytes = b"") -> bytes:
        cipher = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
        return self.key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, cipher)


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


class Authority:
    """An authority, and one between it and its leaves, so that chains have an order to get wrong."""

    def __init__(self) -> None:
        self.root = _Identity("root", None, is_ca=True)
        self.between = _Identity("between", self.root, is_ca=True)

    def issue(
        self,
        folder: Path,
        *names: str,
        stem: str = "site",
        password: bytes = b"",
        not_before: timedelta = -DAY,
        not_after: timedelta = 30 * DAY,
    ) -> Files:
        """A leaf for `names`, valid from and to so far from now, in `stem`.pem and `stem`.key of `folder`."""
        leaf = _Identity("leaf", self.between, names=names, not_before=not_before, not_after=not_after)
        files = Files(str(folder / f"{stem}.pem"), str(folder / f"{stem}.key"))
        replace(files.key, leaf.secret(password), mode=0o600)
        replace(files.cert, leaf.pem() + self.between.pem())
        return files

    def write(self, folder: Path, name: str = "ca.pem") -> str:
        """The root in a file."""
        path = str(folder / name)
        replace(path, self.root.pem())
        return path

    def client_context(self, own: Files | None = None) -> ssl.SSLContext:
        """What a client that trusts this authority uses; `own` is its own certificate."""
        context = ssl.create_default_context(cadata=self.root.pem().decode())
        if own is not None:
            context.load_cert_chain(own.cert, own.key)
        return context


def replace(path: str, content: bytes, *, mode: int = 0o644) -> None:
    """Write a file as programs that renew certificates do: another file takes its place in one step."""
    new = Path(f"{path}.new")
    new.write_bytes(content)
    new.chmod(mode)
    os.replace(new, path)  # noqa: PTH105 - beside the text of the path
