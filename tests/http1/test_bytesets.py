"""The sets of bytes, against the grammar written out."""

from __future__ import annotations

import pytest

from bgproxy.http1 import bytesets


def left(name: str) -> set[int]:
    """The bytes that a set does not have."""
    return set(bytes(range(256)).translate(None, getattr(bytesets, name)))


def test_a_token_is_what_rfc_9110_says():
    """tchar: letters, digits and fifteen signs; no delimiter, no white space, nothing of eight bits."""
    delimiters = set(b'"(),/:;<=>?@[\\]{} \t')
    assert left("TOKEN") == delimiters | set(range(32)) | {127} | set(range(128, 256))


def test_a_target_has_no_byte_that_could_end_it():
    """Visible ASCII without #: no space, CTL, DEL or 8-bit byte (http.md row 6)."""
    assert left("TARGET") == set(range(0x21)) | {0x23, 127} | set(range(128, 256))


def test_a_header_section_has_no_control_but_tab_and_line_ends():
    """obs-text is in; NUL, the other CTLs and DEL are not (http.md rows 18, 19, 22)."""
    assert left("SECTION") == (set(range(32)) - {9, 10, 13}) | {127}


@pytest.mark.parametrize("byte", b'@/ ,?#\\"<>{}|^`\t\x7f\xe9')
def test_a_host_has_no_byte_of_anything_but_a_host(byte):
    """Neither userinfo nor path, space, comma, or a second value (http.md row 2)."""
    assert byte in left("HOST")


def test_white_space_around_a_value_is_space_and_tab_alone():
    """What `bytes.strip()` takes besides belongs to the value."""
    assert b"\x0b\x0c\x85\xa0 a\t".strip(bytesets.OWS) == b"\x0b\x0c\x85\xa0 a"


def test_no_set_names_a_byte_twice():
    """A byte that stands twice is a slip of the pen in one of its places."""
    for name in ("DIGITS", "HEXDIGITS", "ALPHA", "TOKEN", "TARGET", "SECTION", "HOST", "OWS"):
        members = getattr(bytesets, name)
        assert len(set(members)) == len(members), name
