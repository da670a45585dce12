"""The README is short, links and paths in the text of the repository exist, and the site needs no network."""

from __future__ import annotations

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml

from tests.samples import ROOT

README_BYTES = 7_000
PAGE = re.compile(r"\bdocs/[\w./-]+\.(?:md|py|png)\b")
LINK = re.compile(r"\]\(([^)#]+)[^)]*\)")
"""A link of Markdown, without its anchor."""


def tracked_texts() -> dict[str, str]:
    """Read the tracked text files: name → text."""
    names = subprocess.check_output(["git", "-C", str(ROOT), "ls-files", "-z"], text=True).rstrip("\0").split("\0")
    texts = {}
    for name in names:
        path = ROOT / name
        if path.suffix not in {".png", ".lock", ".parquet", ".zip"} and path.is_file():
            texts[name] = path.read_bytes().decode("utf-8", errors="replace")
    return texts


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_bytes()) <= README_BYTES


def test_mentioned_pages_exist() -> None:
    missing = {
        f"{name}: {page}"
        for name, text in tracked_texts().items()
        for page in PAGE.findall(text)
        if not (ROOT / page).exists()
    }
    assert missing == set()


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"])
def test_links_outside_the_site_exist(name: str) -> None:
    links = [link for link in LINK.findall((ROOT / name).read_text(encoding="utf-8")) if "://" not in link]
    assert [link for link in links if not (ROOT / link).exists()] == []


class _Requests(HTMLParser):
    """Collects the addresses that a browser fetches with a page."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = {"script": "src", "img": "src", "iframe": "src", "link": "href"}
        self.addresses += [value for name, value in attrs if value and name == names.get(tag)]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True)
    return folder


@pytest.mark.slow
def test_site_is_read_without_a_network(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 40
    for page in pages:
        parser = _Requests()
        parser.feed(page.read_text(encoding="utf-8"))
        assert [address for address in parser.addresses if re.match(r"(https?:)?//", address)] == [], page


@pytest.mark.slow
def test_site_has_pages_only(site: Path) -> None:
    assert [*site.rglob("*.py"), *site.rglob("Dockerfile"), *site.rglob("examples")] == []
    included = (site / "guides" / "add-a-model.html").read_text(encoding="utf-8")
    assert "--8&lt;--" not in included


@pytest.mark.parametrize("path", sorted((ROOT / ".github").rglob("*.yml")), ids=lambda path: path.name)
def test_github_files_are_valid_yaml(path: Path) -> None:
    assert isinstance(yaml.safe_load(path.read_text(encoding="utf-8")), dict)


def test_workflow_runs_the_commands_of_make() -> None:
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))["jobs"]
    commands = {step["run"] for job in jobs.values() for step in job["steps"] if "run" in step}
    assert commands == {"make check", "make test", "make run"}
