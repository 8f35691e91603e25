"""Rules for `deployment:`: what each stage is told to do can be done, and is said in one way only."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from bgproxy.config import jsonpath
from bgproxy.config.addresses import parse_upstream
from bgproxy.config.grammar import PATH_AND_QUERY, TOKEN, path_mistake, token_mistake
from bgproxy.config.schema import CHECK_TIMEOUT, Strategy, Verify
from bgproxy.config.statuses import parse_statuses
from bgproxy.config.units import format_duration, parse_duration, parse_percent
from bgproxy.config.written import Path, Written

#: Of a check; each makes it a check of another kind.
_KINDS: Final = ("request", "run", "webhook", "load")
_HOOKS: Final = ("run", "webhook")

#: What only one type of strategy has.
_OF_A_STRATEGY: Final = {"canary": ("percent", "for"), "linear": ("step", "every")}

#: What a check has only together with `request`.
_OF_A_REQUEST: Final = ("headers", "body", "expect")

#: Methods are case-sensitive (RFC 9110 section 9.1), and all that are registered are written so.
_METHOD: Final = re.compile(r"[A-Z][A-Z-]{0,31}", re.ASCII)

#: RFC 9110 section 9.2.1.
SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})

#: Fields of the framing and of the connection, which whoever sends the request sets.
_TAKEN: Final = frozenset(
    [
        "connection",
        "content-length",
        "expect",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ]
)

#: RFC 9110 section 5.5, without obs-text: what is meant by bytes beyond ASCII, nobody can know.
_FIELD_VALUE: Final = re.compile(r"(?:[!-~](?:[\t -~]*[!-~])?)?", re.ASCII)

_NAME_LENGTH: Final = 100
_URL: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/?#]*)([^#]*)(#.*)?", re.ASCII)


def check_deployments(written: Written) -> None:
    """Report what is wrong with the `deployment:` of each service."""
    services = written.get("services")
    for name in services if isinstance(services, dict) else ():
        path: Path = ("services", name, "deployment")
        _check_hook(written, (*path, "provision"), needed=True)
        _check_verify(written, (*path, "verify"))
        _check_compare(written, (*path, "compare"))
        _check_warm(written, (*path, "warm"))
        _check_strategy(written, path)
        _check_hook(written, (*path, "retire"), needed=False)
        _check_notify(written, (*path, "notify"))


def check_tcp_deployment(written: Written, service: Path) -> None:
    """Report what the deployment of a service in mode tcp cannot have, since there are no requests."""
    path: Path = (*service, "deployment")
    for index, check in enumerate(_list(written.get(*path, "verify", "checks"))):
        for kind in ("request", "load"):
            if isinstance(check, dict) and kind in check:
                written.report(
                    (*path, "verify", "checks", index, kind),
                    "there are no requests in mode tcp: check by a command (run) or a webhook",
                )
    if written.get(*path, "compare") is not None:
        written.report((*path, "compare"), "there are no requests to mirror in mode tcp: remove compare")
    for key in ("paths", "requests"):
        if written.get(*path, "warm", key) is not None:
            written.report(
                (*path, "warm", key), "there are no requests in mode tcp: remove it; the stage opens connections"
            )
    if written.get(*path, "bake", "p99") is not None:
        written.report((*path, "bake", "p99"), "connections last as long as their clients like: remove p99 in mode tcp")
    if written.get(*path, "strategy", "sticky") == "cookie":
        written.report(
            (*path, "strategy", "sticky"),
            "'cookie' needs HTTP: write source, or remove it, since that is what holds here",
        )


# --- commands and webhooks ------------------------------------------------------------------------------------------


def _check_hook(written: Written, path: Path, *, needed: bool) -> None:
    """A command or a webhook: exactly one, or at most one where none is `needed`."""
    hook = written.get(*path)
    if not isinstance(hook, dict):
        return
    _one_of(written, path, hook, _HOOKS, needed=needed)
    _check_run(written, (*path, "run"))
    _check_webhook(written, (*path, "webhook"))


def _one_of(written: Written, path: Path, found: Mapping[str, Any], keys: tuple[str, ...], *, needed: bool) -> bool:
    """Whether there is one of `keys`; reports where there are more, and where there is none if one is `needed`."""
    present = [key for key in keys if key in found]
    if len(present) > 1:
        written.report(path, f"has {' and '.join(present)}: keep one of them")
    elif not present and needed and all(written.text(*path, key) for key, it in found.items() if isinstance(it, str)):
        # An unknown key is one of these, misspelt: that is said already.
        none = f"has neither {' nor '.join(keys)}" if len(keys) == 2 else f"has none of {', '.join(keys)}"
        written.report(path, f"{none}: add one of them")
    return len(present) == 1


def _check_run(written: Written, path: Path) -> None:
    command = written.text(*path)
    if command is not None and not command.strip():
        written.report(path, "is empty: write a command, such as ./contract-tests.sh")


def _check_webhook(written: Written, path: Path) -> None:
    text = written.text(*path)
    if text is not None and (wrong := _url_mistake(text)):
        written.report(path, wrong)


def _url_mistake(text: str) -> str | None:
    """What is wrong with the URL of a webhook. The part behind its host is not shown: it is often a secret."""
    example = "such as https://chat.example/hook"
    match = _URL.fullmatch(text)
    if match is None:
        return f"is not a URL: write http:// or https:// and what to ask there, {example}"
    scheme, authority, rest, fragment = match.groups()
    shown = f"{scheme}://{authority.rpartition('@')[2]}"
    if scheme.lower() not in ("http", "https"):
        return f"{shown}… is not a URL of HTTP: write http:// or https://, {example}"
    try:
        parse_upstream(f"{scheme}://{authority.rpartition('@')[2]}")
    except ValueError as error:
        return str(error)
    if fragment is not None:
        return f"{shown}… has a fragment (#), which is never sent: remove it"
    if not PATH_AND_QUERY.fullmatch(rest if rest.startswith("/") else f"/{rest}"):
        return f"{shown}… has characters that a URL cannot have: write them as %XX, such as %20 for a space"
    return None


# --- verify ---------------------------------------------------------------------------------------------------------


def _check_verify(written: Written, path: Path) -> None:
    names: dict[str, Path] = {}
    limit = _duration(written, (*path, "timeout")) or Verify().timeout
    within = _duration(written, (*path, "within"))
    if within is not None and within > limit:
        written.report(
            (*path, "within"),
            f"is longer than the whole stage may take (timeout: {format_duration(limit)}): raise that, or lower this",
        )
    for index, check in enumerate(_list(written.get(*path, "checks"))):
        if isinstance(check, dict):
            where: Path = (*path, "checks", index)
            _check_name(written, (*where, "name"), names)
            _check_check(written, where, check)
            _check_times(written, where, limit)


def _check_name(written: Written, path: Path, names: dict[str, Path]) -> None:
    name = written.text(*path)
    if not name:
        return  # the schema has said so
    if len(name) > _NAME_LENGTH or not name.isprintable():
        written.report(path, f"is not a name: write one line of at most {_NAME_LENGTH} characters")
        return
    first = names.setdefault(name, path)
    if first != path:
        written.report(
            path, f"{name!r} is the name of another check (line {written.line(*first)}): give each one of its own"
        )


def _check_check(written: Written, path: Path, check: dict[str, Any]) -> None:
    one = _one_of(written, path, check, _KINDS, needed=True)
    if one and "request" not in check:
        for key in _OF_A_REQUEST:
            if key in check:
                written.report((*path, key), "goes with request only: remove it")
    _check_request(written, (*path, "request"))
    _check_headers(written, (*path, "headers"), sent=True)
    _check_expect(written, path)
    _check_run(written, (*path, "run"))
    _check_webhook(written, (*path, "webhook"))
    _check_path(written, (*path, "load", "path"), "/")


def _check_request(written: Written, path: Path) -> None:
    text = written.text(*path)
    if text is None:
        return
    method, space, target = text.strip().partition(" ")
    if not space and method.startswith("/"):
        written.report(path, f"{text!r} has no method: write GET {method}")
    elif not method or not target.strip():
        written.report(path, f"{text!r} is not a method and a path: write GET /cart")
    elif wrong := _method_mistake(method):
        written.report(path, wrong)
    elif not PATH_AND_QUERY.fullmatch(target := target.strip()):
        found = target.split("://", 1)[1].partition("/")[2] if "://" in target else ""
        wrong = path_mistake(target.split("?")[0], "/cart")
        remedy = (
            f"every upstream of the idle pool is asked: write the path alone, /{found}" if "://" in target else wrong
        )
        written.report(path, f"{text!r}: {remedy}")


def _method_mistake(method: str) -> str | None:
    if not _METHOD.fullmatch(method):
        fitting = method.upper() if _METHOD.fullmatch(method.upper()) else "GET"
        return f"{method!r} is not a method: write it in capital letters, such as {fitting}"
    if method == "CONNECT":
        return "'CONNECT' asks for a tunnel, not for an answer: write another method, such as GET"
    return None


def _check_headers(written: Written, path: Path, *, sent: bool) -> None:
    """Names and values of header fields; those that are `sent` are not to be about the connection."""
    headers = written.get(*path)
    seen: dict[str, str] = {}
    for name in headers if isinstance(headers, dict) else ():
        where: Path = (*path, name)
        value = written.text(*where)
        first = seen.setdefault(name.lower(), name)
        if not TOKEN.fullmatch(name):
            written.report(where, token_mistake(name, "header", "Accept"))
        elif sent and name.lower() in _TAKEN:
            written.report(where, "is set by who sends the request: remove it")
        elif first != name:
            written.report(where, f"is {first} again, in other letters: keep one of them")
        elif value is not None and not _FIELD_VALUE.fullmatch(value):
            written.report(where, "has characters that a header cannot have: write ASCII, with no space at either end")


def _check_expect(written: Written, path: Path) -> None:
    where: Path = (*path, "expect")
    status = written.text(*where, "status")
    if status is not None:
        _try(written, (*where, "status"), parse_statuses, status)
    _check_headers(written, (*where, "headers"), sent=False)
    paths = written.get(*where, "json")
    for text in paths if isinstance(paths, dict) else ():
        _try(written, (*where, "json", text), jsonpath.parse, text)
    if (written.text(*path, "request") or "").strip().startswith("HEAD "):
        for key in ("body_contains", "json"):
            if written.get(*where, key) is not None:
                written.report((*where, key), "the answer to HEAD has no body: ask by GET, or remove it")


def _check_times(written: Written, path: Path, limit: float) -> None:
    """What is waited for can come in time: in a check, and in the stage, which may take `limit` seconds."""
    timeout, within = _duration(written, (*path, "timeout")), _duration(written, (*path, "expect", "within"))
    longest = CHECK_TIMEOUT if timeout is None else timeout
    if within is not None and within > longest:
        remedy = "add timeout" if written.get(*path, "timeout") is None else "raise timeout"
        written.report(
            (*path, "expect", "within"),
            f"is longer than the check may take (timeout: {format_duration(longest)}): {remedy}, or lower it",
        )
    for key in (("timeout",), ("load", "for")):
        seconds = _duration(written, (*path, *key))
        if seconds is not None and seconds > limit:
            written.report(
                (*path, *key),
                f"is longer than the whole stage may take (verify.timeout: {format_duration(limit)}): "
                "raise that, or lower this",
            )


# --- the other stages -----------------------------------------------------------------------------------------------


def _check_compare(written: Written, path: Path) -> None:
    if written.text(*path, "mirror") is not None and _share(written, (*path, "mirror")) == 0:
        written.report((*path, "mirror"), "0% mirrors nothing: write a larger share, or remove compare")
    methods = written.get(*path, "methods")
    if isinstance(methods, list) and not methods:
        written.report((*path, "methods"), "is an empty list, so nothing would be mirrored: write [GET, HEAD]")
    for item, method in written.texts(*path, "methods"):
        if wrong := _method_mistake(method):
            written.report(item, wrong)
        elif method not in SAFE_METHODS:
            written.warn(
                item,
                f"{method} changes things: mirrored, it is done by both pools; "
                "see that what green does twice (orders, mails, payments) does no harm",
            )
    for key in (("headers",), ("ignore", "headers")):
        for item, name in written.texts(*path, *key):
            if not TOKEN.fullmatch(name):
                written.report(item, token_mistake(name, "header", "content-type"))
    for item, text in written.texts(*path, "ignore", "json"):
        place = _try(written, item, jsonpath.parse, text)
        if place is not None and not place.steps:
            written.report(item, "'$' is all of the body: name what is to be ignored, such as $.generated_at")


def _check_warm(written: Written, path: Path) -> None:
    paths = written.get(*path, "paths")
    if isinstance(paths, list) and not paths:
        written.report((*path, "paths"), "is an empty list: write recent, or paths such as [/, /cart]")
    for index in range(len(_list(paths))):
        _check_path(written, (*path, "paths", index), "/cart")


def _check_strategy(written: Written, path: Path) -> None:
    _check_type(written, (*path, "strategy"))
    _check_judged(written, path)
    for key in ("percent", "step"):
        share = _share(written, (*path, "strategy", key))
        if share is not None and not share.is_integer() and 1 <= share <= 99:
            whole = f"{int(share)}% or {int(share) + 1}%"
            written.report((*path, "strategy", key), f"{share:g}% is no whole per cent: write {whole}")
    hold = written.text(*path, "hold")
    if hold in ("writes", "all"):
        written.report((*path, "hold"), f"{hold!r} is not there yet: write none, or remove hold")


def _check_judged(written: Written, path: Path) -> None:
    """Steps that nobody judges prove nothing."""
    kind = written.text(*path, "strategy", "type")
    if kind in _OF_A_STRATEGY and "bake" not in (written.get(*path) or {}):
        written.warn(
            (*path, "strategy", "type"),
            "its steps are judged by the rules of the bake, and there is none: add bake: {}, whose limits have defaults",
        )


def _check_type(written: Written, path: Path) -> None:
    """What is said of a canary, or of steps, is meant for one: without its type it would be passed over in silence."""
    strategy, kind = written.get(*path), written.text(*path, "type")
    for other, keys in _OF_A_STRATEGY.items():
        found = [key for key in keys if isinstance(strategy, dict) and key in strategy]
        if found and kind != other and kind in (None, *_OF_A_STRATEGY):
            one = f"{' and '.join(found)} {'is' if len(found) == 1 else 'are'} of a {other} strategy"
            now = f"and this one is {kind}" if kind else f"and without a type this one is {Strategy().type}"
            remedy = f"write type: {other}" if kind is None else "remove it" if len(found) == 1 else "remove them"
            written.warn((*path, found[0]), f"{one}, {now}: {remedy}, or deploy with --strategy {other}")


def _check_notify(written: Written, path: Path) -> None:
    for index in range(len(_list(written.get(*path)))):
        where: Path = (*path, index)
        _check_hook(written, where, needed=True)
        if written.get(*where, "on") == []:
            written.report((*where, "on"), "is an empty list, so nobody would be told: write [switched, failed]")


# --- parts ----------------------------------------------------------------------------------------------------------


def _check_path(written: Written, path: Path, example: str) -> None:
    text = written.text(*path)
    if text is not None and not PATH_AND_QUERY.fullmatch(text):
        written.report(path, path_mistake(text.split("?")[0], example))


def _try(written: Written, path: Path, read: Callable[[str], Any], text: str) -> Any:
    """What `read` makes of a text; reports its ValueError, and then it is None."""
    try:
        return read(text)
    except ValueError as error:
        written.report(path, str(error))
        return None


def _duration(written: Written, path: Path) -> float | None:
    return _quietly(parse_duration, written.text(*path))


def _share(written: Written, path: Path) -> float | None:
    return _quietly(parse_percent, written.text(*path))


def _quietly(read: Callable[[str], float], text: str | None) -> float | None:
    """What `read` makes of a text; None where there is none, or one that the schema has said is wrong."""
    try:
        return None if text is None else read(text)
    except ValueError:
        return None


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
