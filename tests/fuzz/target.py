"""What atheris calls: `target.py requests|responses|wires [options and folders of libFuzzer]`. Started by `driver.py`.

The source tree is fuzzed, not an installed build: only interpreted code tells which of its branches were taken.
"""

from __future__ import annotations

import sys
from pathlib import Path
from random import Random

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import atheris  # noqa: E402 - the path comes first
from support.odd import spoil  # noqa: E402

with atheris.instrument_imports(include=["bgproxy"]):
    from support.judging import MARK, check_requests_at_any_split, check_response_at_any_split, places_of
    from support.wired import check_wire


def requests(data: bytes) -> None:
    """A client's bytes, whole and cut where the data itself says."""
    cuts, kinds, chance = places_of(data)
    check_requests_at_any_split(data, cuts, kinds, chance.randrange(1000))


def responses(data: bytes) -> None:
    """An upstream's bytes; not such as pretend to be our own mark, which libFuzzer learns from comparisons."""
    if MARK.lower() in data.lower():
        return
    cuts, _, chance = places_of(data)
    method = chance.choice((b"GET", b"GET", b"HEAD", b"POST"))
    minor = chance.choice((1, 1, 0))
    check_response_at_any_split(data, cuts, method, minor, primed=chance.random() < 0.5, order=chance.randrange(1000))


def wires(data: bytes) -> None:
    """The bytes of an idle pool's upstream, to the controller."""
    cuts, _, chance = places_of(data)
    check_wire(data, cuts, chance.choice((b"GET", b"GET", b"HEAD")))


def mutate(data: bytes, most: int, seed: int) -> bytes:
    """Half of the time what libFuzzer thinks of, half of the time lines, numbers and line ends."""
    chance = Random(seed)
    if chance.random() < 0.5:
        return bytes(atheris.Mutate(data, most))
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        data = spoil(data, chance.randrange)
    return data[:most]


if __name__ == "__main__":
    target = {"requests": requests, "responses": responses, "wires": wires}[sys.argv.pop(1)]
    atheris.Setup(sys.argv, target, custom_mutator=mutate)
    atheris.Fuzz()
