"""A change whose answer was lost is asked for again, with the key of the first time: so it is made once, and answered."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, Final
from uuid import uuid4

from bgproxy.cli.client import Answer, ApiError, Client
from bgproxy.cli.exits import LostError, UnreachableError

PATIENCE: Final = 60.0  # seconds of tries: a new controller takes a moment
POLL: Final = 0.5  # seconds between two of them


def post_once(
    client: Client,
    path: str,
    body: Mapping[str, Any],
    headers: Mapping[str, str],
    *,
    now: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Answer:
    """POST a change under an `Idempotency-Key`; while its answer is lost, again.

    For changes only that do no harm when a new controller, which has forgotten the answers of the former one, is asked: since the
    key outlives it, as that of a deployment does, or since doing it twice is doing it once, as an approval.

    Raises:
        UnreachableError: Nothing was sent, since nothing listens; or the answer has been lost for `PATIENCE` seconds.
        ApiError: The API said no.
    """
    keyed = {**headers, "Idempotency-Key": uuid4().hex}
    try:
        return client.send("POST", path, body, keyed)
    except LostError:
        print("the answer of the admin API was lost; asking again, under the same key", file=sys.stderr, flush=True)
    deadline = now() + PATIENCE
    while True:
        try:
            return client.send("POST", path, body, keyed)
        except (UnreachableError, ApiError) as error:
            starting = not isinstance(error, ApiError) or error.http_status == 503
            if not starting or now() >= deadline:
                raise
        sleep(POLL)
