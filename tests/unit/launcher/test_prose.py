"""The count of stilted English in ``make check``."""

from __future__ import annotations

from pathlib import Path

import pytest

from launcher.prose import CLASSES, LIMIT, count, findings, prose_of

CLEAN = "word " * 1_000


def write(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_prose_of_has_docstrings_comments_and_strings_but_no_code() -> None:
    source = '"""A docstring."""\n# a comment\nvariable = f"a {variable} text"\nname = "value"\n'
    prose = prose_of(source)
    assert all(part in prose for part in ("A docstring.", "# a comment", "a ", " text"))
    assert "variable" not in prose
    assert "value" not in prose


def test_prose_of_counts_a_docstring_once() -> None:
    assert prose_of('def f() -> None:\n    """Once only."""\n').count("Once only.") == 1


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("nobody", "unnamed actor"),
        ("it\ttells", "tell"),
        ("it\tsaid", "say"),
        ("what\tit", "free relative"),
        ("starts\tanew", "archaic"),
        ("of\tits\town", "own"),
        ("those\tthat", "demonstrative"),
        ("whatever", "indefinite"),
        ("left\tbehind", "left"),
        ("handed\tin", "jargon"),
    ],
)
def test_count_finds_each_class(tmp_path: Path, text: str, name: str) -> None:
    write(tmp_path, "plugins/module.py", f"# {text}\n")
    product, tests = count(tmp_path)
    assert {found: number for found, number in product.classes.items() if number} == {name: 1}
    assert tests.words == 0
    assert name in CLASSES


def test_findings_compare_the_rate_with_the_limit(tmp_path: Path) -> None:
    write(tmp_path, "launcher/clean.py", f'"""{CLEAN * int(1 / LIMIT)}"""\n')
    write(tmp_path, "launcher/stilted.py", "#\tnobody\n")
    assert findings(tmp_path) == ""
    write(tmp_path, "launcher/stilted.py", "#\tnobody\tsomebody\n")
    report = findings(tmp_path)
    assert "product, 4,002 words" in report
    assert "unnamed actor 0.50: use name the actor" in report
    assert "2 launcher/stilted.py" in report
    assert "clean.py" not in report


def test_findings_count_the_tests_separately(tmp_path: Path) -> None:
    write(tmp_path, "launcher/clean.py", f'"""{CLEAN}"""\n')
    write(tmp_path, "tests/test_stilted.py", "#\twhoever\n")
    assert findings(tmp_path).startswith("tests, 1 words, at most 0.25 per 1,000:")
