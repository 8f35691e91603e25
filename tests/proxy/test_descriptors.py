"""What a worker's descriptors are for."""

from __future__ import annotations

import os
import resource

import pytest

from bgproxy.proxy.descriptors import BACKLOG, LEAST_BACKLOG, OWN, allowed, divide, in_use, needed


@pytest.mark.parametrize("clients", [1, 100, 5000, 1_000_000])
@pytest.mark.parametrize("listeners", [1, 3])
def test_with_as_many_as_are_needed_all_is_as_configured(clients, listeners):
    """Every client has its connection and one to an upstream."""
    connections, backlog = divide(needed(clients, listeners), 40, clients, listeners)
    assert connections >= 2 * clients
    assert backlog == BACKLOG


@pytest.mark.parametrize("files", [64, 128, 256, 1024, 4096, 10_000])
@pytest.mark.parametrize("listeners", [0, 1, 3])
def test_with_fewer_nothing_is_promised_twice(files, listeners):
    """Connections, those that wait to be accepted, and what is open already, together are fewer than there are."""
    taken = 20
    connections, backlog = divide(files, taken, 10_000, listeners)
    assert connections >= 2
    assert backlog >= LEAST_BACKLOG
    if files >= 256:
        assert taken + connections + max(listeners, 1) * backlog + min(OWN, files // 8) <= files


def test_it_counts_what_is_there():
    """A descriptor more is one more; the limit is the soft one."""
    before = in_use()
    descriptor = os.open("/dev/null", os.O_RDONLY)
    try:
        assert in_use() == before + 1
    finally:
        os.close(descriptor)
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    assert allowed() == (1 << 30 if soft == resource.RLIM_INFINITY else soft)
