"""Which build this is."""

from __future__ import annotations

from importlib.machinery import ModuleSpec

import pytest

from bgproxy.model import build


@pytest.mark.parametrize(
    ("origin", "kind"),
    [
        ("/x/request.py", "interpreted"),
        ("/x/request.cpython-311-x86_64-linux-gnu.so", "compiled"),
        (None, "interpreted"),
    ],
)
def test_told_by_where_the_module_comes_from(monkeypatch, origin, kind):
    """An extension module is a compiled build."""
    monkeypatch.setattr(build, "find_spec", lambda name: ModuleSpec(name, None, origin=origin))
    assert build.build_kind() == kind
