"""What must hold for any bytes that a client or an upstream sends: asked of the whole data plane, without sockets.

The judge of a client's bytes is h11: it reads them as another proxy or server would. Of every request that comes out at
the upstream it must have read the same, in the same place. Hypothesis and atheris both ask these questions
(tests/fuzz/).
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass, field
from random import Random

import h11
from support.loopless import MOST, PEER, Answer, Plane, Wire
from support.strict import Fields, IncompleteError, Message, ends_of_chunks, read_response

from bgproxy.http1.names import NOT_IN_TRAILERS, PROTECTED

#: Says which request an answer is for; nothing that is made up here has it.
MARK = b"X-Answer-To"
HOP = {
    *(b"connection", b"keep-alive", b"proxy-connection", b"te", b"transfer-encoding", b"upgrade", b"http2-settings"),
}
FORWARDING = {
    *(b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"x-forwarded-port", b"forwarded", b"x-real-ip"),
    b"x-request-id",
}
SECRET = {b"cookie", b"authorization", b"proxy-authorization"}
#: What we add behind a request's own fields, in this order.
OURS = [
    *(b"transfer-encoding", b"host", b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host"),
    *(b"x-forwarded-port", b"via", b"connection", b"upgrade", b"x-request-id"),
]
#: What h11 says of fields in a trailer section that belong in no trailer section.
FRAMING = re.compile("(?i)content-length|transfer-encoding")
#: What may stand in Upgrade (RFC 9110 section 7.8): a protocol, and not HTTP/2.
PROTOCOL = re.compile(rb"(?i)[ \t]*(?!h2c)[^][\s:;,/\"()<>=?@{}\\]+(/[^][\s:;,/\"()<>=?@{}\\]+)?[ \t]*")
DATE = b"Date: Mon, 23 Nov 2026 00:00:00 GMT\r\n"
#: Kinds of answers: see `answer_of`.
KINDS = 8


@dataclass
class Read:
    """A message as h11 reads it."""

    start: tuple[bytes, ...]  # method and target; or the status
    minor: int
    fields: Fields
    body: bytes = b""
    trailers: Fields | None = None  # None: it is not complete
    vague: bool = False  # h11 refuses its trailers for a field of framing among them, which we drop

    def options(self) -> list[bytes]:
        """Of Connection."""
        values = b",".join(value for name, value in self.fields if name.lower() == b"connection")
        return [option.strip(b" \t") for option in values.lower().split(b",")]


_PLANES: list[Plane] = []


def plane() -> Plane:
    """The one that all runs use; each leaves it as it was, or another one is made."""
    if not _PLANES or _PLANES[-1].under_way:
        _PLANES[:] = [Plane()]
    return _PLANES[-1]


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """The data in pieces."""
    marks = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[marks[at] : marks[at + 1]] for at in range(len(marks) - 1)]


def places_of(data: bytes) -> tuple[list[int], list[int], Random]:
    """Cuts and kinds of answers that follow from the data alone, for a fuzzer that makes nothing but data."""
    chance = Random(zlib.crc32(data))
    cuts = [chance.randrange(len(data) + 1) for _ in range(chance.choice((1, 1, 2, 3, 8, 40)))]
    return cuts, [chance.randrange(KINDS) for _ in range(4)], chance


# --- requests -----------------------------------------------------------------------------------------------------------


def read_by_h11(data: bytes) -> tuple[list[Read], bytes]:
    """The complete requests of a connection's bytes, and what is behind the last of them."""
    found: list[Read] = []
    while True:
        if data.startswith(b"\r\n"):
            data = data[4:] if data.startswith(b"\r\n\r\n") else data[2:]
        server = h11.Connection(h11.SERVER, max_incomplete_event_size=MOST)
        server.receive_data(data)
        request = None
        try:
            request = server.next_event()
            if not isinstance(request, h11.Request):
                return found, data
            read = Read((request.method, request.target), int(request.http_version[-1:]), request.headers.raw_items())
            if _is_chunked(read) and ends_of_chunks(server.trailing_data[0]) < 0:
                return found, data  # it ends nowhere, or h11 takes what no chunk is
            while isinstance(event := server.next_event(), h11.Data):
                read.body += bytes(event.data)
        except h11.RemoteProtocolError as error:
            if not isinstance(request, h11.Request) or not FRAMING.search(str(error)):
                return found, data
            read.trailers, read.vague = [], True
        else:
            if not isinstance(event, h11.EndOfMessage):
                return found, data
            read.trailers = event.headers.raw_items()
        found.append(read)
        data = server.trailing_data[0]


def _is_chunked(read: Read) -> bool:
    return any(name.lower() == b"transfer-encoding" for name, _ in read.fields)


def without_hops(fields: Fields, options: list[bytes]) -> Fields:
    """What is forwarded of a head's fields (docs/http.md): all but what is for one connection, and aliases."""
    nominated = {option for option in options if option not in (b"close", b"keep-alive", b"upgrade")} - PROTECTED
    kept = []
    for name, value in fields:
        lower = name.lower()
        alias = b"_" in lower and lower.replace(b"_", b"-") in PROTECTED | HOP
        if lower not in HOP and lower not in nominated and not alias:
            kept.append((name, value))
    return kept


def expected_request(read: Read) -> tuple[tuple[bytes, bytes], Fields]:
    """Method, target and fields as they go on, without what we add."""
    method, target = read.start
    fields = [(name, value) for name, value in read.fields if name.lower() not in FORWARDING]
    fields = without_hops(fields, read.options())
    absolute = re.fullmatch(rb"(?i)https?://([^/?]*)(/?)(.*)", target)
    if absolute:
        authority, slash, rest = absolute.groups()
        target = b"*" if method == b"OPTIONS" and not slash and not rest else b"/" + rest
        hosts = [index for index, (name, _) in enumerate(fields) if name.lower() == b"host"]
        for index in hosts:
            fields[index] = (b"Host", authority)
        if not hosts:
            fields.insert(0, (b"Host", authority))
    return (method, target), fields


def trailers_that_pass(trailers: Fields) -> Fields:
    """Those that may stand in a trailer section."""
    return [
        (name, value)
        for name, value in trailers
        if name.lower() not in NOT_IN_TRAILERS and name.lower().replace(b"_", b"-") not in NOT_IN_TRAILERS
    ]


def same_request(read: Read, seen: Message) -> None:
    """What came out at the upstream is what h11 read of the client's bytes."""
    start, fields = expected_request(read)
    assert seen.start == start
    # RFC 9110 section 9.3.8: what TRACE echoes should be nobody's secret; 7.6.2: and it is counted down, as OPTIONS is.
    secret = SECRET if start[0] == b"TRACE" else set()
    counted = {b"max-forwards"} if start[0] in (b"TRACE", b"OPTIONS") else set()
    fields = [(name, value) for name, value in fields if name.lower() not in secret]
    passed = [(name, value) for name, value in seen.fields if name.lower() not in secret]
    own, added = passed[: len(fields)], passed[len(fields) :]
    for (name, value), (expected_name, expected) in zip(own, fields, strict=True):
        assert name == expected_name
        assert value == (b"%d" % (int(expected) - 1) if name.lower() in counted else expected), (name, value, expected)
    names = [name.lower() for name, _ in added]
    assert names == [name for name in OURS if name in names], names
    ours = dict(zip(names, [value for _, value in added], strict=True))
    assert ours[b"x-forwarded-for"] == PEER.encode()
    assert re.fullmatch(rb"1\.%d bgproxy(-[0-9a-f]{8})?" % read.minor, ours[b"via"])
    assert ours[b"x-request-id"].startswith(b"00000000")
    assert (b"host" in ours) == (not any(name.lower() == b"host" for name, _ in fields))
    assert (b"transfer-encoding" in ours) == any(name.lower() == b"transfer-encoding" for name, _ in read.fields)
    if b"connection" in ours:
        assert ours[b"connection"] == b"Upgrade"
        assert all(map(PROTOCOL.fullmatch, ours[b"upgrade"].split(b","))), ours[b"upgrade"]
    assert seen.body == read.body
    assert read.vague or seen.trailers == trailers_that_pass(read.trailers or [])


def answer_of(number: int, kind: int, method: bytes) -> Answer:
    """An upstream's answer to a request, of one of KINDS kinds: its pieces, and whether it then closes."""
    body = b"answer %d" % number
    mark = b"%b: %d\r\n" % (MARK, number)
    length = b"Content-Length: %d\r\n" % len(body)
    head, ends = b"HTTP/1.1 200 OK\r\n" + mark, False
    if kind == 0:
        head += length
    elif kind == 1:
        head += DATE + length
    elif kind == 2:
        head += b"Transfer-Encoding: chunked\r\n"
        body = b"6;ext\r\nanswer\r\n%x\r\n %d\r\n0\r\nX-Sum: 1\r\nHost: x\r\n\r\n" % (len(str(number)) + 1, number)
    elif kind == 3:
        ends = method != b"HEAD"  # that answer is over with its head: the end would come for the next one
    elif kind == 4:
        head, body = b"HTTP/1.1 204 No Content\r\n" + mark + DATE, b""
    elif kind == 5:
        head = b"HTTP/1.1 100 Continue\r\n\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + head + length
    elif kind == 6:
        head += b"Connection: close, x-gone\r\nX-Gone: 1\r\n" + length
        ends = True
    else:
        head = b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n" + mark + length
    data = head + b"\r\n" + (b"" if method == b"HEAD" else body)
    return cut(data, [] if number % 3 == 0 else [number * 7, len(head) + 4]), ends


def check_requests(data: bytes, cuts: list[int], kinds: list[int], order: int = 0) -> list[object]:
    """A client sends these bytes, in these pieces: every request is answered in order, none that was not sent.

    Returns what came of it, which must not depend on the pieces or on the order in which things happen.
    """
    run = plane()
    run.begin(lambda request, number: answer_of(number, kinds[number % len(kinds)], request.start[0]), order)
    client = run.client()
    client.to_come.extend(cut(data, cuts))
    run.settle()
    told, behind = read_by_h11(data)
    outcome = _judge_answers(run, client, told, behind)
    run.finish()
    return outcome


def _judge_answers(run: Plane, client: Wire, told: list[Read], behind: bytes) -> list[object]:
    sent = bytes(client.got)
    outcome: list[object] = []
    at = answered = forwarded = 0
    last: Message | None = None
    while at < len(sent):
        assert last is None or not closes(last), "something follows the last answer"
        read = told[answered] if answered < len(told) else None
        message = _next_answer(sent, at, read, behind)
        at = message.end
        status = message.start[0]
        if status < b"200":
            outcome.append((status, message.fields))
            continue
        answered += 1
        last = message
        marks = message.all(MARK.lower())
        if not marks:
            assert message.all(b"proxy-status") or status < b"300", "whose answer is this?"
            outcome.append("ours" if status < b"300" else "refused")
            continue
        assert read is not None, "an answer to what is no request"
        assert marks == [b"%d" % forwarded], "another request's answer"
        request = run.requests[forwarded]
        forwarded += 1
        same_request(read, request)
        assert status in (b"200", b"204")
        assert message.body == (b"" if read.start[0] == b"HEAD" or status == b"204" else b"answer " + marks[0])
        fields = [(name, value) for name, value in message.fields if name != b"Date"]
        outcome.append((status, fields, message.body, message.trailers, request))
    assert forwarded == len(run.requests), "a request was forwarded and not answered"
    if client.over:
        assert last is not None, "closed without an answer"
        old = answered <= len(told) and told[answered - 1].minor == 0
        assert old or closes(last), "closed without a word"
    else:
        assert answered == len(told), "a request is not answered"
    return outcome


def closes(message: Message) -> bool:
    """Whether an answer says that it is the last."""
    return [value.lower() for value in message.all(b"connection")] == [b"close"]


def _next_answer(sent: bytes, at: int, read: Read | None, behind: bytes) -> Message:
    """The next answer, to what h11 read, or could not read."""
    if read is not None:
        method, old = read.start[0], read.minor == 0
    else:
        begun = behind.removeprefix(b"\r\n").removeprefix(b"\r\n")
        method, old = (b"HEAD" if begun.startswith(b"HEAD ") else b"GET"), False
    message = read_response(sent, at, method, ended=True, to_old=old)
    if method == b"HEAD" and message.all(b"proxy-status") and message.end < len(sent):
        # Refused before it was known what it is.
        return read_response(sent, at, b"GET", ended=True)
    return message


def check_requests_at_any_split(data: bytes, cuts: list[int], kinds: list[int], order: int = 0) -> list[object]:
    """As `check_requests`, whole and in pieces; the same must come of both."""
    whole = check_requests(data, [], kinds)
    assert check_requests(data, cuts, kinds, order) == whole, "it matters how the bytes arrive"
    return whole


# --- responses ----------------------------------------------------------------------------------------------------------

REQUEST = b"%b /asked HTTP/1.%d\r\nHost: shop.test\r\nConnection: keep-alive\r\n\r\n"
NEXT = b"GET /next HTTP/1.1\r\nHost: shop.test\r\n\r\n"


def read_answer_by_h11(data: bytes, method: bytes) -> tuple[list[Read], Read | None]:
    """The interim answers and the final one, as far as it goes, of an upstream's bytes and the end behind them."""
    client = h11.Connection(h11.CLIENT, max_incomplete_event_size=MOST)
    client.send(h11.Request(method=method, target=b"/asked", headers=[(b"Host", b"shop.test")]))
    client.send(h11.EndOfMessage())
    interims: list[Read] = []
    while True:
        client.receive_data(data)
        if data:
            client.receive_data(b"")
        try:
            while True:
                event = client.next_event()
                if isinstance(event, h11.InformationalResponse):
                    interims.append(_read_of(event))
                    rest = client.trailing_data[0]
                    if rest.startswith(b"\r\n"):  # an empty line too many behind a 1xx is passed over
                        data = rest[2:]
                        break
                elif isinstance(event, h11.Response):
                    return interims, _body_by_h11(client, _read_of(event), method)
                else:
                    return interims, None
        except h11.RemoteProtocolError:
            return interims, None
        client = h11.Connection(h11.CLIENT, max_incomplete_event_size=MOST)
        client.send(h11.Request(method=method, target=b"/asked", headers=[(b"Host", b"shop.test")]))
        client.send(h11.EndOfMessage())


def _read_of(event: h11.InformationalResponse | h11.Response) -> Read:
    return Read((b"%d" % event.status_code,), int(event.http_version[-1:]), event.headers.raw_items())


def _body_by_h11(client: h11.Connection, final: Read, method: bytes) -> Read:
    bodyless = method == b"HEAD" or final.start[0] in (b"204", b"304")
    if not bodyless and _is_chunked(final) and ends_of_chunks(client.trailing_data[0]) < 0:
        return final  # it ends nowhere, or h11 takes what no chunk is
    try:
        while isinstance(event := client.next_event(), h11.Data):
            final.body += bytes(event.data)
        if isinstance(event, h11.EndOfMessage):
            final.trailers = event.headers.raw_items()
    except h11.RemoteProtocolError as error:
        if FRAMING.search(str(error)):
            final.trailers, final.vague = [], True
    return final


def check_response(
    data: bytes, cuts: list[int], method: bytes = b"GET", minor: int = 1, *, primed: bool = False, order: int = 0
) -> list[object]:
    """An upstream answers with these bytes and closes: the client gets one answer to its request, and its own to the next.

    `primed`: the connection has been used before. Returns what came of it, which must not depend on the pieces.
    """
    run = plane()
    asked = 1 if primed else 0

    def answer(request: Message, number: int) -> Answer:
        if number == asked:
            return cut(data, cuts), True
        return answer_of(number, 1, request.start[0])

    run.begin(answer, order)
    client = run.client()
    at = 0
    if primed:
        client.to_come.append(NEXT)
        run.settle()
        assert read_response(bytes(client.got), 0, b"GET", ended=False).all(MARK.lower()) == [b"0"]
        at = len(client.got)
    client.to_come.append(REQUEST % (method, minor))
    run.settle()
    interims, told = read_answer_by_h11(data, method)
    outcome, at = _judge_answer(client, at, (method, minor), interims, told, asked)
    if "repeated" in outcome:
        assert primed
        assert (data, method == b"POST") == (b"", False), "asked once more, and it may have been done twice"
    if client.over:
        assert at == len(client.got), "something follows the last answer"
    else:
        client.to_come.append(NEXT)
        run.settle()
        following = read_response(bytes(client.got), at, b"GET", ended=False)
        assert following.all(MARK.lower()) == [b"%d" % (len(run.requests) - 1)], "another request's answer"
        assert following.end == len(client.got)
    run.finish()
    return outcome


def _judge_answer(
    client: Wire, at: int, asked: tuple[bytes, int], interims: list[Read], told: Read | None, number: int
) -> tuple[list[object], int]:
    method, minor = asked
    sent = bytes(client.got)
    outcome: list[object] = []
    while True:
        try:
            message = read_response(sent, at, method, ended=client.over, to_old=not minor)
        except IncompleteError:
            assert client.over, "an answer that does not end"
            return [*outcome, "cut short"], len(sent)
        at = message.end
        status = message.start[0]
        assert not minor or not message.closed, "only the end of the connection ends it"
        if status >= b"200":
            break
        read = interims[len(outcome)]
        assert (status,) == read.start
        fields = [(name, value) for name, value in read.fields if name.lower() != b"content-length"]
        assert message.fields == without_hops(fields, read.options())
        outcome.append((status, message.fields))
    if message.all(b"proxy-status"):
        assert status == b"502"
        # A body that is malformed from its first piece on is refused, and cut short where the head went ahead of it.
        return [*outcome, "cut short" if told is not None and _is_chunked(told) else "refused"], at
    if message.all(MARK.lower()):  # nothing came of it, and it was asked once more
        assert message.all(MARK.lower()) == [b"%d" % (number + 1)]
        return [*outcome, "repeated"], at
    assert told is not None, "relayed, and h11 reads no answer in it"
    assert not minor or len(outcome) == len(interims)
    assert (status,) == told.start
    fields = told.fields
    if status == b"204":
        fields = [(name, value) for name, value in fields if name.lower() != b"content-length"]
    fields = without_hops(fields, told.options())
    own, added = message.fields[: len(fields)], message.fields[len(fields) :]
    assert own == fields
    dated = any(name.lower() == b"date" for name, _ in fields)
    names = [name for name, _ in added]
    assert names == [
        name
        for name in (b"Date", b"Transfer-Encoding", b"Connection")
        if name in names and (name != b"Date" or not dated)
    ]
    assert dated or b"Date" in names
    if not minor and message.closed and (told.trailers is None or message.body != told.body):
        assert told.trailers is None or told.body.startswith(message.body)
        return [*outcome, "cut short"], at  # which a client of HTTP/1.0 cannot tell
    assert told.trailers is not None, "complete, and h11 says that it was cut short"
    assert message.body == told.body
    assert told.vague or message.trailers == (trailers_that_pass(told.trailers) if minor else [])
    return [*outcome, status, own, message.body, message.trailers], at


def check_response_at_any_split(
    data: bytes, cuts: list[int], method: bytes = b"GET", minor: int = 1, *, primed: bool = False, order: int = 0
) -> list[object]:
    """As `check_response`, whole and in pieces; the same must come of both."""
    whole = check_response(data, [], method, minor, primed=primed)
    assert check_response(data, cuts, method, minor, primed=primed, order=order) == whole, "it matters how it arrives"
    return whole


@dataclass
class Sent:
    """What an upstream answers to one request, whole and without closing the connection."""

    data: bytes  # with an announced end, or malformed
    behind: bytes = b""  # bytes that nobody asked for
    cuts: list[int] = field(default_factory=list)
    method: bytes = b"GET"
    minor: int = 1


def check_what_is_kept(row: list[Sent], *, order: int = 0) -> None:
    """An upstream answers one request after the other and leaves its connections open.

    Each client gets its answer and nothing behind it, whatever came before. A connection carries the next request if it
    may, and never after bytes that nobody asked for, or that are malformed (http.md rows 32 and 46).
    """
    run = plane()

    def answer(request: Message, number: int) -> Answer:
        if number < len(row):
            return cut(row[number].data + row[number].behind, row[number].cuts), False
        return answer_of(number, 1, request.start[0])[0], False

    run.begin(answer, order)
    client = None
    at = 0
    kept = False
    for number, sent in enumerate(row):
        if client is None or client.over:
            client, at = run.client(), 0
        client.to_come.append(REQUEST % (sent.method, sent.minor))
        run.settle()
        interims, told = read_answer_by_h11(sent.data, sent.method)
        outcome, at = _judge_answer(client, at, (sent.method, sent.minor), interims, told, number)
        assert at == len(client.got), "something follows the answer"
        failed = bool({"refused", "cut short"} & {each for each in outcome if isinstance(each, str)})
        assert failed == (told is None or told.trailers is None), outcome
        assert len(run.carried) == number + 1, "it was asked more than once"
        assert not number or (run.carried[number] is run.carried[number - 1]) == kept
        kept = not failed and not sent.behind and told.minor == 1 and b"close" not in told.options()
        assert run.carried[number].closing != kept, (
            "closed without need" if kept else "kept, and it is not to be trusted"
        )
    other = run.client()
    other.to_come.append(NEXT)
    run.settle()
    following = read_response(bytes(other.got), 0, b"GET", ended=False)
    assert following.all(MARK.lower()) == [b"%d" % len(row)], "another request's answer"
    assert following.end == len(other.got)
    assert (run.carried[-1] is run.carried[-2]) == kept
    run.finish()


def check_refused(data: bytes, cuts: list[int], *statuses: int) -> None:
    """A client's bytes, of which the first request must go nowhere: one answer, an error of ours, and the end."""
    run = plane()
    run.begin(lambda request, number: answer_of(number, 1, request.start[0]), 0)
    client = run.client()
    client.to_come.extend(cut(data, cuts))
    run.settle()
    message = read_response(bytes(client.got), 0, b"GET", ended=True)
    assert int(message.start[0]) in statuses, message.start
    assert message.all(b"proxy-status")
    assert closes(message)
    assert message.end == len(client.got)
    assert not run.requests, "it was forwarded"
    assert client.over
    run.finish()
