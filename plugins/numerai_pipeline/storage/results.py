"""Immutable results by content: a finished fit or prediction is a directory that never changes.

::

    <data>/results/<task>/<key>/result.json     what it was made from, and when
    <data>/results/<task>/<key>/…               its files

The key is a hash of everything that decides the content: image, environment, and the keys of the inputs. A result is
checked in the workspace of its container and then moved to its place by one rename, so it exists completely or not at
all, and nothing else ever writes there. A *claim*, a lock of the operating system, lets one process at a time make a
result; it ends with its process.
"""

from __future__ import annotations

import json
import shutil
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from numerai_pipeline.core.errors import BadInputError
from numerai_pipeline.storage.directories import flush, flush_tree, remove_directory
from numerai_pipeline.storage.locks import file_lock
from numerai_pipeline.storage.manifests import SUFFIX, verified_manifest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numerai_pipeline.storage.layout import DataLayout

RECORD = "result.json"


@dataclass(frozen=True)
class ResultInfo:
    """Describes a result.

    Attributes
    ----------
    task, key : str
        The task that made it, and its key.
    kind : {"fit", "prediction"}
        A fit serves many rounds; a prediction is one round's.
    image : str
        Full name of the image.
    dataset : str
        Key of the dataset that it was made from.
    round : str
        The round of the run that made it.
    run : str
        That run, ``<dag>/<run id>``.
    inputs : dict
        Everything that the key is the hash of.
    created_at : str
        ISO 8601 moment, UTC.
    """

    task: str
    key: str
    kind: str
    image: str
    dataset: str
    round: str
    run: str
    inputs: dict[str, Any] = field(default_factory=dict)
    created_at: str = ""


class ResultStore:
    """The results of a data volume.

    Parameters
    ----------
    data : DataLayout
        The data volume.
    """

    def __init__(self, data: DataLayout) -> None:
        self._data = data

    def path(self, task: str, key: str) -> Path:
        """Return the directory of a result, which need not exist."""
        return self._data.result(task, key)

    def has(self, task: str, key: str) -> bool:
        """Whether a result exists; then it is finished."""
        return (self.path(task, key) / RECORD).is_file()

    def read(self, task: str, key: str) -> ResultInfo:
        """Read the description of a result.

        Raises
        ------
        BadInputError
            When the result does not exist, or its description is damaged.
        """
        file = self.path(task, key) / RECORD
        try:
            return ResultInfo(**json.loads(file.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError, RecursionError) as error:
            msg = f"{file}: the result of `{task}` is missing or damaged ({error}): clear `{task}` and run it again"
            raise BadInputError(msg) from error

    def is_whole(self, task: str, key: str) -> bool:
        """Whether the files of a result match their manifests; it reads all of them."""
        manifests = self.path(task, key).rglob(f"*{SUFFIX}")
        return all(verified_manifest(each.with_name(each.name.removesuffix(SUFFIX))) for each in manifests)

    def discard(self, task: str, key: str) -> None:
        """Remove a damaged result, which the caller has claimed."""
        remove_directory(self.path(task, key))

    def publish(self, directory: Path, info: ResultInfo) -> Path:
        """Move a finished, checked directory to its place by one rename; return the place.

        A result that another process has published since stays, and the directory is removed.

        Parameters
        ----------
        directory : Path
            On the same volume. It no longer exists afterwards.
        info : ResultInfo
            Its description; the moment of its creation is added.

        Raises
        ------
        BadInputError
            When it holds anything but regular files and directories, such as a link out of it.
        """
        _require_plain(directory)
        target = self.path(info.task, info.key)
        content = asdict(info) | {"created_at": datetime.now(tz=UTC).isoformat(timespec="seconds")}
        record = directory / RECORD
        record.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        flush_tree(directory)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            directory.rename(target)
        except OSError:
            if not self.has(info.task, info.key):
                raise
            shutil.rmtree(directory)
        flush(target.parent)
        return target

    @contextmanager
    def claim(self, task: str, key: str) -> Iterator[bool]:
        """Claim a result while the block runs; yields False when another process has the claim."""
        with file_lock(self._claim_file(task, key)) as held:
            yield held

    def is_claimed(self, task: str, key: str) -> bool:
        """Whether a process makes this result at present."""
        if not self._claim_file(task, key).exists():
            return False
        with self.claim(task, key) as held:
            return not held

    def _claim_file(self, task: str, key: str) -> Path:
        return self._data.work(task, key).with_suffix(".lock")


def _require_plain(directory: Path) -> None:
    for path in directory.rglob("*"):
        if path.is_symlink() or not (path.is_dir() or path.is_file()):
            msg = f"{path.relative_to(directory)}: the container produced something other than a regular file"
            raise BadInputError(msg)
