"""What outlives a restart, as records, and how it is written: who is live, pools as changed at run time, the history.

The records are frozen: a change makes a new `State`, which is written whole before it becomes the truth. The JSON is for
programs, but laid out so that an operator can read it in an emergency: a line for each service, and for each change.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from typing import Any, Final, TypeVar

from bgproxy.config import schema
from bgproxy.model.deployment import DeploymentRecord, DeploymentState, Result, Step
from bgproxy.model.pool import POOLS

T = TypeVar("T")

#: States set by hand, in the words of `UpstreamState`; an upstream without one is ready.
BY_HAND: Final = ("draining", "maint")


class StateFormatError(ValueError):
    """What was read is not a state; the text says where it is wrong."""


@dataclass(frozen=True, slots=True)
class PoolRecord:
    """One pool: what the file said, and what is in force."""

    digest: str  # of the file's definition that was last seen; see `digest_of`
    version: str
    upstreams: tuple[str, ...]  # URLs
    runtime: bool = False  # version or upstreams were changed at run time since the file was last taken
    by_hand: Mapping[str, str] = field(default_factory=dict)  # upstream id, or URL for all of it -> draining, maint


@dataclass(frozen=True, slots=True)
class ServiceRecord:
    """One service; also kept, for when it comes back, after it has left the file."""

    slot: int | None  # of its word and cells on the switchboard; None while it is not in the file
    live: int  # index of the live pool
    previous: int | None  # of the pool that was live before
    generation: int  # number of its last change
    switched_at: float | None  # seconds since 1970
    pools: tuple[PoolRecord, PoolRecord]


@dataclass(frozen=True, slots=True)
class State:
    """All of it. `upstream_slots` and `addresses` are hints for the next life, kept along with whatever is written."""

    generation: int = 0
    last_event: int = 0  # ids up to here may have been used
    services: Mapping[str, ServiceRecord] = field(default_factory=dict)
    history: tuple[dict[str, Any], ...] = ()
    deployments: Mapping[int, DeploymentRecord] = field(
        default_factory=dict
    )  # by id: those under way, and the latest ended
    last_deployment: int = 0  # id
    upstream_slots: Mapping[str, int] = field(default_factory=dict)  # "service pool id"
    addresses: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # last good ones of a name


def digest_of(pool: schema.Pool) -> str:
    """Stands for a pool's definition in the file: when it differs from the one seen last, the file has changed."""
    text = json.dumps([pool.version, list(pool.upstreams)])
    return sha256(text.encode(errors="surrogateescape")).hexdigest()[:16]


def from_file(pool: schema.Pool, by_hand: Mapping[str, str] | None = None) -> PoolRecord:
    """A pool as the file defines it."""
    return PoolRecord(digest_of(pool), pool.version, pool.upstreams, by_hand=dict(by_hand or {}))


# --- writing --------------------------------------------------------------------------------------------------------


class Texts:
    """Remembers the lines of the records and events that were last written: from one change to the next most stay the same.

    To write a long history and many services anew would take longer than the disk does. A line belongs to the object
    itself, not to an equal one; what was written once must not be changed any more.
    """

    def __init__(self) -> None:
        self._known: dict[int, tuple[object, str]] = {}  # by id(); the object is kept, and so its id stays its own

    def lines(self, state: State) -> tuple[list[str], list[str], list[str]]:
        """Of the services, in the order of the mapping, of the history, and of the deployments. What is not in `state` is forgotten."""
        known: dict[int, tuple[object, str]] = {}
        services = [self._line(known, record, _service_json) for record in state.services.values()]
        history = [self._line(known, event, dict) for event in state.history]
        deployments = [self._line(known, record, _deployment_json) for record in state.deployments.values()]
        self._known = known
        return services, history, deployments

    def _line(self, known: dict[int, tuple[object, str]], item: T, value: Callable[[T], Any]) -> str:
        entry = known[id(item)] = self._known.get(id(item)) or (item, json.dumps(value(item)))
        return entry[1]


def to_json(state: State, texts: Texts | None = None) -> str:
    """The state as text that ends with a line's end; `texts` makes the next one of its kind cheap."""
    records, events, deployments = (texts or Texts()).lines(state)
    services = [f"{json.dumps(name)}: {line}" for name, line in zip(state.services, records, strict=True)]
    addresses = {name: list(found) for name, found in state.addresses.items()}
    members = (
        f'"generation": {state.generation}',
        f'"last_event": {state.last_event}',
        f'"services": {_block("{", services, "}")}',
        f'"history": {_block("[", events, "]")}',
        f'"last_deployment": {state.last_deployment}',
        f'"deployments": {_block("[", deployments, "]")}',
        f'"upstream_slots": {json.dumps(dict(state.upstream_slots))}',
        f'"addresses": {json.dumps(addresses)}',
    )
    return _block("{", members, "}", "") + "\n"


def _block(opening: str, lines: Sequence[str], closing: str, indent: str = " ") -> str:
    """A JSON object or array with a line for each of its members."""
    if not lines:
        return opening + closing
    between = f",\n{indent} "
    return f"{opening}\n{indent} {between.join(lines)}\n{indent}{closing}"


def _service_json(record: ServiceRecord) -> dict[str, Any]:
    return {
        "slot": record.slot,
        "live": POOLS[record.live],
        "previous": None if record.previous is None else POOLS[record.previous],
        "generation": record.generation,
        "switched_at": record.switched_at,
        "pools": {name: asdict(pool) for name, pool in zip(POOLS, record.pools, strict=True)},
    }


def _deployment_json(record: DeploymentRecord) -> dict[str, Any]:
    return {**asdict(record), "state": record.state.value}


def deployment_to_json(record: DeploymentRecord) -> str:
    """One deployment as the state file has it: on one line, its id and its service first."""
    return json.dumps(_deployment_json(record))


# --- reading --------------------------------------------------------------------------------------------------------


def from_json(text: str) -> State:
    """The state of a text; raises `StateFormatError`."""
    try:
        value = json.loads(text)
    except ValueError as error:
        raise StateFormatError(f"it is not JSON ({error})") from None
    except RecursionError:
        raise StateFormatError("it is nested too deeply") from None
    top = _Reader(value, "")
    # A file from before there were deployments has neither.
    deployments = [_deployment(reader) for reader in top.items("deployments")] if "deployments" in top.mapping else []
    return State(
        generation=top.count("generation"),
        last_event=top.count("last_event"),
        services={name: _service(reader) for name, reader in top.members("services")},
        history=tuple(_event(reader) for reader in top.items("history")),
        deployments={record.id: record for record in deployments},
        last_deployment=top.count("last_deployment") if "last_deployment" in top.mapping else 0,
        upstream_slots={name: top.at("upstream_slots").count(name) for name, _ in top.entries("upstream_slots")},
        addresses={name: top.at("addresses").texts(name) for name, _ in top.entries("addresses")},
    )


def deployment_from_json(text: str) -> DeploymentRecord:
    """What `deployment_to_json` has made; raises `StateFormatError`."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise StateFormatError(f"it is not JSON ({error})") from None
    return _deployment(_Reader(value, ""))


def _service(reader: _Reader) -> ServiceRecord:
    pools = reader.at("pools")
    return ServiceRecord(
        slot=None if reader.value("slot") is None else reader.count("slot"),
        live=POOLS.index(reader.choice("live", POOLS)),
        previous=None if reader.value("previous") is None else POOLS.index(reader.choice("previous", POOLS)),
        generation=reader.count("generation"),
        switched_at=None if reader.value("switched_at") is None else reader.number("switched_at"),
        pools=(_pool(pools.at(POOLS[0])), _pool(pools.at(POOLS[1]))),
    )


def _pool(reader: _Reader) -> PoolRecord:
    by_hand = reader.at("by_hand")
    return PoolRecord(
        digest=reader.text("digest"),
        version=reader.text("version"),
        upstreams=reader.texts("upstreams"),
        runtime=reader.flag("runtime"),
        by_hand={name: by_hand.choice(name, BY_HAND) for name, _ in reader.entries("by_hand")},
    )


def _event(reader: _Reader) -> dict[str, Any]:
    reader.count("id")
    reader.text("type")
    return dict(reader.mapping)


def _deployment(reader: _Reader) -> DeploymentRecord:
    return DeploymentRecord(
        id=reader.count("id"),
        service=reader.text("service"),
        target=reader.choice("target", POOLS),
        version=reader.text("version"),
        upstreams=None if reader.value("upstreams") is None else reader.texts("upstreams"),
        strategy=reader.text("strategy"),
        reason=reader.text("reason"),
        actor={name: str(said) for name, said in reader.entries("actor")},
        state=DeploymentState(reader.choice("state", tuple(state.value for state in DeploymentState))),
        steps=tuple(_step(step) for step in reader.items("steps")),
        results=tuple(_result(result) for result in reader.items("results")),
        memory=reader.at("memory").mapping,
    )


def _step(reader: _Reader) -> Step:
    return Step(state=reader.text("state"), at=reader.number("at"), by=reader.text("by"), why=reader.text("why"))


def _result(reader: _Reader) -> Result:
    return Result(
        stage=reader.text("stage"),
        name=reader.text("name"),
        ok=reader.flag("ok"),
        expected=reader.text("expected"),
        found=reader.text("found"),
        seconds=reader.number("seconds"),
        details=reader.texts("details"),
    )


class _Reader:
    """A JSON object, and where it stands in the file, for messages."""

    def __init__(self, value: object, path: str) -> None:
        self._path = path
        if not isinstance(value, dict):
            raise StateFormatError(f"{path or 'the whole'} is not an object")
        self.mapping: dict[str, Any] = value

    def value(self, name: str) -> Any:
        if name not in self.mapping:
            raise StateFormatError(f"{self._where(name)} is missing")
        return self.mapping[name]

    def at(self, name: str) -> _Reader:
        return _Reader(self.value(name), self._where(name))

    def members(self, name: str) -> list[tuple[str, _Reader]]:
        inner = self.at(name)
        return [(key, inner.at(key)) for key in inner.mapping]

    def entries(self, name: str) -> list[tuple[str, Any]]:
        return list(self.at(name).mapping.items())

    def items(self, name: str) -> list[_Reader]:
        return [_Reader(item, f"{self._where(name)}[{index}]") for index, item in enumerate(self._list(name))]

    def texts(self, name: str) -> tuple[str, ...]:
        items = self._list(name)
        if not all(isinstance(item, str) for item in items):
            raise StateFormatError(f"{self._where(name)} is not a list of texts")
        return tuple(items)

    def text(self, name: str) -> str:
        value = self.value(name)
        if not isinstance(value, str):
            raise StateFormatError(f"{self._where(name)} is not a text")
        return value

    def choice(self, name: str, choices: tuple[str, ...]) -> str:
        value = self.value(name)
        if value not in choices:
            raise StateFormatError(f"{self._where(name)} is none of {', '.join(choices)}")
        return str(value)

    def count(self, name: str) -> int:
        value = self.value(name)
        if type(value) is not int or value < 0:
            raise StateFormatError(f"{self._where(name)} is not a whole number of 0 or more")
        return value

    def flag(self, name: str) -> bool:
        value = self.value(name)
        if type(value) is not bool:
            raise StateFormatError(f"{self._where(name)} is neither true nor false")
        return value

    def number(self, name: str) -> float:
        value = self.value(name)
        if type(value) not in (int, float):
            raise StateFormatError(f"{self._where(name)} is not a number")
        return float(value)

    def _list(self, name: str) -> list[Any]:
        value = self.value(name)
        if not isinstance(value, list):
            raise StateFormatError(f"{self._where(name)} is not a list")
        return value

    def _where(self, name: str) -> str:
        return f"{self._path}.{name}" if self._path else name
