"""A configuration as it was written: plain values for the checks, and a line for every path of them.

Values are text, lists, mappings and None only; what a text means is decided by its field. Environment variables are
expanded here, and the one-service shorthand becomes its long form, while paths and lines stay those of the file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping as AbstractMapping
from dataclasses import fields
from typing import Any, Final

from bgproxy.config import nodes
from bgproxy.config.schema import ONLY_SERVICE, Config, Service
from bgproxy.errors import ConfigError, Mistake

Path = tuple[str | int, ...]


def key_of(field: str) -> str:
    """How a field of the schema is written: `for_` is ``for``, a word that Python keeps for itself."""
    return field.rstrip("_")


TOP_KEYS: Final = frozenset(key_of(field.name) for field in fields(Config))
SERVICE_KEYS: Final = frozenset(key_of(field.name) for field in fields(Service))

#: What commands of a deployment find in their environment; in ours it would be another deployment's.
OF_A_COMMAND: Final = re.compile(
    "BGPROXY_(?:SERVICE|DEPLOYMENT|STATE|TARGET|OLD|LIVE|VERSION|UPSTREAMS|STRATEGY|REASON|EVENT|PREVIEW_[A-Z]+)"
)

_REFERENCE: Final = re.compile(r"\$(\$\{)|\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}|(\$\{[^}]*\}?)")


class Written:
    """One file: `tree`, where its parts stand, and the mistakes and warnings found so far."""

    def __init__(self, root: nodes.Mapping, name: str, environment: AbstractMapping[str, str]) -> None:
        self.name = name
        self.mistakes: list[Mistake] = []
        self.warnings: list[Mistake] = []
        self.shorthand = False
        self._root = root
        self._environment = environment
        self._count = 0
        self._spoilt: set[Path] = set()
        self.tree: dict[str, Any] = self._mapping(root, ())
        self._lengthen()

    def report(self, path: Path, message: str) -> None:
        """Keep a mistake, unless one is known at `path` or above it: what follows from it would only confuse."""
        if self._is_spoilt(path):
            return
        self._spoilt.add(self._in_file(path))
        line, shown = self._locate(path)
        self.mistakes.append(Mistake(self.name, line, shown, message))

    def warn(self, path: Path, message: str) -> None:
        """Keep what is allowed but unwise, unless a mistake is known at `path` or above it."""
        if not self._is_spoilt(path):
            line, shown = self._locate(path)
            self.warnings.append(Mistake(self.name, line, shown, f"warning: {message}"))

    def get(self, *path: str | int) -> Any:
        """What stands at `path`, or None where nothing does."""
        value: Any = self.tree
        for part in path:
            if isinstance(part, int):
                value = value[part] if isinstance(value, list) and part < len(value) else None
            else:
                value = value.get(part) if isinstance(value, dict) else None
        return value

    def text(self, *path: str | int) -> str | None:
        """The text at `path`; None where there is none or a mistake is known already."""
        value = self.get(*path)
        return value if isinstance(value, str) and not self._is_spoilt(path) else None

    def texts(self, *path: str | int) -> list[tuple[Path, str]]:
        """The texts of the list at `path`, each with its own path."""
        items = self.get(*path)
        if not isinstance(items, list):
            return []
        found = [((*path, index), self.text(*path, index)) for index in range(len(items))]
        return [(item, text) for item, text in found if text is not None]

    def line(self, *path: str | int) -> int:
        """The line of `path`, or of the nearest thing above it that is in the file."""
        return self._locate(path)[0]

    # --- where things stand ------------------------------------------------------------------------------------------

    def _in_file(self, path: Path) -> Path:
        """`path` as the file has it, where the shorthand was used."""
        return path[2:] if self.shorthand and path[:2] == ("services", ONLY_SERVICE) else path

    def _is_spoilt(self, path: Path) -> bool:
        """Whether a mistake at `path` or above it is known."""
        path = self._in_file(path)
        return any(path[:length] in self._spoilt for length in range(1, len(path) + 1))

    def _locate(self, path: Path) -> tuple[int, str]:
        """The line of `path` and how it is shown, in terms of the file."""
        node: nodes.Node | None = self._root
        line, shown = self._root.line, ""
        for part in self._in_file(path):
            if isinstance(part, int):
                if isinstance(node, nodes.Scalar | nodes.Mapping):
                    continue  # one text, or one mapping, where a list may stand
                shown += f"[{part}]"
                inside = isinstance(node, nodes.Sequence) and part < len(node.items)
                node = node.items[part] if isinstance(node, nodes.Sequence) and inside else None
                line = node.line if node is not None else line
            elif isinstance(node, nodes.Scalar):
                break  # one text where a mapping may stand
            else:
                shown += f".{part}" if shown else part
                entry = node.entries.get(part) if isinstance(node, nodes.Mapping) else None
                node = entry.value if entry is not None else None
                line = entry.line if entry is not None else line
        return line, shown

    # --- nodes to values ---------------------------------------------------------------------------------------------

    def _value(self, node: nodes.Node, path: Path) -> Any:
        self._count += 1
        if self._count > nodes.MAX_NODES or len(path) > nodes.MAX_DEPTH:
            limit = f"{nodes.MAX_NODES} values or {nodes.MAX_DEPTH} levels"
            raise ConfigError(
                [Mistake(self.name, node.line, "", f"aliases make this file more than {limit}: use fewer")]
            )
        if isinstance(node, nodes.Mapping):
            return self._mapping(node, path)
        if isinstance(node, nodes.Sequence):
            return [self._value(item, (*path, index)) for index, item in enumerate(node.items)]
        if node.is_null:
            self.report(path, "has no value: give it one, or remove the key to have the default")
            return None
        return self._expand(node.text, path) if "${" in node.text else node.text

    def _mapping(self, node: nodes.Mapping, path: Path) -> dict[str, Any]:
        for key, line, first in node.duplicates:
            shown = self._locate((*path, key))[1]
            message = f"is given twice, here and on line {first}: keep one of them"
            self.mistakes.append(Mistake(self.name, line, shown, message))
        return {key: self._value(entry.value, (*path, key)) for key, entry in node.entries.items()}

    def _expand(self, text: str, path: Path) -> str:
        """`text` with its environment variables; `$${` stands for `${`."""

        def replace(match: re.Match[str]) -> str:
            escaped, variable, default, malformed = match.groups()
            if escaped:
                return str(escaped)
            if malformed:
                self.report(
                    path, f"{malformed!r} is not a reference: write ${{NAME}}, ${{NAME:-default}}, or $${{ for ${{"
                )
                return str(match[0])
            value = self._environment.get(variable)
            command = path[-1:] == ("run",)
            if command and OF_A_COMMAND.fullmatch(variable):
                self.report(path, f"{match[0]} is expanded when the file is read: write ${variable} for the shell")
                return str(match[0])
            if default is not None:
                return value or str(default)
            if value is None:
                shell = f", or ${variable} if the shell is to expand it" if command else ""
                self.report(
                    path, f"the environment has no {variable}: set it, or write ${{{variable}:-default}}{shell}"
                )
                return str(match[0])
            return value

        return _REFERENCE.sub(replace, text)

    # --- the shorthand -----------------------------------------------------------------------------------------------

    def _lengthen(self) -> None:
        """Make `pools:` at the top the one service that it stands for, one address the list of one, and a mode its mapping."""
        admin = self.get("admin")
        if isinstance(admin, dict) and isinstance(admin.get("listen"), str):
            admin["listen"] = [admin["listen"]]
        if isinstance(self.get("listen"), str | dict):
            self.tree["listen"] = [self.tree["listen"]]
        if isinstance(self.get("listen"), list):
            self.tree["listen"] = [{"address": it} if isinstance(it, str) else it for it in self.tree["listen"]]
        self._place_services()
        services = self.get("services")
        for name in services if isinstance(services, dict) else ():
            if isinstance(mode := self.get("services", name, "deployment", "approve"), str):
                services[name]["deployment"]["approve"] = {"mode": mode}

    def _place_services(self) -> None:
        at_top = [key for key in self.tree if key in SERVICE_KEYS]
        if "services" not in self.tree:
            if not at_top:
                remedy = "write pools: with blue: and green: below it, or services: with a name for each"
                self.mistakes.append(Mistake(self.name, self._root.line, "", f"there is no service: {remedy}"))
            else:
                self.shorthand = True
                self.tree["services"] = {ONLY_SERVICE: {key: self.tree.pop(key) for key in at_top}}
            return
        for key in at_top:
            line = self.line("services")
            if key == "pools":
                message = f"stands beside services (line {line}): move pools into a service, or remove services"
            else:
                message = f"belongs to a service: move it below one of services (line {line})"
            self.report((key,), message)
            del self.tree[key]
