"""Backs up the data directory: packs it to standard output, unpacks it from standard input.

``python -m server.airflow.data_backup pack`` includes the directories of the runs, with their links, and the results
that they use, fits included, so that a restored server can predict at once. Of the datasets it includes the metadata.
Downloads and tables are excluded unless ``--everything`` is given: `download` and `unzip` make them again. ``unpack``
restores missing files, and never overwrites an existing file.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import sys
import tarfile
from pathlib import Path
from typing import IO, BinaryIO

from numerai_pipeline.storage.layout import DataLayout, RunLayout
from numerai_pipeline.storage.results import RECORD
from numerai_pipeline.storage.used_objects import used_objects

MANIFEST = ".manifest.json"
# tables in a run's directory that tasks make again from the downloads
TABLES = frozenset({"training.parquet", "tournament.parquet", "training.csv", "tournament.csv"})
# a link of a run's directory to a result on the same volume, wherever that is mounted
_LINK = re.compile(r"(\.\./)+results/[^/.][^/]*/[^/.][^/]*/.+")


class Selection:
    """Selects the files of a backup.

    Parameters
    ----------
    data : Path
        The data directory.
    everything : bool
        Whether to include downloads, tables, and results that no run uses.
    """

    def __init__(self, data: Path, *, everything: bool) -> None:
        layout = DataLayout(data)
        used = used_objects(layout, [RunLayout(path) for path in layout.rounds.glob("[!.]*/[!.]*") if path.is_dir()])
        self._everything = everything
        self._results = {str(path.relative_to(data)) for path in used.results}
        self._datasets = used.datasets

    def includes(self, path: Path) -> bool:
        """Whether a file, given by its path relative to the data directory, is in the backup.

        Locks, partial files and workspaces are excluded.
        """
        first, *rest = path.parts
        # a hidden file in a result is part of it
        if any(part.startswith(".") for part in (path.parts[:3] if first == "results" else path.parts)):
            return str(path) == ".installation"
        if first == "work":
            return False
        if self._everything or first not in {"downloads", "datasets", "results", "rounds"}:
            return True
        if first == "rounds":
            return path.name.removesuffix(MANIFEST) not in TABLES
        if first == "datasets":
            return rest[0] in self._datasets and path.name == "dataset.json"
        return first == "results" and str(Path(*path.parts[:3])) in self._results


def pack(data: Path, sink: BinaryIO, *, everything: bool) -> None:
    """Write a compressed tar of the included files; links of runs to results are kept as links."""
    selection = Selection(data, everything=everything)
    with tarfile.open(fileobj=sink, mode="w|gz") as tar:
        for folder, folders, files in os.walk(data):
            folders.sort()
            for name in sorted(files):
                path = Path(folder, name)
                relative = path.relative_to(data)
                if not selection.includes(relative) or not (path.is_file() or path.is_symlink()):
                    continue
                if path.is_symlink() and not is_result_link(relative, str(path.readlink())):
                    continue
                try:
                    tar.add(path, arcname=str(relative), recursive=False)
                except FileNotFoundError:
                    # removed meanwhile by housekeeping or by a task that replaces its output
                    continue


def is_result_link(link: Path, target: str) -> bool:
    """Whether a link in a run's directory, relative to the data directory, leads to a result there."""
    inside = os.path.normpath(link.parent / target)
    return link.parts[0] == "rounds" and bool(_LINK.fullmatch(target)) and inside.startswith("results/")


def unpack(data: Path, source: BinaryIO) -> dict[str, int]:
    """Restore missing files; returns the numbers of restored files, of existing ones, and of ones to be computed.

    A manifest without its file is not restored. The description of a result, without which it does not count, is
    restored after all of its files.
    """
    restored = existing = 0
    waiting: dict[Path, bytes] = {}
    with tarfile.open(fileobj=source, mode="r|gz") as tar:
        for member in tar:
            path, name = data / member.name, Path(member.name)
            is_link = member.issym() and is_result_link(name, member.linkname)
            if not (member.isfile() or is_link) or ".." in name.parts or name.is_absolute():
                continue
            if os.path.lexists(path):
                existing += 1
                continue
            if is_link:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.symlink_to(member.linkname)
                restored += 1
                continue
            content = tar.extractfile(member)
            if content is None:
                continue
            if path.name.endswith(MANIFEST) or _is_description(name):
                waiting[path] = content.read()
                continue
            _write(path, content)
            restored += 1
    missing = 0
    for path, text in waiting.items():
        if path.name == RECORD or path.with_name(path.name.removesuffix(MANIFEST)).exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text)
            restored += 1
        else:
            missing += 1
    return {"restored": restored, "existing": existing, "to be computed": missing}


def _is_description(path: Path) -> bool:
    return path.parts[0] == "results" and path.name == RECORD


def _write(path: Path, content: IO[bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.part")
    with partial.open("wb") as file:
        shutil.copyfileobj(content, file)
    partial.replace(path)


def main() -> int:
    """Run the action of the command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("pack", "unpack"))
    parser.add_argument("--everything", action="store_true", help="downloads, tables and unused results as well")
    arguments = parser.parse_args()
    data = Path(os.environ["NUMERAI_DATA_DIR"])
    if arguments.action == "pack":
        pack(data, sys.stdout.buffer, everything=arguments.everything)
    else:
        print(json.dumps(unpack(data, sys.stdin.buffer)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
