"""Renders the page: with links to its files for the application, or as one standalone file.

The files in ``web/`` need no build. Apache ECharts, which draws the charts, is included in ``web/echarts/``, unchanged,
with its licence.
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
    """Read a file of the page."""
    return (WEB / _FOLDERS.get(name, "") / name).read_bytes()


def render_live() -> str:
    """Render the page that loads its files and data from the application."""
    scripts = "\n".join(f'<script src="{_address(name)}" defer></script>' for name in SCRIPTS)
    return _fill_template(f'<link rel="stylesheet" href="{_address(STYLES)}">', "", scripts)


def render_standalone(answers: dict[str, Any]) -> str:
    """Render the page as one file that makes no requests.

    Parameters
    ----------
    answers : dict
        The responses of the application by their address, such as ``api/runs``.
    """
    scripts = [read_asset(name).decode() for name in SCRIPTS]
    styles = read_asset(STYLES).decode()
    data = json.dumps(answers, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    # only these scripts run, for any content of the data, and they cannot make requests
    allowed = " ".join(_digest(script) for script in scripts)
    policy = f"default-src 'none'; script-src {allowed}; style-src {_digest(styles)}; img-src data:; base-uri 'none'"
    head = f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n<style>{styles}</style>'
    return _fill_template(
        head,
        f'<script type="application/json" id="answers">{_in_html(data)}</script>',
        "\n".join(f"<script>{script}</script>" for script in scripts),
    )


def _address(name: str) -> str:
    return f"assets/{name}?{hashlib.sha256(read_asset(name)).hexdigest()[:12]}"


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _in_html(data: str) -> str:
    """Escape JSON so that its content cannot start or end an HTML element."""
    for character in "<>&\u2028\u2029":
        data = data.replace(character, f"\\u{ord(character):04x}")
    return data


def _fill_template(head: str, data: str, scripts: str) -> str:
    template = (WEB / "index.html").read_text(encoding="utf-8")
    before, rest = template.split(_HEAD)
    between, rest = rest.split(_DATA)
    last, after = rest.split(_BODY)
    return f"{before}{head}{between}{data}{last}{scripts}{after}"
