"""``make clean``: remove generated files. Downloads, environments and results are removed only with ``ALL=1``."""

from __future__ import annotations

import shutil
from contextlib import suppress
from typing import TYPE_CHECKING

from launcher.docker_cli import Docker
from launcher.errors import LauncherError
from launcher.images import LABEL
from launcher.processes import CommandError, Commands
from launcher.up import down

if TYPE_CHECKING:
    from launcher.context import CommandContext
    from launcher.options import CleanOptions

TOOL_CACHES = (".mypy_cache", ".ruff_cache", ".pytest_cache", ".hypothesis")


def clean(context: CommandContext, options: CleanOptions) -> int:
    """Stop everything, then remove Airflow's home and the caches; with ALL=1 everything git ignores."""
    down(context, options)
    root, docker, images = context.paths.root, Docker(Commands()), list[str]()
    folders = [context.paths.airflow_home, context.paths.cache, *(root / name for name in TOOL_CACHES)]
    folders += [path for path in root.rglob("__pycache__") if not {".venv", ".uv"}.intersection(path.parts)]
    if options.everything:
        # images are shared by all checkouts on this engine
        with suppress(CommandError, OSError):
            images = docker.images(LABEL)
        # the environment of this program is removed last
        folders += [context.paths.data, root / ".uv", root / ".venv"]
    removed = [folder for folder in folders if folder.exists()]
    for folder in removed:
        try:
            shutil.rmtree(folder)
        except PermissionError as error:
            msg = f"{error.filename} cannot be removed: it belongs to another user (perhaps a container's)"
            raise LauncherError(msg, f"Remove it as root:  sudo rm -rf {folder}") from None
    if images:
        with suppress(CommandError, OSError):
            docker.commands.run(["docker", "rmi", *images], timeout=120, check=False)
    named = [folder.name for folder in removed if folder.name != "__pycache__"]
    context.screen.success("Removed", ", ".join([*named, *images]) or "nothing: there was nothing to remove")
    if not options.everything:
        context.screen.print("  Kept: data/, .venv/ and the model images; `make clean ALL=1` removes them too.")
    return 0
