"""The workspace of a task's container: the directory that it has as ``/data``.

The container's inputs are mounted there one by one, read-only; the rest is writable. After a successful exit, declared
outputs are moved to the run directory; each manifest is moved last. A container, or a kill at any moment, can therefore
damage neither the data nor the predictions of another task, and incomplete outputs are removed with the workspace.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from numerai_pipeline.containers.data_volume import chown_for
from numerai_pipeline.core.errors import BadInputError
from numerai_pipeline.storage.layout import RunLayout
from numerai_pipeline.storage.manifests import SUFFIX, atomic_path, discard, manifest_path, verified_manifest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

log = logging.getLogger(__name__)

# folders of a run's directory in which only declared outputs are allowed
_RESERVED_FOLDERS = frozenset({"predictions", "images", "submissions", "logs"})


@dataclass(frozen=True)
class Workspace:
    """The workspace of one task in one run's directory.

    Attributes
    ----------
    run : RunLayout
        The run's directory.
    task : str
        The task.
    read_only : tuple of Path
        Files of the run that the container may read; their manifests come with them.
    hidden : tuple of Path
        Files of the run that are empty for the container.
    outputs : tuple of str
        Files that it produces, relative to the run's directory.
    resumable : tuple of str
        Outputs from which a next attempt can resume: finished parts of a long preprocessing task.
    reserved : frozenset of str
        Outputs of other tasks, which this one must not produce.
    writes_evaluations : bool
        Whether it may produce reports on other models (``reports/evaluation/``).
    """

    run: RunLayout
    task: str
    read_only: tuple[Path, ...] = ()
    hidden: tuple[Path, ...] = ()
    outputs: tuple[str, ...] = ()
    resumable: tuple[str, ...] = ()
    reserved: frozenset[str] = field(default_factory=frozenset)
    writes_evaluations: bool = False

    @property
    def directory(self) -> Path:
        """The workspace."""
        return self.run.workspace(self.task)

    @property
    def container_layout(self) -> RunLayout:
        """The paths of the container's outputs, named as in the run's directory."""
        return RunLayout(self.directory)

    def readable(self) -> tuple[Path, ...]:
        """List the files of the run that are mounted read-only: the inputs and their manifests."""
        manifests = (manifest_path(path) for path in self.read_only)
        return tuple(dict.fromkeys((*self.read_only, *(path for path in manifests if path.is_file()))))

    def prepare(self, user: str) -> None:
        """Create the workspace for a container that runs as ``user``.

        Files of an earlier container are removed, except finished resumable outputs. The outputs are removed from the
        run's directory as well, so that an old file is never taken for a result of this container.
        """
        self.rescue_partial_outputs()
        for name in {*self.outputs, *self._recorded_outputs()}.difference(self.resumable):
            discard(self.run.directory / name)
        self._record.unlink(missing_ok=True)
        outputs = self.container_layout
        for folder in (self.directory, outputs.predictions_directory, outputs.reports_directory):
            chown_for(user, folder)
        for path in (*self.readable(), *self.hidden):
            # a mount needs a target; created by the engine, it would belong to root, and Airflow could not remove it
            target = self.directory / path.relative_to(self.run.directory)
            self._chown_folders(user, target.parent)
            target.touch()
        for name in self.resumable:
            for source in (self.run.directory / name, manifest_path(self.run.directory / name)):
                if source.is_file():
                    target = self.directory / source.relative_to(self.run.directory)
                    self._chown_folders(user, target.parent)
                    _link(source, target)

    def collect_outputs(self, image: str) -> None:
        """Move the container's outputs to the run's directory; record their names and the image.

        Can be interrupted at any moment and repeated.
        """
        moved = []
        for name in self._produced_files():
            if self._is_allowed_output(name):
                self._move_output(name)
                moved.append(name)
            else:
                log.warning("%s: ignoring undeclared output %s", self.task, name)
        with atomic_path(self._record) as temporary:
            # an attempt that was killed may have moved some of them
            content = {"image": image, "files": sorted({*moved, *self._recorded_outputs()})}
            temporary.write_text(json.dumps(content) + "\n", encoding="utf-8")

    def rescue_partial_outputs(self) -> None:
        """Remove the workspace; move its finished resumable outputs to the run's directory."""
        for name in self.resumable:
            path = self.directory / name
            if self.is_plain(path) and self.is_plain(manifest_path(path)) and verified_manifest(path):
                self._move_output(name)
        self.remove()

    def remove(self) -> None:
        """Remove the workspace, and the folder of all workspaces if it is empty then."""
        shutil.rmtree(self.directory, ignore_errors=True)
        if self.directory.exists():
            log.warning("%s could not be removed: parts of it belong to another user", self.directory)
        try:
            self.directory.parent.rmdir()
        except OSError:
            return  # another task's workspace is in it, or it was never created

    def check_plain(self, path: Path) -> None:
        """Check that a path in the workspace is a regular file, if it exists.

        Raises
        ------
        BadInputError
            When the container produced a link, which may lead out of the workspace, or another kind of file.
        """
        if os.path.lexists(path) and not self.is_plain(path):
            msg = f"{path.relative_to(self.directory)}: the container produced something other than a regular file"
            raise BadInputError(msg)

    def is_plain(self, path: Path) -> bool:
        """Whether a path is a regular file, reached without a link below the workspace."""
        try:
            parents = [parent for parent in path.parents if parent.is_relative_to(self.directory)]
            return stat.S_ISREG(path.lstat().st_mode) and all(stat.S_ISDIR(each.lstat().st_mode) for each in parents)
        except OSError:
            return False

    @property
    def _record(self) -> Path:
        return self.run.image_record(self.task)

    def _recorded_outputs(self) -> list[str]:
        """List the outputs that were moved before."""
        try:
            files = json.loads(self._record.read_text(encoding="utf-8"))["files"]
        except (OSError, ValueError, LookupError, TypeError):
            return []
        return [str(name) for name in files]

    def _produced_files(self) -> Iterator[str]:
        """List the files of the container, without manifests, temporary files and targets of mounts."""
        mounted = {path.relative_to(self.run.directory) for path in (*self.readable(), *self.hidden)}
        # os.walk does not follow links
        for folder, folders, files in os.walk(self.directory):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            for file in sorted(files):
                path = self.directory / folder / file
                name = path.relative_to(self.directory)
                if file.startswith(".") or file.endswith(SUFFIX) or name in mounted:
                    continue
                if self.is_plain(path):
                    yield str(name)
                else:
                    log.warning("%s: ignoring %s, which is not a regular file", self.task, name)

    def _is_allowed_output(self, name: str) -> bool:
        if name in self.outputs:
            return True
        folder, _, rest = name.partition("/")
        if not rest or folder in _RESERVED_FOLDERS or name in self.reserved:
            return False
        if folder == "reports":
            return self.writes_evaluations if "/" in rest else rest.partition(".")[0] == self.task
        return True

    def _move_output(self, name: str) -> None:
        source, target = self.directory / name, self.run.directory / name
        manifest = manifest_path(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        manifest_path(target).unlink(missing_ok=True)
        _move(source, target)
        if self.is_plain(manifest):
            _move(manifest, manifest_path(target))

    def _chown_folders(self, user: str, folder: Path) -> None:
        for each in reversed([folder, *folder.parents]):
            if each.is_relative_to(self.directory):
                chown_for(user, each)


def _link(source: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:  # a file system without links, or a file of another user
        shutil.copy(source, target)


def _move(source: Path, target: Path) -> None:
    try:
        source.replace(target)
    except OSError:  # the folder belongs to another user: its files can be copied, not moved
        with atomic_path(target) as temporary:
            shutil.copyfile(source, temporary)
