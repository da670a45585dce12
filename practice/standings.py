"""The standings as a page."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Simulated tournament</title>
<style>
:root {{ color-scheme: light dark; font-family: sans-serif }}
body {{ max-width: 60rem; margin: 2rem auto; padding: 0 1rem }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums }}
td, th {{ padding: .25rem .75rem; text-align: right; border-bottom: 1px solid #8884 }}
td:first-child, th:first-child {{ text-align: left }}
</style>
</head>
<body>
<h1>Simulated tournament, round {round}</h1>
{body}
<p>CORR is known 13 weeks after a round, as it pays on a 60-day target (up to round 1342: 5 weeks, 20 days).
<em>Example</em>: the example predictions. <em>Signal</em>: the lasting law behind the targets, an upper bound apart
from chance.</p>
</body>
</html>
"""


def standings_page(standings: Mapping[str, Any]) -> str:
    """Write the standings (:meth:`practice.scores.Scorer.standings`) as an HTML page."""
    models = standings["models"]
    if not models:
        hint = "<p>There are no participants: start the simulator with <code>--account</code>.</p>"
        return _PAGE.format(round=standings["round"], body=hint)
    rows = ([model["name"], model["submitted"], model["scored"], _digits(model["corr"])] for model in models)
    parts = [_table(["model", "rounds submitted", "scored", "mean CORR"], rows)]
    for model in models:
        parts.append(f"<h2>{escape(model['name'])}</h2>")
        rows = (
            [entry["round"], *(_digits(entry[name]) for name in ("corr", "percentile", "example", "signal"))]
            for entry in model["rounds"]
        )
        parts.append(_table(["round", "CORR", "percentile", "example", "signal"], rows))
    return _PAGE.format(round=standings["round"], body="\n".join(parts))


def _table(titles: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    lines = ["<table>", f"<tr>{''.join(f'<th>{escape(title)}</th>' for title in titles)}</tr>"]
    lines += [f"<tr>{''.join(f'<td>{escape(str(cell))}</td>' for cell in row)}</tr>" for row in rows]
    return "\n".join([*lines, "</table>"])


def _digits(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
