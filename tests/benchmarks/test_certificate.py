"""The certificate of the benchmark, and the handshakes that are counted."""

from __future__ import annotations

import pytest
from bench.certificate import CIPHERS, parse

from bgproxy.proxy import tls


def test_the_peers_have_bgproxys_ciphers():
    """In whichever order: the client's decides."""
    assert sorted(CIPHERS.split(":")) == sorted(tls.CIPHERS.split(":"))


def test_handshakes_are_read():
    """What openssl s_time says at its end."""
    text = "334 connections in 0.51s; 654.90 connections/user sec, bytes read 50768\n334 connections in 2 real seconds, 152 bytes"
    assert parse(text) == (334, 2.0)
    with pytest.raises(ValueError, match="s_time"):
        parse("Connection refused")
