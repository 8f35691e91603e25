"""The life of a worker process: when it begins to serve, what it outlives, and how it ends."""

from __future__ import annotations

import signal
import socket
import time

from support.backends import Backend
from support.dataplane import pool_spec
from support.http import Client
from support.waiting import eventually
from support.worker_process import WorkerProcess

from bgproxy.config import schema
from bgproxy.model.snapshot import ServiceSpec
from bgproxy.switchboard import messages


def shop(*ports: int) -> ServiceSpec:
    return ServiceSpec(
        name="shop",
        slot=0,
        hosts=(),
        path="/",
        pools=(pool_spec("blue", list(ports), 0), pool_spec("green", [], 10)),
        balance="least_requests",
        retries=schema.Retries(),
        sessions=schema.Sessions(),
        preview=schema.Preview(),
        drain=schema.Drain(),
        expose_pool=False,
    )


def test_it_serves_from_its_first_snapshot_on() -> None:
    """A connection that comes before the first snapshot waits in the socket, and is served by it."""
    with Backend() as blue, WorkerProcess() as worker:
        hello = worker.hear(messages.Hello)
        assert hello.pid == worker.process.pid
        with Client(("127.0.0.1", worker.port)) as early:
            early.send_request("GET", "/")
            worker.snapshot(shop(blue.port))
            assert worker.told() == {"serving": True}
            assert early.read_response("GET").status == 200


def test_sigterm_ends_it_when_its_requests_have_ended() -> None:
    """At SIGTERM what is in flight is answered, with Connection: close; idle connections close; the status is 0."""
    with Backend() as blue, WorkerProcess() as worker:
        worker.snapshot(shop(blue.port))
        worker.told()
        with Client(("127.0.0.1", worker.port)) as busy, Client(("127.0.0.1", worker.port)) as idle:
            assert idle.get("/").status == 200
            busy.send_request("GET", "/wait")
            eventually(lambda: blue.counts["/wait"])
            worker.process.send_signal(signal.SIGTERM)
            assert idle.sock.recv(1) == b""
            blue.release()
            answer = busy.read_response("GET")
            assert answer.status == 200
            assert answer.header("Connection") == "close"
        assert worker.end() == (0, "")


def test_at_the_shutdown_deadline_it_ends_anyway() -> None:
    """What is still in flight at `timeouts.shutdown` is cut."""
    with Backend() as blue, WorkerProcess(shutdown=0.2) as worker:
        worker.snapshot(shop(blue.port))
        worker.told()
        with Client(("127.0.0.1", worker.port)) as busy:
            busy.send_request("GET", "/silent")
            eventually(lambda: blue.counts["/silent"])
            before = time.monotonic()
            worker.process.send_signal(signal.SIGTERM)
            assert worker.end()[0] == 0
            assert time.monotonic() - before < 5


def test_without_its_supervisor_it_ends() -> None:
    """The end of the leash is the end of the supervisor: the worker drains and goes, and nobody holds the port."""
    with Backend() as blue, WorkerProcess() as worker:
        worker.snapshot(shop(blue.port))
        worker.told()
        worker.leash.close()
        assert worker.end() == (0, "")


def test_without_its_controller_it_goes_on() -> None:
    """The end of the link changes nothing for users; a new link, handed over the leash, brings new snapshots."""
    with Backend() as blue, Backend() as other, WorkerProcess() as worker:
        worker.snapshot(shop(blue.port))
        worker.told()
        with Client(("127.0.0.1", worker.port)) as client:
            worker.link.close()
            for _ in range(20):
                assert client.get("/").status == 200
            ours, theirs = socket.socketpair()
            socket.send_fds(worker.leash, [b'{"link": true}\n'], [theirs.fileno()])
            theirs.close()
            worker.use(ours)
            worker.hear(messages.Hello)
            worker.snapshot(shop(other.port), number=7)
            assert client.get("/").status == 200
            assert other.total == 1


def test_failures_are_told() -> None:
    """An upstream that refuses live requests is told of, with the reason."""
    with WorkerProcess() as worker, socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        worker.snapshot(shop(taken.getsockname()[1]))
        worker.told()
        with Client(("127.0.0.1", worker.port)) as client:
            assert client.get("/").status == 502
        told = worker.hear(messages.UpstreamFailed)
        assert (told.service, told.pool, told.count) == ("shop", 0, 1)
        assert "refused" in told.reason
