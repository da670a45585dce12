"""The data directory's part of a backup: packed on standard output, unpacked from standard input.

``python -m server.airflow.keepsakes pack`` takes what cannot be had again but by computing it: predictions, reports,
boards, what was submitted, and every manifest. What Numerai serves (downloads) and the tables made of it are left out,
unless ``--everything`` is asked for; their manifests tell what they were. ``unpack`` puts back what is missing, and
never writes over a file that is there.
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
# the tables of a run, as run_layout.py names them: unzip makes them again from the downloads
TABLES = frozenset({"training.parquet", "tournament.parquet", "training.csv", "tournament.csv"})


def is_kept(path: Path, *, everything: bool) -> bool:
    """Whether a file, named relative to the data directory, goes into a backup.

    Locks and what is being written at the moment (hidden files) do not, but for the installation's id.
    """
    if path.name.startswith(".") and path.name != ".installation" and ".runs" not in path.parts:
        return False
    if everything or path.name.endswith(MANIFEST):
        return True
    return path.parts[0] != DOWNLOADS and path.name not in TABLES


def pack(data: Path, sink: BinaryIO, *, everything: bool) -> None:
    """Write a compressed tar of what is kept."""
    with tarfile.open(fileobj=sink, mode="w|gz") as tar:
        for folder, folders, files in os.walk(data):
            folders.sort()
            for name in sorted(files):
                path = Path(folder, name)
                inside = path.relative_to(data)
                if not is_kept(inside, everything=everything) or path.is_symlink():
                    continue
                try:
                    tar.add(path, arcname=str(inside), recursive=False)
                except FileNotFoundError:
                    # housekeeping, or a task that replaces its output, was quicker
                    continue


def unpack(data: Path, source: BinaryIO) -> dict[str, int]:
    """Put back what is missing; returns how many files were put back, were there, and must be made again.

    A manifest whose file is not there is not put back: it would promise what does not exist.
    """
    put_back = there = 0
    waiting: dict[Path, bytes] = {}
    with tarfile.open(fileobj=source, mode="r|gz") as tar:
        for member in tar:
            path = data / member.name
            if not member.isfile() or ".." in Path(member.name).parts or Path(member.name).is_absolute():
                continue
            if path.exists():
                there += 1
                continue
            content = tar.extractfile(member)
            if content is None:
                continue
            if path.name.endswith(MANIFEST):
                waiting[path] = content.read()
                continue
            _write(path, content)
            put_back += 1
    missing = 0
    for path, text in waiting.items():
        if path.with_name(path.name.removesuffix(MANIFEST)).exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text)
            put_back += 1
        else:
            missing += 1
    return {"put back": put_back, "there": there, "to be made again": missing}


def _write(path: Path, content: IO[bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.part")
    with beside.open("wb") as file:
        shutil.copyfileobj(content, file)
    beside.replace(path)


def main() -> int:
    """Do what the command line says; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("pack", "unpack"))
    parser.add_argument("--everything", action="store_true", help="downloads and tables as well")
    chosen = parser.parse_args()
    data = Path(os.environ["NUMERAI_DATA_DIR"])
    if chosen.action == "pack":
        pack(data, sys.stdout.buffer, everything=chosen.everything)
    else:
        print(json.dumps(unpack(data, sys.stdin.buffer)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
