"""The rules of the house that no linter knows: files and their tests, documents and what they describe."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.fake_controller import FakeController, config

from bgproxy.admin.metrics import BoardCollector
from bgproxy.cli.main import VERBS

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "bgproxy").rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def tracked() -> list[Path]:
    """The files of the repository; those of the tree where it is none (an unpacked archive)."""
    try:
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git repository, or no git")
    return [ROOT / path for path in listed.split("\0") if path and (ROOT / path).is_file()]


def test_every_module_has_its_test_file():
    """bgproxy/x/y.py is tested by tests/x/test_y.py; a package's __init__ only says what it is."""
    missing = []
    for path in SOURCES:
        if path.name == "__init__.py":
            continue
        inside = path.relative_to(ROOT / "bgproxy")
        test = ROOT / "tests" / inside.parent / f"test_{inside.stem.strip('_')}.py"
        if not test.is_file():
            missing.append(f"{name(path)}: {name(test)}")
    assert not missing, "\n".join(["no test file:", *missing])


def test_every_file_says_what_it_is():
    """Each module, tests and their helpers too, begins with a docstring."""
    silent = [name(path) for path in (*SOURCES, *TESTS) if not ast.get_docstring(ast.parse(path.read_text()))]
    assert not silent


def test_an_init_only_says_what_its_package_is():
    """Nothing hides in an __init__.py; the package's own holds the version."""
    for path in SOURCES:
        if path.name == "__init__.py":
            _docstring, *rest = ast.parse(path.read_text()).body
            assert len(rest) == (1 if path.parent.name == "bgproxy" else 0), name(path)


def test_every_test_states_a_behaviour():
    """Each test function has a docstring."""
    silent = [
        f"{name(path)}:{node.lineno}"
        for path in TESTS
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test_")
        and not ast.get_docstring(node)
    ]
    assert not silent


def test_imports_go_downwards_only():
    """The contracts of pyproject.toml hold."""
    linter = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_readme_names_every_verb():
    """Who reads the README has heard of each verb."""
    text = (ROOT / "README.md").read_text()
    table = text[text.index("## Commands") : text.index("## What this version does not do yet")]
    for verb in VERBS:
        assert re.search(rf"`{verb}\b", table), verb


def test_the_documents_name_every_metric_and_no_other():
    """docs/operations.md lists the metrics that /metrics has, by the names that Prometheus sees."""
    families = BoardCollector(FakeController(config())).collect()
    made = {f"{family.name}_total" if family.type == "counter" else family.name for family in families}
    documented = set(re.findall(r"^\| `(bgproxy_\w+)` \|", (ROOT / "docs" / "operations.md").read_text(), re.MULTILINE))
    assert len(made) > 15
    assert documented == made


def test_links_between_documents_lead_somewhere():
    """Every relative link names a file that exists, and a heading that is there."""
    broken = []
    for document in DOCUMENTS:
        for link in re.findall(r"\]\(([^)\s]+)\)", document.read_text()):
            if "://" in link:
                continue
            path, _, heading = link.partition("#")
            target = document.parent / path if path else document
            if not target.exists() or (heading and heading not in headings(target)):
                broken.append(f"{name(document)}: {link}")
    assert not broken


def headings(document: Path) -> set[str]:
    """The anchors of a Markdown file, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_no_tracked_file_knows_the_machine_that_it_was_written_on():
    """No absolute path of a working directory, no host of a package index: the repository builds anywhere."""
    hosts = [
        r"pypi\.\w+",
        r"files\.pythonhosted\.\w+",
        r"registry\.npmjs\.\w+",
        r"docker\.io",
        r"ghcr\.io",
        r"quay\.io",
    ]
    forbidden = re.compile("|".join([r"(?<![\w.])/(?:work|root)/\w+", re.escape(f"{ROOT}/"), *hosts]))
    found = []
    for path in tracked():
        if path == Path(__file__):
            continue
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue
        found += [f"{name(path)}: {match[0]}" for match in forbidden.finditer(text)]
    assert not found
