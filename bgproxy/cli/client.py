"""The admin API as the verbs call it: one request a connection, over TCP or a Unix socket, and errors in clear words."""

from __future__ import annotations

import http.client
import json
import os
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote, urlencode, urlsplit

from bgproxy import __version__
from bgproxy.cli.exits import FAILED, REFUSED, USAGE, CliError, LostError, UnreachableError, UsageError
from bgproxy.cli.words import printable

DEFAULT_ADMIN: Final = "http://127.0.0.1:8900"
CONNECT_TIMEOUT: Final = 5.0
ANSWER_TIMEOUT: Final = 30.0  # seconds; a change waits for workers (2 s) and a disk, and for nothing else
_WAY_ON: Final = "Is bgproxy running? Another address is given with --admin URL or BGPROXY_ADMIN"
_PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Address:
    """Where the admin API listens: a host and a port, with TLS or without, or the path of a Unix socket."""

    host: str = ""
    port: int = 0
    path: str = ""
    tls: bool = False

    @classmethod
    def parse(cls, text: str) -> Address:
        """From `http[s]://HOST:PORT`, `HOST:PORT`, `unix:/PATH` or `unix:///PATH`; raises `UsageError`."""
        if text.startswith("unix:"):
            path = text.removeprefix("unix:")
            path = path.removeprefix("//")
            if not path.startswith("/"):
                raise UsageError(f"admin address {printable(text)!r}: a Unix socket is given as unix:/PATH")
            return cls(path=path)
        url = text if "://" in text else f"http://{text}"
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port or _PORTS.get(parts.scheme, 0)
        except ValueError:
            host, port, parts = None, 0, urlsplit("")
        if (
            not port
            or not host
            or parts.path not in {"", "/"}
            or parts.query
            or parts.username
            or parts.scheme not in _PORTS
        ):
            raise UsageError(f"admin address {printable(text)!r}: must be http[s]://HOST:PORT or unix:/PATH")
        return cls(host=host, port=port, tls=parts.scheme == "https")

    def __str__(self) -> str:
        """As it would be typed."""
        if self.path:
            return f"unix:{self.path}"
        scheme = "https" if self.tls else "http"
        return f"{scheme}://[{self.host}]:{self.port}" if ":" in self.host else f"{scheme}://{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Answer:
    """A good answer: its text as it came, and what it says."""

    text: str
    data: Any


class ApiError(CliError):
    """The admin API said no; the text is its problem+json in words."""

    def __init__(self, status: int, text: str, problem: Mapping[str, Any]) -> None:
        self.http_status = status
        self.text = text  # the body as it came
        self.slug = str(problem.get("type", "")).rpartition(":")[2]
        self.detail = printable(problem.get("detail") or problem.get("title") or f"HTTP status {status}")
        details = problem.get("details")
        told = [printable(line) for line in details] if isinstance(details, list) else []
        self.details = [line for line in told if line != self.detail]
        self.remedy = _REMEDIES.get(self.slug, "")
        self.status = REFUSED if status in {401, 403, 409, 412} else USAGE if status in {400, 404, 422} else FAILED
        super().__init__(self.detail)

    def __str__(self) -> str:
        """The problem, a line a detail, and the way on."""
        lines = [self.detail, *(f"  {line}" for line in self.details)]
        return "\n".join(lines + ([self.remedy] if self.remedy else []))


_REMEDIES: Final = {
    "unauthorized": "the admin API wants a token: set BGPROXY_TOKEN",
    "forbidden": "a token of another role may: set BGPROXY_TOKEN to one",
    "busy": "try again when that change has ended; `bgproxy status` shows it",
    "stale": "look at what has changed since (`bgproxy status`, `bgproxy history`), and decide anew",
    "not-healthy": "`bgproxy status` shows the checks; --force does it all the same",
    "unavailable": "`bgproxy status` shows the workers",
}


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        try:
            self.sock.connect(self._path)
        except OSError:
            self.close()
            raise


class Client:
    """Calls the admin API at one address."""

    def __init__(self, address: Address, token: str | None = None, tls: ssl.SSLContext | None = None) -> None:
        self.address = address
        self._tls = tls
        self._headers = {"User-Agent": f"bgproxy/{__version__}", "Accept": "application/json"}
        if token:
            if not token.isascii() or not token.isprintable():
                raise UsageError("BGPROXY_TOKEN: a token has visible ASCII characters only")
            self._headers["Authorization"] = f"Bearer {token}"

    @classmethod
    def of(cls, admin: str | None, cacert: str | None = None) -> Client:
        """From `--admin`, `--cacert` and the environment; raises `UsageError`."""
        address = Address.parse(admin or os.environ.get("BGPROXY_ADMIN") or DEFAULT_ADMIN)
        tls = _tls(cacert or os.environ.get("BGPROXY_CACERT")) if address.tls else None
        return cls(address, os.environ.get("BGPROXY_TOKEN", "").strip() or None, tls)

    def get(self, path: str, **query: str | int | None) -> Answer:
        """GET; query parameters that are None are left out."""
        said = {name: value for name, value in query.items() if value is not None}
        return self.send("GET", f"{path}?{urlencode(said)}" if said else path)

    def send(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        timeout: float = ANSWER_TIMEOUT,
    ) -> Answer:
        """One call; `timeout` is in seconds, for the answer.

        Raises:
            UnreachableError: Nothing answers there, or something that is not bgproxy; `LostError`, if the call was sent.
            ApiError: The API said no; `status` is the exit status for it.
        """
        connection, response = self.open(method, path, body, headers, timeout=timeout)
        try:
            text = response.read().decode()
        except (OSError, http.client.HTTPException, UnicodeDecodeError) as error:
            raise self._lost(error, method) from None
        finally:
            connection.close()
        return Answer(text, self._json(response, text))

    def open(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        timeout: float = ANSWER_TIMEOUT,
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        """One call up to the head of a good answer; whoever calls closes the connection. Raises as `send` does."""
        address = self.address
        connection: http.client.HTTPConnection
        if address.path:
            connection = _UnixConnection(address.path, CONNECT_TIMEOUT)
        elif address.tls:
            connection = http.client.HTTPSConnection(
                address.host, address.port, timeout=CONNECT_TIMEOUT, context=self._tls
            )
        else:
            connection = http.client.HTTPConnection(address.host, address.port, timeout=CONNECT_TIMEOUT)
        try:
            connection.connect()
        except OSError as error:
            connection.close()
            reason = _why(error)
            raise UnreachableError(f"the admin API at {address} cannot be reached: {reason}. {_WAY_ON}") from None
        try:
            connection.sock.settimeout(timeout)
            said = {**self._headers, "Connection": "close", **(headers or {})}
            if body is not None:
                said["Content-Type"] = "application/json"
            connection.request(method, path, None if body is None else json.dumps(body).encode(), said)
            response = connection.getresponse()
            refusal = self._refusal(response)
        except (OSError, http.client.HTTPException, UnicodeDecodeError) as error:
            connection.close()
            raise self._lost(error, method) from None
        except BaseException:
            connection.close()
            raise
        if refusal is not None:
            connection.close()
            raise refusal
        return connection, response

    def _refusal(self, response: http.client.HTTPResponse) -> ApiError | None:
        if response.status < 300:
            return None
        text = response.read().decode()
        problem = self._json(response, text)
        return ApiError(response.status, text, problem if isinstance(problem, dict) else {})

    def _json(self, response: http.client.HTTPResponse, text: str) -> Any:
        if "json" in response.headers.get_content_type():
            try:
                return json.loads(text)
            except ValueError:
                pass
        raise UnreachableError(
            f"{self.address} answers, but not as bgproxy's admin API "
            f"(status {response.status}, {printable(response.headers.get_content_type())}). {_WAY_ON}",
        )

    def _lost(self, error: Exception, method: str) -> LostError:
        reason = "took too long to answer" if isinstance(error, TimeoutError) else "broke off or is not bgproxy's"
        doubt = "" if method == "GET" else " Whether the change was made, `bgproxy status` tells."
        return LostError(f"the admin API at {self.address} {reason} ({printable(error)}).{doubt} {_WAY_ON}")


def _tls(cacert: str | None) -> ssl.SSLContext:
    """What an https:// address is spoken to with; `cacert` stands for the system's authorities. Raises `UsageError`."""
    try:
        context = ssl.create_default_context(cafile=cacert or None)
    except OSError as error:
        reason = "no certificate in PEM" if isinstance(error, ssl.SSLError) else error.strerror
        raise UsageError(f"--cacert (BGPROXY_CACERT) {printable(cacert)}: {reason}") from None
    cert = os.environ.get("BGPROXY_CERT")
    if cert:
        try:
            context.load_cert_chain(cert, os.environ.get("BGPROXY_KEY") or None, password=lambda: "")
        except OSError as error:
            reason = "no certificate with its key in PEM" if isinstance(error, ssl.SSLError) else error.strerror
            raise UsageError(f"BGPROXY_CERT, BGPROXY_KEY: {printable(cert)}: {reason}") from None
    return context


def _why(error: OSError) -> str:
    """Why no connection was made."""
    match error:
        case TimeoutError():
            return "no answer"
        case ssl.SSLCertVerificationError():
            return f"its certificate is not trusted ({error.verify_message}); --cacert FILE names who is"
        case ssl.SSLError():
            return f"no TLS there, or not with us ({(error.reason or str(error)).lower().replace('_', ' ')})"
    return error.strerror or str(error)


def service_path(service: str, *parts: str) -> str:
    """The path of a service, or of something below it, each part quoted."""
    return "/".join(["/v1/services", *(quote(part, safe="") for part in (service, *parts))])


def sole_service(client: Client, named: str | None) -> str:
    """The service that was named, or the only one there is.

    Raises:
        UsageError: None was named, and there are several (or none at all).
    """
    if named is not None:
        return named
    names = [str(service["service"]) for service in client.get("/v1/status").data["services"]]
    if len(names) == 1:
        return names[0]
    if not names:
        raise UsageError("there is no service")
    raise UsageError(f"there are {len(names)} services, name the one that is meant: {', '.join(sorted(names))}")
