"""A small shop as a process of its own: `python small_shop.py VERSION PORT`. With $DATABASE, an SQLite file, it takes orders.

What an order costs is a column `total` for 1.0, in euros, and `cents` for 3.0; 2.0 stands between them (docs/recipes.md).
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

#: By version: how an order is kept, and what all of them come to in cents.
SQL = {
    "1.0": ("INSERT INTO orders (total) VALUES (:cents / 100.0)", "SUM(ROUND(total * 100))"),
    "2.0": (
        "INSERT INTO orders (total, cents) VALUES (:cents / 100.0, :cents)",
        "SUM(COALESCE(cents, ROUND(total * 100)))",
    ),
    "3.0": ("INSERT INTO orders (cents) VALUES (:cents)", "SUM(cents)"),
}


class Shop(BaseHTTPRequestHandler):
    """GET /health, / and /orders; POST /orders takes an amount in cents."""

    protocol_version = "HTTP/1.1"
    version: str

    def do_GET(self) -> None:
        if self.path == "/orders" or (self.path == "/health" and "DATABASE" in os.environ):
            self.orders()
        else:
            self.answer(200, f"shop {self.version}\n")

    def do_POST(self) -> None:
        amount = int(self.rfile.read(int(self.headers["Content-Length"])))
        self.ask(SQL[self.version][0], {"cents": amount}, lambda _: {"cents": amount})

    def orders(self) -> None:
        self.ask(
            f"SELECT COUNT(*), {SQL[self.version][1]} FROM orders",
            {},
            lambda row: {"currency": "EUR", "orders": row[0], "cents": int(row[1] or 0)},
        )

    def ask(self, statement: str, values: dict[str, int], answer: Any) -> None:
        try:
            with contextlib.closing(database()) as connection, connection:
                row = connection.execute(statement, values).fetchone()
        except sqlite3.Error as error:
            self.answer(500, f"{error}\n")
        else:
            self.answer(200, json.dumps(answer(row)))

    def answer(self, status: int, text: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.send_header("X-Shop-Version", self.version)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        """It is quiet."""


class Server(ThreadingHTTPServer):
    """Many clients at once, none of whom is refused."""

    request_queue_size = 128
    daemon_threads = True


def database() -> sqlite3.Connection:
    """A connection that waits for others."""
    return sqlite3.connect(os.environ["DATABASE"], timeout=10)


if __name__ == "__main__":
    Shop.version, port = sys.argv[1:]
    if Shop.version == "1.0" and "DATABASE" in os.environ:
        with contextlib.closing(database()) as first:
            first.execute("CREATE TABLE IF NOT EXISTS orders (id INTEGER PRIMARY KEY, total REAL)")
    Server(("127.0.0.1", int(port)), Shop).serve_forever()
