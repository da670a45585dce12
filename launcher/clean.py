"""``make clean``: remove what was made. What took long to get, or cannot be got again, goes only with ``ALL=1``."""

from __future__ import annotations

import shutil
from contextlib import suppress
from typing import TYPE_CHECKING

from launcher.errors import LauncherError
from launcher.processes import CommandError
from launcher.up import down

if TYPE_CHECKING:
    from pathlib import Path

    from launcher.knobs import Knobs
    from launcher.session import Session

TOOL_CACHES = (".mypy_cache", ".ruff_cache", ".pytest_cache", ".hypothesis")


def clean(session: Session, knobs: Knobs) -> int:
    """Stop everything, then remove Airflow's home and the caches; with ALL=1 everything git ignores."""
    down(session)
    root = session.checkout.root
    # images are shared by all checkouts on this engine, so they go only when everything does
    images = _image_names(session) if knobs.everything else []
    folders = [session.checkout.airflow_home, session.checkout.cache, *(root / name for name in TOOL_CACHES)]
    folders += [path for path in root.rglob("__pycache__") if not {".venv", ".uv"}.intersection(path.parts)]
    if knobs.everything:
        # the environment this very program runs in goes last
        folders += [session.checkout.data, root / ".uv", root / ".venv"]
    removed = [folder for folder in folders if folder.exists()]
    for folder in removed:
        _remove(folder)
    if images:
        with suppress(CommandError, OSError):
            session.docker.commands.run(["docker", "rmi", *images], timeout=120, check=False)
    named = [folder.name for folder in removed if folder.name != "__pycache__"]
    session.screen.tick("Removed", ", ".join([*named, *images]) or "nothing: nothing was there")
    if not knobs.everything:
        session.screen.say("  Kept: data/, .venv/ and the model images; `make clean ALL=1` removes them too.")
    return 0


def _image_names(session: Session) -> list[str]:
    with suppress(CommandError, OSError):
        return session.docker.images(numerai_image="")
    return []


def _remove(folder: Path) -> None:
    try:
        shutil.rmtree(folder)
    except PermissionError as error:
        msg = f"{error.filename} cannot be removed: it belongs to somebody else (a container's user, perhaps)"
        raise LauncherError(msg, f"Remove it as root:  sudo rm -rf {folder}") from None
