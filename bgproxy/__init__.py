"""bgproxy: a reverse proxy that moves all traffic between two pools of upstreams in one instant.

The floors of the package, top to bottom; imports go downwards only (docs/architecture.md has the reasons):

    cli/          verbs, one file each; speak to the admin API only (``run`` and ``demo`` apart)
    process/      supervisor, sockets, signals: the one place that joins the two planes
    admin/        the HTTP API, metrics, events
    control/      the control plane: who is live, health, drains, discovery, the store
    proxy/        the data plane: accept, parse, route, forward
    switchboard/  the memory and the messages that the two planes share
    http1/        bytes to heads and framing and back, without I/O
    model/        pure: services, pools, upstreams, snapshots and the state tables
    config/       the schema, loading, messages about mistakes
    logs, errors  what every floor may use
"""

__version__ = "0.1.0"
