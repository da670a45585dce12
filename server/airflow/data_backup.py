"""Backs up the data directory: packs it to standard output, unpacks it from standard input.

``python -m server.airflow.data_backup pack`` includes the files that only computing could restore: predictions,
reports, boards, submissions, and every manifest. Downloads and the tables made of them are excluded unless
``--everything`` is given; their manifests are included. ``unpack`` restores missing files, and never overwrites an
existing file.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tarfile
from pathlib import Path
from typing import IO, BinaryIO

MANIFEST = ".manifest.json"
DOWNLOADS = "downloads"
# the tables of a run, named as in run_layout.py: unzip makes them again from the downloads
TABLES = frozenset({"training.parquet", "tournament.parquet", "training.csv", "tournament.csv"})


def is_backed_up(path: Path, *, everything: bool) -> bool:
    """Whether a file, given by its path relative to the data directory, is included in a backup.

    Hidden files, which are locks and partial files, are excluded, except for the deployment's id.
    """
    if path.name.startswith(".") and path.name != ".installation" and ".runs" not in path.parts:
        return False
    if everything or path.name.endswith(MANIFEST):
        return True
    return path.parts[0] != DOWNLOADS and path.name not in TABLES


def pack(data: Path, sink: BinaryIO, *, everything: bool) -> None:
    """Write a compressed tar of the included files."""
    with tarfile.open(fileobj=sink, mode="w|gz") as tar:
        for folder, folders, files in os.walk(data):
            folders.sort()
            for name in sorted(files):
                path = Path(folder, name)
                relative = path.relative_to(data)
                if not is_backed_up(relative, everything=everything) or path.is_symlink():
                    continue
                try:
                    tar.add(path, arcname=str(relative), recursive=False)
                except FileNotFoundError:
                    # removed meanwhile by housekeeping or by a task that replaces its output
                    continue


def unpack(data: Path, source: BinaryIO) -> dict[str, int]:
    """Restore missing files; returns the numbers of restored files, of existing ones, and of ones to be computed.

    A manifest without its file is not restored.
    """
    restored = existing = 0
    waiting: dict[Path, bytes] = {}
    with tarfile.open(fileobj=source, mode="r|gz") as tar:
        for member in tar:
            path = data / member.name
            if not member.isfile() or ".." in Path(member.name).parts or Path(member.name).is_absolute():
                continue
            if path.exists():
                existing += 1
                continue
            content = tar.extractfile(member)
            if content is None:
                continue
            if path.name.endswith(MANIFEST):
                waiting[path] = content.read()
                continue
            _write(path, content)
            restored += 1
    missing = 0
    for path, text in waiting.items():
        if path.with_name(path.name.removesuffix(MANIFEST)).exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text)
            restored += 1
        else:
            missing += 1
    return {"restored": restored, "existing": existing, "to be computed": missing}


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
    parser.add_argument("--everything", action="store_true", help="downloads and tables as well")
    arguments = parser.parse_args()
    data = Path(os.environ["NUMERAI_DATA_DIR"])
    if arguments.action == "pack":
        pack(data, sys.stdout.buffer, everything=arguments.everything)
    else:
        print(json.dumps(unpack(data, sys.stdin.buffer)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
