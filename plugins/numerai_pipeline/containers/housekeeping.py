"""Finds and deletes old runs, results, downloads and containers.

Nothing that is in use is removed:

- the directory of a run that is queued or running in Airflow, by its metadata (``run.json``);
- results and datasets that a kept run uses (``used_objects.py``), and results that a process
  makes at present (its claim);
- files written, and downloads requested, within ``keep_days``, at least seven days: the longest time that a run may
  take between two of its tasks;
- the files of the last ``keep_rounds`` rounds of each source, at any age;
- containers without the labels of this data volume and this deployment.

A removal may be killed at any time. A directory is renamed before its content is deleted, so it exists completely or
not at all; a download loses its manifest first, and without a manifest the file does not count. The next clean-up
deletes the leftovers of a killed one.
"""

from __future__ import annotations

import json
import logging
import shutil
import stat
import uuid
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from numerai_pipeline.containers.orphans import find_orphans
from numerai_pipeline.containers.workspace import CONTAINER_SUFFIX
from numerai_pipeline.core.errors import PipelineError
from numerai_pipeline.storage.disk import megabytes
from numerai_pipeline.storage.layout import REMOVED_PREFIX, DataLayout, RunLayout
from numerai_pipeline.storage.locks import file_lock, lock_path
from numerai_pipeline.storage.manifests import SUFFIX, discard, manifest_path
from numerai_pipeline.storage.results import RECORD, ResultStore
from numerai_pipeline.storage.used_objects import RunRef, UsedObjects, read_metadata, run_ref, used_objects

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from numerai_pipeline.containers.backend import Backend, FoundContainer

log = logging.getLogger(__name__)


@dataclass
class Cleanup:
    """One clean-up: its settings and its result.

    Attributes
    ----------
    now : datetime
        The time from which ages are counted, with its time zone.
    dry_run : bool
        Whether to log the removals only, without removing anything.
    removed : list of str
        Names of the removed objects, or in a dry run of those to be removed.
    freed : int
        Their size in bytes.
    failures : list of str
        Objects that could not be removed, each with the reason.
    """

    now: datetime
    dry_run: bool = False
    removed: list[str] = field(default_factory=list)
    freed: int = 0
    failures: list[str] = field(default_factory=list)

    def older_than(self, moment: datetime, days: int) -> bool:
        """Check whether a moment is more than a number of days ago."""
        return self.now - moment > timedelta(days=days)

    def remove(self, name: str, size: int, since: datetime, action: Callable[[], object]) -> None:
        """Remove one object of ``size`` bytes, last used at ``since``; log the removal, or record its failure."""
        days = (self.now - since) / timedelta(days=1)
        if not self.dry_run:
            try:
                action()
            except Exception as error:  # noqa: BLE001 - one failure must not stop the other removals
                self.failures.append(f"{name}: {error}")
                return
        self.removed.append(name)
        self.freed += size
        log.info("%s %s: %s, %.1f days old", "would remove" if self.dry_run else "removed", name, megabytes(size), days)

    def finish(self) -> dict[str, Any]:
        """Log the freed size and return the result.

        Raises
        ------
        PipelineError
            Naming the objects that could not be removed.
        """
        template = "would free %s: %d to be removed" if self.dry_run else "freed %s: %d removed"
        log.info(template, megabytes(self.freed), len(self.removed))
        if self.failures:
            msg = f"{len(self.failures)} could not be removed: {'; '.join(self.failures)}"
            raise PipelineError(msg)
        return {"removed": self.removed, "bytes": self.freed, "dry_run": self.dry_run}


@dataclass(frozen=True)
class _RunDirectory:
    path: Path
    source: str | None
    run: RunRef | None
    since: datetime
    size: int

    @property
    def round(self) -> str:
        return self.path.parent.name


def remove_runs(
    cleanup: Cleanup, data: DataLayout, *, keep_rounds: int, keep_days: int, is_active: Callable[[RunRef], bool]
) -> None:
    """Remove the directories of old runs that are not in use and not of one of the last rounds.

    The records of submissions for such rounds are removed as well.

    Parameters
    ----------
    cleanup : Cleanup
        The clean-up.
    data : DataLayout
        The data volume.
    keep_rounds, keep_days : int
        Number of rounds of each source, and age in days, to keep.
    is_active : callable
        Checks whether a run is queued or running in Airflow.
    """
    _remove_leftovers(cleanup, data.rounds)
    runs = list(_run_directories(data))
    for run in _old_runs(cleanup, runs, keep_rounds=keep_rounds, keep_days=keep_days, is_active=is_active):
        name = str(run.path.relative_to(data.root))
        cleanup.remove(name, run.size, run.since, partial(_remove_run, run.path, data.rounds))
    _remove_leftovers(cleanup, data.submissions_root)
    kept = _last_rounds(runs, keep_rounds)
    for records in _directories(data.submissions_root, "*/*"):
        size, since = _size_and_mtime(records)
        if records.name not in kept.get(records.parent.name, ()) and cleanup.older_than(since, keep_days):
            remove = partial(_remove_directory, records, data.submissions_root)
            cleanup.remove(str(records.relative_to(data.root)), size, since, remove)


def _old_runs(
    cleanup: Cleanup,
    runs: Sequence[_RunDirectory],
    *,
    keep_rounds: int,
    keep_days: int,
    is_active: Callable[[RunRef], bool],
) -> list[_RunDirectory]:
    """List the runs to remove; Airflow is queried before any is removed."""
    return [
        run
        for run in _not_among_last_rounds(runs, keep_rounds)
        if cleanup.older_than(run.since, keep_days) and not (run.run and is_active(run.run))
    ]


def remove_results(
    cleanup: Cleanup, data: DataLayout, *, keep_rounds: int, keep_days: int, is_active: Callable[[RunRef], bool]
) -> None:
    """Remove results and datasets that no kept run uses, and the workspaces of lost containers.

    Fits of the datasets that kept runs name stay as well: a run that starts now may use them.

    Parameters
    ----------
    cleanup : Cleanup
        The clean-up.
    data : DataLayout
        The data volume.
    keep_rounds, keep_days, is_active
        As for :func:`remove_runs`: the runs that it keeps. Files younger than ``keep_days`` stay.
    """
    runs = list(_run_directories(data))
    old = _old_runs(cleanup, runs, keep_rounds=keep_rounds, keep_days=keep_days, is_active=is_active)
    used = used_objects(data, [RunLayout(run.path) for run in runs if run not in old])
    store = ResultStore(data)
    for root in (data.results_root, data.datasets_root, data.work_root):
        _remove_leftovers(cleanup, root)

    for path, root, claimed in _unused(data, used):
        size, since = _size_and_mtime(path)
        if cleanup.older_than(since, keep_days):
            with _claim(cleanup, store, path) if claimed else nullcontext(True) as held:
                if held:
                    name = str(path.relative_to(data.root))
                    cleanup.remove(name, size, since, partial(_remove_directory, path, root))
    _remove_stale_files(cleanup, data, keep_days)


def _unused(data: DataLayout, used: UsedObjects) -> Iterator[tuple[Path, Path, bool]]:
    """Yield the unused directories: each with its root, and whether a process may have a claim on it."""
    for path in _directories(data.results_root, "*/*"):
        if path not in used.results and not _is_usable_fit(path, used):
            yield path, data.results_root, True
    for path in _directories(data.datasets_root, "*"):
        if path.name not in used.datasets:
            yield path, data.datasets_root, False
    for path in _directories(data.work_root, "*/*"):
        yield path, data.work_root, True


def _is_usable_fit(path: Path, used: UsedObjects) -> bool:
    """Whether a result is a fit of a dataset that a kept run may predict with."""
    try:
        content = json.loads((path / RECORD).read_text(encoding="utf-8"))
        return bool(content["kind"] == "fit" and content["dataset"] in used.datasets)
    except (OSError, ValueError, KeyError, TypeError):
        return False


@contextmanager
def _claim(cleanup: Cleanup, store: ResultStore, path: Path) -> Iterator[bool]:
    """Claim a result or its workspace for a removal; yields False when another process has the claim."""
    task, key = path.parent.name, path.name
    if cleanup.dry_run:
        yield not store.is_claimed(task, key)
    else:
        with store.claim(task, key) as held:
            yield held


def _remove_stale_files(cleanup: Cleanup, data: DataLayout, keep_days: int) -> None:
    """Remove old lock files, markers of lost containers, and unfinished directories of killed processes."""
    hidden = (data.datasets_root, *_directories(data.results_root, "*"))
    locks = [*data.work_root.glob("*/*.lock"), *(lock for folder in hidden for lock in folder.glob(".*.lock"))]
    parts = [part for folder in hidden for part in folder.glob(".*.part")]
    actions: dict[Path, Callable[[], object]] = {
        **{lock: partial(_remove_lock, lock) for lock in locks if not _locked_path(lock).exists()},
        **{
            marker: partial(marker.unlink, missing_ok=True)
            for pattern in ("*/*.continues.json", f"*/*{CONTAINER_SUFFIX}")
            for marker in data.work_root.glob(pattern)
        },
        **{part: partial(shutil.rmtree, part) for part in parts if part.is_dir()},
    }
    for path, action in sorted(actions.items()):
        with suppress(FileNotFoundError):  # published or removed meanwhile
            size, since = _size_and_mtime(path)
            if cleanup.older_than(since, keep_days):
                cleanup.remove(str(path.relative_to(data.root)), size, since, action)


def _locked_path(lock: Path) -> Path:
    return lock.with_name(lock.name.removeprefix(".").removesuffix(".lock"))


def _remove_lock(lock: Path) -> None:
    with file_lock(lock) as held:
        if held:
            lock.unlink(missing_ok=True)


def _remove_leftovers(cleanup: Cleanup, root: Path) -> None:
    """Remove the directories that a killed removal renamed."""
    for leftover in sorted(root.glob(f"{REMOVED_PREFIX}*")):
        size, since = _size_and_mtime(leftover)
        cleanup.remove(f"{leftover.name} (leftover)", size, since, partial(shutil.rmtree, leftover))


def _remove_run(directory: Path, rounds: Path) -> None:
    """Remove a run's directory, and the folder of its round if that is then empty."""
    renamed = _rename_for_removal(directory, rounds)
    with suppress(OSError):  # the round has other runs
        directory.parent.rmdir()
    shutil.rmtree(renamed)


def _remove_directory(directory: Path, root: Path) -> None:
    """Remove a directory; it disappears as a whole before its files do."""
    shutil.rmtree(_rename_for_removal(directory, root))


def _rename_for_removal(directory: Path, root: Path) -> Path:
    """Rename a directory to a name in the root that no process uses."""
    name = "-".join((*directory.relative_to(root).parts, uuid.uuid4().hex[:8]))
    return directory.rename(root / f"{REMOVED_PREFIX}{name}")


def _directories(root: Path, pattern: str) -> Iterator[Path]:
    """Yield the directories below a root; hidden ones and links are not included."""
    for path in sorted(root.glob(pattern)):
        hidden = any(part.startswith(".") for part in path.relative_to(root).parts)
        if path.is_dir() and not path.is_symlink() and not hidden:
            yield path


def _run_directories(data: DataLayout) -> Iterator[_RunDirectory]:
    for path in _directories(data.rounds, "*/*"):
        size, since = _size_and_mtime(path)
        metadata = read_metadata(RunLayout(path))
        source = metadata.get("source")  # unknown where the run stopped before it wrote its metadata
        yield _RunDirectory(path, str(source) if source else None, run_ref(metadata), since, size)


def _not_among_last_rounds(runs: Sequence[_RunDirectory], keep_rounds: int) -> Iterator[_RunDirectory]:
    kept = _last_rounds(runs, keep_rounds)
    return (run for run in runs if run.source is None or run.round not in kept[run.source])


def _last_rounds(runs: Sequence[_RunDirectory], keep_rounds: int) -> dict[str, set[str]]:
    """Return source → the names of its last rounds; each source numbers its rounds independently."""
    sources = {run.source for run in runs if run.source is not None}
    return {
        source: set(sorted({run.round for run in runs if run.source == source}, key=_round_number)[-keep_rounds:])
        for source in sources
    }


def _round_number(name: str) -> int:
    return int(name) if name.isdecimal() else 0


def remove_downloads(cleanup: Cleanup, data: DataLayout, *, keep_rounds: int, keep_days: int) -> None:
    """Remove downloads that no run requested within ``keep_days``, except the live data of the last rounds.

    Unfinished files of that age are removed, too, also those in a run's directory.
    """
    kept = _last_rounds(list(_run_directories(data)), keep_rounds)
    for file in sorted(_download_paths(data.downloads_root)):
        source = file.relative_to(data.downloads_root).parts[0]
        if file.parent.name.removeprefix("round-") in kept.get(source, ()) and file.parent.name.startswith("round-"):
            continue
        if cleanup.older_than(_last_use(file), keep_days):
            _remove_download(cleanup, data, file, keep_days)
    for file in sorted([*data.downloads_root.rglob("*.part"), *data.rounds.glob("*/*/**/*.part")]):
        since = _modified(file)
        if file.is_file() and since and cleanup.older_than(since, keep_days):
            name = str(file.relative_to(data.root))
            cleanup.remove(name, file.stat().st_size, since, partial(file.unlink, missing_ok=True))
    if not cleanup.dry_run:
        _remove_empty_folders(data.downloads_root)


def _download_paths(folder: Path) -> Iterator[Path]:
    """Yield each download, with or without its manifest, and the file name of each manifest without its download."""
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink() and not path.name.startswith("."):
            if not path.name.endswith(SUFFIX):
                yield path
            elif not (of := path.with_name(path.name.removesuffix(SUFFIX))).exists():
                yield of


def _remove_download(cleanup: Cleanup, data: DataLayout, file: Path, keep_days: int) -> None:
    with nullcontext(True) if cleanup.dry_run else file_lock(lock_path(file)) as held:
        since = _last_use(file)
        # a run may have requested it between the first check and the lock
        if held and cleanup.older_than(since, keep_days):
            size = file.stat().st_size if file.exists() else 0
            cleanup.remove(str(file.relative_to(data.root)), size, since, partial(discard, file))


def _remove_empty_folders(downloads: Path) -> None:
    """Remove folders that hold lock files only; a folder in which a download starts meanwhile stays."""
    folders = [path for path in downloads.rglob("*") if path.is_dir() and not path.is_symlink()]
    for folder in sorted(folders, key=lambda path: len(path.parts), reverse=True):
        entries = list(folder.iterdir())
        if all(path.name.startswith(".") and path.name.endswith(".lock") for path in entries):
            for path in entries:
                path.unlink(missing_ok=True)
            if not any(folder.iterdir()):
                folder.rmdir()


def remove_containers(
    cleanup: Cleanup,
    backend: Backend,
    volume: str,
    deployment: str,
    *,
    keep_days: int,
    is_active: Callable[[FoundContainer], bool],
) -> None:
    """Remove a deployment's containers whose task is no longer active, some days after they ended or were created.

    Parameters
    ----------
    cleanup : Cleanup
        The clean-up.
    backend : Backend
        The platform with the containers.
    volume, deployment, is_active
        As for :func:`numerai_pipeline.containers.orphans.find_orphans`.
    keep_days : int
        Days for which they stay.
    """
    for container in find_orphans(backend, volume, deployment, is_active):
        since = backend.last_change(container.id)
        if since is not None and cleanup.older_than(since, keep_days):
            labels = container.labels
            name = f"{backend.kind} {container.id[:12]} ({container.status}) of {labels.task}, {labels.run}"
            size = backend.written_bytes(container)
            cleanup.remove(name, size, since, partial(backend.request_removal, container.id))


def _size_and_mtime(folder: Path) -> tuple[int, datetime]:
    """Return the bytes of all files in a folder and its last modification; files that vanish meanwhile are ignored."""
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
    """Return when a download was last written or requested; now if it no longer exists, so that it is not removed."""
    moments = [moment for path in (file, manifest_path(file)) if (moment := _modified(path))]
    return max(moments, default=datetime.now(tz=UTC))
