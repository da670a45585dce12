"""Offline replacements for the public base images, for machines with Debian's packages but without a registry.

``debian:bookworm-slim`` is built from Debian's packages by debootstrap. ``python:<version>-slim-bookworm`` adds a
CPython of that version found on this machine, copied to ``/usr/local`` as in the public image, and pip. Both trust the
certificate authorities of this machine. They have the public names, so Dockerfiles need no change, and the label
``numerai.stand-in``. A machine with a registry needs nothing of this folder.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from launcher import debian
from launcher.errors import LauncherError
from launcher.offline_images.interpreters import Interpreter, find_interpreters, install_with_uv
from launcher.processes import CommandError, tail

if TYPE_CHECKING:
    from collections.abc import Callable

    from launcher.console import Step
    from launcher.docker_cli import Docker
    from launcher.paths import ProjectPaths

SUITE = "bookworm"
MIRROR = "http://deb.debian.org/debian"
SOURCES = f"""\
deb {MIRROR} {SUITE} main
deb {MIRROR} {SUITE}-updates main
deb {MIRROR}-security {SUITE}-security main
"""
DEBIAN_IMAGE = "debian:bookworm-slim"
AUTHORITIES = Path("/usr/local/share/ca-certificates")
STEP_SECONDS = 900.0
DEBIANS_PYTHON = "3.11"
DEBIANS_PACKAGES = "python3 python3-pip python3-venv"
# the libraries the extension modules of a CPython are linked with
PACKAGES = (
    "libbz2-1.0 libexpat1 libffi8 libgdbm6 liblzma5 libncursesw6 libreadline8 libsqlite3-0 libssl3 libuuid1 zlib1g"
)
DEBOOTSTRAP = ("debootstrap", "debian-archive-keyring")
# not in a slim image: manuals, translations, the lists and archives of apt
EXCLUDED = (*(f"usr/share/{name}" for name in ("doc", "man", "info", "locale")), "var/cache/apt", "var/lib/apt/lists")


def build_python(
    docker: Docker,
    paths: ProjectPaths,
    step: Step,
    version: str,
    reference: str,
    ensure_debian: Callable[[Step], None],
    may_install: bool,
) -> None:
    """Build the offline image of a Python version, on the Debian that ``ensure_debian`` provides."""
    step.update(f"looking for a CPython {version} on this machine")
    interpreters: list[Interpreter | None] = [*find_interpreters(version)]
    if version == DEBIANS_PYTHON:
        # Debian's own is spread over /usr and cannot be copied: its packages are installed
        interpreters = [None]
    elif not interpreters and may_install:
        step.update(f"there is no CPython {version} here: downloading one with uv")
        install_with_uv(docker.commands, version)
        interpreters = [*find_interpreters(version)]
    if not interpreters:
        raise LauncherError(
            f"there is no CPython {version} on this machine for an offline image",
            "Looked on PATH, in pyenv's versions, in uv's pythons and in /usr/local.",
            f"Install one, for instance with `uv python install {version}` or `pyenv install {version}`,"
            " or provide access to a registry.",
        )
    ensure_debian(step)
    step.update(f"building {reference} from Debian and CPython {version}")
    log, failures = paths.logs / "offline-images.log", []
    for interpreter in interpreters:
        try:
            return _build(docker, log, reference, interpreter)
        except LauncherError as error:
            # a CPython built for a newer Debian, or without a library, does not run there; try the next one
            failures.append(f"{interpreter.executable if interpreter else 'Debian'}: {tail(error.details[0], 6)}")
    msg = f"no CPython {version} of this machine runs on Debian {SUITE}"
    raise LauncherError(msg, *failures, f"The full log: {log}")


def _build(docker: Docker, log: Path, reference: str, interpreter: Interpreter | None) -> None:
    with tempfile.TemporaryDirectory(prefix="numerai-offline-image-") as temporary:
        context = Path(temporary)
        (context / "authorities").mkdir()
        for certificate in sorted(AUTHORITIES.glob("**/*.crt")):
            shutil.copy(certificate, context / "authorities")
        if interpreter is None:
            (context / "python").mkdir()
            python, packages = f"/usr/bin/python{DEBIANS_PYTHON}", DEBIANS_PACKAGES
        else:
            interpreter.copy_to(context / "python")
            python, packages = f"/usr/local/bin/python{interpreter.version}", PACKAGES
        arguments = {"DEBIAN_IMAGE": DEBIAN_IMAGE, "PYTHON": python, "PACKAGES": packages}
        dockerfile = Path(__file__).with_name("Dockerfile")
        docker.build(reference, reference, context, dockerfile, arguments, log, ["--pull=false"])


def build_debian(docker: Docker, paths: ProjectPaths, step: Step, *, may_install: bool) -> None:
    """Build ``debian:bookworm-slim`` from Debian's packages; its file system is kept in the cache."""
    log, archive = paths.logs / "offline-images.log", paths.cache / f"debian-{SUITE}.tar"
    if not archive.is_file():
        if sys.platform != "linux" or not debian.is_root():
            msg = "building a Debian from its packages requires root on Linux"
            raise LauncherError(msg, "Run this as root, or provide access to a container registry.")
        if shutil.which("debootstrap") is None:
            if not (debian.is_debian() and may_install):
                raise LauncherError(
                    "debootstrap, which builds a Debian from its packages, is not installed",
                    f"Install it:  apt-get install --no-install-recommends {' '.join(DEBOOTSTRAP)}",
                )
            step.update("installing debootstrap (Debian package)")
            debian.install(docker.commands, DEBOOTSTRAP, paths.logs / "apt.log")
        step.update(f"building {DEBIAN_IMAGE} from Debian's packages (about 40 s, once)")
        with tempfile.TemporaryDirectory(prefix="numerai-debian-") as temporary:
            # the folder becomes the image's root folder, which every user must be able to enter
            Path(temporary).chmod(0o755)
            _debootstrap(docker, Path(temporary) / "root", archive, log)
    step.update(f"importing {DEBIAN_IMAGE}")
    path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    changes = ('CMD ["bash"]', f"ENV PATH={path}", "LABEL numerai.stand-in=debian")
    options = [word for change in changes for word in ("--change", change)]
    docker.commands.run(["docker", "import", *options, archive, DEBIAN_IMAGE], timeout=STEP_SECONDS, log=log)


def _debootstrap(docker: Docker, root: Path, archive: Path, log: Path) -> None:
    run = docker.commands.run
    try:
        run(["debootstrap", "--variant=minbase", SUITE, root, MIRROR], timeout=STEP_SECONDS, log=log)
    except CommandError as error:
        msg = "debootstrap failed; check that Debian's packages are reachable"
        raise LauncherError(msg, tail(error.output, 8), f"The full log: {log}") from None
    (root / "etc/apt/sources.list").write_text(SOURCES)
    # do not publish this machine's name and name servers
    (root / "etc/hostname").unlink(missing_ok=True)
    (root / "etc/resolv.conf").write_text("")
    partial = archive.with_suffix(".part")
    excluded = [f"--exclude=./{folder}/*" for folder in (*EXCLUDED, "var/log", "dev")]
    tar = ["tar", "--create", "--numeric-owner", f"--file={partial}", f"--directory={root}", *excluded, "."]
    run(tar, timeout=STEP_SECONDS, log=log)
    partial.replace(archive)
