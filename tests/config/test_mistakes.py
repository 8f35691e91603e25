"""Bad configurations, a row each: the line, the path, and the remedy that the operator reads."""

from __future__ import annotations

import pytest

from bgproxy.config.loading import load_file, load_text
from bgproxy.errors import ConfigError

POOLS = "pools: {blue: {upstreams: [http://a:1]}, green: {upstreams: [http://b:1]}}\n"
EMPTY_ENVIRONMENT = {}
SAME_HOST = """\
services:
  a: {match: {hosts: [X.y], path: /p/}, pools: {blue: {upstreams: [http://a]}}}
  b: {match: {hosts: [z, x.Y], path: /p}, pools: {blue: {upstreams: [http://b]}}}
"""


def service(extra: str) -> str:
    """The one service, and `extra` on line 2 and after."""
    return POOLS + extra


# name: (text, line, path, a part of the message that says what to do)
CASES = {
    # --- YAML ---------------------------------------------------------------------------------------------------
    "empty": ("", 1, "", "write at least pools:"),
    "only comments": ("# nothing\n", 1, "", "the file is empty"),
    "not a mapping": ("- a\n- b\n", 1, "", "a list: write key: value lines"),
    "one word": ("hello\n", 1, "", "one value: write key: value"),
    "tab": ("pools:\n\tblue: 1\n", 2, "", "indent with spaces"),
    "unclosed bracket": ("listen: [a\nlimits: {}\n", 2, "", "begun on line 1"),
    "unclosed quote": ('listen: "a\n', 2, "", "begun on line 1"),
    "colon in value": ("listen: a: b\n", 1, "", "quote a value"),
    "bad dedent": ("a:\n    b: 1\n  c: 2\n", 3, "", "begin in the same column"),
    "word without colon": ("listen\nworkers: 2\n", 2, "", "check the indentation"),
    "reserved character": ("listen: @a\n", 1, "", "put the value in quotes"),
    "second document": ("listen: a\n---\nlisten: b\n", 2, "", "remove the '---'"),
    "unknown alias": ("listen: *here\n", 1, "", "*here has no &here"),
    "tag": ("workers: !!int 3\n", 1, "", "remove it"),
    "control character": ("listen: a\nworkers: \x01\n", 2, "", "remove it, or write it as an escape"),
    "merge of a word": (service("drain: {<<: x}\n"), 2, "", "write <<: *name"),
    "key is a list": ("[a]: 1\n", 1, "", "a key must be a single word"),
    "too deep": ("a: " + "[" * 40 + "]" * 40 + "\n", 1, "", "nests deeper than 32"),
    # --- keys ---------------------------------------------------------------------------------------------------
    "unknown key": (service("lisen: :80\n"), 2, "lisen", "did you mean listen?"),
    "unknown key with dash": (service("access-log: off\n"), 2, "access-log", "did you mean access_log?"),
    "unknown key far from all": (service("frobnicate: 1\n"), 2, "frobnicate", "remove it (known: listen, "),
    "unknown nested key": (service("health: {pth: /}\n"), 2, "health.pth", "did you mean path?"),
    "key of another section": (service("rise: 3\n"), 2, "rise", "it belongs below health"),
    "unknown pool": ("pools:\n  blue: {upstreams: [http://a:1]}\n  gren: {}\n", 3, "pools.gren", "did you mean green?"),
    "duplicate key": (service("workers: 1\nworkers: 2\n"), 3, "workers", "on line 2: keep one of them"),
    "duplicate nested key": (
        "pools:\n  blue: {upstreams: [http://a:1]}\n  blue: {}\n",
        3,
        "pools.blue",
        "here and on line 2: keep one",
    ),
    "no value": (service("sessions:\n"), 2, "sessions", "give it one, or remove the key"),
    "null": (service("limits: {body_bytes: null}\n"), 2, "limits.body_bytes", "remove the key to have the default"),
    # --- shape --------------------------------------------------------------------------------------------------
    "no service": ("listen: :80\n", 1, "", "write pools: with blue: and green:"),
    "services and pools": (
        service("services: {a: {pools: {blue: {upstreams: [http://a]}}}}\n"),
        1,
        "pools",
        "move pools into a service",
    ),
    "services and health": (
        "services:\n  a: {pools: {blue: {upstreams: [http://a]}}}\nhealth: {}\n",
        3,
        "health",
        "move it below one of services (line 1)",
    ),
    "services empty": ("services: {}\n", 1, "services", "add one, a name with pools:"),
    "services is a list": ("services: [a]\n", 1, "services", "a mapping, each key a name"),
    "service without pools": ("services:\n  a: {live: blue}\n", 2, "services.a.pools", "is missing: add it"),
    "service name": (
        "services:\n  My Shop: {pools: {blue: {upstreams: [http://a]}}}\n",
        2,
        "services.My Shop",
        "such as my-shop",
    ),
    "pools is text": ("pools: http://a\n", 1, "pools", "a mapping with the keys blue, green"),
    "upstreams is text": (
        "pools:\n  blue:\n    upstreams: http://a\n",
        3,
        "pools.blue.upstreams",
        "write [http://a]",
    ),
    "list where text": (service("match: {path: [a]}\n"), 2, "match.path", "it takes text"),
    # --- units --------------------------------------------------------------------------------------------------
    "duration without unit": (
        service("timeouts:\n  connect: 30\n"),
        3,
        "timeouts.connect",
        "30 has no unit: write 30s",
    ),
    "duration rubbish": (service("timeouts: {header: soon}\n"), 2, "timeouts.header", "write 250ms, 30s, 5m or 1h"),
    "duration zero": (service("timeouts: {header: 0s}\n"), 2, "timeouts.header", "more than 0s, at most 7d"),
    "duration too long": (service("drain: {streams: 8d}\n"), 2, "drain.streams", "at most 7d"),
    "duration sexagesimal": (service("timeouts: {header: 12:30}\n"), 2, "timeouts.header", "is not a duration"),
    "size unit": (service("limits: {header_bytes: 32k}\n"), 2, "limits.header_bytes", "write 32KiB, 32MiB"),
    "size too small": (service("limits: {header_bytes: 10B}\n"), 2, "limits.header_bytes", "from 1KiB to 1MiB"),
    "size zero": (service("limits: {body_bytes: 0}\n"), 2, "limits.body_bytes", "write unlimited"),
    "percent": (service("passive: {max_ejected: 50}\n"), 2, "passive.max_ejected", "write 50%"),
    "percent over": (service("passive: {max_ejected: 101%}\n"), 2, "passive.max_ejected", "from 0% to 100%"),
    "number with underscore": (
        service("limits: {connections: 1_000}\n"),
        2,
        "limits.connections",
        "decimal digits only",
    ),
    "number out of range": (service("health: {rise: 0}\n"), 2, "health.rise", "a whole number from 1 to 100"),
    "workers": (service("workers: all\n"), 2, "workers", "write auto or a whole number from 1 to 256"),
    "yes is no boolean": (service("expose_pool: yes\n"), 2, "expose_pool", "write true"),
    "off is no boolean": (service("expose_pool: off\n"), 2, "expose_pool", "write false"),
    "choice": (service("balance: leastrequests\n"), 2, "balance", "did you mean least_requests?"),
    "live": (service("live: gren\n"), 2, "live", "did you mean green?"),
    # --- addresses ----------------------------------------------------------------------------------------------
    "listen without host": (service("listen: 8080\n"), 2, "listen", "write :8080 for every address"),
    "listen without port": (service("listen: localhost\n"), 2, "listen", "write localhost:8080"),
    "listen port": (service("listen: [':99999']\n"), 2, "listen[0]", "ports are 0 to 65535"),
    "listen URL": (service("listen: http://a:80\n"), 2, "listen", "without http://, such as a:80"),
    "listen IPv6": (service('listen: "::1:80"\n'), 2, "listen", "write [::1]:8080"),
    "listen path": (service("listen: /run/a.sock\n"), 2, "listen", "write unix:/run/a.sock"),
    "listen empty": (service("listen: []\n"), 2, "listen", "at least one address"),
    "listen twice": (service("listen:\n- :80\n- '*:80'\n"), 4, "listen[1]", "already on line 3: remove one"),
    "admin is listen": (
        service("listen: 127.0.0.1:80\nadmin:\n  listen: 127.0.0.1:80\n"),
        4,
        "admin.listen",
        "taken by listen (line 2): give the admin API its own port",
    ),
    "admin default is listen": (service("listen: 127.0.0.1:8900\n"), 2, "listen", "give admin.listen another"),
    "admin where listen is by default": (
        service("admin: {listen: 127.0.0.1:8080}\n"),
        2,
        "admin.listen",
        "give listen or this another address",
    ),
    "admin open": (service("admin:\n  listen: :8900\n"), 3, "admin.listen", "add admin.tokens, or listen on 127.0.0.1"),
    "trusted network": (service("trusted_proxies: [10.0.0.1/8]\n"), 2, "trusted_proxies[0]", "write 10.0.0.0/8"),
    "trusted word": (service("trusted_proxies: [lan]\n"), 2, "trusted_proxies[0]", "write a CIDR"),
    # --- tokens -------------------------------------------------------------------------------------------------
    "token without text": (
        service("admin:\n  tokens:\n  - {name: a, role: admin}\n"),
        4,
        "admin.tokens[0]",
        "neither token_file nor token_env: add one",
    ),
    "token with two": (
        service("admin: {tokens: [{name: a, role: admin, token_env: A, token_file: b}]}\n"),
        2,
        "admin.tokens[0]",
        "keep one",
    ),
    "token file": (
        service("admin: {tokens: [{name: a, role: admin, token_file: nowhere}]}\n"),
        2,
        "admin.tokens[0].token_file",
        "write the token into it",
    ),
    "token env": (
        service("admin: {tokens: [{name: a, role: admin, token_env: NOWHERE}]}\n"),
        2,
        "admin.tokens[0].token_env",
        "set it to the token",
    ),
    "token role": (
        service("admin: {tokens: [{name: a, role: root, token_env: SET}]}\n"),
        2,
        "admin.tokens[0].role",
        "write viewer, operator or admin",
    ),
    "token name twice": (
        service(
            "admin:\n  tokens:\n  - {name: a, role: admin, token_env: SET}\n  - {name: a, role: viewer, token_env: SET}\n"
        ),
        5,
        "admin.tokens[1].name",
        "on line 4 too: give each its own",
    ),
    # --- pools --------------------------------------------------------------------------------------------------
    "upstream https": (
        "pools:\n  blue:\n    upstreams:\n    - https://a/b\n",
        4,
        "pools.blue.upstreams[0]",
        "write https://a",
    ),
    "upstream scheme": (
        "pools: {blue: {upstreams: [ftp://a]}}\n",
        1,
        "pools.blue.upstreams[0]",
        "use http://, https:// or unix:///",
    ),
    "upstream no URL": (
        "pools: {blue: {upstreams: ['a:9001']}}\n",
        1,
        "pools.blue.upstreams[0]",
        "write http://a:9001",
    ),
    "upstream path": ("pools: {blue: {upstreams: [http://a/x]}}\n", 1, "pools.blue.upstreams[0]", "so write http://a"),
    "upstream query": (
        "pools: {blue: {upstreams: ['http://a?x']}}\n",
        1,
        "pools.blue.upstreams[0]",
        "so write http://a",
    ),
    "upstream user": ("pools: {blue: {upstreams: ['http://u:p@a']}}\n", 1, "pools.blue.upstreams[0]", "write http://a"),
    "upstream port": (
        "pools: {blue: {upstreams: ['http://a:0']}}\n",
        1,
        "pools.blue.upstreams[0]",
        "ports are 1 to 65535",
    ),
    "upstream IPv4": (
        "pools: {blue: {upstreams: ['http://1.2.3.400']}}\n",
        1,
        "pools.blue.upstreams[0]",
        "four numbers",
    ),
    "upstream unix": ("pools: {blue: {upstreams: ['unix:/a']}}\n", 1, "pools.blue.upstreams[0]", "write unix:///a"),
    "upstream twice": (
        "pools:\n  blue:\n    upstreams:\n    - http://a\n    - http://A:80\n",
        5,
        "pools.blue.upstreams[1]",
        "already on line 4: remove one",
    ),
    "upstream in both": (
        "pools:\n  blue: {upstreams: [http://a]}\n  green: {upstreams: [http://a]}\n",
        3,
        "pools.green.upstreams[0]",
        "need servers of their own",
    ),
    "both empty": ("pools: {blue: {}}\n", 1, "pools", "add upstreams to at least the live one, blue"),
    "live empty": (
        "live: green\npools:\n  blue: {upstreams: [http://a]}\n  green: {}\n",
        4,
        "pools.green",
        "or write live: blue",
    ),
    # --- routes -------------------------------------------------------------------------------------------------
    "host with scheme": (service("match: {hosts: ['http://a.b/']}\n"), 2, "match.hosts[0]", "the host alone, a.b"),
    "host with port": (service("match: {hosts: ['a.b:80']}\n"), 2, "match.hosts[0]", "the host alone, a.b"),
    "host star": (service("match: {hosts: ['*']}\n"), 2, "match.hosts[0]", "remove hosts to match any"),
    "host wildcard inside": (service("match: {hosts: ['a.*.b']}\n"), 2, "match.hosts[0]", "*.example.com"),
    "path without slash": (service("match: {path: api}\n"), 2, "match.path", "write /api"),
    "path with query": (service("match: {path: '/a?b'}\n"), 2, "match.path", "write the path alone, /a"),
    "path with space": (service("match: {path: '/a b'}\n"), 2, "match.path", "%20 for a space"),
    "same route": (
        "services:\n  a: {pools: {blue: {upstreams: [http://a]}}}\n  b: {pools: {blue: {upstreams: [http://b]}}}\n",
        3,
        "services.b.match",
        "as a does (line 2): give one of them another",
    ),
    "same host": (
        SAME_HOST,
        3,
        "services.b.match",
        "host x.y with path /p, as a does",
    ),
    # --- the rest -----------------------------------------------------------------------------------------------
    "health path": (service("health: {path: healthz}\n"), 2, "health.path", "write /healthz"),
    "health expect": (service("health: {expect: 2xx}\n"), 2, "health.expect", "write 200, 200-399"),
    "health expect backwards": (service("health: {expect: 399-200}\n"), 2, "health.expect", "write 200-399"),
    "health expect range": (service("health: {expect: 100-200}\n"), 2, "health.expect", "200 to 599"),
    "source keeps no memory": (
        service("sessions:\n  mode: source\n  on_switch: deadline\n"),
        4,
        "sessions.on_switch",
        "source mode keeps no memory of who came before the switch; use mode: cookie",
    ),
    "session cookie": (service("sessions: {cookie: 'a b'}\n"), 2, "sessions.cookie", "such as bgproxy_session"),
    "session cookie empty": (service("sessions: {cookie: ''}\n"), 2, "sessions.cookie", "write the name of a cookie"),
    "preview header": (service("preview: {header: 'X Pool'}\n"), 2, "preview.header", "such as X-BGProxy-Pool"),
    "preview header taken": (service("preview: {header: Host}\n"), 2, "preview.header", "use another"),
    "preview cookie": (service("preview: {cookie: bgproxy_session}\n"), 2, "preview.cookie", "another name"),
    "preview allow": (service("preview: {allow: all}\n"), 2, "preview.allow", "write private or any or a list"),
    "preview network": (service("preview: {allow: [10.0.0.300]}\n"), 2, "preview.allow[0]", "write a CIDR"),
    "access log folder": (service("access_log: nowhere/a.log\n"), 2, "access_log", "create it, or write off or stdout"),
    "access log word": (service("access_log: no\n"), 2, "access_log", "write off, stdout, or the path"),
    "environment": (service("listen: ${NOWHERE}\n"), 2, "listen", "write ${NOWHERE:-default}"),
    "environment unclosed": (service("listen: ${NOWHERE\n"), 2, "listen", "write ${NAME}"),
}


@pytest.mark.parametrize(("text", "line", "path", "remedy"), CASES.values(), ids=CASES)
def test_a_mistake_has_its_line_its_path_and_a_remedy(text, line, path, remedy, tmp_path):
    """One mistake in the file is one mistake in the answer, and it says where and what to do."""
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_file(str(file), {"SET": "0123456789abcdef"})
    (mistake,) = caught.value.mistakes
    assert (mistake.file, mistake.line, mistake.path) == (str(file), line, path)
    assert remedy in mistake.message


TEN = """\
listen: 8080
workers: many
acess_log: off
limits: { headers: 3 }
timeouts:
  connect: 30
trusted_proxies: [lan]
balance: random
health: { path: x, expect: ok }
pools:
  blue: { upstreams: [https://a/b] }
"""


def test_ten_mistakes_are_ten_in_line_order():
    """A file with ten mistakes has all ten in the answer, in the order of its lines."""
    with pytest.raises(ConfigError) as caught:
        load_text(TEN, "ten.yaml", EMPTY_ENVIRONMENT)
    assert [(mistake.line, mistake.path) for mistake in caught.value.mistakes] == [
        (1, "listen"),
        (2, "workers"),
        (3, "acess_log"),
        (4, "limits.headers"),
        (6, "timeouts.connect"),
        (7, "trusted_proxies[0]"),
        (8, "balance"),
        (9, "health.expect"),
        (9, "health.path"),
        (11, "pools.blue.upstreams[0]"),
    ]
    assert str(caught.value).splitlines()[0].startswith("ten.yaml:1: listen: ")


@pytest.mark.parametrize("size", [1, 2, 5000])
def test_an_alias_bomb_is_bounded(size):
    """Aliases of aliases do not multiply without end: the file is refused, and soon."""
    lines = ["a0: &a0 [x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)] if size < 3 else []
    if size == 1:
        lines.append("services: *a11")
    elif size == 2:
        lines.append("pools: {blue: {upstreams: *a11}}")
    else:
        keys = ", ".join(f"k{n}: 1" for n in range(size))
        lines += [f"m: &m {{{keys}}}", *(f"n{n}: {{<<: *m}}" for n in range(size))]
    with pytest.raises(ConfigError, match="aliases make this file more than"):
        load_text("\n".join(lines), "bomb.yaml", EMPTY_ENVIRONMENT)


def test_one_cause_is_one_mistake():
    """What follows from a mistake is not reported as another: an unset variable is not a bad URL too."""
    text = "services:\n  a:\n    pools:\n      blue: { upstreams: ['${NOWHERE}'] }\n      green:\n"
    with pytest.raises(ConfigError) as caught:
        load_text(text, "x", EMPTY_ENVIRONMENT)
    assert [(mistake.line, mistake.path) for mistake in caught.value.mistakes] == [
        (4, "services.a.pools.blue.upstreams[0]"),
        (5, "services.a.pools.green"),
    ]
