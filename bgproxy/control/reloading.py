"""A new configuration: whole, or not at all."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any, Final

from bgproxy.config.schema import Config
from bgproxy.config.source import load_async
from bgproxy.control.actor import Actor
from bgproxy.control.events import Draft, EventLog
from bgproxy.control.ledger import Ledger
from bgproxy.control.links import Links
from bgproxy.control.merging import merge, with_slots
from bgproxy.control.publishing import Publisher
from bgproxy.control.registry import Registry, Service
from bgproxy.control.services import Services
from bgproxy.control.state import State
from bgproxy.control.tasks import Tasks
from bgproxy.errors import BgproxyError, Busy, Refused, Unavailable

log = logging.getLogger("bgproxy.controller")

#: What the supervisor made at the start: sockets, processes, the place of the state.
AT_START: Final = ("listen", "workers", "admin", "state_dir")


class Reloader:
    """Reads the configuration anew and puts it in force."""

    def __init__(
        self,
        *,
        config: Config,
        source: str | None,
        text: str | None,
        registry: Registry,
        services: Services,
        links: Links,
        publisher: Publisher,
        ledger: Ledger,
        events: EventLog,
        tasks: Tasks,
        on_config: Callable[[Config], None],
    ) -> None:
        self.config = config  # in force
        self._source = source
        self._text = text
        self._registry = registry
        self._services = services
        self._links = links
        self._publisher = publisher
        self._ledger = ledger
        self._events = events
        self._tasks = tasks
        self._on_config = on_config
        self._running = False

    async def reload(self, *, actor: Actor) -> dict[str, Any]:
        """Read the file again; what was added, removed and changed, by the names of services.

        Raises:
            ConfigError: the file has mistakes.
            Refused, Busy: it changes what only a restart can change, or a service is being changed just now.
            Unavailable, StateError: a worker or the disk did not do its part. Whatever is raised, nothing was changed.
        """
        if self._running:
            raise Busy("Another reload is under way; nothing was changed.")
        self._running = True
        try:
            config = await load_async(self._source, self._text)
            self._check(config)
            return await asyncio.shield(self._tasks.start(self._apply(config, actor), "reload"))
        except BgproxyError as error:
            first = str(error).splitlines()[0]
            message = f"The configuration was not reloaded: {first}"
            self._events.emit(Draft(type="reload_refused", message=message, actor=actor))
            raise
        finally:
            self._running = False

    def _check(self, config: Config) -> None:
        changed = [key for key in AT_START if getattr(config, key) != getattr(self.config, key)]
        if changed:
            raise Refused(
                f"{' and '.join(changed)} cannot be changed by a reload; restart bgproxy for that. Nothing was changed.",
                [
                    f"{key}: {getattr(self.config, key)!r} is in force, the file has {getattr(config, key)!r}"
                    for key in changed
                ],
            )

    async def _apply(self, config: Config, actor: Actor) -> dict[str, Any]:
        claimed = list(self._registry.services.values())
        self._registry.claim(claimed, "a reload")
        new = {name: settings for name, settings in config.services.items() if name not in self._registry.services}
        slots: dict[str, int] = {}
        try:
            for name in new:
                slots[name] = self._registry.service_slots.take()
            self._publisher.publish()
            await self._links.acknowledged()
            outcome = await self._ledger.change(
                lambda state: self._next(state, config, slots, actor), lambda state: self._put(state, config)
            )
        except BaseException:
            for slot in slots.values():
                self._registry.service_slots.give_back(slot)
            raise
        finally:
            self._registry.release(claimed)
        try:
            await self._links.acknowledged()
        except Unavailable as error:
            log.warning("the new configuration is in force, but not every worker has it yet: %s", error)
        return outcome

    def _touched(self, config: Config) -> list[str]:
        return [
            name
            for name, settings in config.services.items()
            if name in self._registry.services and self._registry.services[name].settings != settings
        ]

    def _next(self, state: State, config: Config, slots: dict[str, int], actor: Actor) -> tuple[State, Sequence[Draft]]:
        state, drafts = merge(config, state, self._touched(config))
        told = self._outcome(config)
        parts = [f"{len(names)} {word}" for word, names in told.items() if names]
        draft = Draft(
            type="reloaded",
            message=f"The configuration was reloaded: {', '.join(parts) or 'no service is different'}.",
            actor=actor,
            data=told,
        )
        return with_slots(state, slots), [draft, *drafts]

    def _outcome(self, config: Config) -> dict[str, list[str]]:
        before = self._registry.services
        return {
            "added": [name for name in config.services if name not in before],
            "removed": [name for name in before if name not in config.services],
            "changed": self._touched(config),
        }

    def _put(self, state: State, config: Config) -> dict[str, Any]:
        """The disk has it: put it in force. Nothing here waits."""
        outcome: dict[str, Any] = self._outcome(config)
        gone: list[Service] = [self._registry.services[name] for name in outcome["removed"]]
        for service in gone:
            self._services.remove(service)
        for name, settings in config.services.items():
            service_or_none = self._registry.services.get(name)
            if service_or_none is None:
                self._services.add(name, settings, state.services[name])
            else:
                self._services.renew(service_or_none, settings, state.services[name])
        self._registry.generation = state.generation
        self.config = config
        self._on_config(config)
        self._publisher.touch(*config.services, *outcome["removed"])
        self._publisher.publish()
        return {"generation": state.generation, **outcome}
