"""The shop's page."""

from __future__ import annotations

import re

import pytest

from bgproxy.cli.demo.pages import shop_page


@pytest.mark.parametrize(("colour", "version"), [("blue", "1.0"), ("green", "2.0")])
def test_page_shows_its_version(colour, version):
    """Title, heading and products are filled in, and no place is left open."""
    page = shop_page(colour, version, [{"name": "Yixing", "price": 89.0}])
    assert f"<title>Teapots {version} ({colour})</title>" in page
    assert "<tr><td>Yixing</td><td>89.00</td></tr>" in page
    assert re.findall(r"@\w+@", page) == []


def test_versions_look_different():
    """The two can be told apart at a glance."""
    colours = [
        re.search(r"header { background: (#\w+)", shop_page(name, "1", [])).group(1) for name in ("blue", "green")
    ]
    assert colours[0] != colours[1]
