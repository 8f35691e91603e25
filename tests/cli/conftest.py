"""What the tests of the verbs share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.fake_admin import FakeAdmin


@pytest.fixture
def admin(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeAdmin]:
    """An admin API, to which the environment points."""
    fake = FakeAdmin()
    monkeypatch.setenv("BGPROXY_ADMIN", fake.url)
    monkeypatch.delenv("BGPROXY_TOKEN", raising=False)
    yield fake
    fake.stop()
