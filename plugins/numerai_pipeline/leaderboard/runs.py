"""Lists the runs, newest first, and finds the directory of a run."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from numerai_pipeline.core.stables import stable_name
from numerai_pipeline.storage.layout import DataLayout, RunLayout
from numerai_pipeline.storage.untrusted_json import RunFiles, as_float, as_int, as_str, get_in
from numerai_pipeline.storage.used_objects import RunRef, read_metadata, run_ref

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_ROUND = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
_RUN = re.compile(r"[0-9a-f]{12}", re.ASCII)


def find_run(data_dir: Path, round_name: str, run: str) -> RunLayout | None:
    """Find a run's directory by its two names; None if it does not exist.

    The names come from web addresses: malformed names, and links to other directories, count as missing.
    """
    if not _ROUND.fullmatch(round_name) or not _RUN.fullmatch(run):
        return None
    data = DataLayout(data_dir)
    directory = data.run(round_name, run).directory
    if not directory.is_dir() or directory.resolve() != data.rounds.resolve() / round_name / run:
        return None
    return RunLayout(directory)


def all_runs(data_dir: Path) -> Iterator[RunLayout]:
    """Yield the directories of all runs, in no particular order."""
    rounds = DataLayout(data_dir).rounds
    for path in rounds.glob("*/*"):
        found = find_run(data_dir, path.parent.name, path.name)
        if found is not None:
            yield found


def list_runs(data_dir: Path) -> list[dict[str, Any]]:
    """Summarize all runs, the newest round and its last modified run first.

    Returns
    -------
    list of dict
        ``round``, ``run`` (names of its directory), ``changed`` (seconds since 1970), ``stable`` (its name; None for
        a directory of an earlier release), the metadata ``source``, ``version``, ``feature_set``, ``target``, ``era``
        if known, and of its leaderboard, if it exists, ``models`` (their number) and ``best`` (name of the first).
    """
    summaries = [_summarize(layout) for layout in all_runs(data_dir)]
    return sorted(summaries, key=lambda run: (_round_order(run["round"]), run["changed"]), reverse=True)


def run_of_dag_run(data_dir: Path, dag: str, dag_run: str) -> RunLayout | None:
    """Find the directory of an Airflow run by its metadata."""
    reference = RunRef(dag, dag_run)
    found = [layout for layout in all_runs(data_dir) if run_ref(read_metadata(layout)) == reference]
    return max(found, key=_changed, default=None)


def stable_of(metadata: dict[str, Any]) -> str | None:
    """Return the name of the stable that a run belongs to, by its metadata; None if they do not name its DAG."""
    dag = as_str(metadata.get("dag"))
    return stable_name(dag) if dag is not None else None


def _round_order(name: str) -> tuple[int, str]:
    return (int(name), "") if name.isdecimal() else (-1, name)


def _changed(layout: RunLayout) -> float:
    """Return the last modification of the run's main files, in seconds since 1970; 0 if there are none."""
    return max(_mtime_and_size(path)[0] / 1e9 for path in (layout.leaderboard, layout.run_metadata))


def _mtime_and_size(path: Path) -> tuple[int, int]:
    """Return the modification time in nanoseconds and the size in bytes; both 0 if the file is missing."""
    try:
        status = path.stat()
    except OSError:
        return (0, 0)
    return (status.st_mtime_ns, status.st_size)


def _summarize(layout: RunLayout) -> dict[str, Any]:
    summary = _read_summary(layout, _mtime_and_size(layout.run_metadata), _mtime_and_size(layout.leaderboard))
    directory = layout.directory
    return {"round": directory.parent.name, "run": directory.name, "changed": round(_changed(layout)), **summary}


@lru_cache(maxsize=4_096)
def _read_summary(layout: RunLayout, _metadata: tuple[int, int], _board: tuple[int, int]) -> dict[str, Any]:
    """Read the summary of a run; cached until one of its files changes."""
    files = RunFiles(layout.directory)
    metadata, board = files.read(layout.run_metadata) or {}, files.read(layout.leaderboard) or {}
    models = board.get("models")
    first = models[0] if isinstance(models, list) and models else {}
    return {
        "stable": stable_of(metadata),
        **{name: as_str(metadata.get(name)) for name in ("source", "version", "feature_set", "target")},
        "era": as_float(metadata.get("era")),
        "features": as_int(metadata.get("features")),
        "models": len(models) if isinstance(models, list) else None,
        "best": as_str(get_in(first, "model")),
    }
