"""Field names: what is to be done with a line, looked up by the name as it was spelt.

A name is validated, lower-cased and matched once; after that the spelling itself is the key. The memory is bounded, so
a client that invents names gains nothing by it.
"""

from __future__ import annotations

from typing import Final

from bgproxy.http1.bytesets import TOKEN

# What to do with a line. The numbers are compared on the hot path, hence no enum.
PLAIN: Final = 0  # forwarded untouched, never looked into
DROP: Final = 1  # hop-by-hop, or an alias that some back ends would take for another field
HOST: Final = 2
CONTENT_LENGTH: Final = 3
TRANSFER_ENCODING: Final = 4
CONNECTION: Final = 5
UPGRADE: Final = 6
EXPECT: Final = 7
COOKIE: Final = 8
FORWARDED: Final = 9  # X-Forwarded-*, Forwarded, X-Real-IP, X-BGProxy-Mirror: believed from trusted peers only
REQUEST_ID: Final = 10
DATE: Final = 11
EXTRA: Final = 12  # named by a service: its preview header
MAX_FORWARDS: Final = 13
REPEATING: Final = 14  # as PLAIN, and its lines are worth remembering
VIA: Final = 15
OURS: Final = 16  # X-BGProxy-*: what we say, or are told; what clients say of it goes no further

OURS_PREFIX: Final = b"x-bgproxy-"

_KINDS: Final = {
    b"host": HOST,
    b"content-length": CONTENT_LENGTH,
    b"transfer-encoding": TRANSFER_ENCODING,
    b"connection": CONNECTION,
    b"upgrade": UPGRADE,
    b"expect": EXPECT,
    b"cookie": COOKIE,
    b"x-forwarded-for": FORWARDED,
    b"x-forwarded-proto": FORWARDED,
    b"x-forwarded-host": FORWARDED,
    b"x-forwarded-port": FORWARDED,
    b"forwarded": FORWARDED,
    b"x-real-ip": FORWARDED,
    b"x-bgproxy-mirror": FORWARDED,  # of a bgproxy before us that repeats a request
    b"x-request-id": REQUEST_ID,
    b"date": DATE,
    b"max-forwards": MAX_FORWARDS,
    b"via": VIA,
    b"keep-alive": DROP,
    b"proxy-connection": DROP,
    b"te": DROP,
    b"accept": REPEATING,
    b"accept-charset": REPEATING,
    b"accept-encoding": REPEATING,
    b"accept-language": REPEATING,
    b"cache-control": REPEATING,
    b"dnt": REPEATING,
    b"pragma": REPEATING,
    b"priority": REPEATING,
    b"sec-ch-ua": REPEATING,
    b"sec-ch-ua-mobile": REPEATING,
    b"sec-ch-ua-platform": REPEATING,
    b"sec-fetch-dest": REPEATING,
    b"sec-fetch-mode": REPEATING,
    b"sec-fetch-site": REPEATING,
    b"sec-fetch-user": REPEATING,
    b"upgrade-insecure-requests": REPEATING,
    b"user-agent": REPEATING,
    b"http2-settings": DROP,  # only h2c, which is never negotiated (RFC 9113 section 3.1 retired it)
}

#: What `Connection` cannot nominate away (http.md row 39; CVE-2024-45410): the framing, and what back ends decide by.
PROTECTED: Final = frozenset(
    {
        b"host",
        b"content-length",
        b"transfer-encoding",
        b"content-type",
        b"content-encoding",
        b"cookie",
        b"set-cookie",
        b"authorization",
        b"cache-control",
        b"via",
        b"date",
        b"expect",
        b"max-forwards",
        b"x-forwarded-for",
        b"x-forwarded-proto",
        b"x-forwarded-host",
        b"x-forwarded-port",
        b"forwarded",
        b"x-real-ip",
        b"x-request-id",
        b"x-bgproxy-mirror",
    }
)

#: Names that must not arrive in a trailer section (RFC 9110 section 6.5.1); they are dropped there.
NOT_IN_TRAILERS: Final = frozenset(
    {
        *PROTECTED,
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"upgrade",
        b"content-range",
        b"range",
        b"www-authenticate",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"location",
        b"set-cookie2",
        b"if-match",
        b"if-none-match",
        b"if-modified-since",
        b"if-unmodified-since",
        b"if-range",
        b"age",
        b"expires",
        b"pragma",
        b"vary",
        b"retry-after",
        b"transfer-encoding",
        b"client-cert",
        b"client-cert-chain",
    }
)

_MEMORY: Final = 1024
_LONGEST_LINE: Final = 256


class NameTable:
    """The memory of names for one direction of one worker.

    `extra` are lower-case names that services ask for (preview headers), `pseudonym` is what `Via` calls us; lines
    with one of the lower-case names in `removed` go no further.
    """

    def __init__(
        self,
        extra: frozenset[bytes] = frozenset(),
        pseudonym: bytes = b"",
        removed: frozenset[bytes] = frozenset(),
    ) -> None:
        self.extra = extra
        self.removed = removed
        self.pseudonym = pseudonym  # in lower case
        self.known: dict[bytes, int] = {}
        self.hosts: dict[bytes, bytes] = {}  # Host values that were judged -> their host names
        #: Whole lines that were judged, of fields that tell what a client is and not who: many clients send the same.
        self.lines: set[bytes] = set()

    def learn(self, name: bytes) -> int:
        """The kind of a name that is not in `known` yet; -1 if it is no field name at all."""
        if not name or name.translate(None, TOKEN):
            return -1
        lower = name.lower()
        kind = _KINDS.get(lower, PLAIN)
        if kind in (PLAIN, REPEATING):
            if lower in self.removed:
                kind = DROP
            elif lower in self.extra:
                kind = EXTRA
            elif lower.startswith(OURS_PREFIX):
                kind = OURS
            elif b"_" in lower:
                # CGI-like back ends cannot tell X_Forwarded_For from X-Forwarded-For: an alias of what matters here
                # is never forwarded; all others are the application's own.
                dashed = lower.replace(b"_", b"-")
                meant = dashed in self.extra or dashed in self.removed
                if meant or dashed in PROTECTED or _KINDS.get(dashed, REPEATING) != REPEATING:
                    kind = DROP
                elif dashed.startswith(OURS_PREFIX):
                    kind = OURS
        if len(self.known) < _MEMORY and len(name) <= 64:
            self.known[name] = kind
        return kind

    def learn_line(self, line: bytes) -> None:
        """Remember a line that was judged; a full memory is begun anew, so that no client can spoil it for long."""
        if len(line) <= _LONGEST_LINE:
            if len(self.lines) >= _MEMORY:
                self.lines.clear()
            self.lines.add(line)

    def learn_host(self, value: bytes, hostname: bytes) -> None:
        """Remember what a valid Host value came to; bounded as the names are."""
        if len(self.hosts) < _MEMORY and len(value) <= 255:
            self.hosts[value] = hostname
