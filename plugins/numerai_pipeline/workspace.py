"""What a task's container has of its run's directory: inputs it can only read, and a place of its own to write to.

A container sees its workspace as ``/data``. The files it may read are mounted there one by one, read-only; all else in
it is its own. When it has ended well, what it should leave is brought home to the run's directory, each file whole and
its manifest last. So nothing that a container does, and no moment at which it is killed, can harm the data or
another's predictions, and what it left half-done goes with the workspace.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from numerai_pipeline.data_volume import chown_for
from numerai_pipeline.errors import BadInputError
from numerai_pipeline.manifests import SUFFIX, atomic_path, discard, manifest_path, verified_manifest
from numerai_pipeline.run_layout import RunLayout

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

log = logging.getLogger(__name__)

# Folders of a run's directory in which a container may leave only what is declared.
_RESERVED = frozenset({"predictions", "images", "submissions", "logs"})


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
        Files of the run that it must not know: it finds them empty.
    outputs : tuple of str
        Files it leaves, relative to the run's directory.
    kept : tuple of str
        Those of them that it may build on when it is started again: finished parts of a long preparation.
    others : frozenset of str
        Files that other tasks leave, which this one may not.
    scores_others : bool
        Whether it may leave reports on other models (``reports/evaluation/``).
    """

    run: RunLayout
    task: str
    read_only: tuple[Path, ...] = ()
    hidden: tuple[Path, ...] = ()
    outputs: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    others: frozenset[str] = field(default_factory=frozenset)
    scores_others: bool = False

    @property
    def directory(self) -> Path:
        """Where it is."""
        return self.run.workspace(self.task)

    @property
    def inside(self) -> RunLayout:
        """The same paths as in the run's directory, for what the container writes."""
        return RunLayout(self.directory)

    def readable(self) -> tuple[Path, ...]:
        """List the files of the run that are mounted read-only: what it may read, and the manifests of that."""
        manifests = (manifest_path(path) for path in self.read_only)
        return tuple(dict.fromkeys((*self.read_only, *(path for path in manifests if path.is_file()))))

    def lay_out(self, user: str) -> None:
        """Make it new for a container that runs as ``user``.

        What an earlier container left there goes, but for finished parts that the new one may build on. What it is to
        make goes from the run's directory, too: whatever becomes of it, nothing old must pass for its work.
        """
        self.salvage()
        for name in {*self.outputs, *self._noted()}.difference(self.kept):
            discard(self.run.directory / name)
        self._note.unlink(missing_ok=True)
        for folder in (self.directory, self.inside.predictions_directory, self.inside.reports_directory):
            chown_for(user, folder)
        for path in (*self.readable(), *self.hidden):
            # a mount needs a place; made by the engine, it would be root's, and nobody else could remove it
            place = self.directory / path.relative_to(self.run.directory)
            self._give_folders(user, place.parent)
            place.touch()
        for name in self.kept:
            for source in (self.run.directory / name, manifest_path(self.run.directory / name)):
                if source.is_file():
                    place = self.directory / source.relative_to(self.run.directory)
                    self._give_folders(user, place.parent)
                    _link(source, place)

    def bring_home(self, image: str) -> None:
        """Move what the container left to the run's directory; note which files, and the image that made them.

        May be broken off at any moment and done again.
        """
        brought = []
        for name in self._left():
            if self._may_leave(name):
                self._bring(name)
                brought.append(name)
            else:
                log.warning("%s left %s, which is not for it to leave: not taken", self.task, name)
        with atomic_path(self._note) as temporary:
            # a try that was killed may have brought some of them home
            content = {"image": image, "files": sorted({*brought, *self._noted()})}
            temporary.write_text(json.dumps(content) + "\n", encoding="utf-8")

    def salvage(self) -> None:
        """Remove the workspace; bring home only those parts that are finished and may be built on."""
        for name in self.kept:
            path = self.directory / name
            if self.is_plain(path) and self.is_plain(manifest_path(path)) and verified_manifest(path):
                self._bring(name)
        self.remove()

    def remove(self) -> None:
        """Remove it with everything in it, and the folder of workspaces with the last of them."""
        shutil.rmtree(self.directory, ignore_errors=True)
        if self.directory.exists():
            log.warning("%s could not be removed: parts of it belong to another user", self.directory)
        try:
            self.directory.parent.rmdir()
        except OSError:
            return  # another task works, or this was never made

    def check_plain(self, path: Path) -> None:
        """Make sure that a file in the workspace is a file in the workspace, where it is there at all.

        Raises
        ------
        BadInputError
            When the container left a link or something else that would lead elsewhere.
        """
        if os.path.lexists(path) and not self.is_plain(path):
            msg = f"{path.relative_to(self.directory)}: the container left something that is not a plain file there"
            raise BadInputError(msg)

    def is_plain(self, path: Path) -> bool:
        """Whether a path is that of a regular file, reached through no link below the workspace."""
        try:
            parents = [parent for parent in path.parents if parent.is_relative_to(self.directory)]
            return stat.S_ISREG(path.lstat().st_mode) and all(stat.S_ISDIR(each.lstat().st_mode) for each in parents)
        except OSError:
            return False

    @property
    def _note(self) -> Path:
        return self.run.image_record(self.task)

    def _noted(self) -> list[str]:
        """Name what was brought home before."""
        try:
            files = json.loads(self._note.read_text(encoding="utf-8"))["files"]
        except (OSError, ValueError, LookupError, TypeError):
            return []
        return [str(name) for name in files]

    def _left(self) -> Iterator[str]:
        """Name what the container left, without manifests, temporary files and the places of mounts."""
        mounted = {path.relative_to(self.run.directory) for path in (*self.readable(), *self.hidden)}
        # the walk goes into no link
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
                    log.warning("%s left %s, which is not a plain file: not taken", self.task, name)

    def _may_leave(self, name: str) -> bool:
        if name in self.outputs:
            return True
        folder, _, rest = name.partition("/")
        if not rest or folder in _RESERVED or name in self.others:
            return False
        if folder == "reports":
            return self.scores_others if "/" in rest else rest.partition(".")[0] == self.task
        return True

    def _bring(self, name: str) -> None:
        source, target = self.directory / name, self.run.directory / name
        manifest = manifest_path(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        manifest_path(target).unlink(missing_ok=True)
        _move(source, target)
        if self.is_plain(manifest):
            _move(manifest, manifest_path(target))

    def _give_folders(self, user: str, folder: Path) -> None:
        for each in reversed([folder, *folder.parents]):
            if each.is_relative_to(self.directory):
                chown_for(user, each)


def _link(source: Path, place: Path) -> None:
    place.unlink(missing_ok=True)
    try:
        os.link(source, place)
    except OSError:  # a file system without links, or a file of another user
        shutil.copy(source, place)


def _move(source: Path, target: Path) -> None:
    try:
        source.replace(target)
    except OSError:  # the folder is another user's, from which a file can be read but not taken
        with atomic_path(target) as temporary:
            shutil.copyfile(source, temporary)
