"""Field names: what is done with a line, by the name as it was spelt."""

from __future__ import annotations

import pytest

from bgproxy.http1 import names
from bgproxy.http1.names import (
    DROP,
    EXTRA,
    FORWARDED,
    HOST,
    NOT_IN_TRAILERS,
    OURS,
    PLAIN,
    PROTECTED,
    REPEATING,
    NameTable,
)


@pytest.mark.parametrize("spelling", [b"host", b"Host", b"HOST", b"hOsT"])
def test_case_does_not_matter(spelling):
    """A name means the same in any case (RFC 9110 section 5.1)."""
    assert NameTable().learn(spelling) == HOST


@pytest.mark.parametrize("name", [b"", b"Host ", b" Host", b"Ho\tst", b"H\xf6st", b"a(b", b"a:b", b"a\x00b", b"a\r"])
def test_what_is_no_name_is_said_to_be_none_and_not_remembered(name):
    """An empty name, white space before the colon and every byte that is no tchar (http.md rows 14, 21)."""
    table = NameTable()
    assert table.learn(name) == -1
    assert table.known == {}


@pytest.mark.parametrize(
    "alias",
    [
        b"X_Forwarded_For",
        b"x_forwarded-for",
        b"X-Forwarded_Proto",
        b"Content_Length",
        b"Transfer_Encoding",
        b"X_REAL_IP",
        b"X_Request_ID",
        b"Proxy_Connection",
        b"Keep_Alive",
        b"Max_Forwards",
        b"X_BGProxy_Pool",
        b"X_BGProxy_Mirror",
    ],
)
def test_an_underscore_alias_of_what_matters_is_dropped(alias):
    """A back end behind CGI could take it for the name with dashes (http.md row 25)."""
    assert NameTable(frozenset({b"x-bgproxy-pool"})).learn(alias) == DROP


@pytest.mark.parametrize("name", [b"X_Mine", b"_", b"__host__", b"x_bgproxy"])
def test_other_underscores_are_the_applications_own(name):
    """Only an alias of a name that decides something is dropped."""
    assert NameTable().learn(name) == PLAIN


@pytest.mark.parametrize("name", [b"X-BGProxy-Pool", b"x-bgproxy-anything", b"X_BGProxy_Pool", b"X-BGPROXY_x"])
def test_what_begins_as_our_own_fields_do_is_ours(name):
    """Also one that nobody has thought of yet, and an alias with underscores."""
    assert NameTable().learn(name) == OURS


@pytest.mark.parametrize("name", [b"Keep-Alive", b"Proxy-Connection", b"TE", b"HTTP2-Settings"])
def test_hop_by_hop_names_are_dropped(name):
    """They are for this hop, whether Connection names them or not (http.md rows 38, 40)."""
    assert NameTable().learn(name) == DROP


@pytest.mark.parametrize(
    "name",
    [
        b"X-Forwarded-For",
        b"X-Forwarded-Proto",
        b"X-Forwarded-Host",
        b"X-Forwarded-Port",
        b"Forwarded",
        b"X-Real-IP",
        b"X-BGProxy-Mirror",
    ],
)
def test_forwarding_names_are_known_and_protected(name):
    """They are believed from trusted peers only, and no Connection takes them away (http.md rows 39, 41)."""
    assert NameTable().learn(name) == FORWARDED
    assert name.lower() in PROTECTED


def test_a_name_that_a_service_asks_for_is_extra():
    """The preview header is looked at, and no other table knows it."""
    assert NameTable(frozenset({b"x-pool"})).learn(b"X-Pool") == EXTRA
    assert NameTable().learn(b"X-Pool") == PLAIN


def test_a_service_cannot_ask_for_a_name_that_means_something_already():
    """An extra name never takes the place of framing or Host."""
    assert NameTable(frozenset({b"host"})).learn(b"Host") == HOST


def test_what_was_learnt_is_had_by_its_spelling():
    """Each spelling is an entry: nothing is lower-cased again."""
    table = NameTable()
    table.learn(b"ACCEPT-ENCODING")
    table.learn(b"X-any")
    assert table.known == {b"ACCEPT-ENCODING": REPEATING, b"X-any": PLAIN}


def test_lines_are_remembered_up_to_a_bound_and_then_anew():
    """A client that invents lines spoils the memory for no longer than it takes to fill it again."""
    table = NameTable()
    table.learn_line(b"Accept: " + b"x" * 256)
    assert table.lines == set()
    for number in range(1025):
        table.learn_line(b"Accept: %d" % number)
    assert table.lines == {b"Accept: 1024"}


def test_lines_that_say_who_a_client_is_are_not_remembered():
    """What one client pays for a line must tell it nothing about another's cookie or password."""
    table = NameTable()
    for name in (b"Cookie", b"Authorization", b"Proxy-Authorization", b"X-Api-Key", b"Referer", b"From"):
        assert table.learn(name) != REPEATING


def test_the_memory_is_bounded_in_entries_and_in_length():
    """A client that invents names, or long ones, gains nothing; they are judged all the same."""
    table = NameTable()
    assert table.learn(b"x" * 65) == PLAIN
    assert table.known == {}
    for number in range(5000):
        assert table.learn(b"X-%d" % number) == PLAIN
    assert len(table.known) == 1024
    assert table.learn(b"Transfer-Encoding") == names.TRANSFER_ENCODING
    assert table.learn(b"bad name") == -1


def test_names_are_written_in_lower_case_in_the_tables():
    """The tables are looked up by lower-cased names: another spelling in them would never match."""
    for name in (*PROTECTED, *NOT_IN_TRAILERS, *names._KINDS):
        assert name == name.lower()


@pytest.mark.parametrize(
    "name",
    [b"content-length", b"transfer-encoding", b"host", b"authorization", b"cookie", b"set-cookie", b"content-encoding"],
)
def test_framing_routing_and_credentials_are_no_trailers(name):
    """RFC 9110 section 6.5.1; http.md row 36."""
    assert name in NOT_IN_TRAILERS


def test_names_that_are_removed_go_no_further():
    """Nor do their aliases, and a service that asks for one gets nothing either; without the wish they are plain."""
    table = NameTable(frozenset({b"client-cert"}), removed=frozenset({b"client-cert"}))
    assert {table.learn(name) for name in (b"Client-Cert", b"client-cert", b"Client_Cert")} == {DROP}
    assert NameTable().learn(b"Client-Cert") == PLAIN
