"""Who can reach the admin API, what keeps it, and that no upstream leads to it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.certificates import Authority

from bgproxy.config.loading import load_file
from bgproxy.errors import ConfigError

POOLS = "pools: {blue: {upstreams: [http://a]}}\n"
TOKEN = "admin: {listen: ':8900', tokens: [{name: a, role: admin, token_file: t}]}\n"
SECRET = "0123456789abcdef"


def judged(tmp_path, text: str, environment: dict[str, str] | None = None) -> tuple[list[str], list[str]]:
    """Mistakes and warnings, as `path: message`."""
    file = tmp_path / "c.yaml"
    file.write_text(text if "pools" in text else POOLS + text)
    warnings = []
    mistakes = []
    try:
        load_file(str(file), environment or {}, warnings=warnings)
    except ConfigError as error:
        mistakes = error.mistakes
    return [f"{each.path}: {each.message}" for each in mistakes], [f"{each.path}: {each.message}" for each in warnings]


def write_token(tmp_path, content: str | bytes = SECRET + "\n", mode: int = 0o600):
    file = tmp_path / "t"
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    file.chmod(mode)
    return file


# --- reach ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "listen", ["':8900'", "'0.0.0.0:8900'", "'192.0.2.1:8900'", "'[::]:8900'", "admin.internal:8900"]
)
def test_an_address_beyond_this_machine_needs_tokens(tmp_path, listen):
    """Without them it is a mistake, with the ways out."""
    mistakes, _ = judged(tmp_path, f"admin: {{listen: {listen}}}\n")
    assert len(mistakes) == 1
    assert "there are no tokens: add admin.tokens, or listen on 127.0.0.1 or unix:/path" in mistakes[0]


def test_tokens_without_tls_beyond_this_machine_are_a_warning(tmp_path):
    """They would cross the network readable; with TLS, or on this machine alone, there is nothing to warn of."""
    write_token(tmp_path)
    mistakes, warnings = judged(tmp_path, TOKEN)
    assert mistakes == []
    (warning,) = warnings
    assert warning.startswith("admin.listen: warning: :8900 can be reached from other machines without TLS")
    for listen in ("127.0.0.1:8900", "unix:/run/a.sock", "'[::1]:8900'"):
        assert judged(tmp_path, TOKEN.replace("':8900'", listen)) == ([], [])
    pair = Authority().issue(tmp_path, "admin.test")
    tls = f"tls: {{cert: {pair.cert}, key: {pair.key}}}, "
    assert judged(tmp_path, TOKEN.replace("listen", tls + "listen")) == ([], [])


# --- tokens ---------------------------------------------------------------------------------------------------------


def test_a_token_file_beside_the_configuration(tmp_path):
    """A token's file is looked for beside the configuration."""
    file = write_token(tmp_path)
    judged(tmp_path, TOKEN)
    assert load_file(str(tmp_path / "c.yaml"), {}).admin.tokens[0].token_file == str(file)


@pytest.mark.parametrize(
    ("content", "wrong"),
    [
        (b" \n", "is empty"),
        (b"x" * 5000, "is not a token"),
        (b"short\n", "could be guessed"),
        (b"\xff" * 32, "no header can carry"),
        (b"two words in one file", "more than one word"),
    ],
)
def test_a_token_file_holds_a_token(tmp_path, content, wrong):
    """One that anyone could guess, or that is something else, is a mistake; its text is not shown."""
    write_token(tmp_path, content)
    (mistake,), _ = judged(tmp_path, TOKEN)
    assert mistake.startswith("admin.tokens[0].token_file: ")
    assert wrong in mistake


def test_a_token_file_that_cannot_be_read(tmp_path):
    """With the reason."""
    (mistake,), _ = judged(tmp_path, TOKEN)
    assert "cannot be read (No such file or directory)" in mistake
    (tmp_path / "t").mkdir()
    (mistake,), _ = judged(tmp_path, TOKEN)
    assert "cannot be read (Is a directory)" in mistake
    (tmp_path / "t").rmdir()
    os.mkfifo(tmp_path / "t")
    (mistake,), _ = judged(tmp_path, TOKEN)
    assert f"{tmp_path / 't'} is not a regular file" in mistake


@pytest.mark.parametrize(
    ("mode", "warned"), [(0o600, ""), (0o640, ""), (0o644, "read"), (0o604, "read"), (0o602, "written")]
)
def test_a_token_file_that_everyone_can_read_is_a_warning(tmp_path, mode, warned):
    """The group may be bgproxy's; all others never: who can write one makes a token of their own."""
    file = write_token(tmp_path, mode=mode)
    mistakes, warnings = judged(tmp_path, TOKEN.replace(":8900", "127.0.0.1:8900"))
    assert mistakes == []
    expected = (
        f"admin.tokens[0].token_file: warning: {file} can be {warned} by every user of this machine: chmod o-rw {file}"
    )
    assert warnings == ([expected] if warned else [])


def test_a_token_of_the_environment(tmp_path):
    """Judged as that of a file."""
    text = "admin: {tokens: [{name: a, role: admin, token_env: T}]}\n"
    assert judged(tmp_path, text, {"T": SECRET}) == ([], [])
    for value, wrong in (
        ("short", "T is shorter than 16"),
        ("", "T is empty in the environment"),
        (None, "T is not set"),
    ):
        (mistake,), _ = judged(tmp_path, text, {} if value is None else {"T": value})
        assert mistake.startswith("admin.tokens[0].token_env: ")
        assert wrong in mistake


def test_two_tokens_with_one_text(tmp_path):
    """Who it is could not be told; and which role."""
    write_token(tmp_path)
    text = "admin:\n  tokens:\n  - {name: a, role: viewer, token_file: t}\n  - {name: b, role: admin, token_env: T}\n"
    (mistake,), _ = judged(tmp_path, text, {"T": SECRET})
    assert mistake.startswith("admin.tokens[1].token_env: holds the same text as the token on line 4")
    assert SECRET not in mistake


def test_a_token_from_nowhere(tmp_path):
    """An empty path is not the directory of the configuration, and an empty name no variable."""
    text = "admin: {tokens: [{name: a, role: admin, token_file: ''}, {name: b, role: admin, token_env: ''}]}\n"
    mistakes, _ = judged(tmp_path, text)
    assert mistakes == [
        "admin.tokens[0].token_file: is empty: write the path of a file with the token in it",
        "admin.tokens[1].token_env: is empty: write a variable's name",
    ]


# --- TLS ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority():
    return Authority()


def tls(**parts: object) -> str:
    said = ", ".join(f"{name}: '{value}'" for name, value in parts.items())
    return f"admin: {{tls: {{{said}}}}}\n"


def test_certificate_and_key_are_checked(tmp_path, authority):
    """Good ones are taken, by paths that are absolute afterwards."""
    pair = authority.issue(tmp_path, "admin.test")
    names = {"cert": Path(pair.cert).name, "key": Path(pair.key).name}
    assert judged(tmp_path, tls(**names, client_ca=authority.write(tmp_path))) == ([], [])
    config = load_file(str(tmp_path / "c.yaml"), {})
    assert (config.admin.tls.cert, config.admin.tls.key) == (str(pair.cert), str(pair.key))


def test_what_is_wrong_with_them_is_said(tmp_path, authority):
    """Missing halves, files that are not there, keys of others; at the part that it is about."""
    pair = authority.issue(tmp_path, "admin.test", stem="one")
    other = authority.issue(tmp_path, "other.test", stem="two")
    junk = tmp_path / "junk"
    junk.write_text("no PEM")
    for parts, path, wrong in (
        ({"cert": pair.cert}, "admin.tls", "has cert without key"),
        ({"key": pair.key}, "admin.tls", "has key without cert"),
        ({"client_ca": pair.cert}, "admin.tls.client_ca", "without TLS"),
        ({"cert": tmp_path / "none", "key": pair.key}, "admin.tls.cert", "does not exist"),
        ({"cert": junk, "key": pair.key}, "admin.tls.cert", "holds no certificate"),
        ({"cert": pair.cert, "key": other.key}, "admin.tls.key", "is not the key of"),
        ({"cert": pair.cert, "key": pair.key, "client_ca": junk}, "admin.tls.client_ca", "holds no certificate"),
    ):
        mistakes, _ = judged(tmp_path, tls(**parts))
        assert len(mistakes) == 1, (parts, mistakes)
        assert mistakes[0].startswith(f"{path}: "), mistakes
        assert wrong in mistakes[0]


def test_each_file_is_judged_for_itself(tmp_path, authority):
    """Authorities that are no good beside a pair that is none; and what is no key is not to be hidden."""
    pair = authority.issue(tmp_path, "admin.test")
    Path(pair.cert).chmod(0o644)
    mistakes, warnings = judged(tmp_path, tls(cert=pair.key, key=pair.cert, client_ca=tmp_path / "none"))
    assert [mistake.partition(":")[0] for mistake in mistakes] == ["admin.tls.cert", "admin.tls.client_ca"]
    assert warnings == []


def test_a_key_that_everyone_can_read_is_a_warning(tmp_path, authority):
    """It is no secret then."""
    pair = authority.issue(tmp_path, "admin.test")
    Path(pair.key).chmod(0o644)
    mistakes, (warning,) = judged(tmp_path, tls(cert=pair.cert, key=pair.key))
    assert mistakes == []
    assert warning.startswith("admin.tls.key: warning: ")


def test_tls_on_unix_sockets_alone_is_a_warning(tmp_path, authority):
    """It would do nothing."""
    pair = authority.issue(tmp_path, "admin.test")
    text = tls(cert=pair.cert, key=pair.key).replace("tls", "listen: 'unix:/a', tls", 1)
    mistakes, (warning,) = judged(tmp_path, text)
    assert mistakes == []
    assert "has no effect" in warning


# --- upstreams ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("listen", "upstream"),
    [
        (None, "http://127.0.0.1:8900"),  # where it listens by default
        ("127.0.0.1:8901", "http://localhost:8901"),
        ("localhost:8901", "http://[::1]:8901"),
        ("unix:/run/a.sock", "unix:///run/a.sock"),
        ("127.0.0.1:8901", "http://0.0.0.0:8901"),
    ],
)
@pytest.mark.parametrize("pool", ["blue", "green"])
def test_an_upstream_that_is_the_admin_api_is_a_mistake(tmp_path, listen, upstream, pool):
    """Every client of the proxy would be on loopback there, and might do everything."""
    admin = "" if listen is None else f"admin: {{listen: '{listen}'}}\n"
    other = "green" if pool == "blue" else "blue"
    text = f"{admin}pools:\n  {pool}: {{upstreams: ['{upstream}']}}\n  {other}: {{upstreams: [http://b]}}\n"
    (mistake,), _ = judged(tmp_path, text)
    assert mistake.startswith(f"pools.{pool}.upstreams[0]: ")
    assert "is where the admin API listens" in mistake


def test_an_upstream_beside_the_admin_api_is_none(tmp_path):
    """Another port, another address."""
    text = "pools: {blue: {upstreams: ['http://127.0.0.1:8901', 'http://127.0.0.2:8900', 'http://a:8900']}}\n"
    assert judged(tmp_path, text) == ([], [])
