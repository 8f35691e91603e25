"""What `deployment:` may say: a row for each mistake, with its line, its path, and what the operator reads."""

from __future__ import annotations

import pytest

from bgproxy.config.loading import load_text
from bgproxy.config.schema import Deployment
from bgproxy.errors import ConfigError, Mistake

POOLS = "pools: {blue: {upstreams: [http://a:1]}, green: {upstreams: [http://b:1]}}\ndeployment:\n"
TCP = "listen: {address: ':1', mode: tcp}\npools: {blue: {upstreams: [tcp://a:1]}}\ndeployment:\n"


def load(text: str, head: str = POOLS, warnings: list[Mistake] | None = None) -> Deployment:
    """The deployment of the one service, with `text` from line 3 on."""
    return (
        load_text(head + text, "f", {"HOOK": "https://chat.example/s3cret"}, warnings=warnings)
        .services["default"]
        .deployment
    )


def mistakes(text: str, head: str = POOLS) -> list[Mistake]:
    with pytest.raises(ConfigError) as caught:
        load(text, head)
    return caught.value.mistakes


def check(extra: str) -> str:
    """One check of a verify stage."""
    return f"  verify: {{checks: [{{name: cart, {extra}}}]}}\n"


def asks(extra: str) -> str:
    """One check that asks for /cart."""
    return check(f"request: GET /cart, {extra}")


#: name: (text from line 3 on, line, path, a part of the message)
CASES = {
    # --- keys and shapes ----------------------------------------------------------------------------------------
    "unknown stage": ("  verfy: {}\n", 3, "verfy", "did you mean verify?"),
    "a stage at the service": ("  drain: {}\nbake: {}\n", 4, None, "it belongs below deployment"),
    "for": ("  bake: {fro: 5m}\n", 3, "bake.fro", "did you mean for?"),
    "for as Python has it": ("  bake: {for_: 5m}\n", 3, "bake.for_", "did you mean for? (known: for, errors,"),
    "for without unit": ("  bake:\n    for: 300\n", 4, "bake.for", "300 has no unit: write 300s"),
    "what may be left out, without unit": ("  bake: {p99: {max: 30}}\n", 3, "bake.p99.max", "write 30s for seconds"),
    "a stage is text": ("  verify: all\n", 3, "verify", "a mapping with the keys healthy, within, checks"),
    "a stage without a value": ("  bake:\n", 3, "bake", "give it one, or remove the key"),
    "checks is a mapping": ("  verify: {checks: {a: b}}\n", 3, "verify.checks", "write it behind '- ', or in [ ]"),
    "notify is a mapping": ("  notify: {run: x}\n", 3, "notify", "write it behind '- ', or in [ ]"),
    "strategy is a word": ("  strategy: canary\n", 3, "strategy", "'canary' is not a mapping: write { type: canary }"),
    "strategy is another word": ("  strategy: rolling\n", 3, "strategy", "a mapping with the keys type, percent"),
    "provision is a command": ("  provision: make up\n", 3, "provision", "write { run: make up }"),
    "a command to be quoted": ("  provision: 'a: {b}'\n", 3, "provision", 'write { run: "a: {b}" }'),
    "retire is a time": ("  retire: 30m\n", 3, "retire", "write { after: 30m }"),
    "retire is a command": ("  retire: make down\n", 3, "retire", "write { run: make down }"),
    "bake is a time": ("  bake: 5m\n", 3, "bake", "write { for: 5m }"),
    "errors is a share": ("  bake: {errors: 1%}\n", 3, "bake.errors", "write { max: 1% }"),
    "p99 is a time": ("  bake: {p99: 1s}\n", 3, "bake.p99", "write { max: 1s }"),
    "warm is true": ("  warm: true\n", 3, "warm", "write {} to have it with its defaults"),
    "provision is true": ("  provision: true\n", 3, "provision", "a mapping with the keys run, webhook"),
    "expect is a status": (asks("expect: 200"), 3, "verify.checks[0].expect", "write { status: 200 }"),
    "status is a list": (asks("expect: {status: [200, 204]}"), 3, "verify.checks[0].expect.status", "write 200,204"),
    "json is a list": (asks("expect: {json: [$.a]}"), 3, "verify.checks[0].expect.json", "such as { $.total: 12 }"),
    "headers is a text": (asks("headers: 'a: b'"), 3, "verify.checks[0].headers", "a mapping, each key with a text"),
    "load is a rate": (check("load: 200/s"), 3, "verify.checks[0].load", "write { rate: 200/s }"),
    "a word of Argo Rollouts": ("  autoPromotionEnabled: true\n", 3, "autoPromotionEnabled", "may be approve"),
    "another": ("  scaleDownDelaySeconds: 30\n", 3, "scaleDownDelaySeconds", "may be retire: { after: 30m }"),
    "a word of Flagger": ("  analysis: {}\n", 3, "analysis", "may be bake, under live traffic, or verify"),
    "a word below strategy": ("  strategy: {canary: {}}\n", 3, "strategy.canary", "strategy: { type: canary, percent"),
    "a variable of commands": (
        "  provision: {run: 'up ${BGPROXY_VERSION:-1}'}\n",
        3,
        "provision.run",
        "${BGPROXY_VERSION:-1} is expanded when the file is read: write $BGPROXY_VERSION for the shell",
    ),
    "a variable of the shell": (
        "  retire: {run: 'down ${NO}'}\n",
        3,
        "retire.run",
        "or $NO if the shell is to expand it",
    ),
    "within beyond the stage": ("  verify: {within: 10m, timeout: 5m}\n", 3, "verify.within", "may take (timeout: 5m)"),
    "rate": (check("load: {rate: 200}"), 3, "verify.checks[0].load.rate", "write 200/s or 30/m"),
    "rate 0": (check("load: {rate: 0/s}"), 3, "verify.checks[0].load.rate", "more than 0/s, at most 10000/s"),
    "no rate": (check("load: {}"), 3, "verify.checks[0].load.rate", "is missing: add it; it takes a rate"),
    "factor": (
        "  bake: {errors: {worse_than_before: 2}}\n",
        3,
        "bake.errors.worse_than_before",
        "2 has no x: write 2x",
    ),
    "factor 1": (
        "  bake: {p99: {worse_than_before: 1x}}\n",
        3,
        "bake.p99.worse_than_before",
        "more than 1x (2x) or off",
    ),
    "approve": ("  approve: never\n", 3, "approve", "write automatic or manual"),
    "strategy": ("  strategy: {type: canry}\n", 3, "strategy.type", "did you mean canary?"),
    # --- commands and webhooks ----------------------------------------------------------------------------------
    "no hook": ("  provision: {timeout: 5m}\n", 3, "provision", "has neither run nor webhook: add one"),
    "a hook misspelt": ("  provision: {runn: x}\n", 3, "provision.runn", "did you mean run?"),
    "two hooks": ("  provision: {run: x, webhook: 'http://a/'}\n", 3, "provision", "has run and webhook: keep one"),
    "two hooks of retire": ("  retire: {run: x, webhook: 'http://a/'}\n", 3, "retire", "keep one of them"),
    "no command": ("  retire: {run: ' '}\n", 3, "retire.run", "is empty: write a command"),
    "no URL": ("  provision: {webhook: chat.example}\n", 3, "provision.webhook", "write http:// or https://"),
    "another scheme": (
        "  provision: {webhook: 'ftp://a/b'}\n",
        3,
        "provision.webhook",
        "ftp://a… is not a URL of HTTP",
    ),
    "no host": ("  provision: {webhook: 'http:///b'}\n", 3, "provision.webhook", "has no host"),
    "bad port": ("  provision: {webhook: 'http://a:99999/b'}\n", 3, "provision.webhook", "ports are 1 to 65535"),
    "fragment": ("  provision: {webhook: 'http://a/b#c'}\n", 3, "provision.webhook", "which is never sent: remove it"),
    "space in URL": ("  provision: {webhook: 'http://a/b c'}\n", 3, "provision.webhook", "%20 for a space"),
    # --- checks -------------------------------------------------------------------------------------------------
    "no name": ("  verify: {checks: [{run: x}]}\n", 3, "verify.checks[0].name", "is missing: add it"),
    "empty name": ("  verify: {checks: [{name: '', run: x}]}\n", 3, "verify.checks[0].name", "not empty"),
    "name of two lines": ('  verify: {checks: [{name: "a\\nb", run: x}]}\n', 3, "verify.checks[0].name", "one line"),
    "same name": (
        "  verify:\n    checks:\n    - {name: a, run: x}\n    - {name: a, run: y}\n",
        6,
        "verify.checks[1].name",
        "the name of another check (line 5)",
    ),
    "no kind": (check("timeout: 5s"), 3, "verify.checks[0]", "has none of request, run, webhook, load: add one"),
    "two kinds": (check("run: x, load: {rate: 1/s}"), 3, "verify.checks[0]", "has run and load: keep one of them"),
    "expect with run": (check("run: x, expect: {status: 200}"), 3, "verify.checks[0].expect", "with request only"),
    "body with load": (check("load: {rate: 1/s}, body: x"), 3, "verify.checks[0].body", "with request only"),
    "no method": (check("request: /cart"), 3, "verify.checks[0].request", "has no method: write GET /cart"),
    "no path": (check("request: GET"), 3, "verify.checks[0].request", "not a method and a path: write GET /cart"),
    "small method": (check("request: get /cart"), 3, "verify.checks[0].request", "in capital letters, such as GET"),
    "strange method": (check("request: 'G T /cart'"), 3, "verify.checks[0].request", "'T /cart'"),
    "CONNECT": (check("request: CONNECT /cart"), 3, "verify.checks[0].request", "asks for a tunnel"),
    "no slash": (check("request: GET cart"), 3, "verify.checks[0].request", "write /cart"),
    "a whole URL": (check("request: 'GET http://a/b'"), 3, "verify.checks[0].request", "write the path alone, /b"),
    "space in path": (check("request: GET /a b"), 3, "verify.checks[0].request", "%20 for a space"),
    "header name": (asks("headers: {'a b': c}"), 3, "verify.checks[0].headers.a b", "not a name for a header"),
    "header value": (asks('headers: {a: "c\\nd"}'), 3, "verify.checks[0].headers.a", "a header cannot have"),
    "header twice": (asks("headers: {a: c, A: d}"), 3, "verify.checks[0].headers.A", "in other letters: keep one"),
    "framing": (asks("headers: {Content-Length: 3}"), 3, "verify.checks[0].headers.Content-Length", "remove it"),
    "status": (asks("expect: {status: 2xx}"), 3, "verify.checks[0].expect.status", "write 200, 200-399"),
    "expected header": (asks("expect: {headers: {'': c}}"), 3, "verify.checks[0].expect.headers.", "name of a header"),
    "JSON path": (asks("expect: {json: {total: 3}}"), 3, "verify.checks[0].expect.json.total", "write $.total"),
    "body of HEAD": (
        check("request: HEAD /, expect: {body_contains: x}"),
        3,
        "verify.checks[0].expect.body_contains",
        "has no body: ask by GET",
    ),
    "within beyond timeout": (
        asks("timeout: 1s, expect: {within: 2s}"),
        3,
        "verify.checks[0].expect.within",
        "longer than the check may take (timeout: 1s)",
    ),
    "within beyond what a check may take": (
        asks("expect: {within: 20s}"),
        3,
        "verify.checks[0].expect.within",
        "longer than the check may take (timeout: 10s): add timeout",
    ),
    "timeout beyond the stage's": (
        "  verify: {timeout: 1m, checks: [{name: a, run: x, timeout: 2m}]}\n",
        3,
        "verify.checks[0].timeout",
        "(verify.timeout: 1m)",
    ),
    "load beyond the stage's": (
        check("load: {rate: 1/s, for: 31m}"),
        3,
        "verify.checks[0].load.for",
        "(verify.timeout: 30m)",
    ),
    "load path": (check("load: {rate: 1/s, path: x}"), 3, "verify.checks[0].load.path", "write /x"),
    # --- the other stages ---------------------------------------------------------------------------------------
    "nothing mirrored": ("  compare: {mirror: 0%}\n", 3, "compare.mirror", "mirrors nothing"),
    "no methods": ("  compare: {methods: []}\n", 3, "compare.methods", "write [GET, HEAD]"),
    "mirrored method": ("  compare: {methods: [get]}\n", 3, "compare.methods[0]", "capital letters, such as GET"),
    "compared header": ("  compare: {headers: ['a:']}\n", 3, "compare.headers[0]", "not a name for a header"),
    "ignored header": ("  compare: {ignore: {headers: ['']}}\n", 3, "compare.ignore.headers[0]", "is empty"),
    "ignored JSON": ("  compare: {ignore: {json: [$..a]}}\n", 3, "compare.ignore.json[0]", "not understood here"),
    "all ignored": ("  compare: {ignore: {json: [$]}}\n", 3, "compare.ignore.json[0]", "name what is to be ignored"),
    "warm path": ("  warm: {paths: [/a, b]}\n", 3, "warm.paths[1]", "write /b"),
    "warm word": ("  warm: {paths: all}\n", 3, "warm.paths", "write recent or a list"),
    "no warm path": ("  warm: {paths: []}\n", 3, "warm.paths", "write recent, or paths"),
    "half a per cent": ("  strategy: {percent: 2.5%}\n", 3, "strategy.percent", "write 2% or 3%"),
    "half a step": ("  strategy: {step: 12.5%}\n", 3, "strategy.step", "write 12% or 13%"),
    "all at once": ("  strategy: {percent: 100%}\n", 3, "strategy.percent", "from 1% to 99%"),
    "hold": ("  hold: writes\n", 3, "hold", "'writes' is not there yet: write none"),
    "hold all": ("  hold: all\n", 3, "hold", "not there yet"),
    "nobody to tell": ("  notify: [{on: [failed]}]\n", 3, "notify[0]", "has neither run nor webhook"),
    "nothing to tell": ("  notify: [{run: x, on: []}]\n", 3, "notify[0].on", "nobody would be told"),
    "an unknown end": ("  notify: [{run: x, on: [switch]}]\n", 3, "notify[0].on[0]", "did you mean switched?"),
}


@pytest.mark.parametrize("name", CASES)
def test_mistakes(name):
    """One mistake in the file is one mistake in the answer, and it says where and what to do."""
    text, line, path, message = CASES[name]
    if path is None:
        found = [mistake for mistake in mistakes(text) if mistake.line == line]
        path = "bake"
    else:
        found = mistakes(text)
        path = f"deployment.{path}"
    assert [(mistake.line, mistake.path) for mistake in found] == [(line, path)]
    assert message in found[0].message


def test_all_mistakes_are_told_at_once():
    """One in each stage is as many as there are stages."""
    text = (
        "  provision: {}\n  verify: {checks: [{name: a}]}\n  compare: {mirror: 0%}\n  warm: {paths: [x]}\n"
        "  approve: x\n  strategy: {step: 1.5%}\n  hold: all\n  bake: {for: 1}\n  retire: {run: ''}\n  notify: [{}]\n"
    )
    assert [mistake.line for mistake in mistakes(text)] == list(range(3, 13))


def test_the_secret_in_a_webhook_is_not_told():
    """What stands behind the host of a webhook is often all that protects it."""
    for url in ("https://u:s3cret@chat.example/#s3cret", "https://chat.example/s3cret x", "ftp://chat.example/s3cret"):
        (mistake,) = mistakes(f"  provision: {{webhook: '{url}'}}\n")
        assert "chat.example" in mistake.message
        assert "s3cret" not in mistake.message


EVERYTHING = """\
  provision: { run: docker compose up -d --wait green, timeout: 5m }
  verify:
    healthy: 50%
    checks:
      - { name: cart, request: "GET /cart?x=%20", headers: { Accept: a/b, Host: shop.example },
          expect: { status: "200,204", headers: { content-type: x }, body_contains: total, within: 300ms,
                    json: { $.total: 3, "$.items[0].id": "a", "$['a b']": true } } }
      - { name: order, request: POST /orders, body: "{}" }
      - { name: contract, run: ./contract-tests.sh, timeout: 10m }
      - { name: asked, webhook: "${HOOK}" }
      - { name: load, load: { rate: 30/m, for: 10s, p99: 150ms } }
  compare: { methods: [GET, OPTIONS], ignore: { headers: [date], json: ["$.items[*].id"] } }
  warm: { paths: [/, "/a?b"], requests: 0 }
  approve: { mode: manual, timeout: 1h }
  strategy: { type: canary, percent: 5%, for: 1m, sticky: source }
  hold: none
  bake: { for: 1m, errors: { max: 0.5%, worse_than_before: off }, p99: { max: 1s } }
  retire: { after: 1h }
  notify: [{ webhook: "https://chat.example:8443?a=b" }, { run: logger, on: [succeeded, aborted] }]
"""


def test_an_old_pool_may_be_retired_at_once():
    """Nobody has to want a stand-by."""
    made = load("  retire: { after: 0s, run: docker compose stop blue }\n")
    assert made.retire is not None
    assert made.retire.after == 0


def test_all_that_may_be_said():
    """Every stage with its keys; nothing of it is a warning."""
    warnings: list[Mistake] = []
    made = load(EVERYTHING, warnings=warnings)
    assert warnings == []
    assert made.provision is not None
    assert made.provision.run == "docker compose up -d --wait green"
    assert made.verify is not None
    cart, order, _, asked, load_check = made.verify.checks
    assert cart.expect.json == {"$.total": "3", "$.items[0].id": "a", "$['a b']": "true"}
    assert (order.body, order.expect.status) == ("{}", "200-299")
    assert asked.webhook == "https://chat.example/s3cret"
    assert load_check.load is not None
    assert (load_check.load.rate, load_check.load.for_) == (0.5, 10)
    assert (made.strategy.for_, made.bake and made.bake.errors.worse_than_before) == (60, None)
    assert made.notify[0].on == ("switched", "rolled_back", "failed")


def test_nothing_need_be_said():
    """Without the key, a deployment is a switch."""
    made = load("  {}\n")
    assert made == Deployment()
    assert (made.verify, made.bake, made.retire, made.approve.mode) == (None, None, None, "automatic")


def test_approval_in_a_word():
    """`approve: manual` is the mapping with that mode, in the short form of a file and in the long one."""
    assert load("  approve: manual\n") == load("  approve: {mode: manual}\n")
    long = "services: {a: {pools: {blue: {upstreams: [http://a]}}, deployment: {approve: manual}}}\n"
    assert load_text(long, "f", {}).services["a"].deployment.approve.mode == "manual"


def test_mirroring_what_changes_things_is_a_warning():
    """It may be wanted, so it is allowed; and said."""
    warnings: list[Mistake] = []
    load("  compare:\n    methods:\n    - GET\n    - POST\n", warnings=warnings)
    (warning,) = warnings
    assert (warning.line, warning.path) == (6, "deployment.compare.methods[1]")
    assert "done by both pools" in warning.message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "{percent: 20%, for: 1m}",
            "percent and for are of a canary strategy, and without a type this one is all-at-once",
        ),
        ("{step: 20%}", "write type: linear, or deploy with --strategy linear"),
        ("{type: canary, step: 20%}", "step is of a linear strategy, and this one is canary: remove it"),
        ("{type: linear, percent: 20%, for: 1m}", "percent and for are of a canary strategy, and this one is linear"),
    ],
)
def test_what_another_strategy_has_is_a_warning(text, message):
    """It would be passed over in silence; `deploy --strategy` may want it."""
    warnings: list[Mistake] = []
    load(f"  strategy: {text}\n  bake: {{}}\n", warnings=warnings)
    (warning,) = warnings
    assert warning.line == 3
    assert message in warning.message


@pytest.mark.parametrize("kind", ["canary", "linear"])
def test_steps_that_nobody_judges_are_a_warning(kind):
    """The rules are those of the bake."""
    warnings: list[Mistake] = []
    load(f"  strategy: {{type: {kind}}}\n  bake: {{}}\n", warnings=warnings)
    assert warnings == []
    load(f"  strategy: {{type: {kind}}}\n", warnings=warnings)
    assert [(warning.line, warning.path) for warning in warnings] == [(3, "deployment.strategy.type")]
    assert "add bake: {}" in warnings[0].message


def test_who_says_all_at_once_means_it():
    """The rest of the strategy is for `deploy --strategy`."""
    warnings: list[Mistake] = []
    load("  strategy: {type: all-at-once, percent: 20%, step: 5%}\n", warnings=warnings)
    assert warnings == []


# --- mode tcp -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "path", "message"),
    [
        (check("request: GET /"), "verify.checks[0].request", "check by a command (run) or a webhook"),
        (check("load: {rate: 1/s}"), "verify.checks[0].load", "no requests in mode tcp"),
        ("  compare: {}\n", "compare", "remove compare"),
        ("  warm: {paths: [/a]}\n", "warm.paths", "the stage opens connections"),
        ("  warm: {requests: 10}\n", "warm.requests", "remove it"),
        ("  bake: {p99: {max: 1s}}\n", "bake.p99", "remove p99"),
        ("  strategy: {sticky: cookie}\n", "strategy.sticky", "write source"),
    ],
)
def test_what_mode_tcp_cannot_have(text, path, message):
    """There are no requests, so what asks or counts them has no place."""
    found = mistakes(text, TCP)
    assert [(mistake.line, mistake.path) for mistake in found] == [(4, f"deployment.{path}")]
    assert message in found[0].message


def test_what_mode_tcp_can_have():
    """Commands, connections, a split by the client's address, a bake."""
    text = "  verify: {checks: [{name: a, run: x}]}\n  warm: {}\n  strategy: {type: linear}\n  bake: {}\n  retire: {}\n"
    made = load(text, TCP)
    assert made.strategy.sticky == "source"
    assert made.warm is not None


def test_where_it_cannot_be_told_which_service_is_tcp():
    """A mistake at a listener does not make one of every check of every service."""
    text = "listen: {address: ':1', mode: tpc}\n" + POOLS + check("request: GET /")
    assert [mistake.path for mistake in mistakes("", text)] == ["listen.mode"]
