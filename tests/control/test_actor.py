"""Who asks, as events say it."""

from __future__ import annotations

from bgproxy.control.actor import Actor


def test_an_actor_stands_in_events_by_name_and_address():
    """Both, and nothing else: a token's text is never there."""
    assert Actor("ci", "10.0.0.7").to_json() == {"name": "ci", "address": "10.0.0.7"}
