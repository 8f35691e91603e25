"""Where a listener sends its requests: what may be written, and what it means."""

from __future__ import annotations

import re

import pytest

from bgproxy.config.redirects import RedirectText


@pytest.mark.parametrize(
    ("text", "port"), [("off", None), ("https", 443), ("https:1", 1), ("https:8443", 8443), ("https:65535", 65535)]
)
def test_what_is_written_is_read_and_written_again(text, port):
    """A port, 443 where none is said; the editors' schema takes it too."""
    marker = RedirectText()
    assert marker.parse(text) == port
    assert marker.format(port) == text
    assert any(each.get("const") == text or re.search(each.get("pattern", "$^"), text) for each in marker.json_types)


@pytest.mark.parametrize(
    "text", ["", "on", "http", "https:", "https:0", "https:65536", "https:\uff18", "https://x", "8443"]
)
def test_another_text_is_refused_with_what_is_allowed(text):
    """It names itself, and what could be written instead."""
    with pytest.raises(ValueError, match="write off or https") as refused:
        RedirectText().parse(text)
    assert repr(text) in str(refused.value)
