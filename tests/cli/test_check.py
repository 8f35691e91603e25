"""The verb `check`."""

from __future__ import annotations

from bgproxy.cli.main import main

GOOD = """\
listen: 127.0.0.1:8080
pools:
  blue:  { upstreams: [http://127.0.0.1:9001] }
  green: { upstreams: [http://127.0.0.1:9002] }
"""


def test_good_file(tmp_path, capsys):
    """One line with what is in it."""
    file = tmp_path / "a.yaml"
    file.write_text(GOOD)
    assert main(["check", str(file)]) == 0
    assert capsys.readouterr().out == (
        f"{file}: ok: 1 service (default), listens on 127.0.0.1:8080, admin on 127.0.0.1:8900\n"
    )


def test_every_mistake_of_every_file(tmp_path, capsys):
    """All mistakes with their lines on stderr, the good files on stdout, exit 2."""
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text(GOOD)
    bad.write_text(GOOD + "workers: many\nlisten_: x\n")
    assert main(["check", str(bad), str(good), str(tmp_path / "none.yaml")]) == 2
    out, err = capsys.readouterr()
    assert out.startswith(f"{good}: ok")
    assert f"{bad}:5: workers" in err
    assert f"{bad}:6: listen_" in err
    assert f"{bad}: 2 mistakes\n" in err
    assert f"{tmp_path / 'none.yaml'}: 1 mistake\n" in err


def test_the_usual_file(tmp_path, monkeypatch, capsys):
    """Without a name, the file that `run` would take."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bgproxy.yaml").write_text(GOOD)
    assert main(["check"]) == 0
    assert capsys.readouterr().out.startswith("./bgproxy.yaml: ok")


def test_warnings_are_no_mistakes(tmp_path, capsys):
    """They are on stderr with their lines, and the exit status is 0; beside mistakes they are shown too."""
    token, file = tmp_path / "t", tmp_path / "a.yaml"
    token.write_text("0123456789abcdef")
    token.chmod(0o644)
    text = GOOD + f"admin: {{ tokens: [{{ name: a, role: admin, token_file: {token} }}] }}\n"
    file.write_text(text)
    warning = f"{file}:5: admin.tokens[0].token_file: warning: {token} can be read by every user of this machine"
    assert main(["check", str(file)]) == 0
    out, err = capsys.readouterr()
    assert out.startswith(f"{file}: ok")
    assert warning in err
    file.write_text(text + "workers: many\n")
    assert main(["check", str(file)]) == 2
    err = capsys.readouterr().err
    assert warning in err
    assert f"{file}: 1 mistake\n" in err
