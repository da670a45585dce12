"""The workspace of a container: the directory that it has as ``/data``.

The container's inputs are mounted there one by one, read-only; the rest is writable. A container, or a kill at any
moment, can therefore damage neither the data nor the results of another task: finished outputs are checked here and
leave the workspace by one rename (``storage/results.py``), and incomplete ones are removed with it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import stat
import uuid
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from numerai_pipeline.containers.data_volume import chown_for
from numerai_pipeline.core.errors import BadInputError
from numerai_pipeline.storage.layout import REMOVED_PREFIX
from numerai_pipeline.storage.manifests import atomic_path

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

log = logging.getLogger(__name__)

MODEL = "model"
"""The folder of the fit."""
_COMPLETE = "model.json"
CONTAINER_SUFFIX = ".container"
"""Suffix of the file beside a workspace that names its container."""


@dataclass(frozen=True)
class Workspace:
    """The workspace of the container that makes one result.

    Attributes
    ----------
    directory : Path
        The workspace.
    inputs : mapping
        Name in the container, below ``/data`` → the file or folder that is mounted there, read-only.
    keeps_parts : bool
        Whether the next attempt continues with the finished files of an unfinished fit.
    """

    directory: Path
    inputs: Mapping[str, Path]
    keeps_parts: bool = False

    @property
    def model(self) -> Path:
        """The fit that the container makes."""
        return self.directory / MODEL

    @property
    def has_fit(self) -> bool:
        """Whether the container, or one of an earlier attempt, has finished the fit."""
        return self.is_plain(self.model / _COMPLETE)

    @property
    def container(self) -> str | None:
        """Id of the container whose workspace this is; empty before it is created, None if there is no record."""
        try:
            return self._container_record.read_text(encoding="ascii")
        except FileNotFoundError:
            return None

    def record_container(self, container_id: str) -> None:
        """Record the container whose workspace this is."""
        with atomic_path(self._container_record) as temporary:
            temporary.write_text(container_id, encoding="ascii")

    @property
    def _container_record(self) -> Path:
        return self.directory.with_suffix(CONTAINER_SUFFIX)

    def prepare(self, user: str) -> None:
        """Create the workspace for a container that runs as ``user``.

        Of an earlier container only a finished fit, or the finished parts of one, are in it. It is another directory
        than the earlier container's, which may still run and write: on the engine of a lost Celery worker, or for
        another Airflow on the same data volume.
        """
        root, name = self.directory.parent.parent, "-".join(self.directory.parts[-2:])
        # housekeeping removes directories of this name
        aside = root / f"{REMOVED_PREFIX}{name}-{uuid.uuid4().hex[:8]}"
        # those of attempts that were killed between the rename and the end of this function come last
        earlier = [replace(self, directory=path) for path in (aside, *root.glob(f"{REMOVED_PREFIX}{name}-*"))]
        self.record_container("")
        with contextlib.suppress(FileNotFoundError):
            self.directory.rename(aside)
        for folder in (self.directory, *(self.directory / name for name in ("predictions", "reports", "live"))):
            chown_for(user, folder)
        if MODEL not in self.inputs:
            chown_for(user, self.model)
        for name, source in self.inputs.items():
            # a mount needs a target; created by the engine, it would belong to root, and Airflow could not remove it
            target = self.directory / name
            folder = target if source.is_dir() else target.parent
            for each in reversed([folder, *folder.parents]):
                if each.is_relative_to(self.directory):
                    chown_for(user, each)
            if not source.is_dir():
                target.touch()
        if MODEL not in self.inputs:
            self._take_fit(earlier, user)
        for workspace in earlier:
            shutil.rmtree(workspace.directory, ignore_errors=True)

    def _take_fit(self, earlier: Sequence[Workspace], user: str) -> None:
        """Link the files of a finished fit, or its finished parts, from the first workspace that has them."""
        found = next((each for each in earlier if each.has_fit), None)
        if found is None and self.keeps_parts:
            found = next((each for each in earlier if each.model.is_dir() and not each.model.is_symlink()), None)
        if found is None:
            return
        part = self.directory / f".{MODEL}.part"
        unfinished = shutil.ignore_patterns("*.part")
        shutil.copytree(found.model, part, symlinks=True, ignore=unfinished, copy_function=os.link)
        for path, _, _ in os.walk(part):
            chown_for(user, Path(path))
        # at once: a kill must not leave a part of a finished fit that counts as finished
        self.model.rmdir()
        part.rename(self.model)

    def reset(self) -> None:
        """Remove everything but a finished fit, or the finished parts of one; without them, the workspace as well."""
        keep = self.has_fit or self.keeps_parts
        for path in self.directory.iterdir() if self.directory.is_dir() else ():
            if path.name == MODEL and keep:
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # it is not empty, or was never created
            self.directory.rmdir()

    def remove(self) -> None:
        """Remove the workspace, and the folder of the task's workspaces if it is empty then."""
        shutil.rmtree(self.directory, ignore_errors=True)
        self._container_record.unlink(missing_ok=True)
        if self.directory.exists():
            log.warning("%s could not be removed: parts of it belong to another user", self.directory)
        try:
            self.directory.parent.rmdir()
        except OSError:
            return  # another workspace is in it, or it was never created

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
