"""The public base images, such as ``python:3.12-slim-bookworm``: present, pulled, or replaced by an offline image."""

from __future__ import annotations

from typing import TYPE_CHECKING

from launcher.errors import EXIT_UNAVAILABLE, LauncherError
from launcher.processes import CommandError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from launcher.console import Step
    from launcher.docker_cli import Docker
    from launcher.paths import ProjectPaths

# A reachable registry responds within seconds; the engine itself gives up on an unreachable one after about 15.
REGISTRY_ANSWERS_SECONDS = 25.0
PULL_SECONDS = 1800.0


def python_image(version: str) -> str:
    """Public name of the base image of a Python version."""
    return f"python:{version}-slim-bookworm"


class BaseImages:
    """Provides base images: present ones, pulled ones, or offline images where no registry is reachable."""

    def __init__(self, docker: Docker, paths: ProjectPaths, *, may_install: bool) -> None:
        self._docker = docker
        self._paths = paths
        self._may_install = may_install
        self._registry_answers: bool | None = None

    def ensure(self, versions: Mapping[str, Sequence[str]], step: Step) -> None:
        """Provide the base image of each Python version, which is mapped to the images that are built on it."""
        step.done(", ".join(self._ensure_one(version, images, step) for version, images in versions.items()))

    def ensure_debian(self, step: Step) -> None:
        """Provide the base image of images without Python."""
        from launcher.offline_images import DEBIAN_IMAGE, build_debian

        if not self._docker.has_image(DEBIAN_IMAGE) and not self.pull(DEBIAN_IMAGE):
            build_debian(self._docker, self._paths, step, may_install=self._may_install)

    def _ensure_one(self, version: str, images: Sequence[str], step: Step) -> str:
        from launcher.offline_images import build_python

        reference = python_image(version)
        if self._docker.has_image(reference):
            return f"{reference} is present"
        step.update(f"pulling {reference}")
        if self.pull(reference):
            return f"{reference} pulled"
        try:
            build_python(self._docker, self._paths, step, version, reference, self.ensure_debian, self._may_install)
        except LauncherError as error:
            raise LauncherError(
                f"{reference} is not available, so these images cannot be built: {', '.join(images)}",
                "No container registry is reachable (the base image could not be pulled), and an offline image could"
                " not be built:",
                error.message,
                *error.details,
                exit_code=EXIT_UNAVAILABLE,
            ) from None
        return f"{reference} built from Debian and this machine's CPython"

    def pull(self, reference: str) -> bool:
        """Pull an image; False if no registry is reachable, which later calls do not check again."""
        if self._registry_answers is False:
            return False
        try:
            # the engine logs the repository it pulls from as soon as the registry has responded
            self._docker.commands.run(
                ["docker", "pull", reference],
                log=self._paths.logs / "pull.log",
                first_output_timeout=REGISTRY_ANSWERS_SECONDS,
                timeout=PULL_SECONDS,
            )
        except CommandError as error:
            self._registry_answers = "pulling from" in error.output.lower()
            return False
        self._registry_answers = True
        return True
