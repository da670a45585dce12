"""The page as one file, and its included libraries."""

from __future__ import annotations

import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from numerai_pipeline.leaderboard.maps import tables_of
from numerai_pipeline.leaderboard.page import SCRIPTS, WEB, read_asset, render_live
from numerai_pipeline.leaderboard.static_page import write_static_page
from tests.generated_run import make_run

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)><!--\u2028'\"&amp;"


class Elements(HTMLParser):
    """Lists the elements of a page, and the content of its scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data: str) -> None:
        if self.found and self.found[-1][0] == "script":
            self.scripts[-1] += data

    def handle_endtag(self, tag: str) -> None:
        self.found.append((f"/{tag}", {}))


def answers(path: Path) -> dict[str, Any]:
    elements = Elements(path.read_text())
    place = next(
        place for place, (tag, told) in enumerate(e for e in elements.found if e[0] == "script") if "id" in told
    )
    found: dict[str, Any] = json.loads(elements.scripts[place])
    return found


def test_static_page_has_all_data_and_makes_no_request(tmp_path: Path) -> None:
    layout = make_run(tmp_path)
    path = write_static_page(layout)
    assert path == layout.directory / "leaderboard.html"
    told = answers(path)
    address = f"api/runs/1335/{layout.directory.name}"
    maps = {f"{address}/embeddings/{name}" for name in told[address]["embeddings"]}
    assert len(maps) == 4
    assert set(told) == {"api/runs", address, f"{address}/embeddings", *maps}
    elements = Elements(path.read_text())
    assert not [told for _, told in elements.found if {"src"} & set(told)]
    assert [told for tag, told in elements.found if tag == "link"] == []
    assert len(elements.scripts) == 1 + len(SCRIPTS)
    policy = next(told["content"] for _, told in elements.found if told.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy


def test_static_page_without_embeddings_names_the_problem(tmp_path: Path) -> None:
    layout = make_run(tmp_path, evaluated=False, tables=False)
    told = answers(write_static_page(layout))
    assert len(told) == 2
    half = make_run(tmp_path, seed=5)
    tables_of(half)[0].unlink()
    address = f"api/runs/1335/{half.directory.name}"
    told = answers(write_static_page(half))
    assert told[address]["embeddings"] == []
    assert "training.parquet" in told[address]["problems"][0]


def test_static_page_html_in_the_data_is_escaped(tmp_path: Path) -> None:
    layout = make_run(tmp_path, tables=False)
    plain = Elements(write_static_page(layout).read_text()).found
    board = json.loads(layout.leaderboard.read_text())
    board["models"][0]["model"] = HOSTILE
    board["left_out"] = {HOSTILE: HOSTILE}
    layout.leaderboard.write_text(json.dumps(board))
    path = write_static_page(layout)
    assert Elements(path.read_text()).found == plain
    told = answers(path)[f"api/runs/1335/{layout.directory.name}"]
    assert told["models"][0]["model"] == HOSTILE
    assert told["left_out"] == {HOSTILE: HOSTILE}


def test_write_static_page_failing_keeps_the_old_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = make_run(tmp_path, tables=False)
    old = write_static_page(layout).read_bytes()

    def fail(_answers: object) -> str:
        raise OSError("disk full")

    monkeypatch.setattr("numerai_pipeline.leaderboard.static_page.render_standalone", fail)
    with pytest.raises(OSError, match="disk full"):
        write_static_page(layout)
    assert layout.static_page.read_bytes() == old
    assert [path.name for path in layout.directory.glob(".leaderboard*")] == []


def test_echarts_files_have_the_published_checksums() -> None:
    published = {
        "echarts.common.min.js": "61f13280aba3161f77fc801bf5f9c786f55f10432153a0683fc5cc0700b013d5",
        "LICENSE": "634293835b43a6dd2094fa39182a3d9a6b9ca43b7fdb9ac354e8037af2a3093a",
        "NOTICE": "d491d358344f842685c1b1585970999db65fe30ecf7ef3867af8814f4016c016",
    }
    found = {name: hashlib.sha256((WEB / "echarts" / name).read_bytes()).hexdigest() for name in published}
    assert found == published
    assert 't.version="6.1.0"' in (WEB / "echarts" / "echarts.common.min.js").read_text()


def test_scripts_have_no_text_that_ends_a_script_element() -> None:
    for name in SCRIPTS:
        script = read_asset(name).decode().lower()
        assert "</script" not in script
        assert "<!--" not in script


def test_leaderboard_script_never_inserts_html() -> None:
    script = read_asset("leaderboard.js").decode()
    assert not re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function", script)
    assert 'renderMode: "richText"' in script


def test_render_live_addresses_have_content_hashes() -> None:
    addresses = [
        told.get("src") or told.get("href") for tag, told in Elements(render_live()).found if tag in {"script", "link"}
    ]
    assert len(addresses) == 1 + len(SCRIPTS)
    assert all(re.fullmatch(r"assets/[\w.]+\?[0-9a-f]{12}", str(address)) for address in addresses)
