"""The verb `rollback`."""

from __future__ import annotations

from support.fake_admin import pool, problem, service

from bgproxy.cli.main import main


def test_rolls_back_and_follows(admin, capsys):
    """One call; announced as a switch is, and the pool that was left is followed until it is empty."""

    def rollback():
        admin.services["shop"] = service(live="blue", green=pool("standby"))
        return 200, {
            "service": "shop",
            "live": "blue",
            "previous": "green",
            "generation": 9,
            "switched_in_ms": 1.0,
            "drained": None,
        }

    admin.script["POST", "/v1/services/shop/rollback"] = rollback
    assert main(["rollback", "--reason", "errors"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "shop: green -> blue, live now (generation 9, 1.0 ms)",
        "shop: green is drained",
    ]


def test_nothing_to_go_back_to(admin, capsys):
    """Refused as things stand: exit 4."""
    admin.script["POST", "/v1/services/shop/rollback"] = lambda: problem(409, "refused", "nothing was live before blue")
    assert main(["rollback", "shop"]) == 4
    assert capsys.readouterr().err == "bgproxy: nothing was live before blue\n"


def test_one_at_a_time(admin, capsys):
    """Two services are wrong usage, with the way that there is."""
    assert main(["rollback", "shop", "api"]) == 2
    assert "`switch SERVICE=POOL SERVICE=POOL` moves several" in capsys.readouterr().err
