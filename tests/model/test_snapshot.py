"""Specs: immutable, equal by value, and fit to be sent to another process."""

from __future__ import annotations

import dataclasses
import pickle

import pytest

from bgproxy.config import schema
from bgproxy.model.snapshot import PoolSpec, ProxySpec, ServiceSpec, UpstreamSpec


def service(**changes):
    upstream = UpstreamSpec("127.0.0.1:9001", 3, "http://127.0.0.1:9001", ("127.0.0.1", 9001), usable=True)
    spec = ServiceSpec(
        name="shop",
        slot=0,
        hosts=(),
        path="/",
        pools=(PoolSpec("blue", "1", (upstream,)), PoolSpec("green", "", ())),
        balance="least_requests",
        retries=schema.Retries(),
        sessions=schema.Sessions(),
        preview=schema.Preview(),
        drain=schema.Drain(),
        expose_pool=False,
    )
    return dataclasses.replace(spec, **changes)


def test_specs_are_compared_by_value():
    """The controller publishes a service only when its spec is another."""
    assert service() == service()
    assert service() is not service()
    assert service() != service(drain=schema.Drain(requests=1.0))
    assert hash(service()) == hash(service())


def test_a_spec_cannot_be_changed():
    """A worker that remembers one may trust that it stays."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        service().path = "/x"
    with pytest.raises(dataclasses.FrozenInstanceError):
        service().pools[0].upstreams[0].usable = False


def test_a_spec_says_nothing_of_who_is_live():
    """That stands in the switchboard alone, so that a switch needs no message."""
    names = {field.name for kind in (ServiceSpec, PoolSpec, UpstreamSpec) for field in dataclasses.fields(kind)}
    assert not {name for name in names if "live" in name or "generation" in name}


def test_specs_go_over_a_link():
    """Pickled and back they are equal."""
    proxy = ProxySpec(schema.Limits(), schema.Timeouts(), ("10.0.0.0/8",), "off", bytes(32))
    assert pickle.loads(pickle.dumps((service(), proxy), protocol=5)) == (service(), proxy)
