"""YAML text to a tree of nodes that know their lines.

Built from the parser's events rather than its objects, so that every scalar stays the text that was written (see
`bgproxy.config.units`), both places of a duplicate key are known, and nesting and aliases are bounded.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Final

import yaml

from bgproxy.errors import ConfigError, Mistake

#: Far beyond what the schema nests.
MAX_DEPTH: Final = 32

#: Values of one file, aliases counted as often as they are used: more than 4096 services can need.
MAX_NODES: Final = 500_000

#: YAML 1.2 core schema: what a plain scalar looks like when it says "nothing".
_NULLS: Final = frozenset({"", "~", "null", "Null", "NULL"})

_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(slots=True)
class Scalar:
    """A leaf, as text."""

    line: int
    text: str
    plain: bool

    @property
    def is_null(self) -> bool:
        """Whether nothing was written."""
        return self.plain and self.text in _NULLS


@dataclass(slots=True)
class Sequence:
    """A list."""

    line: int
    items: list[Node] = field(default_factory=list)


@dataclass(slots=True)
class Entry:
    """A key of a mapping, the line that it stands on, and its value."""

    line: int
    value: Node


@dataclass(slots=True)
class Mapping:
    """A mapping; of a duplicate key the first entry is kept, and the others are a mistake."""

    line: int
    entries: dict[str, Entry] = field(default_factory=dict)
    duplicates: list[tuple[str, int, int]] = field(default_factory=list)  # key, line, line of the first


Node = Scalar | Sequence | Mapping


def parse(text: str, name: str) -> Node | None:
    """The root of `text`, or None where it has no content.

    Args:
        text: one YAML document.
        name: of the file, for mistakes.

    Raises:
        ConfigError: the text is not YAML, or not of the part of YAML that a configuration needs. One mistake: what
            comes after a syntax error means nothing.
    """
    try:
        return _Builder(name).build(yaml.parse(text, Loader=_LOADER))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark is not None else 1
        raise _refuse(name, line, _syntax(error, text, line)) from None
    except UnicodeEncodeError as error:
        line = text.count("\n", 0, error.start) + 1
        raise _refuse(name, line, "this is not UTF-8: save the text as UTF-8") from None
    except yaml.YAMLError as error:
        position = getattr(error, "position", 0)
        character = text[position : position + 1]
        line = text.count("\n", 0, position) + 1
        message = f"the character {character!r} may not stand in YAML: remove it, or write it as an escape in quotes"
        raise _refuse(name, line, message) from None


class _Builder:
    """Nodes out of events, without recursion: the stack is a list, so depth is ours to bound."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._anchors: dict[str, Node] = {}
        self._open: list[tuple[Sequence | Mapping, str | None, Scalar | None]] = []  # node, its anchor, pending key
        self._root: Node | None = None
        self._documents = 0
        self._merges: list[tuple[Mapping, Mapping]] = []  # of mappings that are still open, innermost last
        self._merged = 0

    def build(self, events: Any) -> Node | None:
        for event in events:
            line = event.start_mark.line + 1
            match event:
                case yaml.DocumentStartEvent():
                    self._documents += 1
                    if self._documents > 1:
                        raise _refuse(
                            self._name, line, "a second document begins here: a file is one; remove the '---'"
                        )
                case yaml.AliasEvent():
                    if event.anchor not in self._anchors:
                        raise _refuse(self._name, line, f"*{event.anchor} has no &{event.anchor} that ends before it")
                    self._add(self._anchors[event.anchor], line)
                case yaml.ScalarEvent():
                    self._check_tag(event, line)
                    scalar = Scalar(line, event.value, event.style in (None, ""))
                    self._remember(event.anchor, scalar)
                    self._add(scalar, line)
                case yaml.SequenceStartEvent() | yaml.MappingStartEvent():
                    self._check_tag(event, line)
                    if len(self._open) >= MAX_DEPTH:
                        raise _refuse(
                            self._name, line, f"this nests deeper than {MAX_DEPTH} levels, which nothing here needs"
                        )
                    node = Sequence(line) if isinstance(event, yaml.SequenceStartEvent) else Mapping(line)
                    self._open.append((node, event.anchor, None))
                case yaml.SequenceEndEvent() | yaml.MappingEndEvent():
                    node, anchor, _ = self._open.pop()
                    self._merge(node, line)
                    self._remember(anchor, node)
                    self._add(node, node.line)
        if self._documents and isinstance(self._root, Scalar) and self._root.is_null:
            return None
        return self._root

    def _check_tag(self, event: Any, line: int) -> None:
        if event.tag not in (None, "!"):
            raise _refuse(self._name, line, f"the tag {event.tag!r} has no meaning here: remove it")

    def _remember(self, anchor: str | None, node: Node) -> None:
        if anchor is not None:
            self._anchors[anchor] = node

    def _add(self, node: Node, line: int) -> None:
        if not self._open:
            self._root = node
            return
        parent, anchor, key = self._open[-1]
        if isinstance(parent, Sequence):
            parent.items.append(node)
        elif key is None:
            if not isinstance(node, Scalar):
                raise _refuse(self._name, line, "a key must be a single word: quote it if it begins with [, { or *")
            self._open[-1] = (parent, anchor, node)
        else:
            self._open[-1] = (parent, anchor, None)
            self._put(parent, key, node)

    def _put(self, parent: Mapping, key: Scalar, value: Node) -> None:
        """Add an entry to a mapping; `<<` adds those of other mappings that it has not itself, wherever it stands."""
        if key.plain and key.text == "<<":
            for source in value.items if isinstance(value, Sequence) else [value]:
                if not isinstance(source, Mapping):
                    raise _refuse(
                        self._name, key.line, "<< takes a mapping: write <<: *name, with &name at a mapping above"
                    )
                self._merges.append((parent, source))
        elif key.text in parent.entries:
            parent.duplicates.append((key.text, key.line, parent.entries[key.text].line))
        else:
            parent.entries[key.text] = Entry(key.line, value)

    def _merge(self, node: Node, line: int) -> None:
        """Fill in what `<<` brought, once the mapping's own entries are known; innermost mappings come first."""
        pending = []
        while self._merges and self._merges[-1][0] is node:
            pending.append(self._merges.pop())
        for parent, source in reversed(pending):
            self._merged += len(source.entries)
            if self._merged > MAX_NODES:
                raise _refuse(
                    self._name, line, f"aliases make this file more than {MAX_NODES} values: use fewer of them"
                )
            for key, entry in source.entries.items():
                parent.entries.setdefault(key, entry)


def _refuse(name: str, line: int, message: str) -> ConfigError:
    return ConfigError([Mistake(name, line, "", message)])


def _syntax(error: yaml.MarkedYAMLError, text: str, line: int) -> str:
    """A syntax error in words that an operator can act on."""
    lines = text.splitlines()
    here = lines[line - 1] if line <= len(lines) else ""
    problem = (error.problem or "").strip()
    if "\t" in here[: len(here) - len(here.lstrip())] or "'\\t'" in problem:
        return "a tab is used as indentation, which YAML forbids: indent with spaces"
    if "mapping values are not allowed" in problem:
        return "a ':' stands where no key can be: check the indentation, or quote a value that has ': ' in it"
    if re.search(r"could not find expected ':'", problem):
        return "a key without its ':' (or a value that goes on over lines): write key: value"
    if "block end" in problem or "did not find expected key" in problem:
        return "the indentation does not fit the lines above: keys of one mapping begin in the same column"
    if "cannot start any token" in problem and error.problem_mark is not None:
        character = here[error.problem_mark.column : error.problem_mark.column + 1]
        return f"a value may not begin with {character!r}: put the value in quotes"
    begun = f", begun on line {error.context_mark.line + 1}" if error.context_mark is not None else ""
    context = f" {error.context}{begun}" if error.context else ""
    return f"this is not YAML: {problem or 'syntax error'}{context}; check quotes, brackets and indentation"
