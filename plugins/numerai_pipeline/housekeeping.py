"""What the data volume and the Docker engine need no longer, and its removal.

What is in use is never removed:

- the directory of a run that noted itself there (``leases.py``) and that Airflow says is queued or running;
- a directory that a working container of ours mounts;
- anything that was written, and any download that was asked for, within ``keep_days``, which are at least seven: so
  long may a run take between two of its steps;
- the files of the last ``keep_rounds`` rounds of each source, whatever their age;
- containers without our installation's label.

A removal may be killed at any moment. A directory is renamed before anything in it is removed, so that it is there
whole or not at all; of a download the manifest goes first, without which the file does not count. What a killed
removal left is removed by the next one.
"""

from __future__ import annotations

import json
import logging
import shutil
import stat
import uuid
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from numerai_pipeline.container_labels import deployment_filter
from numerai_pipeline.disk import megabytes
from numerai_pipeline.errors import PipelineError
from numerai_pipeline.leases import Lease, noted
from numerai_pipeline.locks import lock_path, locked
from numerai_pipeline.manifests import SUFFIX, discard, manifest_path
from numerai_pipeline.reaper import find_orphans
from numerai_pipeline.run_layout import DataLayout, RunLayout

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from numerai_pipeline.container_backend import Backend
    from numerai_pipeline.container_labels import ContainerLabels
    from numerai_pipeline.data_volume import DataVolume

log = logging.getLogger(__name__)

_TAKEN_AWAY = ".removed-"


@dataclass
class Sweep:
    """One clean-up: what it may do, and what it has done.

    Attributes
    ----------
    now : datetime
        The moment from which ages are counted, with its time zone.
    dry_run : bool
        Whether it only says what it would remove.
    removed : list of str
        What was, or would be, removed.
    freed : int
        Bytes of it.
    failures : list of str
        What could not be removed, and why.
    """

    now: datetime
    dry_run: bool = False
    removed: list[str] = field(default_factory=list)
    freed: int = 0
    failures: list[str] = field(default_factory=list)

    def older_than(self, moment: datetime, days: int) -> bool:
        """Whether a moment lies more than so many days back."""
        return self.now - moment > timedelta(days=days)

    def remove(self, name: str, size: int, since: datetime, action: Callable[[], object]) -> None:
        """Remove one thing of ``size`` bytes, last used at ``since``, and say so; note it when that fails."""
        days = (self.now - since) / timedelta(days=1)
        if not self.dry_run:
            try:
                action()
            except Exception as error:  # noqa: BLE001 - whatever it is, the rest can be removed all the same
                self.failures.append(f"{name}: {error}")
                return
        self.removed.append(name)
        self.freed += size
        log.info("%s %s: %s, %.1f days old", "would remove" if self.dry_run else "removed", name, megabytes(size), days)

    def finish(self) -> dict[str, Any]:
        """Say what was freed.

        Raises
        ------
        PipelineError
            Naming what could not be removed.
        """
        said = "would free %s: %d to be removed" if self.dry_run else "freed %s: %d removed"
        log.info(said, megabytes(self.freed), len(self.removed))
        if self.failures:
            msg = f"{len(self.failures)} could not be removed: {'; '.join(self.failures)}"
            raise PipelineError(msg)
        return {"removed": self.removed, "bytes": self.freed, "dry_run": self.dry_run}


@dataclass(frozen=True)
class _RunDirectory:
    path: Path
    source: str | None
    since: datetime
    size: int

    @property
    def round(self) -> str:
        return self.path.parent.name


def remove_runs(
    sweep: Sweep,
    data: DataLayout,
    *,
    keep_rounds: int,
    keep_days: int,
    mounted: Callable[[Path], bool],
    is_active: Callable[[Lease], bool],
) -> None:
    """Remove the directories of runs that are old, of no late round, and in nobody's use.

    Parameters
    ----------
    sweep : Sweep
        The clean-up.
    data : DataLayout
        The data volume.
    keep_rounds, keep_days : int
        How many rounds of each source, and what age in days, are kept.
    mounted : callable
        Tells whether a container works in a directory.
    is_active : callable
        Tells whether Airflow still has a run to do.
    """
    for left in sorted(data.rounds.glob(f"{_TAKEN_AWAY}*")):
        size, since = _weigh(left)
        sweep.remove(f"{left.name} (left over)", size, since, partial(shutil.rmtree, left))
    with nullcontext() if sweep.dry_run else locked(data.rounds_lock, "alone"):
        doomed = [
            run
            for run in _not_among_last_rounds(list(_run_directories(data)), keep_rounds)
            if sweep.older_than(run.since, keep_days)
            and not mounted(run.path)
            and not any(map(is_active, noted(run.path)))
        ]
        away = {run.path: run.path if sweep.dry_run else _take_away(run.path, data.rounds) for run in doomed}
    for run in doomed:
        name = str(run.path.relative_to(data.root))
        sweep.remove(name, run.size, run.since, partial(shutil.rmtree, away[run.path]))


def _take_away(directory: Path, rounds: Path) -> Path:
    """Give a run's directory a name that no run looks for, in one step; remove its round's folder if that is empty."""
    name = f"{_TAKEN_AWAY}{directory.parent.name}-{directory.name}-{uuid.uuid4().hex[:8]}"
    away = directory.rename(rounds / name)
    if not any(directory.parent.iterdir()):
        directory.parent.rmdir()
    return away


def _run_directories(data: DataLayout) -> Iterator[_RunDirectory]:
    for path in sorted(data.rounds.glob("*/*")):
        hidden = path.name.startswith(".") or path.parent.name.startswith(".")
        if path.is_dir() and not path.is_symlink() and not hidden:
            size, since = _weigh(path)
            yield _RunDirectory(path, _source(path), since, size)


def _source(directory: Path) -> str | None:
    """Source of a run; None where a run never came so far as to say."""
    try:
        facts = json.loads(RunLayout(directory).run_facts.read_text(encoding="utf-8"))
        return str(facts["source"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _not_among_last_rounds(runs: Sequence[_RunDirectory], keep_rounds: int) -> Iterator[_RunDirectory]:
    kept = _last_rounds(runs, keep_rounds)
    return (run for run in runs if run.source is None or run.round not in kept[run.source])


def _last_rounds(runs: Sequence[_RunDirectory], keep_rounds: int) -> dict[str, set[str]]:
    """Source → the names of its last rounds; the sources number their rounds each for itself."""
    sources = {run.source for run in runs if run.source is not None}
    return {
        source: set(sorted({run.round for run in runs if run.source == source}, key=_round_number)[-keep_rounds:])
        for source in sources
    }


def _round_number(name: str) -> int:
    return int(name) if name.isdecimal() else 0


def remove_downloads(sweep: Sweep, data: DataLayout, *, keep_rounds: int, keep_days: int) -> None:
    """Remove downloads that no run asked for in ``keep_days``, but for the live data of the last rounds.

    Removes unfinished files of that age, too: downloads broken off, and what a killed container left in a run's
    directory.
    """
    kept = _last_rounds(list(_run_directories(data)), keep_rounds)
    for file in sorted(_downloaded(data.all_downloads)):
        source = file.relative_to(data.all_downloads).parts[0]
        if file.parent.name.removeprefix("round-") in kept.get(source, ()) and file.parent.name.startswith("round-"):
            continue
        if sweep.older_than(_last_use(file), keep_days):
            _remove_download(sweep, data, file, keep_days)
    for file in sorted([*data.all_downloads.rglob("*.part"), *data.rounds.glob("*/*/**/*.part")]):
        since = _modified(file)
        if file.is_file() and since and sweep.older_than(since, keep_days):
            name = str(file.relative_to(data.root))
            sweep.remove(name, file.stat().st_size, since, partial(file.unlink, missing_ok=True))
    if not sweep.dry_run:
        _remove_empty_folders(data.all_downloads)


def _downloaded(folder: Path) -> Iterator[Path]:
    """Every download, finished or without its manifest, and every manifest without its download."""
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink() and not path.name.startswith("."):
            if not path.name.endswith(SUFFIX):
                yield path
            elif not (of := path.with_name(path.name.removesuffix(SUFFIX))).exists():
                yield of


def _remove_download(sweep: Sweep, data: DataLayout, file: Path, keep_days: int) -> None:

    with nullcontext(True) if sweep.dry_run else locked(lock_path(file), "alone", wait=False) as held:
        since = _last_use(file)
        # a run may have asked for it between the first look and the lock
        if held and sweep.older_than(since, keep_days):
            size = file.stat().st_size if file.exists() else 0
            sweep.remove(str(file.relative_to(data.root)), size, since, partial(discard, file))


def _remove_empty_folders(downloads: Path) -> None:
    """Remove folders in which nothing but locks is left; one in which a download begins meanwhile stays."""
    folders = [path for path in downloads.rglob("*") if path.is_dir() and not path.is_symlink()]
    for folder in sorted(folders, key=lambda path: len(path.parts), reverse=True):
        left = list(folder.iterdir())
        if all(path.name.startswith(".") and path.name.endswith(".lock") for path in left):
            for path in left:
                path.unlink(missing_ok=True)
            if not any(folder.iterdir()):
                folder.rmdir()


def remove_containers(
    sweep: Sweep,
    backend: Backend,
    deployment: str,
    *,
    keep_days: int,
    is_active: Callable[[ContainerLabels], bool],
) -> None:
    """Remove a deployment's containers whose task is no longer active, some days after they ended or were created.

    Parameters
    ----------
    sweep : Sweep
        The clean-up.
    backend : Backend
        The platform with the containers.
    deployment : str
        Id of the deployment.
    keep_days : int
        Days for which they stay.
    is_active : callable
        Whether the task of these labels is active.
    """
    for container in find_orphans(backend, deployment, is_active):
        since = backend.last_change(container.id)
        if since is not None and sweep.older_than(since, keep_days):
            labels = container.labels
            name = f"{backend.kind} {container.id[:12]} ({container.status}) of {labels.task}, {labels.run}"
            size = backend.written_bytes(container)
            sweep.remove(name, size, since, partial(backend.request_removal, container.id))


def mounted_by_containers(backends: Sequence[Backend], deployment: str, volume: DataVolume) -> Callable[[Path], bool]:
    """Return a function that checks whether a running container of a deployment mounts a directory of the volume."""
    containers = [each for backend in backends for each in backend.find([deployment_filter(deployment)])]
    # a container mounts its workspace in the directory, and files of the directory
    places = {PurePosixPath(source) for each in containers if not each.has_ended for source in each.sources}
    return lambda directory: any(place.is_relative_to(volume.host_path(directory)) for place in places)


def _weigh(folder: Path) -> tuple[int, datetime]:
    """Bytes of all files in a folder, and when anything in it was last written; what vanishes meanwhile is left out."""
    size, newest = 0, folder.lstat().st_mtime
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):
            seen = path.lstat()
            newest = max(newest, seen.st_mtime)
            size += seen.st_size if stat.S_ISREG(seen.st_mode) else 0
    return size, datetime.fromtimestamp(newest, tz=UTC)


def _modified(path: Path) -> datetime | None:
    try:
        return datetime.fromtimestamp(path.lstat().st_mtime, tz=UTC)
    except FileNotFoundError:
        return None


def _last_use(file: Path) -> datetime:
    """When a download was last made or asked for; now, if it is gone: then there is nothing to remove."""
    moments = [moment for path in (file, manifest_path(file)) if (moment := _modified(path))]
    return max(moments, default=datetime.now(tz=UTC))
