"""Request heads: what is accepted, what is refused and how, and which bytes go on (numbers: rows of the rules in docs)."""

from __future__ import annotations

import h11
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bgproxy.http1 import request
from bgproxy.http1.errors import BadRequest
from bgproxy.http1.names import NameTable
from bgproxy.http1.request import (
    cookie_value,
    hostname_of,
    is_in_via,
    is_token,
    parse_content_length,
    parse_request_fields,
    parse_request_line,
    printable,
    split_absolute,
)

BOUNDED = settings(max_examples=100, deadline=None, derandomize=True, database=None)


def parse(*lines, minor=1, authority=b"", limit=100, extra=frozenset(), host=True):
    """The fields of a block of lines, a Host among them unless told otherwise."""
    block = b"".join(line + b"\r\n" for line in ((b"Host: a", *lines) if host else lines))
    return parse_request_fields(block, minor, NameTable(extra), limit, authority)


def status_of(*lines, **options):
    with pytest.raises(BadRequest) as caught:
        parse(*lines, **options)
    return caught.value.status


# --- the request line ---------------------------------------------------------------------------------------------------


def test_a_request_line_is_a_method_a_target_and_a_version():
    """The three parts come back as they were, the version as its minor number."""
    assert parse_request_line(b"GET /a?b HTTP/1.1") == (b"GET", b"/a?b", 1)
    assert parse_request_line(b"GET / HTTP/1.0") == (b"GET", b"/", 0)


@pytest.mark.parametrize("method", [b"GET", b"get", b"BREW", b"M-SEARCH", b"!#$%&'*+-.^_`|~09", b"A" * 32])
def test_any_token_is_a_method(method):
    """Row 11: an unknown method is the back end's to judge, and keeps its case."""
    assert parse_request_line(method + b" / HTTP/1.1")[0] == method


@pytest.mark.parametrize("method", [b"", b"G(T", b"G\tT", b"G\x00T", b"G\xc3T", b"GET,", b"\x16\x03\x01"])
def test_what_is_no_token_is_no_method(method):
    """Row 10: 400."""
    with pytest.raises(BadRequest) as caught:
        parse_request_line(method + b" / HTTP/1.1")
    assert caught.value.status == 400


def test_a_method_that_is_too_long_is_not_implemented():
    """Row 10: 501."""
    with pytest.raises(BadRequest) as caught:
        parse_request_line(b"A" * 33 + b" / HTTP/1.1")
    assert caught.value.status == 501


@pytest.mark.parametrize("byte", [*range(0x21), 0x23, *range(0x7F, 0x100)])
def test_no_space_control_or_8_bit_byte_stands_raw_in_a_target(byte):
    """Row 6: 400; the # of a fragment is never sent either."""
    with pytest.raises(BadRequest) as caught:
        parse_request_line(b"GET /a" + bytes([byte]) + b"b HTTP/1.1")
    assert caught.value.status == 400


@pytest.mark.parametrize(
    "target",
    [b"/%0d%0aX:%20y", b"//a//", b"/./../a", b"/a?b=c&d=%2e#"[:-1], b"/{a}|b\"c'^`\\", b"*", b"http://a/", b"/%zz"],
)
def test_a_target_is_not_touched(target):
    """Row 7: no escape is decoded, no path is tidied."""
    assert parse_request_line(b"GET " + target + b" HTTP/1.1")[1] == target


@pytest.mark.parametrize("version", [b"HTTP/0.9", b"HTTP/2.0", b"HTTP/1.2", b"HTTP/3.0", b"HTTP/9.9"])
def test_other_versions_are_not_supported(version):
    """Row 8: 505 for what is a version."""
    with pytest.raises(BadRequest) as caught:
        parse_request_line(b"GET / " + version)
    assert caught.value.status == 505


@pytest.mark.parametrize(
    "line",
    [
        b"GET /",
        b"GET / HTTP/1",
        b"GET / http/1.1",
        b"GET / HTTP/111",
        b"GET / HTTP/1.10",
        b"GET / HTTP/01.1",
        b"GET / HTTP/1.1 ",
        b"GET  / HTTP/1.1",
        b"GET /  HTTP/1.1",
        b" GET / HTTP/1.1",
        b"GET\t/\tHTTP/1.1",
        b"GET / HTTP /1.1",
        b"GET / a HTTP/1.1",
        b"GET / HTTP/1.1\r",
        b"GET / HTTP/1.1\n",
        b"GET / HTTP/1.\xb2",
        b"GET / HTTPS/1.1",
        b"GET / ICE/1.0",
        b"GET  HTTP/1.1",
        b"",
        b"PRI * HTTP/2",
    ],
)
def test_a_line_that_is_none_is_refused(line):
    """Rows 8 and 12: one space between three parts, and a version that is one; 400."""
    with pytest.raises(BadRequest) as caught:
        parse_request_line(line)
    assert caught.value.status == 400


# --- the target's other forms -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "authority", "path"),
    [
        (b"http://a.example/b?c", b"a.example", b"/b?c"),
        (b"HTTP://a:80", b"a:80", b"/"),
        (b"https://a?q", b"a", b"/?q"),
        (b"http://a/b?http://c", b"a", b"/b?http://c"),
        (b"http://[::1]:80/", b"[::1]:80", b"/"),
        (b"http://u@a/", b"u@a", b"/"),
        (b"http:///a", b"", b"/a"),
    ],
)
def test_a_url_is_an_authority_and_a_path(target, authority, path):
    """Row 3: what is forwarded is the path; the authority is what Host becomes, where it is one."""
    assert split_absolute(target) == (authority, path)


@pytest.mark.parametrize(
    "target", [b"ftp://a/", b"a.example:443", b"a", b"http:/a", b"http:a", b"://a", b"javascript:1"]
)
def test_what_is_neither_a_path_nor_an_http_url_is_refused(target):
    """Row 5: the authority-form is CONNECT's, and no other scheme is served; 400."""
    with pytest.raises(BadRequest) as caught:
        split_absolute(target)
    assert caught.value.status == 400


def test_the_authority_of_a_url_replaces_host():
    """Row 3: the back end is told the target's authority, in the place where Host stood."""
    fields = parse(b"A: 1", b"Host: client.example", b"B: 2", authority=b"Real.Example:81", host=False)
    assert fields.forwarded == b"A: 1\r\nHost: Real.Example:81\r\nB: 2\r\n"
    assert fields.host == b"Real.Example:81"
    assert fields.hostname == b"real.example"


def test_a_1_0_request_with_a_url_and_no_host_gets_one():
    """Row 3 for HTTP/1.0, which need not send Host."""
    fields = parse(b"A: 1", authority=b"a.example", minor=0, host=False)
    assert fields.forwarded == b"Host: a.example\r\nA: 1\r\n"


@pytest.mark.parametrize("authority", [b"u@a", b"a,b", b"a b", b"[::1", b"a:x", b":80"])
def test_an_authority_that_is_no_host_is_refused(authority):
    """Row 2: userinfo, a broken address or port in the target; 400."""
    assert status_of(authority=authority) == 400


@pytest.mark.parametrize(
    "lines", [(), (b"Host: a", b"Host: a"), (b"Host: a b",), (b"Host: u@a",), (b"Host:",), (b"Host: a/b",)]
)
def test_host_must_be_one_and_valid_even_beside_a_url(lines):
    """Row 1 has no exception for the absolute form (RFC 9112 section 3.2)."""
    assert status_of(*lines, authority=b"a", host=False) == 400


# --- Host ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lines", [(), (b"Host: a", b"Host: a"), (b"Host: a", b"X: y", b"hOST: b")])
def test_1_1_has_exactly_one_host(lines):
    """Row 1: 400 with none and with two, were they the same."""
    assert status_of(*lines, host=False) == 400


def test_1_0_has_at_most_one_host():
    """Row 1: HTTP/1.0 knows requests without; two are refused there as well."""
    fields = parse(b"A: 1", minor=0, host=False)
    assert (fields.host, fields.hostname, fields.forwarded) == (b"", b"", b"A: 1\r\n")
    assert status_of(b"Host: a", b"Host: a", minor=0, host=False) == 400


@pytest.mark.parametrize(
    "value",
    [b"", b"a b", b"a,b", b"a/b", b"u@a", b"u:p@a", b"a?b", b"a#b", b"a\xe9", b"a\tb"],
)
def test_only_a_host_is_a_host(value):
    """Row 2: a name and maybe a port; no userinfo, path, space or second value."""
    assert status_of(b"Host: " + value, host=False) == 400


def test_host_is_kept_as_it_was_sent():
    """The back end is told what the client said, to the byte."""
    fields = parse(b"Host: Shop.Example.:80", host=False)
    assert (fields.host, fields.hostname) == (b"Shop.Example.:80", b"shop.example")
    assert fields.forwarded == b"Host: Shop.Example.:80\r\n"


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (b"Shop.Example", b"shop.example"),
        (b"shop.example:8080", b"shop.example"),
        (b"shop.example.", b"shop.example"),
        (b"shop.example.:80", b"shop.example"),
        (b"[2001:DB8::1]:80", b"[2001:db8::1]"),
        (b"[v1.a]", b"[v1.a]"),
        (b"127.0.0.1:65535", b"127.0.0.1"),
        (b"a_b-c~d", b"a_b-c~d"),
        (b"a%20b", b"a%20b"),
        (b"a:", b"a"),
    ],
)
def test_the_name_that_routes_are_matched_by(value, name):
    """Lower case, without port and trailing dot."""
    assert hostname_of(value) == name


@pytest.mark.parametrize(
    "value",
    [
        b"a:65536",
        b"a:000080",
        b"a:-1",
        b"a:8_0",
        b"a:80:80",
        b"::1",
        b"[::1",
        b"[]",
        b"[:]x",
        b"[::1]80",
        b"[::g]",
        b"a]",
        b"a[",
        b"[a]",
        b":80",
        b":",
        b"a%2",
        b"a%zz",
        b"%",
        b"a@b",
        b"[::1%eth0]",
    ],
)
def test_a_host_that_is_none(value):
    """Broken ports, brackets and escapes are 400 (RFC 3986 section 3.2.2)."""
    with pytest.raises(BadRequest) as caught:
        hostname_of(value)
    assert caught.value.status == 400


# --- the header section -------------------------------------------------------------------------------------------------


def test_what_needs_no_edit_goes_on_to_the_byte():
    """Rows 22 and 24: order, case, white space and 8-bit bytes are the client's."""
    lines = (b"hOST:a", b"Accept:  \t*/*  ", b"X: \xff\x85\xa0 ", b"Empty:", b"Accept: b", b"Cookie: a=b", b"X_Mine: 1")
    block = b"".join(line + b"\r\n" for line in lines)
    fields = parse_request_fields(block, 1, NameTable(), 100)
    assert fields.forwarded is block


@pytest.mark.parametrize(
    "line",
    [
        b" folded",
        b"\tfolded",
        b" A: b",
        b"A : b",
        b"A\t: b",
        b": b",
        b"no colon",
        b"A(b): c",
        b"A B: c",
        b"\xc3: c",
        b"A\x00: c",
        b'"A": c',
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_a_line_that_is_no_field_is_refused(line, first):
    """Rows 13, 14, 16, 21: no folding, no white space before the colon, a token for a name; 400."""
    assert status_of(*((line, b"Host: a") if first else (b"Host: a", line)), host=False) == 400


@pytest.mark.parametrize("byte", [*(set(range(32)) - {9}), 127])
def test_no_control_character_stands_in_a_value(byte):
    """Rows 18, 19: CR, LF, NUL and every other CTL but tab; 400."""
    assert status_of(b"A: b" + bytes([byte]) + b"c") == 400


@pytest.mark.parametrize(
    "block",
    [
        b"Host: a\nA: b\r\n",
        b"Host: a\r\nA: b\n",
        b"Host: a\n\r\n",
        b"Host: a\rA: b\r\n",
        b"Host: a\r\r\n",
        b"\nHost: a\r\n",
    ],
)
def test_a_bare_cr_or_lf_is_no_line_end(block):
    """Row 20: refused, never forwarded; 400."""
    with pytest.raises(BadRequest) as caught:
        parse_request_fields(block, 1, NameTable(), 100)
    assert caught.value.status == 400


def test_no_more_fields_than_the_limit():
    """Row 23: as many as the limit go, one more is 431."""
    parse(*[b"A: b"] * 9, limit=10)
    assert status_of(*[b"A: b"] * 10, limit=10) == 431


def test_an_empty_section_is_one():
    """A 1.0 request may have no field at all."""
    assert parse_request_fields(b"", 0, NameTable(), 100).forwarded == b""


# --- framing ------------------------------------------------------------------------------------------------------------


def test_a_length_is_taken_and_goes_on():
    """Leading zeros are digits too."""
    fields = parse(b"Content-Length:\t007 ")
    assert fields.length == 7
    assert fields.forwarded.endswith(b"Content-Length:\t007 \r\n")
    assert parse().length == -1


@pytest.mark.parametrize(
    "value",
    [
        b"+5",
        b"-0",
        b"-1",
        b"0x5",
        b"1_0",
        b"5 6",
        b"",
        b"5,5",
        b"5, 6",
        b"\xb2",
        b"1" * 19,
        b"five",
        b"1.0",
        b"1e3",
        b'"5"',
    ],
)
def test_a_length_is_digits_and_nothing_else(value):
    """Row 30: 400."""
    assert parse_content_length(value) == -1
    assert status_of(b"Content-Length: " + value) == 400


@pytest.mark.parametrize("second", [b"5", b"6", b"05"])
def test_a_second_length_is_refused(second):
    """Row 31: 400, were it the same one."""
    assert status_of(b"Content-Length: 5", b"content-length: " + second) == 400


@pytest.mark.parametrize("value", [b"chunked", b"Chunked", b" \tCHUNKED\t "])
def test_chunked_is_written_anew_in_one_form(value):
    """Whatever the spelling, every back end reads the same line."""
    fields = parse(b"transfer-ENCODING:" + value, b"A: b")
    assert fields.chunked
    assert fields.forwarded == b"Host: a\r\nA: b\r\nTransfer-Encoding: chunked\r\n"


@pytest.mark.parametrize("lines", [(b"Content-Length: 5", b"Transfer-Encoding: chunked")] * 2)
@pytest.mark.parametrize("turned", [False, True])
def test_a_length_beside_a_coding_is_refused(lines, turned):
    """Row 26: 400, in either order."""
    assert status_of(*(reversed(lines) if turned else lines)) == 400


def test_a_coding_in_1_0_is_refused():
    """Row 27: 400."""
    assert status_of(b"Transfer-Encoding: chunked", minor=0) == 400


@pytest.mark.parametrize(
    "values",
    [
        (b"chunked, chunked",),
        (b"chunked", b"chunked"),
        (b"identity",),
        (b"identity, chunked",),
        (b"chunked, gzip",),
        (b"chunked", b"identity"),
        (b"gzip",),
        (b"",),
        (b"", b"chunked"),
        (b"chunked", b""),
        (b",chunked",),
        (b"chunked,",),
        (b"xchunked",),
        (b"chunkedx",),
        (b"chunked;a=b",),
        (b'"chunked"',),
        (b"chun\x85ked",),
        (b"\x85chunked",),
        (b"chunked x",),
        (b"g(z, chunked",),
    ],
)
def test_a_coding_that_does_not_end_in_one_chunked_is_refused(values):
    """Row 28: 400."""
    assert status_of(*(b"Transfer-Encoding: " + value for value in values)) == 400


@pytest.mark.parametrize("values", [(b"gzip, chunked",), (b"gzip", b"chunked"), (b"x;q=1 , chunked",)])
def test_an_unknown_coding_before_chunked_is_not_implemented(values):
    """Row 29: 501."""
    assert status_of(*(b"Transfer-Encoding: " + value for value in values)) == 501


# --- Connection and what is for one hop ---------------------------------------------------------------------------------


def test_hop_by_hop_fields_do_not_go_on():
    """Row 38: what Connection names, and what is known to be for one hop."""
    fields = parse(
        b"Connection: X-Mine ,, keep-alive,\tx-other",
        b"X-Mine: 1",
        b"Keep-Alive: 5",
        b"Proxy-Connection: close",
        b"TE: trailers",
        b"Upgrade: websocket",
        b"X-MINE: 2",
        b"connection: x-third",
        b"X-Third: 3",
        b"X-Fourth: 4",
    )
    assert fields.forwarded == b"Host: a\r\nX-Fourth: 4\r\n"
    assert not fields.close


@pytest.mark.parametrize(
    "name",
    [b"Host", b"Content-Length", b"Cookie", b"Authorization", b"Via", b"Content-Type", b"Expect", b"Max-Forwards"],
)
def test_connection_cannot_take_away_what_back_ends_decide_by(name):
    """Row 39 (CVE-2024-45410)."""
    value = {b"Content-Length": b"5", b"Expect": b"100-continue"}.get(name, b"1")
    lines = [b"Connection: close, " + name.lower()]
    if name != b"Host":
        lines.append(name + b": " + value)
    fields = parse(*lines)
    assert name + b": " in fields.forwarded
    assert fields.close


def test_connection_cannot_take_away_the_framing():
    """Row 39: a body whose coding is hidden would be a request of its own."""
    fields = parse(b"Connection: transfer-encoding", b"Transfer-Encoding: chunked")
    assert fields.chunked
    assert b"Transfer-Encoding: chunked\r\n" in fields.forwarded


def test_a_nominated_preview_header_is_not_obeyed():
    """A field for the hop before us names no pool for this one."""
    fields = parse(b"Connection: x-pool", b"X-Pool: green", extra=frozenset({b"x-pool"}))
    assert not fields.extra
    assert b"X-Pool" not in fields.forwarded


@pytest.mark.parametrize(("name", "goes_on"), [(b"X-Pool", b"X-Pool: green\r\n"), (b"X-BGProxy-Pool", b"")])
def test_a_preview_header_is_looked_at_and_ours_goes_no_further(name, goes_on):
    """It has led to this pool; an upstream that is a bgproxy too has pools of its own. Another name may be an application's."""
    fields = parse(b"X-A: 1", name + b": green", b"X-B: 2", extra=frozenset({name.lower()}))
    assert fields.extra == {name.lower(): b"green"}
    assert fields.forwarded == b"Host: a\r\nX-A: 1\r\n" + goes_on + b"X-B: 2\r\n"


@pytest.mark.parametrize("name", [b"X-BGProxy-Mirror", b"X-BGProxy-Pool", b"x-bgproxy-new", b"X_BGProxy_Mirror"])
def test_what_only_we_say_is_not_forwarded(name):
    """An upstream may leave something undone for a request that bears our mark; no client's word is enough for that."""
    fields = parse(b"X-A: 1", name + b": 1", b"X-B: 2")
    assert fields.forwarded == b"Host: a\r\nX-A: 1\r\nX-B: 2\r\n"
    block = b"POST / HTTP/1.1\r\nHost: a\r\nX-A: 3\r\n" + name + b": 1\r\nX-B: 4\r\n\r\n"
    assert fields.forwards(block, block.split(b"\r\n")) == b"Host: a\r\nX-A: 3\r\nX-B: 4\r\n"


@pytest.mark.parametrize("edited", [b"", b"Connection: keep-alive"])
def test_lines_that_vary_vary_again_and_no_others_may(edited):
    """Whatever varied in the blocks before, the next goes on as if it were the first, or is left to be judged."""

    def block(accept: bytes, page: bytes, trace: bytes, host: bytes = b"a") -> bytes:
        lines = [b"Host: " + host, b"Accept: " + accept, b"Page: " + page, edited, b"Trace: " + trace]
        return b"".join(line + b"\r\n" for line in lines if line)

    fields = parse_request_fields(block(b"*/*", b"1", b"x"), 1, NameTable(frozenset()), 100)
    for values in [
        (b"*/*", b"2", b"x"),
        (b"*/*", b"3", b"y"),
        (b"*/*", b"1", b"x"),
        (b"html", b"2", b"z"),
        (b"*/*", b"", b""),
    ]:
        head = b"GET / HTTP/1.1\r\n" + block(*values) + b"\r\n"
        fresh = parse_request_fields(block(*values), 1, NameTable(frozenset()), 100)
        assert fields.forwards(head, head.split(b"\r\n")) == fresh.forwarded
    assert len(fields.varying) == 3
    others = [
        *(block(b"*/*", b"2", bad) for bad in (b"a\rb", b"a\nb", b"a\0b")),
        block(b"*/*", b"2", b"x", host=b"b"),
        block(b"*/*", b"2", b"x").replace(b"Page:", b"Pagf:"),
        block(b"*/*", b"2", b"x").replace(b"Page:", b"Page :"),
        block(b"*/*", b"2", b"x") + b"X: y\r\n",
    ]
    for other in others:
        head = b"GET / HTTP/1.1\r\n" + other + b"\r\n"
        assert fields.forwards(head, head.split(b"\r\n")) == b""


@pytest.mark.parametrize(
    ("lines", "minor", "close"),
    [
        ((), 1, False),
        ((b"Connection: close",), 1, True),
        ((b"Connection: Keep-Alive, CLOSE",), 1, True),
        ((b"Connection: closed",), 1, False),
        ((b"X: y", b"Connection: x", b"Connection: close"), 1, True),
        ((), 0, True),
        ((b"Connection: keep-alive",), 0, False),
        ((b"Connection: Keep-Alive",), 0, False),
        ((b"Connection: keep-alive, close",), 0, True),
        ((b"Connection: x",), 0, True),
        ((b"Proxy-Connection: keep-alive",), 0, True),
    ],
)
def test_who_closes(lines, minor, close):
    """1.1 stays unless told otherwise, 1.0 goes unless told otherwise (RFC 9112 section 9.3)."""
    assert parse(*lines, minor=minor).close is close


# --- Upgrade ------------------------------------------------------------------------------------------------------------


def test_an_upgrade_is_known_where_connection_names_it():
    """Row 50: it is kept aside, for the tunnel to ask for anew; never among what goes on by itself."""
    fields = parse(b"Upgrade: websocket", b"Connection: Upgrade")
    assert fields.upgrade == b"websocket"
    assert fields.forwarded == b"Host: a\r\n"


@pytest.mark.parametrize(
    "lines",
    [
        (b"Upgrade: websocket",),
        (b"Connection: upgrade",),
        (b"Connection: upgrade", b"Upgrade: websocket", b"Content-Length: 3"),
        (b"Connection: upgrade", b"Upgrade: websocket", b"Transfer-Encoding: chunked"),
    ],
)
def test_no_upgrade_without_being_nominated_or_with_a_body(lines):
    """Row 50: the request stays one of HTTP/1.1."""
    fields = parse(*lines)
    assert fields.upgrade == b""
    assert b"pgrade" not in fields.forwarded


def test_1_0_knows_no_upgrade():
    """Row 50: ignored (RFC 9110 section 7.8)."""
    assert parse(b"Connection: upgrade", b"Upgrade: websocket", minor=0).upgrade == b""


@pytest.mark.parametrize("value", [b"websocket", b"WebSocket", b"foo/1.1, websocket", b"a/b,\tc"])
def test_protocols_may_be_upgraded_to(value):
    """Row 50: nominated by Connection, they go on as they came, lists and versions too."""
    assert parse(b"Connection: upgrade", b"Upgrade: " + value).upgrade == value


@pytest.mark.parametrize(
    "value", [b"web: h2c", b"a b", b"a/b/c", b"a;h2c", b"\xffh2c", b"a,,b", b",", b"/1", b"a/", b'"a"']
)
def test_what_is_no_list_of_protocols_is_not_upgraded_to(value):
    """An upstream might find another protocol in it (RFC 9110 section 7.8)."""
    assert parse(b"Connection: upgrade", b"Upgrade: " + value).upgrade == b""


@pytest.mark.parametrize(
    "value", [b"h2c", b"H2C", b"h2c, websocket", b"websocket, h2c", b", h2c", b"websocket,\th2c", b"h2c/1", b"h2c-14"]
)
def test_h2c_is_never_upgraded_to(value):
    """Row 50: a tunnel of HTTP/2 would carry requests past every rule, wherever in the list it stands."""
    assert (
        parse(b"Connection: upgrade, http2-settings", b"HTTP2-Settings: AAMAAABk", b"Upgrade: " + value).upgrade == b""
    )


# --- Expect, Max-Forwards, cookies, forwarding --------------------------------------------------------------------------


def test_the_one_expectation_is_known_and_goes_on():
    """Row 48: the back end answers it; a 1.0 client's is not waited for."""
    fields = parse(b"Expect: 100-Continue", b"Content-Length: 1")
    assert fields.expect
    assert b"Expect: 100-Continue\r\n" in fields.forwarded
    assert not parse(b"Expect: 100-continue", minor=0).expect


@pytest.mark.parametrize(
    "values", [(b"200-ok",), (b"100-continue, x",), (b"x", b"100-continue"), (b"100-continue", b"x")]
)
def test_any_other_expectation_fails(values):
    """Row 48: 417, whichever of several lines has it."""
    assert status_of(*(b"Expect: " + value for value in values)) == 417


def test_cookies_are_joined_for_us_and_kept_for_the_back_end():
    """RFC 6265 section 5.4 for reading; the lines stay two."""
    fields = parse(b"Cookie: a=1", b"cookie:b=2")
    assert fields.cookies == b"a=1; b=2"
    assert fields.forwarded == b"Host: a\r\nCookie: a=1\r\ncookie:b=2\r\n"


@pytest.mark.parametrize(
    ("cookies", "value"),
    [
        (b"a=1", b"1"),
        (b"b=2; a=1; a=3", b"1"),
        (b"b=2;a=1", b"1"),
        (b"a = 1", b"1"),
        (b'a="1"', b"1"),
        (b"aa=2; xa=3; A=4", b""),
        (b"a", b""),
        (b"a=", b""),
        (b"", b""),
        (b"b=a=1", b""),
        (b"a=x=y", b"x=y"),
    ],
)
def test_a_cookie_is_found_by_its_whole_name(cookies, value):
    """The first of that name counts."""
    assert cookie_value(cookies, b"a") == value


def test_forwarding_fields_are_taken_out_and_kept_aside():
    """Row 41: whether they are believed is the peer's matter; in order, with repeats."""
    fields = parse(b"X-Forwarded-For: 1.1.1.1", b"A: b", b"FORWARDED: for=x", b"x-forwarded-for: 2.2.2.2 ")
    assert fields.forwarded == b"Host: a\r\nA: b\r\n"
    assert fields.forwarding == (
        (b"x-forwarded-for", b"1.1.1.1"),
        (b"forwarded", b"for=x"),
        (b"x-forwarded-for", b"2.2.2.2"),
    )


def test_a_request_id_is_taken_out():
    """It goes on only from a trusted peer, written by the connection."""
    fields = parse(b"X-Request-ID: abc")
    assert (fields.request_id, fields.forwarded) == (b"abc", b"Host: a\r\n")


def test_max_forwards_is_a_number():
    """Row 43: known to the one who decides, -1 where it is none."""
    assert parse(b"Max-Forwards: 0").max_forwards == 0
    assert parse(b"Max-Forwards: x").max_forwards == -2
    assert parse(b"Max-Forwards: 1", b"Max-Forwards: 1").max_forwards == -2
    assert parse().max_forwards == -1


def test_underscore_aliases_are_dropped_and_other_underscores_kept():
    """Row 25."""
    assert (
        parse(b"X_Forwarded_For: 6.6.6.6", b"Content_Length: 3", b"X_Mine: 1").forwarded == b"Host: a\r\nX_Mine: 1\r\n"
    )


# --- the small ones -----------------------------------------------------------------------------------------------------


def test_a_token_is_not_empty():
    """RFC 9110 section 5.6.2: 1*tchar."""
    assert is_token(b"a-b")
    assert not is_token(b"")
    assert not is_token(b"a b")


def test_a_peers_bytes_are_safe_to_show():
    """Nothing of it reaches a terminal or a log line as anything but itself."""
    assert printable(b"a\x1b[0m\r\n\xe9\x7f") == "a\\x1b[0m\\x0d\\x0a\\xe9\\x7f"
    assert printable(b"x" * 300) == "x" * 200


def test_the_limits_are_those_that_rfc_9112_asks_for():
    """Row 9: at least 8000 octets of request line."""
    assert request.MAX_LINE >= 8000


# --- properties ---------------------------------------------------------------------------------------------------------

REMOVED = {
    b"connection",
    b"keep-alive",
    b"proxy-connection",
    b"te",
    b"upgrade",
    b"transfer-encoding",
    b"x-request-id",
} | {
    b"forwarded",
    b"x-real-ip",
    b"x-forwarded-for",
    b"x_forwarded_for",
    b"content_length",
    b"http2-settings",
}
NAMES = st.sampled_from(
    [
        b"Connection",
        b"Keep-Alive",
        b"TE",
        b"Upgrade",
        b"Transfer-Encoding",
        b"Content-Length",
        b"X-Forwarded-For",
        b"Host",
        b"Cookie",
        b"Expect",
        b"A",
        b"a",
        b"X-Mine",
        b"X_Forwarded_For",
        b"X-Request-ID",
        b"Content_Length",
        b"Accept",
    ]
)
VALUES = st.one_of(
    st.sampled_from(
        [
            b"close",
            b"keep-alive",
            b"x-mine, a",
            b"chunked",
            b"gzip, chunked",
            b"5",
            b"0",
            b"a",
            b"100-continue",
            b"A , close",
            b"upgrade",
            b"websocket",
            b"transfer-encoding",
            b"content-length, host",
            b"",
            b"5, 5",
            b"chunked\x0b",
            b" chunked ",
        ]
    ),
    st.binary(max_size=12),
)
LINES = st.lists(st.tuples(NAMES, st.sampled_from([b":", b": ", b":\t", b" :"]), VALUES), max_size=6)
TARGETS = st.one_of(st.binary(max_size=8).map(b"/".__add__), st.just(b"/a%20b?c#"[:-1]))


@BOUNDED
@given(method=st.sampled_from([b"GET", b"POST", b"X-Y"]), target=TARGETS, lines=LINES, minor=st.integers(0, 1))
def test_what_is_accepted_reads_the_same_to_a_strict_server(method, target, lines, minor):
    """Whatever passes, another strict parser makes the same method, target, fields and framing of what is forwarded."""
    block = b"Host: h\r\n" + b"".join(name + colon + value + b"\r\n" for name, colon, value in lines)
    try:
        parse_request_line(b"%b %b HTTP/1.%d" % (method, target, minor))
        fields = parse_request_fields(block, minor, NameTable(), 100)
    except BadRequest:
        return
    server = h11.Connection(h11.SERVER)
    server.receive_data(b"%b %b HTTP/1.1\r\n%b\r\n" % (method, target, fields.forwarded))
    event = server.next_event()
    assert isinstance(event, h11.Request)
    assert (event.method, event.target) == (method, target)
    nominated = {
        option.strip(b" \t")
        for name, _, value in lines
        if name.lower() == b"connection"
        for option in value.lower().split(b",")
    } - request.PROTECTED
    expected = [(b"host", b"h")]
    for name, _, value in lines:
        lower = name.lower()
        if lower not in REMOVED and lower not in nominated:
            expected.append((lower, value.strip(b" \t")))
    if fields.chunked:
        expected.append((b"transfer-encoding", b"chunked"))
    assert list(event.headers) == expected
    length = dict(expected).get(b"content-length")
    assert fields.length == (-1 if length is None else int(length))
    if fields.chunked or fields.length > 0:
        assert server.next_event() is h11.NEED_DATA
    else:
        assert isinstance(server.next_event(), h11.EndOfMessage)


@BOUNDED
@given(block=st.binary(max_size=60).map(lambda tail: b"Host: a\r\n" + tail + b"\r\n"), minor=st.integers(0, 1))
def test_bytes_are_accepted_or_refused_and_nothing_else(block, minor):
    """No input raises anything but a refusal with a status of ours."""
    try:
        fields = parse_request_fields(block, minor, NameTable(), 10)
    except BadRequest as error:
        assert error.status in (400, 417, 431, 501)  # noqa: PT017 - both ways are right
    else:
        assert fields.forwarded.count(b"\r\n") == fields.forwarded.count(b"\n") == fields.forwarded.count(b"\r")


@pytest.mark.parametrize(
    ("via", "found"),
    [
        (b"1.1 me", True),
        (b"1.1 ME (it is)", True),
        (b"1.0 a, HTTP/1.1\tme", True),
        (b"1.1 a,1.1  me ,1.1 b", True),
        (b"1.1 me-too", False),
        (b"me 1.1", False),
        (b"1.1 a (me)", False),
        (b"me", False),
        (b"", False),
    ],
)
def test_who_a_message_came_through(via, found):
    """Row 42: the second word of an entry is the name, whatever its case and what is said of it."""
    assert is_in_via(via, b"me") is found


def test_a_request_that_was_here_before_is_a_loop():
    """Row 42: 508 by a name of our own; others may call themselves what they like, and go on."""
    block = b"Host: a\r\nVia: 1.1 other\r\nvia: 1.0 Me\r\n"
    with pytest.raises(BadRequest) as found:
        parse_request_fields(block, 1, NameTable(pseudonym=b"me"), 100)
    assert found.value.status == 508
    assert parse_request_fields(block, 1, NameTable(), 100).forwarded == block


def test_a_block_that_goes_by_the_method_is_not_met_again():
    """Row 43: Max-Forwards means another thing to another method; HTTP/1.0 is never met again either."""
    assert parse().again
    assert not parse(b"Max-Forwards: 5").again
    assert not parse(minor=0).again
