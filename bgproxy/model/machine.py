"""State machines as tables: states in an enum, transitions in one mapping, illegal ones raise and change nothing."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Generic, TypeVar

S = TypeVar("S", bound=Enum)
E = TypeVar("E", bound=Enum)


class IllegalTransition(Exception):  # noqa: N818 - says what it was
    """An event came in a state that has no transition for it: a bug of ours, never of a peer."""


class Table(Generic[S, E]):
    """The transitions of one kind of machine: `(state, event) -> state`.

    docs/states.md is drawn from these tables (`python -m bgproxy.model.diagrams`).
    """

    def __init__(self, name: str, initial: S, transitions: Mapping[tuple[S, E], S]) -> None:
        self.name = name
        self.initial = initial
        self.transitions = dict(transitions)

    def next(self, state: S, event: E) -> S:
        """The state after `event`; raises `IllegalTransition` where the table has none."""
        try:
            return self.transitions[state, event]
        except KeyError:
            raise IllegalTransition(f"{self.name}: {event.name} in state {state.name}") from None

    def allows(self, state: S, event: E) -> bool:
        """Whether the table has a transition for `event` in `state`."""
        return (state, event) in self.transitions
