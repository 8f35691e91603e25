"""What a child process is handed at its birth, and what the supervisor may say to it later.

Over the *leash* (a socket pair between the supervisor and one child) goes one line of JSON a message, some with a file
descriptor beside it (SCM_RIGHTS). A child whose leash ends has lost its supervisor, and shuts down as at SIGTERM.

    supervisor → worker       {"link": true}                + the worker's end of a new link
    supervisor → controller   {"link": worker, "pid": pid}  + the controller's end of a new link to that worker
                              {"lost": worker}                that worker has died
                              {"children": {...}}             pids and restart counts, after each change (below)
    worker → supervisor       {"serving": true}               accepts connections
    controller → supervisor   {"serving": true}               the admin API answers, state is restored
                              {"refused": "…"}                cannot start; the text is for the operator, exit 2
                              {"config": "…"}                 a reload is in force: the `Config`, pickled, in base64;
                                                              the next controller starts with it

`children` is `{"controller": {"pid": 7, "restarts": 0}, "workers": [{"index": 0, "pid": 8, "restarts": 0}, …]}`; a pid
is null while the process is down. A `link` may come for a worker whose loss was not told: it replaces the former link.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass, field

from bgproxy.config.schema import Config, Listen
from bgproxy.switchboard.board import Switchboard


@dataclass(slots=True)
class WorkerBirth:
    """What a worker starts with."""

    index: int
    board: Switchboard
    listeners: list[socket.socket]  # bound and listening; its own by SO_REUSEPORT, Unix sockets shared
    leash: socket.socket
    link: socket.socket  # to the controller
    workers: int  # how many there are: it takes its share of `limits.connections`
    listens: list[Listen] = field(default_factory=list)  # what each of `listeners` is for; empty: plain HTTP on all


@dataclass(slots=True)
class ControllerBirth:
    """What the controller starts with."""

    board: Switchboard
    config: Config
    config_source: str | None  # the file, for `reload`; None if it came from flags
    config_text: str | None  # the text made from flags, where there is no file
    listeners: list[socket.socket]  # of the admin API
    leash: socket.socket
    links: dict[int, socket.socket]  # worker index -> this end
    children: dict[str, object] = field(default_factory=dict)  # as in the message above
