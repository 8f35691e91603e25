"""The exceptions that every floor may use: their texts, and what they carry."""

from __future__ import annotations

import pickle

import pytest

from bgproxy import errors
from bgproxy.errors import BgproxyError, Busy, ConfigError, Mistake, NotHealthy, Refused, Stale


def test_a_mistake_reads_as_compilers_write_it():
    """file:line: path: message, so that editors can jump there; what is not known is left out."""
    assert str(Mistake("a.yaml", 3, "listen", "is taken")) == "a.yaml:3: listen: is taken"
    assert str(Mistake("a.yaml", 0, "", "cannot be read")) == "a.yaml: cannot be read"
    assert str(Mistake("a.yaml", 7, "", "there is no service")) == "a.yaml:7: there is no service"


def test_a_configuration_error_tells_every_mistake():
    """Its text has a line for each."""
    error = ConfigError([Mistake("a.yaml", 1, "x", "one"), Mistake("a.yaml", 2, "y", "two")])
    assert str(error).splitlines() == ["a.yaml:1: x: one", "a.yaml:2: y: two"]
    assert len(error.mistakes) == 2


@pytest.mark.parametrize("kind", [Refused, NotHealthy, Busy, Stale])
def test_a_refusal_has_details(kind):
    """Further lines for the reader; none where there is nothing more to say."""
    assert kind("no", ["because"]).details == ["because"]
    assert kind("no").details == []
    assert isinstance(kind("no"), Refused)


def test_all_of_them_are_ours():
    """One `except BgproxyError` catches whatever is fit to be shown."""
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    assert len(kinds) > 8
    assert all(issubclass(kind, BgproxyError) for kind in kinds)


def test_mistakes_can_be_sent_between_processes():
    """The process that checks a configuration is not the one that shows its mistakes."""
    mistake = Mistake("a.yaml", 3, "listen", "is taken")
    assert pickle.loads(pickle.dumps(mistake)) == mistake
