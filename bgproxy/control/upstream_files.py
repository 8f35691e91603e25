"""What the files of a pool's `tls` hold: read at the start and by every reload, and carried from here to who connects."""

from __future__ import annotations

from collections.abc import Mapping

from bgproxy.config.schema import Config, Service, UpstreamTls
from bgproxy.model.snapshot import TlsSpec

#: Of blue and green.
Both = tuple[TlsSpec, TlsSpec]


def tls_of(settings: UpstreamTls) -> TlsSpec:
    """A pool's settings with the content of their files. Blocks for as long as reading takes."""
    verify, name = not settings.insecure, settings.server_name.removesuffix(".")
    if not (settings.ca or settings.cert):
        return TlsSpec(verify=verify, server_name=name)
    from bgproxy.config.certificates import CertificateError  # noqa: PLC0415 - it imports ssl, which most can do without
    from bgproxy.config.upstream_tls import read_authorities, read_pair  # noqa: PLC0415 - as above

    try:
        authorities, (chain, secret) = read_authorities(settings), read_pair(settings)
    except CertificateError as error:
        return TlsSpec(verify=verify, server_name=name, trouble=str(error))
    return TlsSpec(verify, name, authorities, chain, secret)


def both_of(service: Service) -> Both:
    """Of a service's pools, blue first."""
    return tls_of(service.pools.blue.tls), tls_of(service.pools.green.tls)


def all_of(config: Config) -> Mapping[str, Both]:
    """Of every service."""
    return {name: both_of(service) for name, service in config.services.items()}
