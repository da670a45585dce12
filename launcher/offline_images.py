"""Offline replacements for the public base images, for machines with Debian's packages but without a registry.

``debian:bookworm-slim`` is built from Debian's packages by debootstrap. ``python:<version>-slim-bookworm`` adds a
CPython of that version found on this machine, copied to ``/usr/local`` as in the public image, and pip. Both trust the
certificate authorities of this machine, so that builds work behind a TLS-inspecting proxy. They have the public names,
so Dockerfiles need no change, and the label ``numerai.stand-in``.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from launcher import debian
from launcher.errors import LauncherError
from launcher.processes import CommandError, tail
from launcher.python_discovery import Interpreter, find_interpreters, install_with_uv

if TYPE_CHECKING:
    from collections.abc import Callable

    from launcher.console import Step
    from launcher.docker_cli import Docker
    from launcher.paths import ProjectPaths

SUITE = "bookworm"
MIRROR = "http://deb.debian.org/debian"
SECURITY_MIRROR = "http://deb.debian.org/debian-security"
DEBIAN_IMAGE = "debian:bookworm-slim"
LABEL = "numerai.stand-in"
LOCAL_AUTHORITIES = Path("/usr/local/share/ca-certificates")
BUILD_SECONDS = 900.0

SOURCES = f"""\
deb {MIRROR} {SUITE} main
deb {MIRROR} {SUITE}-updates main
deb {SECURITY_MIRROR} {SUITE}-security main
"""

# excluded from a slim image: manuals, translations, the lists and archives of apt
EXCLUDED_FROM_SLIM = (
    "./usr/share/doc/*",
    "./usr/share/man/*",
    "./usr/share/info/*",
    "./usr/share/locale/*",
    "./var/cache/apt/*",
    "./var/lib/apt/lists/*",
    "./var/log/*",
    "./dev/*",
)

# the libraries the extension modules of a CPython are linked with; certificates for ssl
PYTHON_PACKAGES = (
    "ca-certificates libbz2-1.0 libexpat1 libffi8 libgdbm6 liblzma5 libncursesw6 libreadline8 libsqlite3-0 libssl3"
    " libuuid1 netbase tzdata zlib1g"
)

PYTHON_DOCKERFILE = f"""\
ARG DEBIAN_IMAGE={DEBIAN_IMAGE}
FROM $DEBIAN_IMAGE
RUN apt-get update \\
 && apt-get install -y --no-install-recommends {PYTHON_PACKAGES} \\
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin
COPY authorities/ /usr/local/share/ca-certificates/
RUN update-ca-certificates \\
 && printf '[global]\\ncert = /etc/ssl/certs/ca-certificates.crt\\n' > /etc/pip.conf
ENV SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt LANG=C.UTF-8
COPY python/ /usr/local/
ARG PYTHON_VERSION
RUN ldconfig \\
 && ln -sf python$PYTHON_VERSION /usr/local/bin/python3 \\
 && ln -sf python$PYTHON_VERSION /usr/local/bin/python \\
 && python -c 'import bz2, ctypes, hashlib, lzma, sqlite3, ssl, zlib' \\
 && python -m ensurepip --default-pip \\
 && pip --version
CMD ["python3"]
LABEL {LABEL}=python
"""

# Debian's own Python is spread over /usr and cannot be copied: install its packages, with the public image's names
DEBIANS_PYTHON_DOCKERFILE = f"""\
ARG DEBIAN_IMAGE={DEBIAN_IMAGE}
FROM $DEBIAN_IMAGE
RUN apt-get update \\
 && apt-get install -y --no-install-recommends ca-certificates netbase tzdata python3 python3-pip python3-venv \\
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin /usr/lib/python3*/EXTERNALLY-MANAGED
COPY authorities/ /usr/local/share/ca-certificates/
RUN update-ca-certificates \\
 && printf '[global]\\ncert = /etc/ssl/certs/ca-certificates.crt\\n' > /etc/pip.conf
ENV SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt LANG=C.UTF-8
RUN ln -s /usr/bin/python3 /usr/local/bin/python3 && ln -s /usr/bin/python3 /usr/local/bin/python \\
 && python -c 'import bz2, ctypes, hashlib, lzma, sqlite3, ssl, zlib' && pip --version
CMD ["python3"]
LABEL {LABEL}=python
"""
DEBIANS_PYTHON = "3.11"


class OfflineBaseImages:
    """Builds offline replacements for the public base images.

    Parameters
    ----------
    docker, paths
        The engine, and the folders of logs and the cached Debian.
    pull
        Pulls an image by its name; returns whether it succeeded.
    may_install
        Whether debootstrap may be installed.
    prefix
        Prefix of every name, to build offline images beside the public ones.
    """

    def __init__(
        self,
        docker: Docker,
        paths: ProjectPaths,
        *,
        pull: Callable[[str], bool],
        may_install: bool,
        prefix: str = "",
    ) -> None:
        self._docker = docker
        self._paths = paths
        self._pull = pull
        self._may_install = may_install
        self._debian = prefix + DEBIAN_IMAGE

    def build_python(self, version: str, reference: str, step: Step) -> None:
        """Build the offline image of a Python version under a name.

        Raises
        ------
        LauncherError
            When there is no matching CPython, or no Debian base image, with the remedy.
        """
        step.update(f"looking for a CPython {version} on this machine")
        interpreters = find_interpreters(version)
        if not interpreters and version != DEBIANS_PYTHON and self._may_install:
            step.update(f"there is no CPython {version} here: downloading one with uv")
            install_with_uv(self._docker.commands, version)
            interpreters = find_interpreters(version)
        if not interpreters and version != DEBIANS_PYTHON:
            msg = f"there is no CPython {version} on this machine for an offline image"
            raise LauncherError(
                msg,
                "Looked on PATH, in pyenv's versions, in uv's pythons and in /usr/local.",
                f"Install one, for instance with `uv python install {version}` or `pyenv install {version}`,"
                " or provide access to a registry.",
            )
        self.ensure_debian(step)
        step.update(f"building {reference} from Debian and CPython {version}")
        if version == DEBIANS_PYTHON:
            self._build(reference, DEBIANS_PYTHON_DOCKERFILE, None)
            return
        failures = []
        for interpreter in interpreters:
            try:
                self._build(reference, PYTHON_DOCKERFILE, interpreter)
            except CommandError as error:
                # a CPython built for a newer Debian, or without a library, does not run there; try the next one
                failures.append(f"{interpreter.executable}: {tail(error.output, 6)}")
            else:
                return
        msg = f"no CPython {version} of this machine runs on Debian {SUITE}"
        raise LauncherError(msg, *failures, f"The full log: {self._log}")

    @property
    def _log(self) -> Path:
        return self._paths.logs / "offline-images.log"

    @property
    def _debian_tar(self) -> Path:
        return self._paths.cache / f"debian-{SUITE}.tar"

    def ensure_debian(self, step: Step) -> None:
        """Provide ``debian:bookworm-slim``: present, pulled, or built from Debian's packages.

        Raises
        ------
        LauncherError
            When it is not available.
        """
        if self._docker.has_image(self._debian) or self._pull(self._debian):
            return
        if not self._debian_tar.is_file():
            self._bootstrap_debian(step)
        step.update(f"importing {self._debian}")
        changes = ['CMD ["bash"]', "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]
        options = [word for change in (*changes, f"LABEL {LABEL}=debian") for word in ("--change", change)]
        self._docker.commands.run(
            ["docker", "import", *options, self._debian_tar, self._debian], timeout=BUILD_SECONDS, log=self._log
        )

    def _bootstrap_debian(self, step: Step) -> None:
        if sys.platform != "linux" or not debian.is_root():
            msg = "building a Debian from its packages requires root on Linux"
            raise LauncherError(msg, "Run this as root, or provide access to a container registry.")
        if shutil.which("debootstrap") is None:
            if not (debian.is_debian() and self._may_install):
                raise LauncherError(
                    "debootstrap, which builds a Debian from its packages, is not installed",
                    "Install it:  apt-get install --no-install-recommends debootstrap debian-archive-keyring",
                )
            step.update("installing debootstrap (Debian package)")
            debian.install(
                self._docker.commands, ("debootstrap", "debian-archive-keyring"), self._paths.logs / "apt.log"
            )
        step.update(f"building {self._debian} from Debian's packages (about 40 s, once)")
        with tempfile.TemporaryDirectory(prefix="numerai-debian-") as temporary:
            # the folder becomes the image's root folder, which every user must be able to enter
            Path(temporary).chmod(0o755)
            self._debootstrap(Path(temporary) / "root")

    def _debootstrap(self, root: Path) -> None:
        run = self._docker.commands.run
        try:
            run(["debootstrap", "--variant=minbase", SUITE, root, MIRROR], timeout=BUILD_SECONDS, log=self._log)
        except CommandError as error:
            msg = "debootstrap failed; check that Debian's packages are reachable"
            raise LauncherError(msg, tail(error.output, 8), f"The full log: {self._log}") from None
        (root / "etc/apt/sources.list").write_text(SOURCES)
        # do not publish this machine's name and name servers
        (root / "etc/hostname").unlink(missing_ok=True)
        (root / "etc/resolv.conf").write_text("")
        partial = self._debian_tar.with_suffix(".part")
        excluded = [f"--exclude={pattern}" for pattern in EXCLUDED_FROM_SLIM]
        run(
            ["tar", "--create", "--numeric-owner", f"--file={partial}", f"--directory={root}", *excluded, "."],
            timeout=BUILD_SECONDS,
            log=self._log,
        )
        partial.replace(self._debian_tar)

    def _build(self, reference: str, dockerfile: str, interpreter: Interpreter | None) -> None:
        with tempfile.TemporaryDirectory(prefix="numerai-offline-image-") as temporary:
            context = Path(temporary)
            authorities = context / "authorities"
            authorities.mkdir()
            for certificate in sorted(LOCAL_AUTHORITIES.glob("**/*.crt")) if LOCAL_AUTHORITIES.is_dir() else []:
                shutil.copyfile(certificate, authorities / certificate.name)
            (context / "Dockerfile").write_text(dockerfile)
            arguments = ["--build-arg", f"DEBIAN_IMAGE={self._debian}"]
            if interpreter is not None:
                interpreter.copy_to(context / "python")
                arguments += ["--build-arg", f"PYTHON_VERSION={interpreter.version}"]
            self._docker.commands.run(
                ["docker", "build", "--force-rm", "--pull=false", *arguments, "--tag", reference, context],
                timeout=BUILD_SECONDS,
                log=self._log,
                env=self._docker.builder_environment,
            )
