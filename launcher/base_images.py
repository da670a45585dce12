"""The public base images, such as ``python:3.12-slim-bookworm``: here already, pulled, or built as a stand-in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from launcher.errors import EXIT_UNAVAILABLE, LauncherError
from launcher.processes import CommandError
from launcher.stand_ins import StandIns

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from launcher.checkout import Checkout
    from launcher.console import Step
    from launcher.docker_cli import Docker

# A registry that is there answers within seconds; the engine itself gives up on one that is not after about 15.
REGISTRY_ANSWERS_SECONDS = 25.0
PULL_SECONDS = 1800.0


def python_image(version: str) -> str:
    """Public name of the base image of a Python version."""
    return f"python:{version}-slim-bookworm"


class BaseImages:
    """Sees to it that base images are there, by whichever way this machine allows."""

    def __init__(self, docker: Docker, checkout: Checkout, *, may_install: bool, prefix: str = "") -> None:
        self._docker = docker
        self._checkout = checkout
        self._prefix = prefix
        self._registry_answers: bool | None = None
        self._stand_ins = StandIns(docker, checkout, pull=self.pull, may_install=may_install, prefix=prefix)

    def ensure(self, versions: Mapping[str, Sequence[str]], step: Step) -> None:
        """Provide the base image of each Python version.

        Parameters
        ----------
        versions
            Python version → the images that are built on it (to say which cannot be).
        step
            Where to say what is going on.

        Raises
        ------
        LauncherError
            Naming the versions that cannot be had, why, and the images that cannot be built without them.
        """
        outcomes = [self._ensure_one(version, images, step) for version, images in versions.items()]
        step.done(", ".join(outcomes))

    def ensure_debian(self, step: Step) -> None:
        """Provide the base image of what needs no Python."""
        self._stand_ins.ensure_debian(step)

    def _ensure_one(self, version: str, images: Sequence[str], step: Step) -> str:
        reference = self._prefix + python_image(version)
        if self._docker.has_image(reference):
            return f"{reference} is here"
        step.update(f"pulling {reference}")
        if self.pull(reference):
            return f"{reference} pulled"
        try:
            self._stand_ins.build_python(version, reference, step)
        except LauncherError as error:
            raise LauncherError(
                f"{reference} cannot be had, so these images cannot be built: {', '.join(images)}",
                "No container registry answers from here (the base image could not be pulled), and a stand-in could"
                " not be built either:",
                f"{error.message}",
                *error.details,
                exit_code=EXIT_UNAVAILABLE,
            ) from None
        return f"{reference} built from Debian and this machine's CPython"

    def pull(self, reference: str) -> bool:
        """Pull an image; False where no registry answers, which is then remembered."""
        if self._prefix or self._registry_answers is False:
            return False
        log = self._checkout.logs / "pull.log"
        try:
            # the engine says which repository it pulls from as soon as the registry has answered
            self._docker.commands.run(
                ["docker", "pull", reference],
                log=log,
                first_words_within=REGISTRY_ANSWERS_SECONDS,
                timeout=PULL_SECONDS,
            )
        except CommandError as error:
            self._registry_answers = "pulling from" in error.output.lower()
            return False
        self._registry_answers = True
        return True
