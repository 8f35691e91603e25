"""Loading a configuration: read, checked whole, and either a `Config` or every mistake of it at once.

This module needs PyYAML and pydantic; long-lived processes use `bgproxy.config.source`, which runs it in a process of
its own.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, is_dataclass, replace
from pathlib import Path
from typing import Any, Final

from pydantic import ConfigDict, TypeAdapter, ValidationError

from bgproxy.config import nodes, schema
from bgproxy.config.checks import check
from bgproxy.config.messages import explain
from bgproxy.config.schema import AdminTls, Certificate, Config, Deployment, ListenTls, Pool, Pools
from bgproxy.config.written import Written, key_of
from bgproxy.errors import ConfigError, Mistake

#: Above what `MAX_SERVICES` services with every key written out come to.
MAX_BYTES: Final = 4 * 1024 * 1024

for _class in vars(schema).values():
    if isinstance(_class, type) and is_dataclass(_class):
        _class.__pydantic_config__ = ConfigDict(extra="forbid", alias_generator=key_of)  # type: ignore[attr-defined]

ADAPTER: Final = TypeAdapter(Config)


def load_file(
    path: str, environment: Mapping[str, str] = os.environ, *, warnings: list[Mistake] | None = None
) -> Config:
    """The configuration in the file at `path`; relative paths in it are relative to its directory.

    What is allowed but unwise is added to `warnings`.

    Raises:
        ConfigError: with every mistake, in the order of their lines.
    """
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - /dev/stdin and the like too
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise _refuse(path, 0, "the file does not exist: check the path") from None
    except IsADirectoryError:
        raise _refuse(path, 0, "this is a directory: name the file in it") from None
    except OSError as error:
        raise _refuse(path, 0, f"the file cannot be read ({error.strerror}): check its permissions") from None
    if len(data) > MAX_BYTES:
        raise _refuse(path, 0, f"the file is larger than {MAX_BYTES // 1024**2} MiB: is it the right one?")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        wrong = f"byte 0x{data[error.start]:02x} is not UTF-8: save the file as UTF-8"
        raise _refuse(path, line, wrong) from None
    return _load(text, path, Path(path).absolute().parent, environment, warnings)


def load_text(
    text: str, name: str, environment: Mapping[str, str] = os.environ, *, warnings: list[Mistake] | None = None
) -> Config:
    """The configuration in `text`; `name` stands for the file in mistakes, relative paths are the working directory's.

    What is allowed but unwise is added to `warnings`.

    Raises:
        ConfigError: with every mistake, in the order of their lines.
    """
    if len(text.encode(errors="replace")) > MAX_BYTES:
        raise _refuse(name, 0, f"the text is larger than {MAX_BYTES // 1024**2} MiB: is it the right one?")
    return _load(text, name, Path.cwd(), environment, warnings)


def default_state_dir(environment: Mapping[str, str] = os.environ) -> str:
    """Where the state is kept when the file does not say: root's place, else the XDG one of this user."""
    if os.geteuid() == 0:
        return "/var/lib/bgproxy"
    base = environment.get("XDG_STATE_HOME", "")
    # A relative XDG path is to be ignored (XDG Base Directory Specification).
    root = Path(base) if base.startswith("/") else Path("~/.local/state").expanduser()
    return str(root / "bgproxy")


def _load(text: str, name: str, folder: Path, environment: Mapping[str, str], warnings: list[Mistake] | None) -> Config:
    root = nodes.parse(text, name)
    if root is None:
        raise _refuse(name, 1, "the file is empty: write at least pools: with blue: and green: below it")
    if not isinstance(root, nodes.Mapping):
        found = "a list" if isinstance(root, nodes.Sequence) else "one value"
        raise _refuse(
            name, root.line, f"the file holds {found}: write key: value lines, such as listen: 127.0.0.1:8080"
        )
    written = Written(root, name, environment)
    config = None
    try:
        config = ADAPTER.validate_python(written.tree)
    except ValidationError as error:
        for details in error.errors(include_url=False):
            written.report(*explain(details, shorthand=written.shorthand))
    check(written, folder, environment)
    if warnings is not None:
        warnings += sorted(written.warnings, key=_place)
    if config is None or written.mistakes:
        raise ConfigError(sorted(written.mistakes, key=_place))
    return _settle(config, folder, environment)


def _place(mistake: Mistake) -> tuple[int, str]:
    return mistake.line, mistake.path


def _settle(config: Config, folder: Path, environment: Mapping[str, str]) -> Config:
    """Fill in what depends on this machine; make paths absolute and hosts lower-case."""

    def absolute(path: str) -> str:
        return os.path.normpath(folder / path)

    tokens = tuple(
        replace(token, token_file=absolute(token.token_file)) if token.token_file is not None else token
        for token in config.admin.tokens
    )
    tls = AdminTls(**{part: absolute(file) if file else "" for part, file in asdict(config.admin.tls).items()})
    only = next(iter(config.services)) if len(config.services) == 1 else None
    listen = tuple(
        replace(
            listen,
            tls=_absolute_tls(listen.tls, absolute),
            service=(listen.service or only) if listen.mode == "tcp" else None,
        )
        for listen in config.listen
    )
    tcp = {it.service for it in listen if it.mode == "tcp"}
    services = {
        name: replace(
            service,
            deployment=_by_source(service.deployment) if name in tcp else service.deployment,
            match=replace(service.match, hosts=tuple(host.lower() for host in service.match.hosts)),
            pools=Pools(
                blue=_absolute_pool(service.pools.blue, absolute), green=_absolute_pool(service.pools.green, absolute)
            ),
        )
        for name, service in config.services.items()
    }
    return replace(
        config,
        listen=listen,
        services=services,
        state_dir=absolute(config.state_dir) if config.state_dir else default_state_dir(environment),
        access_log=config.access_log if config.access_log in ("off", "stdout") else absolute(config.access_log),
        admin=replace(config.admin, tokens=tokens, tls=tls),
    )


def _by_source(deployment: Deployment) -> Deployment:
    """Without requests there are no cookies to know a client by."""
    return replace(deployment, strategy=replace(deployment.strategy, sticky="source"))


def _absolute_tls(tls: ListenTls | None, absolute: Callable[[str], str]) -> ListenTls | None:
    if tls is None:
        return None
    pairs = tuple(Certificate(cert=absolute(pair.cert), key=absolute(pair.key)) for pair in tls.certificates)
    client_ca = None if tls.client_ca is None else absolute(tls.client_ca)
    return replace(tls, certificates=pairs, client_ca=client_ca)


def _absolute_pool(pool: Pool, absolute: Callable[[str], str]) -> Pool:
    ca, cert, key = (absolute(file) if file else "" for file in (pool.tls.ca, pool.tls.cert, pool.tls.key))
    return replace(pool, tls=replace(pool.tls, ca=ca, cert=cert, key=key))


def _refuse(name: str, line: int, message: str) -> ConfigError:
    return ConfigError([Mistake(name, line, "", message)])


def json_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of a configuration file, for editors."""
    from bgproxy.config.editors import editor_schema  # noqa: PLC0415 - only `bgproxy schema` needs it

    return editor_schema(ADAPTER.json_schema())
