"""A file as written: environment, shorthand, and where things stand."""

from __future__ import annotations

import pytest

from bgproxy.config import nodes
from bgproxy.config.schema import ONLY_SERVICE
from bgproxy.config.written import OF_A_COMMAND, Written
from bgproxy.control.deployments.commands import variables


def written(text: str, environment: dict | None = None) -> Written:
    return Written(nodes.parse(text, "f"), "f", environment or {})


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("${A}", "1"),
        ("x${A}y${A}", "x1y1"),
        ("${B:-2}", "2"),
        ("${A:-2}", "1"),
        ("${E:-2}", "2"),
        ("${E}", ""),
        ("${B:-}", ""),
        ("${B:-http://a:1}", "http://a:1"),
        ("$${A}", "${A}"),
        ("$A", "$A"),
        ("$$", "$$"),
    ],
)
def test_the_environment_is_expanded(text, value):
    """`${NAME}` and `${NAME:-default}` (also for an empty one) expand; `$${` is an escape; a lone `$` is a `$`."""
    made = written(f"services: {{}}\na: '{text}'\n", {"A": "1", "E": ""})
    assert made.get("a") == value
    assert made.mistakes == []


@pytest.mark.parametrize("text", ["${B}", "${", "${A", "${}", "${1}", "${A-x}", "${A:x}"])
def test_what_cannot_be_expanded(text):
    """An unset variable without a default, and what is no reference, are mistakes."""
    made = written(f"services: {{}}\na: '{text}'\n", {"A": "1"})
    assert [(mistake.line, mistake.path) for mistake in made.mistakes] == [(2, "a")]


def test_variables_of_commands_are_the_shells():
    """Whatever is in ours would be of another deployment: in a command, and there only, they are a mistake."""
    for name in variables({}):
        assert OF_A_COMMAND.fullmatch(name), name
    environment = {"BGPROXY_VERSION": "1", "BGPROXY_ADMIN": "unix:/a", "A": "2"}
    made = written("services: {}\nrun: x ${BGPROXY_VERSION}\n", environment)
    assert [mistake.path for mistake in made.mistakes] == ["run"]
    for text in ("run: ${A} $${BGPROXY_VERSION} $BGPROXY_VERSION ${BGPROXY_ADMIN}", "version: ${BGPROXY_VERSION}"):
        assert written(f"services: {{}}\n{text}\n", environment).mistakes == []


def test_keys_and_comments_are_not_expanded():
    """Only values are expanded."""
    made = written("services: {}\n'${A}': 1 # ${A}\n", {"A": "x"})
    assert made.tree == {"services": {}, "${A}": "1"}


def test_what_the_environment_holds_is_not_yaml():
    """A value from the environment stays one text, whatever is in it."""
    assert written("services: {}\na: ${A}\n", {"A": "[x, y]: ${A}"}).get("a") == "[x, y]: ${A}"


def test_the_shorthand_is_one_service():
    """With `pools:` at the top the service's keys move below the one service; paths and lines stay the file's."""
    made = written("listen: :80\nhealth: {path: /}\npools: {}\n")
    assert made.tree == {
        "listen": [{"address": ":80"}],
        "services": {ONLY_SERVICE: {"health": {"path": "/"}, "pools": {}}},
    }
    made.report(("services", ONLY_SERVICE, "health", "path"), "wrong")
    assert str(made.mistakes[0]) == "f:2: health.path: wrong"


def test_a_path_that_is_not_there_has_its_parents_line():
    """A key that is missing stands where it would have to be added."""
    made = written("services:\n  a:\n    pools: {}\n")
    assert made.line("services", "a", "health", "path") == 2
    assert made.line("nowhere") == 1


def test_one_mistake_a_place():
    """After a mistake at a path, another there or below is not reported; one beside it is."""
    made = written("services: {a: {b: [x, y]}}\n")
    made.report(("services", "a", "b"), "first")
    made.report(("services", "a", "b"), "second")
    made.report(("services", "a", "b", 1), "third")
    made.report(("services", "a"), "fourth")
    assert [mistake.message for mistake in made.mistakes] == ["first", "fourth"]
    assert made.texts("services", "a", "b") == []


def test_a_warning_is_kept_apart_from_the_mistakes():
    """It has its line and path, and says what it is; where a mistake is known it would only confuse."""
    made = written("services: {}\na: {b: x}\n")
    made.warn(("a", "b"), "unwise")
    assert [str(warning) for warning in made.warnings] == ["f:2: a.b: warning: unwise"]
    assert made.mistakes == []
    made.report(("a",), "wrong")
    made.warn(("a", "b"), "again")
    assert len(made.warnings) == 1
