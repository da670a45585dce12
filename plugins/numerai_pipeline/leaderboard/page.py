"""The page's files, and the page made of them: with links to its files, or as one file that holds everything.

There is no build: ``web/`` has the page as it is written. Apache ECharts, which draws the charts, is shipped with it in
``web/echarts/``, unchanged, with its licence.
"""

from __future__ import annotations

import base64
import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

WEB = Path(__file__).parent / "web"
SCRIPTS = ("echarts.common.min.js", "leaderboard.js")
STYLES = "leaderboard.css"
ASSETS = {STYLES: "text/css; charset=utf-8", **dict.fromkeys(SCRIPTS, "text/javascript; charset=utf-8")}
_FOLDERS = {SCRIPTS[0]: "echarts"}
_HEAD, _DATA, _BODY = "<!-- head -->", "<!-- data -->", "<!-- scripts -->"


@cache
def read_asset(name: str) -> bytes:
    """Read one of the page's files."""
    return (WEB / _FOLDERS.get(name, "") / name).read_bytes()


def render_live() -> str:
    """Make the page that asks the application for its files and data."""
    scripts = "\n".join(f'<script src="{_address(name)}" defer></script>' for name in SCRIPTS)
    return _filled(f'<link rel="stylesheet" href="{_address(STYLES)}">', "", scripts)


def render_standalone(answers: dict[str, Any]) -> str:
    """Make the page as one file that asks nobody for anything.

    Parameters
    ----------
    answers : dict
        What the application would answer, by the address within it, such as ``api/runs``.
    """
    scripts = [read_asset(name).decode() for name in SCRIPTS]
    styles = read_asset(STYLES).decode()
    data = json.dumps(answers, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    # nothing runs but these scripts, whatever the data may hold, and nothing is asked for
    allowed = " ".join(_digest(script) for script in scripts)
    policy = f"default-src 'none'; script-src {allowed}; style-src {_digest(styles)}; img-src data:; base-uri 'none'"
    head = f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n<style>{styles}</style>'
    return _filled(
        head,
        f'<script type="application/json" id="answers">{_in_html(data)}</script>',
        "\n".join(f"<script>{script}</script>" for script in scripts),
    )


def _address(name: str) -> str:
    return f"assets/{name}?{hashlib.sha256(read_asset(name)).hexdigest()[:12]}"


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _in_html(data: str) -> str:
    """Escape JSON so that nothing in it can end, or begin, an element of HTML."""
    for character in "<>&\u2028\u2029":
        data = data.replace(character, f"\\u{ord(character):04x}")
    return data


def _filled(head: str, data: str, scripts: str) -> str:
    template = (WEB / "index.html").read_text(encoding="utf-8")
    before, rest = template.split(_HEAD)
    between, rest = rest.split(_DATA)
    last, after = rest.split(_BODY)
    return f"{before}{head}{between}{data}{last}{scripts}{after}"
