"""Which runs there are, newest first, and the directory of one of them."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from numerai_pipeline.leaderboard.plain import RunFiles, member, number, text, whole
from numerai_pipeline.leases import RunRef, runs_using
from numerai_pipeline.run_layout import DataLayout, RunLayout

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_ROUND = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
_RUN = re.compile(r"[0-9a-f]{12}", re.ASCII)


def find_run(data_dir: Path, round_name: str, run: str) -> RunLayout | None:
    """Find a run's directory by its two names; None when they are no names of a run that is there.

    Names come out of web addresses: what does not look like one, or leads elsewhere by a link, is not there.
    """
    if not _ROUND.fullmatch(round_name) or not _RUN.fullmatch(run):
        return None
    data = DataLayout(data_dir)
    directory = data.run(round_name, run).directory
    if not directory.is_dir() or directory.resolve() != data.rounds.resolve() / round_name / run:
        return None
    return RunLayout(directory)


def all_runs(data_dir: Path) -> Iterator[RunLayout]:
    """Give the directories of all runs, in no particular order."""
    rounds = DataLayout(data_dir).rounds
    for path in rounds.glob("*/*"):
        found = find_run(data_dir, path.parent.name, path.name)
        if found is not None:
            yield found


def list_runs(data_dir: Path) -> list[dict[str, Any]]:
    """Describe all runs in a few words each, the newest round first, of its runs the one last changed.

    Returns
    -------
    list of dict
        ``round``, ``run`` (its directory's names), ``changed`` (seconds since 1970), the facts ``source``, ``version``,
        ``feature_set``, ``target``, ``era`` where they are known, and of its leaderboard, if it is there, ``models``
        (how many) and ``best`` (the first one's name).
    """
    described = [_described(layout) for layout in all_runs(data_dir)]
    return sorted(described, key=lambda run: (_round_order(run["round"]), run["changed"]), reverse=True)


def run_of_dag_run(data_dir: Path, dag: str, dag_run: str) -> RunLayout | None:
    """Find the directory in which a run of Airflow works or worked, by the note it left there."""
    lease = RunRef(dag, dag_run)
    found = [layout for layout in all_runs(data_dir) if lease in runs_using(layout.directory)]
    return max(found, key=_changed, default=None)


def _round_order(name: str) -> tuple[int, str]:
    return (int(name), "") if name.isdecimal() else (-1, name)


def _changed(layout: RunLayout) -> float:
    """When something of interest was last written, in seconds since 1970; 0 when nothing was."""
    return max(_identity(path)[0] / 1e9 for path in (layout.leaderboard, layout.run_metadata))


def _identity(path: Path) -> tuple[int, int]:
    """Time of change in nanoseconds, and size in bytes; both 0 when there is none."""
    try:
        status = path.stat()
    except OSError:
        return (0, 0)
    return (status.st_mtime_ns, status.st_size)


def _described(layout: RunLayout) -> dict[str, Any]:
    told = _read_summary(layout, _identity(layout.run_metadata), _identity(layout.leaderboard))
    directory = layout.directory
    return {"round": directory.parent.name, "run": directory.name, "changed": round(_changed(layout)), **told}


@lru_cache(maxsize=4_096)
def _read_summary(layout: RunLayout, _facts: tuple[int, int], _board: tuple[int, int]) -> dict[str, Any]:
    """Read what a run tells of itself; read again only when one of its files is another one."""
    files = RunFiles(layout.directory)
    facts, board = files.read(layout.run_metadata) or {}, files.read(layout.leaderboard) or {}
    models = board.get("models")
    first = models[0] if isinstance(models, list) and models else {}
    return {
        **{name: text(facts.get(name)) for name in ("source", "version", "feature_set", "target")},
        "era": number(facts.get("era")),
        "features": whole(facts.get("features")),
        "models": len(models) if isinstance(models, list) else None,
        "best": text(member(first, "model")),
    }
